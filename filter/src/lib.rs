//! The filter that runs in every Envoy: asks the sidecar about each request that a policy governs.
//!
//! ```text
//! stream   one request: what does it ask, and what did it get?
//!   │ asks
//! worker   the requests of one Envoy worker: sends their takes, hands out the answers
//!   │ uses batch: who waits for the next callout, and who is on the way
//!   │      callout: takes as bytes, bytes as verdicts
//! host     every call into Envoy, byte-safe, never panicking
//! ```

mod batch;
mod callout;
mod host;
mod root;
mod stats;
mod stream;
mod view;
mod worker;

/// Registers the filter with the SDK: all that Envoy's entry point does.
pub fn start() {
    proxy_wasm::set_root_context(root::create);
}

#[cfg(target_arch = "wasm32")]
mod entry {
    proxy_wasm::main! {{
        crate::start();
    }}
}
