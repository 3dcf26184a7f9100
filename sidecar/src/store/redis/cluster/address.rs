//! Some nodes of a Cluster, read from a URL, and never printed with their password.

use std::fmt;

use super::map::Node;
use crate::store::redis::{InvalidAddress, RedisAddress};

/// The schemes that name a Cluster, and those by which one of its nodes is reached.
const SCHEMES: [(&str, &str); 6] = [
    ("redis+cluster", "redis"),
    ("redis-cluster", "redis"),
    ("valkey+cluster", "redis"),
    ("rediss+cluster", "rediss"),
    ("rediss-cluster", "rediss"),
    ("valkeys+cluster", "rediss"),
];

/// A Redis Cluster to connect to. Its `Display` and `Debug` name the nodes, never the user or password.
#[derive(Clone)]
pub struct ClusterAddress {
    /// The first node, and by what all know us.
    pub(crate) common: RedisAddress,
    /// At least one.
    pub(super) seeds: Vec<Node>,
}

impl ClusterAddress {
    /// Whether a URL names a Cluster, and no single Redis.
    #[must_use]
    pub fn is_meant(url: &str) -> bool {
        split(url).is_some()
    }

    /// Reads `redis+cluster://[user:password@]host[:port][,host[:port]]…`: any nodes, of which one must be up at the
    /// start; the others are found by it.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn parse(url: &str) -> Result<Self, InvalidAddress> {
        let Some((scheme, rest)) = split(url) else {
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            return Err(InvalidAddress::Scheme(scheme.chars().take(20).collect()));
        };
        // A password may hold an @ that is not escaped; no host does.
        let (user, hosts) = rest.rsplit_once('@').map_or(("", rest), |(user, hosts)| (user, hosts));
        let at = if user.is_empty() { "" } else { "@" };
        let parse = |host: &str| RedisAddress::parse(&format!("{scheme}://{user}{at}{host}"));
        let mut common = None;
        let mut seeds = Vec::new();
        for host in hosts.trim_end_matches('/').split(',') {
            let address = parse(host)?;
            if address.login().db() != 0 {
                return Err(InvalidAddress::Other("a Redis Cluster has no database but 0".to_owned()));
            }
            seeds.extend(address.endpoint().cloned());
            common.get_or_insert(address);
        }
        let common = common.ok_or(InvalidAddress::Empty)?;
        Ok(Self { common, seeds })
    }

    /// The seeds, each with what all know us by.
    pub(super) fn addresses(&self) -> Vec<RedisAddress> {
        self.seeds.iter().map(|seed| self.common.at(seed.clone())).collect()
    }
}

fn split(url: &str) -> Option<(&'static str, &str)> {
    let (written, rest) = url.split_once("://")?;
    let (_, scheme) = SCHEMES.iter().find(|(cluster, _)| *cluster == written)?;
    Some((scheme, rest))
}

impl fmt::Display for ClusterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, seed) in self.seeds.iter().enumerate() {
            write!(f, "{}{seed}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClusterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_reached_by_the_same_user_and_none_shows_its_password() {
        let url = "redis+cluster://shop:hunter2@one:7000,two,[::1]:7002/";
        let address = ClusterAddress::parse(url).expect("valid");
        assert_eq!(address.to_string(), "one:7000, two:6379, [::1]:7002");
        for seed in address.addresses() {
            assert_eq!((seed.login().username(), seed.login().password()), (Some("shop"), Some("hunter2")));
        }
        assert!(ClusterAddress::parse("rediss+cluster://one").expect("valid").common.has_tls());
        assert!(!format!("{address:?}").contains("hunter2"));
        assert!(ClusterAddress::is_meant("redis-cluster://one") && !ClusterAddress::is_meant("redis://one"));
    }

    #[test]
    fn what_names_no_nodes_is_refused() {
        for wrong in ["redis+cluster://", "redis+cluster://a,,b", "redis+cluster://:hunter2@a:x", "redis://a"]
        {
            let error = ClusterAddress::parse(wrong).expect_err(wrong);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let error = ClusterAddress::parse("redis+cluster://a/3").expect_err("a database");
        assert_eq!(error.to_string(), "a Redis Cluster has no database but 0");
    }
}
