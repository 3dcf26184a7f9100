//! Names of things.

use contract::MAX_NAME_BYTES;

use crate::config::spot::Spot;

/// The longest name of a header, a cookie or a parameter, in bytes.
const MAX_BYTES: usize = 128;

/// The name of a domain, a policy or a limit.
pub fn of_limit(name: &str, spot: &Spot<'_>) {
    if !contract::is_name(name) {
        spot.problem(format!(
            "found {name:?}; use 1 to {MAX_NAME_BYTES} ASCII letters, digits, `-`, `_` and `.`, such as \"per-client\""
        ));
    }
}

/// The name of a request header, in lower case. Some have names of their own in the language.
pub fn header(name: &str, spot: &Spot<'_>) -> String {
    let lower = name.to_ascii_lowercase();
    let mend = match lower.as_str() {
        ":path" => "path",
        ":method" => "method",
        ":authority" | "host" => "host",
        "cookie" => "cookie",
        _ => return any_header(name, spot),
    };
    spot.problem(format!("found {name:?}; write `{mend}` instead, which reads it as it is meant"));
    lower
}

/// The name of a header of a request or a response, in lower case.
pub fn any_header(name: &str, spot: &Spot<'_>) -> String {
    if !is_token(name) {
        spot.problem(format!("found {name:?}; write the name of a header, such as \"x-api-key\""));
    }
    name.to_ascii_lowercase()
}

/// The name of a cookie.
pub fn cookie(name: &str, spot: &Spot<'_>) -> String {
    if !is_token(name) {
        spot.problem(format!("found {name:?}; write the name of a cookie, such as \"session\""));
    }
    name.to_owned()
}

/// The name of a query parameter, decoded.
pub fn query(name: &str, spot: &Spot<'_>) -> String {
    if name.is_empty() || name.len() > MAX_BYTES {
        spot.problem(format!("found {} bytes; the name of a parameter has 1 to {MAX_BYTES}", name.len()));
    }
    name.to_owned()
}

/// A path of names, such as leads to a value in metadata, joined as Envoy wants its attributes.
pub fn attribute<'a>(root: &[&str], names: impl IntoIterator<Item = &'a str>, spot: &Spot<'_>) -> String {
    let mut path = root.join("\0");
    for name in names {
        if name.is_empty() || name.len() > MAX_BYTES || name.contains('\0') {
            spot.problem(format!("found {name:?}; write a name of 1 to {MAX_BYTES} bytes"));
        }
        path.push('\0');
        path.push_str(name);
    }
    path
}

/// RFC 9110, section 5.6.2.
pub fn is_token(name: &str) -> bool {
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= MAX_BYTES && name.bytes().all(sign)
}
