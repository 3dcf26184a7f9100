//! Leases, as written.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};

use super::written;
use crate::config::scalar::{Span, Whole};

/// Whether tokens are taken in advance.
#[derive(Clone, Debug)]
pub enum WrittenLease {
    /// As many as were spent lately, within the share.
    Auto,
    Fields(WrittenLeaseFields),
}

/// How tokens are taken in advance.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WrittenLeaseFields {
    /// The most tokens of one lease; fewer where fewer were spent lately. By default `auto`: as many as were.
    #[serde(default, deserialize_with = "written")]
    pub tokens: Option<WrittenLeaseTokens>,
    /// How long a lease may be held, 10ms to 60s. By default 1s.
    #[serde(default, deserialize_with = "written")]
    pub ttl: Option<Span>,
    /// The most that all leases of a bucket may hold together, in percent of its burst: 1 to 100. By default 50.
    #[serde(default, deserialize_with = "written")]
    pub share_percent: Option<Whole>,
}

/// How many tokens a lease has.
#[derive(Clone, Copy, Debug)]
pub enum WrittenLeaseTokens {
    Auto,
    Most(u64),
}

const LEASE: &str = "`auto`, or a mapping such as { tokens: 50, ttl: 1s }";
const TOKENS: &str = "`auto`, or a whole number such as 50";

impl<'de> Deserialize<'de> for WrittenLease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = WrittenLease;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(LEASE)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<WrittenLease, E> {
                match text {
                    "auto" => Ok(WrittenLease::Auto),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenLease, A::Error> {
                WrittenLeaseFields::deserialize(MapAccessDeserializer::new(map)).map(WrittenLease::Fields)
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl<'de> Deserialize<'de> for WrittenLeaseTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = WrittenLeaseTokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(TOKENS)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<WrittenLeaseTokens, E> {
                Ok(WrittenLeaseTokens::Most(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<WrittenLeaseTokens, E> {
                let number = || Whole::parse(text).map(|Whole(most)| WrittenLeaseTokens::Most(most));
                let word = (text == "auto").then_some(WrittenLeaseTokens::Auto);
                word.or_else(number).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}
