//! What clients are told, as written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::Later;
use crate::config::scalar::{Span, Whole};

/// Which headers tell clients of their limits.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { ratelimit: true, x_ratelimit: false }")]
pub struct WrittenHeaders {
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`. By default true.
    #[serde(default)]
    pub x_ratelimit: Later<bool>,
    /// `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10. By default true.
    #[serde(default)]
    pub ratelimit: Later<bool>,
    /// `Retry-After` on denied requests. By default true.
    #[serde(default)]
    pub retry_after: Later<WrittenRetryAfter>,
    /// What becomes of the upstream's own headers of these names. By default `replace`.
    #[serde(default)]
    pub upstream: Later<WrittenUpstream>,
    /// `x-sluice-decision`: what the access log gets to know. By default false.
    #[serde(default)]
    pub debug: Later<bool>,
}

/// Whether and how `Retry-After` is sent.
#[derive(Clone, Copy, Debug)]
pub enum WrittenRetryAfter {
    Sent(bool),
    Jitter(WrittenJitter),
}

/// A random addition to `Retry-After`, so that clients do not come back all at once.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WrittenJitter {
    /// The most that is added, in whole seconds: `1s` to `1h`.
    pub jitter: Span,
}

/// What becomes of the upstream's own headers of the same names.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", expecting = "`keep`, `replace` or `append`")]
pub enum WrittenUpstream {
    /// They stay, and ours of the same name is not added.
    Keep,
    /// Ours take their place.
    #[default]
    Replace,
    /// Ours are added to them.
    Append,
}

/// What a denied request is answered, instead of the problem that names the policy.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { status: 429, body: slow down }")]
pub struct WrittenDenied {
    /// The status: 400 to 599. By default 429.
    #[serde(default)]
    pub status: Later<Whole>,
    /// Headers to add. `%POLICY%`, `%LIMIT%`, `%REMAINING%` and `%RETRY_AFTER%` are filled in; `%%` is a percent sign.
    #[serde(default)]
    pub headers: Later<BTreeMap<String, Later<String>>>,
    /// The body, filled in likewise. Its type is text/plain unless `headers` says otherwise.
    #[serde(default)]
    pub body: Later<String>,
}

impl<'de> Deserialize<'de> for WrittenRetryAfter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = WrittenRetryAfter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a mapping such as { jitter: 5s }")
            }

            fn visit_bool<E: Error>(self, sent: bool) -> Result<WrittenRetryAfter, E> {
                Ok(WrittenRetryAfter::Sent(sent))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenRetryAfter, A::Error> {
                WrittenJitter::deserialize(MapAccessDeserializer::new(map)).map(WrittenRetryAfter::Jitter)
            }
        }
        deserializer.deserialize_any(Seen)
    }
}
