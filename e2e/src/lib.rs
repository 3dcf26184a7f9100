//! What the tests on real Envoys share: configurations, clients, certificates, and sidecars that misbehave. The tests stand in
//! `tests/` and are run by `cargo xtask test`, which builds and finds the programs that they start.

mod asking;
mod books;
mod caller;
mod certificates;
mod client;
pub mod grpc;
mod impostor;
mod listeners;
mod mutual_tls;
mod shortcuts;
pub mod tokens;

use serde_json::{Value, json};

pub use asking::{ask, await_counter, await_line, governed_by, remaining, statuses};
pub use books::{Books, await_quiet, await_requests, taken};
pub use caller::{Caller, Waiting};
pub use certificates::{Authority, Identity};
pub use client::Client;
pub use fleet::Watched;
pub use impostor::Impostor;
pub use listeners::Listener;
pub use mutual_tls::MutualTls;
pub use shortcuts::Shortcuts;

/// Long against a slow machine, short against a person's patience.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Arguments of a sidecar whose waits no slow machine outlasts by accident; shorter than the timeout of [`strict`].
pub const PATIENT: [&str; 2] = ["--redis-timeout", "4s"];

/// A filter configuration that fails closed, with a timeout that no slow machine meets by accident: a test that
/// counts what passes must not count what passed undecided.
#[must_use]
pub fn strict(policies: &Value) -> Value {
    json!({
        "sidecar": {"cluster": "sluice", "timeout": "5s"},
        "domain": "e2e",
        "on_error": "deny",
        "policies": policies,
    })
}

/// A policy of one limit for each API key.
#[must_use]
pub fn by_api_key(name: &str, limit: &str, burst: u64) -> Value {
    json!({"name": name, "key": [{"header": "x-api-key"}], "limit": limit, "burst": burst})
}
