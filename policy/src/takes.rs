//! What the sidecar is asked for a request, in the words of the contract.

use std::borrow::Cow;

use contract::{BucketTake, Kind, LeaseTerms, Leased, Take};

use crate::{Ask, Policies};

impl Policies {
    /// What the sidecar is asked for a request: one take for all that is enforced, then one for each policy in
    /// shadow, charged only where the enforced ones allow.
    #[must_use]
    pub fn takes<'a>(&'a self, asks: &'a [Ask]) -> Vec<Take<'a>> {
        let enforced: Vec<BucketTake<'a>> =
            asks.iter().filter(|ask| !ask.shadow).flat_map(|ask| self.buckets(ask)).collect();
        let follows = !enforced.is_empty();
        let first = follows.then_some(Take { buckets: enforced, ..Take::default() });
        let shadows = asks.iter().filter(|ask| ask.shadow);
        let shadows = shadows.map(|ask| {
            let buckets = self.buckets(ask).collect();
            Take { buckets, follows, shadow: true, ..Take::default() }
        });
        first.into_iter().chain(shadows).collect()
    }

    /// The take that leases up to `tokens` of each bucket of an ask; `follows` where it goes behind the takes of a request.
    /// `None` where its policy has no leases.
    #[must_use]
    pub fn lease_take<'a>(&'a self, ask: &'a Ask, tokens: u64, follows: bool) -> Option<Take<'a>> {
        let lease = self.get(ask)?.lease?;
        let ttl_us = u64::try_from(lease.ttl.as_micros()).unwrap_or(u64::MAX);
        let buckets = self.buckets(ask).map(|bucket| BucketTake { cost: tokens, ..bucket });
        let lease = Some(LeaseTerms { ttl_us, share_percent: lease.share_percent });
        Some(Take { buckets: buckets.collect(), kind: Kind::Lease, follows, lease, ..Take::default() })
    }

    /// The take that ends a lease of an ask's buckets of which `unspent_tokens` are left.
    #[must_use]
    pub fn return_take<'a>(&'a self, ask: &'a Ask, leased: Leased, unspent_tokens: u64) -> Take<'a> {
        let buckets = self.buckets(ask).map(|bucket| BucketTake { cost: unspent_tokens, ..bucket });
        let returned = Some(leased);
        Take { buckets: buckets.collect(), kind: Kind::Return, returned, ..Take::default() }
    }

    /// How many takes [`Policies::takes`] has.
    #[must_use]
    pub fn take_count(asks: &[Ask]) -> usize {
        let shadows = asks.iter().filter(|ask| ask.shadow).count();
        shadows + usize::from(shadows < asks.len())
    }

    /// How many buckets all takes together have.
    #[must_use]
    pub fn bucket_count(&self, asks: &[Ask]) -> usize {
        asks.iter().filter_map(|ask| self.get(ask)).map(|policy| policy.limits.len()).sum()
    }

    /// The buckets of one ask, one for each limit of its policy.
    pub(crate) fn buckets<'a>(&'a self, ask: &'a Ask) -> impl Iterator<Item = BucketTake<'a>> {
        self.get(ask).into_iter().flat_map(|policy| &policy.limits).map(|named| BucketTake {
            policy: Cow::Borrowed(&named.name),
            key: Cow::Borrowed(&ask.key),
            tokens: named.limit.tokens(),
            period_us: named.limit.period_us(),
            burst: named.limit.burst_tokens(),
            cost: ask.cost_tokens,
            repeats: 0,
        })
    }
}
