//! `on_error: local` on real Envoys: while nobody else decides, each holds its clients to its share, over all of its
//! workers; and no longer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::{Client, PATIENCE, await_counter, await_line, by_api_key};
use fleet::{Fleet, FleetBuilder, Store, eventually, http};
use serde_json::{Value, json};

/// More than any burst here.
const REQUESTS: u64 = 400;

const CONNECTIONS: u64 = 16;

fn configuration(policies: &Value, share_percent: u64) -> Value {
    json!({
        "sidecar": {"cluster": "sluice", "timeout": "400ms"},
        "on_error": "local",
        "local": {"share_percent": share_percent},
        "policies": policies,
    })
}

fn fleet(burst: u64, share_percent: u64) -> FleetBuilder {
    let policies = json!([by_api_key("all", "1 per day", burst)]);
    Fleet::builder()
        .filter_configuration(configuration(&policies, share_percent))
        .concurrency(2)
        .sidecar_args(["--redis-timeout", "200ms"])
}

/// How many of so many requests pass, from clients with connections of their own and one key; the others get 429.
fn fire(addrs: &[SocketAddr], key: &str, requests: u64) -> u64 {
    let (next, passed) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for (_, addr) in (0..CONNECTIONS).zip(addrs.iter().cycle()) {
            scope.spawn(|| {
                let client = Client::new(key);
                while next.fetch_add(1, Ordering::Relaxed) < requests {
                    match client.get(*addr, "/") {
                        200 => drop(passed.fetch_add(1, Ordering::Relaxed)),
                        429 => {}
                        other => panic!("a request got {other}"),
                    }
                }
            });
        }
    });
    passed.into_inner()
}

fn addrs(fleet: &Fleet) -> Vec<SocketAddr> {
    fleet.envoys().iter().map(fleet::Envoy::addr).collect()
}

/// Waits until a request of this key is decided by the limit that all share; what it has left.
fn decided(fleet: &Fleet, key: &str, burst: u64) -> u64 {
    let expected = burst.to_string();
    eventually(PATIENCE, "the shared limit rules again", || {
        let answer = http::get("/").header("x-api-key", key).send(fleet.envoy(0).addr()).ok()?;
        let is_shared = answer.header("x-ratelimit-limit") == Some(&expected);
        is_shared.then(|| answer.header("x-ratelimit-remaining")?.parse().ok()).flatten()
    })
    .expect("decided")
}

#[test]
fn the_workers_of_one_envoy_together_let_its_share_pass() {
    let mut fleet = fleet(100, 34).start().expect("a fleet");
    fleet.sidecar(0).process().kill();
    let envoys = addrs(&fleet);
    assert_eq!(fire(&envoys, "alice", REQUESTS), 34);
    assert_eq!(fire(&envoys, "bob", REQUESTS), 34, "another has a bucket of his own");
    let taken_in = fleet.envoy(0).stats("").expect("stats");
    let by_both = taken_in.iter().filter(|(name, connections)| {
        name.contains(".worker_") && name.ends_with(".downstream_cx_total") && **connections > 0
    });
    assert_eq!(by_both.count(), 2, "both workers had some");
    await_counter(&fleet, "local_allowed", 68);
    await_counter(&fleet, "local_denied", 2 * REQUESTS - 68);
    await_counter(&fleet, "policy.all.local_denied", 2 * REQUESTS - 68);
    let line = await_line(&fleet, "decision=denied policy=all remaining=0 reason=used_up source=local");
    assert!(line.contains("failure=no_answer"), "{line}");
    // What was denied a moment ago passes: nothing is left of it.
    fleet.sidecars_mut()[0].restart().expect("restarted");
    let left = decided(&fleet, "alice", 100);
    assert_eq!(fire(&addrs(&fleet), "alice", REQUESTS), left, "the shared bucket was not touched");
}

#[test]
fn envoys_with_their_part_of_the_limit_together_let_no_more_pass_than_it_says() {
    let fleet = fleet(100, 33).envoys(3).start().expect("a fleet");
    fleet.sidecar(0).process().kill();
    assert_eq!(fire(&addrs(&fleet), "alice", 3 * REQUESTS), 3 * 33);
}

#[test]
fn a_redis_that_is_gone_or_stands_still_is_a_failure_like_others() {
    let mut fleet = fleet(100, 20).store(Store::Redis).start().expect("a fleet");
    assert_eq!(decided(&fleet, "carol", 100), 99);
    fleet.redis().process().freeze();
    assert_eq!(fire(&addrs(&fleet), "alice", 100), 20);
    fleet.redis().process().thaw();
    // What waited for Redis to wake up may have been taken there.
    assert!(decided(&fleet, "carol", 100) >= 90);
    fleet.redis().process().kill();
    assert_eq!(fire(&addrs(&fleet), "bob", 100), 20);
    let _told = await_line(&fleet, "source=local failure=store_unavailable");
    fleet.redis_mut().restart().expect("restarted");
    let left = decided(&fleet, "bob", 100);
    assert_eq!(fire(&addrs(&fleet), "bob", REQUESTS), left);
}

#[test]
fn a_request_that_twenty_policies_govern_waits_no_longer_with_the_sidecar_frozen() {
    let policy = |number: u64| by_api_key(&format!("p{number}"), "1 per day", 10 + number);
    let policies: Vec<Value> = (0..20).map(policy).collect();
    let configuration = configuration(&json!(policies), 100);
    let fleet = Fleet::builder().filter_configuration(configuration).start().expect("a fleet");
    fleet.sidecar(0).process().freeze();
    let mut passed = 0;
    for _ in 0..12 {
        let start = Instant::now();
        let request = http::get("/").header("x-api-key", "alice");
        let answer = request.send(fleet.envoy(0).addr()).expect("an answer");
        // One timeout behind the callout that is on its way, one for its own, and as much again for a slow machine.
        assert!(start.elapsed() < Duration::from_millis(400 * 4), "it took {:?}", start.elapsed());
        passed += u64::from(answer.status == 200);
    }
    assert_eq!(passed, 10, "all are taken from, and the one that holds the fewest decides");
}
