//! One request: what does it ask, and what did it get?

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, MapType};

use crate::host;
use crate::view::View;
use crate::worker::{Asking, Phase, Worker};

/// The context of one request.
pub struct Stream {
    id: u32,
    worker: Option<Rc<Worker>>,
    asking: Option<Rc<Asking>>,
}

impl Stream {
    pub fn new(id: u32, worker: Option<Rc<Worker>>) -> Self {
        Self { id, worker, asking: None }
    }
}

impl Context for Stream {
    fn on_done(&mut self) -> bool {
        if let Some(asking) = &self.asking {
            asking.gone();
        }
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        let Some(worker) = &self.worker else { return Action::Continue };
        let asks = worker.policies().asks(&View::default());
        if asks.is_empty() {
            return Action::Continue;
        }
        let asking = worker.ask(self.id, asks);
        asking.paused();
        let phase = asking.phase();
        self.asking = Some(asking);
        if phase == Phase::Passed { Action::Continue } else { Action::Pause }
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        if let Some(quota) = self.asking.as_ref().and_then(|asking| asking.quota()) {
            for (name, value) in quota.headers() {
                // Without it the client knows less; the response is right all the same.
                let _unset = host::replace_header(MapType::HttpResponseHeaders, name, &value);
            }
        }
        Action::Continue
    }
}
