//! Deciding a take, from one bucket or from several at once.

use crate::{Bucket, Keep, Level, Limit};

/// What is done with the costs of a take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// They are taken where there is room for them.
    #[default]
    Take,
    /// They are returned, up to the burst. That is always allowed.
    Refund,
    /// They are taken whether or not there is room, and may leave the bucket in debt. That is always allowed.
    Charge,
}

/// Whether a bucket has room for a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bucket holds the cost, or none is asked of it: a cost of 0, a refund, a charge.
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
    /// Whole tokens in the bucket, 0 in debt: after the take where it was made, otherwise as they stand.
    pub remaining_tokens: u64,
    /// Microseconds until the bucket is full if nothing more is taken.
    pub full_after_us: u64,
}

/// What is asked of one bucket, and once [`take_all`] has run, what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    level: Level,
    kind: Kind,
    cost_tokens: u64,
    outcome: Outcome,
}

impl Ask {
    /// Asks a bucket, counted under its limit, for `cost_tokens`; a cost of 0 only looks, and is allowed even where
    /// the bucket is in debt.
    #[must_use]
    pub const fn new(level: Level, kind: Kind, cost_tokens: u64) -> Self {
        let outcome = match kind {
            Kind::Refund | Kind::Charge => Outcome::Allowed,
            Kind::Take => match level.wait_us(cost_tokens) {
                Some(0) => Outcome::Allowed,
                Some(retry_after_us) => Outcome::Denied { retry_after_us },
                None => Outcome::NeverFits,
            },
        };
        Self { level, kind, cost_tokens, outcome }
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

    fn make(&mut self) {
        match self.kind {
            Kind::Take | Kind::Charge => self.level.debit(self.cost_tokens),
            Kind::Refund => self.level.credit(self.cost_tokens),
        }
    }
}

/// Whether every bucket allows its cost. Nothing is taken.
#[must_use]
pub fn look_at_all(asks: &[Ask]) -> bool {
    asks.iter().all(|ask| ask.outcome == Outcome::Allowed)
}

/// Takes from every bucket where all of them allow, otherwise from none; whether all did. Each bucket must be
/// listed once.
#[must_use]
pub fn take_all(asks: &mut [Ask]) -> bool {
    let allowed = look_at_all(asks);
    if allowed {
        asks.iter_mut().for_each(Ask::make);
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
    one(Kind::Take, limit, bucket, cost_tokens, now_us)
}

/// Returns `cost_tokens` to one bucket at `now_us`: what is kept of it from now on, and how it stands.
#[must_use]
pub fn refund(
    limit: Limit,
    bucket: Option<Bucket>,
    cost_tokens: u64,
    now_us: u64,
) -> (Option<Bucket>, Decision) {
    one(Kind::Refund, limit, bucket, cost_tokens, now_us)
}

/// Takes `cost_tokens` from one bucket at `now_us`, into debt where it holds less: what is kept of it from now on,
/// and how it stands.
#[must_use]
pub fn charge(
    limit: Limit,
    bucket: Option<Bucket>,
    cost_tokens: u64,
    now_us: u64,
) -> (Option<Bucket>, Decision) {
    one(Kind::Charge, limit, bucket, cost_tokens, now_us)
}

fn one(
    kind: Kind,
    limit: Limit,
    bucket: Option<Bucket>,
    cost_tokens: u64,
    now_us: u64,
) -> (Option<Bucket>, Decision) {
    let mut asks = [Ask::new(Level::count(limit, bucket, now_us), kind, cost_tokens)];
    let _made = take_all(&mut asks);
    let [ask] = asks;
    let kept = match ask.keep() {
        Keep::AsItIs => bucket,
        Keep::Bucket(bucket, _) => Some(bucket),
        Keep::Nothing => None,
    };
    (kept, ask.decision())
}
