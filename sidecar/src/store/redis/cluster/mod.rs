//! Buckets in a Redis Cluster, which outgrows one Redis: each bucket is decided by the node that has its slot.
//!
//! A run of the script reaches the keys of one slot only. So requests share runs slot by slot; each node has one
//! connection with many runs under way. All limits of one client's key are in one slot, by its hash tag, and are taken
//! from at once as in one Redis; a take over several slots is made part by part (see `decide`).
//!
//! The Cluster client of the `redis` crate is not used: it has one number of retries for redirections, which say
//! that nothing was executed, and for broken connections, after which nobody knows; here the first must be followed and
//! the second never sent again.

mod address;
mod decide;
mod map;
mod nodes;
mod parts;
pub mod slot;
mod watch;

use std::sync::Arc;

use tokio::{sync::Semaphore, task::AbortHandle};

pub use address::ClusterAddress;
use decide::Request;
pub(super) use nodes::Nodes;

use super::{Asking, Control, RunsTold, WAITING_BUCKETS, Way, places_of};
use crate::{
    batch::Batch,
    clock::Clock,
    store::{Answer, Overloaded, denials::Remembered},
};

/// A Redis Cluster that keeps the buckets. Must live in a tokio runtime; dropping it closes the connections.
#[derive(Debug)]
pub struct ClusterStore {
    nodes: Arc<Nodes>,
    remembered: Arc<Remembered>,
    /// Bounds what waits for all nodes together.
    places: Arc<Semaphore>,
    watch: AbortHandle,
    clock: Clock,
}

impl ClusterStore {
    /// Begins to keep connections to the nodes of `address`, and waits for the first attempt at each: what is down now is
    /// tried again until it is up.
    pub async fn start(address: ClusterAddress, asking: impl Into<Asking>) -> Self {
        let asking = asking.into();
        let remembered = Arc::new(Remembered::new(asking.deny_cache));
        let nodes = Arc::new(Nodes::new(address, asking, Arc::clone(&remembered)));
        watch::read_map(&nodes).await;
        nodes.tried().await;
        let watch = tokio::spawn(watch::watch(Arc::clone(&nodes))).abort_handle();
        let places = Arc::new(Semaphore::new(WAITING_BUCKETS));
        Self { nodes, remembered, places, watch, clock: Clock::start() }
    }

    /// Decides a batch, or fails what is not decided within [`super::Timeouts::answer`]. What is known to be denied is
    /// denied at once.
    ///
    /// # Errors
    /// [`Overloaded`] where too much waits already.
    pub async fn take(&self, batch: Batch) -> Result<Answer, Overloaded> {
        self.remembered.answer_or(batch, |unknown| self.ask(unknown)).await
    }

    async fn ask(&self, batch: Batch) -> Result<Answer, Overloaded> {
        let places = Arc::clone(&self.places).try_acquire_many_owned(places_of(&batch));
        let request = Request::new(Arc::clone(&self.nodes), Arc::new(places.map_err(|_| Overloaded)?));
        let verdicts = Arc::clone(&request).decide(batch.takes).await;
        Ok(Answer { now_us: request.now_us().unwrap_or_else(|| self.clock.now_us()), verdicts })
    }

    /// Whether takes can be decided now, of some keys at least: an Envoy that leaves its sidecar because a part of the
    /// Cluster is down would lose the rest of it, too. What of it is down is logged.
    ///
    /// # Errors
    /// Why none can, in a sentence for an operator.
    pub fn ready(&self) -> Result<(), String> {
        self.nodes.health().map(drop)
    }

    /// Which slots cannot be asked, and why; nothing where all can, or none.
    #[must_use]
    pub fn partly(&self) -> Option<String> {
        self.nodes.health().ok().flatten()
    }

    /// A way to ask it for what is no take.
    #[must_use]
    pub fn control(&self) -> Control {
        let patience = self.nodes.asking().timeouts.connect;
        Control::new(Way::Cluster(Arc::clone(&self.nodes)), Arc::clone(&self.remembered), patience)
    }

    /// How many places are taken by what waits or is under way.
    #[must_use]
    pub fn waiting_buckets(&self) -> usize {
        WAITING_BUCKETS.saturating_sub(self.places.available_permits())
    }

    /// Of how many buckets denials are remembered.
    #[must_use]
    pub fn deny_cache_entries(&self) -> usize {
        self.remembered.len()
    }

    /// How many takes were denied from what is remembered.
    #[must_use]
    pub fn deny_cache_hits(&self) -> u64 {
        self.remembered.hits()
    }

    /// What is told of the runs of the script, at all nodes.
    #[must_use]
    pub fn runs(&self) -> RunsTold {
        self.nodes.runs()
    }
}

impl Drop for ClusterStore {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
