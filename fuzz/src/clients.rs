//! What tells two clients apart, known before any of it is written into a request.

use std::net::IpAddr;

use arbitrary::{Arbitrary, Result, Unstructured};
use serde_json::{Value, json};

use crate::{language::HOSTILE, sent::Sent};

/// A part of a key.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Just what the client says here.
    Said(Said),
    /// The same, hashed.
    Hashed,
    /// The first two segments of the path.
    TwoSegments,
    /// The whole address; of IPv6 the /64.
    Address,
    /// The /24 or the /56.
    Network,
    /// A header, or else the address.
    HeaderOrAddress,
    /// The same for everybody.
    Fixed,
}

/// Where a client says something.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    /// In one header.
    Header,
    /// In another.
    OtherHeader,
    /// In a cookie.
    Cookie,
    /// In a query parameter.
    Query,
    /// By the path.
    Path,
    /// By the method.
    Method,
    /// By the host.
    Host,
    /// In dynamic metadata, such as a claim of its token.
    Claim,
    /// By the name of the route.
    RouteName,
}

use Said::{Claim, Cookie, Header, Host, Method, OtherHeader, Path, Query, RouteName};

const EVERYWHERE: [Said; 9] = [Header, OtherHeader, Cookie, Query, Path, Method, Host, Claim, RouteName];

/// A client: what it says, and from where.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// By the order of [`Said`].
    said: [Option<Vec<u8>>; EVERYWHERE.len()],
    address: Option<IpAddr>,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 15] = [
        Self::Said(Header),
        Self::Said(OtherHeader),
        Self::Said(Cookie),
        Self::Said(Query),
        Self::Said(Path),
        Self::Said(Method),
        Self::Said(Host),
        Self::Said(Claim),
        Self::Said(RouteName),
        Self::Hashed,
        Self::TwoSegments,
        Self::Address,
        Self::Network,
        Self::HeaderOrAddress,
        Self::Fixed,
    ];

    /// Where a client says what this part tells, if it does.
    #[must_use]
    pub fn said(self) -> Option<Said> {
        match self {
            Self::Said(said) => Some(said),
            Self::Hashed => Some(Header),
            Self::TwoSegments => Some(Path),
            Self::HeaderOrAddress => Some(OtherHeader),
            Self::Address | Self::Network | Self::Fixed => None,
        }
    }

    /// As it is configured.
    #[must_use]
    pub fn written(self) -> Value {
        match self {
            Self::Said(Header) => json!({"header": "x-a"}),
            Self::Said(OtherHeader) => json!({"header": "x-b"}),
            Self::Said(Cookie) => json!({"cookie": "session"}),
            Self::Said(Query) => json!({"query": "user"}),
            Self::Said(Path) => json!("path"),
            Self::Said(Method) => json!("method"),
            Self::Said(Host) => json!("host"),
            Self::Said(Claim) => json!({"dynamic_metadata": {"namespace": "ns", "path": ["sub"]}}),
            Self::Said(RouteName) => json!("route_name"),
            Self::Hashed => json!({"header": "x-a", "hash": true}),
            Self::TwoSegments => json!({"path": {"segments": 2}}),
            Self::Address => json!("client_address"),
            Self::Network => json!({"client_address": {"ipv4_prefix": 24, "ipv6_prefix": 56}}),
            Self::HeaderOrAddress => json!({"first_of": [{"header": "x-b"}, "client_address"]}),
            Self::Fixed => json!({"text": "v2"}),
        }
    }
}

impl Client {
    /// What this part tells of the client, in any form that tells the same clients apart.
    #[must_use]
    pub fn value(&self, part: Part) -> Option<Vec<u8>> {
        match part {
            Part::Said(said) => self.says(said).map(<[u8]>::to_vec),
            Part::Hashed => self.value(Part::Said(Header)),
            Part::TwoSegments => self.says(Path).map(|path| {
                let third = (1..path.len()).filter(|at| path[*at] == b'/').nth(1).unwrap_or(path.len());
                path[..third].to_vec()
            }),
            Part::Address => self.network(32, 64),
            Part::Network => self.network(24, 56),
            Part::HeaderOrAddress => {
                let header = self.says(OtherHeader).map(|value| [b"header ", value].concat());
                header.or_else(|| self.network(32, 64))
            }
            Part::Fixed => Some(Vec::new()),
        }
    }

    fn says(&self, said: Said) -> Option<&[u8]> {
        // Without a path there is nowhere for a query.
        let said = if matches!(said, Query) && self.said[Path as usize].is_none() { Path } else { said };
        self.said[said as usize].as_deref()
    }

    fn network(&self, ipv4_bits: u32, ipv6_bits: u32) -> Option<Vec<u8>> {
        let (version, bits) = match self.address?.to_canonical() {
            IpAddr::V4(ip) => (4, u128::from(ip.to_bits() >> (32 - ipv4_bits))),
            IpAddr::V6(ip) => (6, ip.to_bits() >> (128 - ipv6_bits)),
        };
        Some(format!("address {version} {bits}").into_bytes())
    }

    /// This client, but that it has moved something to where it could be mistaken.
    ///
    /// # Errors
    /// Where there are too few bytes.
    pub fn disguised(&self, bytes: &mut Unstructured<'_>) -> Result<Self> {
        let mut other = self.clone();
        let (from, to) = (*bytes.choose(&EVERYWHERE)?, *bytes.choose(&EVERYWHERE)?);
        match bytes.int_in_range(0..=5)? {
            0 => other.say(to, self.says(from)),
            1 => other.say(from, None),
            2 => other.say(from, Some(&text(bytes)?)),
            3 => {
                // The same bytes, cut elsewhere.
                let both = [self.says(from).unwrap_or_default(), self.says(to).unwrap_or_default()].concat();
                let (left, right) = both.split_at(bytes.int_in_range(0..=both.len())?);
                other.say(from, Some(left));
                other.say(to, Some(right));
            }
            4 => {
                // What Envoy encodes as a number, as the text of that number.
                let number = self.says(Claim).and_then(|value| value.try_into().ok()).map(f64::from_le_bytes);
                let text = number.map(|number| number.to_string());
                other.say(Claim, Some(text.as_deref().unwrap_or("true").as_bytes()));
            }
            _ => {
                let mut changed = self.says(from).unwrap_or_default().to_vec();
                changed.insert(bytes.int_in_range(0..=changed.len())?, *bytes.choose(b",=:%*/ \0+")?);
                other.say(from, Some(&changed));
            }
        }
        Ok(other)
    }

    /// Says this, or as much of it as a request can carry there.
    pub fn say(&mut self, said: Said, value: Option<&[u8]>) {
        let without = |signs: &[u8], value: &[u8]| {
            value.iter().copied().filter(|sign| !signs.contains(sign)).collect::<Vec<_>>()
        };
        self.said[said as usize] = value.and_then(|value| match said {
            Cookie => Some(without(b";", value).trim_ascii().to_vec()),
            Path => Some(without(b"?#", value)),
            Host => Some(without(b":[].", value).to_ascii_lowercase()),
            // Envoy cannot tell them from none.
            Claim | RouteName => (!value.is_empty()).then(|| value.to_vec()),
            Header | OtherHeader | Query | Method => Some(value.to_vec()),
        });
    }

    /// A request of this client: one of many that say the same.
    ///
    /// # Errors
    /// Where there are too few bytes.
    pub fn sent(&self, bytes: &mut Unstructured<'_>) -> Result<Sent> {
        let mut sent = Sent::default();
        for (said, name) in [(Header, "x-a"), (OtherHeader, "x-b"), (Method, ":method")] {
            if let Some(value) = self.says(said) {
                sent = sent.header(name, value);
            }
        }
        for (said, path) in [(Claim, claim_attribute()), (RouteName, "xds\0route_name")] {
            if let Some(value) = self.says(said) {
                sent = sent.attribute(path, value);
            }
        }
        // Other cookies may come in lines of their own.
        for _ in 0..bytes.int_in_range(0..=2)? {
            sent = sent.header(
                "cookie",
                bytes.choose(&["a=session=1", "Session=x;", "sessions", " ;;"])?.as_bytes(),
            );
        }
        if let Some(value) = self.says(Cookie) {
            let before = *bytes.choose(&[
                "",
                "a=session=1; ",
                "Session=x;",
                "session ;; sessions=y ; ",
                "%73ession=1; ",
            ])?;
            let after = *bytes.choose(&["", ";", "; session=other", " ; a"])?;
            sent = sent.header("cookie", &[before.as_bytes(), b"session=", value, after.as_bytes()].concat());
            if bytes.arbitrary()? {
                sent = sent.header("cookie", b"session=other");
            }
        }
        if let Some(host) = self.says(Host) {
            let host = if bytes.arbitrary()? { host.to_ascii_uppercase() } else { host.to_vec() };
            let after = *bytes.choose(&["", ".", ":80", ".:65535", ":"])?;
            sent = sent.header(":authority", &[&host, after.as_bytes()].concat());
        }
        if let Some(target) = self.target(bytes)? {
            sent = sent.header(":path", &target);
        }
        if let Some(address) = self.address {
            let port: u16 = bytes.arbitrary()?;
            let text = match address {
                IpAddr::V4(ip) if bytes.arbitrary()? => format!("[{}]:{port}", ip.to_ipv6_mapped()),
                IpAddr::V4(ip) => format!("{ip}:{port}"),
                IpAddr::V6(ip) => format!("[{ip}]:{port}"),
            };
            sent = sent.attribute(policy::CLIENT_ADDRESS, text.as_bytes());
        }
        Ok(sent)
    }

    /// Path and query.
    fn target(&self, bytes: &mut Unstructured<'_>) -> Result<Option<Vec<u8>>> {
        let Some(path) = self.says(Path) else { return Ok(None) };
        let mut target = path.to_vec();
        if let Some(value) = self.says(Query) {
            let before =
                *bytes.choose(&["", "a=user=1&", "User=x&&", "&use%72s=y&", "user%00=1&", "=user&"])?;
            let name = *bytes.choose(&["user", "%75ser", "us%65r"])?;
            target.extend([b"?", before.as_bytes(), name.as_bytes(), b"="].concat());
            for &byte in value {
                match byte {
                    b' ' if bytes.arbitrary()? => target.push(b'+'),
                    b'a'..=b'z' | b'0'..=b'9' | b'/' | b'=' | b',' | b'?' | b';' if bytes.arbitrary()? => {
                        target.push(byte)
                    }
                    _ if bytes.arbitrary()? => target.extend(format!("%{byte:02x}").into_bytes()),
                    _ => target.extend(format!("%{byte:02X}").into_bytes()),
                }
            }
            target.extend(bytes.choose(&["", "&", "&user=other", "#&user=x", "&&a"])?.bytes());
        } else {
            target.extend(bytes.choose(&["", "?", "?a=user&us=er", "#?user=1", "?a#&user=1"])?.bytes());
        }
        Ok(Some(target))
    }
}

/// Of the part [`Said::Claim`], as the policies ask for it.
fn claim_attribute() -> &'static str {
    "metadata\0filter_metadata\0ns\0sub"
}

impl<'a> Arbitrary<'a> for Client {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let mut client = Self { address: bytes.arbitrary()?, ..Self::default() };
        for said in EVERYWHERE {
            if bytes.ratio(3, 4)? {
                client.say(said, Some(&text(bytes)?));
            }
        }
        Ok(client)
    }
}

/// Bytes that may be mistaken for others.
///
/// # Errors
/// Where there are too few bytes.
pub fn text(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    Ok(match bytes.int_in_range(0..=5)? {
        0 => bytes.arbitrary()?,
        1 => bytes.choose(HOSTILE)?.as_bytes().to_vec(),
        2 => b"x".repeat(bytes.int_in_range(120..=136)?),
        3 => bytes.arbitrary::<f64>()?.trunc().to_string().into_bytes(),
        4 => bytes.arbitrary::<u64>()?.to_le_bytes().to_vec(),
        _ => {
            let mut text = Vec::new();
            for _ in 0..bytes.int_in_range(0..=6)? {
                text.push(*bytes.choose(b"ab,=:%*/ \0+1C\xff")?);
            }
            text
        }
    })
}
