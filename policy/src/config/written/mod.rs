//! The configuration as its author writes it. The documentation of each field is what an editor shows.

mod answer;
mod condition;
mod key;
mod later;
mod lease;
mod limit;
mod local;
mod route;

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::scalar::{Percent, Span, Whole};

pub use answer::{WrittenDenied, WrittenHeaders, WrittenJitter, WrittenRetryAfter, WrittenUpstream};
pub use condition::{WrittenCondition, WrittenPath, WrittenTest};
pub use key::{
    OneOrMore, Word, WrittenCertificate, WrittenClaim, WrittenMetadata, WrittenPart, WrittenPartFields,
    WrittenPathPart, WrittenPrefixes,
};
pub use later::Later;
pub use lease::{WrittenLease, WrittenLeaseFields, WrittenLeaseTokens};
pub use limit::{WrittenCost, WrittenHeaderCost, WrittenLimit, WrittenSettle};
pub use local::{WrittenLocal, WrittenPolicyLocal};
pub use route::WrittenRoute;

/// The configuration of a Sluice filter.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Sluice", title = "Sluice"))]
#[serde(deny_unknown_fields, expecting = "a mapping with `sidecar` and `policies`")]
pub struct Written {
    /// Where the decisions are made.
    pub sidecar: Later<WrittenSidecar>,
    /// The namespace of the policies: those of the same name in different domains are different limits.
    #[serde(default)]
    pub domain: Later<String>,
    /// What a request gets that could not be decided, where its policy says nothing else.
    #[serde(default)]
    pub on_error: Later<WrittenOnError>,
    /// The filter's own buckets, which decide where `on_error` is `local`.
    #[serde(default)]
    pub local: Later<WrittenLocal>,
    /// Whether policies are enforced, where they say nothing else.
    #[serde(default)]
    pub mode: Later<WrittenMode>,
    /// The secret with which `hash: true` hashes, at least 16 bytes: the same on every Envoy.
    #[serde(default)]
    pub hash_secret: Later<String>,
    /// Requests that are exempt from every policy: those that meet one of these conditions.
    #[serde(default)]
    pub skip: Later<Vec<Later<WrittenCondition>>>,
    /// How long the filter remembers what was denied, and answers the same question itself.
    #[serde(default)]
    pub deny_cache: Later<WrittenDenyCache>,
    /// Whether sidecars are told of the traces that requests are part of, where these are sampled. By default false.
    #[serde(default)]
    pub tracing: Later<bool>,
    /// Which headers tell clients of their limits.
    #[serde(default)]
    pub headers: Later<WrittenHeaders>,
    /// What a denied request is answered, where its policy says nothing else.
    #[serde(default)]
    pub denied: Later<WrittenDenied>,
    /// The limits. A request takes from all that match it, or from none.
    pub policies: Later<Vec<Later<WrittenPolicy>>>,
}

/// Where the decisions are made.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { cluster: sluice, timeout: 50ms }")]
pub struct WrittenSidecar {
    /// The Envoy cluster with the sidecars.
    pub cluster: String,
    /// How long one callout may take: 1ms to 60s. By default 50ms.
    #[serde(default, deserialize_with = "written")]
    pub timeout: Option<Span>,
    /// How many callouts of a worker are on the way at a time, before what arrives waits and shares the next one: 1 to
    /// 32. By default 1; more may help where the sidecar is far away.
    #[serde(default, deserialize_with = "written")]
    pub in_flight: Option<Whole>,
}

/// What each worker remembers of denials.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { ceiling: 500ms, entries: 4096 }")]
pub struct WrittenDenyCache {
    /// How long a denial is remembered at most, however long the client has to wait: 0s to 60s. What is returned to a
    /// bucket and a limit that is raised are seen after this time. By default 500ms; 0s asks for every request.
    #[serde(default, deserialize_with = "written")]
    pub ceiling: Option<Span>,
    /// How many denials are remembered. By default 4096.
    #[serde(default, deserialize_with = "written")]
    pub entries: Option<Whole>,
}

/// What becomes of a request that could not be decided.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", expecting = "`allow`, `deny` or `local`")]
pub enum WrittenOnError {
    /// It passes.
    #[default]
    Allow,
    /// It is answered with 503.
    Deny,
    /// A bucket of this Envoy's own decides, at a share of the limit.
    Local,
}

/// Whether a policy denies.
#[derive(Clone, Copy, Debug, Default)]
pub enum WrittenMode {
    #[default]
    Enforce,
    Shadow,
    Off,
}

/// What becomes of a request that lacks a part of the key.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", expecting = "`share` or `skip`")]
pub enum WrittenMissing {
    /// All requests that lack it share one bucket.
    #[default]
    Share,
    /// The policy does not govern it.
    Skip,
}

/// A limit on the requests that match, for each key apart.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a policy: a mapping with `name`, `key` and `limit`")]
pub struct WrittenPolicy {
    /// Names the policy in answers, logs, counters and Redis: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Which requests it governs: those that meet every condition that is written. By default all.
    #[serde(default, rename = "match")]
    pub matches: Later<WrittenCondition>,
    /// Who shares a bucket: all requests in which each of these parts is equal. An empty list is one bucket for all.
    pub key: Later<Vec<Later<WrittenPart>>>,
    /// What becomes of a request that lacks a part of the key. By default `share`.
    #[serde(default)]
    pub missing: Later<WrittenMissing>,
    /// Tokens and the time in which they are refilled: `60 per minute`, `5 per 12s`, `1000/day`.
    #[serde(default)]
    pub limit: Later<super::scalar::Rate>,
    /// The most tokens at once. By default the limit's number.
    #[serde(default)]
    pub burst: Later<super::scalar::Whole>,
    /// Several limits instead of one; a request takes from all of them, or from none.
    #[serde(default)]
    pub limits: Later<Vec<Later<WrittenLimit>>>,
    /// How many tokens a request takes: a number, or from a request header. By default 1; 0 only reports.
    #[serde(default)]
    pub cost: Later<WrittenCost>,
    /// Tokens that the filter takes in advance for its busiest keys, and spends without asking. By default none.
    #[serde(default)]
    pub lease: Later<WrittenLease>,
    /// What a request really cost, known when its response ends: the difference is then taken or returned.
    #[serde(default)]
    pub settle: Later<WrittenSettle>,
    /// Statuses of responses for which nothing is to be paid: what was taken is returned.
    #[serde(default)]
    pub refund_on: Later<Vec<crate::cost::Statuses>>,
    /// Whether it denies, or only tells what it would.
    #[serde(default)]
    pub mode: Later<WrittenMode>,
    /// For how many of its keys a policy in mode `enforce` is enforced; for the others it is in shadow. By default 100.
    #[serde(default)]
    pub enforce_percent: Later<Percent>,
    /// Whether it governs only those routes whose metadata chooses it by name.
    #[serde(default)]
    pub only_if_chosen: Later<bool>,
    /// What a request gets that could not be decided.
    #[serde(default)]
    pub on_error: Later<WrittenOnError>,
    /// How it is decided where its `on_error` is `local`.
    #[serde(default)]
    pub local: Later<WrittenPolicyLocal>,
    /// What a request is answered that this policy denies.
    #[serde(default)]
    pub denied: Later<WrittenDenied>,
}

impl<'de> Deserialize<'de> for WrittenMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = WrittenMode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`enforce`, `shadow` or `off`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<WrittenMode, E> {
                match word {
                    "enforce" => Ok(WrittenMode::Enforce),
                    "shadow" => Ok(WrittenMode::Shadow),
                    "off" => Ok(WrittenMode::Off),
                    _ => Err(E::unknown_variant(word, &["enforce", "shadow", "off"])),
                }
            }

            /// Envoy's YAML reads the word `off` as false.
            fn visit_bool<E: Error>(self, value: bool) -> Result<WrittenMode, E> {
                if value { Err(E::invalid_type(Unexpected::Bool(true), &self)) } else { Ok(WrittenMode::Off) }
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

/// A field that is left out has its default; one that is written without a value, which YAML reads as null, is a
/// mistake: an empty condition must not come to match everything.
pub fn written<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
