//! The task that owns the connection: it collects what waits, runs the script, hands out verdicts, probes, and reconnects.
//!
//! When runs are sent, and what is done until they can be, [`breaker`](super::breaker) says.

use std::{future::pending, mem, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use super::{
    Asking, Handle, LinkState, RedisAddress, Timeouts,
    breaker::{Breaker, Event, LONGEST_PAUSE, State, Step},
    lanes::Lanes,
    link::{Link, RunError},
    queue::{Job, Part},
    runs::{LinkTold, Runs},
    sentinel::{Primary, Sentinels},
};
use crate::{
    batch::Take,
    store::{Answer, denials::Remembered, script},
};

/// The most runs under way over one connection. A Redis that stands alone has fewer, since they are all of one lane.
const IN_FLIGHT: usize = 64;

/// For how many timeouts a connection may be silent with a probe under way before it is made anew.
const SILENT_TIMEOUTS: u32 = 4;

pub(super) struct Worker {
    address: RedisAddress,
    sentinels: Option<Sentinels>,
    /// The newest failover that the Sentinels told of.
    epoch: u64,
    timeouts: Timeouts,
    in_flight: usize,
    arrivals: mpsc::UnboundedReceiver<Job>,
    /// Told when somebody waits no more.
    given_up: Arc<Notify>,
    queue: Lanes,
    state: watch::Sender<LinkState>,
    /// The connection, for whoever asks for what is no take.
    handle: watch::Sender<Option<Handle>>,
    remembered: Arc<Remembered>,
    runs: Arc<Runs>,
    breaker: Breaker,
    /// What is told of the breaker.
    told: LinkTold,
    /// There is a link that was not told of yet.
    is_new: bool,
    /// The eviction policy that was warned of.
    evicts: Option<String>,
    /// Since when the breaker has been closed, where it is.
    closed_since: Option<Instant>,
    /// While no runs are sent, jobs wait until then, and fail at once afterwards.
    patient_until: Instant,
}

/// Why a link is no longer served.
enum Ended {
    Lost(String),
    /// The store was dropped.
    Stopped,
}

type Probe = Pin<Box<dyn Future<Output = Result<Duration, RunError>> + Send>>;

impl Worker {
    pub(super) fn new(
        address: RedisAddress,
        asking: Asking,
        arrivals: mpsc::UnboundedReceiver<Job>,
        state: watch::Sender<LinkState>,
        remembered: Arc<Remembered>,
        runs: &Arc<Runs>,
    ) -> Self {
        Self {
            sentinels: Sentinels::of(&address, asking.timeouts.connect),
            address,
            epoch: 0,
            timeouts: asking.timeouts,
            in_flight: IN_FLIGHT,
            arrivals,
            given_up: Arc::default(),
            queue: Lanes::new(asking.in_flight),
            state,
            handle: watch::Sender::new(None),
            remembered,
            runs: Arc::clone(runs),
            breaker: Breaker::new(),
            told: runs.link(),
            is_new: false,
            evicts: None,
            closed_since: None,
            patient_until: Instant::now() + asking.timeouts.answer,
        }
    }

    /// To be told whenever somebody waits no more for a job that was handed in.
    pub(super) fn given_up(&self) -> Arc<Notify> {
        Arc::clone(&self.given_up)
    }

    /// The connection, where there is one.
    pub(super) fn handle(&self) -> watch::Receiver<Option<Handle>> {
        self.handle.subscribe()
    }

    /// Keeps a link and serves jobs over it until the store is dropped.
    pub(super) async fn work(mut self) {
        let mut step = Some(Step::Connect(self.breaker.next_pause()));
        while let Some((link, primary)) = self.connect(step).await {
            self.handle.send_replace(Some(link.handle()));
            let ended = self.serve(&link, primary.as_ref()).await;
            self.handle.send_replace(None);
            match ended {
                Ended::Stopped => return,
                Ended::Lost(reason) => step = self.on(Event::Lost, Some(reason)),
            }
        }
    }

    /// Tries until there is a link; `None` once the store is dropped.
    ///
    /// The first attempt after a link that held comes at once, and jobs wait for it as long as they may. After it
    /// failed they are failed at once: a Redis that is down costs a client nothing but the answer.
    async fn connect(&mut self, mut step: Option<Step>) -> Option<(Link, Option<Primary>)> {
        loop {
            let pause = match step {
                Some(Step::Connect(pause) | Step::Probe(pause)) => pause,
                None => LONGEST_PAUSE,
            };
            let (address, sentinels) = (self.address.clone(), self.sentinels.clone());
            let (epoch, timeouts) = (self.epoch, self.timeouts);
            let attempt = async move {
                sleep(pause).await;
                attempt(&address, sentinels.as_ref(), epoch, timeouts).await
            };
            tokio::pin!(attempt);
            let connected = loop {
                tokio::select! {
                    biased;
                    connected = &mut attempt => break connected,
                    () = self.given_up.notified() => self.forget_given_up(),
                    job = next_job(&mut self.queue, &mut self.arrivals, Some(self.patient_until)) => drop(job?),
                }
            };
            match connected {
                Ok((link, primary)) => {
                    self.epoch = primary.as_ref().map_or(0, |primary| primary.epoch);
                    return Some((link, primary));
                }
                Err(reason) => {
                    // Only the first attempt is worth waiting for.
                    self.patient_until = Instant::now();
                    step = self.on(Event::NotConnected, Some(reason));
                }
            }
        }
    }

    async fn serve(&mut self, link: &Link, primary: Option<&Primary>) -> Ended {
        // What is still under way when the link is lost ends with this, and its jobs with it: those have failed.
        let mut flying = JoinSet::new();
        self.queue.ground();
        let mut stopped = false;
        let sentinels = self.sentinels.clone();
        let moved = async {
            match (&sentinels, primary) {
                (Some(sentinels), Some(primary)) => sentinels.moved(primary).await,
                _ => pending().await,
            }
        };
        tokio::pin!(moved);
        self.is_new = true;
        self.tell_eviction(link);
        let step = self.on(Event::Connected, None);
        let mut probe: Option<Probe> = self.probe(link, step);
        // When a link that nobody uses is probed, so that it is known to be usable.
        let idle = LONGEST_PAUSE.max(self.timeouts.answer);
        let mut idle_at = Instant::now() + idle;
        loop {
            while let Ok(job) = self.arrivals.try_recv() {
                self.queue.push(job);
            }
            let sends = self.breaker.sends();
            while sends && flying.len() < self.in_flight {
                let parts = self.queue.next_run();
                if parts.is_empty() {
                    break;
                }
                let asked_at_us = self.remembered.now_us();
                let sent = self.runs.sent(&parts);
                let run = link.run(parts);
                flying.spawn(async move { (asked_at_us, sent, run.await) });
            }
            if stopped && flying.is_empty() {
                return Ended::Stopped;
            }
            let fails_at = (!sends).then_some(self.patient_until);
            let (event, reason) = tokio::select! {
                biased;
                // Redis answers in order, and so they land.
                Some(landed) = flying.join_next() => {
                    // No run panics, and none is aborted while it is waited for.
                    let Ok((asked_at_us, sent, (parts, reply))) = landed else { continue };
                    sent.heard(&reply);
                    match self.settle(parts, asked_at_us, reply) {
                        Ok(event) => event,
                        Err(reason) => return Ended::Lost(reason),
                    }
                }
                // A link that was lost while idle is not used for the next batch, which then is sent once, over
                // a new one.
                () = link.lost(), if flying.is_empty() => {
                    return Ended::Lost("it closed the connection".to_owned());
                }
                probed = answered(&mut probe) => {
                    probe = None;
                    match self.probed(probed) {
                        Ok(event) => event,
                        Err(reason) => return Ended::Lost(reason),
                    }
                }
                primary = &mut moved => {
                    return Ended::Lost(format!("the Sentinels name {} as the primary", primary.endpoint));
                }
                () = self.given_up.notified() => {
                    self.forget_given_up();
                    continue;
                }
                () = sleep_until(idle_at), if sends && flying.is_empty() && probe.is_none() => {
                    probe = self.probe(link, Some(Step::Probe(Duration::ZERO)));
                    continue;
                }
                job = next_job(&mut self.queue, &mut self.arrivals, fails_at),
                    if !stopped && (!sends || flying.len() < self.in_flight) =>
                {
                    match job {
                        Some(job) if sends => self.queue.push(job),
                        // It fails, since nobody decides it.
                        Some(_) => {}
                        None => stopped = true,
                    }
                    continue;
                }
            };
            idle_at = Instant::now() + idle;
            let step = self.on(event, reason);
            if step.is_some() {
                probe = self.probe(link, step);
            }
        }
    }

    /// What nobody waits for any more holds places that others may have.
    fn forget_given_up(&mut self) {
        while let Ok(job) = self.arrivals.try_recv() {
            self.queue.push(job);
        }
        self.queue.forget_given_up();
    }

    fn probe(&self, link: &Link, step: Option<Step>) -> Option<Probe> {
        let Some(Step::Probe(pause)) = step else { return None };
        let patience = self.timeouts.answer.saturating_mul(SILENT_TIMEOUTS);
        let asked = link.probe(patience);
        Some(Box::pin(async move {
            sleep(pause).await;
            asked.await
        }))
    }

    /// What a probe tells; an error says why the link is of no more use.
    fn probed(&self, probed: Result<Duration, RunError>) -> Result<(Event, Option<String>), String> {
        match probed {
            Ok(took) if took <= self.timeouts.answer => Ok((Event::ProbeAnswered, None)),
            Ok(_) => Ok((Event::ProbeSlow, Some(RunError::Late(self.timeouts.answer).to_string()))),
            Err(RunError::Refused(fault)) => Ok((Event::ProbeRefused, Some(fault.to_string()))),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Hands out what became of a run; an error says why its link is of no more use.
    fn settle(
        &mut self,
        parts: Vec<Part>,
        asked_at_us: u64,
        reply: Result<Vec<u8>, RunError>,
    ) -> Result<(Event, Option<String>), String> {
        if let Some(part) = parts.first() {
            self.queue.land(part.lane());
        }
        let takes: Vec<&Take> = parts.iter().flat_map(Part::takes).collect();
        // Where there is no answer the parts are dropped, and their jobs with them: those have failed.
        let answer = match reply {
            Ok(reply) => script::decode(&takes, &reply).map_err(|error| error.to_string())?,
            Err(RunError::Redirected(redirect)) => {
                parts.into_iter().for_each(|part| part.redirected(redirect.clone()));
                return Ok((Event::Answered, None));
            }
            Err(RunError::Refused(fault)) => return Ok((Event::Refused, Some(fault.to_string()))),
            Err(error @ RunError::Late(_)) => return Ok((Event::Late, Some(error.to_string()))),
            Err(error @ (RunError::Left(_) | RunError::Lost(_))) => return Err(error.to_string()),
        };
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
        Ok((Event::Answered, None))
    }

    /// Lets the breaker know, and tells what has become of it; `reason` is why it is not well.
    fn on(&mut self, event: Event, reason: Option<String>) -> Option<Step> {
        if self.closed_since.is_some_and(|since| since.elapsed() >= LONGEST_PAUSE) {
            self.breaker.on(Event::Held);
        }
        let sent = self.breaker.sends();
        let before = self.breaker.state();
        let step = self.breaker.on(event);
        self.told.is(self.breaker.state());
        if sent && !self.breaker.sends() {
            let is_at_once =
                matches!(step, Some(Step::Connect(Duration::ZERO) | Step::Probe(Duration::ZERO)));
            let patience = if is_at_once { self.timeouts.answer } else { Duration::ZERO };
            self.patient_until = Instant::now() + patience;
        }
        match (before, self.breaker.state()) {
            (State::Closed, State::Closed) => {}
            (_, State::Closed) => {
                self.closed_since = Some(Instant::now());
                self.tell_up();
            }
            _ => {
                self.closed_since = None;
                reason.into_iter().for_each(|reason| self.tell_down(reason));
            }
        }
        step
    }

    fn tell_up(&mut self) {
        if mem::take(&mut self.is_new) {
            info!(redis = %self.address, "connected to Redis, which answers in time");
        } else {
            info!(redis = %self.address, "Redis can be used again, over the same connection");
        }
        self.state.send_replace(LinkState::Up);
    }

    /// Warns once, not at each connection.
    fn tell_eviction(&mut self, link: &Link) {
        if let Some(policy) = link.evicts()
            && self.evicts.as_deref() != Some(policy)
        {
            warn!(
                maxmemory_policy = policy,
                "Redis may evict buckets when its memory is full, and an evicted bucket is a forgotten debt: \
                 set maxmemory-policy to noeviction"
            );
        }
        self.evicts = link.evicts().map(str::to_owned);
    }

    /// Logs only what is news, not each further attempt.
    fn tell_down(&self, reason: String) {
        let is_news = match &*self.state.borrow() {
            LinkState::Down { reason: told } => *told != reason,
            LinkState::Starting | LinkState::Up => true,
        };
        if is_news {
            match self.breaker.state() {
                State::Unlinked => {
                    warn!(redis = %self.address, %reason, "Redis cannot be used; takes fail until it can");
                }
                State::Refusing => {
                    warn!(redis = %self.address, %reason, "Redis refuses; takes that it has to write fail until it does not");
                }
                // It hesitated, perhaps once.
                State::Probing | State::Closed => {
                    warn!(redis = %self.address, %reason, "Redis is late; takes fail until it answers a probe in time");
                }
            }
        }
        self.state.send_replace(LinkState::Down { reason });
    }
}

/// One attempt to reach the Redis, or the primary that the Sentinels name, who may change their minds meanwhile.
async fn attempt(
    address: &RedisAddress,
    sentinels: Option<&Sentinels>,
    epoch: u64,
    timeouts: Timeouts,
) -> Result<(Link, Option<Primary>), String> {
    let Some(sentinels) = sentinels else {
        let link = Link::connect(address, timeouts).await;
        return link.map(|link| (link, None)).map_err(|error| error.to_string());
    };
    let mut primary = sentinels.find(epoch).await.map_err(|error| error.to_string())?;
    loop {
        let server = address.at(primary.endpoint.clone());
        tokio::select! {
            link = Link::connect(&server, timeouts) => {
                let failed = |error| format!("the primary at {}: {error}", primary.endpoint);
                return link.map_err(failed).map(|link| (link, Some(primary)));
            }
            moved = sentinels.moved(&primary) => primary = moved,
        }
    }
}

/// What a probe tells, where one is under way.
async fn answered(probe: &mut Option<Probe>) -> Result<Duration, RunError> {
    match probe {
        Some(probe) => probe.await,
        None => pending().await,
    }
}

/// The next job: one that has arrived, or where jobs fail from an instant on, any that waits, not before it; `None` once
/// the store is dropped.
async fn next_job(
    queue: &mut Lanes,
    arrivals: &mut mpsc::UnboundedReceiver<Job>,
    fails_at: Option<Instant>,
) -> Option<Job> {
    if let Some(fails_at) = fails_at {
        sleep_until(fails_at).await;
        if let Some(job) = queue.pop() {
            return Some(job);
        }
    }
    arrivals.recv().await
}
