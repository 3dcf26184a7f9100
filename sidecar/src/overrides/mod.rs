//! What operators put in the place of limits, bucket by bucket: specified in `lua/SPEC.md`.
//!
//! [`apply`] is how that acts on what is decided, [`table`] what is known at one instant, and this keeps it.

pub mod apply;
pub mod table;
mod watch;
mod written;

use std::sync::Arc;

use apply::Changed;
use table::{Current, MAX_OVERRIDES};
use watch::Watched;
pub use written::{Instead, Override, Told, WrittenLimit};

use crate::{batch::Batch, clock::Clock, store::Store};

/// The overrides of a store's buckets.
#[derive(Debug)]
pub struct Overrides {
    current: Arc<Current>,
    keeper: Keeper,
}

/// Where they are kept.
#[derive(Debug)]
enum Keeper {
    /// In this process, as its buckets are.
    Memory(Clock),
    /// With the buckets, for all that share them.
    Shared(Watched),
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There are as many as may be.
    #[error("there are {MAX_OVERRIDES} overrides already; remove some")]
    TooMany,
    /// They cannot be changed now, and were not.
    #[error("nothing was changed: {0}")]
    Unasked(String),
    /// They may have been changed or not.
    #[error("{0}")]
    Unavailable(String),
}

impl Overrides {
    /// Those of the buckets in `store`, which must live in a tokio runtime where it is shared.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        let current = Arc::<Current>::default();
        let watched = |control| Keeper::Shared(Watched::start(control, Arc::clone(&current)));
        let keeper = match store {
            Store::Memory(_, clock) => Keeper::Memory(*clock),
            Store::Redis(redis) => watched(redis.control()),
            Store::Cluster(cluster) => watched(cluster.control()),
        };
        Self { current, keeper }
    }

    /// Waits until they were looked for once, whether or not they were found.
    pub async fn tried(&self) {
        match &self.keeper {
            Keeper::Memory(_) => {}
            Keeper::Shared(watched) => watched.tried().await,
        }
    }

    /// Whether they are known: without them what an operator has blocked would be allowed.
    ///
    /// # Errors
    /// Why not, in a sentence for an operator.
    pub fn ready(&self) -> Result<(), String> {
        match self.age_us() {
            Some(_) => Ok(()),
            None => Err("what operators put in the place of limits has not been read yet".to_owned()),
        }
    }

    /// Changes what a batch asks of buckets whose limits are overridden.
    pub fn apply(&self, batch: &mut Batch) -> Changed {
        let table = self.current.get();
        match self.now_us() {
            Some(now_us) if !table.is_empty() => apply::apply(&table, batch, now_us),
            _ => Changed::default(),
        }
    }

    /// What is in the place of a bucket's limit.
    #[must_use]
    pub fn find(&self, bucket_key: &str) -> Option<Override> {
        self.current.get().of(bucket_key, self.now_us()?).cloned()
    }

    /// All that hold, each with the name of its bucket, in the order of the names.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Override)> {
        let table = self.current.get();
        let holding = table.holding(self.now_us().unwrap_or(0));
        let mut list: Vec<_> = holding.map(|(key, found)| (key.to_owned(), found.clone())).collect();
        list.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        list
    }

    /// How many hold.
    #[must_use]
    pub fn count(&self) -> usize {
        self.current.get().holding(self.now_us().unwrap_or(0)).count()
    }

    /// How long ago they were last known to be as they are kept, in microseconds; nothing where they never were.
    #[must_use]
    pub fn age_us(&self) -> Option<u64> {
        match &self.keeper {
            Keeper::Memory(_) => Some(0),
            Keeper::Shared(watched) => watched.age_us(),
        }
    }

    /// The store's time, by which they expire, in microseconds since 1970; nothing before it was heard.
    #[must_use]
    pub fn now_us(&self) -> Option<u64> {
        match &self.keeper {
            Keeper::Memory(clock) => Some(clock.now_us()),
            Keeper::Shared(watched) => watched.now_us(),
        }
    }

    /// Puts one in the place of a bucket's limit, and of what was there before.
    ///
    /// # Errors
    /// [`ChangeError`]; it may have been put all the same where nothing was heard of it.
    pub async fn put(&self, bucket_key: &str, with: Override) -> Result<(), ChangeError> {
        match &self.keeper {
            Keeper::Memory(clock) => self.current.change(|table| {
                table.forget_expired(clock.now_us());
                if table.len() >= MAX_OVERRIDES && !table.has(bucket_key) {
                    return Err(ChangeError::TooMany);
                }
                table.put(bucket_key.to_owned(), with);
                Ok(())
            }),
            Keeper::Shared(watched) => watched.put(bucket_key, with).await,
        }
    }

    /// Removes that of a bucket; whether there was one.
    ///
    /// # Errors
    /// [`ChangeError::Unavailable`]; it may have been removed all the same where nothing was heard of it.
    pub async fn remove(&self, bucket_key: &str) -> Result<bool, ChangeError> {
        match &self.keeper {
            Keeper::Memory(clock) => {
                let found = self.current.change(|table| table.remove(bucket_key));
                Ok(found.is_some_and(|found| found.holds(clock.now_us())))
            }
            Keeper::Shared(watched) => watched.remove(bucket_key).await,
        }
    }

    /// An operator has changed a bucket: others that share the store may know it to be empty, and are told to ask anew.
    pub async fn tell_others(&self) {
        match &self.keeper {
            // There is nobody else.
            Keeper::Memory(_) => {}
            Keeper::Shared(watched) => watched.tell_others().await,
        }
    }
}
