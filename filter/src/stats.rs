//! What the filter counts, in Envoy's own stats.

use policy::{Answer, Failure};

use crate::host;

/// The counters of one worker. Their names are bounded and fixed: `sluice.allowed` and so on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    allowed: u32,
    denied: u32,
    failed_allowed: u32,
    failed_denied: u32,
    abandoned: u32,
    callouts: u32,
    callout_failures: u32,
}

/// How the answers of a batch came out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    allowed: u32,
    denied: u32,
    failed_allowed: u32,
    failed_denied: u32,
}

impl Tally {
    /// One more answer.
    pub fn add(&mut self, answer: &Answer) {
        let count = match (&answer.quota, &answer.denial) {
            (Some(_), None) => &mut self.allowed,
            (Some(_), Some(_)) => &mut self.denied,
            (None, None) => &mut self.failed_allowed,
            (None, Some(_)) => &mut self.failed_denied,
        };
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
            callouts: define("sluice.callouts"),
            callout_failures: define("sluice.callout_failures"),
        }
    }

    /// Requests got their answers.
    pub fn answered(&self, tally: &Tally) {
        host::count(self.allowed, tally.allowed);
        host::count(self.denied, tally.denied);
        host::count(self.failed_allowed, tally.failed_allowed);
        host::count(self.failed_denied, tally.failed_denied);
    }

    /// Requests whose clients left before they were sent.
    pub fn abandoned(&self, requests: usize) {
        host::count(self.abandoned, u32::try_from(requests).unwrap_or(u32::MAX));
    }

    /// A callout came back, or could not be sent.
    pub fn callout(&self, failure: Option<Failure>) {
        host::count(self.callouts, 1);
        if failure.is_some() {
            host::count(self.callout_failures, 1);
        }
    }
}
