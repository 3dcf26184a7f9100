//! What the filter decides itself while nothing else does, as written.

use serde::Deserialize;

use super::written;
use crate::config::scalar::{Percent, Whole};

/// The filter's own buckets, which decide for policies with `on_error: local`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { share_percent: 25, buckets: 16384 }")]
pub struct WrittenLocal {
    /// How much of each limit one Envoy allows, in percent, where the policy says nothing else. By default 100; with N
    /// Envoys 100/N holds the limit over all of them.
    #[serde(default, deserialize_with = "written")]
    pub share_percent: Option<Percent>,
    /// How many buckets an Envoy keeps at most: 16 to 1000000. By default 16384.
    #[serde(default, deserialize_with = "written")]
    pub buckets: Option<Whole>,
}

/// How one policy is decided by the filter's own buckets.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { share_percent: 25 }")]
pub struct WrittenPolicyLocal {
    /// How much of each of its limits one Envoy allows, in percent.
    pub share_percent: Percent,
}
