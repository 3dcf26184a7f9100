//! One thing about a request that may tell its client.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::known::Known;
use crate::request::CLIENT_ADDRESS;

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

/// What a request has for a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Bytes(Cow<'a, [u8]>),
    Client(Client),
}

/// A client's address without the port, or the network that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The first address of the network.
    ip: IpAddr,
    /// Those of a network; `None` for one address.
    bits: Option<u8>,
}

impl Part {
    pub fn value<'k, 'a: 'k>(&'a self, request: &'k Known<'a>) -> Option<Value<'k>> {
        let bytes = match self {
            Self::ClientAddress { ipv4_bits, ipv6_bits } => match request.client_ip() {
                Some(ip) => return Some(Value::Client(Client::new(ip, *ipv4_bits, *ipv6_bits))),
                // A Unix socket or an internal listener: its name is all there is.
                None => request.attribute(CLIENT_ADDRESS),
            },
            Self::Header(name) => request.header(name),
            Self::Cookie(name) => request.cookie(name),
            Self::Query(name) => return request.query(name).map(Value::Bytes),
            Self::Path { segments: None } => request.path(),
            Self::Path { segments: Some(count) } => request.path().map(|path| first_segments(path, *count)),
            Self::Method => request.method(),
            Self::Host => request.host(),
            Self::Attribute(path) | Self::Metadata(path) => request.attribute(path),
            Self::Text(text) => Some(text.as_bytes()),
        };
        bytes.map(|bytes| Value::Bytes(Cow::Borrowed(bytes)))
    }
}

impl Client {
    fn new(ip: IpAddr, ipv4_bits: u8, ipv6_bits: u8) -> Self {
        match ip {
            IpAddr::V4(v4) if ipv4_bits < 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(ipv4_bits)).unwrap_or(0);
                Self { ip: Ipv4Addr::from_bits(v4.to_bits() & mask).into(), bits: Some(ipv4_bits) }
            }
            IpAddr::V6(v6) if ipv6_bits < 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_bits)).unwrap_or(0);
                Self { ip: Ipv6Addr::from_bits(v6.to_bits() & mask).into(), bits: Some(ipv6_bits) }
            }
            whole => Self { ip: whole, bits: None },
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip.fmt(f)?;
        self.bits.map_or(Ok(()), |bits| write!(f, "/{bits}"))
    }
}

/// `/a/b` of `/a/b/c`, where 2 segments are wanted.
fn first_segments(path: &[u8], count: usize) -> &[u8] {
    let mut slashes = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
    let end = slashes.nth(count.saturating_sub(1)).map_or(path.len(), |(at, _)| at);
    path.get(..end).unwrap_or(path)
}
