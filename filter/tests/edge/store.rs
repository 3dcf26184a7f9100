//! A sidecar on the real algorithm: decides what is on the way as the stores do, at an instant that a test sets.

use std::collections::HashMap;

use bucket::{Ask, Bucket, Keep, Lease, Level, Limit, Outcome, Terms, look_at_all, take_all};
use contract::{BucketTake, BucketVerdict, Kind, Take, Verdict};
use serde_json::json;

use crate::fake_host::host;
use crate::filter::{CalloutAnswer, Filter, asked, marked};

pub struct Store {
    pub now_us: u64,
    kept: HashMap<(String, String), Bucket>,
}

impl Store {
    pub fn new() -> Self {
        Self { now_us: 1_700_000_000_000_000, kept: HashMap::new() }
    }

    /// Decides all that is on the way, and what is sent then.
    pub fn run(&mut self, filter: &mut Filter) {
        while host(|host| !host.callouts.is_empty()) {
            let answer = self.decide();
            filter.deliver(answer);
        }
    }

    /// What it answers to the oldest callout.
    pub fn decide(&mut self) -> CalloutAnswer {
        let mut led = true;
        let verdicts: Vec<Verdict> = asked().takes.iter().map(|take| self.verdict(take, &mut led)).collect();
        let body = json!({"now_us": self.now_us, "verdicts": verdicts});
        Some((marked("200"), body.to_string().into_bytes()))
    }

    fn verdict(&mut self, take: &Take, led: &mut bool) -> Verdict {
        let mut asks: Vec<Ask> = take.buckets.iter().map(|asked| self.count(take, asked)).collect();
        let allowed = if take.follows && !*led { look_at_all(&asks) } else { take_all(&mut asks) };
        *led = if take.follows { *led } else { allowed };
        for (asked, ask) in take.buckets.iter().zip(&asks) {
            match ask.keep() {
                Keep::AsItIs => {}
                Keep::Bucket(bucket, _) => drop(self.kept.insert(name(asked), bucket)),
                Keep::Nothing => drop(self.kept.remove(&name(asked))),
            }
        }
        let buckets = asks.iter().map(told).collect();
        match asks[0].leased() {
            Some(Lease { tokens, lapses_at_us }) => Verdict::Leased { tokens, lapses_at_us, buckets },
            None if allowed => Verdict::Allowed(buckets),
            None => Verdict::Denied(buckets),
        }
    }

    fn count(&self, take: &Take, asked: &BucketTake) -> Ask {
        let limit = Limit::new(asked.tokens, asked.period_us, asked.burst).unwrap();
        let kind = match take.kind {
            Kind::Take => bucket::Kind::Take,
            Kind::Refund => bucket::Kind::Refund,
            Kind::Charge => bucket::Kind::Charge,
            Kind::Lease => {
                let terms = take.lease.unwrap();
                bucket::Kind::Lease(Terms { ttl_us: terms.ttl_us, share_percent: terms.share_percent })
            }
            Kind::Return => {
                let leased = take.returned.unwrap();
                bucket::Kind::Return(Lease { tokens: leased.tokens, lapses_at_us: leased.lapses_at_us })
            }
        };
        let kept = self.kept.get(&name(asked)).copied();
        Ask::new(Level::count(limit, kept, self.now_us), kind, asked.cost)
    }
}

fn name(asked: &BucketTake) -> (String, String) {
    (asked.policy.to_string(), asked.key.to_string())
}

fn told(ask: &Ask) -> BucketVerdict {
    let decision = ask.decision();
    let (outcome, retry_after_us) = match decision.outcome {
        Outcome::Allowed => (contract::Outcome::Allowed, Some(0)),
        Outcome::Denied { retry_after_us } => (contract::Outcome::Denied, Some(retry_after_us)),
        Outcome::NeverFits => (contract::Outcome::NeverFits, None),
    };
    let (remaining, full_after_us) = (decision.remaining_tokens, decision.full_after_us);
    BucketVerdict { outcome, remaining, retry_after_us, full_after_us, overridden: None }
}
