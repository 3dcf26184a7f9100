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
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::{Digest, Sha256};

use crate::known::Known;
use crate::part::{Part, Value};
use crate::request;

/// The most parts of a key, and the most choices of one part.
pub const MAX_PARTS: usize = 8;

/// The longest value that is kept readable, in encoded bytes.
const MAX_READABLE_BYTES: usize = 128;

/// What is encoded in a value.
const IN_VALUES: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b'@')
    .remove(b'+');

/// What is encoded in the name of a part, which is told from its kind by a colon.
const IN_NAMES: AsciiSet = IN_VALUES.add(b':');

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

    fn write_hash(&self, to: &mut String, value: &[u8]) {
        let mut mac = self.0.clone();
        mac.update(value);
        write_digest(to, "hmac-sha256", &mac.finalize().into_bytes());
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
            name.extend(percent_encode(part.as_bytes(), &IN_NAMES));
        }
        Self { name, part, secret }
    }

    fn write_value(&self, to: &mut String, value: &Value<'_>) {
        match (value, &self.secret) {
            // Nothing in an address needs to be encoded.
            (Value::Client(client), None) => {
                let _infallible = write!(to, "{client}");
            }
            (Value::Client(client), Some(secret)) => secret.write_hash(to, client.to_string().as_bytes()),
            (Value::Bytes(value), Some(secret)) => secret.write_hash(to, value),
            (Value::Bytes(value), None) => {
                let number =
                    matches!(self.part, Part::Metadata(_)).then(|| request::as_json(value)).flatten();
                match number {
                    // Marked, so that the text "5" and the number 5 are not the same.
                    Some(number) => {
                        to.push('*');
                        to.push_str(&number);
                    }
                    None => write_value(to, value),
                }
            }
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
    pub fn of<'a>(&'a self, request: &Known<'a>) -> Option<String> {
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
        if key.len() > MAX_KEY_BYTES {
            let digest = Sha256::digest(&key);
            key.clear();
            write_digest(&mut key, "sha256", &digest);
        }
        Some(key)
    }
}

fn write_value(to: &mut String, value: &[u8]) {
    let start = to.len();
    if value.len() <= MAX_READABLE_BYTES {
        to.extend(percent_encode(value, &IN_VALUES));
    }
    if value.len() > MAX_READABLE_BYTES || to.len() - start > MAX_READABLE_BYTES {
        to.truncate(start);
        write_digest(to, "sha256", &Sha256::digest(value));
    }
}

/// `*` is never written by an encoded value, so nobody can send the hash of another client's value in its place.
fn write_digest(to: &mut String, algorithm: &str, digest: &[u8]) {
    to.reserve(algorithm.len() + 2 + 2 * digest.len());
    to.push('*');
    to.push_str(algorithm);
    to.push(':');
    let nibbles = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    to.extend(nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)));
}
