//! Buckets in Redis, decided by `lua/take.lua`: exact for all sidecars that share it.
//!
//! Few runs of the script are under way at a time; what arrives meanwhile shares the next one, so that batches grow with
//! load and nothing waits on a timer. A run that may have been executed is never sent again: a take that is
//! lost costs its tokens at most once. What is known to be denied is not asked.

mod address;
mod breaker;
pub mod cluster;
mod control;
mod dial;
mod fault;
mod kept;
mod lanes;
mod link;
mod queue;
mod redirect;
mod runs;
mod sentinel;
mod tls;
mod worker;

use std::{sync::Arc, time::Duration};

use contract::{FailureReason, MAX_BUCKETS};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

pub use address::{InvalidAddress, RedisAddress};
pub use control::{Control, ControlError};
use control::{Handle, Way};
use fault::Fault;
pub use kept::{Change, Kept, Made, Seen, Since};
use lanes::Lane;
use queue::Job;
use runs::Runs;
pub use runs::{BREAKER_STATES, RUN_OUTCOMES, RunsTold};
pub use tls::{InvalidTls, TlsFiles};

use super::{
    Answer, Overloaded,
    denials::{DenyCache, Remembered},
};
use crate::{batch::Batch, clock::Clock};

/// The buckets that may wait or be under way, far more than Redis decides in a timeout. A batch of fewer than
/// [`MAX_BUCKETS`] counts for that many, and so there are 1,024 batches at most; one of more than all waits alone.
const WAITING_BUCKETS: usize = 65_536;

/// How long Redis is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the arrival of a batch to its answer, waiting for its turn and for a reconnection included.
    pub answer: Duration,
    /// For a connection to be made, authenticated and found fit.
    pub connect: Duration,
}

/// How Redis is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// How long it is waited for.
    pub timeouts: Timeouts,
    /// What need not be asked.
    pub deny_cache: DenyCache,
    /// The most runs under way at a time, at least 1.
    pub in_flight: usize,
}

/// As the program does where nothing else is said.
impl From<Timeouts> for Asking {
    fn from(timeouts: Timeouts) -> Self {
        Self { timeouts, deny_cache: DenyCache::default(), in_flight: 2 }
    }
}

/// A Redis that keeps the buckets. Must live in a tokio runtime; dropping it closes the connection.
#[derive(Debug)]
pub struct RedisStore {
    jobs: mpsc::UnboundedSender<Job>,
    /// Bounds what waits, so that the channel need not.
    places: Arc<Semaphore>,
    /// Told when somebody waits no more: what nobody waits for gives its place to others.
    given_up: Arc<Notify>,
    remembered: Arc<Remembered>,
    runs: Arc<Runs>,
    link: watch::Receiver<LinkState>,
    handle: watch::Receiver<Option<Handle>>,
    /// Which Redis, as it is told.
    address: String,
    timeouts: Timeouts,
    clock: Clock,
}

/// Whether there is a connection over which takes can be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LinkState {
    /// The first attempt is under way.
    Starting,
    Up,
    Down {
        reason: String,
    },
}

impl RedisStore {
    /// Begins to keep a connection to `address`, and waits for the first attempt: a Redis that is down now is tried
    /// again until it is up.
    pub async fn start(address: RedisAddress, asking: impl Into<Asking>) -> Self {
        let asking = asking.into();
        let timeouts = asking.timeouts;
        let (jobs, waiting) = mpsc::unbounded_channel();
        let (state, mut link) = watch::channel(LinkState::Starting);
        let remembered = Arc::new(Remembered::new(asking.deny_cache));
        let told = address.to_string();
        let runs = Arc::new(Runs::default());
        let worker = worker::Worker::new(address, asking, waiting, state, Arc::clone(&remembered), &runs);
        let (given_up, handle) = (worker.given_up(), worker.handle());
        tokio::spawn(worker.work());
        // An error means that the worker is gone, which the first take then tells.
        let _ = link.wait_for(|state| *state != LinkState::Starting).await;
        let places = Arc::new(Semaphore::new(WAITING_BUCKETS));
        Self {
            jobs,
            places,
            given_up,
            remembered,
            runs,
            link,
            handle,
            address: told,
            timeouts,
            clock: Clock::start(),
        }
    }

    /// Decides a batch, or fails it within [`Timeouts::answer`]. What is known to be denied is denied at once.
    ///
    /// # Errors
    /// [`Overloaded`] where too much waits already.
    pub async fn take(&self, batch: Batch) -> Result<Answer, Overloaded> {
        self.remembered.answer_or(batch, |unknown| self.ask(unknown)).await
    }

    async fn ask(&self, batch: Batch) -> Result<Answer, Overloaded> {
        let takes = batch.takes.len();
        let place = Arc::clone(&self.places).try_acquire_many_owned(places_of(&batch));
        let place = place.map_err(|_| Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let job = Job::new(Lane::Any, batch, answer, Arc::new(place));
        self.jobs.send(job).map_err(|_| Overloaded)?;
        let answered = tokio::time::timeout(self.timeouts.answer, answered).await;
        if answered.is_err() {
            self.given_up.notify_one();
        }
        Ok(match answered {
            Ok(Ok(outcome)) => outcome.into_answer(takes, || self.clock.now_us()),
            Ok(Err(_)) | Err(_) => {
                Answer::failed(takes, FailureReason::StoreUnavailable, self.clock.now_us())
            }
        })
    }

    /// A way to ask it for what is no take.
    #[must_use]
    pub fn control(&self) -> Control {
        let way = Way::One(self.handle.clone());
        Control::new(way, Arc::clone(&self.remembered), self.timeouts.connect)
    }

    /// How many buckets wait or are under way; a batch counts for [`MAX_BUCKETS`] at least.
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

    /// What is told of the runs of the script.
    #[must_use]
    pub fn runs(&self) -> RunsTold {
        self.runs.told()
    }

    /// Whether takes can be decided now.
    ///
    /// # Errors
    /// Why not, in a sentence for an operator.
    pub fn ready(&self) -> Result<(), String> {
        match &*self.link.borrow() {
            LinkState::Up => Ok(()),
            LinkState::Starting => Err(format!("Redis at {} is being connected to", self.address)),
            LinkState::Down { reason } => Err(format!("Redis at {} cannot be used: {reason}", self.address)),
        }
    }
}

/// The places that a batch has among what may wait.
fn places_of(batch: &Batch) -> u32 {
    let places = batch.bucket_count().clamp(MAX_BUCKETS, WAITING_BUCKETS);
    u32::try_from(places).unwrap_or(u32::MAX)
}
