//! What the bucket promises, over random limits, costs and times.

use bucket::{
    Ask, Bucket, Decision, EXACT, InvalidLimit, Keep, Kind, Level, Limit, Outcome, charge, look_at_all,
    refund, take, take_all,
};
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

/// The most credits that a bucket may owe.
fn deepest_debt(limit: Limit) -> u64 {
    EXACT - 1 - limit.capacity_credits()
}

/// A bucket that is kept under `limit`: for a share from 0 to 1 anywhere between empty and nearly full, from 0 to -1 in
/// a debt of any order of magnitude.
fn drained(limit: Limit, share: f64) -> Option<Bucket> {
    let credits = if share < 0.0 {
        -((share * -53.0).exp2() as u64).min(deepest_debt(limit)).cast_signed()
    } else {
        part(limit.capacity_credits(), share).min(limit.capacity_credits() - 1).cast_signed()
    };
    Bucket::restore(credits, limit.period_us(), NOW_US)
}

/// Credits in what is kept, as they were counted.
fn credits(limit: Limit, bucket: Option<Bucket>) -> i64 {
    bucket.map_or(limit.capacity_credits().cast_signed(), |bucket| bucket.credits())
}

/// A bucket in the plainest form: what is missing of a full one, counted in as many bits as it takes.
struct Ledger {
    limit: Limit,
    missing: u128,
    now_us: u64,
}

impl Ledger {
    fn decide(&mut self, kind: Kind, cost: u64, now_us: u64) -> Decision {
        let [tokens, period_us, capacity] =
            [self.limit.tokens(), self.limit.period_us(), self.limit.capacity_credits()].map(u128::from);
        self.missing = self.missing.saturating_sub(u128::from(now_us - self.now_us) * tokens);
        self.now_us = now_us;
        let price = u128::from(cost) * period_us;
        let short = (self.missing + price).saturating_sub(capacity);
        let outcome = match kind {
            Kind::Take if cost > self.limit.burst_tokens() => Outcome::NeverFits,
            Kind::Take if cost > 0 && short > 0 => {
                Outcome::Denied { retry_after_us: u64::try_from(short.div_ceil(tokens)).expect("64 bits") }
            }
            _ => Outcome::Allowed,
        };
        if outcome == Outcome::Allowed {
            self.missing = match kind {
                Kind::Take | Kind::Charge => (self.missing + price).min(u128::from(EXACT - 1)),
                Kind::Refund => self.missing.saturating_sub(price),
                Kind::Lease(_) | Kind::Return(_) => panic!("leases have a ledger of their own"),
            };
        }
        let whole = |number: u128| u64::try_from(number).expect("64 bits");
        Decision {
            outcome,
            remaining_tokens: whole(capacity.saturating_sub(self.missing) / period_us),
            full_after_us: whole(self.missing.div_ceil(tokens)),
        }
    }
}

fn retry_after_us(decision: Decision) -> Option<u64> {
    match decision.outcome {
        Outcome::Denied { retry_after_us } => Some(retry_after_us),
        Outcome::Allowed | Outcome::NeverFits => None,
    }
}

proptest! {
    /// The promise of the whole project: over every window, no more than burst + rate × window. What was charged
    /// before a take that passed is within it as well: it was paid back first.
    #[test]
    fn never_more_than_the_burst_and_the_rate_in_any_window(
        limit in limits(),
        steps in prop::collection::vec((0.0..3.0_f64, 0.0..0.6_f64, prop::bool::weighted(0.15)), 1..60),
    ) {
        let mut bucket = None;
        let mut now_us = NOW_US;
        let mut made: Vec<(u64, u64, Kind)> = Vec::new();
        for (wait, share, charges) in steps {
            // Waits around the time that one token needs, costs up to more than half of the burst.
            let (wait_us, cost) = (
                part(limit.period_us(), wait / limit.tokens() as f64),
                1 + part(limit.burst_tokens(), share),
            );
            now_us = (now_us + wait_us).min(EXACT - 1);
            let (kind, (kept, decision)) = if charges {
                (Kind::Charge, charge(limit, bucket, 2 * cost, now_us))
            } else {
                (Kind::Take, take(limit, bucket, cost, now_us))
            };
            bucket = kept;
            if decision.outcome == Outcome::Allowed {
                made.push((now_us, if charges { 2 * cost } else { cost }, kind));
            }
        }
        // Debts deeper than can be counted are forgiven: then charges are left out of the sum.
        let charged = made.iter().filter(|(_, _, kind)| *kind == Kind::Charge).map(|(_, cost, _)| cost).sum::<u64>();
        let counted = u128::from(charged) * u128::from(limit.period_us()) <= u128::from(deepest_debt(limit));
        for first in 0..made.len() {
            let mut sum = 0_u128;
            for &(at_us, cost, kind) in &made[first..] {
                if kind == Kind::Take || counted {
                    sum += u128::from(cost);
                }
                let window_us = u128::from(at_us - made[first].0);
                // sum ≤ burst + window × tokens / period, without a division.
                let promised = u128::from(limit.burst_tokens()) * u128::from(limit.period_us())
                    + window_us * u128::from(limit.tokens());
                let kept = sum * u128::from(limit.period_us()) <= promised;
                prop_assert!(kind == Kind::Charge || kept, "{} tokens in {} µs", sum, window_us);
            }
        }
    }

    /// Takes, refunds and charges in any order are what a plain ledger says of them.
    #[test]
    fn every_step_is_that_of_a_plain_ledger(
        limit in limits(),
        steps in prop::collection::vec((0..3_u8, 0.0..3.0_f64, -0.1..2.0_f64, any::<bool>()), 1..60),
    ) {
        let (mut bucket, mut now_us) = (None, NOW_US);
        let mut ledger = Ledger { limit, missing: 0, now_us };
        for (kind, wait, share, extreme) in steps {
            let wait_us = if extreme { (wait * 16.0).exp2() as u64 } else { part(limit.period_us(), wait / limit.tokens() as f64) };
            let cost = if extreme { (share * 26.5).exp2() as u64 } else { part(limit.burst_tokens(), share) };
            now_us = (now_us + wait_us).min(EXACT - 1);
            let (kind, (kept, decision)) = match kind {
                0 => (Kind::Take, take(limit, bucket, cost, now_us)),
                1 => (Kind::Refund, refund(limit, bucket, cost, now_us)),
                _ => (Kind::Charge, charge(limit, bucket, cost, now_us)),
            };
            prop_assert_eq!(decision, ledger.decide(kind, cost, now_us));
            prop_assert!(kept.is_none_or(|kept| Bucket::restore(kept.credits(), kept.unit(), kept.at_us()).is_some()));
            bucket = kept;
        }
    }

    /// A bucket in debt admits nothing until the debt and the cost are earned, and then at once.
    #[test]
    fn a_debt_is_paid_before_the_next_take(
        limit in limits(), share in 0.0..1.0_f64, charge_share in 0.0..1.0_f64, early_share in 0.0..1.0_f64, cost in 1..50_u64,
    ) {
        let cost = cost.min(limit.burst_tokens());
        let beyond = ((charge_share * 53.0).exp2() as u64).div_ceil(limit.period_us());
        let (bucket, charged) = charge(limit, drained(limit, share), limit.burst_tokens() + beyond, NOW_US);
        prop_assert_eq!((charged.outcome, charged.remaining_tokens), (Outcome::Allowed, 0));
        let owed = credits(limit, bucket).unsigned_abs();
        prop_assert!(credits(limit, bucket) < 0);
        let paid_us = (owed + cost * limit.period_us()).div_ceil(limit.tokens());
        for wait_us in [0, part(paid_us, early_share).min(paid_us - 1), paid_us - 1] {
            let (kept, early) = take(limit, bucket, cost, NOW_US + wait_us);
            prop_assert_eq!(retry_after_us(early), Some(paid_us - wait_us), "after {} µs", wait_us);
            prop_assert_eq!(kept, bucket, "a denied take writes nothing");
        }
        prop_assert_eq!(take(limit, bucket, cost, NOW_US + paid_us).1.outcome, Outcome::Allowed);
    }

    /// A cost of 0 asks for nothing: not even a debt denies it, and none is forgotten by it.
    #[test]
    fn a_look_is_allowed_in_debt_and_takes_nothing(limit in limits(), share in -1.0..1.0_f64) {
        let bucket = drained(limit, share);
        for (kept, decision) in [take(limit, bucket, 0, NOW_US), charge(limit, bucket, 0, NOW_US), refund(limit, bucket, 0, NOW_US)] {
            prop_assert_eq!((kept, decision.outcome), (bucket, Outcome::Allowed));
        }
    }

    /// A charge takes what a take would, where there is room; a refund of it leaves the bucket as it was, unless the
    /// debt was deeper than can be counted.
    #[test]
    fn a_refund_undoes_a_charge(limit in limits(), share in -1.0..1.0_f64, cost_share in 0.0..1.0_f64) {
        let bucket = drained(limit, share);
        let cost = (cost_share * 53.0).exp2() as u64;
        let (charged, decision) = charge(limit, bucket, cost, NOW_US);
        let (taken, allowed) = take(limit, bucket, cost, NOW_US);
        if allowed.outcome == Outcome::Allowed {
            prop_assert_eq!((charged, decision), (taken, allowed));
        }
        let after = i128::from(credits(limit, bucket)) - i128::from(cost) * i128::from(limit.period_us());
        let deepest = -i128::from(deepest_debt(limit));
        prop_assert_eq!(i128::from(credits(limit, charged)), after.max(deepest));
        if after >= deepest {
            prop_assert_eq!(refund(limit, charged, cost, NOW_US).0, bucket);
        }
    }

    /// Denied at every instant before the promised wait is over, allowed exactly when it is.
    #[test]
    fn retry_after_is_exact(limit in limits(), share in -1.0..1.0_f64, early_share in 0.0..1.0_f64, cost_share in 0.0..1.0_f64) {
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
    fn full_after_is_exact(limit in limits(), share in -1.0..1.0_f64) {
        let bucket = drained(limit, share);
        let full_after_us = take(limit, bucket, 0, NOW_US).1.full_after_us;
        prop_assert!(full_after_us > 0);
        prop_assert_eq!(take(limit, bucket, limit.burst_tokens(), NOW_US + full_after_us), take(limit, None, limit.burst_tokens(), NOW_US + full_after_us));
        let early = take(limit, bucket, limit.burst_tokens(), NOW_US + full_after_us - 1).1;
        prop_assert_ne!(early.outcome, Outcome::Allowed);
    }

    /// A cost larger than the burst is told apart from a wait, and takes nothing.
    #[test]
    fn what_never_fits_is_told_and_takes_nothing(limit in limits(), share in -1.0..1.0_f64, beyond in 1..EXACT) {
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
        let (kept, full) = refund(limit, drained(limit, -share), EXACT - 1, NOW_US);
        prop_assert_eq!(kept, None, "a full bucket is forgotten");
        prop_assert_eq!(full.remaining_tokens, limit.burst_tokens());
    }

    /// A limit that changes keeps the tokens, fraction included, rounded down and capped at the new burst; and the debt,
    /// rounded up, as far as it can be counted.
    #[test]
    fn a_changed_limit_keeps_the_tokens(old in limits(), new in limits(), share in -1.0..1.0_f64) {
        let bucket = drained(old, share).expect("in range");
        let decision = take(new, Some(bucket), 0, NOW_US).1;
        let product = i128::from(bucket.credits()) * i128::from(new.period_us());
        let exact = product.div_euclid(i128::from(old.period_us()));
        let kept = exact.clamp(-i128::from(deepest_debt(new)), i128::from(new.capacity_credits()));
        prop_assert_eq!(i128::from(decision.remaining_tokens), kept.max(0) / i128::from(new.period_us()));
        let missing = u128::try_from(i128::from(new.capacity_credits()) - kept).expect("at most full");
        prop_assert_eq!(u128::from(decision.full_after_us), missing.div_ceil(u128::from(new.tokens())));
    }

    /// A clock that goes back mints nothing, and locks nobody out for longer than the tokens take to refill.
    #[test]
    fn a_clock_that_goes_back_neither_mints_nor_locks_out(
        limit in limits(), share in -1.0..1.0_f64, step_us in 1..NOW_US, cost in 1..50_u64,
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
        limit in limits(), amount in 0..EXACT.cast_signed(), owed in any::<bool>(), unit in 1..EXACT, at_us in 0..EXACT,
        now_us in 0..EXACT, cost in any::<u64>(),
    ) {
        let bucket = Bucket::restore(if owed { -amount } else { amount }, unit, at_us);
        prop_assert!(bucket.is_some());
        for (kept, decision) in [
            take(limit, bucket, cost, now_us), refund(limit, bucket, cost, now_us), charge(limit, bucket, cost, now_us),
        ] {
            prop_assert!(decision.remaining_tokens <= limit.burst_tokens());
            prop_assert!(decision.full_after_us < EXACT);
            prop_assert!(retry_after_us(decision).is_none_or(|retry_us| retry_us < EXACT));
            let range = -deepest_debt(limit).cast_signed()..limit.capacity_credits().cast_signed();
            prop_assert!(kept == bucket || kept.is_none_or(|kept| range.contains(&kept.credits())));
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

/// A million debts of a rate with an endless decimal: each is paid on the microsecond.
#[test]
fn nothing_drifts_in_debt() {
    const ROUNDS: u64 = 1_000_000;
    let limit = Limit::new(7, 3_000_000, 2).expect("valid");
    let (mut bucket, mut now_us) = (None, NOW_US);
    for _ in 0..ROUNDS {
        bucket = charge(limit, bucket, 5, now_us).0;
        let (_, denied) = take(limit, bucket, 1, now_us);
        now_us += retry_after_us(denied).expect("in debt");
        let (kept, decision) = take(limit, bucket, 1, now_us);
        assert_eq!(decision.outcome, Outcome::Allowed);
        bucket = kept;
    }
    assert_eq!(now_us - NOW_US, ((6 * ROUNDS - 2) * 3_000_000).div_ceil(7));
}

/// The edges of what may be kept are the edges of what is exact.
#[test]
fn a_debt_is_counted_as_deep_as_is_exact() {
    let limit = Limit::new(1, 1, 10).expect("valid");
    let (bucket, decision) = charge(limit, None, EXACT - 1, NOW_US);
    assert_eq!(credits(limit, bucket), 10 - (EXACT - 1).cast_signed());
    assert_eq!((decision.remaining_tokens, decision.full_after_us), (0, EXACT - 1));
    assert_eq!(charge(limit, bucket, 1, NOW_US).0, bucket, "no deeper");
    let deepest = 1 - EXACT.cast_signed();
    assert!(Bucket::restore(deepest, 1, 0).is_some() && Bucket::restore(deepest - 1, 1, 0).is_none());
    assert!(Bucket::restore(i64::MIN, 1, 0).is_none());
}

/// Several buckets: a charge asks none of them, a look changes none of them.
#[test]
fn a_look_at_several_says_what_a_take_would() {
    let limit = Limit::new(1, 1_000_000, 5).expect("valid");
    let full = Level::count(limit, None, NOW_US);
    let empty = Level::count(limit, take(limit, None, 5, NOW_US).0, NOW_US);
    for (levels, kind, allowed) in [
        ([full, full], Kind::Take, true),
        ([full, empty], Kind::Take, false),
        ([full, empty], Kind::Charge, true),
        ([full, empty], Kind::Refund, true),
    ] {
        let mut asks = levels.map(|level| Ask::new(level, kind, 2));
        let looked = asks;
        assert_eq!((look_at_all(&asks), take_all(&mut asks)), (allowed, allowed), "{kind:?}");
        assert!(looked.iter().all(|ask| ask.keep() == Keep::AsItIs));
        assert_eq!(looked.map(|ask| ask.decision().outcome), asks.map(|ask| ask.decision().outcome));
        assert_eq!(
            looked.map(|ask| ask.decision().remaining_tokens),
            levels.map(|level| level.remaining_tokens())
        );
    }
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
