//! The limits that a user configures in `envoy.yaml`, and what they mean for one request.
//!
//! ```text
//! bytes ── config ──▶ Policies
//! Request ── Policies::asks ──▶ Vec<Ask> ──▶ (the sidecar decides) ──▶ Verdict ── answer ──▶ headers, or a denial
//! ```
//!
//! Nothing here calls a host, a clock or a network: the filter does that, and every program that wants to know
//! what a configuration means can use this crate natively.

#![forbid(unsafe_code)]

mod answer;
mod config;
mod key;
mod matcher;
mod policies;
mod request;

pub use answer::{Answer, Denial, Failure, Quota};
pub use config::{ConfigError, Problem};
pub use policies::{Ask, OnError, Policies, Policy, Sidecar};
pub use request::Request;
