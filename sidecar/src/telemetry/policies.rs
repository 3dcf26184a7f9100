//! The policies that were asked for: bounded in number, each with its limits as they were last seen and what was decided.

use foldhash::fast::RandomState;
use indexmap::{Equivalent, IndexSet};

use super::{counts::Tally, latency::Latency};
use crate::overrides::WrittenLimit;

/// The most policies that are told apart. What is asked of others counts for one that stands for all of them.
pub const MAX_POLICIES: usize = 1_000;

/// The name of the one that stands for all others. Its domain is empty, which that of no other is.
pub const OTHER: &str = "other";

/// The most limits of one policy that are told. Where more are in use, as with limits by route, those seen longest ago are
/// forgotten.
const MAX_LIMITS: usize = 8;

/// For how long a limit is told after it was last seen, where others of its policy are.
const LIMIT_HOLDS_US: u64 = 300_000_000;

/// What a policy is called: the name of its buckets, and the domain that they are in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyName {
    /// The namespace of the policy.
    pub domain: Box<str>,
    /// The name by which its buckets are asked.
    pub policy: Box<str>,
}

/// A [`PolicyName`] that is looked up, hashed alike.
#[derive(Hash)]
struct Named<'a> {
    domain: &'a str,
    policy: &'a str,
}

impl Equivalent<PolicyName> for Named<'_> {
    fn equivalent(&self, name: &PolicyName) -> bool {
        *self.policy == *name.policy && *self.domain == *name.domain
    }
}

/// Which policy: a place that it never leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PolicyId(u16);

impl PolicyId {
    /// Stands for all for which there is no room.
    const OTHER: Self = Self(0);

    pub(super) fn to_bytes(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }

    pub(super) fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_le_bytes(bytes))
    }
}

/// What was seen of one policy.
#[derive(Debug, Default)]
pub(super) struct Policy {
    /// The one that was seen last comes first.
    limits: Vec<(WrittenLimit, u64)>,
    pub(super) tally: Tally,
    pub(super) latency: Latency,
    /// The last request that asked for it, so that each is timed once.
    pub(super) timed: u64,
}

impl Policy {
    /// Whether the limit is news. That of the policy that stands for others tells nothing.
    fn see(&mut self, limit: WrittenLimit, now_us: u64) -> bool {
        let place = self.limits.iter().position(|(known, _)| *known == limit);
        if let Some(place) = place {
            self.limits[place].1 = now_us;
            self.limits.swap(0, place);
            return false;
        }
        if self.limits.len() == MAX_LIMITS {
            let oldest = self.limits.iter().enumerate().min_by_key(|(_, (_, seen_us))| *seen_us);
            if let Some((oldest, _)) = oldest {
                self.limits.swap_remove(oldest);
            }
        }
        self.limits.insert(0, (limit, now_us));
        true
    }

    /// Whether it was asked for at `since_us` or later, and not only learnt of.
    pub(super) fn is_asked_since(&self, since_us: u64) -> bool {
        self.limits.iter().any(|(_, seen_us)| *seen_us >= since_us.max(1))
    }

    /// The limits that are in use, the one that was seen last first.
    pub(super) fn limits(&self) -> Vec<WrittenLimit> {
        let newest_us = self.limits.iter().map(|(_, seen_us)| *seen_us).max().unwrap_or(0);
        let in_use = self.limits.iter().filter(|(_, seen_us)| seen_us + LIMIT_HOLDS_US >= newest_us);
        in_use.map(|(limit, _)| *limit).collect()
    }
}

/// All of them, found by name without allocating.
#[derive(Debug)]
pub(super) struct Policies {
    names: IndexSet<PolicyName, RandomState>,
    seen: Vec<Policy>,
    /// How often a limit was news.
    news: u64,
}

impl Default for Policies {
    fn default() -> Self {
        let other = PolicyName { domain: "".into(), policy: OTHER.into() };
        let mut names = IndexSet::with_hasher(RandomState::default());
        names.insert(other);
        Self { names, seen: vec![Policy::default()], news: 0 }
    }
}

impl Policies {
    /// The policy of that name, which is kept from now on where there is room for it.
    pub(super) fn id(&mut self, domain: &str, policy: &str) -> PolicyId {
        if let Some(place) = self.names.get_index_of(&Named { domain, policy }) {
            return PolicyId(place as u16);
        }
        if self.names.len() > MAX_POLICIES {
            return PolicyId::OTHER;
        }
        let name = PolicyName { domain: domain.into(), policy: policy.into() };
        let (place, _) = self.names.insert_full(name);
        self.seen.push(Policy::default());
        PolicyId(place as u16)
    }

    pub(super) fn get_mut(&mut self, id: PolicyId) -> &mut Policy {
        // Each id was handed out for a place that is kept.
        &mut self.seen[usize::from(id.0)]
    }

    /// Its name, and that of the one for all others where it is none.
    pub(super) fn name(&self, id: PolicyId) -> &PolicyName {
        &self.names[usize::from(id.0)]
    }

    /// Notes the limit that a policy is asked with.
    pub(super) fn see(&mut self, id: PolicyId, limit: WrittenLimit, now_us: u64) {
        if id != PolicyId::OTHER && self.get_mut(id).see(limit, now_us) {
            self.news += 1;
        }
    }

    /// Notes a limit that others are asked with: it tells of a policy that nobody has asked for here.
    pub(super) fn learn(&mut self, domain: &str, policy: &str, limit: WrittenLimit) {
        let id = self.id(domain, policy);
        if id != PolicyId::OTHER && self.get_mut(id).limits.is_empty() {
            self.get_mut(id).limits.push((limit, 0));
        }
    }

    /// How often a limit was news since the start.
    pub(super) fn news(&self) -> u64 {
        self.news
    }

    /// All that were asked for, by their order of appearance.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PolicyId, &PolicyName, &Policy)> {
        let seen = self.names.iter().zip(&self.seen).enumerate();
        let seen = seen.map(|(place, (name, policy))| (PolicyId(place as u16), name, policy));
        // The one for all others is told of once there is anything to tell.
        seen.filter(|(id, _, policy)| *id != PolicyId::OTHER || policy.tally.is_used())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: WrittenLimit = WrittenLimit { tokens: 60, period_us: 60_000_000, burst: 60 };

    #[test]
    fn a_policy_is_found_by_both_its_names() {
        let mut policies = Policies::default();
        let first = policies.id("shop", "per-client");
        assert_eq!(policies.id("shop", "per-client"), first);
        assert_ne!(policies.id("shop-per", "client"), first);
        assert_ne!(policies.id("bank", "per-client"), first);
        assert_eq!((&*policies.name(first).domain, &*policies.name(first).policy), ("shop", "per-client"));
        assert_eq!(policies.iter().count(), 3);
    }

    #[test]
    fn those_beyond_the_bound_are_one() {
        let mut policies = Policies::default();
        let ids: Vec<_> = (0..5 * MAX_POLICIES).map(|n| policies.id("shop", &format!("p{n}"))).collect();
        assert!(ids[MAX_POLICIES..].iter().all(|id| *id == PolicyId::OTHER));
        assert_eq!(policies.iter().count(), MAX_POLICIES);
        assert_eq!(policies.id("shop", "p7"), ids[7], "those that came first are told as before");
        policies.see(ids[MAX_POLICIES], LIMIT, 0);
        assert_eq!(policies.news(), 0, "the one for all others has no limit");
        let own = policies.id("other", "other");
        assert_eq!(own, PolicyId::OTHER, "there is no room, whatever it is called");
    }

    #[test]
    fn a_limit_is_news_once_and_told_while_it_is_in_use() {
        let mut policies = Policies::default();
        let id = policies.id("shop", "per-client");
        let [raised, by_route] = [120, 7].map(|tokens| WrittenLimit { tokens, ..LIMIT });
        for (limit, now_us) in [(LIMIT, 0), (by_route, 1), (LIMIT, 2), (raised, 3), (raised, 4)] {
            policies.see(id, limit, now_us);
        }
        assert_eq!(policies.news(), 3);
        assert_eq!(policies.get_mut(id).limits()[0], raised, "the one that was seen last");
        assert_eq!(policies.get_mut(id).limits().len(), 3);
        policies.see(id, raised, 400_000_000);
        assert_eq!(policies.get_mut(id).limits(), [raised]);
        for tokens in 200..300 {
            policies.see(id, WrittenLimit { tokens, ..LIMIT }, 400_000_000 + tokens);
        }
        let limits = policies.get_mut(id).limits();
        assert_eq!((limits[0].tokens, limits.len()), (299, MAX_LIMITS));
    }
}
