//! What the filter counts, in Envoy's own stats.

use std::cell::RefCell;

use hashbrown::HashMap;
use policy::{Count, Decided, Failure, Policies, Policy};

use crate::host;

/// The counters of one worker. Their names are bounded: `sluice.allowed` and the like, and six for each policy, such as
/// `sluice.policy.per-client.denied`.
#[derive(Debug, Default)]
pub struct Stats {
    allowed: u32,
    denied: u32,
    failed_allowed: u32,
    failed_denied: u32,
    abandoned: u32,
    left: u32,
    settled: u32,
    settle_failed: u32,
    route_mistakes: u32,
    callouts: u32,
    callout_failures: u32,
    /// A histogram: how long each that came back took, in microseconds.
    callout_us: u32,
    deny_cache_hits: u32,
    lease_hits: u32,
    leases: u32,
    local_allowed: u32,
    local_denied: u32,
    local_failed: u32,
    local_forgotten: u32,
    breaker_opened: u32,
    /// A gauge: how many workers ask no sidecar.
    breakers_open: u32,
    probes: u32,
    /// Those of the policies, each since it was first needed.
    policies: RefCell<HashMap<Counter, u32>>,
}

/// A policy's counter: its place in the configuration, and the last part of its name.
type Counter = (usize, &'static str);

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Tally {
    allowed: u32,
    denied: u32,
    failed_allowed: u32,
    failed_denied: u32,
    local_allowed: u32,
    local_denied: u32,
    settled: u32,
    settle_failed: u32,
    left: u32,
    leases: u32,
    /// Few, as a rule: looking through them is quicker than hashing.
    policies: Vec<(Counter, u32)>,
}

impl Tally {
    /// One more answer.
    pub fn answer(&mut self, decided: Decided, denied: bool, counts: &[(usize, Count)]) {
        let count = match (decided, denied) {
            (Decided::Shared, false) => &mut self.allowed,
            (Decided::Shared, true) => &mut self.denied,
            (Decided::Locally, false) => &mut self.local_allowed,
            (Decided::Locally, true) => &mut self.local_denied,
            (Decided::No, false) => &mut self.failed_allowed,
            (Decided::No, true) => &mut self.failed_denied,
        };
        *count = count.saturating_add(1);
        for (policy, count) in counts {
            let counter = (*policy, word(*count));
            match self.policies.iter_mut().find(|(known, _)| *known == counter) {
                Some((_, by)) => *by = by.saturating_add(1),
                None => self.policies.push((counter, 1)),
            }
        }
    }

    /// One more request whose client left while it was asked for.
    pub fn left(&mut self) {
        self.left = self.left.saturating_add(1);
    }

    /// One more lease that was granted.
    pub fn lease(&mut self) {
        self.leases = self.leases.saturating_add(1);
    }

    /// One more settlement.
    pub fn settlement(&mut self, done: bool) {
        let count = if done { &mut self.settled } else { &mut self.settle_failed };
        *count = count.saturating_add(1);
    }
}

impl Stats {
    /// Defines the counters. Each definition mints a new number, so this is done once, when configured.
    pub fn define() -> Self {
        let define = |name| host::define_counter(name).unwrap_or_default();
        Self {
            allowed: define("sluice.allowed"),
            denied: define("sluice.denied"),
            failed_allowed: define("sluice.failed_allowed"),
            failed_denied: define("sluice.failed_denied"),
            abandoned: define("sluice.abandoned"),
            left: define("sluice.left"),
            settled: define("sluice.settled"),
            settle_failed: define("sluice.settle_failed"),
            route_mistakes: define("sluice.route_mistakes"),
            callouts: define("sluice.callouts"),
            callout_failures: define("sluice.callout_failures"),
            callout_us: host::define_histogram("sluice.callout_us").unwrap_or_default(),
            deny_cache_hits: define("sluice.deny_cache_hits"),
            lease_hits: define("sluice.lease_hits"),
            leases: define("sluice.leases"),
            local_allowed: define("sluice.local_allowed"),
            local_denied: define("sluice.local_denied"),
            local_failed: define("sluice.local_failed"),
            local_forgotten: define("sluice.local_forgotten"),
            breaker_opened: define("sluice.breaker_opened"),
            breakers_open: host::define_gauge("sluice.breakers_open").unwrap_or_default(),
            probes: define("sluice.probes"),
            policies: RefCell::default(),
        }
    }

    /// Adds what came of a batch.
    pub fn add(&self, tally: &Tally, policies: &Policies) {
        host::count(self.allowed, tally.allowed);
        host::count(self.denied, tally.denied);
        host::count(self.failed_allowed, tally.failed_allowed);
        host::count(self.failed_denied, tally.failed_denied);
        host::count(self.local_allowed, tally.local_allowed);
        host::count(self.local_denied, tally.local_denied);
        host::count(self.settled, tally.settled);
        host::count(self.settle_failed, tally.settle_failed);
        host::count(self.left, tally.left);
        host::count(self.leases, tally.leases);
        for &(counter, by) in &tally.policies {
            host::count(self.of_policy(policies, counter), by);
        }
    }

    /// Requests whose clients left before they were sent.
    pub fn abandoned(&self, requests: usize) {
        host::count(self.abandoned, u32::try_from(requests).unwrap_or(u32::MAX));
    }

    /// A request was denied by what is remembered.
    pub fn deny_cache_hit(&self) {
        host::count(self.deny_cache_hits, 1);
    }

    /// A request was paid by a lease.
    pub fn lease_hit(&self) {
        host::count(self.lease_hits, 1);
    }

    /// A request could not even be sent for being settled.
    pub fn unsettled(&self) {
        host::count(self.settle_failed, 1);
    }

    /// The metadata of a request's route was not valid.
    pub fn route_mistake(&self) {
        host::count(self.route_mistakes, 1);
    }

    /// A callout came back, or could not be sent.
    pub fn callout(&self, failure: Option<Failure>) {
        host::count(self.callouts, 1);
        if failure.is_some() {
            host::count(self.callout_failures, 1);
        }
    }

    /// A callout came back, whatever came of it, so long after it was sent.
    pub fn callout_took(&self, us: u64) {
        host::record(self.callout_us, us);
    }

    /// Buckets of this Envoy's own had to decide a request, and could not be had.
    pub fn local_failed(&self) {
        host::count(self.local_failed, 1);
    }

    /// Buckets of this Envoy's own were forgotten though they were not full.
    pub fn forgotten(&self, buckets: u32) {
        host::count(self.local_forgotten, buckets);
    }

    /// A probe was sent.
    pub fn probe(&self) {
        host::count(self.probes, 1);
    }

    /// The breaker has opened, or closed.
    pub fn breaker(&self, is_open: bool) {
        host::count(self.breaker_opened, u32::from(is_open));
        host::move_gauge(self.breakers_open, if is_open { 1 } else { -1 });
    }

    /// A policy's counter, defined where this is the first that is heard of it: most never count.
    fn of_policy(&self, policies: &Policies, counter: Counter) -> u32 {
        *self.policies.borrow_mut().entry(counter).or_insert_with(|| {
            let (policy, word) = counter;
            let name = policies.iter().nth(policy).map_or("", Policy::name);
            host::define_counter(&format!("sluice.policy.{name}.{word}")).unwrap_or_default()
        })
    }
}

fn word(count: Count) -> &'static str {
    match count {
        Count::Allowed => "allowed",
        Count::Denied => "denied",
        Count::ShadowDenied => "shadow_denied",
        Count::LocalAllowed => "local_allowed",
        Count::LocalDenied => "local_denied",
        Count::Failed => "failed",
    }
}
