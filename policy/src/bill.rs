//! What is still to be taken or returned for a request whose response has ended.

use contract::{BucketTake, Kind, Take};

use crate::cost::Actual;
use crate::{Ask, Policies, Response};

/// What a request really cost, for those of its policies that settle or refund.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill(Vec<Entry>);

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
        let status =
            response.header(":status").and_then(|text| std::str::from_utf8(text).ok()?.parse::<u16>().ok());
        let entry = |(index, ask): (usize, &Ask)| {
            let policy = self.get(ask).filter(|_| charged.get(index) == Some(&true))?;
            let refunded = status.is_some_and(|status| {
                policy.refund_on.iter().any(|statuses| (statuses.first..=statuses.last).contains(&status))
            });
            let actual =
                if refunded { Some(Actual::Tokens(0)) } else { policy.settle.as_ref()?.actual(response) };
            Some(Entry { ask: index, actual: actual? })
        };
        Bill(asks.iter().enumerate().filter_map(entry).collect())
    }
}

impl Bill {
    /// Whether [`Bill::takes`] depends on the size of the response's body.
    #[must_use]
    pub fn needs_body_bytes(&self) -> bool {
        self.0.iter().any(|entry| matches!(entry.actual, Actual::Bytes { .. }))
    }

    /// What is taken and what is returned, each of the two at most one take; none where what was taken is right.
    #[must_use]
    pub fn takes<'a>(&self, policies: &'a Policies, asks: &'a [Ask], body_bytes: u64) -> Vec<Take<'a>> {
        let mut charge = Vec::new();
        let mut refund = Vec::new();
        for entry in &self.0 {
            let Some(ask) = asks.get(entry.ask) else { continue };
            let actual = entry.actual.tokens(body_bytes);
            let (list, cost) = match actual.checked_sub(ask.cost_tokens) {
                Some(0) => continue,
                Some(more) => (&mut charge, more),
                None => (&mut refund, ask.cost_tokens.saturating_sub(actual)),
            };
            list.extend(policies.buckets(ask).map(|bucket| BucketTake { cost, ..bucket }));
        }
        let take = |buckets: Vec<BucketTake<'a>>, kind| {
            (!buckets.is_empty()).then_some(Take { buckets, kind, follows: false })
        };
        [take(charge, Kind::Charge), take(refund, Kind::Refund)].into_iter().flatten().collect()
    }
}
