//! Leases: what pays for a request, and how they are asked for and returned.

use std::time::Duration;

use contract::{BucketVerdict, Leased, Verdict};
use policy::{Ask, Lease, Policy};

use super::{Times, Worker};
use crate::asking::{Asking, Item, Phase};
use crate::host;
use crate::stats::Tally;

/// How a request stands with the leases.
#[derive(Default)]
pub(super) struct Payment {
    /// How the buckets of each ask stand, where all were paid.
    pub(super) known: Option<Vec<Option<Vec<BucketVerdict>>>>,
    /// Of which asks a lease is wanted, and of how many tokens.
    pub(super) wanted: Vec<(usize, u64)>,
}

impl Worker {
    /// Pays for a request by leases where there are some for all that it asks. A request that a policy in shadow governs
    /// is always decided by the sidecar, and so is one that only looks at a bucket.
    pub(super) fn pay(&self, asks: &[Ask]) -> Payment {
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
    pub(super) fn asked(&self, asks: &[Ask], wanted: &[(usize, u64)]) {
        let Some(leases) = self.leases.as_ref().filter(|_| !wanted.is_empty()) else { return };
        let again_at_us = self.clock.now_us().saturating_add(self.patience_us());
        let mut leases = leases.borrow_mut();
        for ask in wanted.iter().filter_map(|(index, _)| asks.get(*index)) {
            leases.asked(ask, again_at_us);
        }
    }

    /// The client of a request has left, or all is done. It may not even be sent: others ask for the leases that were
    /// asked for with it.
    pub fn gone(&self, asking: &Asking) {
        if let Some(leases) = &self.leases
            && asking.phase() == Phase::Paused
        {
            let asks = asking.leases().iter().filter_map(|(index, _)| asking.asks().get(*index));
            asks.for_each(|ask| leases.borrow_mut().asked(ask, 0));
        }
        asking.gone();
    }

    /// Lets leases that have ended wait for the next callout, and sends for those in `wanted`, for which nobody waits; as
    /// far as requests have room beside them. Called last in a callback, since it makes the root the effective context.
    pub(super) fn upkeep(&self, wanted: Vec<Item>) {
        let Some(leases) = &self.leases else { return };
        if self.is_open() {
            // What ends meanwhile is returned afterwards, if it has not lapsed. What waited when it opened lapses.
            return;
        }
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
    pub(super) fn leased(&self, ask: &Ask, verdict: Option<&Verdict>, times: Times, tally: &mut Tally) {
        let (Some(leases), Some(lease)) = (&self.leases, self.lease(ask)) else { return };
        let mut leases = leases.borrow_mut();
        match verdict {
            Some(Verdict::Leased { tokens, lapses_at_us, buckets }) if *tokens > 0 => {
                let leased = Leased { tokens: *tokens, lapses_at_us: *lapses_at_us };
                leases.granted(ask, lease, leased, buckets.clone(), times.asked_at_us, times.heard_at_us);
                tally.lease();
            }
            Some(Verdict::Leased { buckets, .. }) => leases.refused(ask, lease, buckets, times.heard_at_us),
            _ => leases.refused(ask, lease, &[], times.heard_at_us),
        }
        let is_empty = leases.is_empty();
        drop(leases);
        if !is_empty && !self.ticking.get() {
            self.tick_every(self.tick_period());
        }
    }

    /// Time has passed: leases that were not spent are returned, or the sidecar is probed.
    pub fn tick(&self) {
        if let Some(leases) = &self.leases {
            leases.borrow_mut().end_all(self.clock.now_us());
        }
        if self.is_open() {
            return self.probe();
        }
        self.upkeep(Vec::new());
        self.flush();
        let Some(leases) = &self.leases else { return };
        if leases.borrow().is_empty() {
            self.tick_every(Duration::ZERO);
        }
    }

    /// The configuration is over: Envoy would go on calling.
    pub fn done(&self) {
        if self.ticking.get() {
            self.tick_every(Duration::ZERO);
        }
        if self.is_open() {
            self.stats.breaker(false);
        }
    }

    pub(super) fn tick_every(&self, period: Duration) {
        let set = host::set_effective_context(self.root_id).and_then(|()| host::set_tick_period(period));
        self.ticking.set(set.is_ok() && !period.is_zero());
    }

    /// An eighth of the shortest lease: what is not spent is returned before it lapses.
    pub(super) fn tick_period(&self) -> Duration {
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
}
