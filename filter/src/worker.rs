//! The requests of one Envoy worker: their takes leave in batches, and each gets its answer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use policy::{Answer, Ask, Failure, Policies, Quota};

use crate::batch::{Batcher, Load, Waiting};
use crate::callout;
use crate::host::{self, LogLevel};
use crate::stats::{Stats, Tally};

/// Where answers are reported for the access log: `%FILTER_STATE(wasm.sluice:PLAIN)%`.
const FILTER_STATE: &str = "sluice";

/// One request that a policy governs, shared by its stream and the queue.
pub struct Asking {
    context_id: u32,
    asks: Vec<Ask>,
    phase: Cell<Phase>,
    quota: Cell<Option<Quota>>,
}

/// Where a request stands. Each gets exactly one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its header callback still runs: Envoy has not paused it yet.
    Arriving,
    /// It is paused.
    Paused,
    /// It may pass.
    Passed,
    /// It was answered in the upstream's place.
    Denied,
    /// Its client has left.
    Gone,
}

impl Asking {
    /// How the bucket stands that speaks for the request, once it has passed.
    pub fn quota(&self) -> Option<Quota> {
        self.quota.get()
    }

    /// Where the request stands.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Envoy has paused the request, unless it was answered already.
    pub fn paused(&self) {
        if self.phase.get() == Phase::Arriving {
            self.phase.set(Phase::Paused);
        }
    }

    /// The client has left, or all is done.
    pub fn gone(&self) {
        self.phase.set(Phase::Gone);
    }
}

impl Waiting for Rc<Asking> {
    fn is_gone(&self) -> bool {
        self.phase.get() == Phase::Gone
    }

    fn load(&self) -> Load {
        Load { buckets: self.asks.len(), key_bytes: self.asks.iter().map(|ask| ask.key.len()).sum() }
    }
}

/// One configuration on one worker. Nothing here is shared with another.
pub struct Worker {
    root_id: u32,
    policies: Policies,
    stats: Stats,
    batcher: RefCell<Batcher<Rc<Asking>>>,
    failing: Cell<bool>,
}

impl Worker {
    pub fn new(root_id: u32, policies: Policies) -> Self {
        let stats = Stats::define();
        Self { root_id, policies, stats, batcher: RefCell::default(), failing: Cell::new(false) }
    }

    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// A request has arrived: lets it wait, and lets what waits leave. Called within the request's header callback.
    pub fn ask(&self, context_id: u32, asks: Vec<Ask>) -> Rc<Asking> {
        let phase = Cell::new(Phase::Arriving);
        let asking = Rc::new(Asking { context_id, asks, phase, quota: Cell::new(None) });
        let refused = if asking.asks.len() > contract::MAX_BUCKETS {
            // The sidecar would refuse it, and with it the whole batch.
            Some(Failure::TooManyPolicies)
        } else {
            self.wait(&asking).err()
        };
        match refused {
            Some(failure) => self.fail(std::slice::from_ref(&asking), failure),
            None => self.flush(),
        }
        asking
    }

    /// Lets a request wait for the next callout, or where that is full, for the one after it.
    fn wait(&self, asking: &Rc<Asking>) -> Result<(), Failure> {
        let pushed = self.batcher.borrow_mut().push(Rc::clone(asking));
        pushed.or_else(|asking| {
            self.flush();
            self.batcher.borrow_mut().push(asking).map_err(|_| Failure::Overloaded)
        })
    }

    /// Sends what waits, if a callout may leave.
    ///
    /// The root context owns the callouts: so a client that leaves takes nobody's answer with it.
    fn flush(&self) {
        loop {
            let batch = self.batcher.borrow_mut().next();
            self.stats.abandoned(self.batcher.borrow_mut().take_dropped());
            if batch.is_empty() {
                return;
            }
            let body = callout::encode(&self.policies, batch.iter().map(|asking| asking.asks.as_slice()));
            let owned = host::set_effective_context(self.root_id);
            match body.filter(|_| owned.is_ok()).map(|body| callout::send(&self.policies, &body)) {
                Some(Ok(token)) => return self.batcher.borrow_mut().sent(token, batch),
                // What waits now fails on its own account: the next callout may find an endpoint again.
                Some(Err(_)) | None => {
                    self.note(Some(Failure::NotSent));
                    self.fail(&batch, Failure::NotSent);
                }
            }
        }
    }

    /// A callout has come back: sends the next, then hands out the answers.
    pub fn arrived(&self, token: u32, num_headers: usize, body_size: usize) {
        let batch = self.batcher.borrow_mut().arrived(token);
        let verdicts = callout::verdicts(batch.len(), num_headers, body_size);
        self.flush();
        self.note(verdicts.as_ref().err().copied());
        match verdicts {
            Ok(verdicts) => self.give_all(&batch, |index, asks| match verdicts.get(index) {
                Some(verdict) => self.policies.answer(asks, verdict),
                None => self.policies.failed(asks, Failure::Unreadable),
            }),
            Err(failure) => self.fail(&batch, failure),
        }
    }

    fn fail(&self, batch: &[Rc<Asking>], failure: Failure) {
        self.give_all(batch, |_, asks| self.policies.failed(asks, failure));
    }

    /// Gives each of a batch its answer, and counts them together: adding to a counter is a call into Envoy.
    fn give_all(&self, batch: &[Rc<Asking>], answer: impl Fn(usize, &[Ask]) -> Answer) {
        let mut tally = Tally::default();
        for (index, asking) in batch.iter().enumerate() {
            self.give(asking, || answer(index, &asking.asks), &mut tally);
        }
        self.stats.answered(&tally);
    }

    /// Counts a callout, and logs when they begin to fail and when they succeed again.
    fn note(&self, failure: Option<Failure>) {
        self.stats.callout(failure);
        if self.failing.replace(failure.is_some()) == failure.is_some() {
            return;
        }
        let cluster = &self.policies.sidecar().cluster;
        match failure {
            Some(failure) => {
                let why = failure.as_str();
                let message =
                    format!("sluice: callouts to the cluster {cluster:?} fail ({why}); on_error applies");
                host::log(LogLevel::Warn, &message);
            }
            None => host::log(LogLevel::Info, &format!("sluice: the cluster {cluster:?} answers again")),
        }
    }

    /// Gives a request its answer: exactly one, and none where the client has left.
    fn give(&self, asking: &Asking, answer: impl FnOnce() -> Answer, tally: &mut Tally) {
        let paused = match asking.phase.get() {
            Phase::Arriving => false,
            Phase::Paused => true,
            Phase::Passed | Phase::Denied | Phase::Gone => return,
        };
        if host::set_effective_context(asking.context_id).is_err() {
            return;
        }
        let answer = answer();
        tally.add(&answer);
        // Without the report the access log lacks a word; the decision stands.
        let _unreported = host::set_filter_state(FILTER_STATE, &answer.report);
        match &answer.denial {
            None => {
                asking.phase.set(Phase::Passed);
                asking.quota.set(answer.quota);
                // One that is still arriving is let through by its own callback's return.
                if paused {
                    let _gone = host::resume_request();
                }
            }
            Some(denial) => {
                asking.phase.set(Phase::Denied);
                let quota = answer.quota.iter().flat_map(Quota::headers);
                let headers: Vec<(&str, String)> = denial.headers().into_iter().chain(quota).collect();
                let headers: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let _gone =
                    host::reply(denial.status, denial.grpc_status, &denial.details, &headers, &denial.body);
            }
        }
    }
}
