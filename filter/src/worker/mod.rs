//! The requests of one Envoy worker: each is answered from what is known, or its takes leave in a batch; each gets its
//! answer, and what it cost in the end is settled.

mod answering;
mod breaking;
mod leasing;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use contract::Verdict;
use hashbrown::HashSet;
use policy::{Ask, Bill, Decided, Failure, Policies, Problem};

use self::leasing::Payment;
use crate::asking::{Asking, Item, Settlement};
use crate::batch::{Batcher, Waiting as _};
use crate::breaker::Breaker;
use crate::callout;
use crate::clock::Clock;
use crate::host::{self, HeaderMap, LogLevel};
use crate::leases::Leases;
use crate::local::Table;
use crate::remembered::{Answered, Remembered};
use crate::stats::{Stats, Tally};
use crate::trace;

/// The attribute with the bytes of the response's body that were sent to the client.
const BODY_BYTES: &str = "response\0size";

/// The attribute with what went wrong with the request, as bits; 0 where nothing did.
const RESPONSE_FLAGS: &str = "response\0flags";

/// The header with the trace that a request is part of.
const TRACEPARENT: &str = "traceparent";

/// The most mistakes that are told of.
const MAX_TOLD: usize = 100;

/// One configuration on one worker. Nothing here is shared with another.
pub struct Worker {
    root_id: u32,
    policies: Policies,
    stats: Stats,
    clock: Clock,
    batcher: RefCell<Batcher<Item>>,
    remembered: RefCell<Remembered>,
    /// `None` where no policy has leases.
    leases: Option<RefCell<Leases>>,
    breaker: RefCell<Breaker>,
    local: Table,
    /// Whether Envoy calls so often that leases end and probes are sent in time.
    ticking: Cell<bool>,
    failing: Cell<bool>,
    /// Mistakes that were told of.
    told: RefCell<HashSet<String>>,
}

/// What came of a callout, or of the part of it that is one item's.
type Outcome<'a> = Result<&'a [Verdict], Failure>;

/// When a callout was sent, and when its answer was heard.
#[derive(Clone, Copy)]
struct Times {
    asked_at_us: u64,
    heard_at_us: u64,
}

impl Worker {
    pub fn new(root_id: u32, policies: Policies) -> Self {
        let has_leases = policies.iter().any(|policy| policy.lease().is_some());
        Self {
            root_id,
            stats: Stats::define(),
            clock: Clock::start(),
            batcher: RefCell::new(Batcher::new(policies.sidecar().in_flight)),
            remembered: RefCell::new(Remembered::new(policies.deny_cache())),
            leases: has_leases.then(|| RefCell::new(Leases::new())),
            breaker: RefCell::default(),
            local: Table::new(policies.domain(), policies.local().buckets),
            ticking: Cell::new(false),
            failing: Cell::new(false),
            told: RefCell::default(),
            policies,
        }
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

    /// A request has arrived: answers it from what is known, or lets it wait, and lets what waits leave. Called within
    /// the request's header callback.
    pub fn ask(&self, context_id: u32, asks: Vec<Ask>) -> Rc<Asking> {
        let mut asking = Asking::new(context_id, asks, &self.policies);
        if asking.load().buckets > contract::MAX_BUCKETS {
            // The sidecar would refuse it, and with it the whole batch.
            let asking = Rc::new(asking);
            self.fail(&asking, Failure::TooManyPolicies);
            return asking;
        }
        let Payment { known, wanted } = self.pay(asking.asks());
        if let Some(known) = known {
            let asking = Rc::new(asking);
            let answer = self.policies.leased(asking.asks(), &known, fastrand::u32(..));
            let mut tally = Tally::default();
            self.deliver(&asking, answer, &mut tally);
            self.stats.lease_hit();
            self.stats.add(&tally, &self.policies);
            self.asked(asking.asks(), &wanted);
            let wanted = wanted.into_iter().filter_map(|(index, tokens)| {
                asking.asks().get(index).map(|ask| Item::lease(ask.clone(), tokens, &self.policies))
            });
            self.upkeep(wanted.collect());
            return asking;
        }
        let known = self.remembered(asking.asks());
        if let Answered::Denied(prepared) = known {
            let asking = Rc::new(asking);
            self.deny(&asking, &prepared.report, &prepared.reply);
            let mut tally = Tally::default();
            tally.answer(Decided::Shared, true, &prepared.counts);
            self.stats.deny_cache_hit();
            self.stats.add(&tally, &self.policies);
            self.upkeep(Vec::new());
            return asking;
        }
        if self.is_open() {
            let asking = Rc::new(asking);
            self.fail(&asking, Failure::BreakerOpen);
            return asking;
        }
        if asking.add_leases(wanted, &self.policies) {
            self.asked(asking.asks(), asking.leases());
        }
        let repeats = match known {
            Answered::Ask { repeats: true } => {
                let now_us = self.clock.now_us();
                self.remembered.borrow_mut().repeats(&self.policies, asking.asks(), now_us)
            }
            _ => Vec::new(),
        };
        asking.tell(repeats, self.traceparent());
        let asking = Rc::new(asking);
        // What is returned goes first: it makes room for what is asked.
        if let Some(leases) = &self.leases {
            let mut leases = leases.borrow_mut();
            asking.asks().iter().for_each(|ask| leases.make_way(ask));
        }
        self.upkeep(Vec::new());
        match self.wait(Item::Request(Rc::clone(&asking))) {
            Ok(()) => self.flush(),
            Err(failure) => self.fail(&asking, failure),
        }
        asking
    }

    /// What is known of what a request asks.
    fn remembered(&self, asks: &[Ask]) -> Answered {
        let mut remembered = self.remembered.borrow_mut();
        if remembered.is_empty() {
            return Answered::Ask { repeats: false };
        }
        remembered.answer(&self.policies, asks, self.clock.now_us())
    }

    /// The trace that the arriving request is part of, where it is sampled and the sidecar is to know of it: reading it
    /// is a call into Envoy.
    fn traceparent(&self) -> Option<String> {
        if !self.policies.tracing() {
            return None;
        }
        let value = host::header(HeaderMap::Request, TRACEPARENT)?;
        trace::sampled(&value).map(str::to_owned)
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
            let is_open = self.is_open();
            let mut batcher = self.batcher.borrow_mut();
            let batch = if is_open { batcher.take_waiting() } else { batcher.next() };
            self.stats.abandoned(batcher.take_dropped());
            drop(batcher);
            if batch.is_empty() {
                return;
            }
            if is_open {
                let now_us = self.clock.now_us();
                let times = Times { asked_at_us: now_us, heard_at_us: now_us };
                self.hand_out(&batch, Err(Failure::BreakerOpen), times);
                continue;
            }
            let takes = batch.iter().flat_map(|item| item.takes(&self.policies)).collect();
            let body = callout::encode(&self.policies, takes);
            // Before it is sent: what is denied is denied from no earlier on, and a lease begins no earlier.
            let asked_at_us = self.clock.now_us();
            let owned = host::set_effective_context(self.root_id);
            match body.filter(|_| owned.is_ok()).map(|body| callout::send(&self.policies, &body)) {
                Some(Ok(token)) => self.batcher.borrow_mut().sent(token, batch, asked_at_us),
                // What waits now fails on its own account: the next callout may find an endpoint again.
                Some(Err(_)) | None => {
                    self.note(Some(Failure::NotSent));
                    let times = Times { asked_at_us, heard_at_us: asked_at_us };
                    self.hand_out(&batch, Err(Failure::NotSent), times);
                }
            }
        }
    }

    /// A callout has come back: sends the next, then hands out the answers.
    pub fn arrived(&self, token: u32, num_headers: usize, body_size: usize) {
        if self.is_probe(token, num_headers) {
            return;
        }
        let Some(sent) = self.batcher.borrow_mut().arrived(token) else { return };
        let heard_at_us = self.clock.now_us();
        self.stats.callout_took(heard_at_us.saturating_sub(sent.at_us));
        let takes = sent.batch.iter().map(|item| item.load().takes).sum();
        let verdicts = callout::verdicts(takes, num_headers, body_size);
        let times = Times { asked_at_us: sent.at_us, heard_at_us };
        let failure = verdicts.as_ref().err().copied();
        self.weigh(failure, times);
        self.flush();
        self.note(failure);
        self.hand_out(&sent.batch, verdicts.as_deref().map_err(|failure| *failure), times);
        self.upkeep(Vec::new());
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
}
