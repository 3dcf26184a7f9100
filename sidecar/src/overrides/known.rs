//! Which limits are asked for, by the names of their policies: an operator names a bucket and not its limit.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use contract::TakeRequest;

use super::WrittenLimit;

/// The most policies that are known.
const MAX_POLICIES: usize = 1_000;

/// The limit that each policy was last asked with.
#[derive(Debug, Default)]
pub struct Known(Mutex<Policies>);

#[derive(Debug, Default)]
struct Policies {
    by_domain: HashMap<String, HashMap<String, WrittenLimit>>,
    count: usize,
}

impl Known {
    /// Notes what is asked.
    pub fn see(&self, request: &TakeRequest<'_>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Policies { by_domain, count } = &mut *known;
        for ask in request.takes.iter().flat_map(|take| &take.buckets) {
            let limit = WrittenLimit { tokens: ask.tokens, period_us: ask.period_us, burst: ask.burst };
            let policy = by_domain.get_mut(&*request.domain).and_then(|of| of.get_mut(&*ask.policy));
            match policy {
                Some(known) => *known = limit,
                None if *count < MAX_POLICIES => {
                    *count += 1;
                    let of_domain = by_domain.entry(request.domain.clone().into_owned()).or_default();
                    of_domain.insert(ask.policy.clone().into_owned(), limit);
                }
                None => {}
            }
        }
    }

    /// The domains that have a policy of this name, or the one that is named if it has, each with the limit.
    #[must_use]
    pub fn limits_of(&self, policy: &str, domain: Option<&str>) -> Vec<(String, WrittenLimit)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_domain =
            known.by_domain.iter().filter(|(name, _)| domain.is_none_or(|domain| domain == *name));
        of_domain.filter_map(|(name, policies)| Some((name.clone(), *policies.get(policy)?))).collect()
    }
}
