//! The task that owns the connection: it collects what waits, runs the script, hands out verdicts, and reconnects.

use std::time::Duration;

use contract::{FailureReason, MAX_BUCKETS, Verdict};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{info, warn};

use super::{
    Job, LinkState, RedisAddress, Timeouts,
    link::{Link, RunError},
};
use crate::{
    batch::Take,
    clock::Clock,
    store::{Answer, script},
};

/// The most buckets of one run, which Redis decides in about 3 ms while others wait. A request with more is decided
/// in several runs, in order.
const BUCKETS_PER_RUN: usize = 1024;
const _: () = assert!(MAX_BUCKETS <= BUCKETS_PER_RUN && BUCKETS_PER_RUN <= script::MAX_KEYS);

/// The pause after the first attempt that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause, and how long an idle link must have held for the next attempt to come without one.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    address: RedisAddress,
    timeouts: Timeouts,
    jobs: mpsc::Receiver<Job>,
    state: watch::Sender<LinkState>,
    clock: Clock,
    /// Attempts since a link held or decided something.
    attempts: u32,
    /// Redis is reachable and refuses runs: told once, not for each.
    refusing: bool,
}

/// Why a link is no longer served.
enum Ended {
    Lost(String),
    /// The store was dropped.
    Stopped,
}

impl Worker {
    pub(super) fn new(
        address: RedisAddress,
        timeouts: Timeouts,
        jobs: mpsc::Receiver<Job>,
        state: watch::Sender<LinkState>,
    ) -> Self {
        Self { address, timeouts, jobs, state, clock: Clock::start(), attempts: 0, refusing: false }
    }

    /// Keeps a link and serves jobs over it until the store is dropped.
    pub(super) async fn work(mut self) {
        while let Some(mut link) = self.connect().await {
            let since = Instant::now();
            self.tell_up();
            match self.serve(&mut link).await {
                Ended::Stopped => return,
                Ended::Lost(reason) => self.tell_down(reason),
            }
            if since.elapsed() >= LONGEST_PAUSE {
                self.attempts = 0;
            }
        }
    }

    /// Tries until there is a link; `None` once the store is dropped.
    ///
    /// The first attempt after a link that held comes at once, and jobs wait for it as long as they may. After it
    /// failed they are failed at once: a Redis that is down costs a client nothing but the answer.
    async fn connect(&mut self) -> Option<Link> {
        loop {
            let pause = pause_before(self.attempts);
            self.attempts = self.attempts.saturating_add(1);
            let address = self.address.clone();
            let timeouts = self.timeouts;
            let attempt = async move {
                tokio::time::sleep(pause).await;
                Link::connect(&address, timeouts).await
            };
            tokio::pin!(attempt);
            let patience = if pause.is_zero() { self.timeouts.answer } else { Duration::ZERO };
            let patient_until = Instant::now() + patience;
            let connected = loop {
                tokio::select! {
                    biased;
                    connected = &mut attempt => break connected,
                    job = next_job(&mut self.jobs, patient_until) => self.fail(job?),
                }
            };
            match connected {
                Ok(link) => return Some(link),
                Err(error) => self.tell_down(error.to_string()),
            }
        }
    }

    async fn serve(&mut self, link: &mut Link) -> Ended {
        loop {
            let first = tokio::select! {
                // A link that was lost while idle is not used for the next batch, which then is sent once, over
                // a new one.
                biased;
                () = link.lost() => return Ended::Lost("it closed the connection".to_owned()),
                job = self.jobs.recv() => job,
            };
            let Some(first) = first else { return Ended::Stopped };
            let jobs = self.collect(first);
            if let Err(reason) = self.decide(link, jobs).await {
                return Ended::Lost(reason);
            }
        }
    }

    /// `first` and what else waits, up to one run's buckets, without those that nobody waits for any more.
    fn collect(&mut self, first: Job) -> Vec<Job> {
        let mut bucket_count = 0;
        let mut jobs = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            if !job.answer.is_closed() {
                bucket_count += job.batch.bucket_count();
                jobs.push(job);
            }
            next = if bucket_count < BUCKETS_PER_RUN { self.jobs.try_recv().ok() } else { None };
        }
        jobs
    }

    /// Decides `jobs` and answers each; an error says why the link was lost.
    async fn decide(&mut self, link: &mut Link, jobs: Vec<Job>) -> Result<(), String> {
        let takes: Vec<&Take> = jobs.iter().flat_map(|job| &job.batch.takes).collect();
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(takes.len());
        let mut now_us = None;
        let mut outcome = Ok(());
        for takes in runs(&takes) {
            if outcome.is_err() || jobs.iter().all(|job| job.answer.is_closed()) {
                verdicts.extend(takes.iter().map(|_| Verdict::Failed(FailureReason::StoreUnavailable)));
                continue;
            }
            match self.run(link, takes).await {
                Ok(Some(answer)) => {
                    now_us = Some(answer.now_us);
                    verdicts.extend(answer.verdicts);
                }
                refused_or_lost => {
                    outcome = refused_or_lost.map(|_| ());
                    verdicts.extend(takes.iter().map(|_| Verdict::Failed(FailureReason::StoreUnavailable)));
                }
            }
        }
        let now_us = now_us.unwrap_or_else(|| self.clock.now_us());
        let mut verdicts = verdicts.into_iter();
        for job in jobs {
            let verdicts = verdicts.by_ref().take(job.batch.takes.len()).collect();
            // Whoever asked may have gone, and then needs no answer.
            let _ = job.answer.send(Answer { now_us, verdicts });
        }
        outcome
    }

    /// One run: its answer, nothing where Redis refused it, or why the link was lost.
    async fn run(&mut self, link: &mut Link, takes: &[&Take]) -> Result<Option<Answer>, String> {
        match link.run(&script::encode(takes)).await {
            Ok(reply) => {
                self.attempts = 0;
                if std::mem::take(&mut self.refusing) {
                    info!(redis = %self.address, "Redis runs the script again");
                }
                script::decode(takes, &reply).map(Some).map_err(|error| error.to_string())
            }
            Err(RunError::Refused(error)) => {
                if !std::mem::replace(&mut self.refusing, true) {
                    warn!(redis = %self.address, %error, "Redis refuses the script; takes fail until it runs it");
                }
                Ok(None)
            }
            Err(RunError::Lost(reason)) => Err(reason),
        }
    }

    fn fail(&self, job: Job) {
        let takes = job.batch.takes.len();
        let answer = Answer::failed(takes, FailureReason::StoreUnavailable, self.clock.now_us());
        let _ = job.answer.send(answer);
    }

    fn tell_up(&self) {
        info!(redis = %self.address, "connected to Redis");
        self.state.send_replace(LinkState::Up);
    }

    /// Logs only what is news: the first failure after a link that was up, not each further attempt.
    fn tell_down(&self, reason: String) {
        if !matches!(*self.state.borrow(), LinkState::Down { .. }) {
            warn!(redis = %self.address, %reason, "Redis cannot be used; takes fail until it can");
        }
        self.state.send_replace(LinkState::Down { reason });
    }
}

/// The next job, not before `patient_until`; `None` once the store is dropped.
async fn next_job(jobs: &mut mpsc::Receiver<Job>, patient_until: Instant) -> Option<Job> {
    tokio::time::sleep_until(patient_until).await;
    jobs.recv().await
}

fn pause_before(attempt: u32) -> Duration {
    match attempt {
        0 => Duration::ZERO,
        _ => FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(10)).min(LONGEST_PAUSE),
    }
}

/// Cuts `takes` into runs of at most [`BUCKETS_PER_RUN`] buckets; neither a take nor one and those that follow it are
/// ever cut.
fn runs<'a, 'b>(takes: &'a [&'b Take]) -> impl Iterator<Item = &'a [&'b Take]> {
    let mut rest = takes;
    std::iter::from_fn(move || {
        let mut bucket_count = 0;
        let fits = |led: &&[&Take]| {
            bucket_count += led.iter().map(|take| take.buckets.len()).sum::<usize>();
            bucket_count <= BUCKETS_PER_RUN
        };
        let led = rest.chunk_by(|_, next| next.follows);
        let (run, after) = rest.split_at(led.take_while(fits).map(<[&Take]>::len).sum());
        rest = after;
        (!run.is_empty()).then_some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bucket::Kind;

    use crate::batch::Ask;

    #[test]
    fn attempts_are_made_at_once_and_then_ever_more_rarely() {
        let pauses: Vec<u128> = (0..8).map(|attempt| pause_before(attempt).as_millis()).collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pause_before(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn a_large_request_is_decided_in_runs_and_no_take_is_cut() {
        let limit = bucket::Limit::new(1, 1, 1).expect("valid");
        let ask = Ask { bucket_key: "k".to_owned(), limit, cost_tokens: 1 };
        let take = Take { buckets: vec![ask; 15], kind: Kind::Take, follows: false };
        let sizes = |takes: &[&Take]| runs(takes).map(<[&Take]>::len).collect::<Vec<_>>();
        let mut takes = vec![&take; 100];
        assert_eq!(sizes(&takes), [68, 32], "68 × 15 = 1020 buckets, and the next take would make 1035");

        let follower = Take { follows: true, ..take.clone() };
        takes[68] = &follower;
        assert_eq!(sizes(&takes), [67, 33], "the last one would be cut from the one that follows it");
        takes[67] = &follower;
        assert_eq!(sizes(&takes), [66, 34], "and so would the one that both follow");
        takes[68] = &take;
        assert_eq!(sizes(&takes), [68, 32], "which here are in one run");
    }
}
