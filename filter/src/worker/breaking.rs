//! The breaker: whether the sidecar is asked, the probes while it is not, and whom that is told.

use std::time::Duration;

use policy::Failure;

use super::{Times, Worker};
use crate::breaker::{Heard, MOST_IN_VAIN, Turned};
use crate::callout;
use crate::host::{self, LogLevel};

impl Worker {
    /// Whether requests get `on_error` without being asked for.
    pub(super) fn is_open(&self) -> bool {
        self.breaker.borrow().is_open()
    }

    /// What a callout that came back says of the sidecar.
    pub(super) fn weigh(&self, failure: Option<Failure>, times: Times) {
        let waited_us = times.heard_at_us.saturating_sub(times.asked_at_us);
        let timeout_us = u64::try_from(self.policies.sidecar().timeout.as_micros()).unwrap_or(u64::MAX);
        let heard = match failure {
            // The first two are answers, if of no use.
            None | Some(Failure::Refused | Failure::Unreadable) => Heard::Sidecar,
            Some(Failure::Timeout) => Heard::NobodyInVain,
            // A connection that is not made in time ends like one that is refused.
            Some(_) if waited_us >= timeout_us >> 1 => Heard::NobodyInVain,
            Some(_) => Heard::NobodyAtOnce,
        };
        self.hear(heard);
    }

    fn hear(&self, heard: Heard) {
        let turned = self.breaker.borrow_mut().heard(heard);
        let cluster = &self.policies.sidecar().cluster;
        match turned {
            Some(Turned::Open) => {
                self.tick_as_needed();
                if !self.ticking.get() {
                    // Nobody would ever close it.
                    return self.breaker.borrow_mut().give_up();
                }
                self.stats.breaker(true);
                self.failing.set(true);
                host::log(
                    LogLevel::Warn,
                    &format!(
                        "sluice: {MOST_IN_VAIN} callouts in a row to the cluster {cluster:?} were waited for in vain; requests \
                         get on_error at once until it answers a probe"
                    ),
                );
            }
            Some(Turned::Closed) => {
                self.tick_as_needed();
                self.stats.breaker(false);
                self.failing.set(false);
                host::log(
                    LogLevel::Info,
                    &format!("sluice: the cluster {cluster:?} answers again, and is asked again"),
                );
            }
            None => {}
        }
    }

    /// The wait is over: probes the sidecar, with nobody's request.
    pub(super) fn probe(&self) {
        if self.breaker.borrow().may_probe() {
            let owned = host::set_effective_context(self.root_id);
            let sent = owned.and_then(|()| callout::probe(&self.policies));
            self.breaker.borrow_mut().probed(sent.ok());
            self.stats.probe();
        }
        self.tick_as_needed();
    }

    /// Whether the callout was a probe, which has come back.
    pub(super) fn is_probe(&self, token: u32, num_headers: usize) -> bool {
        let is_back = self.breaker.borrow_mut().is_back(token);
        if is_back {
            self.hear(if callout::is_ours(num_headers) { Heard::Sidecar } else { Heard::NobodyInVain });
        }
        is_back
    }

    /// Has Envoy call as often as probes or leases need it, or not at all.
    pub(super) fn tick_as_needed(&self) {
        let holds = || self.leases.as_ref().is_some_and(|leases| !leases.borrow().is_empty());
        let period = self.breaker.borrow().wait();
        let period = period.unwrap_or_else(|| if holds() { self.tick_period() } else { Duration::ZERO });
        if self.ticking.get() || !period.is_zero() {
            self.tick_every(period);
        }
    }
}
