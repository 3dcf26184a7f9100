//! How often what was decided.

use std::ops::AddAssign;

use serde::Serialize;
use utoipa::ToSchema;

use super::recent::{Recent, Renew};

/// How long [`Tally::last_10s`] looks back.
const TEN_SECONDS_US: u64 = 10_000_000;

/// How often what was decided. Each take counts once, but that of a lease, which counts its tokens, and what only settles or
/// returns, which counts nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counts {
    /// Takes that were allowed.
    pub allowed: u64,
    /// Takes that were denied, because their buckets had no room or never will. Of a policy only where its own bucket
    /// denied.
    pub denied: u64,
    /// Takes that the store could not decide, or not before the client gave up.
    pub failed: u64,
    /// Takes of policies in shadow that would have been denied. What is in shadow counts for nothing else.
    pub shadow_denied: u64,
    /// Takes that were denied because an operator has blocked the bucket; none of them counts as `denied`.
    pub blocked: u64,
    /// Requests that filters denied by what they remember, as they tell it later: as a rule with the next take that asks the
    /// same. Of a policy those that its own bucket denied; of all, rather a few too few than too many.
    pub repeats: u64,
    /// Tokens that were leased to filters, to be spent without asking.
    pub leased_tokens: u64,
}

/// What a take counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    Denied,
    Failed,
    ShadowDenied,
    Blocked,
    Repeated,
    Leased,
}

impl Counts {
    fn add(&mut self, outcome: Outcome, count: u64) {
        let field = match outcome {
            Outcome::Allowed => &mut self.allowed,
            Outcome::Denied => &mut self.denied,
            Outcome::Failed => &mut self.failed,
            Outcome::ShadowDenied => &mut self.shadow_denied,
            Outcome::Blocked => &mut self.blocked,
            Outcome::Repeated => &mut self.repeats,
            Outcome::Leased => &mut self.leased_tokens,
        };
        *field = field.saturating_add(count);
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        let Self { allowed, denied, failed, shadow_denied, blocked, repeats, leased_tokens } = other;
        self.add(Outcome::Allowed, *allowed);
        self.add(Outcome::Denied, *denied);
        self.add(Outcome::Failed, *failed);
        self.add(Outcome::ShadowDenied, *shadow_denied);
        self.add(Outcome::Blocked, *blocked);
        self.add(Outcome::Repeated, *repeats);
        self.add(Outcome::Leased, *leased_tokens);
    }
}

impl Renew for Counts {
    fn renew(&mut self) {
        *self = Self::default();
    }
}

type Seconds = Recent<Counts, 1_000_000, 10>;

/// Counts since the start, and those of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    total: Counts,
    seconds: Seconds,
}

impl Tally {
    pub(super) fn add(&mut self, outcome: Outcome, count: u64, now_us: u64) {
        self.total.add(outcome, count);
        self.seconds.at(now_us).add(outcome, count);
    }

    /// Whether anything was ever counted.
    pub(super) fn is_used(&self) -> bool {
        self.total != Counts::default()
    }

    /// Since the start.
    pub(super) fn total(&self) -> Counts {
        self.total
    }

    /// Of the last ten seconds, the one that is under way among them.
    pub(super) fn last_10s(&self, now_us: u64) -> Counts {
        let mut counts = Counts::default();
        self.seconds.within(now_us, TEN_SECONDS_US).for_each(|second| counts += second);
        counts
    }

    /// How far back [`last_10s`](Self::last_10s) counts: less than ten seconds by up to one.
    pub(super) fn covers_us(now_us: u64) -> u64 {
        Seconds::covers_us(now_us, TEN_SECONDS_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_seconds_pass_and_the_total_stays() {
        let mut tally = Tally::default();
        for second in 0..30 {
            tally.add(Outcome::Denied, 2, second * 1_000_000);
            let expected = 2 * (second + 1).min(10);
            assert_eq!(tally.last_10s(second * 1_000_000).denied, expected);
        }
        assert_eq!(tally.last_10s(60_000_000), Counts::default());
        assert_eq!(tally.total(), Counts { denied: 60, ..Counts::default() });
    }

    #[test]
    fn no_count_runs_over() {
        let mut tally = Tally::default();
        tally.add(Outcome::Repeated, u64::MAX, 0);
        tally.add(Outcome::Repeated, u64::MAX, 0);
        tally.add(Outcome::Leased, 3, 0);
        assert_eq!(tally.total(), Counts { repeats: u64::MAX, leased_tokens: 3, ..Counts::default() });
    }
}
