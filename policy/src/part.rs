//! One thing about a request that may tell its client.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Request;
use crate::request::{self, CLIENT_ADDRESS};

/// Where a part of a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The client's address, as the network of these many bits.
    ClientAddress {
        ipv4_bits: u8,
        ipv6_bits: u8,
    },
    /// A header, by its name in lower case.
    Header(String),
    Cookie(String),
    Query(String),
    /// The path without the query: all of it, or its first segments.
    Path {
        segments: Option<usize>,
    },
    Method,
    Host,
    /// An attribute that is text.
    Attribute(String),
    /// An attribute that is a value of metadata.
    Metadata(String),
    Text(String),
}

impl Part {
    pub fn value<'a>(&'a self, request: &'a impl Request) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::ClientAddress { ipv4_bits, ipv6_bits } => client(request, *ipv4_bits, *ipv6_bits),
            Self::Header(name) => request.header(name).map(Cow::Borrowed),
            Self::Cookie(name) => request::cookie(request, name).map(Cow::Borrowed),
            Self::Query(name) => request::query(request, name),
            Self::Path { segments: None } => request::path(request).map(Cow::Borrowed),
            Self::Path { segments: Some(count) } => {
                request::path(request).map(|path| Cow::Borrowed(first_segments(path, *count)))
            }
            Self::Method => request.header(":method").map(Cow::Borrowed),
            Self::Host => request::host(request),
            Self::Attribute(path) | Self::Metadata(path) => {
                request::attribute(request, path).map(Cow::Borrowed)
            }
            Self::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
        }
    }
}

/// The client of an address: the address without the port, or the network that it is in.
fn client<'a>(request: &'a impl Request, ipv4_bits: u8, ipv6_bits: u8) -> Option<Cow<'a, [u8]>> {
    let text = match request::client_ip(request) {
        Some(IpAddr::V4(v4)) if ipv4_bits >= 32 => v4.to_string(),
        Some(IpAddr::V4(v4)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(ipv4_bits)).unwrap_or(0);
            format!("{}/{ipv4_bits}", Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        Some(IpAddr::V6(v6)) if ipv6_bits >= 128 => v6.to_string(),
        Some(IpAddr::V6(v6)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_bits)).unwrap_or(0);
            format!("{}/{ipv6_bits}", Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
        // A Unix socket or an internal listener: its name is all there is.
        None => return request::attribute(request, CLIENT_ADDRESS).map(Cow::Borrowed),
    };
    Some(Cow::Owned(text.into_bytes()))
}

/// `/a/b` of `/a/b/c`, where 2 segments are wanted.
fn first_segments(path: &[u8], count: usize) -> &[u8] {
    let mut slashes = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
    let end = slashes.nth(count.saturating_sub(1)).map_or(path.len(), |(at, _)| at);
    path.get(..end).unwrap_or(path)
}
