//! Counting a bucket at an instant.

use crate::{
    EXACT, Lease, Limit, Terms,
    lease::{Slot, Slots},
};

/// What a store keeps of one bucket. A bucket that is not kept is a full one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    credits: i64,
    unit: u64,
    at_us: u64,
    slots: Slots,
}

impl Bucket {
    /// A bucket as a store kept it: `credits` of which a token costs `unit`, counted at `at_us`. Credits below 0 are
    /// a debt.
    ///
    /// `None` where a number is out of range, which no store of ours writes: such a bucket counts as missing.
    #[must_use]
    pub const fn restore(credits: i64, unit: u64, at_us: u64) -> Option<Self> {
        if credits.unsigned_abs() < EXACT && unit > 0 && unit < EXACT && at_us < EXACT {
            Some(Self { credits, unit, at_us, slots: Slots::NONE })
        } else {
            None
        }
    }

    /// The same bucket with leases, as a store kept them.
    ///
    /// `None` where a number is 2^53 or more: such a bucket counts as missing.
    #[must_use]
    pub const fn with_leases(self, slots: [Slot; 2]) -> Option<Self> {
        match Slots::restore(slots) {
            Some(slots) => Some(Self { slots, ..self }),
            None => None,
        }
    }

    /// What its leases occupied when it was counted; `None` where there were none.
    #[must_use]
    pub const fn leases(&self) -> Option<[Slot; 2]> {
        if self.slots.held() > 0 { Some(self.slots.0) } else { None }
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

    /// The same bucket, counted `by_us` microseconds earlier, its leases granted as much earlier: as if that much time
    /// had passed since.
    #[must_use]
    pub fn aged(self, by_us: u64) -> Self {
        Self { at_us: self.at_us.saturating_sub(by_us), slots: self.slots.set_back(by_us).at(0), ..self }
    }
}

/// What a store does with a bucket after a take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing was taken, returned or leased: leave what is kept as it is.
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
    /// Credits that the bucket is short of being full, below 2^53; more than its capacity where it is in debt, and
    /// never less than its leases hold.
    missing: u64,
    /// None that has lapsed.
    slots: Slots,
    now_us: u64,
    changed: bool,
}

impl Level {
    /// Counts `bucket` at `now_us` under `limit`.
    ///
    /// Credits counted in another unit are converted, rounded down, and what leases hold, rounded up; a debt beyond
    /// 2^53 − 1 credits short of full is forgiven; then the time since is credited, as far as leases leave room: each
    /// gives its room back when it lapses; then the burst caps the sum. A bucket counted later than `now_us` (the
    /// clock went back) earns nothing for the time between and is kept anew, counted at `now_us`, even where nothing is
    /// taken from it, and its leases lapse as much earlier: so a clock that went back locks nobody out until it has
    /// caught up.
    #[must_use]
    pub fn count(limit: Limit, bucket: Option<Bucket>, now_us: u64) -> Self {
        let Some(bucket) = bucket else {
            return Self { limit, missing: 0, slots: Slots::NONE, now_us, changed: false };
        };
        let mut slots = bucket.slots.at(bucket.at_us).set_back(bucket.at_us.saturating_sub(now_us));
        let mut credits = i128::from(bucket.credits);
        if bucket.unit != limit.period_us() {
            credits = (credits * i128::from(limit.period_us())).div_euclid(i128::from(bucket.unit));
            slots = slots.convert(bucket.unit, limit.period_us());
        }
        let missing = (i128::from(limit.capacity_credits()) - credits).max(0);
        let missing = u64::try_from(missing).unwrap_or(u64::MAX).min(EXACT - 1);
        // What is missing of `missing` that was so at `since_us`.
        let still = |missing: u64, since_us: u64| {
            missing.saturating_sub(now_us.saturating_sub(since_us).saturating_mul(limit.tokens()))
        };
        let [until_first, until_last] = slots.steps().map(|(held, lapses_at_us)| still(held, lapses_at_us));
        let missing = still(missing, bucket.at_us).max(until_first).max(until_last);
        Self { limit, missing, slots: slots.at(now_us), now_us, changed: bucket.at_us > now_us }
    }

    /// Whole tokens in the bucket; 0 where it is in debt.
    #[must_use]
    pub const fn remaining_tokens(&self) -> u64 {
        self.limit.capacity_credits().saturating_sub(self.missing) / self.limit.period_us()
    }

    /// Microseconds until the bucket is full, and all of its leases have lapsed, if nothing more is taken or returned.
    #[must_use]
    pub fn full_after_us(&self) -> u64 {
        self.after_us(0)
    }

    /// Microseconds until the bucket holds `cost_tokens`, a debt paid first, if nothing is returned; 0 where it does,
    /// and for a cost of 0, which asks for nothing; `None` where it never will, since the cost is larger than the
    /// burst.
    #[must_use]
    pub fn wait_us(&self, cost_tokens: u64) -> Option<u64> {
        if cost_tokens > self.limit.burst_tokens() {
            return None;
        }
        if cost_tokens == 0 {
            return Some(0);
        }
        // What the bucket may be short of being full and still hold the cost.
        Some(self.after_us(self.limit.capacity_credits() - cost_tokens * self.limit.period_us()))
    }

    /// Microseconds until the bucket is short of at most `spare` credits; 2^53 − 1 at most, which is 285 years.
    fn after_us(&self, spare: u64) -> u64 {
        let earning_us = |missing: u64| missing.saturating_sub(spare).div_ceil(self.limit.tokens());
        let waits = self.slots.steps().map(|(held, lapses_at_us)| {
            // While leases hold more than that, the bucket gets no further.
            if held > spare { lapses_at_us.saturating_sub(self.now_us) + earning_us(held) } else { 0 }
        });
        earning_us(self.missing).max(waits[0]).max(waits[1]).min(EXACT - 1)
    }

    /// The most tokens that may be leased on `terms`: whole tokens in the bucket, and within the share.
    #[must_use]
    pub fn leasable_tokens(&self, terms: Terms) -> u64 {
        let lapses_at_us = terms.lapses_at_us(self.now_us);
        if lapses_at_us >= EXACT || !self.slots.has_place(lapses_at_us) {
            return 0;
        }
        let share = terms.share_tokens(self.limit) * self.limit.period_us();
        let left_tokens = share.saturating_sub(self.slots.held()) / self.limit.period_us();
        left_tokens.min(self.remaining_tokens())
    }

    pub(crate) const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Leases `tokens`, which are leasable.
    pub(crate) fn lease(&mut self, tokens: u64, terms: Terms) {
        if tokens > 0 {
            self.debit(tokens);
            self.slots.add(tokens * self.limit.period_us(), terms.lapses_at_us(self.now_us));
        }
    }

    /// Ends `lease`, of which `unspent_tokens` go back into the bucket; nothing where it has lapsed.
    pub(crate) fn end(&mut self, lease: Lease, unspent_tokens: u64) {
        let price = |tokens: u64| tokens.saturating_mul(self.limit.period_us());
        let ended = self.slots.remove(price(lease.tokens), lease.lapses_at_us);
        if ended > 0 {
            let unspent = price(unspent_tokens).min(ended);
            self.missing = self.missing.saturating_sub(unspent).max(self.slots.held());
            self.changed = true;
        }
    }

    /// Takes `cost_tokens`, into debt where the bucket holds less, but not so deep that credits could no longer be
    /// counted exactly.
    pub(crate) fn debit(&mut self, cost_tokens: u64) {
        let price = cost_tokens.saturating_mul(self.limit.period_us());
        self.missing = self.missing.saturating_add(price).min(EXACT - 1);
        self.changed |= cost_tokens > 0;
    }

    /// Returns `cost_tokens`, up to the burst less what leases hold.
    pub(crate) fn credit(&mut self, cost_tokens: u64) {
        let price = cost_tokens.saturating_mul(self.limit.period_us());
        self.missing = self.missing.saturating_sub(price).max(self.slots.held());
        self.changed |= cost_tokens > 0;
    }

    /// What a store does with the bucket now.
    #[must_use]
    pub fn keep(&self) -> Keep {
        if !self.changed {
            return Keep::AsItIs;
        }
        if self.missing == 0 {
            return Keep::Nothing;
        }
        let credits = self.limit.capacity_credits().cast_signed() - self.missing.cast_signed();
        let (unit, at_us, slots) = (self.limit.period_us(), self.now_us, self.slots);
        let bucket = Bucket { credits, unit, at_us, slots };
        Keep::Bucket(bucket, self.full_after_us())
    }
}
