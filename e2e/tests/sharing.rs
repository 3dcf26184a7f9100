//! Several Envoys, one limit: exactly, for all, at the promised instant.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::{Client, Shortcuts, by_api_key, strict};
use fleet::{Fleet, FleetBuilder, Store, Transport, http};
use serde_json::json;

const CONNECTIONS: usize = 64;
const REQUESTS: usize = 5_000;

/// Runs a test without shortcuts, and with all that nobody may be able to tell from the outside.
fn either_way(test: impl Fn(&Shortcuts)) {
    for shortcuts in Shortcuts::none_and_unseen() {
        eprintln!("with {shortcuts}");
        test(&shortcuts);
    }
}

/// The same with the buckets in Redis, and with a sidecar that keeps them itself.
fn in_each_store(policies: &serde_json::Value, test: impl Fn(&Fleet)) {
    either_way(|shortcuts| {
        for (store, sidecars) in [(Store::Redis, 2), (Store::Memory, 1)] {
            let fleet = fleet(shortcuts, policies).sidecars(sidecars).store(store);
            test(&fleet.start().expect("a fleet"));
        }
    });
}

fn fleet(shortcuts: &Shortcuts, policies: &serde_json::Value) -> FleetBuilder {
    shortcuts.fleet(&strict(policies)).envoys(3).concurrency(2)
}

fn addrs(fleet: &Fleet) -> Vec<SocketAddr> {
    fleet.envoys().iter().map(fleet::Envoy::addr).collect()
}

/// Fires `requests` over `connections` clients and all proxies in turn: how many got 200, and how many 429.
/// Anything else fails the test.
fn fire(addrs: &[SocketAddr], connections: usize, requests: usize) -> (usize, usize) {
    let (next, passed, denied) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let client = Client::new("everybody");
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return;
                    }
                    match client.get(addrs[number % addrs.len()], "/") {
                        200 => passed.fetch_add(1, Ordering::Relaxed),
                        429 => denied.fetch_add(1, Ordering::Relaxed),
                        other => panic!("request {number} got {other}"),
                    };
                }
            });
        }
    });
    (passed.into_inner(), denied.into_inner())
}

fn assert_exactly_500_pass(builder: FleetBuilder) {
    let fleet = builder.start().expect("a fleet");
    let (passed, denied) = fire(&addrs(&fleet), CONNECTIONS, REQUESTS);
    assert_eq!((passed, denied), (500, REQUESTS - 500));
    let reached = fleet.upstream().requests();
    assert_eq!(reached, 500, "what was denied never reached the upstream");
    let by_proxy: Vec<u64> =
        fleet.envoys().iter().map(|envoy| envoy.stat("wasmcustom.sluice.denied").expect("a stat")).collect();
    assert!(by_proxy.iter().all(|denied| *denied > 0), "every proxy took part: {by_proxy:?}");
}

fn one_limit() -> serde_json::Value {
    json!([by_api_key("one", "1 per day", 500)])
}

#[test]
fn exactly_500_pass_three_envoys_two_sidecars_and_a_redis() {
    either_way(|shortcuts| {
        assert_exactly_500_pass(fleet(shortcuts, &one_limit()).sidecars(2).store(Store::Redis))
    });
}

#[test]
fn exactly_500_pass_three_envoys_and_a_sidecar_that_keeps_the_buckets_itself() {
    either_way(|shortcuts| assert_exactly_500_pass(fleet(shortcuts, &one_limit())));
}

#[test]
fn exactly_500_pass_over_cleartext_http2() {
    let [_, with_all] = Shortcuts::none_and_unseen();
    let fleet = fleet(&with_all, &one_limit()).transport(Transport::Http2);
    assert_exactly_500_pass(fleet.sidecars(2).store(Store::Redis));
}

#[test]
fn exactly_500_pass_over_unix_sockets() {
    let [_, with_all] = Shortcuts::none_and_unseen();
    let fleet = fleet(&with_all, &one_limit()).transport(Transport::Unix);
    assert_exactly_500_pass(fleet.sidecars(2).store(Store::Redis));
}

#[test]
fn takes_that_arrive_together_share_a_callout() {
    let [asking, _] = Shortcuts::none_and_unseen();
    let fleet =
        fleet(&asking, &json!([by_api_key("one", "1 per day", 100_000)])).envoys(1).start().expect("a fleet");
    let (passed, _) = fire(&addrs(&fleet), CONNECTIONS, REQUESTS);
    assert_eq!(passed, REQUESTS);
    let callouts = fleet.envoy(0).stat("wasmcustom.sluice.callouts").expect("a stat");
    assert!(
        callouts > 0 && callouts < REQUESTS as u64 * 9 / 10,
        "{REQUESTS} takes left in {callouts} callouts"
    );
}

#[test]
fn a_limit_that_is_used_up_takes_nothing_from_the_others() {
    let policies = json!([
        by_api_key("roomy", "1 per day", 20),
        {"name": "tight", "match": {"path": {"prefix": "/tight"}}, "key": [], "limit": "1 per day", "burst": 3},
    ]);
    in_each_store(&policies, |fleet| {
        let (client, addrs) = (Client::new("alice"), addrs(fleet));
        let statuses = |path: &str, count: usize| -> Vec<u16> {
            (0..count).map(|number| client.get(addrs[number % addrs.len()], path)).collect()
        };
        assert_eq!(statuses("/tight", 3), [200; 3]);
        assert_eq!(statuses("/tight", 30), [429; 30], "the tight limit is used up");
        assert_eq!(statuses("/", 17), [200; 17], "the roomy one has lost only the three that passed");
        assert_eq!(statuses("/", 3), [429; 3]);
    });
}

#[test]
fn different_keys_do_not_touch_each_other() {
    let [_, with_all] = Shortcuts::none_and_unseen();
    let fleet = fleet(&with_all, &json!([by_api_key("one", "1 per day", 2)]))
        .sidecars(2)
        .store(Store::Redis)
        .start()
        .expect("a fleet");
    let addrs = addrs(&fleet);
    for client in ["alice", "bob", "header:x-api-key=alice", "alice,", "", "%61lice"] {
        let client = Client::new(client);
        let statuses: Vec<u16> = addrs.iter().map(|addr| client.get(*addr, "/")).collect();
        assert_eq!(statuses, [200, 200, 429]);
    }
    // Without the header at all: a bucket of its own, too.
    let statuses: Vec<u16> =
        addrs.iter().map(|addr| http::get("/").send(*addr).expect("an answer").status).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

/// One token every 500 ms. Whatever the machine's speed: a request that was over before the token was due must
/// have been denied, and one that was sent when it was due must have passed.
#[test]
fn a_token_comes_back_at_the_promised_instant() {
    let period = Duration::from_millis(500);
    let policies = json!([by_api_key("one", "2 per second", 1)]);
    in_each_store(&policies, |fleet| {
        let (client, addrs) = (Client::new("alice"), addrs(fleet));
        let (mut admitted, mut last) = (0, None::<(Instant, Instant)>);
        for number in 0.. {
            let sent = Instant::now();
            let status = client.get(addrs[number % addrs.len()], "/");
            let answered = Instant::now();
            if let Some((last_sent, last_answered)) = last {
                if status == 200 {
                    assert!(answered - last_sent >= period, "a token came early");
                } else {
                    assert!(sent < last_answered + period, "a token came late");
                }
            }
            if status == 200 {
                last = Some((sent, answered));
                admitted += 1;
            }
            if admitted == 5 {
                break;
            }
        }
    });
}

/// Makes a bucket in Redis older: as if that much time had passed since it was counted.
fn age(fleet: &Fleet, key: &str, by: Duration) {
    let value = fleet.redis().command(&["GET", key]).expect("Redis answers").to_string();
    let (kept, at_us) = value.trim().rsplit_once(' ').expect("a bucket");
    let at_us = at_us.parse::<u128>().expect("microseconds") - by.as_micros();
    fleet.redis().command(&["SET", key, &format!("{kept} {at_us}"), "KEEPTTL"]).expect("Redis answers");
}

#[test]
fn a_denied_client_is_told_when_to_come_back_and_may() {
    let policies = json!([by_api_key("one", "1 per second", 1)]);
    // Nobody foresees that a bucket ages.
    let [asking, _] = Shortcuts::none_and_unseen();
    let fleet = fleet(&asking, &policies).sidecars(2).store(Store::Redis).start().expect("a fleet");
    let ask = || http::get("/").header("x-api-key", "alice").send(fleet.envoy(0).addr()).expect("an answer");
    assert_eq!(ask().status, 200);
    let denied = ask();
    assert_eq!((denied.status, denied.header("retry-after")), (429, Some("1")));
    age(&fleet, "sluice:1:e2e/one/{header:x-api-key=alice}", Duration::from_secs(1));
    assert_eq!(ask().status, 200, "after the wait that was promised");
}
