//! What a Redis answers when it will not, each with its mend. Whatever is told here has taken nothing.
//!
//! Redis quotes what it was sent, which while logging in is a password: see [`Fault::at_login`].

use redis::{ErrorKind, RedisError};

/// The rights that the sidecar's user needs, as `ACL SETUSER` reads them.
pub(super) const RIGHTS: &str = "resetkeys ~sluice:1:* +evalsha +eval +script|load +mget +set +del +hget \
     +hscan +hset +hdel +hlen +time +info, for a database other than 0 also \
     +select, and in a Cluster also +cluster|info +cluster|nodes +asking";

/// What the sidecar sends.
const COMMANDS: [&str; 20] = [
    "HELLO", "AUTH", "SELECT", "CLIENT", "INFO", "EVALSHA", "EVAL", "SCRIPT", "MGET", "SET", "DEL", "HGET",
    "HSCAN", "HSET", "HDEL", "HLEN", "TIME", "CLUSTER", "ASKING", "SENTINEL",
];

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
    /// The command.
    #[error(
        "it does not know {0}; sluice needs Redis 6.2 or later, or any Valkey, each command by its own name \
         (rename-command), and no proxy before it that knows fewer"
    )]
    UnknownCommand(&'static str),
    #[error("it has no database of this number; name another in --redis-url, or raise its setting databases")]
    NoDatabase,
    #[error(
        "it refuses the login by an error of its own, which is not told here since it may quote the password; log in \
         by redis-cli to see it"
    )]
    Login,
    #[error("it answered: {0}")]
    Other(String),
}

impl Fault {
    /// Reads the error of a server; nothing where it is none, such as a connection that was lost.
    pub(super) fn of(error: &RedisError) -> Option<Self> {
        let said = error.detail().unwrap_or_default();
        match error.kind() {
            ErrorKind::AuthenticationFailed => return Some(Self::WrongPassword),
            // So the library tells of Redis before version 7.
            ErrorKind::RESP3NotSupported => return Some(Self::UnknownCommand("HELLO")),
            _ => {}
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
            // Of SELECT while logging in the library passes on no code.
            ("ERR", said) if said.contains("no permissions to run") => Self::NoRight(said.to_owned()),
            ("ERR", said) if said.contains("DB index is out of range") => Self::NoDatabase,
            ("NOPROTO", _) => Self::UnknownCommand("HELLO 3"),
            (code, said) => match unknown_command(said) {
                Some(command) => Self::UnknownCommand(command),
                None if said.is_empty() => Self::Other(code.to_owned()),
                None => Self::Other(format!("{code} {said}")),
            },
        }))
    }

    /// Likewise, of an error while logging in: then nothing is told in the server's own words.
    pub(super) fn at_login(error: &RedisError) -> Option<Self> {
        Some(match Self::of(error)? {
            // Nothing else that is sent then needs a right.
            Self::NoRight(_) => Self::NoRight("it may not SELECT its database".to_owned()),
            Self::Other(_) => Self::Login,
            fault => fault,
        })
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
            | Self::WrongPassword
            | Self::NoDatabase
            | Self::Login => true,
            Self::OutOfMemory
            | Self::Misconfigured
            | Self::TooFewReplicas
            | Self::Busy
            | Self::NoRight(_)
            | Self::NoScript
            | Self::UnknownCommand(_)
            | Self::Other(_) => false,
        }
    }
}

/// Which of our commands is unknown: behind it the server quotes what came with it.
fn unknown_command(said: &str) -> Option<&'static str> {
    let quoted = said.strip_prefix("unknown command ")?;
    let name = quoted.get(1..)?.split(['\'', '`', '"']).next()?;
    COMMANDS.into_iter().find(|command| command.eq_ignore_ascii_case(name))
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
            (
                "ERR this user has no permissions to run the 'select' command",
                Fault::NoRight("this user has no permissions to run the 'select' command".into()),
            ),
            ("ERR DB index is out of range", Fault::NoDatabase),
            ("NOPROTO unsupported protocol version", Fault::UnknownCommand("HELLO 3")),
            (
                "ERR unknown command 'hello', with args beginning with: '3' 'AUTH' 'default' 'hunter2'",
                Fault::UnknownCommand("HELLO"),
            ),
            ("ERR unknown command `INFO`, with args beginning with: ", Fault::UnknownCommand("INFO")),
            ("ERR something else", Fault::Other("ERR something else".into())),
        ] {
            assert_eq!(Fault::of(&answered(line)), Some(fault), "{line}");
        }
        for line in [
            "ERR unknown command 'hunter2'",
            "ERR syntax error near 'hunter2'",
            "HUNTER2 hunter2",
            "NOPERM hunter2",
        ] {
            let told = Fault::at_login(&answered(line)).expect("an error").to_string();
            assert!(!told.to_lowercase().contains("hunter2"), "{told}");
        }
        let lost = RedisError::from(std::io::Error::other("the network is down"));
        assert_eq!(Fault::of(&lost), None);
    }
}
