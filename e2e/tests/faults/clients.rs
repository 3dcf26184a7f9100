//! Clients that leave, and those that bring a new key each time.

use std::thread;
use std::time::Duration;

use e2e::Caller;
use fleet::traffic::{Caller as Sender, Outcome, Traffic};
use fleet::{Fleet, http, rss_bytes};
use serde_json::json;

use crate::survive::{PATIENT_TIMEOUT, Row, Undecided, addrs, configuration, patient, survive};

#[test]
fn many_clients_hang_up() {
    let fleet = patient().start().expect("a fleet");
    let name = "many_clients_hang_up";
    let row = Row { name, allowed_over: 0, undecided: Undecided::None };
    survive(&row, &addrs(&fleet), |_| {
        thread::scope(|scope| {
            for envoy in fleet.envoys() {
                scope.spawn(|| {
                    for number in 0..500 {
                        // They have the keys of those who stay: what is taken for them is missing to the others.
                        let key = format!("caller-{}", number % 8);
                        let sent = http::get("/").header("x-api-key", key).send_only(envoy.addr());
                        drop(sent.expect("sent"));
                    }
                });
                scope.spawn(|| {
                    let headers = [("x-api-key", "caller-0")];
                    for _ in 0..20 {
                        // Of one connection Envoy lets no more than 500 streams be reset: it takes that for an attack.
                        let connection = Caller::http2(envoy.addr());
                        let waiting: Vec<_> = (0..50).map(|_| connection.get("/", &headers)).collect();
                        waiting.into_iter().for_each(e2e::Waiting::hang_up);
                    }
                });
            }
        });
    });
}

/// Who brings a new key with each request is denied nothing. What is kept of it is bounded all the same: by the time
/// until its buckets are full again in Redis, and by their number in what filters and sidecars remember.
#[test]
fn an_attacker_brings_a_new_key_each_time() {
    const KEYS: usize = 40_000;
    const GROWTH_BYTES: u64 = 12 << 20;
    let mut configuration = configuration(PATIENT_TIMEOUT);
    configuration["policies"][0]["limit"] = json!("1 per 2s");
    configuration["policies"][0]["burst"] = json!(1);
    let fleet = patient().envoys(1).sidecars(1).filter_configuration(configuration).start().expect("a fleet");
    // Each key comes twice in a row, so that it is denied once, and remembered.
    let sender = |number: usize| Sender::new("/", "x-api-key", &format!("attacker-{}", number / 2));
    let senders: Vec<Sender> = (0..2 * KEYS).map(sender).collect();
    let traffic = Traffic::start(&addrs(&fleet), &senders, 16, Duration::ZERO);
    let patience = Duration::from_secs(120);
    let half = senders.len() as u64 / 2;
    traffic.await_answers(half, patience).expect("half of them");
    let halfway = held(&fleet);
    traffic.await_answers(half, patience).expect("the others");
    let end = held(&fleet);
    let records = traffic.stop();
    let longest_us = records.latencies_us(|_| true).last().copied().unwrap_or_default();
    println!(
        "FAULT name=an_attacker_brings_a_new_key_each_time answered={} failed=0 max_latency_ms={} recovery_ms=0 \
         admitted_over=0 allowed_over=0",
        2 * KEYS,
        longest_us.div_ceil(1_000),
    );
    for ((name, before), (_, after)) in halfway.iter().zip(&end) {
        println!("MEMORY process={name} halfway_kib={} end_kib={}", before >> 10, after >> 10);
    }
    for ((name, before), (_, after)) in halfway.iter().zip(&end) {
        assert!(*after < before + GROWTH_BYTES, "{name} grew from {before} to {after} bytes");
    }
    assert_eq!(records.count(|outcome| !outcome.is_decided()), 0, "every request is decided");
    let denied = records.count(|outcome| outcome == Outcome::Denied);
    assert!(denied > KEYS / 4, "most were denied once: {denied}");
    let allowed = records.count(|outcome| outcome == Outcome::Allowed);
    assert!(allowed >= KEYS, "each new key has its token: {allowed} were allowed");
}

/// What each process holds.
fn held(fleet: &Fleet) -> Vec<(&'static str, u64)> {
    let of = |process: &fleet::Process| rss_bytes(process.pid()).expect("it runs");
    vec![
        ("envoy", of(fleet.envoy(0).process())),
        ("sidecar", of(fleet.sidecar(0).process())),
        ("redis", of(fleet.redis().process())),
    ]
}
