//! All overrides that are known at one instant: a decision uses one table as a whole.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;

use super::Override;

/// The most overrides that are kept at a time.
pub const MAX_OVERRIDES: usize = 10_000;

/// The overrides, by the names of their buckets in every store.
#[derive(Clone, Debug, Default)]
pub struct Table {
    // Keys are what clients make them, so the hash is seeded.
    by_bucket: HashMap<String, Override, RandomState>,
    /// None that holds expires before.
    next_expiry_us: Option<u64>,
}

impl Table {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_bucket.is_empty()
    }

    /// How many there are, some of which may hold no longer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_bucket.len()
    }

    /// What is in the place of a bucket's limit at `now_us`.
    #[must_use]
    pub fn of(&self, bucket_key: &str, now_us: u64) -> Option<&Override> {
        self.by_bucket.get(bucket_key).filter(|found| found.holds(now_us))
    }

    /// Whether there is one for a bucket, though it may hold no longer.
    #[must_use]
    pub fn has(&self, bucket_key: &str) -> bool {
        self.by_bucket.contains_key(bucket_key)
    }

    /// Those that hold at `now_us`.
    pub fn holding(&self, now_us: u64) -> impl Iterator<Item = (&str, &Override)> {
        let all = self.by_bucket.iter().map(|(bucket_key, found)| (bucket_key.as_str(), found));
        all.filter(move |(_, found)| found.holds(now_us))
    }

    /// Whether one may have expired by `now_us` that had not when this was asked last: it is asked often.
    pub fn has_ended(&mut self, now_us: u64) -> bool {
        let has_ended = self.next_expiry_us.is_some_and(|next_us| next_us <= now_us);
        if has_ended {
            let holding = self.by_bucket.values().filter(|found| found.holds(now_us));
            self.next_expiry_us = holding.filter_map(|found| found.expires_at_us).min();
        }
        has_ended
    }

    /// Those that hold no longer at `now_us`.
    pub fn expired(&self, now_us: u64) -> impl Iterator<Item = (&str, &Override)> {
        let all = self.by_bucket.iter().map(|(bucket_key, found)| (bucket_key.as_str(), found));
        all.filter(move |(_, found)| !found.holds(now_us))
    }

    /// Puts one in, in the place of what there was.
    pub fn put(&mut self, bucket_key: String, with: Override) {
        if let Some(expires_at_us) = with.expires_at_us {
            self.next_expiry_us =
                Some(self.next_expiry_us.map_or(expires_at_us, |next_us| next_us.min(expires_at_us)));
        }
        self.by_bucket.insert(bucket_key, with);
    }

    /// Takes one out; what it was.
    pub fn remove(&mut self, bucket_key: &str) -> Option<Override> {
        self.by_bucket.remove(bucket_key)
    }

    /// Forgets those that hold no longer at `now_us`.
    pub fn forget_expired(&mut self, now_us: u64) {
        self.by_bucket.retain(|_, found| found.holds(now_us));
    }
}

impl FromIterator<(String, Override)> for Table {
    fn from_iter<I: IntoIterator<Item = (String, Override)>>(overrides: I) -> Self {
        let mut table = Self::default();
        overrides.into_iter().for_each(|(bucket_key, with)| table.put(bucket_key, with));
        table
    }
}

/// The table that decisions are made by now.
#[derive(Debug, Default)]
pub(super) struct Current(Mutex<Arc<Table>>);

impl Current {
    /// Whoever has it decides by it to the end.
    pub(super) fn get(&self) -> Arc<Table> {
        Arc::clone(&self.lock())
    }

    pub(super) fn set(&self, table: Table) {
        *self.lock() = Arc::new(table);
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        change(Arc::make_mut(&mut self.lock()))
    }

    /// Nothing that holds it can panic halfway, so what a panic left is as good as before.
    fn lock(&self) -> MutexGuard<'_, Arc<Table>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
