//! One line of an access log: Envoy's default text, Istio's, or a JSON object.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::columns::{BYTES_SENT, CLIENT, Columns, FORWARDED_FOR, ROUTE, TIME, Values, fill};

/// What one line tells.
#[derive(Debug, Default)]
pub struct Line<'a> {
    /// By column.
    pub values: Values<'a>,
    /// Whether what it does not mention is not known; otherwise it was not there.
    pub is_text: bool,
}

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is neither text in a format that is known, nor JSON.
    #[error("it is neither in the default format of Envoy or Istio, nor a JSON object")]
    Format,
    /// A quotation mark within a header.
    #[error(
        "a header holds what looks like the end of it, so where one ends cannot be told; log JSON instead"
    )]
    Ambiguous,
    /// Not JSON.
    #[error("it is no JSON object: {0}")]
    Json(serde_json::Error),
    /// Without a time nothing is known of the buckets.
    #[error("it tells no time; name the key that does by --field time=KEY")]
    NoTime,
    /// The time is not understood.
    #[error("its time is neither as in RFC 3339 nor a number of seconds since 1970")]
    BadTime,
    /// It is longer than any line of a log.
    #[error("it is longer than {} KiB", super::input::MAX_LINE_BYTES >> 10)]
    TooLong,
}

/// What the quoted fields near the end of a line of text tell.
const QUOTED: [Option<&str>; 5] =
    [Some(FORWARDED_FOR), Some("user-agent"), Some("x-request-id"), Some(":authority"), None];

/// What follows them in Istio's format, and has no spaces but for the last.
const AFTER_QUOTED: [Option<&str>; 6] = [None, None, None, Some(CLIENT), None, Some(ROUTE)];

/// Reads a line, which is not empty.
///
/// # Errors
///
/// Why it cannot be read.
pub fn read<'a>(line: &'a [u8], columns: &mut Columns) -> Result<Line<'a>, Unreadable> {
    match line.trim_ascii_start().first() {
        Some(b'{') => json(line, columns),
        Some(b'[') => text(line.trim_ascii(), columns),
        _ => Err(Unreadable::Format),
    }
}

/// Envoy's default format, and Istio's, which has `{}` besides:
/// `[TIME] "METHOD PATH PROTOCOL" CODE FLAGS {DETAILS TERMINATION "FAILURE"} RECEIVED SENT DURATION UPSTREAM_TIME "XFF" "AGENT"
/// "ID" "AUTHORITY" "UPSTREAM" {CLUSTER UPSTREAM_LOCAL LOCAL REMOTE SERVER_NAME ROUTE}`
fn text<'a>(line: &'a [u8], columns: &mut Columns) -> Result<Line<'a>, Unreadable> {
    let mut values = Values::new();
    let mut tell = |name: &str, value: &'a [u8]| {
        if let Some(place) = columns.place_of(name) {
            fill(&mut values, place, Some(Cow::Borrowed(value)));
        }
    };
    let mut begin = || {
        let (time, rest) = until(line.get(1..)?, b"] \"")?;
        let (method, rest) = until(rest, b" ")?;
        let (path, rest) = until(rest, b" ")?;
        let (_protocol, rest) = until(rest, b"\" ")?;
        let (code, rest) = until(rest, b" ")?;
        let (_flags, rest) = until(rest, b" ")?;
        // How much was received is a number; why the response is as it is never is one.
        let is_default = rest.first()?.is_ascii_digit();
        let rest = if is_default { rest } else { until(until(rest, b" \"")?.1, b"\" ")?.1 };
        let (_received, rest) = until(rest, b" ")?;
        let (sent, rest) = until(rest, b" ")?;
        let (_duration, rest) = until(rest, b" ")?;
        let (_upstream_time, rest) = until(rest, b" \"")?;
        for (name, value) in
            [(TIME, time), (":method", method), (":path", path), (":status", code), (BYTES_SENT, sent)]
        {
            tell(name, value);
        }
        // The last quotation mark of all ends what is quoted: nothing behind it may have one.
        let end = rest.iter().rposition(|byte| *byte == b'"')?;
        Some((is_default, rest.get(..end)?, rest.get(end + 1..)?))
    };
    let (is_default, mut quoted, after) = begin().ok_or(Unreadable::Format)?;
    for (index, name) in QUOTED.iter().enumerate() {
        let value = if index + 1 < QUOTED.len() {
            let (value, rest) = until(quoted, b"\" \"").ok_or(Unreadable::Format)?;
            quoted = rest;
            value
        } else {
            quoted
        };
        if let Some(name) = name {
            tell(name, value);
        }
    }
    // A client chooses some of these: what it writes into one must not be taken for another.
    if quoted.contains(&b'"') {
        return Err(Unreadable::Ambiguous);
    }
    if is_default {
        return if after.is_empty() { Ok(Line { values, is_text: true }) } else { Err(Unreadable::Format) };
    }
    let mut after =
        after.strip_prefix(b" ").ok_or(Unreadable::Format)?.splitn(AFTER_QUOTED.len(), |b| *b == b' ');
    for name in AFTER_QUOTED {
        let value = after.next().ok_or(Unreadable::Format)?;
        if let Some(name) = name {
            tell(name, value);
        }
    }
    Ok(Line { values, is_text: true })
}

fn until<'a>(text: &'a [u8], end: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let first = *end.first()?;
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|byte| *byte == first)?;
        if text.get(at..)?.starts_with(end) {
            return Some((text.get(..at)?, text.get(at + end.len()..)?));
        }
        from = at + 1;
    }
}

fn json<'a>(line: &'a [u8], columns: &mut Columns) -> Result<Line<'a>, Unreadable> {
    let mut values = Values::new();
    let mut reader = serde_json::Deserializer::from_slice(line);
    reader.deserialize_map(Object { values: &mut values, columns }).map_err(Unreadable::Json)?;
    reader.end().map_err(Unreadable::Json)?;
    Ok(Line { values, is_text: false })
}

struct Object<'v, 'a> {
    values: &'v mut Values<'a>,
    columns: &'v mut Columns,
}

impl<'a> Visitor<'a> for Object<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key_seed(Scalar)? {
            let value = map.next_value_seed(Scalar)?;
            let place = key.and_then(|key| self.columns.of_key(std::str::from_utf8(&key).ok()?));
            if let Some(place) = place {
                fill(self.values, place, value.0);
            }
        }
        Ok(())
    }
}

/// A value as text; `None` for null, and for lists and objects, which tell nothing here.
struct Text<'a>(Option<Cow<'a, [u8]>>);

struct Scalar;

impl<'a> DeserializeSeed<'a> for Scalar {
    type Value = Text<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Text<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Scalar {
    type Value = Text<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
        Ok(Text(Some(Cow::Borrowed(text.as_bytes()))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(owned(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Text<'a>, E> {
        Ok(owned(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Text<'a>, E> {
        Ok(owned(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Text<'a>, E> {
        Ok(owned(number))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Text<'a>, E> {
        Ok(owned(value))
    }

    fn visit_unit<E>(self) -> Result<Text<'a>, E> {
        Ok(Text(None))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<Text<'a>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Text<'a>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }
}

fn owned<'a>(value: impl fmt::Display) -> Text<'a> {
    Text(Some(Cow::Owned(value.to_string().into_bytes())))
}
