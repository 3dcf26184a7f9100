//! What becomes of the buckets for which there is no room.

use serde_json::json;

use super::{Memory, START_US, Worker, allowed, ask, decide_of, one, policies};
use crate::local::Table;

#[test]
fn a_full_slot_forgets_what_is_full_and_then_what_is_nearest_to_it() {
    let memory = Memory::default();
    let worker = Worker::new(&memory, one("1 per second", 4, 100), 16);
    for _ in 0..4 {
        assert!(worker.passes("greedy"));
    }
    let mut forgotten = 0;
    for key in 0..100 {
        forgotten += worker.decide(&format!("guest {key}"), 1).forgotten;
    }
    assert_eq!(forgotten, 100 - 15);
    assert!(!worker.passes("greedy"), "who owes most is remembered longest");
    worker.now_us.set(START_US + 1_000_000);
    assert_eq!(worker.decide("late", 1).forgotten, 0, "those that are full make room first");
}

#[test]
fn a_million_keys_fit_into_bounded_memory() {
    let memory = Memory::default();
    let worker = Worker::new(&memory, one("1 per day", 10, 100), 1_024);
    let mut most = 0;
    for key in 0..1_000_000 {
        assert!(worker.passes(&format!("{key:020}")));
        if key % 100_000 == 0 {
            most = most.max(memory.bytes());
        }
    }
    let bytes = memory.bytes().max(most);
    assert!(bytes <= 1_024 * 64 + 64 * 64, "{bytes} bytes");
}

/// One bucket for all, and one for each client, which is full much later.
fn one_for_all_and_one_each() -> policy::Policies {
    policies(json!([
        {"name": "global", "key": [], "limit": "100 per minute", "burst": 100},
        {"name": "client", "key": [{"header": "a"}], "limit": "1000 per day", "burst": 1000},
    ]))
}

/// In ten seconds of a thousand requests each.
const REQUESTS: u64 = 10_000;
const PROMISED: u64 = 100 + 100 * 10 / 60;

#[test]
fn keys_of_one_limit_without_end_push_out_no_bucket_of_another() {
    let (memory, policies, table) =
        (Memory::default(), one_for_all_and_one_each(), Table::new("default", 64));
    let (mut passed, mut forgotten) = (0, 0);
    for number in 0..REQUESTS {
        let decide = |asks: &[policy::Ask]| {
            decide_of(&table, &memory, &policies, asks, START_US + number * 1_000).unwrap()
        };
        // To a path that only `client` governs, and to one that only `global` does.
        forgotten += decide(&[ask(1, &format!("key {number}"), 1)]).forgotten;
        passed += u64::from(allowed(&decide(&[ask(0, "", 1)])));
    }
    assert_eq!(passed, PROMISED);
    assert!(forgotten > 9_000, "{forgotten} others");
}

#[test]
fn what_a_request_takes_from_pushes_out_nothing_else_that_it_takes_from() {
    // All are in one slot.
    let (memory, policies, table) =
        (Memory::default(), one_for_all_and_one_each(), Table::new("default", 16));
    let mut passed = 0;
    for number in 0..REQUESTS {
        let asks = [ask(0, "", 1), ask(1, &format!("key {number}"), 1)];
        let decision = decide_of(&table, &memory, &policies, &asks, START_US + number * 1_000).unwrap();
        passed += u64::from(allowed(&decision));
    }
    assert_eq!(passed, PROMISED);
}

#[test]
fn a_request_that_more_buckets_govern_than_a_slot_holds_takes_from_all() {
    let policy =
        |number: u64| json!({"name": format!("p{number}"), "key": [], "limit": "1 per day", "burst": 5});
    let policies = policies((0..20).map(policy).collect());
    let (memory, table) = (Memory::default(), Table::new("default", 16));
    let asks: Vec<_> = (0..20).map(|policy| ask(policy, "", 1)).collect();
    let decide = || decide_of(&table, &memory, &policies, &asks, START_US).unwrap();
    assert_eq!((0..30).filter(|_| allowed(&decide())).count(), 5);
    assert!(decide().verdicts.iter().flatten().all(|bucket| bucket.remaining == 0), "none was forgotten");
}

#[test]
fn what_was_counted_in_the_future_goes_first() {
    let memory = Memory::default();
    let worker = Worker::new(&memory, one("1 per second", 4, 100), 16);
    worker.now_us.set(START_US + 3_600_000_000);
    for _ in 0..4 {
        assert!(worker.passes("before the clock went back"));
    }
    worker.now_us.set(START_US);
    for key in 0..15 {
        worker.decide(&format!("guest {key}"), 1);
    }
    assert_eq!(worker.decide("late", 1).forgotten, 1);
    assert!(worker.passes("before the clock went back"), "it begins anew");
}
