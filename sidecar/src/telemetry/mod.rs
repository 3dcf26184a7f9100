//! What is told of the takes that were decided: how many, how they ended, how long they took, and whose they were.
//!
//! It is counted as each request is answered, under one lock that is never held over an `await`. Everything is bounded: the
//! policies in number, what is recent in slices of time, the keys by sketches. Nothing here decides anything.

mod counts;
mod latency;
mod policies;
mod recent;
mod top;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::{Kind, Overridden, Take, TakeRequest, Verdict};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

pub use counts::Counts;
pub(crate) use latency::Exposed;
pub use latency::Percentiles;
pub use policies::{MAX_POLICIES, OTHER, PolicyName};
pub use top::{MAX_KEYS, MAX_WINDOW_US};

use counts::{Outcome, Tally};
use latency::micros;
use policies::{Policies, PolicyId};
use top::{Often, Top};

use crate::{overrides::WrittenLimit, store::Answer};

/// The most repeats that a take may tell of a bucket: far more than a worker denies between two questions. What is beyond no
/// filter claims, and it would hide all that is true.
const MAX_REPEATS: u64 = 1 << 20;

/// The most steps that one request may make in the sketches for keys that have no place there yet, of some 10 ns each.
const STEPS_PER_REQUEST: u64 = 1 << 15;

/// How many policies of a request are found without looking them up: as a rule the takes of a batch are all of these.
const AT_HAND: usize = 4;

/// What was seen, with the clock by which it passes.
#[derive(Debug)]
pub struct Telemetry {
    started: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    policies: Policies,
    totals: Tally,
    handling: Exposed,
    top: Top,
    /// Requests that were asked of the store, also those whose clients gave up.
    observed: u64,
    /// Those of them that were answered with verdicts, and their takes.
    requests: u64,
    takes: u64,
    shared: Histogram,
}

impl Default for Seen {
    fn default() -> Self {
        let (policies, totals, handling, top) = <(Policies, Tally, Exposed, Top)>::default();
        // As far as a request may go: 1, 2, 4 and so on up to MAX_TAKES.
        let shared = Histogram::new(exponential_buckets(1.0, 2.0, 13));
        Self { policies, totals, handling, top, observed: 0, requests: 0, takes: 0, shared }
    }
}

/// What was counted since the start, to be scraped.
#[derive(Clone, Debug)]
pub struct Counted {
    /// All takes, each once.
    pub totals: Counts,
    /// The policies that were asked for.
    pub policies: Vec<(PolicyName, Counts)>,
    /// How long requests took.
    pub seconds: Histogram,
    /// How many takes they had.
    pub takes: Histogram,
}

/// What was seen of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PolicyStats {
    /// The namespace of the policy; empty for `other`, which stands for all policies beyond the first 1,000.
    #[schema(value_type = String)]
    pub domain: Box<str>,
    /// The name of its buckets: a policy with several limits has one such name for each.
    #[schema(value_type = String)]
    pub policy: Box<str>,
    /// The limits that it was asked with lately, the last one first: several where they differ by route or by client.
    pub limits: Vec<WrittenLimit>,
    /// Since the start.
    pub totals: Counts,
    /// Of the last ten seconds, the one that is under way among them.
    pub last_10s: Counts,
    /// How long the requests took that asked for it, in the last minute.
    pub latency_us: Percentiles,
}

/// What was seen of all takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Since the start.
    pub totals: Counts,
    /// Of the last ten seconds.
    pub last_10s: Counts,
    /// How far back that was counted, as it was of each policy.
    pub covers_us: u64,
    /// How long requests took, from when they had arrived in full to their answer, or until their clients gave up.
    pub handling: Percentiles,
    /// How many requests were answered with verdicts.
    pub requests: u64,
    /// How many takes they had.
    pub takes: u64,
    /// The policies, in the order in which they were first asked for.
    pub policies: Vec<PolicyStats>,
}

/// By what keys are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopBy {
    /// By how often they were asked for.
    #[default]
    Requests,
    /// By how often they were denied.
    Denied,
}

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopQuestion<'a> {
    /// By what they are ranked.
    pub by: TopBy,
    /// How many at most; never more than [`MAX_KEYS`].
    pub limit: usize,
    /// How far back is looked; never further than [`MAX_WINDOW_US`].
    pub window_us: u64,
    /// Of that domain only.
    pub domain: Option<&'a str>,
    /// Of that policy only.
    pub policy: Option<&'a str>,
}

/// A key that is asked for or denied often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TopKey {
    /// The namespace of the policy.
    #[schema(value_type = String)]
    pub domain: Box<str>,
    /// The name of its bucket's policy.
    #[schema(value_type = String)]
    pub policy: Box<str>,
    /// Whose bucket, as it was asked for: whatever a client sent.
    pub key: String,
    /// How many requests were made by it, about: rather a few too few than too many. But tokens that were leased for it
    /// count as one each when they are leased, also those that come back unspent.
    pub requests: u64,
    /// How many of them were denied, about.
    pub denied: u64,
}

/// The keys that were asked for or denied most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopKeys {
    /// How far back they were counted: at most the window, less by up to a slice of it, and less after a start.
    pub covers_us: u64,
    /// The most first.
    pub keys: Vec<TopKey>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { started: Instant::now(), seen: Mutex::default() }
    }
}

impl Telemetry {
    /// Counts what was decided of a request that took so long.
    pub fn observe(&self, request: &TakeRequest<'_>, answer: &Answer, took: Duration) {
        let now_us = self.now_us();
        let mut seen = self.lock();
        seen.handling.record(took, now_us);
        seen.observed += 1;
        seen.requests += 1;
        seen.takes += request.takes.len() as u64;
        seen.shared.observe(request.takes.len() as f64);
        let mut counting = Counting::new(&mut seen, &request.domain, now_us, Some(micros(took)));
        for (take, verdict) in request.takes.iter().zip(&answer.verdicts) {
            counting.take(take, Some(verdict));
        }
    }

    /// Counts a request of which nothing was decided, since there was no room for it.
    pub fn observe_refused(&self, request: &TakeRequest<'_>) {
        let now_us = self.now_us();
        let mut seen = self.lock();
        let mut counting = Counting::new(&mut seen, &request.domain, now_us, None);
        for take in &request.takes {
            counting.take(take, None);
        }
    }

    /// Counts a request whose client gave up after so long, which may have been decided or not: it has failed for the client.
    pub fn observe_given_up(&self, request: &TakeRequest<'_>, after: Duration) {
        let now_us = self.now_us();
        let mut seen = self.lock();
        seen.handling.record(after, now_us);
        seen.observed += 1;
        let mut counting = Counting::new(&mut seen, &request.domain, now_us, Some(micros(after)));
        for take in &request.takes {
            counting.take(take, None);
        }
    }

    /// What was seen until now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let now_us = self.now_us();
        let seen = self.lock();
        let stats = |policy: &policies::Policy, name: &PolicyName| PolicyStats {
            domain: name.domain.clone(),
            policy: name.policy.clone(),
            limits: policy.limits(),
            totals: policy.tally.total(),
            last_10s: policy.tally.last_10s(now_us),
            latency_us: policy.latency.percentiles(now_us),
        };
        Stats {
            totals: seen.totals.total(),
            last_10s: seen.totals.last_10s(now_us),
            covers_us: Tally::covers_us(now_us),
            handling: seen.handling.percentiles(now_us),
            requests: seen.requests,
            takes: seen.takes,
            policies: seen.policies.iter().map(|(_, name, policy)| stats(policy, name)).collect(),
        }
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let seen = self.lock();
        let counted = |policy: &policies::Policy, name: &PolicyName| (name.clone(), policy.tally.total());
        Counted {
            totals: seen.totals.total(),
            policies: seen.policies.iter().map(|(_, name, policy)| counted(policy, name)).collect(),
            seconds: seen.handling.seconds(),
            takes: seen.shared.clone(),
        }
    }

    /// The keys that were asked for or denied most.
    #[must_use]
    pub fn top(&self, question: &TopQuestion<'_>) -> TopKeys {
        let now_us = self.now_us();
        let seen = self.lock();
        let by = match question.by {
            TopBy::Requests => top::By::Requests,
            TopBy::Denied => top::By::Denied,
        };
        let wanted = |id: PolicyId| {
            let name = seen.policies.name(id);
            question.domain.is_none_or(|domain| domain == &*name.domain)
                && question.policy.is_none_or(|policy| policy == &*name.policy)
        };
        let limit = question.limit.min(MAX_KEYS);
        let hottest = seen.top.hottest(by, question.window_us, limit, now_us, wanted);
        let keys = hottest.into_iter().map(|hot| {
            let PolicyName { domain, policy } = seen.policies.name(hot.policy).clone();
            TopKey { domain, policy, key: hot.key, requests: hot.requests, denied: hot.denied }
        });
        TopKeys { covers_us: Top::covers_us(now_us, question.window_us), keys: keys.collect() }
    }

    /// The policies that are known, each with the limit that it was last asked with.
    #[must_use]
    pub fn known_limits(&self) -> Vec<(PolicyName, WrittenLimit)> {
        let seen = self.lock();
        let known = seen.policies.iter();
        known.filter_map(|(_, name, policy)| Some((name.clone(), *policy.limits().first()?))).collect()
    }

    /// The same of those that this sidecar was asked for within so long.
    #[must_use]
    pub fn limits_asked(&self, within: Duration) -> Vec<(PolicyName, WrittenLimit)> {
        let since_us = self.now_us().saturating_sub(micros(within));
        let seen = self.lock();
        let asked = seen.policies.iter().filter(|(_, _, policy)| policy.is_asked_since(since_us));
        asked.filter_map(|(_, name, policy)| Some((name.clone(), *policy.limits().first()?))).collect()
    }

    /// The domains that have a policy of this name, or the one that is named if it has, each with the limit that it was last
    /// asked with, in the order of the names.
    #[must_use]
    pub fn limits_of(&self, policy: &str, domain: Option<&str>) -> Vec<(String, WrittenLimit)> {
        let known = self.known_limits().into_iter();
        let mut found: Vec<_> = known
            .filter(|(name, _)| {
                *name.policy == *policy && domain.is_none_or(|domain| *name.domain == *domain)
            })
            .map(|(name, limit)| (name.domain.into_string(), limit))
            .collect();
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found
    }

    /// Notes with which limit other sidecars were asked for a policy, for as long as this one was not.
    pub fn learn_limit(&self, domain: &str, policy: &str, limit: WrittenLimit) {
        self.lock().policies.learn(domain, policy, limit);
    }

    /// How often a limit was asked with that was not known: whoever publishes [`known_limits`](Self::known_limits) need not
    /// look while this stays the same.
    #[must_use]
    pub fn limit_news(&self) -> u64 {
        self.lock().policies.news()
    }

    fn now_us(&self) -> u64 {
        micros(self.started.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A panic while it was held leaves a count that is one too small.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request, as it is counted.
struct Counting<'a> {
    seen: &'a mut Seen,
    domain: &'a str,
    now_us: u64,
    took_us: Option<u64>,
    /// Policies that this request has asked for already.
    at_hand: [Option<(&'a str, PolicyId)>; AT_HAND],
    next: usize,
    /// How many more steps it may make in the sketches.
    steps_left: u64,
}

impl<'a> Counting<'a> {
    fn new(seen: &'a mut Seen, domain: &'a str, now_us: u64, took_us: Option<u64>) -> Self {
        Self {
            seen,
            domain,
            now_us,
            took_us,
            at_hand: [None; AT_HAND],
            next: 0,
            steps_left: STEPS_PER_REQUEST,
        }
    }

    /// `None` where the store was not asked, or nobody was there to hear its answer.
    fn take(&mut self, take: &'a Take<'_>, verdict: Option<&Verdict>) {
        let whole = match verdict {
            _ if !matches!(take.kind, Kind::Take | Kind::Lease) => None,
            Some(Verdict::Leased { tokens, .. }) => Some((Outcome::Leased, *tokens)),
            _ if take.kind == Kind::Lease => None,
            Some(Verdict::Denied(_)) if take.shadow => Some((Outcome::ShadowDenied, 1)),
            _ if take.shadow => None,
            Some(Verdict::Allowed(_)) => Some((Outcome::Allowed, 1)),
            Some(Verdict::Denied(buckets)) if buckets.iter().any(is_blocked) => Some((Outcome::Blocked, 1)),
            Some(Verdict::Denied(_)) => Some((Outcome::Denied, 1)),
            Some(Verdict::Failed(_)) | None => Some((Outcome::Failed, 1)),
        };
        if let Some((outcome, count)) = whole {
            self.seen.totals.add(outcome, count, self.now_us);
        }
        // One request may have been denied by several: it is told by each, and counts once here.
        let repeats = take.buckets.iter().map(|bucket| bucket.repeats).max().unwrap_or(0).min(MAX_REPEATS);
        if repeats > 0 {
            self.seen.totals.add(Outcome::Repeated, repeats, self.now_us);
        }
        let verdicts = match verdict {
            Some(Verdict::Denied(buckets)) => &buckets[..],
            _ => &[],
        };
        for (place, asked) in take.buckets.iter().enumerate() {
            let id = self.policy(&asked.policy);
            let limit = WrittenLimit { tokens: asked.tokens, period_us: asked.period_us, burst: asked.burst };
            self.seen.policies.see(id, limit, self.now_us);
            // Of a take that was denied, those count that denied it.
            let denies = verdicts.get(place).map(|bucket| bucket.outcome != contract::Outcome::Allowed);
            let own = match (whole, denies) {
                (_, Some(false)) => None,
                (Some((Outcome::Blocked, _)), Some(true)) if !is_blocked(&verdicts[place]) => {
                    Some((Outcome::Denied, 1))
                }
                (whole, _) => whole,
            };
            let policy = self.seen.policies.get_mut(id);
            if let Some((outcome, count)) = own {
                policy.tally.add(outcome, count, self.now_us);
            }
            let repeats = asked.repeats.min(MAX_REPEATS);
            if repeats > 0 {
                policy.tally.add(Outcome::Repeated, repeats, self.now_us);
            }
            let requests = match whole {
                None | Some((Outcome::ShadowDenied, _)) => 0,
                Some((_, count)) => count,
            };
            let denied = u64::from(requests > 0 && denies == Some(true));
            self.rank(id, &asked.key, requests, denied, repeats);
        }
    }

    fn rank(&mut self, id: PolicyId, key: &str, requests: u64, denied: u64, repeats: u64) {
        let often =
            Often { requests: requests.saturating_add(repeats), denied: denied.saturating_add(repeats) };
        self.seen.top.add(id, key, often, &mut self.steps_left, self.now_us);
    }

    /// The policy of that name; the first time that this request asks for it, it is told how long that took.
    fn policy(&mut self, policy: &'a str) -> PolicyId {
        let known = self.at_hand.iter().flatten().find(|(name, _)| *name == policy);
        if let Some((_, id)) = known {
            return *id;
        }
        let id = self.seen.policies.id(self.domain, policy);
        self.at_hand[self.next] = Some((policy, id));
        self.next = (self.next + 1) % AT_HAND;
        let (request, seen) = (self.seen.observed, self.seen.policies.get_mut(id));
        if let Some(took_us) = self.took_us
            && seen.timed != request
        {
            seen.timed = request;
            seen.latency.record(took_us, self.now_us);
        }
        id
    }
}

fn is_blocked(bucket: &contract::BucketVerdict) -> bool {
    bucket.overridden == Some(Overridden::Blocked) && bucket.outcome != contract::Outcome::Allowed
}

#[cfg(test)]
mod tests;
