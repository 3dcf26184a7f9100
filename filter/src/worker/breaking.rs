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
        let waited = Duration::from_micros(times.heard_at_us.saturating_sub(times.asked_at_us));
        let heard = match failure {
            // The first two are answers, if of no use.
            None | Some(Failure::Refused | Failure::Unreadable) => Heard::Sidecar,
            Some(Failure::Timeout) => Heard::NobodyInVain,
            Some(_) => Heard::nobody_after(waited, self.policies.sidecar().timeout),
        };
        self.hear(heard, times);
    }

    fn hear(&self, heard: Heard, times: Times) {
        let was_open = self.is_open();
        let turned = self.breaker.borrow_mut().heard(heard, times.asked_at_us, times.heard_at_us);
        let Some(turned) = turned else { return };
        self.tick_as_needed();
        if self.is_open() && !self.ticking.get() {
            // Nobody would ever close it.
            return self.breaker.borrow_mut().give_up();
        }
        if was_open != self.is_open() {
            self.stats.breaker(!was_open);
        }
        let cluster = &self.policies.sidecar().cluster;
        match turned {
            Turned::Open => {
                self.failing.set(true);
                host::log(
                    LogLevel::Warn,
                    &format!(
                        "sluice: {MOST_IN_VAIN} callouts in a row to the cluster {cluster:?} were waited for in vain; requests \
                         get on_error at once until it answers a probe"
                    ),
                );
            }
            // A sidecar may answer probes for hours, and no take: that is told once.
            Turned::HalfOpen | Turned::OpenAgain => {}
            Turned::Closed => {
                self.failing.set(false);
                host::log(
                    LogLevel::Info,
                    &format!("sluice: the cluster {cluster:?} answers again, and is asked again"),
                );
            }
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
        if is_back && callout::is_ours(num_headers) {
            let now_us = self.clock.now_us();
            self.hear(Heard::Probe, Times { asked_at_us: now_us, heard_at_us: now_us });
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
