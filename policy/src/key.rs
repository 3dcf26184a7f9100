//! Whose bucket a request takes from, as text.
//!
//! A key is a list of `kind=value` parts joined by commas: `header:x-api-key=alice` or
//! `client_address=192.0.2.1`. Values are percent-encoded but for letters, digits and a few harmless signs, so that
//! no value can be mistaken for another part, nor a header for an address: two clients share a bucket only where
//! all parts are equal. A part that is missing has no `=`, so it differs from one that is empty; all requests
//! that miss it share one bucket, or are not governed. Long values are replaced by their SHA-256, so that no
//! client decides how much memory its bucket takes, and those to be kept secret by an HMAC of it.

use std::fmt::Write as _;

use contract::MAX_KEY_BYTES;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::part::Part;
use crate::{Request, request};

/// The most parts of a key, and the most choices of one part.
pub const MAX_PARTS: usize = 8;

/// The longest value that is kept readable, in encoded bytes.
const MAX_READABLE_BYTES: usize = 128;

/// What tells clients apart. No parts: all share one bucket.
#[derive(Clone, Debug)]
pub struct Key {
    /// The choices of each part; the first that is present is taken.
    parts: Vec<Vec<Named>>,
    /// Whether a request that lacks a part has no key.
    skip_missing: bool,
}

/// A part, and how a key names it.
#[derive(Clone, Debug)]
pub struct Named {
    /// Such as `header:x-api-key`.
    name: String,
    part: Part,
    /// Whether the value is shown only as its hash under this secret.
    secret: Option<HashSecret>,
}

/// What keyed hashes are made with, ready to hash.
#[derive(Clone)]
pub struct HashSecret(Hmac<Sha256>);

impl HashSecret {
    pub fn new(secret: &str) -> Option<Self> {
        Hmac::new_from_slice(secret.as_bytes()).ok().map(Self)
    }

    fn hash(&self, value: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(value);
        hashed("hmac-sha256", &mac.finalize().into_bytes())
    }
}

impl std::fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashSecret")
    }
}

impl Named {
    /// `kind` and `names` together say where the part comes from, such as `header` and `x-api-key`.
    pub fn new(kind: &str, names: &[&str], part: Part, secret: Option<HashSecret>) -> Self {
        let mut name = kind.to_owned();
        for part in names {
            name.push(':');
            write_encoded(&mut name, part.as_bytes(), b"-._~/@+");
        }
        Self { name, part, secret }
    }

    fn write_value(&self, to: &mut String, value: &[u8]) {
        let number = matches!(self.part, Part::Metadata(_)).then(|| request::as_json(value)).flatten();
        match (&self.secret, number) {
            (Some(secret), _) => to.push_str(&secret.hash(value)),
            // Marked, so that the text "5" and the number 5 are not the same.
            (None, Some(number)) => {
                to.push('*');
                to.push_str(&number);
            }
            (None, None) => write_value(to, value),
        }
    }

    /// The part itself.
    pub fn part(&self) -> &Part {
        &self.part
    }
}

impl Key {
    pub fn new(parts: Vec<Vec<Named>>, skip_missing: bool) -> Self {
        Self { parts, skip_missing }
    }

    /// Every part and every choice.
    pub fn parts(&self) -> impl Iterator<Item = &Named> {
        self.parts.iter().flatten()
    }

    /// The key of a request; `None` where it lacks a part and shall not be governed then.
    pub fn of(&self, request: &impl Request) -> Option<String> {
        // Enough for most, so that it is allocated once.
        let mut key = String::with_capacity(64);
        for choices in &self.parts {
            if !key.is_empty() {
                key.push(',');
            }
            let present =
                choices.iter().find_map(|named| named.part.value(request).map(|value| (named, value)));
            match (present, choices.first()) {
                (Some((named, value)), _) => {
                    key.push_str(&named.name);
                    key.push('=');
                    named.write_value(&mut key, &value);
                }
                (None, _) if self.skip_missing => return None,
                (None, Some(first)) => key.push_str(&first.name),
                (None, None) => {}
            }
        }
        Some(if key.len() > MAX_KEY_BYTES { sha256(key.as_bytes()) } else { key })
    }
}

fn write_value(to: &mut String, value: &[u8]) {
    let start = to.len();
    if value.len() <= MAX_READABLE_BYTES {
        write_encoded(to, value, b"-._~:/@+");
    }
    if value.len() > MAX_READABLE_BYTES || to.len() - start > MAX_READABLE_BYTES {
        to.truncate(start);
        to.push_str(&sha256(value));
    }
}

fn sha256(value: &[u8]) -> String {
    hashed("sha256", &Sha256::digest(value))
}

/// `*` is never written by an encoded value, so nobody can send the hash of another client's value in its place.
fn hashed(algorithm: &str, digest: &[u8]) -> String {
    let mut text = format!("*{algorithm}:");
    for byte in digest {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

fn write_encoded(to: &mut String, value: &[u8], harmless: &[u8]) {
    for &byte in value {
        if byte.is_ascii_alphanumeric() || harmless.contains(&byte) {
            to.push(char::from(byte));
        } else {
            let _infallible = write!(to, "%{byte:02X}");
        }
    }
}
