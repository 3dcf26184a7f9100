//! Which requests a policy governs.

use std::collections::BTreeSet;

use ipnet::IpNet;
use regex::bytes::Regex;

use crate::known::Known;
use crate::request::{self, ROUTE_NAME};
use crate::share::Share;

/// A condition on a request.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Every one of these is met; none: always.
    All(Vec<Condition>),
    /// At least one of these is met.
    Any(Vec<Condition>),
    /// This is not met.
    Not(Box<Condition>),
    /// On the path without the query. A request without a path fulfils none.
    Path(Test),
    /// The method is one of these.
    Method(Vec<String>),
    /// The host is one of these.
    Host(Vec<HostName>),
    /// On the first value of a header, by its name in lower case.
    Header(String, Test),
    Query(String, Test),
    Cookie(String, Test),
    /// The client's address is in one of these.
    ClientAddress(Vec<IpNet>),
    RouteName(Vec<String>),
    /// On a value of metadata, by the path of its attribute.
    Metadata(String, Test),
    /// So many of all requests.
    Share(Share),
}

/// A condition on a value.
#[derive(Clone, Debug)]
pub enum Test {
    /// There is one.
    Present,
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// The whole of it matches.
    Regex(Regex),
}

/// A host, or all hosts below a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostName {
    Exact(String),
    /// With the point before it, such as `.example.com`.
    Below(String),
}

impl Condition {
    pub fn is_met<'a>(&'a self, by: &Known<'a>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|condition| condition.is_met(by)),
            Self::Any(any) => any.iter().any(|condition| condition.is_met(by)),
            Self::Not(condition) => !condition.is_met(by),
            Self::Path(test) => test.fits(by.path()),
            Self::Method(methods) => by.method().is_some_and(|found| one_of(methods, found)),
            Self::Host(hosts) => by.host().is_some_and(|found| hosts.iter().any(|host| host.fits(found))),
            Self::Header(name, test) => test.fits(by.header(name)),
            Self::Query(name, test) => test.fits(by.query(name).as_deref()),
            Self::Cookie(name, test) => test.fits(by.cookie(name)),
            Self::ClientAddress(networks) => {
                by.client_ip().is_some_and(|ip| networks.iter().any(|network| network.contains(&ip)))
            }
            Self::RouteName(names) => by.attribute(ROUTE_NAME).is_some_and(|found| one_of(names, found)),
            Self::Metadata(path, test) => by.attribute(path).is_some_and(|value| {
                test.fits(Some(value))
                    || request::as_json(value).is_some_and(|shown| test.fits(Some(shown.as_bytes())))
            }),
            Self::Share(share) => share.has(by.draw()),
        }
    }

    /// Whether every request meets it.
    pub fn is_always_met(&self) -> bool {
        match self {
            Self::All(all) => all.iter().all(Self::is_always_met),
            Self::Any(any) => any.iter().any(Self::is_always_met),
            Self::Share(share) => *share == Share::WHOLE,
            _ => false,
        }
    }

    /// Adds every share in it.
    pub fn add_shares(&self, to: &mut BTreeSet<Share>) {
        match self {
            Self::All(inner) | Self::Any(inner) => {
                inner.iter().for_each(|condition| condition.add_shares(to));
            }
            Self::Not(inner) => inner.add_shares(to),
            Self::Share(share) => {
                to.insert(*share);
            }
            _ => {}
        }
    }

    /// Whether it, or a condition in it, is one that `wanted` is true of.
    pub fn has(&self, wanted: &impl Fn(&Self) -> bool) -> bool {
        wanted(self)
            || match self {
                Self::All(inner) | Self::Any(inner) => inner.iter().any(|condition| condition.has(wanted)),
                Self::Not(inner) => inner.has(wanted),
                _ => false,
            }
    }
}

fn one_of(names: &[String], found: &[u8]) -> bool {
    names.iter().any(|name| name.as_bytes() == found)
}

impl Test {
    pub fn fits(&self, value: Option<&[u8]>) -> bool {
        let Some(value) = value else { return false };
        match self {
            Self::Present => true,
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl HostName {
    fn fits(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(name) => host == name.as_bytes(),
            Self::Below(domain) => host.len() > domain.len() && host.ends_with(domain.as_bytes()),
        }
    }
}
