//! One filter on a log: what its policies ask for each request, and what its buckets answer.

use policy::{Ask, Mode, Policies};

use super::buckets::Buckets;
use super::columns::{BYTES_SENT, Columns};
use super::line::Line;
use super::routes::Routes;
use super::seen::{Response, Seen};
use super::tally::Tally;
use crate::check::find::{Filter, Home, Route};

/// One filter, its buckets, and what came of its requests.
#[derive(Debug)]
pub struct Judge {
    policies: Policies,
    routes: Routes,
    trusted_hops: usize,
    buckets: Buckets,
    /// What came of them.
    pub tally: Tally,
}

impl Judge {
    /// A filter that has had no request.
    pub fn new(filter: &Filter<'_>, policies: Policies, routes: &[Route<'_>]) -> Self {
        Self {
            routes: Routes::of(filter, routes),
            trusted_hops: trusted_hops(filter),
            buckets: Buckets::new(&policies),
            tally: Tally::new(&policies),
            policies,
        }
    }

    /// Its policies.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Decides the request of line `number`, which began at `at_us`, no earlier than those before.
    pub fn judge(&mut self, line: &Line<'_>, columns: &Columns, number: u64, at_us: u64) {
        let seen = Seen::new(line, columns, &self.routes, self.trusted_hops, number);
        self.tally.request(at_us);
        let route = seen.route();
        if self.routes.switch() && route.is_none() {
            self.tally.route_unknown();
        }
        if self.routes.disable(route) {
            return;
        }
        let mut asks = self.policies.asks(&seen).asks;
        if seen.lacks() {
            let _of_all = seen.take_untold();
            let (policies, tally) = (&self.policies, &mut self.tally);
            let mut partly = false;
            asks = policies.asks_of(&seen, |place| {
                let untold = seen.take_untold();
                let is_off = policies.iter().nth(place).is_some_and(|policy| policy.mode() == Mode::Off);
                let is_told = untold.is_empty() || is_off;
                if !is_told {
                    partly = true;
                    tally.not_judged(place, untold);
                }
                is_told
            });
            if partly {
                self.tally.partly_judged();
            }
        }
        if asks.is_empty() {
            return;
        }
        if self.policies.bucket_count(&asks) > contract::MAX_BUCKETS {
            return self.tally.too_many();
        }
        let charged = decide(&mut self.buckets, &mut self.tally, &self.policies, &asks, at_us);
        if charged.contains(&true) && self.policies.settles(&asks) {
            let bill = self.policies.bill(&asks, &charged, &Response(&seen));
            let sent = seen.value(BYTES_SENT).and_then(|sent| std::str::from_utf8(sent).ok()?.parse().ok());
            if bill.needs_body_bytes() && sent.is_none() {
                self.tally.not_settled("how much was sent (bytes_sent)".to_owned());
            } else {
                let takes = bill.takes(&self.policies, &asks, sent.unwrap_or_default());
                self.buckets.settle(&takes, at_us);
            }
            seen.take_untold().into_iter().for_each(|untold| self.tally.not_settled(untold));
        }
    }
}

/// Takes for a request as the sidecar would: for what is enforced at once, then for each policy in shadow. Whether each ask
/// was charged.
fn decide(
    buckets: &mut Buckets,
    tally: &mut Tally,
    policies: &Policies,
    asks: &[Ask],
    at_us: u64,
) -> Vec<bool> {
    let enforced: Vec<&Ask> = asks.iter().filter(|ask| !ask.shadow).collect();
    let allowed = buckets.take(policies, &enforced, false, at_us);
    let passes = allowed.iter().all(|allowed| *allowed);
    tally.decided(passes);
    let mut enforced = allowed.into_iter();
    let mut charged = Vec::with_capacity(asks.len());
    for ask in asks {
        let allows = if ask.shadow {
            // One that follows a denial only looks.
            buckets.take(policies, &[ask], !passes, at_us) == [true]
        } else {
            enforced.next().unwrap_or(true)
        };
        tally.policy(ask, allows, at_us);
        charged.push(passes && allows);
    }
    charged
}

/// How many proxies before this one Envoy trusts to tell where a request came from.
fn trusted_hops(filter: &Filter<'_>) -> usize {
    let Home::Envoy { manager: Some(manager), .. } = filter.home else { return 0 };
    let hops = manager.option("xff_num_trusted_hops").map(|field| field.node.to_json());
    hops.and_then(|hops| hops.as_u64()).and_then(|hops| usize::try_from(hops).ok()).unwrap_or_default()
}
