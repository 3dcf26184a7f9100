//! What the policies of one filter make of a request.

use policy::{Ask, Mode, Policies, Policy};
use serde::Serialize;
use serde_json::{Value, json};

use super::request::{Described, Drawn};

/// How often a number is drawn, where something is chosen at random: enough for shares of a hundredth of a percent,
/// and of a tenth where there are so many policies that it takes time.
const DRAWS: [u32; 2] = [10_000, 1_000];

/// What one filter makes of a request.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Where it stands in the file.
    pub line: usize,
    /// What it is called, if it is.
    pub name: Option<String>,
    /// The namespace of its policies.
    pub domain: String,
    /// What exempts the request from every policy, if anything does: the first such item of `skip`.
    pub exempt_by: Option<String>,
    /// What is wrong with what the route says, which is then not heeded.
    pub route_mistakes: Vec<String>,
    /// In the order of the configuration.
    pub policies: Vec<Explained>,
}

/// What one policy makes of a request.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// The policy's name.
    pub name: String,
    /// What it asks for the request, if it governs it.
    pub takes: Option<Takes>,
    /// Why it does not govern it, if it does not.
    pub why_not: Option<String>,
}

/// What a policy asks for a request.
#[derive(Clone, Debug, Serialize)]
pub struct Takes {
    /// Whose buckets.
    pub key: String,
    /// How many tokens of each.
    pub cost_tokens: u64,
    /// Of how many such requests it asks anything, in percent.
    pub percent: f64,
    /// For how many of these it is enforced, in percent; for the others it is in shadow.
    pub enforced_percent: f64,
    /// The buckets.
    pub limits: Vec<Limit>,
}

/// One limit of a policy.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// The name of its buckets.
    pub bucket: String,
    /// As people write it.
    pub limit: String,
    /// The most tokens at once.
    pub burst: u64,
}

impl Explanation {
    /// Applies the policies that `written` is the configuration of.
    #[must_use]
    pub fn new(policies: &Policies, written: &Value, request: &Described) -> Self {
        let mut all: Vec<Tally> = policies.iter().map(|_| Tally::default()).collect();
        let mut route_mistakes = Vec::new();
        let is_random = written.to_string().contains("percent");
        let draws = if is_random { DRAWS[usize::from(all.len() > 100)] } else { 1 };
        for draw in (0..draws).map(|number| (u64::from(number) << 32).div_ceil(u64::from(draws))) {
            let draw = u32::try_from(draw).unwrap_or(u32::MAX);
            let asked = policies.asks(&Drawn { request, draw });
            route_mistakes = asked.mistakes.to_vec();
            for ask in asked.asks {
                let Some(tally) = all.get_mut(ask.policy) else { continue };
                tally.asked += 1;
                tally.enforced += u32::from(!ask.shadow);
                tally.ask = Some(ask);
            }
        }
        let exempt_by =
            policies.skips(&Drawn { request, draw: 0 }).then(|| first_met(&written["skip"], request));
        let explained = policies.iter().zip(all).enumerate().map(|(index, (policy, tally))| {
            let takes = tally.takes(policy, draws);
            let why_not = takes.is_none().then(|| {
                exempt_by.clone().unwrap_or_else(|| why_not(policy, &written["policies"][index], request))
            });
            Explained { name: policy.name().to_owned(), why_not, takes }
        });
        Self {
            line: 0,
            name: None,
            domain: policies.domain().to_owned(),
            policies: explained.collect(),
            exempt_by,
            route_mistakes: route_mistakes.iter().map(ToString::to_string).collect(),
        }
    }
}

/// How often one policy asked for something, and for what at last.
#[derive(Default)]
struct Tally {
    asked: u32,
    enforced: u32,
    ask: Option<Ask>,
}

impl Tally {
    fn takes(self, policy: &Policy, draws: u32) -> Option<Takes> {
        let ask = self.ask?;
        let limits = policy.limits().iter().map(|named| Limit {
            bucket: named.name.clone(),
            limit: named.text.clone(),
            burst: named.limit.burst_tokens(),
        });
        Some(Takes {
            key: ask.key,
            cost_tokens: ask.cost_tokens,
            percent: percent(self.asked, draws),
            enforced_percent: percent(self.enforced, self.asked),
            limits: limits.collect(),
        })
    }
}

fn percent(part: u32, of: u32) -> f64 {
    f64::from(part) * 100.0 / f64::from(of.max(1))
}

/// Why a policy does not govern a request from which the filter exempts nobody.
fn why_not(policy: &Policy, written: &Value, request: &Described) -> String {
    if !policy.matches(&Drawn { request, draw: 0 }) {
        let failing = failing_conditions(&written["match"], request);
        return if failing.is_empty() { "match".to_owned() } else { failing.join(", ") };
    }
    if policy.mode() == Mode::Off {
        return "mode: off".to_owned();
    }
    if policy.only_if_chosen() {
        return "only_if_chosen, and the route does not choose it".to_owned();
    }
    if written["missing"] == "skip" {
        return "missing: skip, and the request lacks a part of the key".to_owned();
    }
    "the route's metadata".to_owned()
}

/// The conditions that the request does not meet, each tried alone.
fn failing_conditions(written: &Value, request: &Described) -> Vec<String> {
    let conditions = written.as_object().into_iter().flatten();
    let failing = conditions.filter(|(name, condition)| !meets(request, json!({ name.as_str(): condition })));
    failing.map(|(name, _)| format!("match.{name}")).collect()
}

/// The first of several conditions that the request meets.
fn first_met(written: &Value, request: &Described) -> String {
    let mut conditions = written.as_array().into_iter().flatten();
    let met = conditions.position(|condition| meets(request, condition.clone()));
    met.map_or_else(|| "skip".to_owned(), |index| format!("skip[{index}]"))
}

/// Whether a request meets a condition, found out by a policy that has no other.
fn meets(request: &Described, condition: Value) -> bool {
    let policy = json!({"name": "alone", "key": [], "limit": "1 per second", "match": condition});
    let policies = Policies::from_value(json!({"sidecar": {"cluster": "any"}, "policies": [policy]}));
    policies.is_ok_and(|policies| policies.iter().all(|policy| policy.matches(&Drawn { request, draw: 0 })))
}
