//! What the operator asked for: as written, and as validated.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, ValueEnum};

use crate::command::Command;
use crate::http::{Limits, admin::Guard, tls::TlsFiles};
use crate::store::{
    denials::DenyCache,
    redis::{Asking, RedisAddress, Timeouts, cluster::ClusterAddress},
};

mod asked;
mod redis;

pub use asked::Asked;
pub use redis::RedisArgs;

/// The exit code of a wrong command line or environment (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

const AFTER_HELP: &str = "\
Examples:
  sluice                                          one machine, nothing installed
  sluice --redis-url redis://redis.internal       many sidecars, one truth
  sluice --redis-url redis+cluster://n1,n2,n3     the same on a Redis Cluster
  sluice --listen unix:/run/sluice/sluice.sock    for an Envoy on the same host
  sluice health                                   is it ready? for containers, which have no curl
  sluice check envoy.yaml                         what is wrong with the limits in it
  sluice explain envoy.yaml --request 'GET /'     which of them govern a request
  curl -s 127.0.0.1:9090/v1/take -d '{\"domain\":\"shop\",\"takes\":[{\"buckets\":[{\"policy\":\"per-client\",
    \"key\":\"alice\",\"tokens\":60,\"period_us\":60000000,\"burst\":60,\"cost\":1}]}]}'

Paths:
  POST /v1/take   decide a batch of takes
  GET /healthz    200 while the process is alive
  GET /readyz     200 while the store decides in time and this sidecar stays, otherwise 503 and the reason
  GET /v1/status  on --admin-listen only: how this sidecar does, in JSON (docs/security.md)

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

    /// Where operators ask how this sidecar does: IP:PORT or unix:/PATH, or off; elsewhere than on the loopback or a
    /// Unix socket a token is needed
    #[arg(long, env = "SLUICE_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9091")]
    pub admin_listen: String,

    /// The file of the token that operators send as "authorization: Bearer TOKEN", of 16 characters at least; or give the
    /// token itself in the environment as SLUICE_ADMIN_TOKEN
    #[arg(long, env = "SLUICE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// The token itself, which is no flag: what is in a command line can be read by every process.
    #[arg(skip = admin_token_in_environment())]
    pub admin_token: Option<Secret>,

    /// Encrypts TCP listeners by TLS: this sidecar's certificate and those that lead to its authority, in PEM; it is read
    /// again when it changes
    #[arg(long, env = "SLUICE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The key of --tls-cert, in PEM
    #[arg(long, env = "SLUICE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Only Envoys with a certificate of these authorities, in PEM, may ask
    #[arg(long, env = "SLUICE_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// The permissions of the Unix sockets of --listen, in octal: who may write to one may ask
    #[arg(long, env = "SLUICE_SOCKET_MODE", value_name = "MODE", default_value = "660")]
    pub socket_mode: String,

    /// The Redis that keeps the buckets: redis://[user:password@]host[:port][/database], rediss:// for TLS,
    /// redis+unix:///PATH, redis+sentinel://[user:password@]host[:port],…/PRIMARY[/database], or some nodes of a Redis
    /// Cluster: redis+cluster://[user:password@]host[:port],…
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "it would be told as the program's")]
    pub redis: RedisArgs,

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

    /// The most connections at a time; those beyond are closed at once. Fewer where the process may not have as many files
    /// open, of which 200 are for all else
    #[arg(long, env = "SLUICE_MAX_CONNECTIONS", value_name = "NUMBER", default_value = "1000")]
    pub max_connections: String,

    /// How log lines are written: text or json
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: String,

    /// What is logged: error, warn, info, debug or trace, also by module (info,sluice::store=debug)
    #[arg(long, env = "SLUICE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How long requests are still decided after SIGTERM, while /readyz answers 503 and Envoys' health checks leave this
    /// sidecar out: longer than they take for that; SIGINT does not wait for it
    #[arg(long, env = "SLUICE_SHUTDOWN_DELAY", value_name = "DURATION", default_value = "3s")]
    pub shutdown_delay: String,

    /// How long requests under way may take to finish after that; a second signal ends at once
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
    /// What is logged, in the syntax of `tracing`.
    pub log_filter: String,
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

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only processes on this machine reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
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
        let token = args.admin_token_file.as_deref().map(token_file).transpose()?;
        Ok(Self {
            listen: args.listen.iter().map(|written| listen_address(written)).collect::<Result<_, _>>()?,
            admin: admin(admin_address(&args.admin_listen)?, token.or(args.admin_token))?,
            tls: tls(args.tls_cert, args.tls_key, args.tls_client_ca)?,
            socket_mode: socket_mode(&args.socket_mode)?,
            store,
            limits,
            log_format: log_format(&args.log_format)?,
            log_filter: log_filter(args.log)?,
            shutdown_delay: delay(&args.shutdown_delay)?,
            shutdown_grace: duration("--shutdown-grace", "SLUICE_SHUTDOWN_GRACE", &args.shutdown_grace)?,
        })
    }
}

fn listen_address(written: &str) -> Result<ListenAddress, InvalidConfig> {
    address("--listen", "SLUICE_LISTEN", written)
}

fn admin_address(written: &str) -> Result<Option<ListenAddress>, InvalidConfig> {
    let listens = written != "off";
    listens.then(|| address("--admin-listen", "SLUICE_ADMIN_LISTEN", written)).transpose()
}

fn address(
    flag: &'static str,
    variable: &'static str,
    written: &str,
) -> Result<ListenAddress, InvalidConfig> {
    if let Some(path) = written.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(ListenAddress::Unix(path.into()));
    }
    written.parse().map(ListenAddress::Tcp).map_err(|_| InvalidConfig {
        flag,
        variable,
        found: format!("{written:?} is not an address"),
        mend: "Write an IP and a port, such as 127.0.0.1:9090 or [::1]:9090, or unix:/run/sluice.sock",
    })
}

/// The shortest token: what is shorter can be guessed.
const MIN_TOKEN_CHARS: usize = 16;

fn admin(
    address: Option<ListenAddress>,
    token: Option<Secret>,
) -> Result<Option<(ListenAddress, Guard)>, InvalidConfig> {
    let Some(address) = address else { return Ok(None) };
    let short = |token: &Secret| token.expose().chars().count() < MIN_TOKEN_CHARS;
    let is_header = |token: &Secret| token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    let wrong = |found: &str, mend| {
        let (flag, variable) = ("--admin-token-file", "SLUICE_ADMIN_TOKEN");
        Err(InvalidConfig { flag, variable, found: found.to_owned(), mend })
    };
    match token {
        Some(token) if short(&token) => {
            wrong("the token is shorter than 16 characters", "Make one by `openssl rand -hex 16`")
        }
        Some(token) if !is_header(&token) => {
            wrong("the token is more than one line of printable ASCII", "Make one by `openssl rand -hex 16`")
        }
        Some(token) => Ok(Some((address, Guard::Token(token)))),
        None if address.is_local() => Ok(Some((address, Guard::Local))),
        None => wrong(
            &format!("there is none, and others than this machine reach --admin-listen {address}"),
            "Give a token, or listen on 127.0.0.1 or a Unix socket, or not at all by --admin-listen off",
        ),
    }
}

fn admin_token_in_environment() -> Option<Secret> {
    // Compose sets a variable that was not given to nothing.
    let token = std::env::var_os("SLUICE_ADMIN_TOKEN").filter(|token| !token.is_empty());
    // What is not Unicode is kept as something that is refused.
    token.map(|token| Secret::new(token.to_string_lossy().into_owned()))
}

fn token_file(path: &Path) -> Result<Secret, InvalidConfig> {
    let read = std::fs::read_to_string(path);
    read.map(|text| Secret::new(text.trim_end().to_owned())).map_err(|error| InvalidConfig {
        flag: "--admin-token-file",
        variable: "SLUICE_ADMIN_TOKEN_FILE",
        found: format!("{} cannot be read: {error}", path.display()),
        mend: "Give a file that is there, readable for this user, and holds the token and nothing else",
    })
}

fn tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<TlsFiles>, InvalidConfig> {
    let (flag, variable, found) = match (certificate, key, client_ca) {
        (None, None, None) => return Ok(None),
        (Some(certificate), Some(key), client_ca) => {
            return Ok(Some(TlsFiles { certificate, key, client_ca }));
        }
        (None, Some(_), _) => ("--tls-cert", "SLUICE_TLS_CERT", "there is a --tls-key, and no certificate"),
        (Some(_), None, _) => ("--tls-key", "SLUICE_TLS_KEY", "there is a --tls-cert, and no key"),
        (None, None, Some(_)) => {
            ("--tls-cert", "SLUICE_TLS_CERT", "there is a --tls-client-ca, and no certificate of our own")
        }
    };
    let mend = "Give --tls-cert and --tls-key together, and --tls-client-ca only with them";
    Err(InvalidConfig { flag, variable, found: found.to_owned(), mend })
}

fn socket_mode(written: &str) -> Result<u32, InvalidConfig> {
    let wrong = |found, mend| {
        Err(InvalidConfig { flag: "--socket-mode", variable: "SLUICE_SOCKET_MODE", found, mend })
    };
    match u32::from_str_radix(written, 8) {
        Ok(mode) if mode > 0o777 || mode & 0o600 != 0o600 => wrong(
            format!("{written:?} are not permissions that let the owner read and write"),
            "Write three octal digits, such as 660 or 600",
        ),
        Ok(mode) if mode & 0o002 != 0 => wrong(
            format!("{written:?} would let every user of this machine ask"),
            "Write 660, and put Envoy into the sidecar's group",
        ),
        Ok(mode) => Ok(mode),
        Err(_) => wrong(
            format!("{written:?} is not an octal number"),
            "Write three octal digits, such as 660 or 600",
        ),
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
