//! What a route says of its own limits, in its metadata under the namespace `sluice`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

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

/// What routes said, or what is wrong with it, by their encoded metadata: a route says the same for every request.
#[derive(Clone, Debug, Default)]
pub struct Memo(RefCell<HashMap<Vec<u8>, Rc<Said>>>);

/// What a route says, and what is wrong with it: then it is as if it said nothing.
#[derive(Debug, Default)]
pub struct Said {
    pub route: Route,
    pub mistakes: Rc<[Problem]>,
}

/// The most routes that are remembered. With more of them all are forgotten, and remembered anew.
const MAX_REMEMBERED: usize = 1_024;

/// The largest metadata that is remembered, in bytes. What is larger, or full of mistakes, is read each time.
const MAX_REMEMBERED_BYTES: usize = 4 << 10;

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
        config::route(metadata.clone(), Some(self)).err().unwrap_or_default()
    }

    /// What is wrong with a route's metadata whatever the policies are.
    #[must_use]
    pub fn check_route_form(metadata: &Value) -> Vec<Problem> {
        config::route(metadata.clone(), None).err().unwrap_or_default()
    }

    /// What the request's route says.
    pub(crate) fn route(&self, request: &impl Request) -> Rc<Said> {
        let encoded = request.attribute(ROUTE_METADATA).unwrap_or_default();
        // Decoding costs more than looking, and most routes say nothing.
        if !encoded.windows(NAMESPACE.len()).any(|window| window == NAMESPACE.as_bytes()) {
            return Rc::default();
        }
        if let Some(said) = self.routes.0.borrow().get(encoded) {
            return Rc::clone(said);
        }
        let said = Rc::new(self.read_route(encoded));
        if encoded.len() > MAX_REMEMBERED_BYTES || said.mistakes.len() > 1 {
            return said;
        }
        let mut known = self.routes.0.borrow_mut();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(encoded.to_vec(), Rc::clone(&said));
        said
    }

    fn read_route(&self, encoded: &[u8]) -> Said {
        let metadata = Metadata::decode(encoded).ok();
        let Some(ours) = metadata.and_then(|mut metadata| metadata.filter_metadata.remove(NAMESPACE)) else {
            return Said::default();
        };
        match config::route(config::object(ours), Some(self)) {
            Ok(route) => Said { route, mistakes: Rc::default() },
            Err(mistakes) => Said { route: Route::default(), mistakes: mistakes.into() },
        }
    }
}
