//! The wasm edge on a fake Envoy: whatever happens in whatever order, nothing traps, every request that is still
//! there gets exactly one answer, and nobody else's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic: that is how it fails"
)]

mod answers;
mod breaker;
mod fake_host;
mod filter;
mod local;
mod orders;
mod price;
mod settling;
mod shortcuts;
mod store;
