//! The time of each part that a request goes through, by criterion.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::{hint::black_box, time::Duration};

use bucket::{Ask, Bucket, Keep, Kind, Level, Limit};
use contract::{BucketVerdict, Outcome, TakeRequest, TakeResponse, Verdict};
use criterion::{Criterion, criterion_group, criterion_main};
use micro::{Get, batch, request, thousands};
use policy::Policies;
use serde_json::json;
use sluice::{
    batch::Batch,
    store::{Answer, memory::Memory},
    telemetry::Telemetry,
};

const NOW_US: u64 = 1_795_176_000_000_000;

/// Takes in a callout: alone, in the midst of growing, full.
const BATCHES: [u64; 3] = [1, 16, 100];

fn deciding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("the bucket: deciding a take");
    let limit = Limit::new(1, 1_000_000, 100_000_000).expect("valid");
    for count in 1..=3 {
        let mut buckets: Vec<Option<Bucket>> = vec![None; count];
        let mut now_us = NOW_US;
        group.bench_function(format!("{count} bucket{}", if count == 1 { "" } else { "s" }), |bencher| {
            bencher.iter(|| {
                now_us += 1;
                let mut asks: Vec<Ask> = Vec::with_capacity(count);
                asks.extend(
                    buckets.iter().map(|kept| Ask::new(Level::count(limit, *kept, now_us), Kind::Take, 1)),
                );
                let allowed = bucket::take_all(&mut asks);
                for (kept, ask) in buckets.iter_mut().zip(&asks) {
                    if let Keep::Bucket(bucket, _) = ask.keep() {
                        *kept = Some(bucket);
                    }
                }
                assert!(black_box(allowed));
            });
        });
    }
    group.finish();
}

fn asking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("the policies: which govern a request, and its key");
    for count in [1, 10, 100] {
        let policies = policies(count);
        let get = Get::new("/governed?page=2");
        assert_eq!(policies.asks(&get).asks.len(), 1);
        group.bench_function(format!("{count} polic{}", if count == 1 { "y" } else { "ies" }), |bencher| {
            bencher.iter(|| black_box(policies.asks(black_box(&get))));
        });
    }
    group.finish();
}

/// Each for a path of its own; the last is the one that governs.
fn policies(count: usize) -> Policies {
    let one = |number: usize| {
        let path = if number == count { "/governed".to_owned() } else { format!("/elsewhere/{number}") };
        json!({
            "name": format!("policy-{number}"),
            "match": {"path": {"exact": path}},
            "key": [{"first_of": [{"header": "x-api-key"}, "client_address"]}],
            "limit": "10 per second",
        })
    };
    let policies: Vec<_> = (1..=count).map(one).collect();
    let config = json!({"sidecar": {"cluster": "sluice"}, "policies": policies});
    Policies::from_bytes(config.to_string().as_bytes()).expect("valid")
}

fn speaking(criterion: &mut Criterion) {
    for takes in BATCHES {
        let case = format!("batch of {takes}");
        let asked = request(0..takes);
        let verdict = BucketVerdict {
            outcome: Outcome::Allowed,
            remaining: 99_999_998,
            retry_after_us: Some(0),
            full_after_us: 1_999_998,
            overridden: None,
        };
        let verdicts = (0..takes).map(|_| Verdict::Allowed(vec![verdict.clone()])).collect();
        let answer = TakeResponse { now_us: NOW_US, verdicts };
        let (asked_text, answer_text) = (to_text(&asked), to_text(&answer));

        let mut group = criterion.benchmark_group("the contract, in the filter: writing a request");
        group.bench_function(&case, |bencher| bencher.iter(|| to_text(black_box(&asked))));
        group.finish();
        let mut group =
            criterion.benchmark_group("the contract, in the sidecar: reading and checking a request");
        group.bench_function(&case, |bencher| {
            bencher.iter(|| {
                let read: TakeRequest<'_> = serde_json::from_slice(black_box(&asked_text)).expect("valid");
                Batch::try_from(&read).expect("valid")
            });
        });
        group.finish();
        let mut group = criterion.benchmark_group("the contract, in the sidecar: writing an answer");
        group.bench_function(&case, |bencher| bencher.iter(|| to_text(black_box(&answer))));
        group.finish();
        let mut group = criterion.benchmark_group("the contract, in the filter: reading an answer");
        group.bench_function(&case, |bencher| {
            bencher.iter(|| serde_json::from_slice::<TakeResponse>(black_box(&answer_text)).expect("valid"));
        });
        group.finish();
    }
}

/// What telling operators costs each request, of a key again and again and of very many.
fn telling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("telling operators: counting a request");
    for takes in BATCHES {
        for keys in [1, 100_000] {
            let telemetry = Telemetry::default();
            let stood = BucketVerdict {
                outcome: Outcome::Allowed,
                remaining: 99_999_998,
                retry_after_us: Some(0),
                full_after_us: 1_999_998,
                overridden: None,
            };
            let verdicts = (0..takes).map(|_| Verdict::Allowed(vec![stood.clone()])).collect();
            let answer = Answer { now_us: NOW_US, verdicts };
            let requests: Vec<TakeRequest<'_>> = (0..(keys / takes).clamp(1, 10_000))
                .map(|number| request((number * takes..(number + 1) * takes).map(|key| key * 611_953 % keys)))
                .collect();
            let mut requests = requests.iter().cycle();
            let case =
                format!("batch of {takes} among {} key{}", thousands(keys), if keys == 1 { "" } else { "s" });
            group.bench_function(case, |bencher| {
                bencher.iter(|| {
                    let request = requests.next().expect("it goes round");
                    telemetry.observe(black_box(request), black_box(&answer), Duration::from_micros(150));
                });
            });
        }
    }
    group.finish();
}

fn to_text(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it can be written")
}

fn keeping(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("the memory store: deciding a batch");
    for takes in BATCHES {
        // A hot key again and again, and then keys among so many that none is in a processor's cache.
        for keys in [1, 1_000, 10_000, 100_000, 1_000_000] {
            let mut memory = filled(keys);
            // As many batches as it takes to meet every key, but no more than fit into memory well.
            let batches: Vec<Batch> = (0..(keys / takes).clamp(1, 10_000))
                .map(|number| scattered(number * takes, takes, keys))
                .collect();
            let mut batches = batches.iter().cycle();
            let case =
                format!("batch of {takes} among {} key{}", thousands(keys), if keys == 1 { "" } else { "s" });
            group.bench_function(case, |bencher| {
                bencher.iter(|| {
                    let batch = batches.next().expect("it goes round");
                    black_box(memory.take(&batch.takes, NOW_US))
                });
            });
        }
    }
    group.finish();
}

/// A store in which so many keys have buckets.
fn filled(keys: u64) -> Memory {
    let mut memory = Memory::new(usize::try_from(keys).expect("few") * 2);
    let all: Vec<u64> = (0..keys).collect();
    for some in all.chunks(1_000) {
        memory.take(&batch(some.iter().copied()).expect("valid").takes, NOW_US);
    }
    assert_eq!(memory.bucket_count() as u64, keys);
    memory
}

/// A batch of keys that are far apart: the numbers from `first`, times one that is prime to all that are used here.
fn scattered(first: u64, takes: u64, keys: u64) -> Batch {
    batch((first..first + takes).map(|number| number * 611_953 % keys)).expect("valid")
}

criterion_group! {
    name = parts;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = deciding, asking, speaking, telling, keeping
}
criterion_main!(parts);
