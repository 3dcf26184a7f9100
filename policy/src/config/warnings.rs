//! What is allowed, and yet most likely not what its author wants.

use bucket::{EXACT, Limit};
use contract::MAX_BUCKETS;

use crate::matcher::{Condition, Test};
use crate::{Mode, OnError, Place, Policies, Policy, Problem, Step};

impl Policies {
    /// Traps: what is allowed, and yet most likely not what its author wants.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        let asked =
            self.policies.iter().filter(|policy| policy.mode == Mode::Enforce && !policy.only_if_chosen);
        let limits: usize = asked.map(|policy| policy.limits.len()).sum();
        let too_many = (limits > MAX_BUCKETS).then(|| Problem {
            place: Place(vec![Step::Field("policies".to_owned())]),
            message: format!(
                "together they have {limits} limits, and a request that more than {MAX_BUCKETS} of them govern gets \
                 `on_error`: make sure by their conditions that none is governed by so many"
            ),
        });
        let unused =
            self.local_is_written && self.policies.iter().all(|policy| policy.on_error != OnError::Local);
        let unused = unused.then(|| Problem {
            place: Place(vec![Step::Field("local".to_owned())]),
            message:
                "no policy has `on_error: local`: nothing is decided by it; write that, or leave `local` out"
                    .to_owned(),
        });
        too_many
            .into_iter()
            .chain(unused)
            .chain(self.policies.iter().flat_map(|policy| policy.warnings()))
            .collect()
    }
}

impl Policy {
    fn warnings(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut warn = |field: &str, message: String| {
            let place = Place(vec![
                Step::Field("policies".to_owned()),
                Step::Item(self.place),
                Step::Field(field.to_owned()),
            ]);
            found.push(Problem { place, message });
        };
        if let Some(why) = contradiction(&self.condition) {
            warn("match", format!("no request meets these conditions: {why}; the policy never matches"));
        }
        let (least, most) = self.cost.bounds();
        if let Some(named) = self.limits.iter().min_by_key(|named| named.limit.burst_tokens()) {
            let burst = named.limit.burst_tokens();
            if least > burst {
                warn(
                    "cost",
                    format!(
                        "each request costs {least}, and the limit {:?} never holds more than its burst of {burst}: every \
                     request is denied; raise the burst, or lower the cost",
                        named.name
                    ),
                );
            } else if most > burst {
                warn(
                    "cost",
                    format!(
                        "a request may cost up to {most}, and the limit {:?} never holds more than its burst of {burst}: those \
                     that cost more are always denied; raise the burst, or lower `max`",
                        named.name
                    ),
                );
            }
        }
        if let Some(settle) = &self.settle
            && let Some(named) = self.limits.iter().min_by_key(|named| debt_tokens(&named.limit))
            && settle.max > debt_tokens(&named.limit)
        {
            warn(
                "settle",
                format!(
                    "a request may cost up to {}, and a bucket of the limit {:?} can owe no more than {} tokens exactly: what \
                     is beyond is forgiven; lower `max`, or write the limit in a simpler rate",
                    settle.max,
                    named.name,
                    debt_tokens(&named.limit)
                ),
            );
        }
        if let Some(lease) = self.lease
            && let Some(named) = self.limits.iter().min_by_key(|named| named.limit.burst_tokens())
            && u128::from(named.limit.burst_tokens()) * u128::from(lease.share_percent) < 100
        {
            warn(
                "lease",
                format!(
                    "{} percent of the limit {:?}, whose burst is {}, are less than one token: nothing will ever be leased; \
                     raise the burst or `share_percent`, or leave out `lease`",
                    lease.share_percent,
                    named.name,
                    named.limit.burst_tokens()
                ),
            );
        }
        if self.mode == Mode::Enforce && self.enforced.ppm() == 0 {
            warn("enforce_percent", "it is enforced for nobody; `mode: shadow` says so".to_owned());
        }
        found
    }
}

/// The most tokens that a bucket can owe: see the floor in lua/SPEC.md.
fn debt_tokens(limit: &Limit) -> u64 {
    ((EXACT - 1) / limit.period_us()).saturating_sub(limit.burst_tokens())
}

/// Why no request meets a condition, where that is certain.
fn contradiction(condition: &Condition) -> Option<String> {
    match condition {
        Condition::Share(share) if share.ppm() == 0 => Some("0 percent are none".to_owned()),
        Condition::Any(any) => {
            let reasons: Option<Vec<String>> = any.iter().map(contradiction).collect();
            reasons.and_then(|reasons| reasons.into_iter().next())
        }
        Condition::Not(inner) if inner.is_always_met() => Some("`not` excludes every request".to_owned()),
        Condition::All(_) => {
            let mut all = Vec::new();
            flatten(condition, &mut all);
            let single = all.iter().find_map(|condition| match condition {
                Condition::All(_) => None,
                other => contradiction(other),
            });
            let pairs = all
                .iter()
                .enumerate()
                .flat_map(|(index, left)| all.iter().skip(index + 1).map(move |right| (*left, *right)));
            single.or_else(|| pairs.filter_map(|(left, right)| between(left, right)).next())
        }
        _ => None,
    }
}

/// Everything that must be met, through nested `all`.
fn flatten<'a>(condition: &'a Condition, to: &mut Vec<&'a Condition>) {
    match condition {
        Condition::All(all) => all.iter().for_each(|condition| flatten(condition, to)),
        other => to.push(other),
    }
}

/// Why two conditions cannot both be met, where that is certain.
fn between(left: &Condition, right: &Condition) -> Option<String> {
    let apart = |what: &str, left: &Test, right: &Test| {
        excludes(left, right).then(|| format!("{what} cannot be both"))
    };
    match (left, right) {
        (Condition::Path(left), Condition::Path(right)) => apart("the path", left, right),
        (Condition::Header(left, one), Condition::Header(right, other)) if left == right => {
            apart(&format!("the header {left:?}"), one, other)
        }
        (Condition::Query(left, one), Condition::Query(right, other)) if left == right => {
            apart(&format!("the parameter {left:?}"), one, other)
        }
        (Condition::Cookie(left, one), Condition::Cookie(right, other)) if left == right => {
            apart(&format!("the cookie {left:?}"), one, other)
        }
        (Condition::Metadata(left, one), Condition::Metadata(right, other)) if left == right => {
            apart("the value of metadata", one, other)
        }
        (Condition::Method(left), Condition::Method(right)) => disjoint("method", left, right),
        (Condition::RouteName(left), Condition::RouteName(right)) => disjoint("route", left, right),
        _ => None,
    }
}

fn disjoint(what: &str, left: &[String], right: &[String]) -> Option<String> {
    let shared = left.iter().any(|name| right.contains(name));
    (!shared).then(|| format!("no {what} is in both lists"))
}

/// Whether no value passes both tests, where that is certain.
fn excludes(left: &Test, right: &Test) -> bool {
    match (left, right) {
        (Test::Exact(value), other) | (other, Test::Exact(value)) => !other.fits(Some(value.as_bytes())),
        (Test::Prefix(left), Test::Prefix(right)) => {
            !left.starts_with(right.as_str()) && !right.starts_with(left.as_str())
        }
        (Test::Suffix(left), Test::Suffix(right)) => {
            !left.ends_with(right.as_str()) && !right.ends_with(left.as_str())
        }
        _ => false,
    }
}
