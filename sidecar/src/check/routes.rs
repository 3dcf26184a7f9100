//! What routes say to the filter in their metadata, in the namespace `sluice`, and what none of them says.

use policy::{Mode, Place, Policies, Problem, Step};

use super::find::{Filter, Home, Route};
use super::finding::Finding;
use super::place;
use crate::document::{Node, Value};

/// What is wrong with the metadata of one route, by all filters that may get its requests, or by its form where none
/// is known.
pub fn check<'a>(
    route: &Route<'_>,
    filters: impl Iterator<Item = (&'a Filter<'a>, &'a Policies)>,
) -> Vec<Finding> {
    let Some(metadata) = route.metadata else { return Vec::new() };
    let heard = filters.filter(|(filter, _)| route.is_heard_by(filter));
    let mut told = heard.map(|(_, policies)| of_one(metadata, policies));
    let Some(first) = told.next() else {
        let problems = Policies::check_route_form(&metadata.to_json());
        return problems.iter().map(|problem| finding(metadata, problem)).collect();
    };
    let others: Vec<Vec<Finding>> = told.collect();
    // What one of several filters understands is right: it may be meant for that one.
    let is_told_by_all =
        |finding: &Finding| others.iter().all(|told| told.iter().any(|other| other.at == finding.at));
    first.into_iter().filter(is_told_by_all).collect()
}

/// Policies that govern only routes that choose them, where all routes are known and none does.
pub fn unchosen(filter: &Filter<'_>, policies: &Policies, routes: &[Route<'_>]) -> Vec<Finding> {
    let (Home::Envoy { manager: Some(manager), .. }, Some(configuration)) =
        (filter.home, &filter.configuration)
    else {
        return Vec::new();
    };
    if manager.option("route_config").is_none() || manager.options(&["route_config", "vhds"]).is_some() {
        return Vec::new();
    }
    let heard = || routes.iter().filter(|route| route.is_heard_by(filter)).filter_map(|route| route.metadata);
    let is_chosen =
        |name: &str| heard().any(|metadata| chosen(metadata).is_some_and(|names| names.contains(&name)));
    let waiting = policies.iter().enumerate().filter(|(_, policy)| policy.only_if_chosen());
    let in_vain = { waiting }.filter(|(_, policy)| !is_chosen(policy.name()));
    in_vain
        .map(|(index, policy)| {
            let field = |name: &str| Step::Field(name.to_owned());
            let place = Place(vec![field("policies"), Step::Item(index), field("only_if_chosen")]);
            let message = format!(
                "{place}: no route chooses the policy, so it never matches; write `metadata: {{ filter_metadata: {{ \
                 sluice: {{ policies: [{}] }} }} }}` on one",
                policy.name()
            );
            Finding::warning(place::of(configuration, &place, ""), message)
        })
        .collect()
}

fn of_one(metadata: &Node, policies: &Policies) -> Vec<Finding> {
    let problems = policies.check_route(&metadata.to_json());
    if problems.is_empty() {
        return too_dear(metadata, policies).into_iter().collect();
    }
    problems.iter().map(|problem| finding(metadata, problem)).collect()
}

fn finding(metadata: &Node, problem: &Problem) -> Finding {
    let at = place::of(metadata, &problem.place, &problem.message);
    let inner = if problem.place.0.is_empty() { String::new() } else { format!(".{}", problem.place) };
    Finding::error(at, format!("metadata.filter_metadata.sluice{inner}: {}", problem.message))
}

/// A cost that some bucket can never pay.
fn too_dear(metadata: &Node, policies: &Policies) -> Option<Finding> {
    let written = metadata.get("cost")?;
    let cost: u64 = match &written.value {
        Value::Number(number) => number.as_u64()?,
        _ => written.text()?.trim().parse().ok()?,
    };
    if metadata.get("skip").is_some_and(|skip| skip.value == Value::Bool(true)) {
        return None;
    }
    // A mode that is wrong is told elsewhere.
    let mode = metadata.get("mode").map(|mode| match mode.text() {
        Some("enforce") => Mode::Enforce,
        Some("shadow") => Mode::Shadow,
        _ => Mode::Off,
    });
    let chosen = chosen(metadata);
    let governs = |policy: &&policy::Policy| match &chosen {
        Some(names) => names.contains(&policy.name()),
        None => !policy.only_if_chosen(),
    };
    let limits = policies
        .iter()
        .filter(governs)
        // What is in shadow denies nothing.
        .filter(|policy| mode.unwrap_or(policy.mode()) == Mode::Enforce)
        .flat_map(|policy| policy.limits());
    let named = limits.min_by_key(|named| named.limit.burst_tokens())?;
    let burst = named.limit.burst_tokens();
    let message = format!(
        "metadata.filter_metadata.sluice.cost: each request costs {cost}, and the limit {:?} never holds more than its \
         burst of {burst}: it denies every request; raise the burst, or lower the cost",
        named.name
    );
    (cost > burst).then(|| Finding::warning(written.shown(), message))
}

/// The policies that a route names.
fn chosen(metadata: &Node) -> Option<Vec<&str>> {
    metadata.get("policies").map(|names| names.items().iter().filter_map(Node::text).collect())
}
