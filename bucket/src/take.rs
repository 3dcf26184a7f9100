//! Deciding a take, from one bucket or from several at once.

use crate::{Bucket, Keep, Lease, Level, Limit, Terms};

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
    /// Up to as many as the cost are leased, as many as each bucket may lease. That is always allowed.
    Lease(Terms),
    /// A lease ends, of which the cost was not spent. That is always allowed.
    Return(Lease),
}

/// Whether a bucket has room for a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bucket holds the cost, or none is asked of it: a cost of 0, any kind but a take.
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
    leased_tokens: u64,
}

impl Ask {
    /// Asks a bucket, counted under its limit, for `cost_tokens`; a cost of 0 only looks, and is allowed even where
    /// the bucket is in debt.
    #[must_use]
    pub fn new(level: Level, kind: Kind, cost_tokens: u64) -> Self {
        let outcome = match kind {
            Kind::Refund | Kind::Charge | Kind::Lease(_) | Kind::Return(_) => Outcome::Allowed,
            Kind::Take => match level.wait_us(cost_tokens) {
                Some(0) => Outcome::Allowed,
                Some(retry_after_us) => Outcome::Denied { retry_after_us },
                None => Outcome::NeverFits,
            },
        };
        Self { level, kind, cost_tokens, outcome, leased_tokens: 0 }
    }

    /// What this bucket answers.
    #[must_use]
    pub fn decision(&self) -> Decision {
        Decision {
            outcome: self.outcome,
            remaining_tokens: self.level.remaining_tokens(),
            full_after_us: self.level.full_after_us(),
        }
    }

    /// What the store does with this bucket now.
    #[must_use]
    pub fn keep(&self) -> Keep {
        self.level.keep()
    }

    /// What was leased, the same from each bucket: 0 tokens until [`take_all`] has run; `None` where none was asked for.
    #[must_use]
    pub fn leased(&self) -> Option<Lease> {
        let Kind::Lease(terms) = self.kind else { return None };
        Some(Lease { tokens: self.leased_tokens, lapses_at_us: terms.lapses_at_us(self.level.now_us()) })
    }

    /// The most tokens that this bucket lets be leased; no bound where it is not asked for a lease.
    fn leasable_tokens(&self) -> u64 {
        match self.kind {
            Kind::Lease(terms) => self.level.leasable_tokens(terms).min(self.cost_tokens),
            _ => u64::MAX,
        }
    }

    fn make(&mut self, leasable_tokens: u64) {
        match self.kind {
            Kind::Take | Kind::Charge => self.level.debit(self.cost_tokens),
            Kind::Refund => self.level.credit(self.cost_tokens),
            Kind::Lease(terms) => {
                self.level.lease(leasable_tokens, terms);
                self.leased_tokens = leasable_tokens;
            }
            Kind::Return(lease) => self.level.end(lease, self.cost_tokens),
        }
    }
}

/// Whether every bucket allows its cost. Nothing is taken.
#[must_use]
pub fn look_at_all(asks: &[Ask]) -> bool {
    asks.iter().all(|ask| ask.outcome == Outcome::Allowed)
}

/// Takes from every bucket where all of them allow, otherwise from none; whether all did. Of a lease, each gives as
/// many tokens as the one that may lease the fewest. Each bucket must be listed once.
#[must_use]
pub fn take_all(asks: &mut [Ask]) -> bool {
    let allowed = look_at_all(asks);
    if allowed {
        let leasable_tokens = asks.iter().map(Ask::leasable_tokens).min().unwrap_or(0);
        asks.iter_mut().for_each(|ask| ask.make(leasable_tokens));
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

/// Leases up to `wanted_tokens` from one bucket at `now_us`: what is kept of it from now on, and what was granted.
#[must_use]
pub fn lease(
    limit: Limit,
    bucket: Option<Bucket>,
    wanted_tokens: u64,
    terms: Terms,
    now_us: u64,
) -> (Option<Bucket>, Lease) {
    let (kept, ask) = ask_one(Kind::Lease(terms), limit, bucket, wanted_tokens, now_us);
    let nothing = Lease { tokens: 0, lapses_at_us: terms.lapses_at_us(now_us) };
    (kept, ask.leased().unwrap_or(nothing))
}

/// Ends `lease` of one bucket at `now_us`, of which `unspent_tokens` are returned: what is kept of it from now on, and
/// how it stands.
#[must_use]
pub fn end_lease(
    limit: Limit,
    bucket: Option<Bucket>,
    lease: Lease,
    unspent_tokens: u64,
    now_us: u64,
) -> (Option<Bucket>, Decision) {
    one(Kind::Return(lease), limit, bucket, unspent_tokens, now_us)
}

fn one(
    kind: Kind,
    limit: Limit,
    bucket: Option<Bucket>,
    cost_tokens: u64,
    now_us: u64,
) -> (Option<Bucket>, Decision) {
    let (kept, ask) = ask_one(kind, limit, bucket, cost_tokens, now_us);
    (kept, ask.decision())
}

fn ask_one(
    kind: Kind,
    limit: Limit,
    bucket: Option<Bucket>,
    cost_tokens: u64,
    now_us: u64,
) -> (Option<Bucket>, Ask) {
    let mut asks = [Ask::new(Level::count(limit, bucket, now_us), kind, cost_tokens)];
    let _made = take_all(&mut asks);
    let [ask] = asks;
    let kept = match ask.keep() {
        Keep::AsItIs => bucket,
        Keep::Bucket(bucket, _) => Some(bucket),
        Keep::Nothing => None,
    };
    (kept, ask)
}
