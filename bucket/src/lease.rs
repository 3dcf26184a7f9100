//! Tokens that are given out in advance and spent elsewhere.

use crate::{EXACT, Limit};

/// For how long tokens are leased, and how much of a bucket may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease holds at least, in microseconds; it occupies the bucket for at most twice as long.
    pub ttl_us: u64,
    /// The most that all leases of a bucket may hold together, in hundredths of its burst, up to 100.
    pub share_percent: u64,
}

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The tokens that were granted.
    pub tokens: u64,
    /// From when on the bucket is no longer occupied by it, in microseconds of the store's clock.
    pub lapses_at_us: u64,
}

impl Terms {
    /// When a lease lapses that is granted at `now_us`: at the end of the period of `ttl_us` after the one that
    /// `now_us` is in, so that few leases of a bucket lapse at different times.
    #[must_use]
    pub const fn lapses_at_us(&self, now_us: u64) -> u64 {
        match now_us.checked_div(self.ttl_us) {
            Some(periods) => periods.saturating_add(2).saturating_mul(self.ttl_us),
            None => u64::MAX,
        }
    }

    /// The most tokens that all leases of a bucket may hold together: that share of the burst, rounded down.
    #[must_use]
    pub const fn share_tokens(&self, limit: Limit) -> u64 {
        let (hundreds, rest) = (limit.burst_tokens() / 100, limit.burst_tokens() % 100);
        let percent = if self.share_percent < 100 { self.share_percent } else { 100 };
        hundreds * percent + rest * percent / 100
    }
}

/// What the leases occupy that lapse at the same instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Credits, in the unit of the bucket.
    pub credits: u64,
    /// When they lapse, in microseconds of the store's clock; 0 where there are none.
    pub lapses_at_us: u64,
}

impl Slot {
    /// A slot of no lease.
    pub const EMPTY: Self = Self { credits: 0, lapses_at_us: 0 };

    /// Empty where it has lapsed by `now_us`, or holds nothing.
    const fn at(self, now_us: u64) -> Self {
        if self.lapses_at_us > now_us && self.credits > 0 { self } else { Self::EMPTY }
    }
}

/// All leases of one bucket: those that lapse at one instant share a slot, and there are two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots(pub(crate) [Slot; 2]);

impl Slots {
    pub(crate) const NONE: Self = Self([Slot::EMPTY; 2]);

    /// As they are kept; `None` where a number is out of range.
    pub(crate) const fn restore(slots: [Slot; 2]) -> Option<Self> {
        let [first, last] = slots;
        let exact = first.credits < EXACT
            && first.lapses_at_us < EXACT
            && last.credits < EXACT
            && last.lapses_at_us < EXACT;
        if exact { Some(Self([first.at(0), last.at(0)])) } else { None }
    }

    /// Those that have not lapsed by `now_us`.
    pub(crate) const fn at(self, now_us: u64) -> Self {
        let [first, last] = self.0;
        Self([first.at(now_us), last.at(now_us)])
    }

    /// In a unit of which a token costs `to`, where it cost `from`: rounded up, and below 2^53.
    pub(crate) fn convert(self, from: u64, to: u64) -> Self {
        Self(self.0.map(|slot| {
            let credits = (u128::from(slot.credits) * u128::from(to)).div_ceil(u128::from(from));
            Slot { credits: u64::try_from(credits).unwrap_or(u64::MAX).min(EXACT - 1), ..slot }
        }))
    }

    /// As they lapse by a clock that was set back by `step_us`.
    pub(crate) fn set_back(self, step_us: u64) -> Self {
        let set_back = |slot: Slot| Slot { lapses_at_us: slot.lapses_at_us.saturating_sub(step_us), ..slot };
        Self(self.0.map(set_back))
    }

    /// Credits that the leases hold together, below 2^53.
    pub(crate) const fn held(&self) -> u64 {
        let [first, last] = self.0;
        let sum = first.credits + last.credits;
        if sum < EXACT { sum } else { EXACT - 1 }
    }

    /// What they hold together until the first lapse, and after it until the last.
    pub(crate) const fn steps(&self) -> [(u64, u64); 2] {
        let [mut first, mut last] = self.0;
        if first.lapses_at_us > last.lapses_at_us {
            (first, last) = (last, first);
        }
        [(self.held(), first.lapses_at_us), (last.credits, last.lapses_at_us)]
    }

    /// Whether leases that lapse at `lapses_at_us` have a place.
    pub(crate) fn has_place(&self, lapses_at_us: u64) -> bool {
        self.0.iter().any(|slot| slot.lapses_at_us == lapses_at_us || slot.credits == 0)
    }

    /// Adds a lease that has a place.
    pub(crate) fn add(&mut self, credits: u64, lapses_at_us: u64) {
        let [first, last] = &mut self.0;
        let slot = if first.lapses_at_us == lapses_at_us {
            first
        } else if last.lapses_at_us == lapses_at_us || first.credits > 0 {
            last
        } else {
            first
        };
        *slot = Slot { credits: slot.credits + credits, lapses_at_us };
    }

    /// Takes up to `credits` out of what lapses at `lapses_at_us`; how much that was.
    pub(crate) fn remove(&mut self, credits: u64, lapses_at_us: u64) -> u64 {
        let Some(slot) = self.0.iter_mut().find(|slot| slot.credits > 0 && slot.lapses_at_us == lapses_at_us)
        else {
            return 0;
        };
        let removed = credits.min(slot.credits);
        slot.credits -= removed;
        *slot = slot.at(0);
        removed
    }
}
