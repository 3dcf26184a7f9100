//! The buckets of a replay: those that are not full, held to the limits of one filter.

use std::collections::HashMap;

use bucket::{Ask as BucketAsk, Bucket, Keep, Kind, Level, Limit, look_at_all, take_all};
use foldhash::fast::RandomState;
use policy::{Ask, Policies};

/// Full buckets are looked for when there are twice as many as were left the last time, and at least so many.
const LEAST_BEFORE_SWEEP: usize = 4_096;

/// All buckets, by limit and by key.
#[derive(Debug)]
pub struct Buckets {
    tables: Vec<Table>,
    /// Where the tables of each policy begin.
    of_policy: Vec<usize>,
    /// The table of the buckets of a name.
    of_name: HashMap<String, usize>,
    asked: Vec<BucketAsk>,
}

#[derive(Debug)]
struct Table {
    limit: Limit,
    kept: HashMap<Box<str>, Kept, RandomState>,
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    bucket: Bucket,
    full_at_us: u64,
}

impl Buckets {
    /// All are full.
    pub fn new(policies: &Policies) -> Self {
        let mut buckets =
            Self { tables: Vec::new(), of_policy: Vec::new(), of_name: HashMap::new(), asked: Vec::new() };
        for policy in policies.iter() {
            buckets.of_policy.push(buckets.tables.len());
            for named in policy.limits() {
                buckets.of_name.insert(named.name.clone(), buckets.tables.len());
                let table =
                    Table { limit: named.limit, kept: HashMap::default(), sweep_at: LEAST_BEFORE_SWEEP };
                buckets.tables.push(table);
            }
        }
        buckets
    }

    /// Takes what `asks` ask from all buckets or from none, or only looks; whether each ask was allowed, by its place in
    /// `asks`.
    pub fn take(&mut self, policies: &Policies, asks: &[&Ask], only_look: bool, now_us: u64) -> Vec<bool> {
        let places = asks.iter().flat_map(|ask| self.places(policies, ask).map(|place| (place, *ask)));
        let places: Vec<(usize, &Ask)> = places.collect();
        let costs = places.iter().map(|(place, ask)| (*place, ask.key.as_str(), ask.cost_tokens));
        let costs: Vec<(usize, &str, u64)> = costs.collect();
        self.decide(&costs, Kind::Take, only_look, now_us);
        let mut answers = self.asked.iter();
        let allows = |ask: &&Ask| {
            let count = self.places(policies, ask).len();
            // All of them, whatever the first says, so that the next ask meets its own.
            answers.by_ref().take(count).filter(|asked| !look_at_all(std::slice::from_ref(asked))).count()
                == 0
        };
        asks.iter().map(allows).collect()
    }

    /// Charges or returns what a bill says.
    pub fn settle(&mut self, takes: &[contract::Take<'_>], now_us: u64) {
        for take in takes {
            let kind = if take.kind == contract::Kind::Refund { Kind::Refund } else { Kind::Charge };
            let costs = take
                .buckets
                .iter()
                .filter_map(|bucket| Some((*self.of_name.get(&*bucket.policy)?, &*bucket.key, bucket.cost)));
            let costs: Vec<(usize, &str, u64)> = costs.collect();
            self.decide(&costs, kind, false, now_us);
        }
    }

    /// How many are not full, or were not when they were last looked at.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.kept.len()).sum()
    }

    fn places(&self, policies: &Policies, ask: &Ask) -> std::ops::Range<usize> {
        let first = self.of_policy.get(ask.policy).copied().unwrap_or_default();
        first..first + policies.get(ask).map_or(0, |policy| policy.limits().len())
    }

    fn decide(&mut self, costs: &[(usize, &str, u64)], kind: Kind, only_look: bool, now_us: u64) {
        self.asked.clear();
        for (place, key, cost_tokens) in costs {
            let Some(table) = self.tables.get(*place) else { continue };
            let kept = table.kept.get(*key).filter(|kept| kept.full_at_us > now_us).map(|kept| kept.bucket);
            self.asked.push(BucketAsk::new(Level::count(table.limit, kept, now_us), kind, *cost_tokens));
        }
        if only_look || !take_all(&mut self.asked) {
            return;
        }
        for ((place, key, _), asked) in costs.iter().zip(&self.asked) {
            let Some(table) = self.tables.get_mut(*place) else { continue };
            match asked.keep() {
                Keep::AsItIs => {}
                Keep::Nothing => {
                    table.kept.remove(*key);
                }
                Keep::Bucket(bucket, full_after_us) => {
                    table.keep(
                        key,
                        Kept { bucket, full_at_us: now_us.saturating_add(full_after_us) },
                        now_us,
                    );
                }
            }
        }
    }
}

impl Table {
    fn keep(&mut self, key: &str, kept: Kept, now_us: u64) {
        if let Some(known) = self.kept.get_mut(key) {
            *known = kept;
            return;
        }
        if self.kept.len() >= self.sweep_at {
            self.kept.retain(|_, kept| kept.full_at_us > now_us);
            self.sweep_at = (self.kept.len() * 2).max(LEAST_BEFORE_SWEEP);
        }
        self.kept.insert(key.into(), kept);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]
mod tests {
    use serde_json::json;

    use super::{Ask, Buckets, LEAST_BEFORE_SWEEP, Policies};

    #[test]
    fn buckets_that_are_full_again_take_no_room() {
        let policies = Policies::from_value(json!({
            "sidecar": {"cluster": "sluice"}, "policies": [{"name": "all", "key": ["path"], "limit": "1 per second"}],
        }));
        let policies = policies.unwrap();
        let mut buckets = Buckets::new(&policies);
        for number in 0..100_000_u64 {
            let ask = Ask { policy: 0, key: number.to_string(), cost_tokens: 1, shadow: false };
            // A thousand a second, each of a key of its own: a thousand are not full.
            assert_eq!(buckets.take(&policies, &[&ask], false, number * 1_000), [true]);
            assert!(buckets.len() <= LEAST_BEFORE_SWEEP, "{number}");
        }
        let again = Ask { policy: 0, key: "99999".to_owned(), cost_tokens: 1, shadow: false };
        assert_eq!(buckets.take(&policies, &[&again], false, 100_000_000), [false], "what is not is kept");
    }
}
