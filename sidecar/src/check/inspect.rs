//! One file: what is in it, and everything that is to be said about it.

use std::fs;
use std::io::{self, Read};

use policy::{Policies, Problem};

use super::find::{self, Filter, Found, Route};
use super::finding::{Finding, Severity};
use super::{place, routes, traps};
use crate::document::{Documents, Mistake, Node, Source, Span, Value, embedded, json, yaml};

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A file, as far as it could be read.
#[derive(Debug)]
pub struct File {
    /// As it was named on the command line.
    pub name: String,
    /// Its text.
    pub source: Source,
    documents: Vec<Node>,
    findings: Vec<Finding>,
}

/// What is in a file, and everything that is to be said about it.
#[derive(Debug)]
pub struct Inspected<'a> {
    /// Its Sluice filters, and the policies of those whose configuration is valid.
    pub filters: Vec<(Filter<'a>, Option<Policies>)>,
    /// The routes that have a name, or metadata for Sluice.
    pub routes: Vec<Route<'a>>,
    /// Wasm filters that are somebody else's.
    pub others: usize,
    /// In the order of the file.
    pub findings: Vec<Finding>,
}

impl Inspected<'_> {
    /// Whether the file has nothing to do with Sluice, as far as it could be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let says_nothing = self.routes.iter().all(|route| route.metadata.is_none());
        self.filters.is_empty() && says_nothing && !self.findings.iter().any(Finding::is_error)
    }

    /// That the file has no Sluice filter, and what was looked for.
    #[must_use]
    pub fn none_found(&self) -> String {
        let looked_for = "no Sluice filter was found: neither a Wasm filter whose configuration has `policies` or `sidecar`, or \
             that is named so, nor a WasmPlugin, an EnvoyExtensionPolicy or bare policies";
        match self.others {
            0 => looked_for.to_owned(),
            1 => format!("{looked_for}; the one Wasm filter in it is another"),
            others => format!("{looked_for}; the {others} Wasm filters in it are others"),
        }
    }
}

impl File {
    /// Reads the file of this name, or for `-` the standard input.
    #[must_use]
    pub fn read(name: &str) -> Self {
        let named = if name == "-" { "<stdin>" } else { name };
        match text(name) {
            Ok(text) => Self::of_text(named, text),
            Err(reason) => Self {
                name: named.to_owned(),
                source: Source::new(String::new()),
                documents: Vec::new(),
                findings: vec![Finding::of_file(reason)],
            },
        }
    }

    /// Takes the text as that of a file of this name, which tells JSON by its end.
    #[must_use]
    pub fn of_text(name: &str, text: String) -> Self {
        let source = Source::new(text);
        let is_json = name.to_ascii_lowercase().ends_with(".json");
        let mut documents = if is_json { json::read(source.text()) } else { yaml::read(source.text()) };
        let mut inner = Documents::default();
        documents.roots.iter().for_each(|root| config_maps(&source, root, &mut inner));
        documents.roots.extend(inner.roots);
        documents.mistakes.extend(inner.mistakes);
        documents.roots.retain(|root| root.value != Value::Null);
        let mut findings: Vec<Finding> = documents.mistakes.into_iter().map(Mistake::into).collect();
        if documents.roots.is_empty() && findings.is_empty() {
            findings.push(Finding::of_file("the file is empty"));
        }
        findings.extend(unread_documents(&documents.roots));
        Self { name: name.to_owned(), source, documents: documents.roots, findings }
    }

    /// Looks at everything in it.
    #[must_use]
    pub fn inspect(&self) -> Inspected<'_> {
        let mut found = Found::default();
        for root in &self.documents {
            find::find(&self.source, root, &mut found);
        }
        let Found { filters, routes, others, findings } = found;
        let mut findings = [self.findings.clone(), findings].concat();
        findings.extend(traps::shared_vms(&filters));
        let filters: Vec<_> =
            filters.into_iter().map(|filter| with_policies(filter, &mut findings)).collect();
        filters.iter().for_each(|(filter, _)| findings.extend(traps::around(filter)));
        let valid = || filters.iter().filter_map(|(filter, policies)| Some((filter, policies.as_ref()?)));
        routes.iter().for_each(|route| findings.extend(routes::check(route, valid())));
        valid().for_each(|(filter, policies)| findings.extend(routes::unchosen(filter, policies, &routes)));
        findings.sort_by_key(|finding| (finding.at, finding.message.clone()));
        // A filter that stands in several places by an alias is told about once.
        findings.dedup();
        Inspected { filters, routes, others, findings }
    }
}

fn with_policies<'a>(filter: Filter<'a>, findings: &mut Vec<Finding>) -> (Filter<'a>, Option<Policies>) {
    let Some(configuration) = &filter.configuration else { return (filter, None) };
    let policies = match Policies::from_value(configuration.to_json()) {
        Ok(policies) => policies,
        Err(problems) => {
            findings.extend(problems.iter().map(|problem| told(Severity::Error, configuration, problem)));
            return (filter, None);
        }
    };
    findings
        .extend(policies.warnings().iter().map(|problem| told(Severity::Warning, configuration, problem)));
    (filter, Some(policies))
}

fn told(severity: Severity, configuration: &Node, problem: &Problem) -> Finding {
    let at = place::of(configuration, &problem.place, &problem.message);
    Finding { severity, at: Some(at), message: problem.to_string(), note: None }
}

fn text(name: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = |from: &mut dyn Read, bytes: &mut Vec<u8>| from.take(MAX_FILE_BYTES + 1).read_to_end(bytes);
    let done = if name == "-" {
        read(&mut io::stdin().lock(), &mut bytes)
    } else {
        fs::File::open(name).and_then(|mut file| read(&mut file, &mut bytes))
    };
    done.map_err(|error| format!("it cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {} MiB; a configuration has less", MAX_FILE_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|&&byte| byte == b'\n').count() + 1;
        format!("it is not UTF-8: line {line} has a byte that belongs to no letter")
    })
}

/// The files within ConfigMaps that speak of Sluice; others may be anything.
fn config_maps(source: &Source, root: &Node, to: &mut Documents) {
    match root.get("kind").and_then(Node::text) {
        Some("ConfigMap") => {}
        // What `kubectl get` prints of several.
        Some("List" | "ConfigMapList") => {
            let items = root.get("items").map(Node::items).unwrap_or_default();
            return items.iter().for_each(|item| config_maps(source, item, to));
        }
        _ => return,
    }
    for field in root.get("data").map(Node::fields).unwrap_or_default() {
        let name = field.name.to_ascii_lowercase();
        let Some(text) = field.node.text() else { continue };
        let has = |words: &[&str]| words.iter().all(|word| text.contains(word));
        let is_envoys = has(&["http.wasm.v3.Wasm"]) || has(&["filter_metadata", "sluice"]);
        let is_named = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
        // Words of every file of bare policies.
        let may_be_bare = is_named && has(&["sidecar", "cluster", "policies", "limit"]);
        if !is_envoys && !may_be_bare {
            continue;
        }
        let read = if name.ends_with(".json") { json::read } else { yaml::read };
        let Documents { mut roots, mistakes } = embedded::read(source, field.node.at, text, read);
        // Other programs have a `sidecar` or `policies`, too.
        let is_bare = |root: &Node| root.get("sidecar").is_some() && root.get("policies").is_some();
        roots.retain(|root| is_envoys || is_bare(root));
        to.roots.extend(roots);
        to.mistakes.extend(mistakes);
    }
}

/// Envoy reads the first document of a file, and says nothing about the others.
fn unread_documents(roots: &[Node]) -> Option<Finding> {
    let is_envoys = |root: &Node| root.get("kind").is_none() && root.get("apiVersion").is_none();
    let second: &Node = roots.get(1).filter(|_| roots.first().is_some_and(is_envoys))?;
    let message = "found a second document; Envoy reads only the first of a file";
    Some(Finding::warning(Span { end: second.shown().start + 1, ..second.shown() }, message))
}
