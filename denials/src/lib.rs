//! Denials that are remembered for as long as they hold.
//!
//! A bucket that denied a cost cannot allow it before its retry-after, whoever else asks meanwhile: others can only
//! take more. So the same question may be answered again without asking. Only what is returned to the bucket, a limit
//! that was raised and a store that forgot make it come true earlier; they are seen once the *ceiling* is over, for
//! which a denial is remembered at most. What would be denied is never allowed, since nothing else is remembered.
//!
//! There is no clock and no I/O here. Times are microseconds of the asker's own monotonic clock, whose zero does not
//! matter. A denial is counted from when its question was *sent*, which was before it was decided, so that it never
//! outlives the truth. What a client is told is counted from when the answer was *heard* ([`aged`]), which was after it
//! was decided, so that nobody is told to come back too early.

#![forbid(unsafe_code)]

use std::{
    borrow::Borrow,
    hash::{Hash, RandomState},
};

use contract::{BucketVerdict, Outcome};
use hashlink::LruCache;

/// Of what was used least recently, how many denials are looked at for each that is remembered: more than one, so that
/// what holds no longer is given back faster than it comes.
const LOOKED_AT_PER_INSERT: usize = 4;

/// What is known of at most so many buckets: of more, what was used least recently is forgotten first. What holds no
/// longer is forgotten where it is met, and a few at a time as others are remembered, so that a burst of names does not
/// keep its memory.
///
/// `K` names a bucket, or a bucket and the limit that it is held to: a denial under one limit says nothing under
/// another. `V` is whatever the asker wants back. Keys are compared in full, and are hashed with a seed of their own,
/// since clients choose them.
#[derive(Debug)]
pub struct Denials<K, V> {
    known: LruCache<K, Known<V>, RandomState>,
    ceiling_us: u64,
}

/// What is known of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked<'a, V> {
    /// It is certainly denied; what was remembered with that.
    Denied(&'a mut V),
    /// It was denied, which holds no longer: what was remembered is there until it is [removed](Denials::remove).
    Over,
    /// Nothing, or only of another cost.
    Unknown,
}

/// What is known of one bucket.
#[derive(Debug)]
struct Known<V> {
    cost_tokens: u64,
    until_us: u64,
    value: V,
}

impl<K: Hash + Eq, V> Denials<K, V> {
    /// Room for `entries` denials, each remembered for at most `ceiling_us` microseconds. Where either is 0, nothing is
    /// remembered.
    #[must_use]
    pub fn new(entries: usize, ceiling_us: u64) -> Self {
        Self { known: LruCache::with_hasher(entries, RandomState::new()), ceiling_us }
    }

    /// Remembers that `key` denied `cost_tokens`, instead of what was known of it before, which is given back.
    ///
    /// `wait_us` is its retry-after, in microseconds; without one, such as where the cost never fits, it holds for the
    /// ceiling. `asked_at_us` is when the question was sent.
    pub fn insert(
        &mut self,
        key: K,
        cost_tokens: u64,
        wait_us: Option<u64>,
        asked_at_us: u64,
        value: V,
    ) -> Option<V> {
        let holds_us = wait_us.map_or(self.ceiling_us, |wait_us| wait_us.min(self.ceiling_us));
        if holds_us == 0 || self.known.capacity() == 0 {
            return None;
        }
        self.forget_expired(asked_at_us);
        let until_us = asked_at_us.saturating_add(holds_us);
        self.known.insert(key, Known { cost_tokens, until_us, value }).map(|known| known.value)
    }

    /// Forgets a few that hold no longer at `now_us`, or at any time after it, from the end that was used least recently.
    fn forget_expired(&mut self, now_us: u64) {
        for _ in 0..LOOKED_AT_PER_INSERT {
            // The first is the one that was used least recently.
            if self.known.iter().next().is_none_or(|(_, known)| now_us < known.until_us) {
                return;
            }
            self.known.remove_lru();
        }
    }

    /// What was remembered of `key`, where it certainly denies `cost_tokens` at `now_us`. What holds no longer is
    /// forgotten.
    pub fn get<Q>(&mut self, key: &Q, cost_tokens: u64, now_us: u64) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if self.known.peek(key).is_some_and(|known| known.until_us <= now_us) {
            self.known.remove(key);
        }
        match self.look(key, cost_tokens, now_us) {
            Looked::Denied(value) => Some(value),
            Looked::Over | Looked::Unknown => None,
        }
    }

    /// The same, but what holds no longer is told of instead of being forgotten, for whoever wants what was remembered.
    pub fn look<Q>(&mut self, key: &Q, cost_tokens: u64, now_us: u64) -> Looked<'_, V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let Some(known) = self.known.peek(key) else { return Looked::Unknown };
        if known.until_us <= now_us {
            return Looked::Over;
        }
        // Another cost may fit, and what is known of this one still holds.
        if known.cost_tokens != cost_tokens {
            return Looked::Unknown;
        }
        self.known.get_mut(key).map_or(Looked::Unknown, |known| Looked::Denied(&mut known.value))
    }

    /// Forgets what is known of `key`, as it must be where something is returned to it; gives back what was remembered.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.known.remove(key).map(|known| known.value)
    }

    /// What is known of `key` holds no longer from now on, as where something is returned to it: what was remembered is
    /// still there to be [removed](Self::remove).
    pub fn end<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(known) = self.known.peek_mut(key) {
            known.until_us = 0;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// How many buckets something is remembered of, though it may hold no longer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// How `verdict` reads `elapsed_us` microseconds after it was heard, if nothing was taken or returned meanwhile: the
/// times are shorter by that, `remaining` is as it was. A denial that is still told has at least a microsecond to wait.
#[must_use]
pub fn aged(verdict: &BucketVerdict, elapsed_us: u64) -> BucketVerdict {
    let least_us = u64::from(verdict.outcome == Outcome::Denied);
    let retry_after_us =
        verdict.retry_after_us.map(|wait_us| wait_us.saturating_sub(elapsed_us).max(least_us));
    // A bucket is never full before it has room.
    let full_after_us =
        verdict.full_after_us.saturating_sub(elapsed_us).max(retry_after_us.unwrap_or_default());
    BucketVerdict { retry_after_us, full_after_us, ..verdict.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_holds_for_its_cost_until_it_has_waited() {
        let mut denials = Denials::new(8, 1_000);
        denials.insert("a".to_owned(), 3, Some(100), 50, 'x');
        assert_eq!(denials.get("a", 3, 149), Some(&mut 'x'));
        assert_eq!(denials.get("a", 2, 149), None, "less may fit");
        assert_eq!(denials.get("a", 4, 149), None, "more was not asked");
        assert_eq!(denials.get("b", 3, 149), None);
        assert_eq!(denials.get("a", 3, 149), Some(&mut 'x'), "asking for another cost forgets nothing");
        assert_eq!(denials.insert("a".to_owned(), 3, Some(100), 50, 'y'), Some('x'), "it is given back");
        assert_eq!(denials.look("a", 3, 150), Looked::Over);
        assert_eq!(denials.look("a", 2, 150), Looked::Over, "whatever is asked");
        assert_eq!(denials.remove("a"), Some('y'));
        assert_eq!(denials.look("a", 3, 150), Looked::Unknown);
        denials.insert("a".to_owned(), 3, Some(100), 50, 'z');
        assert_eq!(denials.get("a", 3, 150), None);
        assert!(denials.is_empty(), "what holds no longer is forgotten");
    }

    #[test]
    fn nothing_is_remembered_for_longer_than_the_ceiling() {
        let mut denials = Denials::new(8, 1_000);
        denials.insert("long", 1, Some(u64::MAX), 50, ());
        denials.insert("never", 1, None, 50, ());
        for key in ["long", "never"] {
            assert!(denials.get(key, 1, 1_049).is_some(), "{key}");
            assert!(denials.get(key, 1, 1_050).is_none(), "{key}");
        }
        denials.insert("late", 1, None, u64::MAX - 5, ());
        assert!(denials.get("late", 1, u64::MAX - 1).is_some(), "the end of time is not passed");
    }

    #[test]
    fn what_was_used_least_recently_is_forgotten_first() {
        let mut denials = Denials::new(2, 1_000);
        denials.insert("a", 1, None, 0, ());
        denials.insert("b", 1, None, 0, ());
        assert!(denials.get("a", 1, 1).is_some());
        denials.insert("c", 1, None, 0, ());
        assert_eq!(denials.len(), 2);
        assert!(denials.get("b", 1, 1).is_none());
        assert!(denials.get("a", 1, 1).is_some() && denials.get("c", 1, 1).is_some());
    }

    #[test]
    fn what_holds_no_longer_makes_way_as_others_are_remembered() {
        let mut denials = Denials::new(100, 1_000);
        for key in 0..50 {
            denials.insert(key, 1, Some(500 + key), 0, ());
        }
        assert!(denials.get(&0, 1, 1).is_some(), "now it was used last");
        denials.insert(100, 1, None, 500, ());
        assert_eq!(denials.len(), 51, "1, used least recently, still holds, so nobody looks further");
        denials.insert(101, 1, None, 502, ());
        assert_eq!(denials.len(), 50, "1 and 2 hold no longer, and 3 does");
        for key in 102..120 {
            denials.insert(key, 1, None, 900, ());
        }
        assert_eq!(denials.len(), 20, "all that was ever remembered and holds");
        assert!((100..120).all(|key| denials.get(&key, 1, 900).is_some()));
    }

    #[test]
    fn without_room_or_time_nothing_is_remembered() {
        for (entries, ceiling_us, wait_us) in [(0, 1_000, Some(9)), (8, 0, None), (8, 1_000, Some(0))] {
            let mut denials = Denials::new(entries, ceiling_us);
            denials.insert("a", 1, wait_us, 0, ());
            assert!(denials.is_empty() && denials.get("a", 1, 0).is_none());
        }
    }

    #[test]
    fn what_is_forgotten_is_asked_again() {
        let mut denials = Denials::new(8, 1_000);
        denials.insert("a", 1, None, 0, ());
        denials.insert("b", 1, None, 0, ());
        assert_eq!(denials.remove("a"), Some(()));
        assert!(denials.get("a", 1, 1).is_none() && denials.get("b", 1, 1).is_some());
        denials.end("b");
        assert_eq!(denials.look("b", 1, 1), Looked::Over);
        assert_eq!((denials.remove("b"), denials.remove("b")), (Some(()), None));
        denials.clear();
        assert!(denials.is_empty());
    }

    #[test]
    fn a_verdict_ages_as_the_bucket_does() {
        let verdict = |outcome, retry_after_us, full_after_us| BucketVerdict {
            outcome,
            remaining: 2,
            retry_after_us,
            full_after_us,
            overridden: None,
        };
        let denied = verdict(Outcome::Denied, Some(30), 90);
        assert_eq!(aged(&denied, 0), denied);
        assert_eq!(aged(&denied, 29), verdict(Outcome::Denied, Some(1), 61));
        assert_eq!(
            aged(&denied, 200),
            verdict(Outcome::Denied, Some(1), 1),
            "still denied, so still to wait"
        );
        assert_eq!(aged(&verdict(Outcome::Allowed, Some(0), 90), 200), verdict(Outcome::Allowed, Some(0), 0));
        assert_eq!(aged(&verdict(Outcome::NeverFits, None, 90), 40), verdict(Outcome::NeverFits, None, 50));
    }
}
