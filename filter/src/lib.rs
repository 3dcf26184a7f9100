//! The filter that runs in every Envoy: asks the sidecar about each request that a policy governs.
//!
//! ```text
//! abi      where Envoy comes in: finds the context that a callback is about
//!   │
//! stream   one request: what does it ask, and what did it get?      root   one configuration
//!   │ asks                                                            │ answers
//! worker   the requests of one Envoy worker: sends their takes, hands out the answers, settles what they cost
//!   │ sends asking: a request that waits for its answer, or a settlement that nobody waits for
//!   │ uses batch: who waits for the next callout, and who is on the way
//!   │      callout: takes as bytes, bytes as verdicts
//! host     every call into Envoy, byte-safe, never panicking
//! ```

mod abi;
mod asking;
mod batch;
mod callout;
mod host;
mod root;
mod stats;
mod stream;
mod view;
mod worker;
