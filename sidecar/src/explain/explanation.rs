//! What the policies of one filter make of a request.

use contract::MAX_BUCKETS;
use policy::{Ask, Mode, Policies, Policy, Unasked, WHOLE_PPM};
use serde::Serialize;
use serde_json::{Value, json};

use super::request::{Described, Drawn};

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
    /// The line that disables the filter, if one does: then it does not get the request.
    pub disabled_on_line: Option<usize>,
    /// How many limits govern the request, where they are more than can be asked for: then `on_error` applies.
    pub too_many_limits: Option<usize>,
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
    /// For how many keys it is enforced, in percent, where not for all: whether for this one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced_keys_percent: Option<f64>,
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
        let chances = chances(policies, request);
        let mut all: Vec<Tally> = policies.iter().map(|_| Tally::default()).collect();
        let mut most_limits = 0;
        for (drawn, ppm) in &chances {
            let answers = policies.answers(drawn);
            let asks: Vec<Ask> = answers.iter().flatten().cloned().collect();
            most_limits = most_limits.max(policies.bucket_count(&asks));
            all.iter_mut().zip(answers).for_each(|(tally, answer)| tally.add(answer, *ppm));
        }
        let is_exempt = chances.iter().all(|(drawn, _)| policies.skips(drawn));
        let exempt_by = is_exempt.then(|| first_met(&written["skip"], &chances));
        let explained = policies.iter().zip(all).enumerate().map(|(index, (policy, tally))| {
            let name = policy.name().to_owned();
            match tally {
                Tally { ask: Some(ask), asked_ppm, .. } => {
                    let takes = Takes::new(policies, policy, ask, asked_ppm, request);
                    Explained { name, takes: Some(takes), why_not: None }
                }
                Tally { unasked, .. } => {
                    let written = &written["policies"][index]["match"];
                    let why_not = why_not(unasked, exempt_by.as_deref(), || failing(written, &chances));
                    Explained { name, takes: None, why_not: Some(why_not) }
                }
            }
        });
        let mistakes = policies.asks(&Drawn { request, draw: 0 }).mistakes;
        Self {
            line: 0,
            name: None,
            domain: policies.domain().to_owned(),
            policies: explained.collect(),
            exempt_by,
            disabled_on_line: None,
            too_many_limits: (most_limits > MAX_BUCKETS).then_some(most_limits),
            route_mistakes: mistakes.iter().map(ToString::to_string).collect(),
        }
    }

    /// The filter is disabled by what stands on this line: then its policies govern nothing.
    #[must_use]
    pub fn disabled(mut self, on_line: usize) -> Self {
        self.disabled_on_line = Some(on_line);
        (self.exempt_by, self.too_many_limits) = (None, None);
        for policy in &mut self.policies {
            (policy.takes, policy.why_not) = (None, Some("the filter is disabled".to_owned()));
        }
        self
    }
}

/// The request with each draw that may mean something else than the one before, and its share of a million draws.
fn chances<'a>(policies: &Policies, request: &'a Described) -> Vec<(Drawn<'a>, u32)> {
    let mut shares = policies.shares_ppm();
    shares.extend([0, WHOLE_PPM]);
    let ends = shares.iter().skip(1);
    let chance = |(&from, &to): (&u32, &u32)| {
        let draw = (u64::from(from) << 32).div_ceil(u64::from(WHOLE_PPM));
        (Drawn { request, draw: u32::try_from(draw).unwrap_or(u32::MAX) }, to - from)
    };
    shares.iter().zip(ends).map(chance).collect()
}

/// How often one policy asked for something, and for what at last, or why never.
#[derive(Default)]
struct Tally {
    asked_ppm: u32,
    ask: Option<Ask>,
    /// Of several reasons the one that is tested last.
    unasked: Option<Unasked>,
}

impl Tally {
    fn add(&mut self, answer: Result<Ask, Unasked>, ppm: u32) {
        match answer {
            Ok(ask) => {
                self.asked_ppm += ppm;
                self.ask = Some(ask);
            }
            Err(unasked) => self.unasked = self.unasked.max(Some(unasked)),
        }
    }
}

impl Takes {
    fn new(policies: &Policies, policy: &Policy, ask: Ask, asked_ppm: u32, request: &Described) -> Self {
        let limits = policy.limits().iter().map(|named| Limit {
            bucket: named.name.clone(),
            limit: named.text.clone(),
            burst: named.limit.burst_tokens(),
        });
        let can_deny = policies.mode(policy, &Drawn { request, draw: 0 }) == Mode::Enforce;
        let by_key = can_deny && !ask.key.is_empty() && policy.enforce_ppm() < WHOLE_PPM;
        let enforced_ppm = match ask.key.is_empty() {
            true if can_deny => policy.enforce_ppm(),
            false if !ask.shadow => WHOLE_PPM,
            _ => 0,
        };
        Self {
            percent: percent(asked_ppm),
            enforced_percent: percent(enforced_ppm),
            enforced_keys_percent: by_key.then(|| percent(policy.enforce_ppm())),
            limits: limits.collect(),
            cost_tokens: ask.cost_tokens,
            key: ask.key,
        }
    }
}

fn percent(ppm: u32) -> f64 {
    f64::from(ppm) * 100.0 / f64::from(WHOLE_PPM)
}

/// Why a policy asks nothing, in the words of its configuration.
fn why_not(unasked: Option<Unasked>, exempt_by: Option<&str>, failing: impl Fn() -> Vec<String>) -> String {
    match unasked {
        Some(Unasked::Exempt) => return exempt_by.unwrap_or("skip").to_owned(),
        Some(Unasked::RouteSkips) => "the route's metadata: skip: true",
        Some(Unasked::NotChosen) => "the route's metadata chooses other policies",
        Some(Unasked::OnlyIfChosen) => "only_if_chosen, and the route does not choose it",
        Some(Unasked::RouteOff) => "the route's metadata: mode: off",
        Some(Unasked::Off) => "mode: off",
        Some(Unasked::LacksKey) => "missing: skip, and the request lacks a part of the key",
        Some(Unasked::MadeWay) => {
            return format!("in shadow, and more than {MAX_BUCKETS} limits govern the request: it makes way");
        }
        Some(Unasked::Condition) | None => {
            let failing = failing();
            return if failing.is_empty() { "match".to_owned() } else { failing.join(", ") };
        }
    }
    .to_owned()
}

/// The conditions that the request does not meet whatever is drawn, each tried alone.
fn failing(written: &Value, chances: &[(Drawn<'_>, u32)]) -> Vec<String> {
    let conditions = written.as_object().into_iter().flatten();
    let failing = conditions.filter(|(name, condition)| {
        let alone = alone(json!({ name.as_str(): condition }));
        !chances.iter().any(|(drawn, _)| is_met(alone.as_ref(), drawn))
    });
    failing.map(|(name, _)| format!("match.{name}")).collect()
}

/// The first of several conditions that the request meets whatever is drawn.
fn first_met(written: &Value, chances: &[(Drawn<'_>, u32)]) -> String {
    let mut conditions = written.as_array().into_iter().flatten();
    let met = conditions.position(|condition| {
        let alone = alone(condition.clone());
        chances.iter().all(|(drawn, _)| is_met(alone.as_ref(), drawn))
    });
    met.map_or_else(|| "skip".to_owned(), |index| format!("skip[{index}]"))
}

/// A policy that has only this condition.
fn alone(condition: Value) -> Option<Policies> {
    let policy = json!({"name": "alone", "key": [], "limit": "1 per second", "match": condition});
    Policies::from_value(json!({"sidecar": {"cluster": "any"}, "policies": [policy]})).ok()
}

fn is_met(alone: Option<&Policies>, drawn: &Drawn<'_>) -> bool {
    alone.is_some_and(|policies| policies.iter().all(|policy| policy.matches(drawn)))
}
