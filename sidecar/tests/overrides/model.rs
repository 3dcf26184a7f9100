//! How overrides act, held against the model: random batches, decided with a table and without.

use bucket::{Kind, Lease, Limit, Terms};
use contract::{BucketVerdict, Outcome, Overridden, Verdict};
use proptest::prelude::*;
use sluice::{
    batch::{Ask, Batch, Take},
    overrides::{Instead, Override, WrittenLimit, apply::apply, table::Table},
    store::{Answer, memory::Memory},
};

const ROOM: usize = 1_000;
const START_US: u64 = 1_763_650_000_000_000;

/// Few buckets and small numbers, so that they meet.
fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask = |(key, cost_tokens): (u8, u64)| {
        let limit = Limit::new(1, 1_000, 5 + u64::from(key)).expect("valid");
        Ask { bucket_key: format!("sluice:1:d/p/{{{key}}}"), limit, cost_tokens }
    };
    prop::collection::vec((0..4_u8, 0..9_u64).prop_map(ask), 1..4).prop_map(|mut asks| {
        asks.sort_by(|one, other| one.bucket_key.cmp(&other.bucket_key));
        asks.dedup_by(|one, other| one.bucket_key == other.bucket_key);
        asks
    })
}

fn takes() -> impl Strategy<Value = Vec<Take>> {
    let kind = prop_oneof![
        6 => Just(Kind::Take),
        1 => Just(Kind::Refund),
        1 => Just(Kind::Charge),
        1 => Just(Kind::Lease(Terms { ttl_us: 5_000, share_percent: 60 })),
        1 => (1..4_u64).prop_map(|tokens| Kind::Return(Lease { tokens, lapses_at_us: START_US + 10_000 })),
    ];
    let take = (asks(), kind, any::<bool>()).prop_map(|(buckets, kind, follows)| {
        let mut take = Take { buckets, kind, follows };
        // As what is asked is checked to be.
        for ask in &mut take.buckets {
            match take.kind {
                Kind::Lease(_) => ask.cost_tokens = ask.cost_tokens.max(1),
                Kind::Return(lease) => ask.cost_tokens = ask.cost_tokens.min(lease.tokens),
                _ => {}
            }
        }
        take
    });
    prop::collection::vec(take, 1..8).prop_map(|mut takes| {
        takes[0].follows = false;
        takes
    })
}

fn steps() -> impl Strategy<Value = Vec<(Vec<Take>, u64)>> {
    prop::collection::vec((takes(), 0..4_000_u64), 1..12)
}

fn table(keys: &[u8], instead: Instead, expires_at_us: Option<u64>) -> Table {
    let of = |key: &u8| {
        let with = Override { instead, reason: None, created_at_us: 1, expires_at_us };
        (format!("sluice:1:d/p/{{{key}}}"), with)
    };
    keys.iter().map(of).collect()
}

/// Decides as a sidecar does that has this table.
fn decide(memory: &mut Memory, table: &Table, takes: &[Take], now_us: u64) -> Vec<Verdict> {
    let mut batch = Batch { takes: takes.to_vec() };
    let changed = apply(table, &mut batch, now_us);
    let mut answer = Answer { now_us, verdicts: memory.take(&batch.takes, now_us) };
    changed.tell(&mut answer);
    answer.verdicts
}

fn buckets(verdict: &Verdict) -> &[BucketVerdict] {
    match verdict {
        Verdict::Allowed(buckets) | Verdict::Denied(buckets) | Verdict::Leased { buckets, .. } => buckets,
        Verdict::Failed(_) => &[],
    }
}

fn is_of(take: &Take, keys: &[u8]) -> bool {
    take.buckets.iter().any(|ask| is_overridden(ask, keys))
}

fn is_overridden(ask: &Ask, keys: &[u8]) -> bool {
    keys.iter().any(|key| ask.bucket_key.ends_with(&format!("{{{key}}}")))
}

/// All that is asked, under the limits that are in the place of others.
fn held_to(takes: &[Take], keys: &[u8], limit: Limit) -> Vec<Take> {
    let mut takes = takes.to_vec();
    for take in &mut takes {
        let leases_nothing = matches!(take.kind, Kind::Lease(_)) && is_of(take, keys);
        for ask in &mut take.buckets {
            if is_overridden(ask, keys) {
                ask.limit = limit;
            }
            if leases_nothing {
                ask.cost_tokens = 0;
            }
        }
        if leases_nothing {
            take.kind = Kind::Take;
        }
    }
    takes
}

proptest! {
    #[test]
    fn under_another_limit_all_is_as_if_it_had_been_asked_with_that(steps in steps(), tokens in 1..5_u64, burst in 1..12_u64) {
        let written = WrittenLimit { tokens, period_us: 1_500, burst };
        let limit = written.limit().expect("valid");
        let keys = [1, 3];
        let table = table(&keys, Instead::Limit(limit, written), None);
        let (mut memory, mut model, mut now_us) = (Memory::new(ROOM), Memory::new(ROOM), START_US);
        for (takes, pause_us) in steps {
            now_us += pause_us;
            let told = decide(&mut memory, &table, &takes, now_us);
            let expected = model.take(&held_to(&takes, &keys, limit), now_us);
            for ((take, told), expected) in takes.iter().zip(&told).zip(&expected) {
                for ((ask, told), expected) in take.buckets.iter().zip(buckets(told)).zip(buckets(expected)) {
                    let overridden = is_overridden(ask, &keys).then_some(Overridden::Limit { tokens, period_us: 1_500, burst });
                    prop_assert_eq!(told, &BucketVerdict { overridden, ..expected.clone() });
                }
                match (take.kind, told, expected) {
                    (Kind::Lease(terms), Verdict::Leased { tokens, lapses_at_us, .. }, Verdict::Allowed(_)) => {
                        prop_assert_eq!((*tokens, *lapses_at_us), (0, terms.lapses_at_us(now_us)));
                    }
                    _ => prop_assert_eq!(std::mem::discriminant(told), std::mem::discriminant(expected)),
                }
            }
        }
    }

    #[test]
    fn what_is_blocked_is_never_taken_and_nothing_with_it(steps in steps(), ends_us in prop::option::of(1..9_u64)) {
        let keys = [0, 2];
        let expires_at_us = ends_us.map(|ends_us| START_US + ends_us * 100_000);
        let table = table(&keys, Instead::Blocked, expires_at_us);
        let (mut memory, mut model, mut now_us) = (Memory::new(ROOM), Memory::new(ROOM), START_US);
        for (takes, pause_us) in steps {
            now_us += pause_us;
            let told = decide(&mut memory, &table, &takes, now_us);
            for (take, told) in takes.iter().zip(&told) {
                let is_blocked = take.kind == Kind::Take && is_of(take, &keys);
                prop_assert!(!is_blocked || matches!(told, Verdict::Denied(_)), "{:?}: {:?}", take, told);
                for (ask, told) in take.buckets.iter().zip(buckets(told)) {
                    prop_assert_eq!(told.overridden.is_some(), is_overridden(ask, &keys));
                    if take.kind == Kind::Take && is_overridden(ask, &keys) {
                        prop_assert_eq!(told.outcome, Outcome::Denied);
                        let fits = ask.cost_tokens <= ask.limit.burst_tokens();
                        let end_us = expires_at_us.filter(|_| fits).map(|at_us| at_us - now_us);
                        prop_assert_eq!(told.retry_after_us.is_some(), end_us.is_some());
                        prop_assert!(told.retry_after_us >= end_us, "not before the end");
                    }
                }
            }
            // As if what is blocked had asked for more than there ever is: nothing is taken, and followers only look.
            let denied = held(&takes, &keys);
            let expected = model.take(&denied, now_us);
            for (told, expected) in told.iter().zip(&expected) {
                prop_assert_eq!(matches!(told, Verdict::Denied(_)), matches!(expected, Verdict::Denied(_)));
                let stands = |verdict: &Verdict| -> Vec<_> {
                    buckets(verdict).iter().map(|bucket| (bucket.remaining, bucket.full_after_us)).collect()
                };
                prop_assert_eq!(stands(told), stands(expected));
            }
        }
    }

    #[test]
    fn a_block_that_has_ended_lets_in_no_later_than_it_told(cost_tokens in 0..9_u64, taken in 0..9_u64, ends_us in 1..9_000_u64) {
        let ask = |cost_tokens| {
            let limit = Limit::new(3, 1_000, 8).expect("valid");
            vec![Take { buckets: vec![Ask { bucket_key: "sluice:1:d/p/{0}".to_owned(), limit, cost_tokens }], kind: Kind::Take, follows: false }]
        };
        let table = table(&[0], Instead::Blocked, Some(START_US + ends_us));
        let mut memory = Memory::new(ROOM);
        memory.take(&ask(taken), START_US);
        let told = decide(&mut memory, &table, &ask(cost_tokens), START_US);
        let wait_us = buckets(&told[0])[0].retry_after_us.expect("it ends");
        let then = decide(&mut memory, &table, &ask(cost_tokens), START_US + wait_us);
        prop_assert!(matches!(then[0], Verdict::Allowed(_)), "after {}: {:?}", wait_us, then);
        let before = decide(&mut memory, &table, &ask(0), START_US + ends_us - 1);
        prop_assert!(matches!(before[0], Verdict::Denied(_)));
    }

    #[test]
    fn what_is_unlimited_denies_nothing_and_leaves_the_others_as_they_are(steps in steps()) {
        let keys = [0, 1];
        let table = table(&keys, Instead::Unlimited, None);
        let (mut memory, mut model, mut now_us) = (Memory::new(ROOM), Memory::new(ROOM), START_US);
        for (takes, pause_us) in steps {
            now_us += pause_us;
            let told = decide(&mut memory, &table, &takes, now_us);
            let mut free = takes.clone();
            for take in &mut free {
                let leases_nothing = matches!(take.kind, Kind::Lease(_)) && is_of(take, &keys);
                for ask in &mut take.buckets {
                    let is_free = is_overridden(ask, &keys) && !matches!(take.kind, Kind::Return(_));
                    if leases_nothing || is_free {
                        ask.cost_tokens = 0;
                    }
                }
                if leases_nothing {
                    take.kind = Kind::Take;
                }
            }
            let expected = model.take(&free, now_us);
            for ((take, told), expected) in takes.iter().zip(&told).zip(&expected) {
                prop_assert_eq!(matches!(told, Verdict::Denied(_)), matches!(expected, Verdict::Denied(_)));
                for ((ask, told), expected) in take.buckets.iter().zip(buckets(told)).zip(buckets(expected)) {
                    prop_assert_eq!(told.remaining, expected.remaining);
                    if is_overridden(ask, &keys) {
                        prop_assert_eq!((told.outcome, told.overridden), (Outcome::Allowed, Some(Overridden::Unlimited)));
                    }
                }
            }
        }
    }

    #[test]
    fn what_has_ended_changes_nothing(takes in takes()) {
        let table = table(&[0, 1, 2, 3], Instead::Blocked, Some(START_US));
        let mut batch = Batch { takes: takes.clone() };
        let changed = apply(&table, &mut batch, START_US);
        prop_assert_eq!(&batch.takes, &takes);
        let mut answer = Answer { now_us: START_US, verdicts: Memory::new(ROOM).take(&takes, START_US) };
        let before = answer.clone();
        changed.tell(&mut answer);
        prop_assert_eq!(answer, before);
    }
}

/// All that is asked, with more than there ever is of what is blocked, and nothing leased with it.
fn held(takes: &[Take], keys: &[u8]) -> Vec<Take> {
    let mut takes = takes.to_vec();
    for take in &mut takes {
        let (kind, is_of) = (take.kind, is_of(take, keys));
        for ask in &mut take.buckets {
            match kind {
                Kind::Take if is_overridden(ask, keys) => ask.cost_tokens = 1_000,
                Kind::Lease(_) if is_of => ask.cost_tokens = 0,
                _ => {}
            }
        }
        if matches!(kind, Kind::Lease(_)) && is_of {
            take.kind = Kind::Take;
        }
    }
    takes
}
