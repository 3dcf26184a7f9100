//! What the bucket promises, over random limits, costs and times.

use bucket::{Bucket, Decision, EXACT, InvalidLimit, Limit, Outcome, refund, take};
use proptest::prelude::*;

/// A day in 2025, where the store's clock stands.
const NOW_US: u64 = 1_763_650_000_000_000;

/// Common limits, and some at the very edge of validation: where a burst is too large for its rate, the largest that
/// fits takes its place.
fn limits() -> impl Strategy<Value = Limit> {
    let usual = (1..2_000_u64, 1..120_000_000_u64, 1..2_000_u64);
    let extreme = (1..EXACT, 1..EXACT, 1..EXACT);
    prop_oneof![4 => usual, 1 => extreme].prop_filter_map("a valid limit", |(tokens, period_us, burst)| {
        match Limit::new(tokens, period_us, burst) {
            Err(InvalidLimit::TooLarge { max_burst_tokens }) => {
                Limit::new(tokens, period_us, max_burst_tokens).ok()
            }
            limit => limit.ok(),
        }
    })
}

/// About that share of a number.
fn part(of: u64, share: f64) -> u64 {
    (of as f64 * share) as u64
}

/// A bucket that is kept under `limit`, anywhere between empty and nearly full.
fn drained(limit: Limit, share: f64) -> Option<Bucket> {
    let credits = part(limit.capacity_credits(), share);
    Bucket::restore(credits.min(limit.capacity_credits() - 1), limit.period_us(), NOW_US)
}

fn retry_after_us(decision: Decision) -> Option<u64> {
    match decision.outcome {
        Outcome::Denied { retry_after_us } => Some(retry_after_us),
        Outcome::Allowed | Outcome::NeverFits => None,
    }
}

proptest! {
    /// The promise of the whole project: over every window, no more than burst + rate × window.
    #[test]
    fn never_more_than_the_burst_and_the_rate_in_any_window(
        limit in limits(),
        steps in prop::collection::vec((0.0..3.0_f64, 0.0..0.6_f64), 1..60),
    ) {
        let mut bucket = None;
        let mut now_us = NOW_US;
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for (wait, share) in steps {
            // Waits around the time that one token needs, costs up to more than half of the burst.
            let (wait_us, cost) = (
                part(limit.period_us(), wait / limit.tokens() as f64),
                1 + part(limit.burst_tokens(), share),
            );
            now_us = (now_us + wait_us).min(EXACT - 1);
            let (kept, decision) = take(limit, bucket, cost, now_us);
            bucket = kept;
            if decision.outcome == Outcome::Allowed {
                admitted.push((now_us, cost));
            }
        }
        for first in 0..admitted.len() {
            let mut sum = 0_u128;
            for &(at_us, cost) in &admitted[first..] {
                sum += u128::from(cost);
                let window_us = u128::from(at_us - admitted[first].0);
                // sum ≤ burst + window × tokens / period, without a division.
                let promised = u128::from(limit.burst_tokens()) * u128::from(limit.period_us())
                    + window_us * u128::from(limit.tokens());
                prop_assert!(sum * u128::from(limit.period_us()) <= promised, "{} tokens in {} µs", sum, window_us);
            }
        }
    }

    /// Denied at every instant before the promised wait is over, allowed exactly when it is.
    #[test]
    fn retry_after_is_exact(limit in limits(), share in 0.0..1.0_f64, early_share in 0.0..1.0_f64, cost_share in 0.0..1.0_f64) {
        let bucket = drained(limit, share);
        let cost = (1 + part(limit.burst_tokens(), cost_share)).min(limit.burst_tokens());
        let (kept, decision) = take(limit, bucket, cost, NOW_US);
        if let Some(retry_us) = retry_after_us(decision) {
            prop_assert_eq!(kept, bucket, "a denied take writes nothing");
            prop_assert!(retry_us > 0);
            let early_us = part(retry_us, early_share);
            for wait_us in [0, early_us.min(retry_us - 1), retry_us - 1] {
                let (_, early) = take(limit, bucket, cost, NOW_US + wait_us);
                prop_assert_eq!(retry_after_us(early), Some(retry_us - wait_us), "after {} µs", wait_us);
            }
            let (_, due) = take(limit, bucket, cost, NOW_US + retry_us);
            prop_assert_eq!(due.outcome, Outcome::Allowed);
        }
    }

    /// A bucket is full exactly when it says, so that forgetting it then changes no decision.
    #[test]
    fn full_after_is_exact(limit in limits(), share in 0.0..1.0_f64) {
        let bucket = drained(limit, share);
        let full_after_us = take(limit, bucket, 0, NOW_US).1.full_after_us;
        prop_assert!(full_after_us > 0);
        prop_assert_eq!(take(limit, bucket, limit.burst_tokens(), NOW_US + full_after_us), take(limit, None, limit.burst_tokens(), NOW_US + full_after_us));
        let early = take(limit, bucket, limit.burst_tokens(), NOW_US + full_after_us - 1).1;
        prop_assert_ne!(early.outcome, Outcome::Allowed);
    }

    /// A cost larger than the burst is told apart from a wait, and takes nothing.
    #[test]
    fn what_never_fits_is_told_and_takes_nothing(limit in limits(), share in 0.0..1.0_f64, beyond in 1..EXACT) {
        let bucket = drained(limit, share);
        let (kept, decision) = take(limit, bucket, limit.burst_tokens() + beyond, NOW_US);
        prop_assert_eq!(decision.outcome, Outcome::NeverFits);
        prop_assert_eq!(kept, bucket);
    }

    /// A refund gives back what was taken, and never more than the burst.
    #[test]
    fn a_refund_undoes_a_take_and_stops_at_the_burst(limit in limits(), share in 0.0..1.0_f64, cost in 1..100_u64) {
        let bucket = drained(limit, share);
        let before = take(limit, bucket, 0, NOW_US).1;
        let (taken, decision) = take(limit, bucket, cost, NOW_US);
        if decision.outcome == Outcome::Allowed {
            let (_, after) = refund(limit, taken, cost, NOW_US);
            prop_assert_eq!(after.remaining_tokens, before.remaining_tokens);
            prop_assert_eq!(after.full_after_us, before.full_after_us);
        }
        let (kept, full) = refund(limit, bucket, EXACT - 1, NOW_US);
        prop_assert_eq!(kept, None, "a full bucket is forgotten");
        prop_assert_eq!(full.remaining_tokens, limit.burst_tokens());
    }

    /// A limit that changes keeps the tokens, fraction included, rounded down and capped at the new burst.
    #[test]
    fn a_changed_limit_keeps_the_tokens(old in limits(), new in limits(), share in 0.0..1.0_f64) {
        let bucket = drained(old, share).expect("in range");
        let decision = take(new, Some(bucket), 0, NOW_US).1;
        let exact = u128::from(bucket.credits()) * u128::from(new.period_us()) / u128::from(old.period_us());
        let capped = exact.min(u128::from(new.capacity_credits()));
        prop_assert_eq!(u128::from(decision.remaining_tokens), capped / u128::from(new.period_us()));
        let missing = u128::from(new.capacity_credits()) - capped;
        prop_assert_eq!(u128::from(decision.full_after_us), missing.div_ceil(u128::from(new.tokens())));
    }

    /// A clock that goes back mints nothing, and locks nobody out for longer than the tokens take to refill.
    #[test]
    fn a_clock_that_goes_back_neither_mints_nor_locks_out(
        limit in limits(), share in 0.0..1.0_f64, step_us in 1..NOW_US, cost in 1..50_u64,
    ) {
        let bucket = drained(limit, share);
        let before = take(limit, bucket, cost, NOW_US).1;
        let (kept, after) = take(limit, bucket, cost, NOW_US - step_us);
        prop_assert_eq!(after, before, "the same answer as if no time had passed");
        if let Some(retry_us) = retry_after_us(after) {
            prop_assert_eq!(kept.map(|kept| kept.at_us()), Some(NOW_US - step_us), "counted anew, though denied");
            prop_assert_eq!(take(limit, kept, cost, NOW_US - step_us + retry_us).1.outcome, Outcome::Allowed);
        }
    }

    /// No panic and no wrap at the edges of what may be kept and asked.
    #[test]
    fn nothing_overflows(
        limit in limits(), credits in 0..EXACT, unit in 1..EXACT, at_us in 0..EXACT, now_us in 0..EXACT, cost in any::<u64>(),
    ) {
        let bucket = Bucket::restore(credits, unit, at_us);
        for (kept, decision) in [take(limit, bucket, cost, now_us), refund(limit, bucket, cost, now_us)] {
            prop_assert!(decision.remaining_tokens <= limit.burst_tokens());
            prop_assert!(decision.full_after_us < EXACT);
            prop_assert!(retry_after_us(decision).is_none_or(|retry_us| retry_us < EXACT));
            prop_assert!(kept == bucket || kept.is_none_or(|kept| kept.credits() < limit.capacity_credits()));
        }
    }
}

/// How long it takes to admit `takes` requests, one by one, each as soon as it is promised.
fn time_to_admit_us(limit: Limit, takes: u64) -> u64 {
    let (mut bucket, mut now_us, mut admitted) = (None, NOW_US, 0_u64);
    while admitted < takes {
        let (kept, decision) = take(limit, bucket, 1, now_us);
        bucket = kept;
        match decision.outcome {
            Outcome::Allowed => admitted += 1,
            Outcome::Denied { retry_after_us } => now_us += retry_after_us,
            Outcome::NeverFits => panic!("a cost of 1 fits every burst"),
        }
    }
    now_us - NOW_US
}

/// Three million takes at a rate with an endless decimal: the last token arrives on the microsecond.
#[test]
fn nothing_drifts_over_millions_of_steps() {
    const TAKES: u64 = 3_000_000;
    // With room for a fraction beyond the token that is waited for, nothing is given up: after the burst, each token
    // takes exactly 3/7 s.
    let roomy = Limit::new(7, 3_000_000, 2).expect("valid");
    assert_eq!(time_to_admit_us(roomy, TAKES), ((TAKES - 2) * 3_000_000).div_ceil(7));
    // With a burst of 1 the bucket is full at each take, and gives up the rest of the microsecond each time.
    let tight = Limit::new(7, 3_000_000, 1).expect("valid");
    assert_eq!(time_to_admit_us(tight, TAKES), (TAKES - 1) * 3_000_000_u64.div_ceil(7));
}

/// Two proxies that name different rates for one policy, in turn: nothing is lost but roundings.
#[test]
fn a_roll_out_of_another_rate_loses_no_more_than_rounding() {
    let old = Limit::new(60, 60_000_000, 1_000).expect("valid");
    let new = Limit::new(7, 3_000_000, 1_000).expect("valid");
    let mut bucket = None;
    for step in 0..900_u64 {
        let limit = if step % 2 == 0 { old } else { new };
        let (kept, decision) = take(limit, bucket, 1, NOW_US);
        bucket = kept;
        assert_eq!(decision.outcome, Outcome::Allowed, "step {step}");
        // 1,000 − takes, less at most one credit a conversion: here, no whole token over 900 of them.
        assert!(decision.remaining_tokens + 1 >= 1_000 - step - 1, "step {step}: {decision:?}");
    }
}
