//! `sluice check`: what is wrong with a configuration, and what is hardly meant, with the filter's own code.

mod configuration;
pub mod find;
pub mod finding;
pub mod inspect;
mod place;
mod routes;
pub mod traps;

use std::io::{self, Write};

use finding::{Finding, Shown};
use inspect::File;

use crate::document::Source;

/// The most that is said about one file.
const MAX_FINDINGS: usize = 100;

/// What was said about all files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files that were looked at.
    pub files: usize,
    /// Sluice filters in them.
    pub filters: usize,
    /// Policies in these.
    pub policies: usize,
    /// Errors that were found.
    pub errors: usize,
    /// Warnings.
    pub warnings: usize,
}

/// Checks files of these names, `-` being the standard input, and writes what is to be said about them.
///
/// # Errors
///
/// Where nothing can be written.
pub fn run(names: &[String], to: &mut impl Write) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut without = Vec::new();
    for name in names {
        let file = File::read(name);
        let inspected = file.inspect();
        let written = inspected.filters.iter().filter_map(|(filter, _)| filter.configuration.as_ref());
        outcome.files += 1;
        outcome.filters += inspected.filters.len();
        outcome.policies += written
            .map(|written| written.get("policies").map_or(0, |policies| policies.items().len()))
            .sum::<usize>();
        let errors = inspected.findings.iter().filter(|finding| finding.is_error()).count();
        outcome.errors += errors;
        outcome.warnings += inspected.findings.len() - errors;
        write_all(&file, &inspected.findings, to)?;
        if inspected.is_empty() {
            without.push((file.name.clone(), inspected.none_found()));
        }
    }
    // Files that have nothing to do with Sluice may be among others, but not alone.
    if without.len() == names.len() {
        outcome.errors += without.len();
        for (name, message) in without {
            Finding::of_file(message).write(&name, &Source::new(String::new()), to)?;
        }
    }
    writeln!(to, "{outcome}")?;
    Ok(outcome)
}

/// Writes what was found in a file, in the order of the file.
pub fn write_all(file: &File, findings: &[Finding], to: &mut impl Write) -> io::Result<()> {
    for finding in findings.iter().take(MAX_FINDINGS) {
        finding.write(&file.name, &file.source, to)?;
    }
    let more = findings.len().saturating_sub(MAX_FINDINGS);
    if more > 0 {
        writeln!(to, "{}: and {more} more", Shown(&file.name))?;
    }
    Ok(())
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let looked_at = [
            counted(self.files, "file", "files"),
            counted(self.filters, "Sluice filter", "Sluice filters"),
            counted(self.policies, "policy", "policies"),
        ];
        let found = match (self.errors, self.warnings) {
            (0, 0) => "no problems".to_owned(),
            (errors, 0) => counted(errors, "error", "errors"),
            (0, warnings) => counted(warnings, "warning", "warnings"),
            (errors, warnings) => {
                counted(errors, "error", "errors") + " and " + &counted(warnings, "warning", "warnings")
            }
        };
        write!(f, "{}: {found}", looked_at.join(", "))
    }
}

fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}
