//! Limits and what a request takes from them, as written.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::{Later, written};
use crate::config::scalar::{Rate, Whole};

/// One of several limits of a policy.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { limit: 10 per second, burst: 20 }")]
pub struct WrittenLimit {
    /// Tokens and the time in which they are refilled.
    pub limit: Rate,
    /// The most tokens at once. By default the limit's number.
    #[serde(default)]
    pub burst: Later<Whole>,
    /// What follows the policy's name and a point in the name of its buckets. By default the limit's time, such as `1d`.
    #[serde(default)]
    pub name: Later<String>,
}

/// How many tokens a request takes.
#[derive(Clone, Debug)]
pub enum WrittenCost {
    Fixed(Whole),
    Header(WrittenHeaderCost),
}

/// A cost that a request header tells.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WrittenHeaderCost {
    /// The header with a whole number.
    pub header: String,
    /// The cost where the header is missing or is no whole number. By default 1.
    #[serde(default, deserialize_with = "written")]
    pub default: Option<Whole>,
    /// The least that is taken. By default 0.
    #[serde(default, deserialize_with = "written")]
    pub min: Option<Whole>,
    /// The most that is taken, however much the header says.
    pub max: Whole,
}

/// What a request really cost. Either `header` or `bytes_per_token` is written.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { header: x-tokens-used, max: 10000 }")]
pub struct WrittenSettle {
    /// The response header with the cost, a whole number. Where it is missing, `cost` stands.
    #[serde(default, deserialize_with = "written")]
    pub header: Option<String>,
    /// One token for so many bytes of the response's body, the last one for what is left.
    #[serde(default, deserialize_with = "written")]
    pub bytes_per_token: Option<Whole>,
    /// The most that a request may cost.
    pub max: Whole,
}

impl<'de> Deserialize<'de> for WrittenCost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = WrittenCost;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number such as 1, or a mapping such as { header: x-cost, max: 100 }")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<WrittenCost, E> {
                Ok(WrittenCost::Fixed(Whole(value)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<WrittenCost, E> {
                let number = Whole::parse(text).map(WrittenCost::Fixed);
                number.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenCost, A::Error> {
                WrittenHeaderCost::deserialize(MapAccessDeserializer::new(map)).map(WrittenCost::Header)
            }
        }
        deserializer.deserialize_any(Seen)
    }
}
