//! What a route says of its own limits, in its metadata under the namespace `sluice`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::known::Known;
use crate::policies::Mode;
use crate::problem::Problem;

/// The attribute with all metadata of the route, an encoded `envoy.config.core.v3.Metadata`.
pub const ROUTE_METADATA: &str = "xds\0route_metadata";

/// The namespace of ours.
pub const NAMESPACE: &str = "sluice";

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

impl Memo {
    /// What the request's route says: as it is remembered, or else as `read` finds in its metadata.
    pub fn of(&self, request: &Known<'_>, read: impl FnOnce(&[u8]) -> Said) -> Rc<Said> {
        let encoded = request.attribute(ROUTE_METADATA).unwrap_or_default();
        // Decoding costs more than looking, and most routes say nothing.
        if !encoded.windows(NAMESPACE.len()).any(|window| window == NAMESPACE.as_bytes()) {
            return Rc::default();
        }
        if let Some(said) = self.0.borrow().get(encoded) {
            return Rc::clone(said);
        }
        let said = Rc::new(read(encoded));
        if encoded.len() > MAX_REMEMBERED_BYTES || said.mistakes.len() > 1 {
            return said;
        }
        let mut known = self.0.borrow_mut();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(encoded.to_vec(), Rc::clone(&said));
        said
    }
}
