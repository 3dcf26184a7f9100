//! The filter that runs in every Envoy: asks the sidecar about each request that a policy governs.
//!
//! ```text
//! abi      where Envoy comes in: finds the context that a callback is about
//!   │
//! stream   one request: what does it ask, and what did it get?      root   one configuration
//!   │ asks                                                            │ answers
//! worker   the requests of one Envoy worker: answers from what is known, or sends their takes, hands out the answers
//!   │ sends asking: a request that waits for its answer; settlements and leases that nobody waits for
//!   │ uses remembered: what was denied, and is denied still
//!   │      leases: tokens taken in advance for the busiest keys
//!   │      local: this Envoy's own buckets, for while nothing else decides
//!   │      breaker: whether the sidecar is asked at all
//!   │      batch: who waits for the next callout, and who is on the way
//!   │      trace: the trace that a request is part of
//!   │      callout, reply: takes as bytes, bytes as verdicts, denials as bytes
//! host     every call into Envoy, byte-safe, never panicking
//! ```

mod abi;
mod asking;
mod batch;
mod breaker;
mod callout;
mod clock;
mod host;
mod leases;
mod local;
mod remembered;
mod reply;
mod root;
mod stats;
mod stream;
mod trace;
mod view;
mod whose;
mod worker;
