//! What a route says in its metadata, from Envoy's encoding to what is known to be valid.

use std::collections::BTreeMap;
use std::rc::Rc;

use prost::Message;
use prost_types::Struct;
use serde_json::Value;

use super::{source, validate};
use crate::known::Known;
use crate::route::{NAMESPACE, Route, Said};
use crate::{Policies, Problem};

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
        validate::route(metadata.clone(), Some(self)).err().unwrap_or_default()
    }

    /// What is wrong with a route's metadata whatever the policies are.
    #[must_use]
    pub fn check_route_form(metadata: &Value) -> Vec<Problem> {
        validate::route(metadata.clone(), None).err().unwrap_or_default()
    }

    /// What the request's route says.
    pub(crate) fn route(&self, request: &Known<'_>) -> Rc<Said> {
        self.routes.of(request, |encoded| self.read_route(encoded))
    }

    fn read_route(&self, encoded: &[u8]) -> Said {
        let metadata = Metadata::decode(encoded).ok();
        let Some(ours) = metadata.and_then(|mut metadata| metadata.filter_metadata.remove(NAMESPACE)) else {
            return Said::default();
        };
        match validate::route(source::object(ours), Some(self)) {
            Ok(route) => Said { route, mistakes: Rc::default() },
            Err(mistakes) => Said { route: Route::default(), mistakes: mistakes.into() },
        }
    }
}
