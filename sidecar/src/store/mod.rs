//! Where buckets are kept: in this process, or in a Redis that many sidecars share.
//!
//! A store never decides. The memory store is the `bucket` crate behind a lock, the Redis store is `lua/take.lua`.

pub mod denials;
pub mod memory;
pub mod packed;
pub mod redis;
pub mod script;

use contract::{FailureReason, Verdict};

use crate::{batch::Batch, clock::Clock};

/// A place where buckets are kept.
#[derive(Debug)]
pub enum Store {
    /// In this process: exact for one sidecar, forgotten when it ends.
    Memory(memory::SharedMemory, Clock),
    /// In a Redis: exact for all sidecars that share it.
    Redis(redis::RedisStore),
    /// In a Redis Cluster: exact for all sidecars that share it.
    Cluster(redis::cluster::ClusterStore),
}

/// What a store decided of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The instant of the decision, in microseconds since 1970 by the store's clock; the latest where the batch was
    /// decided in parts; this process's own where nothing was decided.
    pub now_us: u64,
    /// One verdict a take, in the batch's order.
    pub verdicts: Vec<Verdict>,
}

impl Answer {
    /// Nothing of a batch of `takes` takes was decided.
    #[must_use]
    pub fn failed(takes: usize, reason: FailureReason, now_us: u64) -> Self {
        Self { now_us, verdicts: vec![Verdict::Failed(reason); takes] }
    }
}

/// How a store does. What one has not is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct StoreStatus {
    /// `memory`, `redis` or `redis-cluster`.
    pub kind: &'static str,
    /// Whether takes can be decided now.
    pub ready: bool,
    /// Why not; of a Cluster also why a part of it cannot be asked.
    pub reason: Option<String>,
    /// How many buckets are kept in memory; a full one needs no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buckets: Option<usize>,
    /// How many buckets wait for Redis or are under way; a request counts for 64 at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_buckets: Option<usize>,
    /// Of how many buckets denials are remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_cache_entries: Option<usize>,
    /// How many takes were denied from what is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_cache_hits: Option<u64>,
}

/// More takes wait for the store than it is allowed to keep waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests wait for the store; try again, or add a sidecar or a faster Redis")]
pub struct Overloaded;

impl Store {
    /// A store in this process with room for `max_buckets` buckets that are not full.
    #[must_use]
    pub fn memory(max_buckets: usize) -> Self {
        Self::Memory(memory::SharedMemory::new(max_buckets), Clock::start())
    }

    /// A way to ask a store that is shared for what is no take; nothing where it is this process's own.
    #[must_use]
    pub fn control(&self) -> Option<redis::Control> {
        match self {
            Self::Memory(..) => None,
            Self::Redis(redis) => Some(redis.control()),
            Self::Cluster(cluster) => Some(cluster.control()),
        }
    }

    /// `memory`, `redis` or `redis-cluster`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory(..) => "memory",
            Self::Redis(_) => "redis",
            Self::Cluster(_) => "redis-cluster",
        }
    }

    /// Decides a batch.
    ///
    /// # Errors
    /// [`Overloaded`]; nothing was taken. That the store failed is not an error but a verdict.
    pub async fn take(&self, batch: Batch) -> Result<Answer, Overloaded> {
        match self {
            Self::Memory(memory, clock) => Ok(memory.take(&batch, clock.now_us())),
            Self::Redis(redis) => redis.take(batch).await,
            Self::Cluster(cluster) => cluster.take(batch).await,
        }
    }

    /// How it does, for an operator.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let reason = self.ready().err();
        let (ready, status) = (reason.is_none(), StoreStatus::default());
        let status = StoreStatus { ready, reason, ..status };
        match self {
            Self::Memory(memory, _) => {
                StoreStatus { kind: "memory", buckets: Some(memory.bucket_count()), ..status }
            }
            Self::Redis(redis) => StoreStatus {
                kind: "redis",
                waiting_buckets: Some(redis.waiting_buckets()),
                deny_cache_entries: Some(redis.deny_cache_entries()),
                deny_cache_hits: Some(redis.deny_cache_hits()),
                ..status
            },
            Self::Cluster(cluster) => StoreStatus {
                kind: "redis-cluster",
                // A part of it may be down while it is ready.
                reason: status.reason.or_else(|| cluster.partly()),
                waiting_buckets: Some(cluster.waiting_buckets()),
                deny_cache_entries: Some(cluster.deny_cache_entries()),
                deny_cache_hits: Some(cluster.deny_cache_hits()),
                ..StoreStatus { ready, ..StoreStatus::default() }
            },
        }
    }

    /// What is told of the runs of the script; nothing of a store that has none.
    #[must_use]
    pub fn runs(&self) -> Option<redis::RunsTold> {
        match self {
            Self::Memory(..) => None,
            Self::Redis(redis) => Some(redis.runs()),
            Self::Cluster(cluster) => Some(cluster.runs()),
        }
    }

    /// Whether takes can be decided now.
    ///
    /// # Errors
    /// Why not, in a sentence for an operator.
    pub fn ready(&self) -> Result<(), String> {
        match self {
            Self::Memory(..) => Ok(()),
            Self::Redis(redis) => redis.ready(),
            Self::Cluster(cluster) => cluster.ready(),
        }
    }
}
