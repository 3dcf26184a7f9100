//! What a policy may want to know of a request and of its response, and how it is read from what a client sent.

use std::borrow::Cow;
use std::iter;
use std::net::{IpAddr, SocketAddr};

use percent_encoding::percent_decode;

/// A request as the policies see it. Bytes, since a client may send any; `None` where there is no such thing.
///
/// What the policies read is kept: they ask for each thing at most once, and for nothing that decides nothing.
pub trait Request {
    /// The first value of a header; `name` is in lower case. Also of `:path`, `:method` and `:authority`.
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;
    /// Every line of the header `cookie`, in order: what a client hides in a second line, an upstream finds there.
    fn cookies(&self) -> Vec<Cow<'_, [u8]>>;
    /// An attribute as Envoy encodes it, by its path with the parts separated by NUL, such as [`CLIENT_ADDRESS`].
    fn attribute(&self, path: &str) -> Option<Cow<'_, [u8]>>;
    /// A number drawn for this request, every one of all 32-bit numbers as likely as the others.
    fn draw(&self) -> u32;
}

/// The headers of a response, as far as they can be asked for: each at most once.
pub trait Response {
    /// The first value of a header; `name` is in lower case. Also of `:status`.
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// The attribute with the client's address: `192.0.2.1:4711`, `[2001:db8::1]:4711`, or the path of a socket.
pub const CLIENT_ADDRESS: &str = "source\0address";

/// The attribute with the name of the route.
pub const ROUTE_NAME: &str = "xds\0route_name";

/// How much of a target is the path without the query, in bytes.
pub fn path_bytes(target: &[u8]) -> usize {
    target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len())
}

/// The first value of a query parameter, decoded: `%61` and `a` are the same, and `+` is a space.
pub fn query<'a>(target: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    let target = target.split(|&byte| byte == b'#').next()?;
    let start = target.iter().position(|&byte| byte == b'?')? + 1;
    let mut pairs = target.get(start..)?.split(|&byte| byte == b'&');
    pairs.find_map(|pair| {
        let (found, value) = split_at(pair, b'=').unwrap_or((pair, &[]));
        // A name is never longer than its encoding, nor shorter than a third of it.
        let may_be = (name.len()..=name.len() * 3).contains(&found.len());
        (may_be && decode(found).eq(name.bytes())).then(|| decoded(value))
    })
}

/// The bytes of a name or a value in a query. A plus sign that is not encoded is a space.
fn decode(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut parts = text.split(|&byte| byte == b'+');
    let first = parts.next().unwrap_or_default();
    percent_decode(first).chain(parts.flat_map(|part| iter::once(b' ').chain(percent_decode(part))))
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Owned(decode(text).collect());
    }
    Cow::Borrowed(text)
}

/// The value of the first cookie of a name.
pub fn cookie<'a>(lines: impl Iterator<Item = &'a [u8]>, name: &str) -> Option<&'a [u8]> {
    let mut cookies = lines.flat_map(|line| line.split(|&byte| byte == b';'));
    cookies.find_map(|cookie| {
        let (found, value) = split_at(cookie.trim_ascii(), b'=')?;
        (found.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
    })
}

fn split_at(text: &[u8], sign: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == sign)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The host of an authority, in lower case, without the port and without a point at its end.
pub fn host(authority: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let bytes = host_bytes(&authority);
    match authority {
        Cow::Borrowed(text) if !text.iter().any(u8::is_ascii_uppercase) => {
            Cow::Borrowed(text.get(..bytes).unwrap_or(text))
        }
        text => {
            let mut text = text.into_owned();
            text.truncate(bytes);
            text.make_ascii_lowercase();
            Cow::Owned(text)
        }
    }
}

/// How much of an authority is the host.
fn host_bytes(authority: &[u8]) -> usize {
    let port = authority.iter().rposition(|&byte| byte == b':').filter(|&at| {
        let digits = authority.get(at + 1..).is_some_and(|port| port.iter().all(u8::is_ascii_digit));
        // The colons within the brackets of an IPv6 address begin no port.
        digits && (authority.first() != Some(&b'[') || authority.get(at.wrapping_sub(1)) == Some(&b']'))
    });
    let host = port.and_then(|at| authority.get(..at)).unwrap_or(authority);
    host.strip_suffix(b".").unwrap_or(host).len()
}

/// The address of a client without the port; an IPv4 address within IPv6 as the IPv4 address.
pub fn ip(address: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(address).ok()?;
    let socket = text.parse::<SocketAddr>().map(|socket| socket.ip());
    socket.or_else(|_| text.parse::<IpAddr>()).ok().map(|ip| ip.to_canonical())
}

/// What JSON would show for a value of metadata that is a number or a boolean, which Envoy encodes as 8 bytes and as one.
/// `None` for text.
///
/// Envoy does not tell which it is: eight bytes may be a text after all, if an odd one.
pub fn as_json(value: &[u8]) -> Option<String> {
    /// Whole numbers below this are exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        [0] => return Some("false".to_owned()),
        [1] => return Some("true".to_owned()),
        _ if value.iter().all(u8::is_ascii_graphic) => return None,
        _ => {}
    }
    let number = f64::from_le_bytes(value.try_into().ok()?);
    // There are two zeros, and a fraction has no short form.
    (number.fract() == 0.0 && number.abs() < EXACT).then(|| format!("{:.0}", number + 0.0))
}
