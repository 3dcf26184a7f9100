//! What operators put in the place of limits, bucket by bucket.
//!
//! [`apply`] is how that acts on what is decided, [`table`] what is known at one instant, and this keeps it.

pub mod apply;
pub mod table;
mod written;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apply::Changed;
use table::{MAX_OVERRIDES, Table};
pub use written::{Instead, Override, Told, WrittenLimit};

use crate::{batch::Batch, clock::Clock, store::Store};

/// The overrides of a store's buckets.
#[derive(Debug)]
pub struct Overrides {
    table: Mutex<Arc<Table>>,
    keeper: Keeper,
}

/// Where they are kept.
#[derive(Debug)]
enum Keeper {
    /// In this process, as its buckets are.
    Memory(Clock),
    /// Nowhere yet.
    Nowhere,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There are as many as may be.
    #[error("there are {MAX_OVERRIDES} overrides already; remove some")]
    TooMany,
    /// They cannot be kept now.
    #[error("{0}")]
    Unavailable(String),
}

impl Overrides {
    /// Those of the buckets in `store`.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        let keeper = match store {
            Store::Memory(_, clock) => Keeper::Memory(*clock),
            Store::Redis(_) | Store::Cluster(_) => Keeper::Nowhere,
        };
        Self { table: Mutex::default(), keeper }
    }

    /// Changes what a batch asks of buckets whose limits are overridden.
    pub fn apply(&self, batch: &mut Batch) -> Changed {
        let table = self.table();
        if table.is_empty() { Changed::default() } else { apply::apply(&table, batch, self.now_us()) }
    }

    /// What is in the place of a bucket's limit.
    #[must_use]
    pub fn find(&self, bucket_key: &str) -> Option<Override> {
        self.table().of(bucket_key, self.now_us()).cloned()
    }

    /// All that hold, each with the name of its bucket, in the order of the names.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Override)> {
        let table = self.table();
        let holding = table.holding(self.now_us());
        let mut list: Vec<_> = holding.map(|(key, found)| (key.to_owned(), found.clone())).collect();
        list.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        list
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().len()
    }

    /// How long ago they were last known to be as they are kept, in microseconds; nothing where they never were.
    #[must_use]
    pub fn age_us(&self) -> Option<u64> {
        match self.keeper {
            Keeper::Memory(_) => Some(0),
            Keeper::Nowhere => None,
        }
    }

    /// The store's time, by which they expire, in microseconds since 1970.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        match &self.keeper {
            Keeper::Memory(clock) => clock.now_us(),
            Keeper::Nowhere => 0,
        }
    }

    /// Puts one in the place of a bucket's limit, and of what was there before.
    ///
    /// # Errors
    /// [`ChangeError`]; it may have been put all the same where nothing was heard of it.
    pub async fn put(&self, bucket_key: &str, with: Override) -> Result<(), ChangeError> {
        match &self.keeper {
            Keeper::Memory(clock) => self.change(|table| {
                table.forget_expired(clock.now_us());
                if table.len() >= MAX_OVERRIDES && table.of(bucket_key, 0).is_none() {
                    return Err(ChangeError::TooMany);
                }
                table.put(bucket_key.to_owned(), with);
                Ok(())
            }),
            Keeper::Nowhere => Err(nowhere()),
        }
    }

    /// Removes that of a bucket; whether there was one.
    ///
    /// # Errors
    /// [`ChangeError::Unavailable`]; it may have been removed all the same where nothing was heard of it.
    pub async fn remove(&self, bucket_key: &str) -> Result<bool, ChangeError> {
        match &self.keeper {
            Keeper::Memory(clock) => Ok(self.change(|table| {
                let found = table.remove(bucket_key);
                found.is_some_and(|found| found.holds(clock.now_us()))
            })),
            Keeper::Nowhere => Err(nowhere()),
        }
    }

    /// An operator has changed a bucket: others that share the store may know it to be empty, and are told to ask anew.
    pub async fn tell_others(&self) {
        match &self.keeper {
            // There is nobody else.
            Keeper::Memory(_) | Keeper::Nowhere => {}
        }
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.lock())
    }

    /// Whoever decides now goes on by the table that it has.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        change(Arc::make_mut(&mut self.lock()))
    }

    /// Nothing that holds it can panic halfway, so what a panic left is as good as before.
    fn lock(&self) -> MutexGuard<'_, Arc<Table>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nowhere() -> ChangeError {
    ChangeError::Unavailable("this store cannot keep overrides".to_owned())
}
