//! The table under workers that get in each other's way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic: that is how it fails"
)]

mod room;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bucket::Limit;
use contract::{BucketVerdict, Outcome};
use policy::{Ask, Policies};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Decision, Question, Shared, Table, Unshared};

const START_US: u64 = 1_700_000_000_000_000;

/// What Envoy shares among its workers, by Envoy's rules: a version that does not matter where there is no value yet.
#[derive(Default)]
struct Memory(Mutex<Written>);

#[derive(Default)]
struct Written {
    values: HashMap<String, (Vec<u8>, u32)>,
    times: u32,
}

impl Shared for Memory {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, Unshared> {
        Ok(self.0.lock().unwrap().values.get(name).cloned())
    }

    fn swap(&self, name: &str, value: &[u8], version: u32) -> Result<bool, Unshared> {
        let mut all = self.0.lock().unwrap();
        if version != 0 && all.values.get(name).is_some_and(|(_, current)| *current != version) {
            return Ok(false);
        }
        all.times += 1;
        let version = all.times;
        all.values.insert(name.to_owned(), (value.to_vec(), version));
        Ok(true)
    }
}

impl Memory {
    fn bytes(&self) -> usize {
        self.0.lock().unwrap().values.iter().map(|(name, (value, _))| name.len() + value.len()).sum()
    }
}

/// The same, where others often have their way between a look and the next write.
struct Contended<'a>(&'a Memory);

impl Shared for Contended<'_> {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, Unshared> {
        let value = self.0.get(name);
        thread::yield_now();
        value
    }

    fn swap(&self, name: &str, value: &[u8], version: u32) -> Result<bool, Unshared> {
        self.0.swap(name, value, version)
    }
}

/// The same, where another worker has its way between a look and the next write.
struct Meddled<'a> {
    memory: &'a Memory,
    meddle: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl Shared for Meddled<'_> {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, Unshared> {
        self.memory.get(name)
    }

    fn swap(&self, name: &str, value: &[u8], version: u32) -> Result<bool, Unshared> {
        let meddle = self.meddle.borrow_mut().take();
        if let Some(meddle) = meddle {
            meddle();
        }
        self.memory.swap(name, value, version)
    }
}

fn policies(list: Value) -> Policies {
    let config = json!({"sidecar": {"cluster": "sluice"}, "on_error": "local", "policies": list});
    Policies::from_bytes(config.to_string().as_bytes()).expect("valid")
}

fn one(limit: &str, burst: u64, share_percent: u64) -> Policies {
    let local = json!({"share_percent": share_percent});
    policies(
        json!([{"name": "all", "key": [{"header": "a"}], "limit": limit, "burst": burst, "local": local}]),
    )
}

fn ask(policy: usize, key: &str, cost_tokens: u64) -> Ask {
    Ask { policy, key: key.to_owned(), cost_tokens, shadow: false }
}

fn decide_of(
    table: &Table,
    shared: &impl Shared,
    policies: &Policies,
    asks: &[Ask],
    now_us: u64,
) -> Result<Decision, Unshared> {
    let questions: Vec<Question<'_>> = asks.iter().map(|ask| Question::new(policies, ask).unwrap()).collect();
    table.decide(shared, &questions, &|| now_us)
}

fn allowed(decision: &Decision) -> bool {
    decision.verdicts.iter().flatten().all(|bucket| bucket.outcome == Outcome::Allowed)
}

/// A worker with one policy, and the clock.
struct Worker<'a> {
    memory: &'a Memory,
    table: Table,
    policies: Policies,
    now_us: Cell<u64>,
}

impl<'a> Worker<'a> {
    fn new(memory: &'a Memory, policies: Policies, buckets: usize) -> Self {
        Self { memory, table: Table::new("default", buckets), policies, now_us: Cell::new(START_US) }
    }

    fn take(&self, key: &str, cost_tokens: u64) -> BucketVerdict {
        self.decide(key, cost_tokens).verdicts[0][0].clone()
    }

    fn decide(&self, key: &str, cost_tokens: u64) -> Decision {
        let ask = ask(0, key, cost_tokens);
        decide_of(&self.table, self.memory, &self.policies, &[ask], self.now_us.get()).unwrap()
    }

    fn passes(&self, key: &str) -> bool {
        self.take(key, 1).outcome == Outcome::Allowed
    }
}

#[test]
fn workers_share_a_bucket_and_others_have_their_own() {
    let memory = Memory::default();
    let [one, other] = [(); 2].map(|()| Worker::new(&memory, one("1 per day", 4, 100), 16));
    assert_eq!([&one, &other, &one, &other].map(|worker| worker.take("alice", 1).remaining), [3, 2, 1, 0]);
    assert!(!one.passes("alice") && !other.passes("alice"));
    // All are in one slot.
    assert_eq!(["", "alic", "alice\0", "bob"].map(|key| one.take(key, 1).remaining), [3; 4]);
}

#[test]
fn a_share_is_what_one_envoy_allows() {
    let memory = Memory::default();
    let worker = Worker::new(&memory, one("10 per second", 10, 34), 16);
    assert_eq!((0..9).filter(|_| worker.passes("a")).count(), 3);
    let denied = worker.take("a", 1);
    assert_eq!(denied.retry_after_us, Some(294_118), "a token in 1/3.4 of a second");
    worker.now_us.set(START_US + 294_117);
    assert!(!worker.passes("a"));
    worker.now_us.set(START_US + 294_118);
    assert!(worker.passes("a"));
}

#[test]
fn what_costs_more_than_a_share_holds_takes_all_of_a_full_bucket_and_is_paid_for() {
    let memory = Memory::default();
    let worker = Worker::new(&memory, one("10 per second", 10, 20), 16);
    // The bucket holds 2, that of all 10.
    let dear = worker.take("a", 8);
    assert_eq!((dear.outcome, dear.remaining, dear.full_after_us), (Outcome::Allowed, 0, 4_000_000));
    let again = worker.take("a", 8);
    assert_eq!((again.outcome, again.retry_after_us), (Outcome::Denied, Some(4_000_000)));
    let never = worker.take("a", 11);
    assert_eq!((never.outcome, never.retry_after_us), (Outcome::NeverFits, None));
}

#[test]
fn several_are_taken_from_or_none() {
    let memory = Memory::default();
    let policy = |name: &str, burst: u64| json!({"name": name, "key": [{"header": name}], "limit": "1 per day", "burst": burst});
    let policies = policies(json!([policy("wide", 9), policy("narrow", 2)]));
    let table = Table::new("default", 1_000);
    let asks = [ask(0, "a", 1), ask(1, "b", 1)];
    let decide = |asks: &[Ask]| decide_of(&table, &memory, &policies, asks, START_US).unwrap();
    assert_eq!((0..5).filter(|_| allowed(&decide(&asks))).count(), 2);
    let denied = decide(&asks);
    assert_eq!([&denied.verdicts[0][0], &denied.verdicts[1][0]].map(|bucket| bucket.remaining), [7, 0]);
    assert_eq!(decide(&asks[..1]).verdicts[0][0].remaining, 6, "nothing was lost to denials");
}

#[test]
fn what_another_worker_takes_meanwhile_is_not_taken_twice_and_the_rest_is_returned() {
    let memory = Memory::default();
    let policy =
        |name: &str| json!({"name": name, "key": [{"header": name}], "limit": "1 per day", "burst": 1});
    let policies = policies(json!([policy("a"), policy("b")]));
    let table = Table::new("default", 1_000);
    let decide = |asks: &[Ask]| decide_of(&table, &memory, &policies, asks, START_US).unwrap();
    // Between the look and the first write, another takes the last token of the second.
    let meddle = || assert!(allowed(&decide(&[ask(1, "k", 1)])));
    let meddled = Meddled { memory: &memory, meddle: RefCell::new(Some(Box::new(meddle))) };
    let asks = [ask(0, "k", 1), ask(1, "k", 1)];
    let lost = decide_of(&table, &meddled, &policies, &asks, START_US).unwrap();
    assert!(!allowed(&lost));
    assert_eq!(lost.verdicts[0][0].remaining, 1, "it was returned");
    assert!(allowed(&decide(&asks[..1])));
}

#[test]
fn a_clock_that_went_back_locks_nobody_out() {
    let memory = Memory::default();
    let worker = Worker::new(&memory, one("1 per second", 1, 100), 16);
    assert!(worker.passes("a"));
    worker.now_us.set(START_US - 3_600_000_000);
    assert!(!worker.passes("a"), "it is as it was");
    worker.now_us.set(START_US - 3_600_000_000 + 1_000_000);
    assert!(worker.passes("a"));
}

#[test]
fn domains_and_sizes_are_tables_of_their_own_and_garbage_is_an_empty_slot() {
    let memory = Memory::default();
    let policies = one("1 per day", 1, 100);
    let asks = [ask(0, "a", 1)];
    for (domain, buckets) in [("a", 16), ("b", 16), ("a", 32)] {
        let table = Table::new(domain, buckets);
        let passes = || allowed(&decide_of(&table, &memory, &policies, &asks, START_US).unwrap());
        assert!(passes() && !passes(), "{domain} {buckets}");
    }
    let names: Vec<String> = memory.0.lock().unwrap().values.keys().cloned().collect();
    for name in names.iter().filter(|name| !name.ends_with("/secret")) {
        memory.swap(name, b"\xff\xff\xffgarbage", 0).unwrap();
    }
    assert!(allowed(&decide_of(&Table::new("a", 16), &memory, &policies, &asks, START_US).unwrap()));
}

#[test]
fn where_nothing_can_be_written_nothing_is_decided() {
    struct Broken;
    impl Shared for Broken {
        fn get(&self, _name: &str) -> Result<Option<(Vec<u8>, u32)>, Unshared> {
            Ok(None)
        }
        fn swap(&self, _name: &str, _value: &[u8], _version: u32) -> Result<bool, Unshared> {
            Err(Unshared)
        }
    }
    let policies = one("1 per day", 1, 100);
    let decided = decide_of(&Table::new("a", 16), &Broken, &policies, &[ask(0, "a", 1)], START_US);
    assert_eq!(decided, Err(Unshared));
}

#[test]
fn threads_take_exactly_what_there_is() {
    const BURST: u64 = 200;
    let memory = Memory::default();
    let policy =
        |name: &str, burst: u64| json!({"name": name, "key": [], "limit": "1 per day", "burst": burst});
    let list = json!([policy("a", BURST), policy("b", BURST + 50)]);
    let passed = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (policies, table) = (policies(list.clone()), Table::new("default", 64));
                for _ in 0..BURST {
                    let asks = [ask(0, "", 1), ask(1, "", 1)];
                    let decided = decide_of(&table, &Contended(&memory), &policies, &asks, START_US);
                    passed.fetch_add(
                        u64::from(decided.is_ok_and(|decision| allowed(&decision))),
                        Ordering::Relaxed,
                    );
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), BURST);
    let (policies, table) = (policies(list.clone()), Table::new("default", 64));
    let other = decide_of(&table, &memory, &policies, &[ask(1, "", 0)], START_US).unwrap();
    assert_eq!(other.verdicts[0][0].remaining, 50, "what was lost to denials was returned");
}

/// A request of a worker at a time, and perhaps one of another that gets in its way.
#[derive(Clone, Debug)]
struct Step {
    later_us: u64,
    asks: Vec<Ask>,
    meddler: Option<Vec<Ask>>,
}

const KEYS: [&str; 3] = ["a", "b", "c"];
const DEAREST: u64 = 6;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = |policy| {
        let cost = prop_oneof![6 => 1..3_u64, 1 => 3..=DEAREST];
        (prop::sample::select(&KEYS[..]), cost).prop_map(move |(key, cost)| ask(policy, key, cost))
    };
    let asks = move || {
        prop_oneof![
            one(0).prop_map(|one| vec![one]),
            one(1).prop_map(|one| vec![one]),
            (one(0), one(1)).prop_map(|(one, other)| vec![one, other]),
        ]
    };
    let later_us = prop_oneof![Just(0), 0..400_000_u64, 0..4_000_000_u64];
    let step = (later_us, asks(), prop::option::of(asks()));
    prop::collection::vec(step.prop_map(|(later_us, asks, meddler)| Step { later_us, asks, meddler }), 1..120)
}

proptest! {
    #[test]
    fn in_every_window_no_more_passes_than_the_share_allows(steps in steps()) {
        let local = json!({"share_percent": 45});
        let policies = policies(json!([
            {"name": "p", "key": [{"header": "a"}], "limit": "10 per second", "local": local},
            {"name": "q", "key": [{"header": "b"}], "limits": [{"limit": "5 per second", "burst": 9}, {"limit": "7 per 3s"}]},
        ]));
        let memory = Memory::default();
        let tables = [(); 2].map(|()| Table::new("default", 32));
        let admitted = RefCell::new(Vec::new());
        let note = |decision: &Decision, asks: Vec<Ask>, at_us: u64| {
            if allowed(decision) {
                admitted.borrow_mut().extend(asks.into_iter().map(|ask| (ask, at_us)));
            }
        };
        let mut now_us = START_US;
        for Step { later_us, asks, meddler } in steps {
            now_us += later_us;
            let meddle = meddler.map(|meddling| -> Box<dyn FnOnce() + '_> {
                let (memory, policies, table, note) = (&memory, &policies, &tables[1], &note);
                Box::new(move || {
                    note(&decide_of(table, memory, policies, &meddling, now_us).unwrap(), meddling, now_us);
                })
            });
            let meddled = Meddled { memory: &memory, meddle: RefCell::new(meddle) };
            note(&decide_of(&tables[0], &meddled, &policies, &asks, now_us).unwrap(), asks, now_us);
        }
        let admitted = admitted.into_inner();
        for (place, policy) in policies.iter().enumerate() {
            for key in KEYS {
                let own = admitted.iter().filter(|(ask, _)| (ask.policy, ask.key.as_str()) == (place, key));
                let own: Vec<(u64, u64)> = own.map(|(ask, at_us)| (*at_us, ask.cost_tokens)).collect();
                for named in policy.local_limits() {
                    assert_no_window_exceeds(named.limit, &own);
                }
            }
        }
    }
}

/// No stretch of admissions, each with its time and its cost, has more than the limit, or than the dearest request where
/// that costs more than a bucket holds.
fn assert_no_window_exceeds(limit: Limit, admitted: &[(u64, u64)]) {
    let room_at_once = limit.burst_tokens().max(DEAREST) * limit.period_us();
    for (first, (from_us, _)) in admitted.iter().enumerate() {
        let mut sum = 0;
        for (at_us, cost) in &admitted[first..] {
            sum += cost * limit.period_us();
            let room = room_at_once + limit.tokens() * (at_us - from_us);
            assert!(sum <= room, "{sum} credits of {room} of {limit:?} from {from_us} to {at_us}");
        }
    }
}
