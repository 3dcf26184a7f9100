//! The limits that a user configures in `envoy.yaml`, and what they mean for one request.
//!
//! ```text
//! bytes ── config ──▶ Policies
//! Request ── Policies::asks ──▶ Vec<Ask> ── takes ──▶ (the sidecar decides) ──▶ verdicts ── answer ──▶ headers, or a denial
//! Response ── Policies::bill ──▶ Bill ── takes ──▶ (the sidecar settles)
//! ```
//!
//! Nothing here calls a host, a clock or a network: the filter does that, and every program that wants to know
//! what a configuration means can use this crate natively.

#![forbid(unsafe_code)]

mod answer;
mod bill;
mod config;
mod cost;
mod index;
mod key;
mod known;
mod matcher;
mod part;
mod policies;
mod problem;
mod request;
mod route;
mod share;
mod takes;

pub use answer::{Answer, Count, Decided, Denial, Failure, Header, UpstreamHeaders};
pub use bill::Bill;
#[cfg(feature = "schema")]
pub use config::schema;
pub use config::{ConfigError, Rate};
pub use policies::{
    Ask, Asked, DenyCache, Lease, Local, Mode, NamedLimit, OnError, Policies, Policy, Sidecar, Unasked,
};
pub use problem::{Place, Problem, Step};
pub use request::{CLIENT_ADDRESS, ROUTE_NAME, Request, Response};
pub use route::ROUTE_METADATA;
pub use share::WHOLE_PPM;
