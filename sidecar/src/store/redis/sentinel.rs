//! Finds the primary that Redis Sentinels watch over, and notices when it is another one.
//!
//! All Sentinels are asked at once, and the answer of the newest configuration is believed: each failover counts its
//! epoch up, so a Sentinel that was cut off together with an old primary is overruled by any that was not. Without a
//! newer epoch a primary is left only where most of them insist: it is never a coin's toss whom to follow.

use std::{collections::HashMap, time::Duration};

use redis::{ProtocolVersion, RedisConnectionInfo};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    Fault, RedisAddress,
    address::{Endpoint, Place},
    dial::{DialError, dial_port},
    tls::TlsFiles,
};

/// How often the Sentinels are asked while a link is up.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How long the other Sentinels may take once one has answered: on the same network they take a millisecond.
const AFTER_THE_FIRST: Duration = Duration::from_millis(100);

/// At how many looks in a row most Sentinels must name another primary without a newer epoch. They tell each other of a
/// failover each two seconds, so whoever has not heard of one by then was told anew by an operator.
const LOOKS: u32 = 5;

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

/// Why a Sentinel does not tell.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("it does not know this user and password, or wants some; see SLUICE_REDIS_SENTINEL_AUTH")]
    Login,
    #[error(
        "its user lacks a right (NOPERM): {0}; give it by ACL SETUSER: +sentinel|master \
         +sentinel|get-master-addr-by-name"
    )]
    Right(String),
    #[error(transparent)]
    Dial(DialError),
}

impl From<DialError> for AskError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Fault(Fault::NoPassword | Fault::WrongPassword) => Self::Login,
            DialError::Fault(Fault::NoRight(said)) => Self::Right(said),
            error => Self::Dial(error),
        }
    }
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
        let (told, mut reasons) = self.ask_all().await;
        reasons.sort_unstable();
        let (newest, _) =
            newest(&told).ok_or_else(|| FindError::Nobody { primary: self.primary.clone(), reasons })?;
        if newest.epoch < seen && told.len() * 2 <= self.endpoints.len() {
            return Err(FindError::Outdated { answers: told.len(), asked: self.endpoints.len() });
        }
        Ok(newest.clone())
    }

    /// Waits until they name another one than `current`. While none of them answers, it stays.
    pub(super) async fn moved(&self, current: &Primary) -> Primary {
        let mut following = Following { current: current.clone(), insisted: 0 };
        loop {
            sleep(BETWEEN_LOOKS).await;
            let (told, _) = self.ask_all().await;
            if let Some(moved) = following.look(&told, self.endpoints.len()) {
                return moved;
            }
        }
    }

    /// What they tell, and why others do not.
    async fn ask_all(&self) -> (Vec<Primary>, Vec<String>) {
        let connector = match &self.tls {
            None => None,
            Some(files) => match files.read_aside().await {
                Ok(connector) => Some(connector),
                Err(error) => return (Vec::new(), vec![error.to_string()]),
            },
        };
        let mut asked = JoinSet::new();
        for endpoint in &self.endpoints {
            let (endpoint, this, connector) = (endpoint.clone(), self.clone(), connector.clone());
            asked.spawn(async move {
                let asking = this.ask(&endpoint, connector.as_ref());
                let answer = tokio::time::timeout(this.patience, asking).await;
                let reason = match answer {
                    Ok(Ok(primary)) => return Ok(primary),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("no answer within {:?}", this.patience),
                };
                Err(format!("{endpoint}: {reason}"))
            });
        }
        let (mut told, mut reasons) = (Vec::new(), Vec::new());
        let mut until = Instant::now() + self.patience * 2;
        while let Ok(Some(answer)) = timeout_at(until, asked.join_next()).await {
            match answer {
                Ok(Ok(primary)) => {
                    told.push(primary);
                    until = until.min(Instant::now() + AFTER_THE_FIRST);
                }
                Ok(Err(reason)) => reasons.push(reason),
                // Nothing panics in it, and nothing aborts it while it is waited for.
                Err(_) => {}
            }
        }
        (told, reasons)
    }

    async fn ask(&self, endpoint: &Endpoint, connector: Option<&TlsConnector>) -> Result<Primary, AskError> {
        let connection = dial_port(endpoint, connector, &self.login).await?;
        let mut redis = connection.redis.clone();
        let failed = |error| DialError::of(error, &endpoint.host);
        // The Sentinel that leads a failover counts the epoch up as soon as a replica is promoted, and tells its address
        // to whom asks for the address; `MASTER` has the old one until all other replicas follow. The epoch is asked for
        // first: where it changes in between, a new address with an old epoch is not followed before the next look.
        let mut master = redis::cmd("SENTINEL");
        master.arg("MASTER").arg(&self.primary);
        let state: HashMap<String, String> = master.query_async(&mut redis).await.map_err(failed)?;
        let mut get_address = redis::cmd("SENTINEL");
        get_address.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
        let address: Option<(String, u16)> = get_address.query_async(&mut redis).await.map_err(failed)?;
        let told = state.get("config-epoch").and_then(|epoch| epoch.parse().ok()).zip(address);
        let (epoch, (host, port)) =
            told.ok_or_else(|| DialError::Strange("where the primary is".to_owned()))?;
        Ok(Primary { endpoint: Endpoint { host, port }, epoch })
    }
}

/// The primary of the newest epoch, and how many name it: of several, whom the most do.
fn newest(told: &[Primary]) -> Option<(&Primary, usize)> {
    let named_by = |primary: &&Primary| told.iter().filter(|other| other == primary).count();
    let newest = told.iter().max_by_key(|primary| (primary.epoch, named_by(primary)))?;
    Some((newest, named_by(&newest)))
}

/// A primary that there is a link to, or is to be.
struct Following {
    current: Primary,
    /// At how many looks in a row most named another, without a newer epoch.
    insisted: u32,
}

impl Following {
    /// Whom to follow instead, where it is another.
    fn look(&mut self, told: &[Primary], asked: usize) -> Option<Primary> {
        let (newest, named_by) = newest(told)?;
        if newest.endpoint == self.current.endpoint {
            self.current.epoch = self.current.epoch.max(newest.epoch);
            self.insisted = 0;
            return None;
        }
        if newest.epoch <= self.current.epoch {
            self.insisted = if named_by * 2 > asked { self.insisted + 1 } else { 0 };
            if self.insisted < LOOKS {
                return None;
            }
        }
        Some(newest.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(port: u16, epoch: u64) -> Primary {
        Primary { endpoint: Endpoint { host: "10.0.0.7".to_owned(), port }, epoch }
    }

    #[test]
    fn only_a_newer_epoch_is_followed_at_once() {
        let (old, new) = (primary(1, 3), primary(2, 4));
        let mut following = Following { current: old.clone(), insisted: 0 };
        assert_eq!(following.look(&[], 3), None);
        assert_eq!(following.look(&[old.clone(), old.clone()], 3), None);
        assert_eq!(following.look(&[old.clone(), new.clone(), old.clone()], 3), Some(new.clone()));

        let mut following = Following { current: new.clone(), insisted: 0 };
        for told in [vec![old.clone()], vec![primary(1, 4), new.clone(), primary(1, 4)]] {
            for _ in 1..LOOKS {
                assert_eq!(following.look(&told, 3), None);
            }
        }
        assert_eq!(following.look(&[new], 3), None);
        assert_eq!(following.insisted, 0, "whoever names it ends the row");
    }

    #[test]
    fn an_older_epoch_is_followed_once_most_insist() {
        let (anew, current) = (primary(1, 0), primary(2, 7));
        let mut following = Following { current, insisted: 0 };
        for told in [vec![anew.clone(); 2], vec![anew.clone(); 1]] {
            for _ in 1..LOOKS {
                assert_eq!(following.look(&told, 3), None);
            }
        }
        assert_eq!(
            following.look(std::slice::from_ref(&anew), 3),
            None,
            "one of three is no majority, however often"
        );
        for _ in 1..LOOKS {
            assert_eq!(following.look(&[anew.clone(), anew.clone()], 3), None);
        }
        assert_eq!(following.look(&[anew.clone(), anew.clone()], 3), Some(anew));
    }

    #[test]
    fn among_equal_epochs_most_are_believed_whoever_answers_first() {
        let (one, other) = (primary(1, 4), primary(2, 4));
        let mut told = vec![one, other.clone(), other.clone()];
        for _ in 0..3 {
            assert_eq!(newest(&told), Some((&other, 2)));
            told.rotate_left(1);
        }
    }
}
