//! The requests of one Envoy worker: each is answered from what is known, or its takes leave in a batch; each gets its
//! answer, and what it cost in the end is settled.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use contract::{BucketVerdict, Leased, Verdict};
use hashbrown::HashSet;
use policy::{Answer, Ask, Bill, Failure, Lease, Policies, Policy, Problem};

use crate::asking::{Asking, Item, Phase, Settlement};
use crate::batch::{Batcher, Waiting as _};
use crate::callout;
use crate::clock::Clock;
use crate::host::{self, LogLevel};
use crate::leases::Leases;
use crate::remembered::{Prepared, Remembered};
use crate::reply::Reply;
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
    clock: Clock,
    batcher: RefCell<Batcher<Item>>,
    remembered: RefCell<Remembered>,
    /// `None` where no policy has leases.
    leases: Option<RefCell<Leases>>,
    /// Whether Envoy calls so often that leases end in time.
    ticking: Cell<bool>,
    failing: Cell<bool>,
    /// Mistakes that were told of.
    told: RefCell<HashSet<String>>,
}

/// What came of a callout, or of the part of it that is one item's.
type Outcome<'a> = Result<&'a [Verdict], Failure>;

/// How a request stands with the leases.
#[derive(Default)]
struct Payment {
    /// How the buckets of each ask stand, where all were paid.
    known: Option<Vec<Option<Vec<BucketVerdict>>>>,
    /// Of which asks a lease is wanted, and of how many tokens.
    wanted: Vec<(usize, u64)>,
}

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
        if let Some(prepared) = self.remembered(asking.asks()) {
            let asking = Rc::new(asking);
            self.deny(&asking, &prepared.report, &prepared.reply);
            let mut tally = Tally::default();
            tally.answer(true, true, &prepared.counts);
            self.stats.deny_cache_hit();
            self.stats.add(&tally, &self.policies);
            self.upkeep(Vec::new());
            return asking;
        }
        if asking.add_leases(wanted, &self.policies) {
            self.asked(asking.asks(), asking.leases());
        }
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

    /// What denies a request for certain, if something does.
    fn remembered(&self, asks: &[Ask]) -> Option<Rc<Prepared>> {
        let mut remembered = self.remembered.borrow_mut();
        if remembered.is_empty() {
            return None;
        }
        remembered.answer(&self.policies, asks, self.clock.now_us())
    }

    /// Pays for a request by leases where there are some for all that it asks. A request that a policy in shadow governs
    /// is always decided by the sidecar, and so is one that only looks at a bucket.
    fn pay(&self, asks: &[Ask]) -> Payment {
        let Some(leases) = &self.leases else { return Payment::default() };
        let terms = |ask: &Ask| self.lease(ask).filter(|_| !ask.shadow && ask.cost_tokens > 0);
        let Some(terms) = asks.iter().map(terms).collect::<Option<Vec<Lease>>>() else {
            return Payment::default();
        };
        let now_us = self.clock.now_us();
        let mut leases = leases.borrow_mut();
        // Each is seen, also where another is not paid.
        let paid =
            asks.iter().zip(&terms).fold(true, |paid, (ask, lease)| leases.see(ask, *lease, now_us) && paid);
        let known =
            if paid { asks.iter().map(|ask| leases.spend(ask, now_us).map(Some)).collect() } else { None };
        let stands: Vec<(bool, u64)> =
            asks.iter().zip(&terms).map(|(ask, lease)| leases.stands(ask, *lease, now_us)).collect();
        // A lease for a part of a request would be held for nothing, and kept from those who need it.
        let useful = stands.iter().all(|(held, wanted)| *held || *wanted > 0);
        let wanted = stands.into_iter().map(|(_, wanted)| wanted).enumerate();
        let wanted: Vec<(usize, u64)> = wanted.filter(|(_, tokens)| useful && *tokens > 0).collect();
        Payment { known, wanted }
    }

    /// Notes that leases are asked for.
    fn asked(&self, asks: &[Ask], wanted: &[(usize, u64)]) {
        let Some(leases) = self.leases.as_ref().filter(|_| !wanted.is_empty()) else { return };
        let again_at_us = self.clock.now_us().saturating_add(self.patience_us());
        let mut leases = leases.borrow_mut();
        for ask in wanted.iter().filter_map(|(index, _)| asks.get(*index)) {
            leases.asked(ask, again_at_us);
        }
    }

    /// Lets leases that have ended wait for the next callout, and sends for those in `wanted`, for which nobody waits; as
    /// far as requests have room beside them. Called last in a callback, since it makes the root the effective context.
    fn upkeep(&self, wanted: Vec<Item>) {
        let Some(leases) = &self.leases else { return };
        while self.batcher.borrow().has_room_to_spare() {
            // What is not returned now is returned later, or lapses: its tokens count as spent.
            let Some(ended) = leases.borrow_mut().take_ended() else { break };
            let _lapses = self.wait(Item::return_of(ended, &self.policies));
        }
        if wanted.is_empty() || !self.batcher.borrow().has_room_to_spare() {
            return;
        }
        for lease in wanted {
            let _not_leased = self.wait(lease);
        }
        self.flush();
    }

    /// What came of a lease that was asked for.
    fn leased(&self, ask: &Ask, verdict: Option<&Verdict>, times: Times, tally: &mut Tally) {
        let (Some(leases), Some(lease)) = (&self.leases, self.lease(ask)) else { return };
        let mut leases = leases.borrow_mut();
        match verdict {
            Some(Verdict::Leased { tokens, lapses_at_us, buckets }) if *tokens > 0 => {
                let leased = Leased { tokens: *tokens, lapses_at_us: *lapses_at_us };
                leases.granted(ask, lease, leased, buckets.clone(), times.asked_at_us, times.heard_at_us);
                tally.lease();
            }
            _ => leases.refused(ask, lease, times.heard_at_us),
        }
        let is_empty = leases.is_empty();
        drop(leases);
        if !is_empty && !self.ticking.get() {
            self.tick_every(self.tick_period());
        }
    }

    /// Time has passed: leases that were not spent are returned.
    pub fn tick(&self) {
        let Some(leases) = &self.leases else { return };
        leases.borrow_mut().end_all(self.clock.now_us());
        self.upkeep(Vec::new());
        self.flush();
        if leases.borrow().is_empty() {
            self.tick_every(Duration::ZERO);
        }
    }

    /// The configuration is over: Envoy would go on calling.
    pub fn done(&self) {
        if self.ticking.get() {
            self.tick_every(Duration::ZERO);
        }
    }

    fn tick_every(&self, period: Duration) {
        let set = host::set_effective_context(self.root_id).and_then(|()| host::set_tick_period(period));
        self.ticking.set(set.is_ok() && !period.is_zero());
    }

    /// An eighth of the shortest lease: what is not spent is returned before it lapses.
    fn tick_period(&self) -> Duration {
        let shortest = self.policies.iter().filter_map(Policy::lease).map(|lease| lease.ttl).min();
        let eighth = shortest.unwrap_or_default().checked_div(8).unwrap_or_default();
        eighth.clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    fn lease(&self, ask: &Ask) -> Option<Lease> {
        self.policies.get(ask)?.lease()
    }

    /// For how long an answer may be outstanding: one callout that was on the way before, and its own.
    fn patience_us(&self) -> u64 {
        let timeout_us = u64::try_from(self.policies.sidecar().timeout.as_micros()).unwrap_or(u64::MAX);
        timeout_us.saturating_mul(2)
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
        let Some(sent) = self.batcher.borrow_mut().arrived(token) else { return };
        let heard_at_us = self.clock.now_us();
        let takes = sent.batch.iter().map(|item| item.load().takes).sum();
        let verdicts = callout::verdicts(takes, num_headers, body_size);
        self.flush();
        self.note(verdicts.as_ref().err().copied());
        let times = Times { asked_at_us: sent.at_us, heard_at_us };
        self.hand_out(&sent.batch, verdicts.as_deref().map_err(|failure| *failure), times);
        self.upkeep(Vec::new());
    }

    /// Gives each of a batch what came of it, and counts all together: adding to a counter is a call into Envoy.
    fn hand_out(&self, batch: &[Item], outcome: Outcome, times: Times) {
        let mut tally = Tally::default();
        let mut rest = outcome;
        for item in batch {
            let own = rest
                .and_then(|verdicts| verdicts.split_at_checked(item.load().takes).ok_or(Failure::Unreadable));
            rest = own.map(|(_, rest)| rest);
            let own = own.map(|(own, _)| own);
            match item {
                Item::Request(asking) => self.give_request(asking, own, times, &mut tally),
                Item::Settlement(settlement) => {
                    self.forget(settlement.asks());
                    tally.settlement(own.is_ok_and(all_allowed));
                }
                Item::Lease(ask, ..) => {
                    self.leased(ask, own.ok().and_then(<[_]>::first), times, &mut tally);
                }
                Item::Return(returned, _) if returned.unspent_tokens > 0 => {
                    self.forget(std::slice::from_ref(&returned.ask));
                }
                Item::Return(..) => {}
            }
        }
        self.stats.add(&tally, &self.policies);
    }

    /// Something may have been returned to these buckets: what was heard of them before it counts no more.
    fn forget(&self, asks: &[Ask]) {
        let mut remembered = self.remembered.borrow_mut();
        for ask in asks {
            remembered.forget(ask);
        }
    }

    /// Gives a request its answer, and takes from it the leases that were asked for with it.
    fn give_request(&self, asking: &Asking, outcome: Outcome, times: Times, tally: &mut Tally) {
        let leases = asking.leases();
        let own = outcome.and_then(|own| {
            own.split_at_checked(own.len().saturating_sub(leases.len())).ok_or(Failure::Unreadable)
        });
        let mut leased = own.map_or(&[][..], |(_, leased)| leased).iter();
        for (index, _) in leases {
            let verdict = leased.next();
            if let Some(ask) = asking.asks().get(*index) {
                self.leased(ask, verdict, times, tally);
            }
        }
        let own = own.map(|(own, _)| own);
        if let Ok([verdict, ..]) = own
            && asking.asks().iter().any(|ask| !ask.shadow)
        {
            self.heard(asking.asks(), verdict, times);
        }
        self.give(asking, own, tally);
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

    /// Notes how the buckets of a request stand by `verdict`, the one on all that are enforced.
    fn heard(&self, asks: &[Ask], verdict: &Verdict, times: Times) {
        let (Verdict::Allowed(buckets) | Verdict::Denied(buckets)) = verdict else { return };
        let denied = matches!(verdict, Verdict::Denied(_));
        if !denied && self.leases.is_none() {
            return;
        }
        let mut rest = buckets.as_slice();
        for ask in asks.iter().filter(|ask| !ask.shadow) {
            let count = self.policies.bucket_count(std::slice::from_ref(ask));
            let Some((own, after)) = rest.split_at_checked(count) else { return };
            rest = after;
            let leases = self.leases.as_ref();
            let held = leases.is_some_and(|leases| leases.borrow_mut().saw(ask, own, times.heard_at_us));
            // What this worker holds itself, the next request shall have: it is not denied for it.
            if denied && !held {
                self.remembered.borrow_mut().note(ask, own, times.asked_at_us, times.heard_at_us);
            }
        }
    }

    /// A request that cannot be asked for.
    fn fail(&self, asking: &Asking, failure: Failure) {
        let mut tally = Tally::default();
        self.give(asking, Err(failure), &mut tally);
        self.stats.add(&tally, &self.policies);
    }

    /// Gives a request its answer: exactly one, and none where the client has left.
    fn give(&self, asking: &Asking, outcome: Outcome, tally: &mut Tally) {
        match asking.phase() {
            Phase::Arriving | Phase::Paused => {}
            Phase::Gone => return tally.left(),
            Phase::Passed | Phase::Denied => return,
        }
        if host::set_effective_context(asking.context_id()).is_err() {
            return tally.left();
        }
        let answer = match outcome {
            Ok(verdicts) => self.policies.answer(asking.asks(), verdicts, fastrand::u32(..)),
            Err(failure) => self.policies.failed(asking.asks(), failure),
        };
        self.deliver(asking, answer, tally);
    }

    /// Gives the request of the effective context its answer.
    fn deliver(&self, asking: &Asking, mut answer: Answer, tally: &mut Tally) {
        tally.answer(answer.decided, answer.denial.is_some(), &answer.counts);
        match answer.denial.take() {
            None => {
                // Without the report the access log lacks a word; the decision stands.
                let _unreported = host::set_filter_state(FILTER_STATE, &answer.report);
                // One that is still arriving is let through by its own callback's return.
                let paused = asking.phase() == Phase::Paused;
                asking.passed(answer);
                if paused {
                    let _gone = host::resume_request();
                }
            }
            Some(denial) => self.deny(asking, &answer.report, &Reply::new(denial)),
        }
    }

    /// Answers the request of the effective context in the upstream's place.
    fn deny(&self, asking: &Asking, report: &str, reply: &Reply) {
        let _unreported = host::set_filter_state(FILTER_STATE, report);
        asking.denied();
        let _gone = reply.send();
    }
}

fn all_allowed(verdicts: &[Verdict]) -> bool {
    verdicts.iter().all(|verdict| matches!(verdict, Verdict::Allowed(_)))
}
