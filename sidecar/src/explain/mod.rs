//! `sluice explain`: what the policies of a configuration make of one request, by the filter's own code.

mod explanation;
mod request;
pub(crate) mod route;
mod text;

use std::io::{self, Write};

use policy::CLIENT_ADDRESS;
use serde::Serialize;

use crate::check::find::{Filter, Home, Route};
use crate::check::finding::{Finding, Shown, ShownJson};
use crate::check::inspect::{File, Inspected};
use crate::check::traps::mention;
use crate::check::write_all;
use crate::command::{ExplainArgs, Format};
use crate::document::{Node, Span, Value};

pub use explanation::{Explained, Explanation, Limit, Takes};
pub use request::{Attribute, BadDescription, ClientAddress, Described, Drawn, Header, RequestLine};

/// What all filters of a file make of a request.
#[derive(Clone, Debug, Serialize)]
struct All {
    filters: Vec<Explanation>,
    /// What is not known, and would change the answer.
    notes: Vec<String>,
}

/// Explains the request, or writes what is wrong with the file to `complaints`; whether it was explained.
///
/// # Errors
///
/// Where nothing can be written.
pub fn run(args: &ExplainArgs, to: &mut impl Write, complaints: &mut impl Write) -> io::Result<bool> {
    let file = File::read(&args.file);
    let mut inspected = file.inspect();
    inspected.findings.retain(Finding::is_error);
    let names = |name: &str| inspected.routes.iter().any(|route| route.name == Some(name));
    let unknown = args.route.as_deref().filter(|name| !inspected.routes.is_empty() && !names(name));
    let unknown = unknown.map(|name| Finding::of_file(format!("no route is named {name:?}")));
    inspected.findings.extend(unknown);
    if inspected.filters.is_empty() && inspected.findings.is_empty() {
        inspected.findings.push(Finding::of_file(inspected.none_found()));
    }
    if !inspected.findings.is_empty() {
        write_all(&file, &inspected.findings, complaints)?;
        return Ok(false);
    }
    let all = explain(&file, &inspected, args);
    match args.format {
        Format::Json => writeln!(to, "{}", ShownJson(&serde_json::to_string_pretty(&all)?))?,
        Format::Text => {
            all.filters.iter().try_for_each(|explanation| writeln!(to, "{explanation}"))?;
            all.notes.iter().try_for_each(|note| writeln!(to, "note: {}", Shown(note)))?;
        }
    }
    Ok(true)
}

fn explain(file: &File, inspected: &Inspected<'_>, args: &ExplainArgs) -> All {
    let described = Described::new(&args.request, &args.headers, args.from, &args.attributes);
    let line = |at: Span| file.source.position(at.start).0;
    let mut filters = Vec::new();
    let mut notes = Vec::new();
    for (filter, policies) in &inspected.filters {
        let (Some(policies), Some(written)) = (policies, &filter.configuration) else { continue };
        let mut request = described.clone();
        let (taken, note) = taken(&inspected.routes, filter, args.route.as_deref(), line);
        notes.extend(note);
        let mut disabled = filter.disabled();
        match taken {
            Taken::Unknown => {}
            Taken::NotHeard => continue,
            Taken::Named(name, route) => {
                route::take(&mut request, name, route.and_then(|route| route.all_metadata));
                if let Some((is_disabled, at)) = route.and_then(|route| route.disables(filter)) {
                    disabled = is_disabled.then_some(at);
                }
            }
        }
        let explained = Explanation {
            line: line(filter.at),
            name: filter.name.map(str::to_owned),
            ..Explanation::new(policies, &written.to_json(), &request)
        };
        if let Some(at) = disabled {
            filters.push(explained.disabled(line(at)));
            continue;
        }
        filters.push(explained);
        if policies.uses_client_address() && !request.knows(CLIENT_ADDRESS) {
            notes.push("the client's address is not known; tell it by --from".to_owned());
        }
        notes.extend(not_normal(filter, written, request.target()));
    }
    notes.sort();
    notes.dedup();
    All { filters, notes }
}

/// The route that the request takes, as far as a filter is concerned.
enum Taken<'a> {
    /// It is not said.
    Unknown,
    /// One of another connection manager: the filter never gets its requests.
    NotHeard,
    /// The one of this name, if the file has routes at all.
    Named(&'a str, Option<&'a Route<'a>>),
}

/// The route, and what is to be said about it.
fn taken<'a>(
    routes: &'a [Route<'a>],
    filter: &Filter<'_>,
    name: Option<&'a str>,
    line: impl Fn(Span) -> usize,
) -> (Taken<'a>, Option<String>) {
    let mut heard = routes.iter().filter(|route| route.is_heard_by(filter));
    let Some(name) = name else {
        let saying = heard.find(|route| route.metadata.is_some() || route.disables(filter).is_some());
        return (Taken::Unknown, saying.map(|route| unknown(line(route.at))));
    };
    if routes.is_empty() {
        let note = "the file has no routes: nothing but the name of the route is known";
        return (Taken::Named(name, None), Some(note.to_owned()));
    }
    let named: Vec<&Route<'_>> = heard.filter(|route| route.name == Some(name)).collect();
    let Some(first) = named.first().copied() else {
        let note = format!("no request of the route gets to the filter on line {}", line(filter.at));
        return (Taken::NotHeard, Some(note));
    };
    let differing = named.iter().any(|other| differ(first, other, filter)).then(|| {
        let lines: Vec<String> = named.iter().map(|route| line(route.at).to_string()).collect();
        let lines = lines.join(" and ");
        format!(
            "several routes have this name, and not all say the same: the first is taken of those on lines {lines}"
        )
    });
    (Taken::Named(name, Some(first)), differing)
}

/// Whether two routes mean different things to a filter.
fn differ(one: &Route<'_>, other: &Route<'_>, filter: &Filter<'_>) -> bool {
    let metadata = |route: &Route<'_>| route.all_metadata.map(Node::to_json);
    let disabled = |route: &Route<'_>| route.disables(filter).map(|(disabled, _)| disabled);
    metadata(one) != metadata(other) || disabled(one) != disabled(other)
}

fn unknown(line: usize) -> String {
    format!(
        "it is not known which route the request takes, and that on line {line} says more; name one by --route"
    )
}

/// Envoy may have changed the path before a filter gets it, and here it is taken as it is told.
fn not_normal(filter: &Filter<'_>, written: &Node, target: &str) -> Option<String> {
    let Home::Envoy { manager: Some(manager), .. } = filter.home else { return None };
    let is_on = |name: &str| manager.option(name).is_some_and(|field| field.node.value == Value::Bool(true));
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    let by = if is_on("normalize_path") && (has_dots || path.contains(['%', '\\'])) {
        "normalize_path"
    } else if is_on("merge_slashes") && path.contains("//") {
        "merge_slashes"
    } else {
        return None;
    };
    mention(written, "path")?;
    Some(format!(
        "by {by} Envoy may give the filter another path than this, which is taken as it is written; write it in its \
         normal form"
    ))
}
