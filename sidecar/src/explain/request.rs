//! The request that is explained, as it is described on the command line.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use policy::CLIENT_ADDRESS;

/// `GET /api/x`, or with a whole URL in place of the path, or `CONNECT example.com:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    method: String,
    /// The path with the query; none for a CONNECT.
    path: Option<String>,
    host: Option<String>,
}

/// `x-api-key: a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// In lower case.
    name: String,
    value: String,
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1` or `[2001:db8::1]:4711`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(SocketAddr);

/// `xds|route_name=checkout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its parts separated by NUL.
    path: String,
    value: String,
}

/// Why a part of the description is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDescription {
    /// Of the request line.
    #[error(
        "write a method and a path, such as 'GET /api/x', a method and a URL, or 'CONNECT example.com:443'"
    )]
    RequestLine,
    /// Of a header.
    #[error("write a name and a value, such as 'x-api-key: a'")]
    Header,
    /// Of the client's address.
    #[error("write an IP address, such as 192.0.2.1 or 2001:db8::1, with a port if you like")]
    ClientAddress,
    /// Of an attribute.
    #[error("write a path and a value, such as 'filter_state|tenant=shop'")]
    Attribute,
}

/// A request as the policies see it, but for what is drawn at random.
#[derive(Clone, Debug, Default)]
pub struct Described {
    headers: Vec<(String, String)>,
    attributes: HashMap<String, Vec<u8>>,
}

/// The request with what was drawn for it.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// The request.
    pub request: &'a Described,
    /// The number that was drawn.
    pub draw: u32,
}

impl Described {
    /// Puts together what was given.
    #[must_use]
    pub fn new(
        line: &RequestLine,
        headers: &[Header],
        from: Option<ClientAddress>,
        given: &[Attribute],
    ) -> Self {
        let mut described = Self::default();
        let mut add = |name: &str, value: &str| described.headers.push((name.to_owned(), value.to_owned()));
        add(":method", &line.method);
        if let Some(path) = &line.path {
            add(":path", path);
        }
        // Envoy makes one of them of the other.
        let host = headers.iter().find(|header| header.name == "host").map(|header| header.value.as_str());
        if let Some(host) = host.or(line.host.as_deref()) {
            add(":authority", host);
            add("host", host);
        }
        headers.iter().for_each(|header| add(&header.name, &header.value));
        if let Some(ClientAddress(address)) = from {
            described.set(CLIENT_ADDRESS, address.to_string().into_bytes());
        }
        for attribute in given {
            described.set(&attribute.path, attribute.value.clone().into_bytes());
        }
        described
    }

    /// Makes an attribute known, in place of what was known of it.
    pub fn set(&mut self, path: &str, value: Vec<u8>) {
        self.attributes.insert(path.to_owned(), value);
    }

    /// The path with the query; empty for a CONNECT.
    #[must_use]
    pub fn target(&self) -> &str {
        let path = self.headers.iter().find(|(name, _)| name == ":path");
        path.map_or("", |(_, value)| value.as_str())
    }

    /// An attribute, where it is known.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.attributes.get(path).map(Vec::as_slice)
    }

    /// Whether an attribute is known.
    #[must_use]
    pub fn knows(&self, path: &str) -> bool {
        self.attributes.contains_key(path)
    }
}

impl policy::Request for Drawn<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let named = self.request.headers.iter().find(|(known, _)| known == name);
        named.map(|(_, value)| Cow::Borrowed(value.as_bytes()))
    }

    fn cookies(&self) -> Vec<Cow<'_, [u8]>> {
        let lines = self.request.headers.iter().filter(|(known, _)| known == "cookie");
        lines.map(|(_, value)| Cow::Borrowed(value.as_bytes())).collect()
    }

    fn attribute(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        self.request.attributes.get(path).map(|value| Cow::Borrowed(value.as_slice()))
    }

    fn draw(&self) -> u32 {
        self.draw
    }
}

impl FromStr for RequestLine {
    type Err = BadDescription;

    fn from_str(written: &str) -> Result<Self, BadDescription> {
        let (method, target) = written.trim().split_once(' ').ok_or(BadDescription::RequestLine)?;
        let target = target.trim();
        if method == "CONNECT" && !target.starts_with('/') {
            let is_authority = target.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
            });
            let line = || Self { method: method.to_owned(), path: None, host: Some(target.to_owned()) };
            return is_authority.then(line).ok_or(BadDescription::RequestLine);
        }
        // A client never sends the fragment.
        let target = target.split('#').next().unwrap_or_default();
        let url = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
        let (host, path) = match url {
            Some(url) => {
                let (host, path) = url.split_at(url.find(['/', '?']).unwrap_or(url.len()));
                let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
                (Some(host.to_owned()), path)
            }
            None => (None, target.to_owned()),
        };
        let is_method =
            !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_path = path == "*" || path.starts_with('/') && !path.contains(char::is_whitespace);
        if !is_method || !is_path || host.as_ref().is_some_and(String::is_empty) {
            return Err(BadDescription::RequestLine);
        }
        Ok(Self { method: method.to_owned(), path: Some(path), host })
    }
}

impl FromStr for Header {
    type Err = BadDescription;

    fn from_str(written: &str) -> Result<Self, BadDescription> {
        let (name, value) = written.split_once(':').ok_or(BadDescription::Header)?;
        let name = name.trim().to_ascii_lowercase();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(BadDescription::Header);
        }
        Ok(Self { name, value: value.trim().to_owned() })
    }
}

impl FromStr for ClientAddress {
    type Err = BadDescription;

    fn from_str(written: &str) -> Result<Self, BadDescription> {
        let socket = written.parse::<SocketAddr>();
        let of_ip = || written.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
        socket.or_else(|_| of_ip()).map(Self).map_err(|_| BadDescription::ClientAddress)
    }
}

impl FromStr for Attribute {
    type Err = BadDescription;

    fn from_str(written: &str) -> Result<Self, BadDescription> {
        let (path, value) = written.split_once('=').ok_or(BadDescription::Attribute)?;
        if path.is_empty() {
            return Err(BadDescription::Attribute);
        }
        Ok(Self { path: path.replace('|', "\0"), value: value.to_owned() })
    }
}
