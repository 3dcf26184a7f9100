//! What leases promise, over random limits, times and holders.

use bucket::{
    Bucket, EXACT, Kind, Lease, Level, Limit, Outcome, Slot, Terms, charge, end_lease, lease, refund, take,
};
use proptest::prelude::*;

/// A day in 2025, where the store's clock stands.
const NOW_US: u64 = 1_763_650_000_000_000;

fn limits() -> impl Strategy<Value = Limit> {
    let usual = (1..200_u64, 1..20_000_000_u64, 1..300_u64);
    usual.prop_map(|(tokens, period_us, burst)| Limit::new(tokens, period_us, burst).expect("valid"))
}

fn terms() -> impl Strategy<Value = Terms> {
    (prop_oneof![Just(1_000), Just(1_000_000), 1_000..60_000_000_u64], 1..=100_u64)
        .prop_map(|(ttl_us, share_percent)| Terms { ttl_us, share_percent })
}

/// About that share of a number.
fn part(of: u64, share: f64) -> u64 {
    (of as f64 * share) as u64
}

/// What somebody does after a while: `what` it is, how many tokens as a `share` of the burst, and `whose` lease.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    wait: f64,
    share: f64,
    whose: usize,
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..20_u8,
        prop_oneof![2 => Just(0.0), 3 => 0.0..1.0_f64, 1 => 1.0..20.0_f64],
        0.0..1.0_f64,
        0..8_usize,
    );
    prop::collection::vec(step, 1..most).prop_map(|steps| {
        steps.into_iter().map(|(what, wait, share, whose)| Step { what, wait, share, whose }).collect()
    })
}

/// How tokens are leased and returned: the crate's way, or a wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Leased,
    /// Taken in advance, as if spent at once, and refunded: while they wait to be spent, the bucket fills.
    Predebited,
}

struct Held {
    lease: Lease,
    unspent: u64,
}

/// Holders of leases beside clients of the bucket itself. All tokens that were admitted, and when.
fn admitted(limits: &[Limit], terms: &[Terms], steps: &[Step], way: Way) -> Vec<(u64, u64)> {
    let (mut bucket, mut now_us) = (None, NOW_US);
    let (mut held, mut admitted): (Vec<Held>, Vec<(u64, u64)>) = (Vec::new(), Vec::new());
    for (nth, step) in steps.iter().enumerate() {
        // The limit changes every few steps, and each of the terms is offered in turn.
        let (limit, terms) = (limits[nth / 5 % limits.len()], terms[nth % terms.len()]);
        let waits = if step.wait > 1.0 { limit.period_us() / limit.tokens() } else { terms.ttl_us };
        now_us += part(waits, step.wait);
        held.retain(|held| held.unspent > 0 && held.lease.lapses_at_us > now_us);
        let tokens = 1 + part(limit.burst_tokens(), step.share);
        let place = step.whose % held.len().max(1);
        match step.what {
            0..6 => {
                let (kept, granted) = match way {
                    Way::Leased => lease(limit, bucket, tokens, terms, now_us),
                    Way::Predebited => {
                        let lapses_at_us = terms.lapses_at_us(now_us);
                        let tokens = tokens.min(take(limit, bucket, 0, now_us).1.remaining_tokens);
                        (take(limit, bucket, tokens, now_us).0, Lease { tokens, lapses_at_us })
                    }
                };
                bucket = kept;
                held.push(Held { lease: granted, unspent: granted.tokens });
            }
            6..12 if !held.is_empty() => {
                let spent = tokens.min(held[place].unspent);
                held[place].unspent -= spent;
                admitted.push((now_us, spent));
            }
            12..14 if !held.is_empty() => {
                let Held { lease, unspent } = held.remove(place);
                bucket = match way {
                    Way::Leased => end_lease(limit, bucket, lease, unspent, now_us).0,
                    Way::Predebited => refund(limit, bucket, unspent, now_us).0,
                };
            }
            14 => bucket = charge(limit, bucket, tokens, now_us).0,
            _ => {
                let whole = take(limit, bucket, 0, now_us).1.remaining_tokens;
                let tokens = if step.whose < 4 { whole } else { tokens };
                let (kept, decision) = take(limit, bucket, tokens, now_us);
                bucket = kept;
                if decision.outcome == Outcome::Allowed {
                    admitted.push((now_us, tokens));
                }
            }
        }
    }
    admitted
}

/// The first window in which more was admitted than each of `limits` promises, and how much that is.
fn broken_window(limits: &[Limit], admitted: &[(u64, u64)]) -> Option<(u64, u128)> {
    for first in 0..admitted.len() {
        let mut sum = 0_u128;
        for &(at_us, tokens) in &admitted[first..] {
            sum += u128::from(tokens);
            let window_us = at_us - admitted[first].0;
            // sum ≤ burst + window × tokens / period, without a division.
            let kept = |limit: &Limit| {
                let capacity = u128::from(limit.burst_tokens()) * u128::from(limit.period_us());
                let earned = u128::from(window_us) * u128::from(limit.tokens());
                sum * u128::from(limit.period_us()) <= capacity + earned
            };
            if !limits.iter().any(kept) {
                return Some((window_us, sum));
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// The promise of the whole project, counted when tokens are spent, whoever holds them.
    #[test]
    fn never_more_in_any_window_than_without_leases(
        limit in limits(), terms in prop::collection::vec(terms(), 1..3), steps in steps(80),
    ) {
        let admitted = admitted(&[limit], &terms, &steps, Way::Leased);
        prop_assert_eq!(broken_window(&[limit], &admitted), None);
    }

    /// And with limits that change while tokens are leased: then at the highest rate. The burst stays, since a bucket
    /// that becomes full under a smaller one gains by definition.
    #[test]
    fn never_more_in_any_window_while_limits_change(
        limits in prop::collection::vec(limits(), 2..4), terms in terms(), steps in steps(80),
    ) {
        let burst = limits[0].burst_tokens();
        let alike = |limit: &Limit| Limit::new(limit.tokens(), limit.period_us(), burst).expect("valid");
        let limits: Vec<Limit> = limits.iter().map(alike).collect();
        let admitted = admitted(&limits, &[terms], &steps, Way::Leased);
        prop_assert_eq!(broken_window(&limits, &admitted), None);
    }

    /// A smaller burst, and back: what is leased stays within the larger one.
    #[test]
    fn never_more_under_a_burst_that_shrinks_while_tokens_are_leased(
        limit in limits(), smaller_share in 0.0..1.0_f64, terms in terms(), share in 0.0..1.0_f64, wait in 0.0..1.0_f64,
    ) {
        let smaller = 1 + part(limit.burst_tokens() - 1, smaller_share);
        let smaller = Limit::new(limit.tokens(), limit.period_us(), smaller).expect("valid");
        let wanted = 1 + part(limit.burst_tokens(), share);
        let (bucket, held) = lease(limit, None, wanted, terms, NOW_US);
        let later_us = NOW_US + part(terms.ttl_us, wait);
        let looked = take(smaller, bucket, 0, later_us).1;
        prop_assert!(looked.remaining_tokens + held.tokens <= smaller.burst_tokens().max(held.tokens));
        let back = take(limit, charge(smaller, bucket, 0, later_us).0, 0, later_us).1;
        prop_assert!(back.remaining_tokens + held.tokens <= limit.burst_tokens());
    }

    /// Takes, refunds, charges, leases and returns in any order are what a plain ledger says of them, which goes from
    /// one event to the next.
    #[test]
    fn every_step_is_that_of_a_plain_ledger(
        limit in limits(), terms in prop::collection::vec(terms(), 1..4), steps in steps(60),
    ) {
        let (mut bucket, mut now_us) = (None, NOW_US);
        let mut ledger = Ledger { limit, missing: 0, now_us, leases: Vec::new() };
        let mut held: Vec<Lease> = Vec::new();
        for (nth, step) in steps.into_iter().enumerate() {
            let terms = terms[nth % terms.len()];
            let waits = if step.wait > 1.0 { limit.period_us() / limit.tokens() } else { terms.ttl_us };
            now_us += part(waits, step.wait);
            ledger.advance(now_us);
            let tokens = part(limit.burst_tokens() + 2, step.share);
            let kept = match step.what {
                0..6 => {
                    let (kept, granted) = lease(limit, bucket, tokens + 1, terms, now_us);
                    prop_assert_eq!(granted, ledger.lease(tokens + 1, terms));
                    held.push(granted);
                    kept
                }
                6..11 if !held.is_empty() => {
                    // Not only as it was granted: also twice, and in parts.
                    let place = step.whose % held.len();
                    let granted = if step.share < 0.2 { held[place] } else { held.remove(place) };
                    let unspent = part(granted.tokens, step.share);
                    ledger.end(granted, unspent);
                    end_lease(limit, bucket, granted, unspent, now_us).0
                }
                11..13 => {
                    ledger.missing = ledger.missing.saturating_sub(ledger.price(tokens)).max(ledger.held());
                    refund(limit, bucket, tokens, now_us).0
                }
                13 => {
                    ledger.missing += ledger.price(tokens);
                    charge(limit, bucket, tokens, now_us).0
                }
                _ => {
                    let (kept, decision) = take(limit, bucket, tokens, now_us);
                    let wait_us = (tokens > 0).then(|| ledger.wait_us(tokens));
                    prop_assert_eq!(decision.outcome, match wait_us {
                        None | Some(Some(0)) => Outcome::Allowed,
                        Some(Some(retry_after_us)) => Outcome::Denied { retry_after_us },
                        Some(None) => Outcome::NeverFits,
                    });
                    if decision.outcome == Outcome::Allowed {
                        ledger.missing += ledger.price(tokens);
                    }
                    kept
                }
            };
            bucket = kept;
            let looked = take(limit, bucket, 0, now_us).1;
            prop_assert_eq!(looked.remaining_tokens, ledger.remaining_tokens());
            prop_assert_eq!(looked.full_after_us, ledger.full_after_us());
            prop_assert!(bucket.is_none_or(|kept| Bucket::restore(kept.credits(), kept.unit(), kept.at_us())
                .and_then(|plain| plain.with_leases(kept.leases().unwrap_or_default())) == Some(kept)));
        }
    }

    /// A clock that goes back takes the leases with it: they lapse after the same time, and nothing is minted.
    #[test]
    fn a_clock_that_goes_back_takes_leases_with_it(
        limit in limits(), terms in terms(), share in 0.0..1.0_f64, step_us in 1..NOW_US, cost in 1..50_u64,
    ) {
        let (bucket, granted) = lease(limit, None, 1 + part(limit.burst_tokens(), share), terms, NOW_US);
        prop_assume!(granted.tokens > 0);
        let before = take(limit, bucket, 0, NOW_US).1;
        let (kept, after) = take(limit, bucket, 0, NOW_US - step_us);
        prop_assert_eq!(after, before, "the same answer as if no time had passed");
        let kept = kept.expect("counted anew");
        prop_assert_eq!(kept.at_us(), NOW_US - step_us);
        let [slot, none] = kept.leases().expect("still leased");
        prop_assert_eq!((slot.lapses_at_us, none), (granted.lapses_at_us - step_us, Slot::EMPTY));
        let ended = end_lease(limit, Some(kept), granted, granted.tokens, NOW_US - step_us);
        prop_assert_eq!(ended.0, Some(kept), "its name has gone with the clock: nothing is returned");
        prop_assert_eq!(
            take(limit, Some(kept), cost, NOW_US - step_us).1,
            take(limit, bucket, cost, NOW_US).1
        );
    }

    /// What leases hold moves to another unit without a loss, and what is asked at the edges of what is exact stays there.
    #[test]
    fn nothing_overflows(
        burst in 1..EXACT, period_us in 1..EXACT, tokens in 1..EXACT, unit in 1..EXACT,
        numbers in prop::array::uniform4(prop_oneof![1..EXACT, 1..EXACT / 1_000_000, NOW_US..NOW_US + 1_000_000_000]),
        at_us in 0..EXACT, now_us in any::<u64>(), cost in any::<u64>(), percent in any::<u64>(), ttl_us in any::<u64>(),
    ) {
        let limit = Limit::new(tokens, period_us, 1);
        prop_assume!(limit.is_ok());
        let most = (EXACT - 1) / limit.expect("valid").period_us() - 1;
        let limit = Limit::new(tokens, period_us, burst.min(most)).expect("valid");
        let [first, second, third, last] = numbers;
        let slots = [Slot { credits: first, lapses_at_us: second }, Slot { credits: third, lapses_at_us: last }];
        let bucket = Bucket::restore(0, unit, at_us).expect("in range").with_leases(slots);
        let bucket = Some(bucket.expect("in range"));
        let terms = Terms { ttl_us, share_percent: percent };
        let now_us = if now_us % 2 == 0 { now_us } else { now_us % EXACT };
        let (kept, granted) = lease(limit, bucket, cost, terms, now_us);
        let held = Lease { tokens: cost, lapses_at_us: second };
        for kept in [kept, end_lease(limit, bucket, held, cost, now_us).0, refund(limit, bucket, cost, now_us).0] {
            let level = Level::count(limit, kept, now_us);
            prop_assert!(level.full_after_us() < EXACT && level.remaining_tokens() <= limit.burst_tokens());
        }
        prop_assert!(granted.tokens <= cost.min(terms.share_tokens(limit)));
        prop_assert!(terms.share_tokens(limit) <= limit.burst_tokens());
    }
}

/// The checker of windows is worth what it catches: tokens that are only taken in advance break the promise.
#[test]
fn tokens_that_are_only_taken_in_advance_are_caught() {
    let config = ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let caught = runner.run(&(limits(), terms(), steps(80)), |(limit, terms, steps)| {
        let admitted = admitted(&[limit], &[terms], &steps, Way::Predebited);
        prop_assert_eq!(broken_window(&[limit], &admitted), None);
        Ok(())
    });
    assert!(matches!(caught, Err(proptest::test_runner::TestError::Fail(..))), "{caught:?}");
}

/// The example of the specification: a bucket of 10, a token a second, and a lease of 6 for 2 s.
#[test]
fn a_lease_occupies_the_bucket_until_it_is_returned_or_lapses() {
    let limit = Limit::new(1, 1_000_000, 10).expect("valid");
    let terms = Terms { ttl_us: 2_000_000, share_percent: 60 };
    let (bucket, granted) = lease(limit, None, 9, terms, NOW_US);
    assert_eq!(granted, Lease { tokens: 6, lapses_at_us: NOW_US + 4_000_000 }, "60 % of ten");
    assert_eq!(lease(limit, bucket, 9, terms, NOW_US).1.tokens, 0, "the share is leased");
    let looked = |at_us| take(limit, bucket, 0, at_us).1;
    assert_eq!(looked(NOW_US + 3_999_999).remaining_tokens, 4, "nothing is earned while it is out");
    assert_eq!(looked(NOW_US + 4_000_000).remaining_tokens, 4, "nor at once when it has lapsed");
    assert_eq!(looked(NOW_US + 5_000_000).remaining_tokens, 5);
    assert_eq!(looked(NOW_US).full_after_us, 10_000_000);
    let wait = take(limit, bucket, 5, NOW_US).1.outcome;
    assert_eq!(wait, Outcome::Denied { retry_after_us: 5_000_000 }, "a lapse and a second");
    let (returned, stands) = end_lease(limit, bucket, granted, 5, NOW_US);
    assert_eq!((stands.outcome, stands.remaining_tokens), (Outcome::Allowed, 9));
    assert_eq!(end_lease(limit, returned, granted, 6, NOW_US).0, returned, "once");
    assert_eq!(
        end_lease(limit, bucket, granted, 6, NOW_US + 4_000_000).0,
        bucket,
        "and not when it has lapsed"
    );
}

/// Two terms fill two slots, and a third finds none.
#[test]
fn leases_that_lapse_at_a_third_instant_are_not_granted() {
    let limit = Limit::new(1, 1_000_000, 100).expect("valid");
    let mut bucket = None;
    for (ttl_us, tokens) in [(1_000_000, 3), (2_000_000, 3), (5_000_000, 0), (1_000_000, 3)] {
        let (kept, granted) = lease(limit, bucket, 3, Terms { ttl_us, share_percent: 100 }, NOW_US);
        assert_eq!(granted.tokens, tokens, "{ttl_us} µs");
        bucket = kept;
    }
    let [first, last] = bucket.and_then(|bucket| bucket.leases()).expect("leased");
    assert_eq!((first.credits, last.credits), (6_000_000, 3_000_000));
    // The first slot is free once it has lapsed.
    let late_us = first.lapses_at_us;
    assert_eq!(lease(limit, bucket, 3, Terms { ttl_us: 5_000_000, share_percent: 100 }, late_us).1.tokens, 3);
}

/// All buckets of a lease give the same number, and none where one has none to give.
#[test]
fn a_lease_from_several_buckets_is_what_the_least_can_give() {
    let limit = Limit::new(1, 1_000_000, 10).expect("valid");
    let terms = Terms { ttl_us: 1_000_000, share_percent: 100 };
    for (taken, expected) in [(0, 7), (4, 6), (10, 0)] {
        let levels = [None, take(limit, None, taken, NOW_US).0];
        let levels = levels.map(|bucket| Level::count(limit, bucket, NOW_US));
        let mut asks = levels.map(|level| bucket::Ask::new(level, Kind::Lease(terms), 7));
        assert!(
            bucket::look_at_all(&asks) && asks.iter().all(|ask| ask.leased().is_some_and(|l| l.tokens == 0))
        );
        assert!(bucket::take_all(&mut asks), "a lease is never denied");
        for (ask, had) in asks.iter().zip([10, 10 - taken]) {
            assert_eq!(ask.leased().map(|lease| lease.tokens), Some(expected));
            assert_eq!(ask.decision().remaining_tokens, had - expected);
        }
    }
}

/// A bucket in the plainest form: what is missing of a full one, and each lease by itself.
struct Ledger {
    limit: Limit,
    missing: u128,
    now_us: u64,
    /// Credits, and when they lapse.
    leases: Vec<(u128, u64)>,
}

impl Ledger {
    fn price(&self, tokens: u64) -> u128 {
        u128::from(tokens) * u128::from(self.limit.period_us())
    }

    fn capacity(&self) -> u128 {
        self.price(self.limit.burst_tokens())
    }

    fn held(&self) -> u128 {
        self.leases.iter().map(|(credits, _)| credits).sum()
    }

    /// From lapse to lapse.
    fn advance(&mut self, now_us: u64) {
        while self.now_us < now_us {
            let next_us =
                self.leases.iter().map(|(_, at_us)| *at_us).min().map_or(now_us, |at_us| at_us.min(now_us));
            let earned = u128::from(next_us - self.now_us) * u128::from(self.limit.tokens());
            self.missing = self.missing.saturating_sub(earned).max(self.held());
            self.now_us = next_us;
            self.leases.retain(|(_, at_us)| *at_us > next_us);
        }
    }

    /// When no more than `spare` is missing, by going there.
    fn after_us(&self, spare: u128) -> u64 {
        let tokens = u128::from(self.limit.tokens());
        let mut then = Self { leases: self.leases.clone(), ..*self };
        loop {
            let wait_us =
                u64::try_from(then.missing.saturating_sub(spare).div_ceil(tokens)).expect("64 bits");
            let lapse_us = then.leases.iter().map(|(_, at_us)| *at_us).min();
            match lapse_us {
                _ if wait_us == 0 => return then.now_us - self.now_us,
                Some(lapse_us) if then.held() > spare || then.now_us + wait_us > lapse_us => {
                    then.advance(lapse_us)
                }
                _ => return then.now_us + wait_us - self.now_us,
            }
        }
    }

    fn full_after_us(&self) -> u64 {
        self.after_us(0)
    }

    fn wait_us(&self, cost: u64) -> Option<u64> {
        Some(self.after_us(self.capacity().checked_sub(self.price(cost))?))
    }

    fn remaining_tokens(&self) -> u64 {
        let whole = self.capacity().saturating_sub(self.missing) / self.price(1);
        u64::try_from(whole).expect("64 bits")
    }

    fn lease(&mut self, wanted: u64, terms: Terms) -> Lease {
        let lapses_at_us = (self.now_us / terms.ttl_us + 2) * terms.ttl_us;
        let mut instants: Vec<u64> =
            self.leases.iter().map(|(_, at_us)| *at_us).chain([lapses_at_us]).collect();
        instants.sort_unstable();
        instants.dedup();
        let share = self.limit.burst_tokens() * terms.share_percent / 100;
        let left = (self.price(share).saturating_sub(self.held())) / self.price(1);
        let left = u64::try_from(left).expect("64 bits");
        let tokens = if instants.len() > 2 { 0 } else { wanted.min(left).min(self.remaining_tokens()) };
        if tokens > 0 {
            self.missing += self.price(tokens);
            self.leases.push((self.price(tokens), lapses_at_us));
        }
        Lease { tokens, lapses_at_us }
    }

    fn end(&mut self, lease: Lease, unspent: u64) {
        let mut left = self.price(lease.tokens);
        for (credits, at_us) in &mut self.leases {
            if *at_us == lease.lapses_at_us {
                let ended = left.min(*credits);
                *credits -= ended;
                left -= ended;
            }
        }
        self.leases.retain(|(credits, _)| *credits > 0);
        let ended = self.price(lease.tokens) - left;
        self.missing = self.missing.saturating_sub(self.price(unspent).min(ended)).max(self.held());
    }
}
