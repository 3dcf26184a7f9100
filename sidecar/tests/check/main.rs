//! What `sluice check` says about files: in which words, at which place, and where it keeps silent.

mod homes;
mod program;
mod report;
mod traps;

use sluice::check::{finding::Finding, inspect::File, write_all};

/// Everything that is said about a file of this name, without colours.
fn said_of(name: &str, text: &str) -> String {
    let file = File::of_text(name, text.to_owned());
    let mut inspected = file.inspect();
    if inspected.is_empty() {
        inspected.findings.push(Finding::of_file(inspected.none_found()));
    }
    let mut written = anstream::StripStream::new(Vec::new());
    write_all(&file, &inspected.findings, &mut written).expect("a vector takes all");
    String::from_utf8(written.into_inner()).expect("text")
}

fn said(text: &str) -> String {
    said_of("envoy.yaml", text)
}

/// The lines that say what is wrong, without those that show it.
fn headlines(text: &str) -> Vec<String> {
    let said = said(text);
    said.lines().filter(|line| line.starts_with("envoy.yaml:")).map(str::to_owned).collect()
}

/// A whole configuration of Envoy that is right, in few lines.
const ENVOY: &str = include_str!("envoy.yaml");

/// The same with one thing changed, everywhere it stands.
fn envoy_with(from: &str, to: &str) -> String {
    replace(ENVOY, from, to)
}

fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the file");
    text.replace(from, to)
}

/// Policies that are right, as JSON.
const RIGHT: &str =
    r#"{"sidecar": {"cluster": "sluice"}, "policies": [{"name": "a", "key": [], "limit": "5/min"}]}"#;

/// The same without the end of the limit.
const WRONG: &str =
    r#"{"sidecar": {"cluster": "sluice"}, "policies": [{"name": "a", "key": [], "limit": "5/mi"}]}"#;
