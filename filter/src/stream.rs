//! One request: what does it ask, what did it get, and what did it cost in the end?

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use policy::{Asked, Bill, UpstreamHeaders};

use crate::asking::{Asking, Pass, Phase};
use crate::host::{self, HeaderMap};
use crate::view::{RequestView, ResponseView};
use crate::worker::Worker;

/// Whether Envoy goes on with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Continue = 0,
    Pause = 1,
}

/// The context of one request.
pub struct Stream {
    id: u32,
    worker: Option<Rc<Worker>>,
    asking: OnceCell<Rc<Asking>>,
    /// What is to be settled when the response has ended.
    bill: Cell<Option<Bill>>,
}

impl Stream {
    pub fn new(id: u32, worker: Option<Rc<Worker>>) -> Self {
        Self { id, worker, asking: OnceCell::new(), bill: Cell::new(None) }
    }

    /// The request's headers are here: asks for it where a policy governs it.
    pub fn request_headers(&self) -> Action {
        let Some(worker) = &self.worker else { return Action::Continue };
        let Asked { asks, mistakes } = worker.policies().asks(&RequestView);
        if !mistakes.is_empty() {
            worker.tell(&mistakes);
        }
        if asks.is_empty() {
            return Action::Continue;
        }
        let asking = self.asking.get_or_init(|| worker.ask(self.id, asks));
        asking.paused();
        if asking.phase() == Phase::Passed { Action::Continue } else { Action::Pause }
    }

    /// The response's headers are here: reads what the request cost, and tells the client how its limits stand.
    pub fn response_headers(&self) {
        let (Some(worker), Some(asking)) = (&self.worker, self.asking.get()) else { return };
        let Some(pass) = asking.take_pass() else { return };
        let policies = worker.policies();
        if pass.charged.contains(&true) && policies.settles(asking.asks()) {
            // Before the headers below are set: what upstream wrote counts.
            self.bill.set(Some(policies.bill(asking.asks(), &pass.charged, &ResponseView)));
        }
        tell(&pass, policies.upstream_headers());
    }

    /// The request is over, or its client has left.
    pub fn done(&self) {
        let (Some(worker), Some(asking)) = (&self.worker, self.asking.get()) else { return };
        worker.gone(asking);
        if let Some(bill) = self.bill.take() {
            worker.settle(asking, bill);
        }
    }
}

/// Tells the client how its limits stand. Without a header it knows less; the response is right all the same.
fn tell(pass: &Pass, beside_upstream: UpstreamHeaders) {
    for (name, value) in &pass.headers {
        let _unset = match beside_upstream {
            UpstreamHeaders::Replace => host::replace_header(HeaderMap::Response, name, value),
            UpstreamHeaders::Append => host::add_header(HeaderMap::Response, name, value),
            UpstreamHeaders::Keep if host::header(HeaderMap::Response, name).is_some() => Ok(()),
            UpstreamHeaders::Keep => host::add_header(HeaderMap::Response, name, value),
        };
    }
}
