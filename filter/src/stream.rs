//! One request: what does it ask, and what did it get?

use std::cell::OnceCell;
use std::rc::Rc;

use crate::host::{self, HeaderMap};
use crate::view::View;
use crate::worker::{Asking, Phase, Worker};

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
}

impl Stream {
    pub fn new(id: u32, worker: Option<Rc<Worker>>) -> Self {
        Self { id, worker, asking: OnceCell::new() }
    }

    /// The request's headers are here: asks for it where a policy governs it.
    pub fn request_headers(&self) -> Action {
        let Some(worker) = &self.worker else { return Action::Continue };
        let asks = worker.policies().asks(&View::default());
        if asks.is_empty() {
            return Action::Continue;
        }
        let asking = self.asking.get_or_init(|| worker.ask(self.id, asks));
        asking.paused();
        if asking.phase() == Phase::Passed { Action::Continue } else { Action::Pause }
    }

    /// The response's headers are here: adds how the bucket stands.
    pub fn response_headers(&self) {
        if let Some(quota) = self.asking.get().and_then(|asking| asking.quota()) {
            for (name, value) in quota.headers() {
                // Without it the client knows less; the response is right all the same.
                let _unset = host::replace_header(HeaderMap::Response, name, &value);
            }
        }
    }

    /// The request is over, or its client has left.
    pub fn done(&self) {
        if let Some(asking) = self.asking.get() {
            asking.gone();
        }
    }
}
