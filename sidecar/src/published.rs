//! Which limits are asked for, as sidecars that share a store tell each other: an operator names a bucket and not its limit,
//! and may ask a sidecar that has just started.

use std::{collections::HashMap, sync::Arc, time::Duration};

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

/// The most policies that are published by all sidecars together.
const MAX_PUBLISHED: usize = 2_000;

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

    /// Learns what others have published of a policy of this name. Where the store is down nothing is learnt.
    pub async fn learn(&self, policy: &str) {
        let all = match self.control.policies().await {
            Ok(all) => all,
            Err(error) => return debug!(%error, "what other sidecars are asked for is not known"),
        };
        for (name, value) in all {
            let Some((domain, found)) = name.split_once('/') else { continue };
            let limit: Option<WrittenLimit> = serde_json::from_slice(&value).ok();
            // What others write there may be anything.
            if let Some(limit) = limit.filter(|limit| limit.limit().is_ok())
                && found == policy
                && contract::is_name(domain)
            {
                self.telemetry.learn_limit(domain, found, limit);
            }
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.publishing.abort();
    }
}

async fn publish(control: Control, telemetry: Arc<Telemetry>) {
    let mut ticks = interval(BETWEEN_LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut published) = (0, HashMap::new());
    loop {
        ticks.tick().await;
        let news = telemetry.limit_news();
        if news == seen {
            continue;
        }
        match publish_once(&control, &telemetry, &mut published).await {
            Ok(()) => seen = news,
            // It is tried again; that the store is down it tells by itself.
            Err(error) => debug!(%error, "what this sidecar is asked for is not published"),
        }
    }
}

async fn publish_once(
    control: &Control,
    telemetry: &Telemetry,
    published: &mut HashMap<String, WrittenLimit>,
) -> Result<(), ControlError> {
    let mut news = Vec::new();
    for (name, limit) in telemetry.known_limits() {
        let name = format!("{}/{}", name.domain, name.policy);
        if !name.starts_with('/') && published.get(&name) != Some(&limit) {
            news.push((name, limit));
        }
    }
    let value = |limit: &WrittenLimit| serde_json::to_string(limit).unwrap_or_default();
    let fields: Vec<(&str, String)> =
        news.iter().map(|(name, limit)| (name.as_str(), value(limit))).collect();
    if !fields.is_empty() {
        control.publish_policies(&fields, MAX_PUBLISHED).await?;
    }
    published.extend(news);
    Ok(())
}
