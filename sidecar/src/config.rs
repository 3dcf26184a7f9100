//! What the operator asked for: as written, and as validated.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use crate::command::Command;
use crate::store::{
    denials::DenyCache,
    redis::{Asking, RedisAddress, Timeouts},
};

/// The exit code of a wrong command line or environment (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

const AFTER_HELP: &str = "\
Examples:
  sluice                                          one machine, nothing installed
  sluice --redis-url redis://redis.internal       many sidecars, one truth
  sluice --listen unix:/run/sluice/sluice.sock    for an Envoy on the same host
  sluice health                                   is it ready? for containers, which have no curl
  sluice check envoy.yaml                         what is wrong with the limits in it
  sluice explain envoy.yaml --request 'GET /'     which of them govern a request
  curl -s 127.0.0.1:9090/v1/take -d '{\"domain\":\"shop\",\"takes\":[{\"buckets\":[{\"policy\":\"per-client\",
    \"key\":\"alice\",\"tokens\":60,\"period_us\":60000000,\"burst\":60,\"cost\":1}]}]}'

Paths:
  POST /v1/take   decide a batch of takes
  GET /healthz    200 while the process is alive
  GET /readyz     200 while the store is connected, otherwise 503 and the reason

Exit codes:
  0   stopped by SIGTERM or SIGINT, requests under way answered
  1   a listener could not be opened, or the process failed; from health: not ready; from check
      and explain: something is wrong with a file
  64  the command line or the environment is wrong";

/// Decides rate limits for a fleet of Envoys: the sidecar that their sluice filter asks.
///
/// Without --redis-url buckets are kept in this process: exact for the Envoys that share this one sidecar. With it,
/// they are kept in Redis and exact for all sidecars together.
// All texts: what is wrong in the environment of a sidecar must not keep `sluice check` from reading files.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Args {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where to listen: IP:PORT or unix:/PATH; several are separated by commas or given by several flags
    #[arg(
        long,
        env = "SLUICE_LISTEN",
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:9090"
    )]
    pub listen: Vec<String>,

    /// The Redis that keeps the buckets: redis://[user:password@]host[:port][/database] or redis+unix:///PATH
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<String>,

    /// How long a request may wait for Redis, its turn and a reconnection included; keep it below the filter's
    /// callout timeout (50ms), so that the filter hears the failure instead of guessing it
    #[arg(long, env = "SLUICE_REDIS_TIMEOUT", value_name = "DURATION", default_value = "40ms")]
    pub redis_timeout: String,

    /// How long to wait for a connection to Redis before the next attempt
    #[arg(long, env = "SLUICE_REDIS_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "1s")]
    pub redis_connect_timeout: String,

    /// The most runs of the script under way at a time, over one connection: the second hides the way to a distant Redis
    /// and costs nothing near one
    #[arg(long, env = "SLUICE_REDIS_IN_FLIGHT", value_name = "NUMBER", default_value = "2")]
    pub redis_in_flight: String,

    /// For how long at most a denial is repeated without asking Redis, which it never is for longer than its
    /// retry-after: so soon a refund by another sidecar, a raised limit or an emptied Redis is seen, and later by
    /// the ceiling of the filter's deny_cache where that is on, too; 0s asks each time
    #[arg(long, env = "SLUICE_DENY_CACHE_CEILING", value_name = "DURATION", default_value = "500ms")]
    pub deny_cache_ceiling: String,

    /// Of how many buckets at most denials are repeated: about 1.2 KB each where keys are long
    #[arg(long, env = "SLUICE_DENY_CACHE_ENTRIES", value_name = "NUMBER", default_value = "8192")]
    pub deny_cache_entries: String,

    /// The most buckets that are kept in memory at a time; a full one needs no place
    #[arg(long, env = "SLUICE_MEMORY_MAX_BUCKETS", value_name = "NUMBER", default_value = "1000000")]
    pub memory_max_buckets: String,

    /// The largest request body, in bytes
    #[arg(long, env = "SLUICE_MAX_BODY_BYTES", value_name = "BYTES", default_value = "1048576")]
    pub max_body_bytes: String,

    /// How log lines are written: text or json
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: String,

    /// What is logged: error, warn, info, debug or trace, also by module (info,sluice::store=debug)
    #[arg(long, env = "SLUICE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How long requests under way may take to finish after SIGTERM; a second signal ends at once
    #[arg(long, env = "SLUICE_SHUTDOWN_GRACE", value_name = "DURATION", default_value = "10s")]
    pub shutdown_grace: String,
}

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
    /// Where buckets are kept.
    pub store: StoreConfig,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged, in the syntax of `tracing`.
    pub log_filter: String,
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
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// What is wrong with one flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} (or {variable}): {found}. {mend}")]
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
            Some(url) => StoreConfig::Redis {
                address: redis_address(&url)?,
                asking: Asking { timeouts, deny_cache, in_flight },
            },
            None => StoreConfig::Memory { max_buckets },
        };
        Ok(Self {
            listen: args.listen.iter().map(|written| listen_address(written)).collect::<Result<_, _>>()?,
            store,
            max_body_bytes: number("--max-body-bytes", "SLUICE_MAX_BODY_BYTES", &args.max_body_bytes)?,
            log_format: log_format(&args.log_format)?,
            log_filter: log_filter(args.log)?,
            shutdown_grace: duration("--shutdown-grace", "SLUICE_SHUTDOWN_GRACE", &args.shutdown_grace)?,
        })
    }
}

fn listen_address(written: &str) -> Result<ListenAddress, InvalidConfig> {
    if let Some(path) = written.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(ListenAddress::Unix(path.into()));
    }
    written.parse().map(ListenAddress::Tcp).map_err(|_| InvalidConfig {
        flag: "--listen",
        variable: "SLUICE_LISTEN",
        found: format!("{written:?} is not an address"),
        mend: "Write an IP and a port, such as 127.0.0.1:9090 or [::1]:9090, or unix:/run/sluice.sock",
    })
}

fn redis_address(url: &str) -> Result<RedisAddress, InvalidConfig> {
    RedisAddress::parse(url).map_err(|error| InvalidConfig {
        flag: "--redis-url",
        variable: "REDIS_URL",
        found: format!("the URL cannot be used: {error}"),
        mend: "Write redis://[user:password@]host[:port][/database]",
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

fn log_filter(written: String) -> Result<String, InvalidConfig> {
    match written.parse::<tracing_subscriber::filter::Targets>() {
        Ok(_) => Ok(written),
        Err(error) => Err(InvalidConfig {
            flag: "--log",
            variable: "SLUICE_LOG",
            found: format!("{written:?} is not a filter: {error}"),
            mend: "Write a level, such as info, or levels by module, such as info,sluice::store=debug",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(flags: &[&str]) -> Result<Asking, InvalidConfig> {
        let args = [&["sluice", "--redis-url", "redis://127.0.0.1"], flags].concat();
        match Config::try_from(Args::parse_from(args))?.store {
            StoreConfig::Redis { asking, .. } => Ok(asking),
            StoreConfig::Memory { .. } => panic!("it has a Redis"),
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
