//! What the operator asked for, as validated: from what is written, flag by flag.

use std::{env, fmt, time::Duration};

use clap::ValueEnum;

use crate::http::{Limits, admin::Guard, tls::TlsFiles};
use crate::logging::{InvalidFilter, LogFilter};
use crate::spans::{InvalidReceiver, Receiver};
use crate::store::{
    denials::DenyCache,
    redis::{Asking, RedisAddress, Timeouts, cluster::ClusterAddress},
};

mod admin;
mod args;
mod asked;
mod edge;
mod redis;

pub(crate) use admin::reachable;
pub use admin::{AdminArgs, AdminTarget, Place, Trust};
pub use args::Args;
pub use asked::Asked;
pub use edge::ListenAddress;
pub use redis::RedisArgs;

/// The exit code of a wrong command line or environment (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is known to be right.
#[derive(Clone, Debug)]
pub struct Config {
    /// At least one.
    pub listen: Vec<ListenAddress>,
    /// Where operators ask, and who may; nowhere where it is switched off.
    pub admin: Option<(ListenAddress, Guard)>,
    /// What TCP listeners are encrypted with.
    pub tls: Option<TlsFiles>,
    /// The permissions of Unix sockets of Envoys.
    pub socket_mode: u32,
    /// Where buckets are kept.
    pub store: StoreConfig,
    /// What is refused before it can do harm.
    pub limits: Limits,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_filter: LogFilter,
    /// Where spans go, where they do.
    pub spans: Option<Receiver>,
    /// Why they go nowhere, where only the environment says that they should and it cannot be obeyed.
    pub spans_unusable: Option<String>,
    /// How long requests are decided after SIGTERM.
    pub shutdown_delay: Duration,
    /// How long requests under way may take to finish.
    pub shutdown_grace: Duration,
}

/// Where buckets are kept.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one, and it is read once")]
pub enum StoreConfig {
    /// In this process.
    Memory {
        /// The most that are kept at a time.
        max_buckets: usize,
    },
    /// In Redis.
    Redis {
        /// Which.
        address: RedisAddress,
        /// How it is asked.
        asking: Asking,
    },
    /// In a Redis Cluster.
    Cluster {
        /// Which.
        address: ClusterAddress,
        /// How each of its nodes is asked.
        asking: Asking,
    },
}

/// What nobody may see: it has no way into a log line.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps it.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// That of a variable of the environment, if it has one.
    fn in_environment(variable: &str) -> Option<Self> {
        // Compose sets a variable that was not given to nothing.
        let secret = env::var_os(variable).filter(|secret| !secret.is_empty());
        // What is not Unicode is kept as something that is refused.
        secret.map(|secret| Self::new(secret.to_string_lossy().into_owned()))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The text without the user and password of a URL, which may have come to a place that is for something else.
#[must_use]
pub fn without_passwords(text: &str) -> String {
    let without = |line: &str| match (line.find("://"), line.rfind('@')) {
        (Some(begin), Some(end)) if begin < end => format!("{}://…{}", &line[..begin], &line[end..]),
        _ => line.to_owned(),
    };
    text.split('\n').map(without).collect::<Vec<_>>().join("\n")
}

/// What is wrong with one flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} (or {variable}): {}. {mend}", without_passwords(found))]
pub struct InvalidConfig {
    flag: &'static str,
    variable: &'static str,
    found: String,
    mend: &'static str,
}

impl TryFrom<Args> for Config {
    type Error = InvalidConfig;

    fn try_from(args: Args) -> Result<Self, InvalidConfig> {
        let timeouts = Timeouts {
            answer: duration("--redis-timeout", "SLUICE_REDIS_TIMEOUT", &args.redis_timeout)?,
            connect: duration(
                "--redis-connect-timeout",
                "SLUICE_REDIS_CONNECT_TIMEOUT",
                &args.redis_connect_timeout,
            )?,
        };
        let deny_cache = DenyCache {
            entries: number("--deny-cache-entries", "SLUICE_DENY_CACHE_ENTRIES", &args.deny_cache_entries)?,
            ceiling: ceiling("--deny-cache-ceiling", "SLUICE_DENY_CACHE_CEILING", &args.deny_cache_ceiling)?,
        };
        let in_flight = number("--redis-in-flight", "SLUICE_REDIS_IN_FLIGHT", &args.redis_in_flight)?;
        let max_buckets =
            number("--memory-max-buckets", "SLUICE_MEMORY_MAX_BUCKETS", &args.memory_max_buckets)?;
        let store = match args.redis_url {
            Some(url) if ClusterAddress::is_meant(&url) => StoreConfig::Cluster {
                address: args.redis.cluster(&url)?,
                asking: Asking { timeouts, deny_cache, in_flight },
            },
            Some(url) => StoreConfig::Redis {
                address: args.redis.address(&url)?,
                asking: Asking { timeouts, deny_cache, in_flight },
            },
            None => StoreConfig::Memory { max_buckets },
        };
        let limits = Limits {
            max_body_bytes: number("--max-body-bytes", "SLUICE_MAX_BODY_BYTES", &args.max_body_bytes)?,
            max_connections: number("--max-connections", "SLUICE_MAX_CONNECTIONS", &args.max_connections)?,
        };
        let token = args.admin_token_file.as_deref().map(edge::token_file).transpose()?;
        let (spans, spans_unusable) = spans(args.otlp_endpoint.as_deref())?;
        Ok(Self {
            listen: edge::listen(&args.listen)?,
            admin: edge::admin(edge::admin_address(&args.admin_listen)?, token.or(args.admin_token))?,
            tls: edge::tls(args.tls_cert, args.tls_key, args.tls_client_ca)?,
            socket_mode: edge::socket_mode(&args.socket_mode)?,
            store,
            limits,
            log_format: log_format(&args.log_format)?,
            log_filter: log_filter(&args.log)?,
            spans,
            spans_unusable,
            shutdown_delay: delay(&args.shutdown_delay)?,
            shutdown_grace: duration("--shutdown-grace", "SLUICE_SHUTDOWN_GRACE", &args.shutdown_grace)?,
        })
    }
}

/// The environment's own variables are read here, since no flag of ours is meant by them. They are there for every program
/// of a machine, which is no reason not to limit rates: what cannot be obeyed of them is told of instead.
fn spans(flag: Option<&str>) -> Result<(Option<Receiver>, Option<String>), InvalidConfig> {
    match Receiver::find(flag, |name| env::var(name).ok()) {
        Ok(found) => Ok((found, None)),
        Err(error) if flag.is_none_or(str::is_empty) => Ok((None, Some(error.to_string()))),
        Err(error) => Err(InvalidConfig {
            flag: "--otlp-endpoint",
            variable: "SLUICE_OTLP_ENDPOINT",
            found: error.to_string(),
            mend: InvalidReceiver::MEND,
        }),
    }
}

fn delay(written: &str) -> Result<Duration, InvalidConfig> {
    humantime::parse_duration(written).map_err(|_| InvalidConfig {
        flag: "--shutdown-delay",
        variable: "SLUICE_SHUTDOWN_DELAY",
        found: format!("{written:?} is not a time with a unit"),
        mend: "Write a number and a unit, such as 3s; 0s ends without a delay",
    })
}

fn duration(flag: &'static str, variable: &'static str, written: &str) -> Result<Duration, InvalidConfig> {
    let duration = humantime::parse_duration(written).ok();
    duration.filter(|duration| !duration.is_zero()).ok_or_else(|| InvalidConfig {
        flag,
        variable,
        found: format!("{written:?} is not a time above zero with a unit"),
        mend: "Write a number and a unit, such as 50ms or 2s",
    })
}

fn ceiling(flag: &'static str, variable: &'static str, written: &str) -> Result<Duration, InvalidConfig> {
    humantime::parse_duration(written).map_err(|_| InvalidConfig {
        flag,
        variable,
        found: format!("{written:?} is not a time with a unit"),
        mend: "Write a number and a unit, such as 500ms or 1s; 0s switches the cache off",
    })
}

fn number(flag: &'static str, variable: &'static str, written: &str) -> Result<usize, InvalidConfig> {
    written.parse().ok().filter(|&number| number > 0).ok_or_else(|| InvalidConfig {
        flag,
        variable,
        found: format!("found {written:?}"),
        mend: "Write a whole number above zero",
    })
}

fn log_format(written: &str) -> Result<LogFormat, InvalidConfig> {
    LogFormat::from_str(written, false).map_err(|_| InvalidConfig {
        flag: "--log-format",
        variable: "SLUICE_LOG_FORMAT",
        found: format!("found {written:?}"),
        mend: "Write text or json",
    })
}

fn log_filter(written: &str) -> Result<LogFilter, InvalidConfig> {
    written.parse().map_err(|error: InvalidFilter| InvalidConfig {
        flag: "--log",
        variable: "SLUICE_LOG",
        found: error.to_string(),
        mend: InvalidFilter::MEND,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn asking(flags: &[&str]) -> Result<Asking, InvalidConfig> {
        let args = [&["sluice", "--redis-url", "redis://127.0.0.1"], flags].concat();
        match Config::try_from(Args::parse_from(args))?.store {
            StoreConfig::Redis { asking, .. } => Ok(asking),
            other => panic!("it has a Redis, and not {other:?}"),
        }
    }

    #[test]
    fn redis_is_asked_as_a_store_asks_it_by_itself() {
        let timeouts = Timeouts { answer: Duration::from_millis(40), connect: Duration::from_secs(1) };
        assert_eq!(asking(&[]), Ok(timeouts.into()));
    }

    #[test]
    fn the_deny_cache_is_switched_off_by_a_ceiling_of_zero() {
        let cache = |flags| asking(flags).map(|asking| asking.deny_cache);
        let off = DenyCache { ceiling: Duration::ZERO, ..DenyCache::default() };
        assert_eq!(cache(&["--deny-cache-ceiling", "0s"]), Ok(off));
        for wrong in
            [["--deny-cache-ceiling", "5"], ["--deny-cache-entries", "0"], ["--redis-in-flight", "0"]]
        {
            let error = asking(&wrong).expect_err("refused").to_string();
            assert!(error.contains(wrong[0]) && error.contains("Write a"), "{error}");
        }
    }
}
