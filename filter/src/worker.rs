//! The requests of one Envoy worker: their takes leave in batches, each gets its answer, and what it cost in the end
//! is settled.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use contract::Verdict;
use hashbrown::HashSet;
use policy::{Ask, Bill, Failure, Policies, Problem};

use crate::asking::{Asking, Item, Phase, Settlement};
use crate::batch::{Batcher, Waiting as _};
use crate::callout;
use crate::host::{self, HeaderMap, LogLevel};
use crate::stats::{Stats, Tally};

/// Where answers are reported for the access log: `%FILTER_STATE(wasm.sluice:PLAIN)%`.
const FILTER_STATE: &str = "sluice";

/// The attribute with the bytes of the response's body that were sent to the client.
const BODY_BYTES: &str = "response\0size";

/// The attribute with what went wrong with the request, as bits; 0 where nothing did.
const RESPONSE_FLAGS: &str = "response\0flags";

/// The most mistakes that are told of.
const MAX_TOLD: usize = 100;

/// One configuration on one worker. Nothing here is shared with another.
pub struct Worker {
    root_id: u32,
    policies: Policies,
    stats: Stats,
    batcher: RefCell<Batcher<Item>>,
    failing: Cell<bool>,
    /// Mistakes that were told of.
    told: RefCell<HashSet<String>>,
}

/// What came of a callout, or of the part of it that is one item's.
type Outcome<'a> = Result<&'a [Verdict], Failure>;

impl Worker {
    pub fn new(root_id: u32, policies: Policies) -> Self {
        let stats = Stats::define();
        let (batcher, told) = (RefCell::default(), RefCell::default());
        Self { root_id, policies, stats, batcher, failing: Cell::new(false), told }
    }

    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Logs what is wrong with the metadata of a request's route: each mistake once, since every request of that route
    /// meets it.
    pub fn tell(&self, mistakes: &[Problem]) {
        self.stats.route_mistake();
        for mistake in mistakes {
            let message =
                format!("sluice: the metadata of a route is not valid and does not count: {mistake}");
            let mut told = self.told.borrow_mut();
            if told.len() < MAX_TOLD && told.insert(message.clone()) {
                host::log(LogLevel::Error, &message);
            }
        }
    }

    /// A request has arrived: lets it wait, and lets what waits leave. Called within the request's header callback.
    pub fn ask(&self, context_id: u32, asks: Vec<Ask>) -> Rc<Asking> {
        let asking = Rc::new(Asking::new(context_id, asks, &self.policies));
        let refused = if asking.load().buckets > contract::MAX_BUCKETS {
            // The sidecar would refuse it, and with it the whole batch.
            Some(Failure::TooManyPolicies)
        } else {
            self.wait(Item::Request(Rc::clone(&asking))).err()
        };
        match refused {
            Some(failure) => self.hand_out(&[Item::Request(Rc::clone(&asking))], Err(failure)),
            None => self.flush(),
        }
        asking
    }

    /// A request that was charged is over: what it cost in the end goes with the next callout, and nobody waits for the
    /// answer. Called within the request's last callback.
    pub fn settle(&self, asking: &Rc<Asking>, bill: Bill) {
        let (mut bill, mut body_bytes) = (bill, 0);
        if bill.needs_body_bytes() {
            let Some(sent) = host::number(BODY_BYTES) else { return self.stats.unsettled() };
            body_bytes = sent;
            if host::number(RESPONSE_FLAGS) != Some(0) {
                bill = bill.cut_off();
            }
        }
        let Some(settlement) = Settlement::new(asking, bill, body_bytes, &self.policies) else { return };
        match self.wait(Item::Settlement(settlement)) {
            Ok(()) => self.flush(),
            Err(_) => self.stats.unsettled(),
        }
    }

    /// Lets something wait for the next callout, or where that is full, for the one after it.
    fn wait(&self, item: Item) -> Result<(), Failure> {
        let pushed = self.batcher.borrow_mut().push(item);
        pushed.or_else(|item| {
            self.flush();
            self.batcher.borrow_mut().push(item).map_err(|_| Failure::Overloaded)
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
            let takes = batch.iter().flat_map(|item| item.takes(&self.policies)).collect();
            let body = callout::encode(&self.policies, takes);
            let owned = host::set_effective_context(self.root_id);
            match body.filter(|_| owned.is_ok()).map(|body| callout::send(&self.policies, &body)) {
                Some(Ok(token)) => return self.batcher.borrow_mut().sent(token, batch),
                // What waits now fails on its own account: the next callout may find an endpoint again.
                Some(Err(_)) | None => {
                    self.note(Some(Failure::NotSent));
                    self.hand_out(&batch, Err(Failure::NotSent));
                }
            }
        }
    }

    /// A callout has come back: sends the next, then hands out the answers.
    pub fn arrived(&self, token: u32, num_headers: usize, body_size: usize) {
        let batch = self.batcher.borrow_mut().arrived(token);
        let takes = batch.iter().map(|item| item.load().takes).sum();
        let verdicts = callout::verdicts(takes, num_headers, body_size);
        self.flush();
        self.note(verdicts.as_ref().err().copied());
        self.hand_out(&batch, verdicts.as_deref().map_err(|failure| *failure));
    }

    /// Gives each of a batch what came of it, and counts all together: adding to a counter is a call into Envoy.
    fn hand_out(&self, batch: &[Item], outcome: Outcome) {
        let mut tally = Tally::default();
        let mut rest = outcome;
        for item in batch {
            let own = rest
                .and_then(|verdicts| verdicts.split_at_checked(item.load().takes).ok_or(Failure::Unreadable));
            rest = own.map(|(_, rest)| rest);
            let own = own.map(|(own, _)| own);
            match item {
                Item::Request(asking) => self.give(asking, own, &mut tally),
                Item::Settlement(_) => tally.settlement(own.is_ok_and(all_allowed)),
            }
        }
        self.stats.add(&tally, &self.policies);
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
    fn give(&self, asking: &Asking, outcome: Outcome, tally: &mut Tally) {
        let paused = match asking.phase() {
            Phase::Arriving => false,
            Phase::Paused => true,
            Phase::Passed | Phase::Denied | Phase::Gone => return,
        };
        if host::set_effective_context(asking.context_id()).is_err() {
            return;
        }
        let answer = match outcome {
            Ok(verdicts) => self.policies.answer(asking.asks(), verdicts, fastrand::u32(..)),
            Err(failure) => self.policies.failed(asking.asks(), failure),
        };
        tally.answer(&answer);
        // Without the report the access log lacks a word; the decision stands.
        let _unreported = host::set_filter_state(FILTER_STATE, &answer.report);
        match &answer.denial {
            None => {
                asking.passed(answer);
                // One that is still arriving is let through by its own callback's return.
                if paused {
                    let _gone = host::resume_request();
                }
            }
            Some(denial) => {
                asking.denied();
                let headers: Vec<(&str, &str)> =
                    denial.headers.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
                let body = if is_grpc() { &denial.message } else { &denial.body };
                let _gone = host::reply(denial.status, denial.grpc_status, &denial.details, &headers, body);
            }
        }
    }
}

/// Whether the request of the effective context is gRPC, by Envoy's own rule: it sends the body of a reply to it as the
/// message of its status.
fn is_grpc() -> bool {
    let content_type = host::header(HeaderMap::Request, "content-type").unwrap_or_default();
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

fn all_allowed(verdicts: &[Verdict]) -> bool {
    verdicts.iter().all(|verdict| matches!(verdict, Verdict::Allowed(_)))
}
