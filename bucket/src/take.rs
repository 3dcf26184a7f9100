//! Deciding a take, from one bucket or from several at once.

use crate::{Bucket, Keep, Level, Limit};

/// Whether a bucket has room for a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bucket holds the cost.
    Allowed,
    /// It does not yet.
    Denied {
        /// Microseconds until it would if nothing more is taken: denied at every instant before, allowed at it.
        retry_after_us: u64,
    },
    /// The cost is larger than the burst: no wait will help.
    NeverFits,
}

/// What one bucket answers to one cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the bucket has room for the cost.
    pub outcome: Outcome,
    /// Whole tokens in the bucket: after the take where it was made, otherwise as they stand.
    pub remaining_tokens: u64,
    /// Microseconds until the bucket is full if nothing more is taken.
    pub full_after_us: u64,
}

/// What is asked of one bucket, and once [`take_all`] or [`Ask::refund`] has run, what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    level: Level,
    cost_tokens: u64,
    outcome: Outcome,
}

impl Ask {
    /// Asks a bucket, counted under its limit, for `cost_tokens`; a cost of 0 only looks.
    #[must_use]
    pub const fn new(level: Level, cost_tokens: u64) -> Self {
        let outcome = match level.wait_us(cost_tokens) {
            Some(0) => Outcome::Allowed,
            Some(retry_after_us) => Outcome::Denied { retry_after_us },
            None => Outcome::NeverFits,
        };
        Self { level, cost_tokens, outcome }
    }

    /// Returns the cost to the bucket instead of taking it. That is always allowed, and never fills the bucket
    /// beyond its burst.
    pub fn refund(&mut self) {
        self.level.credit(self.cost_tokens);
        self.outcome = Outcome::Allowed;
    }

    /// What this bucket answers.
    #[must_use]
    pub const fn decision(&self) -> Decision {
        Decision {
            outcome: self.outcome,
            remaining_tokens: self.level.remaining_tokens(),
            full_after_us: self.level.full_after_us(),
        }
    }

    /// What the store does with this bucket now.
    #[must_use]
    pub const fn keep(&self) -> Keep {
        self.level.keep()
    }
}

/// Takes from every bucket where all of them allow, otherwise from none; whether all did. Each bucket must be
/// listed once.
#[must_use]
pub fn take_all(asks: &mut [Ask]) -> bool {
    let allowed = asks.iter().all(|ask| ask.outcome == Outcome::Allowed);
    if allowed {
        for ask in asks {
            ask.level.debit(ask.cost_tokens);
        }
    }
    allowed
}

/// Takes `cost_tokens` from one bucket at `now_us`: what is kept of it from now on, and the decision.
///
/// A denied take and a cost of 0 leave the bucket as it was kept, unless it was counted in the future (see
/// [`Level::count`]).
#[must_use]
pub fn take(
    limit: Limit,
    bucket: Option<Bucket>,
    cost_tokens: u64,
    now_us: u64,
) -> (Option<Bucket>, Decision) {
    let mut asks = [Ask::new(Level::count(limit, bucket, now_us), cost_tokens)];
    let _taken = take_all(&mut asks);
    let [ask] = asks;
    (kept(bucket, ask.keep()), ask.decision())
}

/// Returns `cost_tokens` to one bucket at `now_us`: what is kept of it from now on, and how it stands.
#[must_use]
pub fn refund(
    limit: Limit,
    bucket: Option<Bucket>,
    cost_tokens: u64,
    now_us: u64,
) -> (Option<Bucket>, Decision) {
    let mut ask = Ask::new(Level::count(limit, bucket, now_us), cost_tokens);
    ask.refund();
    (kept(bucket, ask.keep()), ask.decision())
}

fn kept(before: Option<Bucket>, keep: Keep) -> Option<Bucket> {
    match keep {
        Keep::AsItIs => before,
        Keep::Bucket(bucket, _) => Some(bucket),
        Keep::Nothing => None,
    }
}
