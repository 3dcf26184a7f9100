//! Buckets in Redis, decided by `lua/take.lua`: exact for all sidecars that share it.
//!
//! One run of the script is under way at a time; what arrives meanwhile shares the next one, so that batches grow
//! with load and nothing waits on a timer. A run that may have been executed is never sent again: a take that is
//! lost costs its tokens at most once.

mod address;
mod link;
mod worker;

use std::time::Duration;

use contract::FailureReason;
use tokio::sync::{mpsc, oneshot, watch};

pub use address::{InvalidAddress, RedisAddress};

use super::{Answer, Overloaded};
use crate::{batch::Batch, clock::Clock};

/// Requests that may wait for the next run. At 64 takes each that is far more than Redis decides in a timeout.
const WAITING_JOBS: usize = 1024;

/// How long Redis is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the arrival of a batch to its answer, waiting for its turn and for a reconnection included.
    pub answer: Duration,
    /// For a connection to be made, authenticated and found fit.
    pub connect: Duration,
}

/// A Redis that keeps the buckets. Must live in a tokio runtime; dropping it closes the connection.
#[derive(Debug)]
pub struct RedisStore {
    jobs: mpsc::Sender<Job>,
    link: watch::Receiver<LinkState>,
    address: RedisAddress,
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

/// A batch that waits for a run.
#[derive(Debug)]
struct Job {
    batch: Batch,
    /// Closed once nobody waits any more: a batch that was not sent by then is dropped and takes nothing.
    answer: oneshot::Sender<Answer>,
}

impl RedisStore {
    /// Begins to keep a connection to `address`, and waits for the first attempt: a Redis that is down now is tried
    /// again until it is up.
    pub async fn start(address: RedisAddress, timeouts: Timeouts) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING_JOBS);
        let (state, mut link) = watch::channel(LinkState::Starting);
        tokio::spawn(worker::Worker::new(address.clone(), timeouts, waiting, state).work());
        // An error means that the worker is gone, which the first take then tells.
        let _ = link.wait_for(|state| *state != LinkState::Starting).await;
        Self { jobs, link, address, timeouts, clock: Clock::start() }
    }

    /// Decides a batch, or fails it within [`Timeouts::answer`].
    ///
    /// # Errors
    /// [`Overloaded`] where too many batches wait already.
    pub async fn take(&self, batch: Batch) -> Result<Answer, Overloaded> {
        let takes = batch.takes.len();
        let (answer, answered) = oneshot::channel();
        self.jobs.try_send(Job { batch, answer }).map_err(|_| Overloaded)?;
        let answered = tokio::time::timeout(self.timeouts.answer, answered).await;
        Ok(match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => {
                Answer::failed(takes, FailureReason::StoreUnavailable, self.clock.now_us())
            }
        })
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
