//! What a route says in its metadata, namespace `sluice`, as written.

use serde::Deserialize;

use super::{Later, WrittenMode};
use crate::config::scalar::Whole;

/// The metadata of a route, namespace `sluice`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping such as { policies: [per-client], cost: 5 }")]
pub struct WrittenRoute {
    /// Whether the route is exempt from every policy.
    #[serde(default)]
    pub skip: Later<bool>,
    /// The policies that may govern the route: their conditions must be met all the same. By default all.
    #[serde(default)]
    pub policies: Later<Vec<String>>,
    /// What a request takes from each policy, instead of the policy's own cost.
    #[serde(default)]
    pub cost: Later<Whole>,
    /// The mode of each policy, instead of its own.
    #[serde(default)]
    pub mode: Later<WrittenMode>,
}
