//! What this Envoy's own buckets are asked, and answer, where a failure keeps the shared ones from deciding.

use contract::BucketVerdict;

use super::{Answer, Count, Failure, Outcomes, Source};
use crate::{Ask, OnError, Policies};

impl Policies {
    /// Which of `asks` this Envoy's own buckets decide, all or none, where the shared ones cannot: those whose policy is
    /// enforced and says `local`. None where another denies whatever they say, or where there are none: then it is
    /// [`Policies::failed`].
    #[must_use]
    pub fn local_asks(&self, asks: &[Ask]) -> Vec<usize> {
        let answers = || {
            let enforced = asks.iter().enumerate().filter(|(_, ask)| !ask.shadow);
            enforced.filter_map(|(index, ask)| Some((index, self.get(ask)?.on_error)))
        };
        if answers().any(|(_, on_error)| on_error == OnError::Deny) {
            return Vec::new();
        }
        answers().filter(|(_, on_error)| *on_error == OnError::Local).map(|(index, _)| index).collect()
    }

    /// What becomes of the request that asked `asks` and that this Envoy's own buckets decide because of `failure`: `known`
    /// has for each ask how they stand, one for each of its policy's `local_limits`, or `None` for those that are not
    /// decided.
    #[must_use]
    pub fn locally(
        &self,
        asks: &[Ask],
        known: &[Option<Vec<BucketVerdict>>],
        failure: Failure,
        draw: u32,
    ) -> Answer {
        let mut outcomes = Outcomes {
            enforced: Vec::new(),
            counts: Vec::with_capacity(asks.len()),
            // Nothing was taken of the shared buckets: nothing is to be returned to them, or settled.
            charged: vec![false; asks.len()],
            source: Source::Local(failure),
        };
        for (index, ask) in asks.iter().enumerate() {
            let count = match (self.get(ask), known.get(index)) {
                (Some(policy), Some(Some(own))) if own.len() == policy.local.len() => {
                    let allowed = outcomes.hear(ask, policy, &policy.local, own);
                    if allowed { Count::LocalAllowed } else { Count::LocalDenied }
                }
                _ => Count::Failed,
            };
            outcomes.counts.push(Some(count));
        }
        self.compose(asks, outcomes, draw)
    }
}
