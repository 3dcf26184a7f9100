//! Where a Redis is, read from a URL, and never printed with its password.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use tokio::sync::watch;

use super::tls::{InvalidTls, TlsFiles};

/// The port of a Sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26_379;

/// A Redis to connect to. Its `Display` and `Debug` name the server and the database, never the user or password.
#[derive(Clone)]
pub struct RedisAddress {
    pub(super) place: Place,
    /// Of the Redis, and of no Sentinel.
    login: RedisConnectionInfo,
    /// Read at each connection, in place of the password in the URL.
    password_file: Option<PathBuf>,
    /// Nothing where TLS is not spoken.
    tls: Option<TlsFiles>,
    /// Of the Sentinels.
    sentinel_login: RedisConnectionInfo,
    /// A key of this node's, by which it is probed; nothing where it is to be no node of a Cluster.
    node_key: Option<watch::Receiver<String>>,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(Endpoint),
    Unix(PathBuf),
    /// Where the Sentinels say that this primary is.
    Sentinel {
        sentinels: Vec<Endpoint>,
        primary: String,
    },
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why a URL does not name a Redis. It never carries the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// There is no URL.
    #[error("it is empty; leave it out to keep buckets in memory")]
    Empty,
    /// The scheme is that of something else, or there is none.
    #[error("its scheme is {0:?}")]
    Scheme(String),
    /// TLS has no mode that verifies nothing.
    #[error("it ends with a fragment (#…), and has none; a server's own authority is named by --redis-ca")]
    Fragment,
    /// No primary is named.
    #[error(
        "it names no primary; write redis+sentinel://host:26379,host2:26379/NAME, as the Sentinels call it"
    )]
    NoPrimary,
    /// Something else is wrong.
    #[error("{0}")]
    Other(String),
}

impl RedisAddress {
    /// Reads `redis://[user:password@]host[:port][/database]`, `rediss://` with TLS, `redis+unix:///path[?db=database]`,
    /// or `redis+sentinel://[user:password@]host[:port][,host[:port]…]/primary[/database]`, `rediss+sentinel://` with TLS.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn parse(url: &str) -> Result<Self, InvalidAddress> {
        if url.is_empty() {
            return Err(InvalidAddress::Empty);
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| InvalidAddress::Scheme(String::new()))?;
        let tls = matches!(scheme, "rediss" | "valkeys" | "rediss+sentinel" | "valkeys+sentinel");
        if tls && rest.contains('#') {
            return Err(InvalidAddress::Fragment);
        }
        let (place, info) = match scheme {
            "redis" | "valkey" | "rediss" | "valkeys" => single(&format!("redis://{rest}"))?,
            "unix" | "redis+unix" | "valkey+unix" => single(url)?,
            "redis+sentinel" | "valkey+sentinel" | "rediss+sentinel" | "valkeys+sentinel" => sentinel(rest)?,
            // What stands before "://" may be anything where the URL is mistyped; a password stands behind it.
            scheme => return Err(InvalidAddress::Scheme(scheme.chars().take(20).collect())),
        };
        // With RESP3 the library tells at once that a connection was lost, so that the next batch is not sent
        // into a closed one.
        let login: RedisConnectionInfo = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("sluice", env!("CARGO_PKG_VERSION"));
        let tls = tls.then(TlsFiles::default);
        Ok(Self {
            place,
            login,
            password_file: None,
            tls,
            sentinel_login: RedisConnectionInfo::default(),
            node_key: None,
        })
    }

    /// With this password, whatever the URL says.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.login = self.login.set_password(password);
        self
    }

    /// With the password in this file, read at each connection, whatever the URL says.
    #[must_use]
    pub fn with_password_file(mut self, path: PathBuf) -> Self {
        self.password_file = Some(path);
        self
    }

    /// With what the Sentinels themselves want: `password`, or `user:password`.
    #[must_use]
    pub fn with_sentinel_auth(mut self, auth: &str) -> Self {
        let login = RedisConnectionInfo::default();
        self.sentinel_login = match auth.split_once(':') {
            Some((user, password)) => login.set_username(user).set_password(password),
            None => login.set_password(auth),
        };
        self
    }

    /// With these files where TLS is spoken; they are read once now, so that a mistake is told at the start.
    ///
    /// # Errors
    /// [`InvalidTls`].
    pub fn with_tls(mut self, files: TlsFiles) -> Result<Self, InvalidTls> {
        if let Some(tls) = &mut self.tls {
            files.connector()?;
            *tls = files;
        }
        Ok(self)
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The name that its certificate should have.
    pub(super) fn host(&self) -> &str {
        match &self.place {
            Place::Tcp(endpoint) => &endpoint.host,
            Place::Unix(_) | Place::Sentinel { .. } => "",
        }
    }

    /// The same at another place.
    pub(super) fn at(&self, endpoint: Endpoint) -> Self {
        Self { place: Place::Tcp(endpoint), ..self.clone() }
    }

    /// The same as a node of a Redis Cluster that has this key, which is another where its slots are.
    pub(super) fn with_node(&self, endpoint: Endpoint, key: watch::Receiver<String>) -> Self {
        Self { node_key: Some(key), ..self.at(endpoint) }
    }

    pub(super) fn node_key(&self) -> Option<watch::Receiver<String>> {
        self.node_key.clone()
    }

    /// The port that it names, if it names one.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        match &self.place {
            Place::Tcp(endpoint) => Some(endpoint),
            Place::Unix(_) | Place::Sentinel { .. } => None,
        }
    }

    pub(super) fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    pub(super) fn login(&self) -> &RedisConnectionInfo {
        &self.login
    }

    pub(super) fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    pub(super) fn sentinel_login(&self) -> &RedisConnectionInfo {
        &self.sentinel_login
    }
}

/// What the library reads. Its own details quote parts of the URL, so only its fixed description is passed on.
fn single(url: &str) -> Result<(Place, ConnectionInfo), InvalidAddress> {
    let info = url.into_connection_info().map_err(|error| {
        let description = error.to_string();
        InvalidAddress::Other(description.split(" - ").next().unwrap_or("it cannot be read").to_owned())
    })?;
    let place = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Place::Tcp(Endpoint { host: host.clone(), port: *port }),
        ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
        _ => return Err(InvalidAddress::Other("it cannot be read".to_owned())),
    };
    Ok((place, info))
}

/// What stands behind the scheme: `[user:password@]host[:port][,…]/primary[/database]`. Each host is read as if it stood
/// alone.
fn sentinel(rest: &str) -> Result<(Place, ConnectionInfo), InvalidAddress> {
    let (authority, path) = rest.split_once('/').ok_or(InvalidAddress::NoPrimary)?;
    let (primary, database) = path.split_once('/').unwrap_or((path, ""));
    if primary.is_empty() || primary.contains(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)) {
        return Err(InvalidAddress::NoPrimary);
    }
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let mut sentinels = Vec::new();
    for host in hosts.split(',') {
        let has_port =
            host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|c| c.is_ascii_digit()));
        let port = if has_port { String::new() } else { format!(":{SENTINEL_PORT}") };
        let (Place::Tcp(endpoint), _) = single(&format!("redis://{host}{port}"))? else {
            return Err(InvalidAddress::Other("it names no host".to_owned()));
        };
        sentinels.push(endpoint);
    }
    let at = if login.is_empty() { "" } else { "@" };
    let (_, info) = single(&format!("redis://{login}{at}sentinel/{database}"))?;
    Ok((Place::Sentinel { sentinels, primary: primary.to_owned() }, info))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(endpoint) => write!(f, "{endpoint}")?,
            Place::Unix(path) => write!(f, "{}", path.display())?,
            Place::Sentinel { sentinels, primary } => {
                write!(f, "{primary} of the Sentinels")?;
                sentinels.iter().try_for_each(|sentinel| write!(f, " {sentinel}"))?;
            }
        }
        // A Cluster has one.
        if self.node_key.is_none() { write!(f, " database {}", self.login.db()) } else { Ok(()) }
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_never_shows_its_password() {
        let address = RedisAddress::parse("redis://shop:hunter2@redis.internal:6380/3").expect("valid");
        assert_eq!(address.to_string(), "redis.internal:6380 database 3");
        assert!(!format!("{address:?}").contains("hunter2"));
        for wrong in [
            "redis://shop:hunter2@host:port",
            "redis://:hunter2@host/x",
            "http://:hunter2@host",
            ":hunter2",
            "redis+sentinel://:hunter2@host:port/main",
            "redis+sentinel://:hunter2@host",
            "rediss://:hunter2@host#insecure",
        ] {
            let error = RedisAddress::parse(wrong).expect_err(wrong);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_no_redis_is_refused_by_name() {
        let refused = |url| RedisAddress::parse(url).unwrap_err();
        assert_eq!(refused(""), InvalidAddress::Empty);
        assert_eq!(refused("http://host"), InvalidAddress::Scheme("http".into()));
        assert_eq!(refused("host:6379"), InvalidAddress::Scheme(String::new()));
        assert_eq!(refused("rediss://host#insecure"), InvalidAddress::Fragment);
        for url in ["redis+sentinel://host", "redis+sentinel://host/", "redis+sentinel://host//0"] {
            assert_eq!(refused(url), InvalidAddress::NoPrimary, "{url}");
        }
    }

    #[test]
    fn sentinels_are_read_with_their_ports_and_the_login_of_the_redis() {
        let url = "rediss+sentinel://shop:p%40ss@a.internal,[::1]:5000,10.0.0.7:26380/main/2";
        let address = RedisAddress::parse(url).expect("valid");
        let endpoint = |host: &str, port| Endpoint { host: host.to_owned(), port };
        let sentinels =
            vec![endpoint("a.internal", 26_379), endpoint("::1", 5000), endpoint("10.0.0.7", 26_380)];
        assert_eq!(address.place, Place::Sentinel { sentinels, primary: "main".to_owned() });
        assert_eq!((address.login.username(), address.login.password()), (Some("shop"), Some("p@ss")));
        assert_eq!((address.login.db(), address.has_tls()), (2, true));
        let expected = "main of the Sentinels a.internal:26379 [::1]:5000 10.0.0.7:26380 database 2";
        assert_eq!(address.to_string(), expected);
    }
}
