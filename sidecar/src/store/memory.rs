//! Buckets in this process: the `bucket` crate behind a lock, bounded in number.

use std::sync::{Mutex, PoisonError};

use bucket::{Ask, Bucket, Keep, Level, look_at_all, take_all};
use contract::{FailureReason, Verdict};
use indexmap::IndexMap;

use super::{Answer, script::verdict};
use crate::batch::{Batch, Take};

/// Entries examined for each one that is inserted. A removal moves the last entry to the cursor, where it is examined
/// in turn, so a full one costs two looks: with four, two are forgotten for one that is new, and the map stays
/// within three times the buckets that are not full.
const EXAMINED_PER_INSERTION: usize = 4;

/// Entries examined before a take is refused for want of room.
const EXAMINED_WHEN_FULL: usize = 64;

/// [`Memory`] behind a lock that is held for one batch.
#[derive(Debug)]
pub struct SharedMemory(Mutex<Memory>);

impl SharedMemory {
    /// Room for `max_buckets` buckets that are not full.
    #[must_use]
    pub fn new(max_buckets: usize) -> Self {
        Self(Mutex::new(Memory::new(max_buckets)))
    }

    /// How many buckets are kept.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bucket_count()
    }

    /// Decides a whole batch under one lock.
    pub fn take(&self, batch: &Batch, now_us: u64) -> Answer {
        // A panic while it was held leaves whole entries only: each is written by one insertion.
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Answer { now_us, verdicts: memory.take(&batch.takes, now_us) }
    }
}

/// The buckets that are not full, and some that have become full since and were not yet forgotten.
#[derive(Debug)]
pub struct Memory {
    buckets: IndexMap<String, Kept>,
    max_buckets: usize,
    /// Where the next look for full buckets begins.
    cursor: usize,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    bucket: Bucket,
    full_at_us: u64,
}

impl Memory {
    /// Room for `max_buckets` buckets that are not full.
    #[must_use]
    pub fn new(max_buckets: usize) -> Self {
        Self { buckets: IndexMap::new(), max_buckets, cursor: 0 }
    }

    /// How many buckets are kept.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        self.buckets.len()
    }

    /// Decides `takes` in order at `now_us`, which never goes back; the first follows none.
    pub fn take(&mut self, takes: &[Take], now_us: u64) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(takes.len());
        let mut leader = 0;
        for (place, take) in takes.iter().enumerate() {
            let followed = if take.follows { verdicts.get(leader) } else { None };
            let verdict = match followed {
                Some(Verdict::Failed(reason)) => Verdict::Failed(*reason),
                Some(Verdict::Denied(_)) => self.decide(take, true, now_us),
                Some(Verdict::Allowed(_) | Verdict::Leased { .. }) | None => self.decide(take, false, now_us),
            };
            verdicts.push(verdict);
            if !take.follows {
                leader = place;
            }
        }
        verdicts
    }

    fn decide(&mut self, take: &Take, only_look: bool, now_us: u64) -> Verdict {
        let mut asks: Vec<Ask> = Vec::with_capacity(take.buckets.len());
        for asked in &take.buckets {
            // A bucket that is full by now counts as forgotten, whether or not the cursor has met it: what is
            // decided must not depend on where the cursor stands.
            let entry = self.buckets.get(&asked.bucket_key);
            let kept = entry.filter(|kept| kept.full_at_us > now_us).map(|kept| kept.bucket);
            asks.push(Ask::new(Level::count(asked.limit, kept, now_us), take.kind, asked.cost_tokens));
        }
        let allowed = if only_look { look_at_all(&asks) } else { take_all(&mut asks) };
        let writes = asks.iter().any(|ask| matches!(ask.keep(), Keep::Bucket(..)));
        if writes && !self.make_room(take, now_us) {
            return Verdict::Failed(FailureReason::StoreFull);
        }
        for (asked, ask) in take.buckets.iter().zip(&asks) {
            self.keep(&asked.bucket_key, ask.keep(), now_us);
        }
        verdict(&asks, allowed)
    }

    fn keep(&mut self, bucket_key: &str, keep: Keep, now_us: u64) {
        match keep {
            Keep::AsItIs => {}
            Keep::Nothing => {
                self.buckets.swap_remove(bucket_key);
            }
            Keep::Bucket(bucket, full_after_us) => {
                let kept = Kept { bucket, full_at_us: now_us.saturating_add(full_after_us) };
                if let Some(entry) = self.buckets.get_mut(bucket_key) {
                    *entry = kept;
                } else {
                    self.forget_full(EXAMINED_PER_INSERTION, now_us);
                    self.buckets.insert(bucket_key.to_owned(), kept);
                }
            }
        }
    }

    /// Makes room for those buckets of `take` that are not kept yet; whether there is.
    fn make_room(&mut self, take: &Take, now_us: u64) -> bool {
        if self.has_room(take) {
            return true;
        }
        self.forget_full(EXAMINED_WHEN_FULL, now_us);
        self.has_room(take)
    }

    fn has_room(&self, take: &Take) -> bool {
        let new = take.buckets.iter().filter(|asked| !self.buckets.contains_key(&asked.bucket_key)).count();
        self.buckets.len() + new <= self.max_buckets
    }

    /// Looks at the next `count` entries and forgets those that are full.
    fn forget_full(&mut self, count: usize, now_us: u64) {
        for _ in 0..count.min(self.buckets.len()) {
            if self.cursor >= self.buckets.len() {
                self.cursor = 0;
            }
            match self.buckets.get_index(self.cursor) {
                // The last entry takes the place of a removed one, so the cursor stays to look at it too.
                Some((_, kept)) if kept.full_at_us <= now_us => {
                    self.buckets.swap_remove_index(self.cursor);
                }
                _ => self.cursor += 1,
            }
        }
    }
}
