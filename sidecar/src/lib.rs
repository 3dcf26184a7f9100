//! The sidecar of Sluice: it hears takes over HTTP, decides them in a store, and answers with verdicts.
//!
//! [`http`] is the edge towards Envoy, [`store`] keeps the buckets, [`batch`] is what the one hands to the other, and
//! [`overrides`] is what operators have it ask instead.
//! None of them decides anything: the rules are in the `bucket` crate and, for Redis, in `lua/take.lua`.
//!
//! [`check`] and [`explain`] are what the binary tells offline of a configuration, by the `policy` crate, the filter's own
//! code; [`document`] reads files as Envoy does.

#![forbid(unsafe_code)]

pub mod admin_client;
pub mod batch;
pub mod check;
pub mod clock;
pub mod code;
pub mod command;
pub mod config;
pub mod descriptors;
pub mod document;
pub mod explain;
pub mod health;
pub mod http;
pub mod logging;
pub mod overrides;
pub mod pem;
pub mod process;
pub mod published;
mod quoted;
pub mod replay;
pub mod spans;
pub mod store;
pub mod telemetry;
