//! What routes say to the filter in their metadata, in the namespace `sluice`.

use policy::{Policies, Problem};

use super::find::{Filter, Route};
use super::finding::Finding;
use super::place;
use crate::document::Node;

/// What is wrong with the metadata of one route, by all filters that may get its requests.
pub fn check<'a>(
    route: &Route<'_>,
    filters: impl Iterator<Item = (&'a Filter<'a>, &'a Policies)>,
) -> Vec<Finding> {
    let Some(metadata) = route.metadata else { return Vec::new() };
    let written = metadata.to_json();
    let heard = filters.filter(|(filter, _)| route.is_heard_by(filter));
    let mut told = heard.map(|(_, policies)| policies.check_route(&written));
    let Some(first) = told.next() else { return Vec::new() };
    let others: Vec<Vec<Problem>> = told.collect();
    // What one of several filters understands is right: it may be meant for that one.
    let is_told_by_all =
        |problem: &Problem| others.iter().all(|told| told.iter().any(|other| other.place == problem.place));
    first.into_iter().filter(is_told_by_all).map(|problem| finding(metadata, &problem)).collect()
}

fn finding(metadata: &Node, problem: &Problem) -> Finding {
    let at = place::of(metadata, &problem.place, &problem.message);
    let inner = if problem.place.0.is_empty() { String::new() } else { format!(".{}", problem.place) };
    Finding::error(at, format!("metadata.filter_metadata.sluice{inner}: {}", problem.message))
}
