//! How a sidecar serves, as the operator wrote it: flags and the environment.

use std::path::PathBuf;

use clap::Parser;

use super::{RedisArgs, Secret};

// All texts: what is wrong in the environment of a sidecar must not keep `sluice check` from reading files. No comment
// for its readers here: it would be told as the program's.
#[allow(missing_docs, reason = "it would be told as the program's")]
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice")]
pub struct Args {
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
    #[arg(skip = Secret::in_environment("SLUICE_ADMIN_TOKEN"))]
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

    /// Where takes of sampled traces are told as spans, by OTLP over HTTP: http://HOST:4318 or https://…; otherwise as
    /// OTEL_EXPORTER_OTLP_ENDPOINT says, whose headers, certificate, service name and resource attributes hold for both
    #[arg(long, env = "SLUICE_OTLP_ENDPOINT", value_name = "URL", hide_env_values = true)]
    pub otlp_endpoint: Option<String>,

    /// How long requests are still decided after SIGTERM, while /readyz answers 503 and Envoys' health checks leave this
    /// sidecar out: longer than they take for that; SIGINT does not wait for it
    #[arg(long, env = "SLUICE_SHUTDOWN_DELAY", value_name = "DURATION", default_value = "3s")]
    pub shutdown_delay: String,

    /// How long requests under way may take to finish after that; a second signal ends at once
    #[arg(long, env = "SLUICE_SHUTDOWN_GRACE", value_name = "DURATION", default_value = "10s")]
    pub shutdown_grace: String,
}
