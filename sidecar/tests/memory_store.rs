//! The memory store decides what a map without bounds decides, and stays within its own.

mod support;

use std::collections::HashSet;

use bucket::{Kind, Lease, Limit, Terms};
use contract::{FailureReason, Outcome, Verdict};
use proptest::prelude::*;
use sluice::{
    batch::{Ask, Take},
    store::memory::Memory,
};
use support::model::Model;

const NOW_US: u64 = 1_763_650_000_000_000;

fn take(key: u64, (tokens, period_us, burst): (u64, u64, u64), cost_tokens: u64) -> Take {
    let limit = Limit::new(tokens, period_us, burst).expect("valid");
    let buckets = vec![Ask { bucket_key: key.to_string(), limit, cost_tokens }];
    Take { buckets, kind: Kind::Take, follows: false }
}

/// What becomes of a take that follows none.
fn decide(memory: &mut Memory, take: Take, now_us: u64) -> Verdict {
    memory.take(&[take], now_us).remove(0)
}

fn takes() -> impl Strategy<Value = Take> {
    let limits =
        prop::sample::select(vec![(60, 60_000_000, 60), (3, 1_000, 10), (1, 1_000_000, 2), (7, 10_007, 5)]);
    let ask =
        (0..40_u64, limits, 0..8_u64).prop_map(|(key, limit, cost)| take(key, limit, cost).buckets.remove(0));
    let terms = prop::sample::select(vec![(1_000, 100), (1_000, 30), (1_000_000, 60), (60_000_000, 100)]);
    let lease = terms.prop_map(|(ttl_us, share_percent)| Kind::Lease(Terms { ttl_us, share_percent }));
    // As if leased in the first seconds.
    let ended = (1..8_u64, 1..5_u64).prop_map(|(tokens, seconds)| {
        Kind::Return(Lease { tokens, lapses_at_us: NOW_US + seconds * 1_000_000 })
    });
    let kind = prop_oneof![
        6 => Just(Kind::Take), 2 => Just(Kind::Refund), 2 => Just(Kind::Charge), 4 => lease, 2 => ended
    ];
    let follows = prop::bool::weighted(0.4);
    (prop::collection::vec(ask, 1..4), kind, follows).prop_map(|(mut buckets, kind, follows)| {
        let mut seen = HashSet::new();
        buckets.retain(|ask| seen.insert(ask.bucket_key.clone()));
        Take { buckets, kind, follows }
    })
}

/// A few takes that are decided at once, of which the first follows none.
fn batches() -> impl Strategy<Value = Vec<Take>> {
    prop::collection::vec(takes(), 1..5).prop_map(|mut takes| {
        takes[0].follows = false;
        takes
    })
}

proptest! {
    #[test]
    fn decisions_are_those_of_a_map_without_bounds(
        steps in prop::collection::vec((batches(), prop_oneof![0..5_u64, 0..5_000_u64, 0..5_000_000_u64]), 1..100),
    ) {
        let (mut memory, mut model, mut now_us) = (Memory::new(1_000), Model::default(), NOW_US);
        for (takes, wait_us) in steps {
            now_us += wait_us;
            model.forget_full(now_us);
            prop_assert_eq!(memory.take(&takes, now_us), model.take(&takes.iter().collect::<Vec<_>>(), now_us));
        }
    }

    /// Clients that come once each, one every `interval_us`: what is kept is within three times what is not full.
    #[test]
    fn what_is_kept_is_bounded_by_the_active_clients(interval_us in 100..100_000_u64) {
        let mut memory = Memory::new(1_000_000);
        // One token of ten a second: a bucket is full again after 100 ms.
        let active = 100_000 / interval_us + 1;
        for client in 0..3_000 {
            let _ = decide(&mut memory, take(client, (10, 1_000_000, 10), 1), NOW_US + client * interval_us);
            let kept = memory.bucket_count() as u64;
            prop_assert!(kept <= 3 * active + 8, "{} buckets kept for {} active clients", kept, active);
        }
    }

    #[test]
    fn never_more_buckets_than_allowed(steps in prop::collection::vec((batches(), 0..2_000_u64), 1..200)) {
        const FAILED: Verdict = Verdict::Failed(FailureReason::StoreFull);
        let (mut memory, mut model, mut now_us) = (Memory::new(8), Model::default(), NOW_US);
        for (takes, wait_us) in steps {
            now_us += wait_us;
            model.forget_full(now_us);
            let verdicts = memory.take(&takes, now_us);
            prop_assert!(memory.bucket_count() <= 8);
            let mut led = &FAILED;
            for (take, verdict) in takes.iter().zip(&verdicts) {
                if !take.follows {
                    led = verdict;
                }
                prop_assert!(!take.follows || *led != FAILED || *verdict == FAILED, "one that follows a failure fails");
            }
            let decided = takes.iter().zip(&verdicts).filter(|(_, verdict)| **verdict != FAILED);
            let (takes, verdicts): (Vec<&Take>, Vec<Verdict>) = decided.map(|(take, verdict)| (take, verdict.clone())).unzip();
            prop_assert_eq!(verdicts, model.take(&takes, now_us), "a take that failed took nothing");
        }
    }
}

#[test]
fn a_full_store_fails_new_debts_and_keeps_old_ones() {
    let mut memory = Memory::new(2);
    let slow = (1, 1_000_000, 2);
    let mut ask =
        |key, cost, kind, now_us| decide(&mut memory, Take { kind, ..take(key, slow, cost) }, now_us);
    for client in 0..2 {
        assert!(matches!(ask(client, 2, Kind::Take, NOW_US), Verdict::Allowed(_)));
    }
    for kind in [Kind::Take, Kind::Charge] {
        assert_eq!(ask(2, 1, kind, NOW_US), Verdict::Failed(FailureReason::StoreFull));
    }
    assert!(matches!(ask(2, 0, Kind::Take, NOW_US), Verdict::Allowed(_)), "a look needs no place");
    assert!(matches!(ask(2, 3, Kind::Take, NOW_US), Verdict::Denied(_)), "nor does a denial");
    assert!(matches!(ask(2, 3, Kind::Refund, NOW_US), Verdict::Allowed(_)), "nor what is full");
    assert!(matches!(ask(0, 1, Kind::Take, NOW_US), Verdict::Denied(_)), "the debt was not forgotten");
    let later_us = NOW_US + 2_000_000;
    assert!(matches!(ask(2, 1, Kind::Take, later_us), Verdict::Allowed(_)), "full buckets make room");
}

#[test]
fn a_bucket_in_debt_is_kept_until_it_is_paid() {
    let mut memory = Memory::new(2);
    // A token a second, two at once.
    let slow = (1, 1_000_000, 2);
    let mut ask =
        |key, cost, kind, now_us| match decide(&mut memory, Take { kind, ..take(key, slow, cost) }, now_us) {
            Verdict::Allowed(buckets) | Verdict::Denied(buckets) => buckets[0].clone(),
            other => panic!("{other:?}"),
        };
    let charged = ask(0, 10, Kind::Charge, NOW_US);
    assert_eq!((charged.outcome, charged.remaining, charged.retry_after_us), (Outcome::Allowed, 0, Some(0)));
    assert_eq!(charged.full_after_us, 10_000_000);
    // Eight tokens are owed, and one is to be taken.
    assert_eq!(ask(0, 1, Kind::Take, NOW_US).retry_after_us, Some(9_000_000));
    // Others come by the cursor, and look for what is full.
    for other in 1..50_u64 {
        let _ = ask(1, 1, Kind::Take, NOW_US + other * 180_000);
    }
    assert_eq!(ask(0, 1, Kind::Take, NOW_US + 8_999_999).retry_after_us, Some(1));
    assert_eq!(ask(0, 1, Kind::Take, NOW_US + 9_000_000).outcome, Outcome::Allowed);
}

#[test]
fn a_take_that_follows_shares_the_fate_of_the_one_before_it() {
    let mut memory = Memory::new(2);
    let slow = (1, 1_000_000, 2);
    let follow = |key, cost| Take { follows: true, ..take(key, slow, cost) };
    let stands = |verdict: &Verdict| match verdict {
        Verdict::Allowed(buckets) => (true, buckets[0].remaining),
        Verdict::Denied(buckets) => (false, buckets[0].remaining),
        Verdict::Leased { .. } | Verdict::Failed(_) => panic!("{verdict:?}"),
    };
    let verdicts = memory.take(&[take(0, slow, 2), follow(1, 1)], NOW_US);
    assert_eq!(
        verdicts.iter().map(stands).collect::<Vec<_>>(),
        [(true, 0), (true, 1)],
        "made with the one it follows"
    );
    let verdicts = memory.take(&[take(0, slow, 1), follow(1, 1), follow(1, 2), follow(1, 1)], NOW_US);
    let expected = [(false, 0), (true, 1), (false, 1), (true, 1)];
    assert_eq!(verdicts.iter().map(stands).collect::<Vec<_>>(), expected, "looked, and took nothing");
    // Both places are held, so nobody else's take can be made.
    let failed = Verdict::Failed(FailureReason::StoreFull);
    let verdicts = memory.take(&[take(2, slow, 1), follow(1, 1), follow(1, 0)], NOW_US);
    assert_eq!(verdicts, [failed.clone(), failed.clone(), failed]);
    let verdicts = memory.take(&[take(1, slow, 0), follow(2, 1), follow(1, 1)], NOW_US);
    assert!(matches!(verdicts[1], Verdict::Failed(_)), "one that fails by itself");
    assert_eq!((stands(&verdicts[0]), stands(&verdicts[2])), ((true, 1), (true, 0)), "fails nobody else");
}

/// What a lease was granted, and what is left in its bucket.
fn leased(verdict: &Verdict) -> (u64, u64, u64) {
    let Verdict::Leased { tokens, lapses_at_us, buckets } = verdict else { panic!("{verdict:?}") };
    (*tokens, *lapses_at_us, buckets[0].remaining)
}

#[test]
fn a_leased_bucket_is_kept_until_the_lease_has_lapsed() {
    let mut memory = Memory::new(2);
    // A thousand tokens a second, ten at once: what is not leased is full again after 10 ms.
    let quick = (1_000, 1_000_000, 10);
    let terms = Kind::Lease(Terms { ttl_us: 1_000_000, share_percent: 50 });
    let lease = |key, now_us, memory: &mut Memory| {
        leased(&decide(memory, Take { kind: terms, ..take(key, quick, 9) }, now_us))
    };
    let lapses_at_us = NOW_US + 2_000_000;
    assert_eq!(lease(0, NOW_US, &mut memory), (5, lapses_at_us, 5));
    assert_eq!(lease(1, NOW_US, &mut memory), (5, lapses_at_us, 5));
    // Others come by the cursor, and look for what is full: they find no place, since nothing is.
    for wait_us in [10_000, 1_000_000, 1_999_999] {
        let failed = decide(&mut memory, take(2, quick, 1), NOW_US + wait_us);
        assert_eq!(failed, Verdict::Failed(FailureReason::StoreFull));
        let failed = decide(&mut memory, Take { kind: terms, ..take(2, quick, 1) }, NOW_US + wait_us);
        assert_eq!(failed, Verdict::Failed(FailureReason::StoreFull), "a lease needs a place too");
        assert_eq!(lease(0, NOW_US + wait_us, &mut memory).0, 0, "the share is out");
    }
    let Verdict::Allowed(buckets) = decide(&mut memory, take(0, quick, 0), lapses_at_us) else { panic!() };
    assert_eq!((buckets[0].remaining, buckets[0].full_after_us), (5, 5_000));
    let ended = Kind::Return(Lease { tokens: 5, lapses_at_us });
    let Verdict::Allowed(buckets) =
        decide(&mut memory, Take { kind: ended, ..take(0, quick, 5) }, lapses_at_us + 1_000)
    else {
        panic!("a return is always allowed")
    };
    assert_eq!(buckets[0].remaining, 6, "it had lapsed: only the time has filled it");
}

#[test]
fn a_lease_that_follows_a_denied_take_only_looks() {
    let mut memory = Memory::new(10);
    let slow = (1, 1_000_000, 10);
    let terms = Kind::Lease(Terms { ttl_us: 1_000_000, share_percent: 100 });
    let follow = |key, cost, kind| Take { kind, follows: true, ..take(key, slow, cost) };
    let verdicts = memory.take(&[take(0, slow, 1), follow(0, 4, terms)], NOW_US);
    let (tokens, lapses_at_us, remaining) = leased(&verdicts[1]);
    assert_eq!((tokens, remaining), (4, 5));
    let ended = Kind::Return(Lease { tokens: 4, lapses_at_us });
    let verdicts = memory.take(&[take(0, slow, 6), follow(0, 4, terms), follow(0, 3, ended)], NOW_US);
    assert!(matches!(verdicts[0], Verdict::Denied(_)));
    assert_eq!(leased(&verdicts[1]), (0, lapses_at_us, 5));
    let remaining = |verdict: &Verdict| match verdict {
        Verdict::Allowed(buckets) => buckets[0].remaining,
        other => panic!("{other:?}"),
    };
    assert_eq!(remaining(&verdicts[2]), 5, "and so does a return");
    // A lease is no denial, even of nothing: what follows it is made.
    let nothing = Take { kind: terms, ..take(1, slow, 3) };
    let verdicts = memory.take(&[take(1, slow, 10), nothing, follow(0, 3, ended)], NOW_US);
    assert_eq!((leased(&verdicts[1]).0, remaining(&verdicts[2])), (0, 8));
}
