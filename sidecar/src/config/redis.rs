//! Which Redis, how it is found, and by what it and we know each other.

use std::path::PathBuf;

use super::{InvalidConfig, Secret};
use crate::store::redis::{InvalidTls, RedisAddress, TlsFiles, cluster::ClusterAddress};

/// What is said of a Redis besides its URL.
#[derive(Clone, Debug, clap::Args)]
pub struct RedisArgs {
    /// The file of the password of Redis, read at each connection, instead of one in --redis-url; or give the password
    /// itself in the environment as SLUICE_REDIS_PASSWORD. What the Sentinels want, PASSWORD or USER:PASSWORD, is given
    /// in the environment as SLUICE_REDIS_SENTINEL_AUTH
    #[arg(long, env = "SLUICE_REDIS_PASSWORD_FILE", value_name = "FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// The authorities that may have signed the certificate of a Redis at rediss://, in PEM, instead of those of the
    /// system; these three files are read at each connection
    #[arg(long, env = "SLUICE_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,

    /// Our certificate for a Redis at rediss:// that wants one, and those that lead to its authority, in PEM
    #[arg(long, env = "SLUICE_REDIS_CERT", value_name = "FILE")]
    pub redis_cert: Option<PathBuf>,

    /// The key of --redis-cert, in PEM
    #[arg(long, env = "SLUICE_REDIS_KEY", value_name = "FILE")]
    pub redis_key: Option<PathBuf>,

    /// Passwords, which are no flags: what is in a command line can be read by every process.
    #[arg(skip = Secret::in_environment("SLUICE_REDIS_PASSWORD"))]
    pub redis_password: Option<Secret>,

    /// Those of the Sentinels.
    #[arg(skip = Secret::in_environment("SLUICE_REDIS_SENTINEL_AUTH"))]
    pub redis_sentinel_auth: Option<Secret>,
}

impl RedisArgs {
    /// Files are read once here, so that a mistake is told at the start.
    pub(super) fn address(self, url: &str) -> Result<RedisAddress, InvalidConfig> {
        let address = RedisAddress::parse(url).map_err(|error| InvalidConfig {
            flag: "--redis-url",
            variable: "REDIS_URL",
            found: format!("the URL cannot be used: {error}"),
            mend: "Write redis://[user:password@]host[:port][/database], rediss:// for TLS, redis+unix:///PATH, \
                   redis+sentinel://[user:password@]host[:port],…/PRIMARY[/database], or \
                   redis+cluster://[user:password@]host[:port],…",
        })?;
        self.known_to(address)
    }

    /// Likewise, for the nodes of a Cluster.
    pub(super) fn cluster(self, url: &str) -> Result<ClusterAddress, InvalidConfig> {
        let mut address = ClusterAddress::parse(url).map_err(|error| InvalidConfig {
            flag: "--redis-url",
            variable: "REDIS_URL",
            found: format!("the URL cannot be used: {error}"),
            mend: "Write redis+cluster://[user:password@]host[:port],… with some nodes of the Cluster, or \
                   rediss+cluster:// for TLS",
        })?;
        address.common = self.known_to(address.common)?;
        Ok(address)
    }

    /// The address with what it and we know each other by.
    fn known_to(self, mut address: RedisAddress) -> Result<RedisAddress, InvalidConfig> {
        if let Some(password) = &self.redis_password {
            address = address.with_password(password.expose());
        }
        if let Some(auth) = &self.redis_sentinel_auth {
            address = address.with_sentinel_auth(auth.expose());
        }
        if let Some(path) = self.redis_password_file {
            if let Err(error) = std::fs::read_to_string(&path) {
                return Err(InvalidConfig {
                    flag: "--redis-password-file",
                    variable: "SLUICE_REDIS_PASSWORD_FILE",
                    found: format!("{} cannot be read: {error}", path.display()),
                    mend: "Give a file that is there, readable for this user, and holds the password and nothing else",
                });
            }
            address = address.with_password_file(path);
        }
        let identity = match (self.redis_cert, self.redis_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(InvalidConfig {
                    flag: "--redis-cert, --redis-key",
                    variable: "SLUICE_REDIS_CERT, SLUICE_REDIS_KEY",
                    found: "one is given without the other".to_owned(),
                    mend: "Give both",
                });
            }
        };
        let files = TlsFiles { ca: self.redis_ca, identity };
        if !address.has_tls() && files != TlsFiles::default() {
            return Err(InvalidConfig {
                flag: "--redis-url",
                variable: "REDIS_URL",
                found: "there are files for TLS, and the URL asks for none".to_owned(),
                mend: "Write rediss://, or leave out --redis-ca, --redis-cert and --redis-key",
            });
        }
        address.with_tls(files).map_err(|error| invalid_tls(&error))
    }
}

fn invalid_tls(error: &InvalidTls) -> InvalidConfig {
    InvalidConfig {
        flag: "--redis-ca, --redis-cert, --redis-key",
        variable: "SLUICE_REDIS_CA, SLUICE_REDIS_CERT, SLUICE_REDIS_KEY",
        found: error.to_string(),
        mend: "They are files in PEM that this user may read",
    }
}
