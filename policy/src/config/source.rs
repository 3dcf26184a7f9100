//! The bytes that Envoy hands to the filter, as a JSON value.
//!
//! What arrives depends on the `@type` in `envoy.yaml`: a StringValue or BytesValue gives its content, which is
//! JSON; a Struct gives its protobuf encoding. The two cannot be told apart by their first bytes (a Struct begins
//! with a line feed and a length, which may look like a quote or a brace), so both are tried, JSON first.

use std::fmt;

use prost::Message;
use prost_types::{Struct, Value as ProtoValue, value::Kind};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::ConfigError;

/// The largest configuration that is read, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// Whole numbers up to here are exact in the 64-bit floats of a Struct.
const EXACT: f64 = 9_007_199_254_740_992.0;

pub fn read(bytes: &[u8]) -> Result<Value, ConfigError> {
    if bytes.len() > MAX_BYTES {
        return Err(ConfigError::TooLarge { found_bytes: bytes.len(), max_bytes: MAX_BYTES });
    }
    let text = bytes.trim_ascii();
    if text.is_empty() {
        return Err(ConfigError::Absent);
    }
    let json_error = match serde_json::from_slice(text) {
        Ok(Strict(value)) => return Ok(value),
        Err(error) => error,
    };
    match Struct::decode(bytes) {
        // Text that is broken JSON can be decoded too, but to nothing.
        Ok(decoded) if !decoded.fields.is_empty() => Ok(object(decoded)),
        _ => Err(ConfigError::NotJson(json_error)),
    }
}

/// JSON in which no field stands twice: of two limits of one name, it could only be guessed which one is meant.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
                Ok(Strict(Value::Bool(value)))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
                Ok(Strict(number(value)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Strict, E> {
                Ok(Strict(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
                let mut list = Vec::new();
                while let Some(Strict(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(Strict(list.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Strict, A::Error> {
                let mut object = Map::new();
                while let Some((name, Strict(value))) = fields.next_entry::<String, _>()? {
                    if object.contains_key(&name) {
                        return Err(A::Error::custom(format!("the field `{name}` is written twice")));
                    }
                    object.insert(name, value);
                }
                Ok(Strict(object.into()))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

/// A Struct as the JSON object that it stands for.
pub fn object(from: Struct) -> Value {
    Value::Object(from.fields.into_iter().map(|(name, value)| (name, json(value))).collect::<Map<_, _>>())
}

fn json(from: ProtoValue) -> Value {
    match from.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StructValue(value)) => object(value),
        Some(Kind::ListValue(value)) => Value::Array(value.values.into_iter().map(json).collect()),
    }
}

/// A Struct has only floats: what was written as a whole number becomes one again.
fn number(value: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "whole, and within ±2^53")]
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Value::Number(Number::from(value as i64));
    }
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(kind: Kind) -> ProtoValue {
        ProtoValue { kind: Some(kind) }
    }

    #[test]
    fn a_struct_and_the_same_json_read_alike() {
        let json = br#" {"burst": 10, "half": 0.5, "list": ["x", null, true]} "#;
        let fields = [
            ("burst", Kind::NumberValue(10.0)),
            ("half", Kind::NumberValue(0.5)),
            (
                "list",
                Kind::ListValue(prost_types::ListValue {
                    values: vec![
                        proto(Kind::StringValue("x".into())),
                        proto(Kind::NullValue(0)),
                        proto(Kind::BoolValue(true)),
                    ],
                }),
            ),
        ];
        let message = Struct {
            fields: fields.into_iter().map(|(name, kind)| (name.to_owned(), proto(kind))).collect(),
        };
        let encoded = message.encode_to_vec();
        assert_eq!(encoded.first(), Some(&b'\n'), "a Struct begins with what may also be a line feed");
        assert_eq!(read(&encoded).expect("a Struct"), read(json).expect("JSON"));
        assert_eq!(read(b"\n{\"a\":1}\n").expect("JSON after a line feed"), serde_json::json!({"a": 1}));
    }

    /// The length of the first field is a printable character, whichever: the bytes then look like JSON.
    #[test]
    fn a_struct_that_looks_like_json_is_read() {
        for length in 20..127_usize {
            let field = |name: &str, text: String| {
                let value = proto(Kind::StringValue(text));
                Struct { fields: [(name.to_owned(), value)].into() }.encode_to_vec()
            };
            // Name, value and framing take 10 bytes more than the text.
            let mut bytes = field("a", "x".repeat(length - 7));
            assert_eq!(usize::from(bytes[1]), length, "the length of the field");
            bytes.extend(field("b", "y".to_owned()));
            let value = read(&bytes).unwrap_or_else(|error| panic!("{length}: {error}"));
            assert_eq!(
                (value["a"].as_str().map(str::len), value["b"].as_str()),
                (Some(length - 7), Some("y"))
            );
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        assert!(matches!(read(b""), Err(ConfigError::Absent)));
        assert!(matches!(read(b" \n\t "), Err(ConfigError::Absent)));
        assert!(matches!(read(b"{\"a\": "), Err(ConfigError::NotJson(_))));
        assert!(matches!(read(b"policies: []"), Err(ConfigError::NotJson(_))));
        let twice = read(br#"{"a": 1, "b": {"c": 2, "c": 3}}"#).expect_err("one of the two is not meant");
        assert!(twice.to_string().contains("the field `c` is written twice at line 1"), "{twice}");
        assert!(matches!(read(&[0xff; 64]), Err(ConfigError::NotJson(_))));
        assert!(matches!(read(&vec![b' '; MAX_BYTES + 1]), Err(ConfigError::TooLarge { .. })));
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert!(matches!(read(&deep), Err(ConfigError::NotJson(_))));
    }
}
