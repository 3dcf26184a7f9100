//! Whose requests are most, and whose denials: a sketch for each slice of time, which remembers few keys of any number.
//!
//! [HeavyKeeper](https://www.usenix.org/conference/atc18/presentation/gong) counts a key that comes often almost exactly, and
//! forgets those that come seldom: it tells too little of a key, never too much.

use std::{collections::HashMap, fmt};

use foldhash::fast::RandomState;
use heavykeeper::BucketedTopK;

use super::{
    policies::PolicyId,
    recent::{Recent, Renew},
};

/// The most keys that are remembered of a slice, and so the most that may be asked for.
pub const MAX_KEYS: usize = 100;

/// The longest window.
pub const MAX_WINDOW_US: u64 = 60_000_000;

/// The cells of a sketch: `WIDTH` times `DEPTH`, of 16 bytes each. A key's count is disturbed by the few that share its row.
const WIDTH: usize = 512;
const DEPTH: usize = 4;

/// The most steps that a count makes in a sketch to take the place of another key: enough to take that of any that comes seldom.
const STEPS: u64 = 1 << 12;

/// How soon a key that comes seldom gives its cell to another.
const DECAY: f64 = 0.9;

type Slices = Recent<Sketch, 2_500_000, 24>;

/// The keys of all policies, over the last minute.
#[derive(Debug, Default)]
pub(super) struct Top {
    requests: Slices,
    denied: Slices,
    /// Where the name of a key is put together.
    name: Vec<u8>,
}

/// By what keys are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Requests,
    Denied,
}

/// How often a key was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Often {
    /// How many requests there were.
    pub(super) requests: u64,
    /// How many of them were denied.
    pub(super) denied: u64,
}

/// A key, and how often it was seen in the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hot {
    pub(super) policy: PolicyId,
    pub(super) key: String,
    pub(super) requests: u64,
    pub(super) denied: u64,
}

impl Top {
    /// Counts what was seen of a key. `steps_left` bounds what that may cost, since a key that has no place in a sketch makes a
    /// step for each time that it was seen; a single one it always makes.
    pub(super) fn add(
        &mut self,
        policy: PolicyId,
        key: &str,
        often: Often,
        steps_left: &mut u64,
        now_us: u64,
    ) {
        let Often { requests, denied } = often;
        self.name.clear();
        self.name.extend_from_slice(&policy.to_bytes());
        self.name.extend_from_slice(key.as_bytes());
        for (slices, count) in [(&mut self.requests, requests), (&mut self.denied, denied)] {
            if count > 0 {
                let steps = count.min(STEPS).min(*steps_left).max(1);
                *steps_left = steps_left.saturating_sub(steps);
                slices.at(now_us).add(&self.name, count, steps);
            }
        }
    }

    /// Those that were seen most in the window, of the policies that are wanted; at most `limit`, the most first.
    pub(super) fn hottest(
        &self,
        by: By,
        window_us: u64,
        limit: usize,
        now_us: u64,
        wanted: impl Fn(PolicyId) -> bool,
    ) -> Vec<Hot> {
        let ranked = match by {
            By::Requests => &self.requests,
            By::Denied => &self.denied,
        };
        let slices = ranked.within(now_us, window_us);
        let mut counted = foremost(slices, limit.saturating_mul(2), wanted);
        for (counted, name) in &mut counted {
            *counted = count(ranked, name, window_us, now_us);
        }
        sort(&mut counted);
        counted.truncate(limit);
        let hot = counted.into_iter().filter_map(|(counted, name)| {
            let (policy, key) = split(&name)?;
            let (requests, denied) = match by {
                By::Requests => (counted, count(&self.denied, &name, window_us, now_us)),
                By::Denied => (count(&self.requests, &name, window_us, now_us), counted),
            };
            // Each is told by a sketch of its own, of which either may have missed some.
            let requests = requests.max(denied);
            Some(Hot { policy, key: String::from_utf8_lossy(key).into_owned(), requests, denied })
        });
        hot.collect()
    }

    /// How much of a window is told of.
    pub(super) fn covers_us(now_us: u64, window_us: u64) -> u64 {
        Slices::covers_us(now_us, window_us)
    }
}

/// Those that are most by what the slices list, which may lack a key where it was none of the most: so they are counted anew.
/// To look each of thousands of names up in every slice would hold up takes for milliseconds.
fn foremost<'a>(
    slices: impl Iterator<Item = &'a Sketch>,
    limit: usize,
    wanted: impl Fn(PolicyId) -> bool,
) -> Vec<(u64, Vec<u8>)> {
    let mut sums = HashMap::<Vec<u8>, u64, RandomState>::default();
    for (count, name) in slices.flat_map(Sketch::listed) {
        if split(&name).is_some_and(|(policy, _)| wanted(policy)) {
            let sum = sums.entry(name).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    let mut listed: Vec<(u64, Vec<u8>)> = sums.into_iter().map(|(name, sum)| (sum, name)).collect();
    sort(&mut listed);
    listed.truncate(limit);
    listed
}

/// The most first; by name where they are equal, so that a list does not change by itself.
fn sort(counted: &mut [(u64, Vec<u8>)]) {
    counted.sort_unstable_by(|(more, first), (less, second)| less.cmp(more).then_with(|| first.cmp(second)));
}

fn count(slices: &Slices, name: &[u8], window_us: u64, now_us: u64) -> u64 {
    slices.within(now_us, window_us).map(|slice| slice.count(name)).fold(0, u64::saturating_add)
}

/// The policy and the key of a name.
fn split(name: &[u8]) -> Option<(PolicyId, &[u8])> {
    let (policy, key) = name.split_first_chunk()?;
    Some((PolicyId::from_bytes(*policy), key))
}

/// What was seen in one slice; nothing at first. Each has a seed of its own, so that nobody can choose keys that meet.
#[derive(Default)]
struct Sketch(Option<Box<BucketedTopK<Vec<u8>>>>);

impl Sketch {
    fn add(&mut self, name: &[u8], count: u64, steps: u64) {
        if self.0.is_none() {
            let made = BucketedTopK::builder().k(MAX_KEYS).width(WIDTH).depth(DEPTH).decay(DECAY).build();
            self.0 = made.ok().map(Box::new);
        }
        if let Some(sketch) = &mut self.0 {
            sketch.add(name, steps);
            // Where it has a place by now, any number is counted in one step.
            if count > steps && sketch.bucket_count(name) > 0 {
                sketch.add(name, count - steps);
            }
        }
    }

    fn count(&self, name: &[u8]) -> u64 {
        self.0.as_ref().map_or(0, |sketch| sketch.count(name))
    }

    /// The keys that were most, each with its count.
    fn listed(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.0.iter().flat_map(|sketch| sketch.list()).map(|node| (node.count, node.item))
    }
}

impl Renew for Sketch {
    fn renew(&mut self) {
        self.0 = None;
    }
}

impl fmt::Debug for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sketch").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::policies::Policies;

    const SLICE_US: u64 = 2_500_000;

    fn keys(hot: &[Hot]) -> Vec<(&str, u64, u64)> {
        hot.iter().map(|hot| (&*hot.key, hot.requests, hot.denied)).collect()
    }

    fn add(top: &mut Top, policy: PolicyId, key: &str, requests: u64, denied: u64, now_us: u64) {
        top.add(policy, key, Often { requests, denied }, &mut { u64::MAX }, now_us);
    }

    fn hottest(top: &Top, by: By, window_us: u64, now_us: u64) -> Vec<Hot> {
        top.hottest(by, window_us, MAX_KEYS, now_us, |_| true)
    }

    /// Numbers that look random and are the same each time.
    fn scattered(n: u64) -> u64 {
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 20
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

        /// Whoever makes more than a hundredth of all requests is found among a hundred thousand, and counted within a tenth.
        #[test]
        fn the_noisy_are_found_among_very_many(
            seed in any::<u64>(),
            noisy in proptest::collection::vec(10_u64..60, 1..10),
        ) {
            let id = Policies::default().id("shop", "per-client");
            let mut top = Top::default();
            let requests: u64 = 400_000;
            let mut made = vec![0_u64; noisy.len()];
            for n in 0..requests {
                // In thousandths of the traffic, each of the noisy has its share.
                let mut draw = scattered(n ^ seed) % 1_000;
                let of = noisy.iter().position(|share| {
                    let is_its = draw < *share;
                    draw = draw.saturating_sub(*share);
                    is_its
                });
                // Spread over a minute, as in a window.
                let now_us = n * 59_999_999 / requests;
                match of {
                    Some(place) => {
                        made[place] += 1;
                        add(&mut top, id, &format!("noisy-{place}"), 1, n % 2, now_us);
                    }
                    None => add(&mut top, id, &format!("quiet-{}", scattered(n + seed) % 100_000), 1, 0, now_us),
                }
            }
            let found = hottest(&top, By::Requests, MAX_WINDOW_US, 59_999_999);
            for (place, made) in made.into_iter().enumerate().filter(|(_, made)| *made > requests / 100) {
                let hot = found.iter().find(|hot| hot.key == format!("noisy-{place}"));
                let hot = hot.unwrap_or_else(|| panic!("noisy-{place} made {made} and is not among {found:?}"));
                prop_assert!(hot.requests <= made && hot.requests >= made - made / 10, "{hot:?} of {made}");
                prop_assert!(hot.denied <= made && 10 * hot.denied >= 3 * made, "{hot:?} of {made}");
            }
        }
    }

    #[test]
    fn the_window_slides() {
        let id = Policies::default().id("shop", "per-client");
        let mut top = Top::default();
        add(&mut top, id, "early", 3, 1, 0);
        add(&mut top, id, "late", 2, 2, 30_000_000);
        let all = [("early", 3, 1), ("late", 2, 2)];
        assert_eq!(keys(&hottest(&top, By::Requests, MAX_WINDOW_US, 30_000_000)), all);
        assert_eq!(keys(&hottest(&top, By::Denied, MAX_WINDOW_US, 30_000_000)), [all[1], all[0]]);
        assert_eq!(keys(&hottest(&top, By::Requests, 10_000_000, 30_000_000)), [all[1]]);
        assert_eq!(keys(&hottest(&top, By::Requests, MAX_WINDOW_US, 59_999_999)), all);
        assert_eq!(keys(&hottest(&top, By::Requests, MAX_WINDOW_US, 60_000_000)), [all[1]]);
        assert_eq!(hottest(&top, By::Requests, MAX_WINDOW_US, 90_000_000), []);
    }

    #[test]
    fn what_a_count_may_cost_is_bounded_and_no_count_for_a_key_that_has_a_place() {
        let id = Policies::default().id("shop", "per-client");
        let mut top = Top::default();
        let often = |requests| Often { requests, denied: requests };
        let mut steps_left = 3 * STEPS;
        top.add(id, "known", often(1 << 40), &mut steps_left, 0);
        assert_eq!(steps_left, STEPS);
        // A thousand keys that come often leave no place for others, however many of each are claimed.
        for n in 0..10_000 {
            add(&mut top, id, &format!("often-{}", n % 5_000), 1_000, 0, 0);
        }
        for n in 0..100 {
            top.add(id, &format!("claimed-{n}"), often(1 << 39), &mut steps_left, 0);
        }
        assert_eq!(steps_left, 0);
        let found = hottest(&top, By::Requests, MAX_WINDOW_US, 0);
        assert_eq!(keys(&found)[0], ("known", 1 << 40, 1 << 40), "all of it");
        assert!(found.iter().filter(|hot| hot.key.starts_with("claimed")).count() < 9, "{found:?}");
    }

    #[test]
    fn few_of_very_many_names_are_looked_up_and_the_right_ones() {
        let id = Policies::default().id("shop", "per-client");
        let mut top = Top::default();
        for slice in 0..24 {
            let now_us = slice * SLICE_US;
            for n in 0..100 {
                add(&mut top, id, &format!("once-{slice}-{n}"), 9, 0, now_us);
            }
            (0..3).for_each(|n| add(&mut top, id, &format!("steady-{n}"), 10 + n, 0, now_us));
        }
        let now_us = 23 * SLICE_US;
        let found = foremost(top.requests.within(now_us, MAX_WINDOW_US), 6, |_| true);
        assert_eq!(found.len(), 6);
        let hot = top.hottest(By::Requests, MAX_WINDOW_US, 3, now_us, |_| true);
        assert_eq!(keys(&hot), [("steady-2", 288, 0), ("steady-1", 264, 0), ("steady-0", 240, 0)]);
    }

    #[test]
    fn keys_of_different_policies_are_different_and_policies_can_be_asked_for() {
        let mut policies = Policies::default();
        let [one, other] = ["one", "other"].map(|policy| policies.id("shop", policy));
        let mut top = Top::default();
        add(&mut top, one, "", 2, 0, 0);
        add(&mut top, other, "", 5, 0, 0);
        add(&mut top, other, "\u{0}<b>\n", 1, 0, 0);
        let of = |policy| top.hottest(By::Requests, MAX_WINDOW_US, MAX_KEYS, 0, |id| id == policy);
        assert_eq!(keys(&of(one)), [("", 2, 0)]);
        assert_eq!(keys(&of(other)), [("", 5, 0), ("\u{0}<b>\n", 1, 0)]);
        let first = top.hottest(By::Requests, MAX_WINDOW_US, 1, 0, |_| true);
        assert_eq!(keys(&first), [("", 5, 0)]);
    }

    #[test]
    fn memory_is_bounded_whatever_keys_are_sent() {
        let id = Policies::default().id("shop", "per-client");
        let mut top = Top::default();
        let slices = MAX_WINDOW_US / SLICE_US;
        for n in 0..slices * 2_000 {
            let key = format!("{n:0>1024}");
            add(&mut top, id, &key, 1 + n % 7, 1 + n % 7, n / 2_000 * SLICE_US);
        }
        let now_us = slices * SLICE_US - 1;
        let sketches = [&top.requests, &top.denied].map(|slices| slices.within(now_us, MAX_WINDOW_US));
        let held = sketches.into_iter().flatten().filter_map(|sketch| sketch.0.as_ref());
        let bytes: usize = held.map(|sketch| sketch.mem_bytes(Vec::capacity)).sum();
        assert!((4 << 20..16 << 20).contains(&bytes), "{bytes} bytes");
        println!("{bytes} bytes with the longest keys");
    }
}
