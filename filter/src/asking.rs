//! What waits for the sidecar: a request for its verdicts, what a request cost in the end for being settled, and leases.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use contract::Take;
use policy::{Answer, Ask, Bill, Header, Policies};

use crate::batch::{Load, Waiting};
use crate::leases::Ended;

/// One request that a policy governs, shared by its stream and the queue.
pub struct Asking {
    context_id: u32,
    asks: Vec<Ask>,
    /// Leases that are asked for with it: of which of its asks, and how many tokens.
    leases: Vec<(usize, u64)>,
    /// How many requests each bucket of its first take has denied by what is remembered; of those beyond its end, none.
    repeats: Vec<u64>,
    /// The trace that the request is part of, where that is sampled.
    traceparent: Option<String>,
    load: Load,
    phase: Cell<Phase>,
    pass: RefCell<Option<Pass>>,
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
    /// Its client has left, or all is done.
    Gone,
}

/// What the response of a request that has passed needs to know.
#[derive(Debug)]
pub struct Pass {
    /// What the client is told.
    pub headers: Vec<Header>,
    /// Whether each ask took its cost.
    pub charged: Vec<bool>,
}

/// What a request cost in the end, where that is not what it took. Nobody waits for the answer.
pub struct Settlement {
    asking: Rc<Asking>,
    bill: Bill,
    body_bytes: u64,
    load: Load,
}

/// What a callout carries.
pub enum Item {
    Request(Rc<Asking>),
    Settlement(Settlement),
    /// So many tokens of an ask's buckets, to be spent later.
    Lease(Ask, u64, Load),
    Return(Ended, Load),
}

impl Asking {
    pub fn new(context_id: u32, asks: Vec<Ask>, policies: &Policies) -> Self {
        let start = Load { replies: 1, takes: Policies::take_count(&asks), ..Load::default() };
        let load = asks.iter().fold(start, |load, ask| load.with(load_of_ask(ask, policies)));
        let (phase, pass) = (Cell::new(Phase::Arriving), RefCell::new(None));
        Self {
            context_id,
            asks,
            leases: Vec::new(),
            repeats: Vec::new(),
            traceparent: None,
            load,
            phase,
            pass,
        }
    }

    /// What its take tells besides: how many requests each of its buckets has denied, and the trace that it is part of.
    pub fn tell(&mut self, repeats: Vec<u64>, traceparent: Option<String>) {
        (self.repeats, self.traceparent) = (repeats, traceparent);
    }

    /// Asks for leases as well, of which of its asks and how many tokens, where one take has room for all of them; whether
    /// it has.
    pub fn add_leases(&mut self, leases: Vec<(usize, u64)>, policies: &Policies) -> bool {
        let asks = leases.iter().filter_map(|(index, _)| self.asks.get(*index));
        let load = asks.fold(self.load, |load, ask| load.with(load_of_lease(ask, policies)));
        let fits = load.buckets <= contract::MAX_BUCKETS;
        if fits {
            (self.load, self.leases) = (load, leases);
        }
        fits
    }

    /// Leases that are asked for with it; their verdicts come last.
    pub fn leases(&self) -> &[(usize, u64)] {
        &self.leases
    }

    /// The context of the request.
    pub fn context_id(&self) -> u32 {
        self.context_id
    }

    pub fn asks(&self) -> &[Ask] {
        &self.asks
    }

    /// What it adds to a callout.
    pub fn load(&self) -> Load {
        self.load
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

    /// The request may pass, and its response is told of `answer`.
    pub fn passed(&self, answer: Answer) {
        self.phase.set(Phase::Passed);
        self.pass.replace(Some(Pass { headers: answer.headers, charged: answer.charged }));
    }

    /// The request is answered in the upstream's place.
    pub fn denied(&self) {
        self.phase.set(Phase::Denied);
    }

    /// The client has left, or all is done.
    pub fn gone(&self) {
        self.phase.set(Phase::Gone);
    }

    /// What the response needs to know, once; `None` for one that did not pass.
    pub fn take_pass(&self) -> Option<Pass> {
        self.pass.take()
    }
}

impl Settlement {
    /// What the request asked.
    pub fn asks(&self) -> &[Ask] {
        self.asking.asks()
    }

    /// `None` where there is nothing to settle.
    pub fn new(asking: &Rc<Asking>, bill: Bill, body_bytes: u64, policies: &Policies) -> Option<Self> {
        let load = load_of(&bill.takes(policies, asking.asks(), body_bytes));
        (load.buckets > 0).then(|| Self { asking: Rc::clone(asking), bill, body_bytes, load })
    }
}

fn load_of(takes: &[Take]) -> Load {
    let start = Load { takes: takes.len(), ..Load::default() };
    takes.iter().flat_map(|take| &take.buckets).fold(start, |load, bucket| {
        load.with(Load { buckets: 1, key_bytes: bucket.key.len(), ..Load::default() })
    })
}

/// What an ask adds to a callout, but for the take that it is in.
fn load_of_ask(ask: &Ask, policies: &Policies) -> Load {
    let buckets = policies.bucket_count(std::slice::from_ref(ask));
    Load { buckets, key_bytes: ask.key.len().saturating_mul(buckets), ..Load::default() }
}

/// What a lease of an ask's buckets, or its return, adds to a callout.
fn load_of_lease(ask: &Ask, policies: &Policies) -> Load {
    load_of_ask(ask, policies).with(Load { takes: 1, ..Load::default() })
}

impl Item {
    /// A lease of up to `tokens` of an ask's buckets.
    pub fn lease(ask: Ask, tokens: u64, policies: &Policies) -> Self {
        let load = load_of_lease(&ask, policies);
        Self::Lease(ask, tokens, load)
    }

    /// The return of a lease.
    pub fn return_of(ended: Ended, policies: &Policies) -> Self {
        let load = load_of_lease(&ended.ask, policies);
        Self::Return(ended, load)
    }

    /// What the sidecar is asked for.
    pub fn takes<'a>(&'a self, policies: &'a Policies) -> Vec<Take<'a>> {
        match self {
            Self::Request(asking) => {
                let mut takes = policies.takes(&asking.asks);
                if let Some(first) = takes.first_mut() {
                    for (bucket, repeats) in first.buckets.iter_mut().zip(&asking.repeats) {
                        bucket.repeats = *repeats;
                    }
                    first.traceparent = asking.traceparent.as_deref().map(Cow::Borrowed);
                }
                let leases = asking.leases.iter().filter_map(|(index, tokens)| {
                    policies.lease_take(asking.asks.get(*index)?, *tokens, true)
                });
                takes.extend(leases);
                takes
            }
            Self::Settlement(settlement) => {
                settlement.bill.takes(policies, settlement.asking.asks(), settlement.body_bytes)
            }
            Self::Lease(ask, tokens, _) => policies.lease_take(ask, *tokens, false).into_iter().collect(),
            Self::Return(Ended { ask, leased, unspent_tokens }, _) => {
                vec![policies.return_take(ask, *leased, *unspent_tokens)]
            }
        }
    }
}

impl Waiting for Item {
    fn is_gone(&self) -> bool {
        matches!(self, Self::Request(asking) if asking.phase() == Phase::Gone)
    }

    fn load(&self) -> Load {
        match self {
            Self::Request(asking) => asking.load,
            Self::Settlement(settlement) => settlement.load,
            Self::Lease(_, _, load) | Self::Return(_, load) => *load,
        }
    }
}
