//! Requests and responses that nobody in their right mind would send.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::{author::Author, encoded, language};

/// The headers that the configurations ask for.
const HEADERS: [&str; 9] =
    [":path", ":method", ":authority", "cookie", "x-a", "x-b", "x-cost", "x-api-key", "x-tier"];

/// A request: headers and attributes by their names.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    headers: Vec<(String, Vec<u8>)>,
    attributes: Vec<(String, Vec<u8>)>,
    /// What the other attributes are, chosen by their names.
    others: Vec<Vec<u8>>,
    draw: u32,
}

/// A response: its headers.
#[derive(Clone, Debug, Default)]
pub struct Received {
    headers: Vec<(&'static str, Vec<u8>)>,
}

impl Sent {
    /// With this header, after others of the same name.
    #[must_use]
    pub fn header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this attribute.
    #[must_use]
    pub fn attribute(mut self, path: &str, value: &[u8]) -> Self {
        self.attributes.push((path.to_owned(), value.to_owned()));
        self
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let named = self.headers.iter().chain(&self.attributes).map(|(name, value)| name.len() + value.len());
        named.sum::<usize>() + self.others.iter().map(Vec::len).sum::<usize>()
    }
}

impl Received {
    /// With one header.
    #[must_use]
    pub fn of(name: &'static str, value: &[u8]) -> Self {
        Self { headers: vec![(name, value.to_owned())] }
    }
}

impl policy::Request for Sent {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let named = self.headers.iter().find(|(found, _)| found == name);
        named.map(|(_, value)| Cow::Borrowed(value.as_slice()))
    }

    fn cookies(&self) -> Vec<Cow<'_, [u8]>> {
        let lines = self.headers.iter().filter(|(name, _)| name == "cookie");
        lines.map(|(_, value)| Cow::Borrowed(value.as_slice())).collect()
    }

    fn attribute(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        let named = self.attributes.iter().find(|(found, _)| found == path).map(|(_, value)| value);
        named.or_else(|| self.others.get(path.len() % 8)).map(|value| Cow::Borrowed(value.as_slice()))
    }

    fn draw(&self) -> u32 {
        self.draw
    }
}

impl policy::Response for Received {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let named = self.headers.iter().find(|(found, _)| *found == name);
        named.map(|(_, value)| Cow::Borrowed(value.as_slice()))
    }
}

impl<'a> Arbitrary<'a> for Sent {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let mut sent = Self { draw: bytes.arbitrary()?, ..Self::default() };
        for name in HEADERS {
            // More than one line now and then.
            while bytes.arbitrary()? {
                let value = match name {
                    ":path" => target(bytes)?,
                    "cookie" => pairs(bytes, b"; ")?,
                    ":method" => this_or_any(bytes, &["GET", "POST", "CONNECT", "get", ""])?,
                    ":authority" => this_or_any(
                        bytes,
                        &["api.example.com", "A.Example.ORG.:8080", "[::1]:80", ":80", "."],
                    )?,
                    _ => value(bytes)?,
                };
                sent = sent.header(name, &value);
            }
        }
        if bytes.arbitrary()? {
            // A second line of the same header.
            sent.headers.push(("cookie".to_owned(), pairs(bytes, b"; ")?));
        }
        if bytes.arbitrary()? {
            sent = sent.attribute("source\0address", &address(bytes)?);
        }
        if bytes.arbitrary()? {
            sent = sent.attribute("xds\0route_metadata", &route_metadata(bytes)?);
        }
        for _ in 0..bytes.int_in_range(0..=8)? {
            sent.others.push(value(bytes)?);
        }
        Ok(sent)
    }
}

impl<'a> Arbitrary<'a> for Received {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let mut headers = Vec::new();
        if bytes.arbitrary()? {
            headers.push((":status", this_or_any(bytes, &["200", "404", "503", "99", "65536", "x"])?));
        }
        for name in ["x-a", "x-b", "x-cost", "x-tokens-used"] {
            if bytes.arbitrary()? {
                headers.push((name, value(bytes)?));
            }
        }
        Ok(Self { headers })
    }
}

fn this_or_any(bytes: &mut Unstructured<'_>, texts: &[&str]) -> Result<Vec<u8>> {
    if bytes.arbitrary()? { value(bytes) } else { Ok(bytes.choose(texts)?.as_bytes().to_vec()) }
}

/// Any bytes; some look like a number, some are long.
fn value(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    Ok(match bytes.int_in_range(0..=5)? {
        0 | 1 => bytes.arbitrary()?,
        2 => bytes.arbitrary::<u64>()?.to_string().into_bytes(),
        3 => bytes.choose(&[0.0, 1.0, 5.5, -1.0, 1e300, f64::NAN])?.to_le_bytes().to_vec(),
        4 => {
            let one: Vec<u8> = bytes.arbitrary()?;
            one.repeat(bytes.int_in_range(0..=600)?)
        }
        _ => bytes.choose(language::HOSTILE)?.as_bytes().to_vec(),
    })
}

/// A path with its query.
fn target(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let path = this_or_any(bytes, &["/", "/a", "/a/b/c/d", "/a/b?c", "//", "*"])?;
    let query = if bytes.arbitrary()? { [&b"?"[..], &pairs(bytes, b"&")?].concat() } else { Vec::new() };
    Ok([path, query].concat())
}

/// Names and values, as in a query or in cookies.
fn pairs(bytes: &mut Unstructured<'_>, between: &[u8]) -> Result<Vec<u8>> {
    let mut pairs = Vec::new();
    for _ in 0..bytes.int_in_range(0..=3)? {
        let name = this_or_any(bytes, &["a", "b", "session", "%61", " a "])?;
        pairs.push([name, value(bytes)?].join(&b'='));
    }
    Ok(pairs.join(between))
}

fn address(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    Ok(match bytes.int_in_range(0..=2)? {
        0 => SocketAddr::new(bytes.arbitrary::<IpAddr>()?, bytes.arbitrary()?).to_string().into_bytes(),
        1 => bytes.arbitrary::<IpAddr>()?.to_string().into_bytes(),
        _ => value(bytes)?,
    })
}

fn route_metadata(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if bytes.arbitrary()? {
        return value(bytes);
    }
    let route = Author::new(bytes)?.write(&language::ROUTE)?;
    Ok(encoded::metadata("sluice", &route))
}
