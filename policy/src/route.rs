//! What a route says of its own limits, in its metadata under the namespace `sluice`.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::Struct;
use serde_json::Value;

use crate::config::{self, Problem};
use crate::{Mode, Policies, Request};

/// The attribute with all metadata of the route, an encoded `envoy.config.core.v3.Metadata`.
pub const ROUTE_METADATA: &str = "xds\0route_metadata";

/// The namespace of ours.
const NAMESPACE: &str = "sluice";

/// What a route says. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// No policy governs it.
    pub skip: bool,
    /// The policies that may govern it, by their places in the configuration; `None`: all.
    pub policies: Option<Vec<usize>>,
    /// What a request takes from each policy, in tokens.
    pub cost_tokens: Option<u64>,
    pub mode: Option<Mode>,
}

/// The part of Envoy's `Metadata` that has our namespace.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, Struct>,
}

impl Policies {
    /// What is wrong with a route's metadata of the namespace `sluice`, given as a mapping.
    #[must_use]
    pub fn check_route(&self, metadata: &Value) -> Vec<Problem> {
        config::route(metadata.clone(), self).err().unwrap_or_default()
    }

    /// What the request's route says, or what is wrong with it.
    pub(crate) fn route(&self, request: &impl Request) -> Result<Route, Vec<Problem>> {
        let encoded = request.attribute(ROUTE_METADATA).unwrap_or_default();
        // Decoding costs more than looking, and most routes say nothing.
        if !encoded.windows(NAMESPACE.len()).any(|window| window == NAMESPACE.as_bytes()) {
            return Ok(Route::default());
        }
        let Ok(mut metadata) = Metadata::decode(encoded) else { return Ok(Route::default()) };
        match metadata.filter_metadata.remove(NAMESPACE) {
            Some(ours) => config::route(config::object(ours), self),
            None => Ok(Route::default()),
        }
    }
}
