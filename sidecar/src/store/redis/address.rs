//! Where a Redis is, read from a URL, and never printed with its password.

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, io::tcp::TcpSettings};

/// A Redis to connect to. Its `Display` and `Debug` name the server and the database, never the user or password.
#[derive(Clone)]
pub struct RedisAddress(ConnectionInfo);

/// Why a URL does not name a Redis. It never carries the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// There is no URL.
    #[error("it is empty; leave it out to keep buckets in memory")]
    Empty,
    /// The scheme is that of something else, or there is none.
    #[error("its scheme is {0:?}")]
    Scheme(String),
    /// TLS is not built in.
    #[error(
        "it asks for TLS, which this build does not have; use redis:// to a Redis on a trusted network, or a TLS tunnel"
    )]
    Tls,
    /// Something else is wrong.
    #[error("{0}")]
    Other(String),
}

impl RedisAddress {
    /// Reads `redis://[user:password@]host[:port][/database]` or `redis+unix:///path[?db=database]`.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn parse(url: &str) -> Result<Self, InvalidAddress> {
        if url.is_empty() {
            return Err(InvalidAddress::Empty);
        }
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("redis" | "valkey" | "unix" | "redis+unix" | "valkey+unix") => {}
            Some("rediss" | "valkeys") => return Err(InvalidAddress::Tls),
            // What stands before "://" may be anything where the URL is mistyped; a password stands behind it.
            Some(scheme) => return Err(InvalidAddress::Scheme(scheme.chars().take(20).collect())),
            None => return Err(InvalidAddress::Scheme(String::new())),
        }
        // The library's own details quote parts of the URL, so only its fixed description is passed on.
        let info = url.into_connection_info().map_err(|error| {
            let description = error.to_string();
            InvalidAddress::Other(description.split(" - ").next().unwrap_or("it cannot be read").to_owned())
        })?;
        // With RESP3 the library tells at once that a connection was lost, so that the next batch is not sent
        // into a closed one.
        let settings: RedisConnectionInfo = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("sluice", env!("CARGO_PKG_VERSION"));
        // Otherwise the end of a run that fills more than one packet, and every run sent behind another, would wait until
        // the server has acknowledged what came before, which it may put off for 40 ms.
        let without_delay = TcpSettings::default().set_nodelay(true);
        Ok(Self(info.set_redis_settings(settings).set_tcp_settings(without_delay)))
    }

    pub(super) fn connection_info(&self) -> ConnectionInfo {
        self.0.clone()
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} database {}", self.0.addr(), self.0.redis_settings().db())
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
        for wrong in
            ["redis://shop:hunter2@host:port", "redis://:hunter2@host/x", "http://:hunter2@host", ":hunter2"]
        {
            let error = RedisAddress::parse(wrong).expect_err(wrong);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_no_redis_is_refused_by_name() {
        assert_eq!(RedisAddress::parse("").unwrap_err(), InvalidAddress::Empty);
        assert_eq!(RedisAddress::parse("rediss://host").unwrap_err(), InvalidAddress::Tls);
        assert_eq!(RedisAddress::parse("http://host").unwrap_err(), InvalidAddress::Scheme("http".into()));
        assert_eq!(RedisAddress::parse("host:6379").unwrap_err(), InvalidAddress::Scheme(String::new()));
    }
}
