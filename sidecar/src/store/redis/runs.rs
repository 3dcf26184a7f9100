//! What is told of the runs of the script: how long they took, how they ended, and what the breakers of the links say.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::time::Instant;

use super::{breaker::State, link::RunError, queue::Part};
use crate::telemetry::{Exposed, Percentiles};

/// The names of the breaker's states, in the order in which [`RunsTold::links`] counts them.
pub const BREAKER_STATES: [&str; 4] = ["closed", "probing", "refusing", "unlinked"];

/// How runs end, in the order in which [`RunsTold::ended`] counts them.
pub const RUN_OUTCOMES: [&str; 5] = ["answered", "refused", "redirected", "late", "lost"];

/// What was seen of the runs of one store, over all its links.
#[derive(Debug)]
pub(super) struct Runs {
    started: Instant,
    seen: Mutex<Seen>,
    links: [AtomicUsize; 4],
}

#[derive(Debug)]
struct Seen {
    latency: Exposed,
    buckets: Histogram,
    bucket_count: u64,
    ended: [u64; 5],
}

/// What is told of them.
#[derive(Clone, Debug)]
pub struct RunsTold {
    /// How long those took in the last minute that were answered, or were late.
    pub latency_us: Percentiles,
    /// The same since the start.
    pub seconds: Histogram,
    /// How many buckets they had.
    pub buckets: Histogram,
    /// How many were sent and have ended, by [`RUN_OUTCOMES`].
    pub ended: [u64; 5],
    /// How many buckets they had together.
    pub bucket_count: u64,
    /// How many links there are, by [`BREAKER_STATES`].
    pub links: [usize; 4],
}

impl Default for Runs {
    fn default() -> Self {
        let buckets = Histogram::new(exponential_buckets(1.0, 2.0, 11));
        let seen = Seen { latency: Exposed::default(), buckets, bucket_count: 0, ended: [0; 5] };
        Self { started: Instant::now(), seen: Mutex::new(seen), links: Default::default() }
    }
}

impl Runs {
    /// A run of these parts is sent.
    pub(super) fn sent(self: &Arc<Self>, parts: &[Part]) -> Sent {
        let buckets = parts.iter().flat_map(Part::takes).map(|take| take.buckets.len()).sum();
        Sent { runs: Arc::clone(self), at: Instant::now(), buckets, outcome: LOST }
    }

    /// There is a link, or is to be one.
    pub(super) fn link(self: &Arc<Self>) -> LinkTold {
        let told = LinkTold { runs: Arc::clone(self), state: State::Unlinked };
        self.links_in(told.state).fetch_add(1, Ordering::Relaxed);
        told
    }

    pub(super) fn told(&self) -> RunsTold {
        let now_us = self.now_us();
        let seen = self.seen();
        RunsTold {
            latency_us: seen.latency.percentiles(now_us),
            seconds: seen.latency.seconds(),
            buckets: seen.buckets.clone(),
            ended: seen.ended,
            bucket_count: seen.bucket_count,
            links: std::array::from_fn(|state| self.links[state].load(Ordering::Relaxed)),
        }
    }

    fn links_in(&self, state: State) -> &AtomicUsize {
        &self.links[match state {
            State::Closed => 0,
            State::Probing => 1,
            State::Refusing => 2,
            State::Unlinked => 3,
        }]
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic while it was held leaves a count that is one too small.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a run in [`RUN_OUTCOMES`] that nothing is heard of.
const LOST: usize = 4;

/// A run that is under way. It is lost where it is dropped before anything was heard of it.
#[derive(Debug)]
pub(super) struct Sent {
    runs: Arc<Runs>,
    at: Instant,
    buckets: usize,
    outcome: usize,
}

impl Sent {
    /// What was heard of it.
    pub(super) fn heard(mut self, reply: &Result<Vec<u8>, RunError>) {
        self.outcome = match reply {
            Ok(_) => 0,
            Err(RunError::Refused(_) | RunError::Left(_)) => 1,
            Err(RunError::Redirected(_)) => 2,
            Err(RunError::Late(_)) => 3,
            Err(RunError::Lost(_)) => LOST,
        };
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let (took, now_us) = (self.at.elapsed(), self.runs.now_us());
        let mut seen = self.runs.seen();
        seen.ended[self.outcome] += 1;
        seen.bucket_count += self.buckets as u64;
        seen.buckets.observe(self.buckets as f64);
        // How long a lost one would have taken nobody knows.
        if self.outcome != LOST {
            seen.latency.record(took, now_us);
        }
    }
}

/// One link, as it is told of until this is dropped.
#[derive(Debug)]
pub(super) struct LinkTold {
    runs: Arc<Runs>,
    state: State,
}

impl LinkTold {
    /// What its breaker says.
    pub(super) fn is(&mut self, state: State) {
        let before = mem::replace(&mut self.state, state);
        if before != state {
            self.runs.links_in(before).fetch_sub(1, Ordering::Relaxed);
            self.runs.links_in(state).fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for LinkTold {
    fn drop(&mut self) {
        self.runs.links_in(self.state).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_counted_by_what_their_breakers_say() {
        let runs = Arc::new(Runs::default());
        let (mut one, two) = (runs.link(), runs.link());
        assert_eq!(runs.told().links, [0, 0, 0, 2]);
        one.is(State::Probing);
        one.is(State::Closed);
        assert_eq!(runs.told().links, [1, 0, 0, 1]);
        drop(two);
        one.is(State::Closed);
        assert_eq!(runs.told().links, [1, 0, 0, 0]);
        one.is(State::Refusing);
        assert_eq!(runs.told().links, [0, 0, 1, 0]);
        drop(one);
        assert_eq!(runs.told().links, [0; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn runs_are_counted_by_their_ends() {
        let runs = Arc::new(Runs::default());
        let send = || runs.sent(&[]);
        let (answered, late, lost) = (send(), send(), send());
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        answered.heard(&Ok(Vec::new()));
        late.heard(&Err(RunError::Late(std::time::Duration::from_millis(1))));
        drop(lost);
        let told = runs.told();
        assert_eq!((told.ended, told.bucket_count), ([1, 0, 0, 1, 1], 0));
        assert_eq!((told.latency_us.count, told.latency_us.p50 >> 6), (2, 1_000 >> 6), "{told:?}");
    }
}
