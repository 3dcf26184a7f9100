//! A take cut into parts that one run each can decide, and put together again.

use bucket::Kind;
use contract::{BucketVerdict, Outcome, Verdict};

use super::slot::slot_of;
use crate::batch::{Ask, Take};

/// How fine a take is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// A part has all buckets of a slot: one node decides them at once.
    Slot,
    /// A part has one bucket. While a slot moves, some of its buckets are on one node and some on another.
    Key,
}

/// Some of a take's buckets, which are decided together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) slot: u16,
    /// The places of its buckets in the whole take.
    pub(super) places: Vec<usize>,
    pub(super) take: Take,
}

/// The parts of a take, none of which follows another.
///
/// They are in the order of their slots, wherever they come from: of two takes of the same buckets, the one that is first
/// at the first slot is first at each, so that they cannot deny each other what both could have had in turn.
pub(super) fn parts(take: &Take, grain: Grain) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (place, ask) in take.buckets.iter().enumerate() {
        let slot = slot_of(&ask.bucket_key);
        match parts.iter_mut().find(|part| grain == Grain::Slot && part.slot == slot) {
            Some(part) => {
                part.places.push(place);
                part.take.buckets.push(ask.clone());
            }
            None => {
                let take = Take { buckets: vec![ask.clone()], kind: take.kind, follows: false };
                parts.push(Part { slot, places: vec![place], take });
            }
        }
    }
    let first_key = |part: &Part| part.take.buckets.first().map(|ask| ask.bucket_key.clone());
    parts.sort_by_cached_key(|part| (part.slot, first_key(part)));
    parts
}

/// The slot that has all keys of these takes, where one has.
pub(super) fn only_slot(takes: &[Take]) -> Option<u16> {
    let mut asks = takes.iter().flat_map(|take| &take.buckets);
    let slot = slot_of(&asks.next()?.bucket_key);
    asks.all(|ask| slot_of(&ask.bucket_key) == slot).then_some(slot)
}

/// The key of all these takes, where there is only one.
pub(super) fn only_key(takes: &[Take]) -> Option<&str> {
    let mut asks = takes.iter().flat_map(|take| &take.buckets);
    let key = &asks.next()?.bucket_key;
    asks.all(|ask| ask.bucket_key == *key).then_some(key)
}

/// Takes in order, cut so that none of a wave meets a bucket of another of it, unless all of them are in one slot:
/// each sees what those before it left, and no more waves are made than that needs.
pub(super) fn waves(takes: Vec<Take>) -> Vec<Vec<Take>> {
    if takes.is_empty() || only_slot(&takes).is_some() {
        return Vec::from_iter(Some(takes).filter(|takes| !takes.is_empty()));
    }
    let mut waves: Vec<Vec<Take>> = Vec::new();
    for take in takes {
        let meets = |wave: &Vec<Take>| {
            let mut asks = wave.iter().flat_map(|other| &other.buckets);
            asks.any(|other| take.buckets.iter().any(|ask| ask.bucket_key == other.bucket_key))
        };
        match waves.last_mut() {
            Some(wave) if !meets(wave) => wave.push(take),
            _ => waves.push(vec![take]),
        }
    }
    waves
}

/// What is asked so that `take` only looks: it follows a take that is denied whatever the bucket holds, since it costs
/// more than the burst, and that changes nothing.
pub(super) fn look(take: Take) -> [Take; 2] {
    let never = take.buckets.first().map(|ask| {
        // A limit is valid only where this is exact.
        let cost_tokens = ask.limit.burst_tokens() + 1;
        Ask { bucket_key: ask.bucket_key.clone(), limit: ask.limit, cost_tokens }
    });
    let denied = Take { buckets: Vec::from_iter(never), kind: Kind::Take, follows: false };
    [denied, Take { follows: true, ..take }]
}

/// The verdicts on a take's buckets, as its parts are told.
#[derive(Debug)]
pub(super) struct Told(Vec<Option<BucketVerdict>>);

impl Told {
    pub(super) fn nothing(take: &Take) -> Self {
        Self(vec![None; take.buckets.len()])
    }

    /// What a part was told, instead of what it was told before; a failure tells nothing.
    pub(super) fn tell(&mut self, part: &Part, verdict: &Verdict) {
        let (Verdict::Allowed(buckets) | Verdict::Denied(buckets) | Verdict::Leased { buckets, .. }) =
            verdict
        else {
            return;
        };
        for (&place, bucket) in part.places.iter().zip(buckets) {
            self.0[place] = Some(bucket.clone());
        }
    }

    /// The verdicts of a take that is denied whatever its other buckets hold: of what nobody tells none is promised.
    pub(super) fn denied(self) -> Vec<BucketVerdict> {
        let unknown = BucketVerdict {
            outcome: Outcome::Allowed,
            remaining: 0,
            retry_after_us: Some(0),
            full_after_us: 0,
            overridden: None,
        };
        self.0.into_iter().map(|told| told.unwrap_or_else(|| unknown.clone())).collect()
    }

    /// Whether each bucket has a verdict.
    pub(super) fn is_whole(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// The verdicts in the take's order, where each bucket has one.
    pub(super) fn all(self) -> Option<Vec<BucketVerdict>> {
        self.0.into_iter().collect()
    }
}

/// The verdict on a take that was not made: denied where one of its buckets denies.
pub(super) fn looked(kind: Kind, buckets: Vec<BucketVerdict>, lapses_at_us: u64) -> Verdict {
    match kind {
        Kind::Lease(_) => Verdict::Leased { tokens: 0, lapses_at_us, buckets },
        _ if buckets.iter().all(|bucket| bucket.outcome == Outcome::Allowed) => Verdict::Allowed(buckets),
        _ => Verdict::Denied(buckets),
    }
}

#[cfg(test)]
mod tests {
    use bucket::Limit;

    use super::*;

    fn take(keys: &[&str]) -> Take {
        let limit = Limit::new(1, 1, 5).expect("valid");
        let ask = |key: &&str| Ask { bucket_key: (*key).to_owned(), limit, cost_tokens: 1 };
        Take { buckets: keys.iter().map(ask).collect(), kind: Kind::Take, follows: true }
    }

    #[test]
    fn a_take_is_cut_by_its_slots_in_their_order_whatever_its_own() {
        let (first, last) = (slot_of("{b}"), slot_of("{a}"));
        assert!(first < last);
        let mut cuts = Vec::new();
        for keys in [["1{a}", "{b}", "2{a}"], ["1{a}", "2{a}", "{b}"]] {
            let take = take(&keys);
            let parts = parts(&take, Grain::Slot);
            assert_eq!(parts.iter().map(|part| part.slot).collect::<Vec<_>>(), [first, last]);
            for part in &parts {
                assert!(!part.take.follows);
                assert_eq!(only_slot(std::slice::from_ref(&part.take)), Some(part.slot));
                for (&place, ask) in part.places.iter().zip(&part.take.buckets) {
                    assert_eq!(*ask, take.buckets[place]);
                }
            }
            cuts.push(parts.into_iter().map(|part| part.take).collect::<Vec<_>>());
        }
        assert_eq!(cuts[0], cuts[1]);
        let fine: Vec<_> =
            parts(&take(&["2{a}", "1{a}"]), Grain::Key).into_iter().map(|part| part.places).collect();
        assert_eq!(fine, [[1], [0]]);
        assert_eq!(only_slot(&[take(&["{a}"]), take(&["{b}"])]), None);
        assert_eq!(only_key(&[take(&["{a}"]), take(&["{a}"])]), Some("{a}"));
        assert_eq!(only_key(&[take(&["{a}"]), take(&["1{a}"])]), None);
    }

    #[test]
    fn takes_that_meet_are_made_one_after_the_other() {
        let sizes = |takes: &[&[&str]]| -> Vec<usize> {
            waves(takes.iter().map(|keys| take(keys)).collect()).iter().map(Vec::len).collect()
        };
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&[&["{a}"], &["{a}"], &["1{a}"]]), [3], "one slot keeps their order");
        assert_eq!(sizes(&[&["{a}"], &["{b}"], &["{c}"]]), [3]);
        assert_eq!(sizes(&[&["{a}", "{b}"], &["{c}"], &["{b}"], &["{d}"]]), [2, 2]);
    }

    #[test]
    fn what_only_looks_follows_what_is_never_allowed() {
        let [denied, looks] = look(Take { follows: false, ..take(&["{a}", "1{a}"]) });
        assert_eq!((denied.buckets.len(), denied.buckets[0].cost_tokens, denied.follows), (1, 6, false));
        assert!(looks.follows);
    }
}
