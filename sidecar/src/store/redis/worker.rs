//! The task that owns the connection: it collects what waits, runs the script, hands out verdicts, and reconnects.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::{info, warn};

use super::{
    Asking, LinkState, RedisAddress, Timeouts,
    lanes::Lanes,
    link::{Link, RunError},
    queue::{Job, Part},
    redirect::Redirect,
};
use crate::{
    batch::Take,
    store::{Answer, denials::Remembered, script},
};

/// The pause after the first attempt that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause, and how long an idle link must have held for the next attempt to come without one.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The most runs under way over one connection. A Redis that stands alone has fewer, since they are all of one lane.
const IN_FLIGHT: usize = 64;

pub(super) struct Worker {
    address: RedisAddress,
    timeouts: Timeouts,
    in_flight: usize,
    arrivals: mpsc::UnboundedReceiver<Job>,
    queue: Lanes,
    state: watch::Sender<LinkState>,
    remembered: Arc<Remembered>,
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

/// Why no further run is sent over a link.
enum Unfit {
    /// A run had no reply in time; those that were sent behind it may have theirs.
    Late(String),
    /// Nothing is heard of it any more.
    Lost(String),
}

impl Worker {
    pub(super) fn new(
        address: RedisAddress,
        asking: Asking,
        arrivals: mpsc::UnboundedReceiver<Job>,
        state: watch::Sender<LinkState>,
        remembered: Arc<Remembered>,
    ) -> Self {
        Self {
            address,
            timeouts: asking.timeouts,
            in_flight: IN_FLIGHT,
            arrivals,
            queue: Lanes::new(asking.in_flight),
            state,
            remembered,
            attempts: 0,
            refusing: false,
        }
    }

    /// Keeps a link and serves jobs over it until the store is dropped.
    pub(super) async fn work(mut self) {
        while let Some(link) = self.connect().await {
            let since = Instant::now();
            self.tell_up();
            match self.serve(&link).await {
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
                    job = next_job(&mut self.queue, &mut self.arrivals, patient_until) => drop(job?),
                }
            };
            match connected {
                Ok(link) => return Some(link),
                Err(error) => self.tell_down(error.to_string()),
            }
        }
    }

    async fn serve(&mut self, link: &Link) -> Ended {
        // What is still under way when the link is lost ends with this, and its jobs with it: those have failed.
        let mut flying = JoinSet::new();
        self.queue.ground();
        let mut stopped = false;
        // Once a run was late nothing is sent any more, and what was sent behind it has its own time to be answered.
        let mut late = None;
        loop {
            if flying.is_empty()
                && let Some(reason) = late
            {
                return Ended::Lost(reason);
            }
            while let Ok(job) = self.arrivals.try_recv() {
                self.queue.push(job);
            }
            while late.is_none() && flying.len() < self.in_flight {
                let parts = self.queue.next_run();
                if parts.is_empty() {
                    break;
                }
                let asked_at_us = self.remembered.now_us();
                let run = link.run(parts);
                flying.spawn(async move { (asked_at_us, run.await) });
            }
            if stopped && flying.is_empty() {
                return Ended::Stopped;
            }
            tokio::select! {
                biased;
                // Redis answers in order, and so they land.
                Some(landed) = flying.join_next() => {
                    // No run panics, and none is aborted while it is waited for.
                    let Ok((asked_at_us, (parts, reply))) = landed else { continue };
                    match self.settle(parts, asked_at_us, reply) {
                        Ok(()) => {}
                        Err(Unfit::Late(reason)) => late = Some(reason),
                        Err(Unfit::Lost(reason)) => return Ended::Lost(reason),
                    }
                }
                // A link that was lost while idle is not used for the next batch, which then is sent once, over
                // a new one.
                () = link.lost(), if flying.is_empty() => {
                    return Ended::Lost("it closed the connection".to_owned());
                }
                job = self.arrivals.recv(), if !stopped && late.is_none() && flying.len() < self.in_flight => match job {
                    Some(job) => self.queue.push(job),
                    None => stopped = true,
                },
            }
        }
    }

    /// Hands out what became of a run; an error says why its link is of no more use.
    fn settle(
        &mut self,
        parts: Vec<Part>,
        asked_at_us: u64,
        reply: Result<Vec<u8>, RunError>,
    ) -> Result<(), Unfit> {
        if let Some(part) = parts.first() {
            self.queue.land(part.lane());
        }
        let takes: Vec<&Take> = parts.iter().flat_map(Part::takes).collect();
        let answer = match reply {
            Ok(reply) => script::decode(&takes, &reply).map_err(|error| Unfit::Lost(error.to_string()))?,
            // The parts are dropped, and their jobs with them: those have failed.
            Err(RunError::Refused(error)) => {
                // What is asked of a node of a Cluster may be another's to decide.
                let redirect = parts.first().and_then(|part| Redirect::of(&error, part.lane()));
                if let Some(redirect) = redirect {
                    parts.into_iter().for_each(|part| part.redirected(redirect.clone()));
                    return Ok(());
                }
                if !std::mem::replace(&mut self.refusing, true) {
                    warn!(redis = %self.address, %error, "Redis refuses the script; takes fail until it runs it");
                }
                return Ok(());
            }
            Err(error @ RunError::Late(_)) => return Err(Unfit::Late(error.to_string())),
            Err(RunError::Lost(reason)) => return Err(Unfit::Lost(reason)),
        };
        self.attempts = 0;
        if std::mem::take(&mut self.refusing) {
            info!(redis = %self.address, "Redis runs the script again");
        }
        if parts.first().is_some_and(|part| part.lane().teaches()) {
            self.remembered.learn(&takes, &answer, asked_at_us);
        }
        let Answer { now_us, verdicts } = answer;
        let mut verdicts = verdicts.into_iter();
        for part in parts {
            if let Some(job) = part.decided(now_us, &mut verdicts) {
                self.queue.push(job);
            }
        }
        Ok(())
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

/// The next job that waits, not before `patient_until`; `None` once the store is dropped.
async fn next_job(
    queue: &mut Lanes,
    arrivals: &mut mpsc::UnboundedReceiver<Job>,
    patient_until: Instant,
) -> Option<Job> {
    tokio::time::sleep_until(patient_until).await;
    match queue.pop() {
        Some(job) => Some(job),
        None => arrivals.recv().await,
    }
}

fn pause_before(attempt: u32) -> Duration {
    match attempt {
        0 => Duration::ZERO,
        _ => FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(10)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_made_at_once_and_then_ever_more_rarely() {
        let pauses: Vec<u128> = (0..8).map(|attempt| pause_before(attempt).as_millis()).collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pause_before(u32::MAX), LONGEST_PAUSE);
    }
}
