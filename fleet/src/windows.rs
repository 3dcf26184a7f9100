//! Whether what was admitted kept a promise, in every window.
//!
//! When exactly a request was admitted is not known, only that it was between sending it and hearing of it. So a
//! window counts what was admitted in it for certain, whatever the instants were: a promise that is told to be broken
//! is broken, and with answers that take a millisecond little can hide.

/// What a limit promises of each key: at most `burst_tokens + tokens × w / period_us` in every window of length w.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// How many tokens come in each period.
    pub tokens: u64,
    /// That period.
    pub period_us: u64,
    /// The burst.
    pub burst_tokens: u64,
}

impl Promise {
    /// How many whole tokens come in a time.
    #[must_use]
    pub fn came_tokens(self, length_us: u64) -> u64 {
        self.tokens * length_us / self.period_us
    }
}

/// Tokens that were admitted at some instant from `from_us` to `until_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Not earlier: when its request was sent.
    pub from_us: u64,
    /// Not later: when its answer was heard.
    pub until_us: u64,
    /// How many.
    pub tokens: u64,
}

/// Something between `from_us` and `until_us` for which more may be admitted in the windows that touch it: a store
/// that forgot, a clock that went forward, a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Not earlier.
    pub from_us: u64,
    /// Not later.
    pub until_us: u64,
    /// How many tokens more, at most.
    pub tokens: u64,
}

/// The window that went furthest beyond a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its start.
    pub from_us: u64,
    /// Its end.
    pub until_us: u64,
    /// What was certainly admitted in it.
    pub admitted_tokens: u64,
    /// By how much that is more than promised, rounded up.
    pub over_tokens: u64,
}

/// Tests every window. Nothing where the promise was kept, allowances included.
///
/// Takes O(n log n): over the windows' ends in order, a tree holds for every start what the window would have
/// beyond its promise.
#[must_use]
pub fn worst_window(promise: Promise, admitted: &[Admission], allowed: &[Allowance]) -> Option<Window> {
    let mut starts: Vec<u64> = admitted.iter().map(|admission| admission.from_us).collect();
    starts.sort_unstable();
    starts.dedup();
    let mut by_end: Vec<&Admission> = admitted.iter().collect();
    by_end.sort_unstable_by_key(|admission| admission.until_us);
    let mut allowances: Vec<&Allowance> = allowed.iter().collect();
    allowances.sort_unstable_by_key(|allowance| allowance.from_us);

    let credits = |tokens: u64| i128::from(tokens) * i128::from(promise.period_us);
    let earned = |us: u64| i128::from(us) * i128::from(promise.tokens);
    let capacity = credits(promise.burst_tokens);
    let mut excess = Starts::new(starts.len());
    let mut opened = vec![false; starts.len()];
    let (mut worst, mut next): (Option<(i128, u64, u64)>, usize) = (None, 0);
    for (place, admission) in by_end.iter().enumerate() {
        // Windows that end here or later touch it, if they start before it is certainly over.
        while let Some(allowance) = allowances.get(next).filter(|next| next.from_us <= admission.until_us) {
            let touching = starts.partition_point(|start| *start <= allowance.until_us);
            excess.add(touching, -credits(allowance.tokens));
            next += 1;
        }
        // A window has what began in it and ended before it ends.
        let start = starts.partition_point(|start| *start < admission.from_us);
        if !opened[start] {
            opened[start] = true;
            excess.open(start, earned(starts[start]));
        }
        excess.add(start + 1, credits(admission.tokens));
        if by_end.get(place + 1).is_some_and(|later| later.until_us == admission.until_us) {
            continue;
        }
        let (most, start) = excess.most();
        let over = most - earned(admission.until_us) - capacity;
        if over > worst.map_or(0, |(over, ..)| over) {
            worst = Some((over, starts[start], admission.until_us));
        }
    }
    worst.map(|(over, from_us, until_us)| {
        let inside = admitted.iter().filter(|one| one.from_us >= from_us && one.until_us <= until_us);
        let period = i128::from(promise.period_us);
        Window {
            from_us,
            until_us,
            admitted_tokens: inside.map(|one| one.tokens).sum(),
            over_tokens: u64::try_from((over + period - 1) / period).unwrap_or(u64::MAX),
        }
    })
}

/// For each start a number; those that are not open yet are never the largest. A tree of maxima in an array.
struct Starts {
    leaves: usize,
    /// Of each node: the largest number below it, with what is still to be added to all below it; and whose it is.
    most: Vec<(i128, usize)>,
    pending: Vec<i128>,
}

/// So low that no sum of credits lifts it above one that is open.
const CLOSED: i128 = i128::MIN / 4;

impl Starts {
    fn new(count: usize) -> Self {
        let leaves = count.next_power_of_two();
        let mut most = vec![(CLOSED, 0); 2 * leaves];
        for (leaf, entry) in most[leaves..].iter_mut().enumerate() {
            entry.1 = leaf;
        }
        Self { leaves, most, pending: vec![0; 2 * leaves] }
    }

    fn most(&self) -> (i128, usize) {
        self.most[1]
    }

    /// Adds to the first `count` starts, open or not.
    fn add(&mut self, count: usize, credits: i128) {
        self.add_below(1, 0, self.leaves, 0, count, credits);
    }

    /// Opens a start at `base`, and what was added to it before.
    fn open(&mut self, start: usize, base: i128) {
        self.add_below(1, 0, self.leaves, start, start + 1, base - CLOSED);
    }

    fn add_below(&mut self, node: usize, low: usize, high: usize, from: usize, until: usize, credits: i128) {
        if until <= low || high <= from {
            return;
        }
        if from <= low && high <= until {
            self.most[node].0 += credits;
            self.pending[node] += credits;
            return;
        }
        let middle = low + (high - low) / 2;
        self.add_below(2 * node, low, middle, from, until, credits);
        self.add_below(2 * node + 1, middle, high, from, until, credits);
        let (left, right) = (self.most[2 * node], self.most[2 * node + 1]);
        let larger = if right.0 > left.0 { right } else { left };
        self.most[node] = (larger.0 + self.pending[node], larger.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Promise = Promise { tokens: 10, period_us: 1_000_000, burst_tokens: 5 };

    fn at(us: u64, tokens: u64) -> Admission {
        Admission { from_us: us, until_us: us, tokens }
    }

    /// The same by asking every pair of a start and an end.
    fn by_hand(promise: Promise, admitted: &[Admission], allowed: &[Allowance]) -> u64 {
        let mut worst = 0;
        for from in admitted.iter().map(|one| one.from_us) {
            for until in admitted.iter().map(|one| one.until_us).filter(|until| *until >= from) {
                let inside = admitted.iter().filter(|one| one.from_us >= from && one.until_us <= until);
                let sum: u64 = inside.map(|one| one.tokens).sum();
                let touching = allowed.iter().filter(|one| one.from_us <= until && one.until_us >= from);
                let more: u64 = touching.map(|one| one.tokens).sum();
                let period = i128::from(promise.period_us);
                let over = (i128::from(sum) - i128::from(promise.burst_tokens + more)) * period
                    - i128::from(until - from) * i128::from(promise.tokens);
                worst = worst.max(u64::try_from((over.max(0) + period - 1) / period).unwrap());
            }
        }
        worst
    }

    #[test]
    fn a_promise_that_is_kept_to_the_last_token_is_kept() {
        // The burst at once, then one every 100 ms.
        let mut admitted = vec![at(1_000, 5)];
        admitted.extend((1..=100).map(|number| at(1_000 + number * 100_000, 1)));
        assert_eq!(worst_window(PROMISE, &admitted, &[]), None);
        assert_eq!(worst_window(PROMISE, &[], &[]), None);
    }

    #[test]
    fn a_token_too_many_is_found_in_the_midst() {
        let mut admitted = vec![at(1_000, 5)];
        admitted.extend((1..=100).map(|number| at(1_000 + number * 100_000, 1)));
        admitted.push(at(5_050_000, 1));
        let worst = worst_window(PROMISE, &admitted, &[]).unwrap();
        assert_eq!((worst.from_us, worst.over_tokens), (1_000, 1));
        assert!(worst.until_us >= 5_050_000);
        // A microsecond early is found, too.
        let early = [at(0, 5), at(99_999, 1)];
        let worst = worst_window(PROMISE, &early, &[]).unwrap();
        assert_eq!((worst.admitted_tokens, worst.over_tokens), (6, 1));
    }

    #[test]
    fn what_may_have_been_in_time_is_not_counted() {
        let late = Admission { from_us: 90_000, until_us: 100_000, tokens: 1 };
        assert_eq!(worst_window(PROMISE, &[at(0, 5), late], &[]), None);
        let too_early = Admission { until_us: 99_999, ..late };
        assert_eq!(worst_window(PROMISE, &[at(0, 5), too_early], &[]).map(|one| one.over_tokens), Some(1));
    }

    #[test]
    fn an_allowance_counts_in_the_windows_that_touch_it() {
        let admitted = [at(0, 5), at(10_000, 5), at(20_000, 5)];
        let forgot = |from_us, until_us| Allowance { from_us, until_us, tokens: 5 };
        assert_eq!(worst_window(PROMISE, &admitted, &[]).unwrap().over_tokens, 10);
        assert_eq!(worst_window(PROMISE, &admitted, &[forgot(5_000, 6_000)]).unwrap().over_tokens, 5);
        assert_eq!(worst_window(PROMISE, &admitted, &[forgot(5_000, 6_000), forgot(15_000, 15_000)]), None);
        // What was forgotten before excuses nothing after.
        let before = worst_window(PROMISE, &admitted[1..], &[forgot(5_000, 6_000)]);
        assert_eq!(before.map(|one| one.over_tokens), Some(5));
    }

    #[test]
    fn the_tree_finds_what_every_pair_of_instants_shows() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut broken = 0;
        for _ in 0..500 {
            let span = 1 + random(3_000_000);
            let admitted: Vec<Admission> = (0..random(40))
                .map(|_| {
                    let from_us = random(span);
                    Admission { from_us, until_us: from_us + random(50_000), tokens: random(4) }
                })
                .collect();
            let allowed: Vec<Allowance> = (0..random(3))
                .map(|_| {
                    let from_us = random(span);
                    Allowance { from_us, until_us: from_us + random(50_000), tokens: random(6) }
                })
                .collect();
            let found = worst_window(PROMISE, &admitted, &allowed).map_or(0, |worst| worst.over_tokens);
            assert_eq!(found, by_hand(PROMISE, &admitted, &allowed), "{admitted:?} {allowed:?}");
            broken += u32::from(found > 0);
        }
        assert!((100..400).contains(&broken), "both kinds were tried: {broken}");
    }
}
