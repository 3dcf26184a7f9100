//! Finds the primary that Redis Sentinels watch over, and notices when it is another one.
//!
//! All Sentinels are asked at once, and the answer of the newest configuration is believed: each failover counts its
//! epoch up, so a Sentinel that was cut off together with an old primary is overruled by any that was not.

use std::{collections::HashMap, time::Duration};

use redis::{ProtocolVersion, RedisConnectionInfo};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{
    RedisAddress,
    address::{Endpoint, Place},
    dial::{DialError, dial_port},
    tls::TlsFiles,
};

/// How often the Sentinels are asked while a link is up.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How long the other Sentinels may take once one has answered: on the same network they take a millisecond.
const AFTER_THE_FIRST: Duration = Duration::from_millis(100);

/// A primary, as the Sentinels say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) endpoint: Endpoint,
    /// Counted up by each failover.
    pub(super) epoch: u64,
}

/// Why no primary is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindError {
    #[error("no Sentinel tells where the primary {primary:?} is: {}", .reasons.join("; "))]
    Nobody { primary: String, reasons: Vec<String> },
    #[error(
        "the Sentinels that answer ({answers} of {asked}) know of an older failover only than one that was seen; \
         they may be cut off together with an old primary"
    )]
    Outdated { answers: usize, asked: usize },
}

/// Whom to ask, and for what.
#[derive(Clone, Debug)]
pub(super) struct Sentinels {
    endpoints: Vec<Endpoint>,
    primary: String,
    login: RedisConnectionInfo,
    tls: Option<TlsFiles>,
    /// How long one may take to answer.
    patience: Duration,
}

impl Sentinels {
    /// Nothing where the Redis is at a place of its own.
    pub(super) fn of(address: &RedisAddress, patience: Duration) -> Option<Self> {
        let Place::Sentinel { sentinels, primary } = &address.place else { return None };
        Some(Self {
            endpoints: sentinels.clone(),
            primary: primary.clone(),
            login: address.sentinel_login().clone().set_protocol(ProtocolVersion::RESP2),
            tls: address.tls().cloned(),
            patience,
        })
    }

    /// Asks all of them. Once the epoch `seen` was heard of, an older one is believed only where most of them answer:
    /// somebody may have begun anew, and a few may be cut off.
    pub(super) async fn find(&self, seen: u64) -> Result<Primary, FindError> {
        let mut asked = JoinSet::new();
        for endpoint in &self.endpoints {
            let (endpoint, this) = (endpoint.clone(), self.clone());
            asked.spawn(async move {
                let answer = tokio::time::timeout(this.patience, this.ask(&endpoint)).await;
                let reason = match answer {
                    Ok(Ok(primary)) => return Ok(primary),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("no answer within {:?}", this.patience),
                };
                Err(format!("{endpoint}: {reason}"))
            });
        }
        let mut newest: Option<Primary> = None;
        let mut answers = 0;
        let mut reasons = Vec::new();
        let mut until = Instant::now() + self.patience * 2;
        while let Ok(Some(answer)) = timeout_at(until, asked.join_next()).await {
            match answer {
                Ok(Ok(primary)) => {
                    answers += 1;
                    if newest.is_none() {
                        until = until.min(Instant::now() + AFTER_THE_FIRST);
                    }
                    if newest.as_ref().is_none_or(|newest| newest.epoch < primary.epoch) {
                        newest = Some(primary);
                    }
                }
                Ok(Err(reason)) => reasons.push(reason),
                // Nothing panics in it, and nothing aborts it while it is waited for.
                Err(_) => {}
            }
        }
        reasons.sort_unstable();
        let newest = newest.ok_or_else(|| FindError::Nobody { primary: self.primary.clone(), reasons })?;
        if newest.epoch < seen && answers * 2 <= self.endpoints.len() {
            return Err(FindError::Outdated { answers, asked: self.endpoints.len() });
        }
        Ok(newest)
    }

    /// Waits until they name another one than `current`. While none of them answers, it stays.
    pub(super) async fn moved(&self, current: &Primary) -> Primary {
        loop {
            sleep(BETWEEN_LOOKS).await;
            if let Ok(found) = self.find(current.epoch).await
                && found.endpoint != current.endpoint
            {
                return found;
            }
        }
    }

    async fn ask(&self, endpoint: &Endpoint) -> Result<Primary, DialError> {
        let connection = dial_port(endpoint, self.tls.as_ref(), &self.login).await?;
        let mut redis = connection.redis.clone();
        let told: HashMap<String, String> = redis::cmd("SENTINEL")
            .arg("MASTER")
            .arg(&self.primary)
            .query_async(&mut redis)
            .await
            .map_err(|error| DialError::of(error, &endpoint.host))?;
        read(&told).ok_or_else(|| DialError::Strange("where the primary is".to_owned()))
    }
}

fn read(told: &HashMap<String, String>) -> Option<Primary> {
    let endpoint = Endpoint { host: told.get("ip")?.clone(), port: told.get("port")?.parse().ok()? };
    Some(Primary { endpoint, epoch: told.get("config-epoch")?.parse().ok()? })
}
