//! What a Redis answers when it will not, each with its mend. Whatever is told here has taken nothing.

use redis::{ErrorKind, RedisError};

/// The rights that the sidecar's user needs, as `ACL SETUSER` reads them.
pub(super) const RIGHTS: &str =
    "resetkeys ~sluice:1:* +evalsha +eval +script|load +mget +set +del +time +info";

/// An error that Redis answered, by name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("it takes no writes (READONLY): it is a replica; name the primary, or use Sentinel")]
    ReadOnly,
    #[error("it is loading its data into memory (LOADING) and is used once that is done")]
    Loading,
    #[error(
        "it is a replica that has lost its primary (MASTERDOWN); name the primary, or see to the replication"
    )]
    MasterDown,
    #[error("it is a node of a Redis Cluster that is down (CLUSTERDOWN); see to its missing slots")]
    ClusterDown,
    /// Where the key is: a slot, and a node's host and port.
    #[error(
        "it is a node of a Redis Cluster (MOVED), where one run cannot reach every bucket; name a Redis that \
         stands alone, or the Cluster as such"
    )]
    Moved(String),
    /// Where the key may be while its slot moves: a slot, and a node's host and port.
    #[error(
        "it is a node of a Redis Cluster (ASK), where one run cannot reach every bucket; name a Redis that \
         stands alone, or the Cluster as such"
    )]
    Ask(String),
    #[error("some keys are elsewhere while a slot of the Cluster moves (TRYAGAIN)")]
    TryAgain,
    #[error(
        "it is a node of a Redis Cluster (CROSSSLOT), where one run cannot reach every bucket; name a Redis that \
         stands alone, or the Cluster as such"
    )]
    CrossSlot,
    #[error("its memory is full (OOM); raise its maxmemory, or free some")]
    OutOfMemory,
    #[error(
        "it cannot save its data, and so refuses writes (MISCONF); see its log and its disk, or set \
         stop-writes-on-bgsave-error no"
    )]
    Misconfigured,
    #[error("too few replicas follow it (NOREPLICAS); see to them, or lower min-replicas-to-write")]
    TooFewReplicas,
    #[error("a script of somebody's has run for too long (BUSY); end it by SCRIPT KILL")]
    Busy,
    #[error("it wants a password (NOAUTH); give one in --redis-url or --redis-password-file")]
    NoPassword,
    #[error("it does not know this user and password (WRONGPASS); see --redis-url and --redis-password-file")]
    WrongPassword,
    /// What is refused, in Redis's words.
    #[error("its user lacks a right (NOPERM): {0}; give it by ACL SETUSER: {RIGHTS}")]
    NoRight(String),
    /// It answered the script as one that it does not know, even where the whole script was sent.
    #[error("it does not know the script (NOSCRIPT)")]
    NoScript,
    #[error("it answered: {0}")]
    Other(String),
}

impl Fault {
    /// Reads the error of a server; nothing where it is none, such as a connection that was lost.
    pub(super) fn of(error: &RedisError) -> Option<Self> {
        let said = error.detail().unwrap_or_default();
        if error.kind() == ErrorKind::AuthenticationFailed {
            return Some(Self::WrongPassword);
        }
        let code = error.code()?;
        if let Some(fault) = Self::named(code, said) {
            return Some(fault);
        }
        // Before version 7 an error within a script is told as one of the script, with the name of the first behind.
        let within =
            said.split_whitespace().filter_map(|word| Self::named(word.strip_prefix('-')?, said)).next();
        Some(within.unwrap_or_else(|| match (code, said) {
            // Within a script a right that is missing has a name of its own: the first up to version 7.0.
            ("ERR", said)
                if said.contains("The user executing the script")
                    || said.contains("ACL failure in script") =>
            {
                Self::NoRight(said.to_owned())
            }
            (code, "") => Self::Other(code.to_owned()),
            (code, said) => Self::Other(format!("{code} {said}")),
        }))
    }

    fn named(code: &str, said: &str) -> Option<Self> {
        Some(match code {
            "READONLY" => Self::ReadOnly,
            "LOADING" => Self::Loading,
            "MASTERDOWN" => Self::MasterDown,
            "CLUSTERDOWN" => Self::ClusterDown,
            "MOVED" => Self::Moved(said.to_owned()),
            "ASK" => Self::Ask(said.to_owned()),
            "TRYAGAIN" => Self::TryAgain,
            "CROSSSLOT" => Self::CrossSlot,
            "OOM" => Self::OutOfMemory,
            "MISCONF" => Self::Misconfigured,
            "NOREPLICAS" => Self::TooFewReplicas,
            "BUSY" => Self::Busy,
            "NOAUTH" => Self::NoPassword,
            "WRONGPASS" => Self::WrongPassword,
            "NOPERM" => Self::NoRight(said.to_owned()),
            "NOSCRIPT" => Self::NoScript,
            _ => return None,
        })
    }

    /// Whether another connection, perhaps to another server, may fare better, and this one will not.
    pub(super) fn ends_link(&self) -> bool {
        match self {
            Self::ReadOnly
            | Self::Loading
            | Self::MasterDown
            | Self::ClusterDown
            | Self::Moved(_)
            | Self::Ask(_)
            | Self::TryAgain
            | Self::CrossSlot
            | Self::NoPassword
            | Self::WrongPassword => true,
            Self::OutOfMemory
            | Self::Misconfigured
            | Self::TooFewReplicas
            | Self::Busy
            | Self::NoRight(_)
            | Self::NoScript
            | Self::Other(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("it is RESP");
        value.extract_error().expect_err("it is an error")
    }

    #[test]
    fn what_redis_answers_is_known_by_name_however_it_is_wrapped() {
        for (line, fault) in [
            ("READONLY You can't write against a read only replica.", Fault::ReadOnly),
            ("LOADING Redis is loading the dataset in memory", Fault::Loading),
            ("MASTERDOWN Link with MASTER is down", Fault::MasterDown),
            ("CLUSTERDOWN Hash slot not served", Fault::ClusterDown),
            ("MOVED 3999 10.0.0.7:6381", Fault::Moved("3999 10.0.0.7:6381".into())),
            ("ASK 3999 10.0.0.7:6381", Fault::Ask("3999 10.0.0.7:6381".into())),
            ("OOM command not allowed when used memory > 'maxmemory'.", Fault::OutOfMemory),
            (
                "ERR Error running script (call to f_0123): @user_script:9: @user_script: 9: -OOM command not \
                 allowed when used memory > 'maxmemory'.",
                Fault::OutOfMemory,
            ),
            (
                "ERR Error running script (call to f_0123): @user_script:9: @user_script: 9: -READONLY You can't \
                 write against a read only replica.",
                Fault::ReadOnly,
            ),
            ("MISCONF Redis is configured to save RDB snapshots", Fault::Misconfigured),
            ("NOREPLICAS Not enough good replicas to write.", Fault::TooFewReplicas),
            ("BUSY Redis is busy running a script.", Fault::Busy),
            ("NOAUTH Authentication required.", Fault::NoPassword),
            ("WRONGPASS invalid username-password pair or user is disabled.", Fault::WrongPassword),
            ("NOPERM this user may not", Fault::NoRight("this user may not".into())),
            (
                "ERR ACL failure in script: User a has no permissions to run the 'set' command script: 0123",
                Fault::NoRight(
                    "ACL failure in script: User a has no permissions to run the 'set' command script: 0123"
                        .into(),
                ),
            ),
            ("NOSCRIPT No matching script.", Fault::NoScript),
            ("ERR something else", Fault::Other("ERR something else".into())),
        ] {
            assert_eq!(Fault::of(&answered(line)), Some(fault), "{line}");
        }
        let lost = RedisError::from(std::io::Error::other("the network is down"));
        assert_eq!(Fault::of(&lost), None);
    }
}
