//! Counting a bucket at an instant.

use crate::{EXACT, Limit};

/// What a store keeps of one bucket. A bucket that is not kept is a full one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    credits: i64,
    unit: u64,
    at_us: u64,
}

impl Bucket {
    /// A bucket as a store kept it: `credits` of which a token costs `unit`, counted at `at_us`. Credits below 0 are
    /// a debt.
    ///
    /// `None` where a number is out of range, which no store of ours writes: such a bucket counts as missing.
    #[must_use]
    pub const fn restore(credits: i64, unit: u64, at_us: u64) -> Option<Self> {
        if credits.unsigned_abs() < EXACT && unit > 0 && unit < EXACT && at_us < EXACT {
            Some(Self { credits, unit, at_us })
        } else {
            None
        }
    }

    /// Credits in the bucket when it was counted; below 0 where it was in debt.
    #[must_use]
    pub const fn credits(&self) -> i64 {
        self.credits
    }

    /// Credits that a token cost when the bucket was counted.
    #[must_use]
    pub const fn unit(&self) -> u64 {
        self.unit
    }

    /// When the bucket was counted, in microseconds of the store's clock.
    #[must_use]
    pub const fn at_us(&self) -> u64 {
        self.at_us
    }

    /// The same bucket, counted `by_us` microseconds earlier: as if that much time had passed since.
    #[must_use]
    pub const fn aged(self, by_us: u64) -> Self {
        Self { at_us: self.at_us.saturating_sub(by_us), ..self }
    }
}

/// What a store does with a bucket after a take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing was taken or returned: leave what is kept as it is.
    AsItIs,
    /// Keep this bucket, at least until it is full: `full_after_us` microseconds from now.
    Bucket(Bucket, u64),
    /// The bucket is full: forget it.
    Nothing,
}

/// A bucket as it stands at one instant under one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    limit: Limit,
    /// Credits that the bucket is short of being full, below 2^53; more than its capacity where it is in debt.
    missing: u64,
    now_us: u64,
    changed: bool,
}

impl Level {
    /// Counts `bucket` at `now_us` under `limit`.
    ///
    /// Credits counted in another unit are converted, rounded down; a debt beyond 2^53 − 1 credits short of full is
    /// forgiven; then the time since is credited; then the burst caps the sum. A bucket counted later than `now_us`
    /// (the clock went back) earns nothing for the time between and is kept anew, counted at `now_us`, even where
    /// nothing is taken from it: so a clock that went back locks nobody out until it has caught up.
    #[must_use]
    pub fn count(limit: Limit, bucket: Option<Bucket>, now_us: u64) -> Self {
        let Some(bucket) = bucket else {
            return Self { limit, missing: 0, now_us, changed: false };
        };
        let credits = i128::from(bucket.credits);
        let kept = if bucket.unit == limit.period_us() {
            credits
        } else {
            (credits * i128::from(limit.period_us())).div_euclid(i128::from(bucket.unit))
        };
        let missing = (i128::from(limit.capacity_credits()) - kept).max(0);
        let missing = u64::try_from(missing).unwrap_or(u64::MAX).min(EXACT - 1);
        let elapsed_us = now_us.saturating_sub(bucket.at_us);
        let earned = elapsed_us.saturating_mul(limit.tokens());
        Self { limit, missing: missing.saturating_sub(earned), now_us, changed: bucket.at_us > now_us }
    }

    /// Whole tokens in the bucket; 0 where it is in debt.
    #[must_use]
    pub const fn remaining_tokens(&self) -> u64 {
        self.limit.capacity_credits().saturating_sub(self.missing) / self.limit.period_us()
    }

    /// Microseconds until the bucket is full if nothing more is taken.
    #[must_use]
    pub const fn full_after_us(&self) -> u64 {
        self.missing.div_ceil(self.limit.tokens())
    }

    /// Microseconds until the bucket holds `cost_tokens`, a debt paid first; 0 where it does, and for a cost of 0,
    /// which asks for nothing; `None` where it never will, since the cost is larger than the burst.
    #[must_use]
    pub const fn wait_us(&self, cost_tokens: u64) -> Option<u64> {
        if cost_tokens > self.limit.burst_tokens() {
            return None;
        }
        if cost_tokens == 0 {
            return Some(0);
        }
        // What the bucket may be short of being full and still hold the cost.
        let spare = self.limit.capacity_credits() - cost_tokens * self.limit.period_us();
        Some(self.missing.saturating_sub(spare).div_ceil(self.limit.tokens()))
    }

    /// Takes `cost_tokens`, into debt where the bucket holds less, but not so deep that credits could no longer be
    /// counted exactly.
    pub(crate) fn debit(&mut self, cost_tokens: u64) {
        let price = cost_tokens.saturating_mul(self.limit.period_us());
        self.missing = self.missing.saturating_add(price).min(EXACT - 1);
        self.changed |= cost_tokens > 0;
    }

    /// Returns `cost_tokens`, up to the burst.
    pub(crate) fn credit(&mut self, cost_tokens: u64) {
        let price = cost_tokens.saturating_mul(self.limit.period_us());
        self.missing = self.missing.saturating_sub(price);
        self.changed |= cost_tokens > 0;
    }

    /// What a store does with the bucket now.
    #[must_use]
    pub const fn keep(&self) -> Keep {
        if !self.changed {
            return Keep::AsItIs;
        }
        if self.missing == 0 {
            return Keep::Nothing;
        }
        let credits = self.limit.capacity_credits().cast_signed() - self.missing.cast_signed();
        let bucket = Bucket { credits, unit: self.limit.period_us(), at_us: self.now_us };
        Keep::Bucket(bucket, self.full_after_us())
    }
}
