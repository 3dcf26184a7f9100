//! `sluice explain`: what the policies of a configuration make of one request, by the filter's own code.

mod explanation;
mod request;
mod route;
mod text;

use std::io::{self, Write};

use policy::CLIENT_ADDRESS;
use serde::Serialize;

use crate::check::find::Route;
use crate::check::finding::Finding;
use crate::check::inspect::{File, Inspected};
use crate::check::write_all;
use crate::command::{ExplainArgs, Format};

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
    if let Some(name) =
        args.route.as_deref().filter(|name| !inspected.routes.iter().any(|route| route.name == Some(name)))
    {
        inspected.findings.push(Finding::of_file(format!("no route is named {name:?}")));
    }
    if !inspected.findings.is_empty() {
        write_all(&file, &inspected.findings, complaints)?;
        return Ok(false);
    }
    let all = explain(&file, &inspected, args);
    match args.format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *to, &all)?;
            writeln!(to)?;
        }
        Format::Text => {
            all.filters.iter().try_for_each(|explanation| writeln!(to, "{explanation}"))?;
            all.notes.iter().try_for_each(|note| writeln!(to, "note: {note}"))?;
        }
    }
    Ok(true)
}

fn explain(file: &File, inspected: &Inspected<'_>, args: &ExplainArgs) -> All {
    let described = Described::new(&args.request, &args.headers, args.from, &args.attributes);
    let mut filters = Vec::new();
    let mut notes = Vec::new();
    for (filter, policies) in &inspected.filters {
        let (Some(policies), Some(written)) = (policies, &filter.configuration) else { continue };
        let mut request = described.clone();
        let mut routes = inspected.routes.iter().filter(|route| route.is_heard_by(filter));
        match &args.route {
            // Of another connection manager, perhaps: then this filter never gets its requests.
            Some(name) => match routes.find(|route| route.name == Some(name)) {
                Some(route) => route::take(&mut request, name, route.metadata),
                None => continue,
            },
            None => {
                notes.extend(routes.find(|route| route.metadata.is_some()).map(|route| unknown(file, route)))
            }
        }
        if policies.uses_client_address() && !request.knows(CLIENT_ADDRESS) {
            notes.push("the client's address is not known; tell it by --from".to_owned());
        }
        filters.push(Explanation {
            line: file.source.position(filter.at.start).0,
            name: filter.name.map(str::to_owned),
            ..Explanation::new(policies, &written.to_json(), &request)
        });
    }
    notes.sort();
    notes.dedup();
    All { filters, notes }
}

fn unknown(file: &File, route: &Route<'_>) -> String {
    let (line, _) = file.source.position(route.at.start);
    format!(
        "it is not known which route the request takes, and that on line {line} says more; name one by --route"
    )
}
