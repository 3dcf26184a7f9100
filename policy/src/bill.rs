//! What is still to be taken or returned for a request whose response has ended.

use std::cell::OnceCell;

use contract::{BucketTake, Kind, Take};

use crate::cost::Actual;
use crate::known::Named;
use crate::{Ask, Policies, Response};

/// What a request really cost, for those of its policies that settle or refund.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    entries: Vec<Entry>,
    /// Whether the body broke off before its end.
    cut_off: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// The place among the request's asks.
    ask: usize,
    actual: Actual,
}

impl Policies {
    /// Whether something may be left to be settled when the response of a request that asked `asks` has ended.
    #[must_use]
    pub fn settles(&self, asks: &[Ask]) -> bool {
        asks.iter()
            .filter_map(|ask| self.get(ask))
            .any(|policy| policy.settle.is_some() || !policy.refund_on.is_empty())
    }

    /// What a request really cost, by the headers of its response. Of its asks only those count that are `charged`.
    #[must_use]
    pub fn bill(&self, asks: &[Ask], charged: &[bool], response: &impl Response) -> Bill {
        let (found, read) = (OnceCell::new(), Named::default());
        let entry = |(index, ask): (usize, &Ask)| {
            let policy = self.get(ask).filter(|_| charged.get(index) == Some(&true))?;
            let refunded = policy.refund_on.iter().any(|statuses| {
                let status = found.get_or_init(|| status(response));
                status.is_some_and(|status| statuses.has(status))
            });
            let actual = if refunded {
                Some(Actual::Tokens(0))
            } else {
                policy.settle.as_ref()?.actual(response, &read)
            };
            Some(Entry { ask: index, actual: actual? })
        };
        Bill { entries: asks.iter().enumerate().filter_map(entry).collect(), cut_off: false }
    }
}

impl Bill {
    /// Whether [`Bill::takes`] depends on the size of the response's body.
    #[must_use]
    pub fn needs_body_bytes(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.actual, Actual::Bytes { .. }))
    }

    /// The same for a body that broke off before its end: its size returns nothing, or whoever hangs up early would pay
    /// next to nothing for what was made ready.
    #[must_use]
    pub fn cut_off(self) -> Self {
        Self { cut_off: true, ..self }
    }

    /// What is taken and what is returned, each of the two at most one take; none where what was taken is right.
    #[must_use]
    pub fn takes<'a>(&self, policies: &'a Policies, asks: &'a [Ask], body_bytes: u64) -> Vec<Take<'a>> {
        let mut charge = Vec::new();
        let mut refund = Vec::new();
        for entry in &self.entries {
            let Some(ask) = asks.get(entry.ask) else { continue };
            let mut actual = entry.actual.tokens(body_bytes);
            if self.cut_off && matches!(entry.actual, Actual::Bytes { .. }) {
                actual = actual.max(ask.cost_tokens);
            }
            let (list, cost) = match actual.checked_sub(ask.cost_tokens) {
                Some(0) => continue,
                Some(more) => (&mut charge, more),
                None => (&mut refund, ask.cost_tokens.saturating_sub(actual)),
            };
            list.extend(policies.buckets(ask).map(|bucket| BucketTake { cost, ..bucket }));
        }
        let take = |buckets: Vec<BucketTake<'a>>, kind| {
            (!buckets.is_empty()).then_some(Take { buckets, kind, ..Take::default() })
        };
        [take(charge, Kind::Charge), take(refund, Kind::Refund)].into_iter().flatten().collect()
    }
}

/// The status of a response; where it is an error of gRPC without a message, the HTTP status that means the same.
///
/// Source: google.rpc.Code.
fn status(response: &impl Response) -> Option<u16> {
    let number = |name| std::str::from_utf8(&response.header(name)?).ok()?.parse::<u16>().ok();
    match number("grpc-status") {
        None | Some(0) => number(":status"),
        Some(1) => Some(499),
        Some(3 | 9 | 11) => Some(400),
        Some(4) => Some(504),
        Some(5) => Some(404),
        Some(6 | 10) => Some(409),
        Some(7) => Some(403),
        Some(8) => Some(429),
        Some(12) => Some(501),
        Some(14) => Some(503),
        Some(16) => Some(401),
        Some(_) => Some(500),
    }
}
