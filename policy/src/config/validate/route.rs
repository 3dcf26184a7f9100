//! The metadata of a route, from written to valid.

use bucket::EXACT;
use serde_json::Value;

use super::mode;
use crate::config::scalar::Whole;
use crate::config::spot::{Problems, Spot, did_you_mean};
use crate::config::written::WrittenRoute;
use crate::route::Route;
use crate::{Policies, Problem};

/// What a route says in its metadata of the namespace `sluice`, or everything that is wrong with it; which
/// names there are is heeded where the policies are known.
pub fn route(value: Value, policies: Option<&Policies>) -> Result<Route, Vec<Problem>> {
    let problems = Problems::default();
    let root = problems.root();
    let read = |written: WrittenRoute| Route {
        skip: written.skip.read(&root.field("skip")).unwrap_or_default(),
        policies: written
            .policies
            .read(&root.field("policies"))
            .map(|names| chosen(&names, policies, &root.field("policies"))),
        cost_tokens: written.cost.read(&root.field("cost")).map(|Whole(cost)| {
            if cost >= EXACT {
                root.field("cost")
                    .problem(format!("found {cost}; it must be below 2^53 to be counted exactly"));
            }
            cost
        }),
        mode: written.mode.read(&root.field("mode")).map(mode),
    };
    let route = root.read::<WrittenRoute>(value).map(read);
    let found = problems.into_found();
    match route {
        Some(route) if found.is_empty() => Ok(route),
        _ => Err(found),
    }
}

fn chosen(names: &[String], policies: Option<&Policies>, spot: &Spot<'_>) -> Vec<usize> {
    let Some(policies) = policies else { return Vec::new() };
    let known = |name: &str| policies.policies.iter().position(|policy| policy.name == name);
    let places = names.iter().enumerate().filter_map(|(index, name)| {
        let place = known(name);
        if place.is_none() {
            let near = did_you_mean(name, policies.policies.iter().map(|policy| policy.name.as_str()));
            spot.item(index).problem(format!("found {name:?}, which is the name of no policy{near}"));
        }
        place
    });
    places.collect()
}
