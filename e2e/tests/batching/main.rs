//! Natural batching on a real Envoy, with every callout in the test's hands: who shares a callout, what clients that
//! leave and callouts that fail do to others, in which order answers come, and how many may wait.
//!
//! Each test ends with its accounts: what Redis was charged, what the sidecar was asked, what reached the upstream and
//! what the filter counted must agree.

mod bounds;
mod failing;
mod leaving;
mod order;

use e2e::{Caller, PATIENCE, Shortcuts, Waiting, strict, taken};
use fleet::{Callout, Fleet, FleetBuilder, Store};
use serde_json::{Value, json};

/// Of the limit that all clients share.
const SHARED_BURST: u64 = 100_000;

/// A limit for all together, and one for each client.
fn policies(burst_of_each: u64) -> Value {
    json!([
        {"name": "all", "key": [], "limit": "1 per day", "burst": SHARED_BURST},
        {"name": "each", "key": [{"header": "x-client"}], "limit": "1 per day", "burst": burst_of_each},
    ])
}

/// One Envoy with one worker, so that there is one queue, and a gate before the sidecar. Every request is asked for.
fn gated(configuration: Value) -> FleetBuilder {
    let [without_shortcuts, _] = Shortcuts::none_and_all();
    without_shortcuts.fleet(&configuration).store(Store::Redis).gated().adjust(|config| {
        // One connection carries all that a test sends, so that it arrives in order.
        config.connection_manager()?["http2_protocol_options"]["max_concurrent_streams"] = json!(2_000);
        Ok(())
    })
}

/// A filter that waits longer for an answer than a test holds one back.
fn patient(policies: &Value) -> Value {
    let mut configuration = strict(policies);
    configuration["sidecar"]["timeout"] = json!("60s");
    configuration
}

/// What was charged to the limit that all share.
fn taken_of_all(fleet: &Fleet) -> u64 {
    taken(fleet, "e2e", "all/{}", SHARED_BURST)
}

fn taken_by(fleet: &Fleet, client: usize, burst: u64) -> u64 {
    taken(fleet, "e2e", &format!("each/{{header:x-client={client}}}"), burst)
}

fn send(caller: &Caller, client: usize) -> Waiting {
    caller.get("/", &[("x-client", &client.to_string())])
}

/// The clients that a callout asks for, in its order.
fn clients(callout: &Callout) -> Vec<usize> {
    callout.keys("each").iter().map(|key| client(key)).collect()
}

fn client(key: &str) -> usize {
    key.strip_prefix("header:x-client=").and_then(|name| name.parse().ok()).expect("a client of ours")
}

fn await_callouts(fleet: &Fleet, count: usize) -> Vec<Callout> {
    fleet.gate().await_callouts(count, PATIENCE).expect("they come")
}
