//! A fleet on this machine: real Envoys, sidecars and a Redis as child processes, for `cargo xtask` and the
//! end-to-end tests.
//!
//! Start at [`Fleet::builder`]. Everything here blocks; everything that waits has a deadline; and everything
//! that was started is stopped when its value is dropped, or killed by the kernel when this process dies first.
//!
//! ```no_run
//! # fn main() -> fleet::Result<()> {
//! let fleet = fleet::Fleet::builder().envoys(2).store(fleet::Store::Redis).start()?;
//! let answer = fleet::http::get("/").header("x-api-key", "demo").send(fleet.envoy(0).addr())?;
//! assert_eq!(answer.status, 200);
//! # Ok(())
//! # }
//! ```

pub mod artifacts;
mod browser;
mod cluster;
pub mod config;
mod echo;
mod envoy;
mod error;
mod gate;
mod head;
pub mod http;
mod listening;
mod ports;
mod process;
mod programs;
mod receiver;
mod redis;
mod run;
mod sentinel;
mod sidecar;
pub mod tools;
pub mod traffic;
mod wait;
mod watched;
#[path = "fleet.rs"]
mod whole;
pub mod windows;
mod wire;

pub use browser::{Browser, Key};
pub use cluster::{Cluster, SLOTS};
pub use config::{Config, Endpoint};
pub use echo::EchoUpstream;
pub use envoy::{Envoy, EnvoyBuilder, Validation};
pub use error::{Error, Result};
pub use gate::{Callout, Fate, Gate};
pub use ports::free_port;
pub use process::{Process, cpu_us, rss_bytes};
pub use programs::Programs;
pub use receiver::{ReceivedSpan, SpanReceiver};
pub use redis::{Redis, Reply};
pub use run::RunDir;
pub use sentinel::Sentinels;
pub use sidecar::{Ready, Sidecar, SidecarBuilder};
pub use wait::eventually;
pub use watched::Watched;
pub use whole::{Fleet, FleetBuilder, Store, Transport};
pub use wire::{Flow, Wire};
