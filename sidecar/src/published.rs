//! Which limits are asked for, as sidecars that share a store tell each other: an operator names a bucket and not its limit,
//! and may ask a sidecar that has just started.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};
use tracing::debug;

use crate::{
    overrides::WrittenLimit,
    store::redis::{Control, ControlError},
    telemetry::Telemetry,
};

/// Between two looks at what is news.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// After how many looks all is published again: it says of each that it is asked for still.
const LOOKS_TO_REFRESH: u32 = 60;

/// What was asked for within this time is published again.
const ASKED: Duration = Duration::from_secs(2 * 60);

/// After how many refreshments what nobody refreshes is dropped.
const REFRESHMENTS_TO_DROP: u32 = 60;

/// For how long what nobody refreshes is told, in microseconds: for a day.
const TOLD_US: u64 = 86_400_000_000;

/// The most policies that are published by all sidecars together.
const MAX_PUBLISHED: u64 = 2_000;

/// What is published of a policy.
#[derive(Serialize, Deserialize)]
struct Value {
    #[serde(flatten)]
    limit: WrittenLimit,
    /// When it was published last, by the store's clock.
    seen_us: u64,
}

/// The limits that a sidecar publishes, for as long as this lives.
#[derive(Debug)]
pub struct Published {
    control: Control,
    telemetry: Arc<Telemetry>,
    publishing: AbortHandle,
}

impl Published {
    /// Begins to publish what `telemetry` knows. Must live in a tokio runtime.
    #[must_use]
    pub fn start(control: Control, telemetry: Arc<Telemetry>) -> Self {
        let publishing = tokio::spawn(publish(control.clone(), Arc::clone(&telemetry))).abort_handle();
        Self { control, telemetry, publishing }
    }

    /// Learns what others have published of a policy of this name; whether they could be heard.
    pub async fn learn(&self, policy: &str) -> bool {
        let (all, now_us) = match read(&self.control).await {
            Ok(read) => read,
            Err(error) => {
                debug!(%error, "what other sidecars are asked for is not known");
                return false;
            }
        };
        for (name, value) in all {
            let Some((domain, found, limit)) = understood(&name, &value, now_us) else { continue };
            if found == policy {
                self.telemetry.learn_limit(domain, found, limit);
            }
        }
        true
    }
}

/// All that is published, and when that was.
async fn read(control: &Control) -> Result<(HashMap<Vec<u8>, Vec<u8>>, u64), ControlError> {
    let now_us = control.look().await?.now_us;
    Ok((control.policies().await?, now_us))
}

/// The domain, policy and limit that were published; nothing where they are too old, or none: what others write there may be
/// anything.
fn understood<'a>(name: &'a [u8], value: &[u8], now_us: u64) -> Option<(&'a str, &'a str, WrittenLimit)> {
    let (domain, policy) = str::from_utf8(name).ok()?.split_once('/')?;
    let Value { limit, seen_us } = serde_json::from_slice(value).ok()?;
    let is_right = contract::is_name(domain) && contract::is_name(policy) && limit.limit().is_ok();
    (is_right && seen_us.saturating_add(TOLD_US) > now_us).then_some((domain, policy, limit))
}

impl Drop for Published {
    fn drop(&mut self) {
        self.publishing.abort();
    }
}

async fn publish(control: Control, telemetry: Arc<Telemetry>) {
    let mut ticks = interval(BETWEEN_LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut publisher = Publisher {
        control,
        telemetry,
        news: 0,
        // At first what is too old is dropped.
        looks: LOOKS_TO_REFRESH,
        refreshments: REFRESHMENTS_TO_DROP,
        published: HashMap::new(),
    };
    loop {
        ticks.tick().await;
        if let Err(error) = publisher.look().await {
            // It is tried again; that the store is down it tells by itself.
            debug!(%error, "what this sidecar is asked for is not published");
        }
    }
}

struct Publisher {
    control: Control,
    telemetry: Arc<Telemetry>,
    /// How much news there was when it was published last.
    news: u64,
    /// Since the last refreshment.
    looks: u32,
    /// Since what is too old was dropped.
    refreshments: u32,
    /// What this sidecar has published since the last refreshment.
    published: HashMap<String, WrittenLimit>,
}

impl Publisher {
    async fn look(&mut self) -> Result<(), ControlError> {
        self.looks += 1;
        let is_time = self.looks >= LOOKS_TO_REFRESH;
        // A Redis that forgets, or another one, has none of it.
        let is_lost =
            !self.published.is_empty() && self.control.policies_count().await? < self.published.len() as u64;
        let news = self.telemetry.limit_news();
        if is_time || is_lost {
            self.published.clear();
        } else if news == self.news {
            return Ok(());
        }
        self.publish().await?;
        self.news = news;
        if is_time {
            self.looks = 0;
            self.refreshments += 1;
            if self.refreshments >= REFRESHMENTS_TO_DROP {
                self.refreshments = 0;
                self.drop_old().await?;
            }
        }
        Ok(())
    }

    async fn publish(&mut self) -> Result<(), ControlError> {
        let mut news = Vec::new();
        for (name, limit) in self.telemetry.limits_asked(ASKED) {
            let name = format!("{}/{}", name.domain, name.policy);
            if !name.starts_with('/') && self.published.get(&name) != Some(&limit) {
                news.push((name, limit));
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        let seen_us = self.control.look().await?.now_us;
        let value = |limit: &WrittenLimit| {
            serde_json::to_string(&Value { limit: *limit, seen_us }).unwrap_or_default()
        };
        let fields: Vec<(&str, String)> =
            news.iter().map(|(name, limit)| (name.as_str(), value(limit))).collect();
        let published = self.control.publish_policies(&fields, MAX_PUBLISHED).await?;
        self.published.extend(published.into_iter().map(|place| news[place].clone()));
        Ok(())
    }

    async fn drop_old(&self) -> Result<(), ControlError> {
        let (all, now_us) = read(&self.control).await?;
        let old = all.into_iter().filter(|(name, value)| understood(name, value, now_us).is_none());
        let names: Vec<Vec<u8>> = old.map(|(name, _)| name).collect();
        self.control.drop_policies(&names).await
    }
}
