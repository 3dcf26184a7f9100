//! One filter configuration on one worker: reads it, and owns the callouts.

use std::cell::RefCell;
use std::rc::Rc;

use policy::Policies;

use crate::host::{self, Buffer, LogLevel};
use crate::worker::Worker;

/// The largest configuration that is asked of Envoy, in bytes; longer ones are refused by their reader.
const MAX_CONFIGURATION_BYTES: usize = 8 << 20;

/// A root context; without a worker until it is configured.
pub struct Root {
    id: u32,
    worker: RefCell<Option<Rc<Worker>>>,
}

impl Root {
    pub fn new(id: u32) -> Self {
        Self { id, worker: RefCell::new(None) }
    }

    pub fn worker(&self) -> Option<Rc<Worker>> {
        self.worker.borrow().clone()
    }

    /// Reads a configuration of `size` bytes. Answering `false` makes Envoy refuse to start, or keep its old one on an
    /// update.
    pub fn configure(&self, size: usize) -> bool {
        let bytes = match size {
            0 => Vec::new(),
            size => host::buffer(Buffer::PluginConfiguration, size.min(MAX_CONFIGURATION_BYTES))
                .unwrap_or_default(),
        };
        match Policies::from_bytes(&bytes) {
            Ok(policies) => {
                for warning in policies.warnings() {
                    host::log(LogLevel::Warn, &format!("sluice: the configuration is valid, but {warning}"));
                }
                let former = self.worker.replace(Some(Rc::new(Worker::new(self.id, policies))));
                if let Some(former) = former {
                    former.done();
                }
                true
            }
            Err(error) => {
                host::log(LogLevel::Error, &format!("sluice: the configuration is not valid: {error}"));
                false
            }
        }
    }

    /// The configuration is over.
    pub fn done(&self) {
        if let Some(worker) = self.worker() {
            worker.done();
        }
    }

    /// Time has passed.
    pub fn tick(&self) {
        if let Some(worker) = self.worker() {
            worker.tick();
        }
    }

    /// The callout `token` has come back.
    pub fn call_response(&self, token: u32, num_headers: usize, body_size: usize) {
        if let Some(worker) = self.worker() {
            worker.arrived(token, num_headers, body_size);
        }
    }
}
