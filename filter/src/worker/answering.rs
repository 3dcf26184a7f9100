//! Answers: what came of a callout, to whom it belongs, and what they get.

use contract::Verdict;
use policy::{Answer, Ask, Failure};

use super::{Outcome, Times, Worker};
use crate::asking::{Asking, Item, Phase};
use crate::batch::Waiting as _;
use crate::clock;
use crate::host::{self, SharedData};
use crate::local::{Decision, Question};
use crate::reply::Reply;
use crate::stats::Tally;

/// Where answers are reported for the access log: `%FILTER_STATE(wasm.sluice:PLAIN)%`.
const FILTER_STATE: &str = "sluice";

impl Worker {
    /// Gives each of a batch what came of it, and counts all together: adding to a counter is a call into Envoy.
    pub(super) fn hand_out(&self, batch: &[Item], outcome: Outcome, times: Times) {
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

    /// Something may have been returned to these buckets: what was heard of them before it counts no more.
    fn forget(&self, asks: &[Ask]) {
        let mut remembered = self.remembered.borrow_mut();
        for ask in asks {
            remembered.forget(ask);
        }
    }

    /// A request that cannot be asked for.
    pub(super) fn fail(&self, asking: &Asking, failure: Failure) {
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
        let answer = outcome
            .and_then(|verdicts| self.policies.answer(asking.asks(), verdicts, fastrand::u32(..)))
            .unwrap_or_else(|failure| self.without_verdicts(asking.asks(), failure));
        self.deliver(asking, answer, tally);
    }

    /// What a request gets for which there are no verdicts: this Envoy's own buckets decide, where its policies say so.
    fn without_verdicts(&self, asks: &[Ask], failure: Failure) -> Answer {
        let places = self.policies.local_asks(asks);
        let local = places.iter().filter_map(|place| Question::new(&self.policies, asks.get(*place)?));
        let questions: Vec<Question<'_>> = local.collect();
        if questions.is_empty() {
            return self.policies.failed(asks, failure);
        }
        let Ok(Decision { verdicts, forgotten }) =
            self.local.decide(&SharedData, &questions, &clock::unix_us)
        else {
            self.stats.local_failed();
            return self.policies.failed_locally(asks, failure);
        };
        self.stats.forgotten(forgotten);
        let mut known = vec![None; asks.len()];
        for (place, verdicts) in places.into_iter().zip(verdicts) {
            if let Some(known) = known.get_mut(place) {
                *known = Some(verdicts);
            }
        }
        self.policies.locally(asks, &known, failure, fastrand::u32(..))
    }

    /// Gives the request of the effective context its answer.
    pub(super) fn deliver(&self, asking: &Asking, mut answer: Answer, tally: &mut Tally) {
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
    pub(super) fn deny(&self, asking: &Asking, report: &str, reply: &Reply) {
        let _unreported = host::set_filter_state(FILTER_STATE, report);
        asking.denied();
        let _gone = reply.send();
    }
}

fn all_allowed(verdicts: &[Verdict]) -> bool {
    verdicts.iter().all(|verdict| matches!(verdict, Verdict::Allowed(_)))
}
