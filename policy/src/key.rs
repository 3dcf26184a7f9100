//! Whose bucket a request takes from, as text.
//!
//! A key is a list of `kind=value` parts joined by commas: `header:x-api-key=alice` or
//! `client_address=192.0.2.1`. Values are percent-encoded but for letters, digits and a few harmless signs, so that
//! no value can be mistaken for another part, nor a header for an address: two clients share a bucket only where
//! all parts are equal. A part that is missing has no `=`, so it differs from one that is empty; all requests
//! that miss it share one bucket. Long values are replaced by their SHA-256, so that no client decides how much
//! memory its bucket takes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use contract::MAX_KEY_BYTES;
use sha2::{Digest, Sha256};

use crate::Request;

/// The most parts of a key, and the most choices of one part.
pub const MAX_PARTS: usize = 8;

/// The longest value that is kept readable, in encoded bytes.
const MAX_READABLE_BYTES: usize = 128;

/// The prefix of an IPv6 address that is one client: what a provider gives to one customer.
const IPV6_PREFIX_BITS: u32 = 64;

/// What tells clients apart. No parts: all share one bucket.
#[derive(Clone, Debug)]
pub struct Key {
    /// The choices of each part; the first that is present is taken.
    parts: Vec<Vec<Part>>,
}

/// One thing about a request that may tell its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    ClientAddress,
    /// By name, in lower case.
    Header(String),
}

impl Key {
    pub fn new(parts: Vec<Vec<Part>>) -> Self {
        Self { parts }
    }

    pub fn of(&self, request: &impl Request) -> String {
        // Enough for most, so that it is allocated once.
        let mut key = String::with_capacity(64);
        for choices in &self.parts {
            if !key.is_empty() {
                key.push(',');
            }
            let present = choices.iter().find_map(|part| part.value(request).map(|value| (part, value)));
            match (present, choices.first()) {
                (Some((part, value)), _) => {
                    part.write_kind(&mut key);
                    key.push('=');
                    write_value(&mut key, &value);
                }
                (None, Some(first)) => first.write_kind(&mut key),
                (None, None) => {}
            }
        }
        if key.len() > MAX_KEY_BYTES { digest(key.as_bytes()) } else { key }
    }
}

impl Part {
    fn value<'a>(&self, request: &'a impl Request) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::ClientAddress => request.client_address().map(client),
            Self::Header(name) => request.header(name).map(Cow::Borrowed),
        }
    }

    fn write_kind(&self, to: &mut String) {
        match self {
            Self::ClientAddress => to.push_str("client_address"),
            Self::Header(name) => {
                to.push_str("header:");
                write_encoded(to, name.as_bytes());
            }
        }
    }
}

/// The client of an address: without the port, and of an IPv6 address its /64.
fn client(address: &[u8]) -> Cow<'_, [u8]> {
    let ip = std::str::from_utf8(address).ok().and_then(|text| {
        text.parse::<SocketAddr>().map(|socket| socket.ip()).or_else(|_| text.parse::<IpAddr>()).ok()
    });
    match ip.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(v4)) => Cow::Owned(v4.to_string().into_bytes()),
        Some(IpAddr::V6(v6)) => {
            let mask = u128::MAX << (128 - IPV6_PREFIX_BITS);
            let network = Ipv6Addr::from_bits(v6.to_bits() & mask);
            Cow::Owned(format!("{network}/{IPV6_PREFIX_BITS}").into_bytes())
        }
        // A Unix socket or an internal listener: its name is all there is.
        None => Cow::Borrowed(address),
    }
}

fn write_value(to: &mut String, value: &[u8]) {
    let start = to.len();
    if value.len() <= MAX_READABLE_BYTES {
        write_encoded(to, value);
    }
    if value.len() > MAX_READABLE_BYTES || to.len() - start > MAX_READABLE_BYTES {
        to.truncate(start);
        to.push_str(&digest(value));
    }
}

/// `*` is never written by an encoded value, so nobody can send the digest of another client's value in its place.
fn digest(value: &[u8]) -> String {
    let mut text = String::from("*sha256:");
    for byte in Sha256::digest(value) {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

fn write_encoded(to: &mut String, value: &[u8]) {
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~:/@+".contains(&byte) {
            to.push(char::from(byte));
        } else {
            let _infallible = write!(to, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request with one address and two headers.
    #[derive(Default)]
    struct Sent {
        address: Option<Vec<u8>>,
        a: Option<Vec<u8>>,
        b: Option<Vec<u8>>,
    }

    impl Request for Sent {
        fn path(&self) -> Option<&[u8]> {
            None
        }

        fn method(&self) -> Option<&[u8]> {
            None
        }

        fn header(&self, name: &str) -> Option<&[u8]> {
            if name == "a" { self.a.as_deref() } else { self.b.as_deref() }
        }

        fn client_address(&self) -> Option<&[u8]> {
            self.address.as_deref()
        }
    }

    fn both_headers() -> Key {
        Key::new(vec![vec![Part::Header("a".into())], vec![Part::Header("b".into())]])
    }

    fn of_address(address: &str) -> String {
        let sent = Sent { address: Some(address.into()), ..Sent::default() };
        Key::new(vec![vec![Part::ClientAddress]]).of(&sent)
    }

    #[test]
    fn an_address_loses_its_port_and_ipv6_its_host_part() {
        assert_eq!(of_address("192.0.2.1:4711"), "client_address=192.0.2.1");
        assert_eq!(of_address("192.0.2.1"), "client_address=192.0.2.1");
        assert_eq!(of_address("[::ffff:192.0.2.1]:9"), "client_address=192.0.2.1");
        assert_eq!(of_address("[2001:db8:1:2:3:4:5:6]:4711"), "client_address=2001:db8:1:2::/64");
        assert_eq!(of_address("/run/a b.sock"), "client_address=/run/a%20b.sock");
    }

    #[test]
    fn the_first_that_is_present_is_taken_and_named() {
        let key = Key::new(vec![vec![Part::Header("a".into()), Part::ClientAddress]]);
        let address = Some(b"192.0.2.1:1".to_vec());
        let with_key = Sent { a: Some(b"192.0.2.1".to_vec()), address: address.clone(), b: None };
        assert_eq!(key.of(&with_key), "header:a=192.0.2.1", "and is not the address of that client");
        assert_eq!(key.of(&Sent { address, ..Sent::default() }), "client_address=192.0.2.1");
    }

    #[test]
    fn missing_and_empty_differ() {
        let empty = Sent { a: Some(Vec::new()), ..Sent::default() };
        assert_eq!(both_headers().of(&empty), "header:a=,header:b");
        assert_eq!(both_headers().of(&Sent::default()), "header:a,header:b");
    }

    #[test]
    fn a_long_value_is_replaced_by_its_digest() {
        let long = Sent { a: Some(vec![b'x'; 60_000]), ..Sent::default() };
        let key = both_headers().of(&long);
        assert!(key.starts_with("header:a=*sha256:") && key.len() < 100, "{key}");
        let forged = key["header:a=".len()..].split(',').next().expect("the digest").as_bytes().to_vec();
        assert_ne!(both_headers().of(&Sent { a: Some(forged), ..Sent::default() }), key);
    }

    proptest! {
        #[test]
        fn keys_are_equal_only_where_all_parts_are(
            left in any::<(Option<Vec<u8>>, Option<Vec<u8>>)>(),
            right in any::<(Option<Vec<u8>>, Option<Vec<u8>>)>(),
        ) {
            let key = |(a, b): &(Option<Vec<u8>>, Option<Vec<u8>>)| {
                both_headers().of(&Sent { a: a.clone(), b: b.clone(), address: None })
            };
            prop_assert_eq!(left == right, key(&left) == key(&right));
        }

        #[test]
        fn separators_cannot_be_smuggled_in(a in "[a-b,=:%*]{0,6}", b in "[a-b,=:%*]{0,6}", cut in 0..6_usize) {
            // The same bytes, cut elsewhere into two headers.
            let joined = format!("{a}{b}");
            let cut = cut.min(joined.len());
            let sent = |a: &str, b: &str| both_headers().of(&Sent {
                a: Some(a.into()), b: Some(b.into()), address: None,
            });
            prop_assert_eq!(sent(&a, &b) == sent(&joined[..cut], &joined[cut..]), cut == a.len());
        }

        #[test]
        fn a_key_is_never_longer_than_the_contract_allows(a in any::<Vec<u8>>(), length in 0..70_000_usize) {
            let long = a.iter().copied().cycle().take(if a.is_empty() { 0 } else { length }).collect::<Vec<u8>>();
            let parts = vec![vec![Part::Header("a".repeat(128))]; MAX_PARTS];
            let key = Key::new(parts).of(&Sent { b: Some(long), ..Sent::default() });
            prop_assert!(key.len() <= MAX_KEY_BYTES);
        }
    }
}
