//! One filter configuration on one worker: reads it, and owns the callouts.

use std::rc::Rc;

use policy::Policies;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use crate::host;
use crate::stream::Stream;
use crate::worker::Worker;

/// The largest configuration that is asked of Envoy, in bytes; longer ones are refused by their reader.
const MAX_CONFIGURATION_BYTES: usize = 8 << 20;

/// The root context; without a worker until it is configured.
struct Root {
    id: u32,
    worker: Option<Rc<Worker>>,
}

/// Called by the SDK for each configuration.
pub fn create(id: u32) -> Box<dyn RootContext> {
    Box::new(Root { id, worker: None })
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        token: u32,
        num_headers: usize,
        body_size: usize,
        _num_trailers: usize,
    ) {
        if let Some(worker) = &self.worker {
            worker.arrived(token, num_headers, body_size);
        }
    }
}

impl RootContext for Root {
    /// Answering `false` makes Envoy refuse to start, or keep its old configuration on an update.
    fn on_configure(&mut self, size: usize) -> bool {
        let bytes = match size {
            0 => Vec::new(),
            size => host::buffer(BufferType::PluginConfiguration, size.min(MAX_CONFIGURATION_BYTES))
                .unwrap_or_default(),
        };
        match Policies::from_bytes(&bytes) {
            Ok(policies) => {
                self.worker = Some(Rc::new(Worker::new(self.id, policies)));
                true
            }
            Err(error) => {
                host::log(LogLevel::Error, &format!("sluice: the configuration is not valid: {error}"));
                false
            }
        }
    }

    /// No queue is registered: this is how a request's callback lets the root context send, see `worker`.
    fn on_queue_ready(&mut self, _queue_id: u32) {
        if let Some(worker) = &self.worker {
            worker.flush();
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(context_id, self.worker.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
