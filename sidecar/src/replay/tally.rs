//! What came of the requests of a replay: counted, within bounded memory.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use policy::{Ask, Policies};

const MINUTE_US: u64 = 60_000_000;

/// The most keys that are counted. Of more, those that were denied least are forgotten.
const MAX_KEYS: usize = 200_000;

/// The most things that are told of one policy to be missing.
const MAX_UNTOLD: usize = 100;

/// What came of the requests of one filter.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that the filter was asked about, whether or not a policy governs them.
    pub requests: u64,
    /// Those of them that an enforced policy or one in shadow decided.
    pub governed: u64,
    /// Those that would have been denied.
    pub denied: u64,
    /// Those for which some policy was not judged.
    pub partly_judged: u64,
    /// Those for which more buckets were asked than a take may have.
    pub too_many: u64,
    /// Those whose route is not told, though it says whether the filter is on.
    pub route_unknown: u64,
    /// What was not told of responses, and for how many.
    pub not_settled: BTreeMap<String, u64>,
    /// When the first began, and the last.
    pub span_us: Option<(u64, u64)>,
    /// By the policy's place.
    pub policies: Vec<OfPolicy>,
    /// Whether some keys were forgotten, so that the counts of others may be too low.
    pub forgot_keys: bool,
    keys: usize,
}

/// What one policy did.
#[derive(Debug, Default)]
pub struct OfPolicy {
    /// Requests that it governed and decided.
    pub decided: u64,
    /// Those it would have denied.
    pub denied: u64,
    /// Those that it decided in shadow.
    pub in_shadow: u64,
    /// The minute in which it denied most, and how many.
    pub worst_minute: Option<Minute>,
    /// Requests for which it was not judged, and what was not told for how many of them.
    pub not_judged: u64,
    /// See there.
    pub untold: BTreeMap<String, u64>,
    minute: Option<Minute>,
    denied_keys: HashMap<Box<str>, u64, RandomState>,
}

/// A minute of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// When it began.
    pub start_us: u64,
    /// What was denied in it.
    pub denied: u64,
}

impl Tally {
    /// Nothing has come of anything.
    pub fn new(policies: &Policies) -> Self {
        Self { policies: policies.iter().map(|_| OfPolicy::default()).collect(), ..Self::default() }
    }

    /// One more request.
    pub fn request(&mut self, at_us: u64) {
        self.requests += 1;
        let first_us = self.span_us.map_or(at_us, |(first_us, _)| first_us);
        self.span_us = Some((first_us, at_us));
    }

    /// One whose route is not told.
    pub fn route_unknown(&mut self) {
        self.route_unknown += 1;
    }

    /// One for which some policy was not judged.
    pub fn partly_judged(&mut self) {
        self.partly_judged += 1;
    }

    /// One for which too many buckets were asked.
    pub fn too_many(&mut self) {
        self.too_many += 1;
    }

    /// One that was decided.
    pub fn decided(&mut self, passes: bool) {
        self.governed += 1;
        self.denied += u64::from(!passes);
    }

    /// What the policy of `ask` said to it.
    pub fn policy(&mut self, ask: &Ask, allows: bool, at_us: u64) {
        let Some(policy) = self.policies.get_mut(ask.policy) else { return };
        policy.decided += 1;
        policy.in_shadow += u64::from(ask.shadow);
        if allows {
            return;
        }
        policy.deny(at_us);
        if let Some(count) = policy.denied_keys.get_mut(ask.key.as_str()) {
            *count += 1;
            return;
        }
        policy.denied_keys.insert(ask.key.as_str().into(), 1);
        self.keys += 1;
        if self.keys > MAX_KEYS {
            self.forget_keys();
        }
    }

    /// A policy was not judged for want of what the log does not tell.
    pub fn not_judged(&mut self, place: usize, untold: Vec<String>) {
        let Some(policy) = self.policies.get_mut(place) else { return };
        policy.not_judged += 1;
        untold.into_iter().for_each(|what| add(&mut policy.untold, what));
    }

    /// What a request really cost is not known.
    pub fn not_settled(&mut self, untold: String) {
        add(&mut self.not_settled, untold);
    }

    /// The keys that were denied most: the policy's place, the key and how often.
    pub fn top(&self, most: usize) -> Vec<(usize, &str, u64)> {
        let mut all: Vec<(usize, &str, u64)> = self
            .policies
            .iter()
            .enumerate()
            .flat_map(|(place, policy)| {
                policy.denied_keys.iter().map(move |(key, count)| (place, &**key, *count))
            })
            .collect();
        all.sort_unstable_by(|one, other| {
            other.2.cmp(&one.2).then_with(|| (one.0, one.1).cmp(&(other.0, other.1)))
        });
        all.truncate(most);
        all
    }

    /// Forgets the half of the keys that was denied least.
    fn forget_keys(&mut self) {
        let mut counts: Vec<u64> =
            self.policies.iter().flat_map(|policy| policy.denied_keys.values().copied()).collect();
        let half = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(half);
        let median = *median;
        for policy in &mut self.policies {
            policy.denied_keys.retain(|_, count| *count > median);
        }
        self.keys = self.policies.iter().map(|policy| policy.denied_keys.len()).sum();
        self.forgot_keys = true;
    }
}

impl OfPolicy {
    fn deny(&mut self, at_us: u64) {
        self.denied += 1;
        let start_us = at_us / MINUTE_US * MINUTE_US;
        let before =
            self.minute.filter(|minute| minute.start_us == start_us).map_or(0, |minute| minute.denied);
        let minute = Minute { start_us, denied: before + 1 };
        self.minute = Some(minute);
        if self.worst_minute.is_none_or(|worst| worst.denied < minute.denied) {
            self.worst_minute = Some(minute);
        }
    }
}

fn add(to: &mut BTreeMap<String, u64>, what: String) {
    if to.len() < MAX_UNTOLD || to.contains_key(&what) {
        *to.entry(what).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_KEYS, Minute, OfPolicy, Tally};
    use policy::Ask;

    #[test]
    fn the_keys_that_are_denied_most_survive_a_flood_of_others() {
        let mut tally = Tally { policies: vec![OfPolicy::default()], ..Tally::default() };
        let mut deny = |key: String| {
            tally.policy(&Ask { policy: 0, key, cost_tokens: 1, shadow: false }, false, 0);
        };
        for number in 0..MAX_KEYS * 2 {
            deny(number.to_string());
            if number % 100 == 0 {
                deny("noisy".to_owned());
            }
        }
        assert!(tally.forgot_keys && tally.keys <= MAX_KEYS);
        assert_eq!(tally.top(1), [(0, "noisy", u64::try_from(MAX_KEYS / 50).unwrap_or_default())]);
    }

    #[test]
    fn the_worst_minute_is_the_one_with_most_denials() {
        let mut policy = OfPolicy::default();
        for at_s in [1, 59, 60, 61, 62, 119, 120] {
            policy.deny(at_s * 1_000_000);
        }
        assert_eq!(policy.worst_minute, Some(Minute { start_us: 60_000_000, denied: 4 }));
        assert_eq!(policy.denied, 7);
    }
}
