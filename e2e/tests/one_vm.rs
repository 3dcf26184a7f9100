//! Several filters in one virtual machine: of several listeners, and two in one chain. Each keeps to its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use e2e::{Books, Listener, PATIENT, await_quiet, by_api_key, governed_by, strict, taken};
use fleet::{Config, Fleet, Result, Store, http};
use serde_json::Value;

/// What tells a filter from the others: its domain, its policy and its burst.
fn configuration(number: u64) -> Value {
    let mut configuration =
        strict(&serde_json::json!([by_api_key(&policy(number), "1 per day", burst(number))]));
    configuration["domain"] = domain(number).into();
    configuration
}

fn domain(number: u64) -> String {
    format!("domain-{number}")
}

fn policy(number: u64) -> String {
    format!("policy-{number}")
}

fn burst(number: u64) -> u64 {
    100 + 10 * number
}

fn taken_of(fleet: &Fleet, number: u64) -> u64 {
    let bucket = format!("{}/{{header:x-api-key=everybody}}", policy(number));
    taken(fleet, &domain(number), &bucket, burst(number))
}

fn use_configuration(number: u64, config: &mut Config) -> Result<()> {
    *config.filter_configuration()? = configuration(number);
    Ok(())
}

/// A listener with two filters of ours: number 4, and behind it number 3, which has less room.
fn both(config: &mut Config) -> Result<()> {
    use_configuration(4, config)?;
    let filters = config.http_filters()?;
    let mut second = filters[0].clone();
    second["name"] = "second".into();
    second["typed_config"]["config"]["configuration"]["value"] = configuration(3);
    filters.insert(1, second);
    Ok(())
}

/// How many passed of so many, from as many clients at once; each answer is checked.
fn fire(addr: SocketAddr, requests: u64, check: impl Fn(&http::Answer) + Sync) -> u64 {
    let (next, passed) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < requests {
                    let request = http::get("/").header("x-api-key", "everybody");
                    let answer = request.send(addr).expect("an answer");
                    check(&answer);
                    assert!(matches!(answer.status, 200 | 429), "{answer}");
                    passed.fetch_add(u64::from(answer.status == 200), Ordering::Relaxed);
                }
            });
        }
    });
    passed.into_inner()
}

#[test]
fn filters_in_one_machine_keep_their_limits_counters_and_answers_apart() {
    const REQUESTS: u64 = 300;
    let others = [1, 2].map(|number| Listener::new(move |config| use_configuration(number, config)));
    let two = Listener::new(both);
    let (mut addrs, both_addr) = (others.each_ref().map(Listener::addr).to_vec(), two.addr());
    let fleet = Fleet::builder().concurrency(2).filter_configuration(configuration(0)).store(Store::Redis);
    let fleet = fleet.sidecar_args(PATIENT).adjust(move |config| {
        let first = config.clone();
        for listener in others.iter().chain([&two]) {
            let mut copy = first.clone();
            listener.add_to(&mut copy)?;
            let added = copy.tree()["static_resources"]["listeners"][1].take();
            config.tree()["static_resources"]["listeners"].as_array_mut().expect("a list").push(added);
        }
        Ok(())
    });
    let fleet = fleet.start().expect("a fleet");
    addrs.insert(0, fleet.envoy(0).addr());

    thread::scope(|scope| {
        for (number, addr) in (0..).zip(&addrs) {
            scope.spawn(move || {
                let passed = fire(*addr, REQUESTS, |answer| {
                    assert_eq!(governed_by(answer), [policy(number)]);
                    assert_eq!(answer.header("x-ratelimit-limit"), Some(burst(number).to_string().as_str()));
                });
                assert_eq!(passed, burst(number), "filter {number}");
            });
        }
        scope.spawn(|| {
            let passed = fire(both_addr, REQUESTS, |answer| {
                let by = governed_by(answer);
                assert!(by == [policy(3)] || by == [policy(4)], "{answer}");
            });
            assert_eq!(passed, burst(3), "the second of two has less room");
        });
    });

    await_quiet(&fleet);
    let count = |number: u64, word: &str| {
        fleet.envoy(0).stat(&format!("wasmcustom.sluice.policy.{}.{word}", policy(number))).expect("a stat")
    };
    for number in 0..=2 {
        assert_eq!(
            (count(number, "allowed"), count(number, "denied")),
            (burst(number), REQUESTS - burst(number))
        );
    }
    assert_eq!((count(4, "allowed"), count(4, "denied")), (burst(4), REQUESTS - burst(4)));
    assert_eq!(
        (count(3, "allowed"), count(3, "denied")),
        (burst(3), burst(4) - burst(3)),
        "what the first let pass"
    );
    for number in 0..=4 {
        assert_eq!(taken_of(&fleet, number), burst(number));
    }
    assert_eq!(fleet.upstream().requests(), (0..=3).map(burst).sum::<u64>());
    let (books, total) = (Books::of(&fleet), 4 * REQUESTS + burst(4));
    assert_eq!((books.answered(), books.failed, books.abandoned), (total, 0, 0), "{books:?}");
}
