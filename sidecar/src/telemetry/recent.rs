//! What was seen lately: slices of time in a ring, of which the oldest makes room for the newest.
//!
//! Nothing turns it by a timer: a slice is renewed when it is next written, and passed over when it is read too late.

/// Something that can be begun anew in its place.
pub(super) trait Renew {
    /// As if nothing had been seen.
    fn renew(&mut self);
}

/// The last `SLICES` slices of `SLICE_US` microseconds each, the one that is under way among them.
#[derive(Debug)]
pub(super) struct Recent<T, const SLICE_US: u64, const SLICES: usize> {
    /// With the number of each, counted from 1; 0 of one that was never written.
    slices: [(u64, T); SLICES],
}

impl<T: Renew + Default, const SLICE_US: u64, const SLICES: usize> Default for Recent<T, SLICE_US, SLICES> {
    fn default() -> Self {
        Self { slices: std::array::from_fn(|_| (0, T::default())) }
    }
}

impl<T: Renew, const SLICE_US: u64, const SLICES: usize> Recent<T, SLICE_US, SLICES> {
    /// The slice that is under way at `now_us`, which is never earlier than before.
    pub(super) fn at(&mut self, now_us: u64) -> &mut T {
        let number = Self::number(now_us);
        let (of, slice) = &mut self.slices[(number % SLICES as u64) as usize];
        if *of != number {
            slice.renew();
            *of = number;
        }
        slice
    }

    /// The slices that began less than `window_us` before the end of the one that is under way: nothing in them is older
    /// than `window_us`.
    pub(super) fn within(&self, now_us: u64, window_us: u64) -> impl Iterator<Item = &T> {
        let newest = Self::number(now_us);
        let oldest = newest.saturating_sub(Self::count_of(window_us) - 1).max(1);
        let slices = self.slices.iter().filter(move |(of, _)| (oldest..=newest).contains(of));
        slices.map(|(_, slice)| slice)
    }

    /// How long before `now_us` the first of [`within`](Self::within) began: at most `window_us`, and less by up to a slice.
    pub(super) fn covers_us(now_us: u64, window_us: u64) -> u64 {
        now_us.min((Self::count_of(window_us) - 1) * SLICE_US + now_us % SLICE_US)
    }

    fn number(now_us: u64) -> u64 {
        now_us / SLICE_US + 1
    }

    fn count_of(window_us: u64) -> u64 {
        (window_us / SLICE_US).clamp(1, SLICES as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Sum(u64);

    impl Renew for Sum {
        fn renew(&mut self) {
            self.0 = 0;
        }
    }

    type Tens = Recent<Sum, 10, 6>;

    fn sum(recent: &Tens, now_us: u64, window_us: u64) -> u64 {
        recent.within(now_us, window_us).map(|sum| sum.0).sum()
    }

    #[test]
    fn nothing_older_than_the_window_is_counted_and_nothing_newer_is_left_out() {
        let mut recent = Tens::default();
        for now_us in 0..500 {
            recent.at(now_us).0 += 1;
            for window_us in [10, 30, 60] {
                let counted = sum(&recent, now_us, window_us);
                assert!(counted <= window_us, "{counted} of {window_us} at {now_us}");
                assert_eq!(counted, Tens::covers_us(now_us, window_us) + 1, "{window_us} at {now_us}");
                assert!(counted + 10 > window_us.min(now_us), "{counted} of {window_us} at {now_us}");
            }
        }
        assert_eq!(sum(&recent, 499, 1_000), 60, "as much as there is");
    }

    #[test]
    fn what_nobody_has_written_since_is_passed_over() {
        let mut recent = Tens::default();
        recent.at(5).0 = 7;
        assert_eq!(sum(&recent, 59, 60), 7);
        assert_eq!(sum(&recent, 60, 60), 0);
        assert_eq!(sum(&recent, 605, 60), 0, "nor taken for the slice that has its place now");
        recent.at(605).0 += 1;
        assert_eq!(sum(&recent, 605, 60), 1);
    }
}
