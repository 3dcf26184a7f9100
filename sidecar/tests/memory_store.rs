//! The memory store decides what a map without bounds decides, and stays within its own.

mod support;

use std::collections::HashSet;

use bucket::Limit;
use contract::{FailureReason, Verdict};
use proptest::prelude::*;
use sluice::{
    batch::{Ask, Take},
    store::memory::Memory,
};
use support::model::Model;

const NOW_US: u64 = 1_763_650_000_000_000;

fn take(key: u64, (tokens, period_us, burst): (u64, u64, u64), cost_tokens: u64) -> Take {
    let limit = Limit::new(tokens, period_us, burst).expect("valid");
    Take { buckets: vec![Ask { bucket_key: key.to_string(), limit, cost_tokens }], refund: false }
}

fn takes() -> impl Strategy<Value = Take> {
    let limits =
        prop::sample::select(vec![(60, 60_000_000, 60), (3, 1_000, 10), (1, 1_000_000, 2), (7, 10_007, 5)]);
    let ask =
        (0..40_u64, limits, 0..8_u64).prop_map(|(key, limit, cost)| take(key, limit, cost).buckets.remove(0));
    (prop::collection::vec(ask, 1..4), prop::bool::weighted(0.2)).prop_map(|(mut buckets, refund)| {
        let mut seen = HashSet::new();
        buckets.retain(|ask| seen.insert(ask.bucket_key.clone()));
        Take { buckets, refund }
    })
}

proptest! {
    #[test]
    fn decisions_are_those_of_a_map_without_bounds(
        steps in prop::collection::vec((takes(), prop_oneof![0..5_u64, 0..5_000_u64, 0..5_000_000_u64]), 1..200),
    ) {
        let (mut memory, mut model, mut now_us) = (Memory::new(1_000), Model::default(), NOW_US);
        for (take, wait_us) in steps {
            now_us += wait_us;
            model.forget_full(now_us);
            prop_assert_eq!(memory.take(&take, now_us), model.take(&take, now_us));
        }
    }

    /// Clients that come once each, one every `interval_us`: what is kept is within three times what is not full.
    #[test]
    fn what_is_kept_is_bounded_by_the_active_clients(interval_us in 100..100_000_u64) {
        let mut memory = Memory::new(1_000_000);
        // One token of ten a second: a bucket is full again after 100 ms.
        let active = 100_000 / interval_us + 1;
        for client in 0..3_000 {
            let _ = memory.take(&take(client, (10, 1_000_000, 10), 1), NOW_US + client * interval_us);
            let kept = memory.bucket_count() as u64;
            prop_assert!(kept <= 3 * active + 8, "{} buckets kept for {} active clients", kept, active);
        }
    }

    #[test]
    fn never_more_buckets_than_allowed(steps in prop::collection::vec((takes(), 0..2_000_u64), 1..300)) {
        let (mut memory, mut model, mut now_us) = (Memory::new(8), Model::default(), NOW_US);
        for (take, wait_us) in steps {
            now_us += wait_us;
            model.forget_full(now_us);
            let verdict = memory.take(&take, now_us);
            prop_assert!(memory.bucket_count() <= 8);
            if verdict != Verdict::Failed(FailureReason::StoreFull) {
                prop_assert_eq!(verdict, model.take(&take, now_us), "a take that failed took nothing");
            }
        }
    }
}

#[test]
fn a_full_store_fails_new_debts_and_keeps_old_ones() {
    let mut memory = Memory::new(2);
    let slow = (1, 1_000_000, 2);
    for client in 0..2 {
        assert!(matches!(memory.take(&take(client, slow, 2), NOW_US), Verdict::Allowed(_)));
    }
    assert_eq!(memory.take(&take(2, slow, 1), NOW_US), Verdict::Failed(FailureReason::StoreFull));
    assert!(matches!(memory.take(&take(2, slow, 0), NOW_US), Verdict::Allowed(_)), "a look needs no place");
    assert!(matches!(memory.take(&take(2, slow, 3), NOW_US), Verdict::Denied(_)), "nor does a denial");
    assert!(
        matches!(memory.take(&take(0, slow, 1), NOW_US), Verdict::Denied(_)),
        "the debt was not forgotten"
    );
    let later_us = NOW_US + 2_000_000;
    assert!(
        matches!(memory.take(&take(2, slow, 1), later_us), Verdict::Allowed(_)),
        "full buckets make room"
    );
}
