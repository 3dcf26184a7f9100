//! What a replay has found, for people and for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use policy::{Mode, Policies};
use serde::Serialize;

use super::tally::{OfPolicy, Tally};
use crate::check::finding::Shown;
use crate::quoted::Quoted;

/// The whole replay.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Lines that were read, but for empty ones.
    pub lines: u64,
    /// Those that could not be.
    pub unreadable: u64,
    /// Those that began before the one above them: they were decided at the time of that one.
    pub late: u64,
    /// Each Sluice filter of the configuration.
    pub filters: Vec<OfFilter>,
    /// What is to be known besides.
    pub notes: Vec<String>,
}

/// One filter.
#[derive(Debug, Serialize)]
pub struct OfFilter {
    line: usize,
    domain: String,
    requests: u64,
    /// Those that a policy governs.
    governed: u64,
    would_have_denied: u64,
    share_percent: f64,
    /// Those for which some policy was not judged.
    partly_judged: u64,
    first: Option<String>,
    last: Option<String>,
    policies: Vec<PolicyReport>,
    /// The keys that would have been denied most.
    top_denied: Vec<TopKey>,
    /// Whether these counts may be too low, since there were too many keys.
    top_is_approximate: bool,
}

#[derive(Debug, Serialize)]
struct PolicyReport {
    name: String,
    limits: Vec<String>,
    mode: &'static str,
    matched: u64,
    would_have_denied: u64,
    share_percent: f64,
    worst_minute: Option<WorstMinute>,
    not_judged: u64,
    /// What the log does not tell, and for how many requests.
    not_told: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct WorstMinute {
    start: String,
    denied: u64,
}

#[derive(Debug, Serialize)]
struct TopKey {
    policy: String,
    key: String,
    denied: u64,
}

impl OfFilter {
    /// What came of the requests of the filter on that line of the configuration.
    pub fn new(line: usize, policies: &Policies, tally: &Tally, top: usize) -> Self {
        let name = |place: usize| policies.iter().nth(place).map_or("", policy::Policy::name).to_owned();
        let top_denied = tally.top(top).into_iter().map(|(place, key, denied)| TopKey {
            policy: name(place),
            key: key.to_owned(),
            denied,
        });
        Self {
            line,
            domain: policies.domain().to_owned(),
            requests: tally.requests,
            governed: tally.governed,
            would_have_denied: tally.denied,
            share_percent: percent(tally.denied, tally.requests),
            partly_judged: tally.partly_judged,
            first: tally.span_us.map(|(first_us, _)| time(first_us)),
            last: tally.span_us.map(|(_, last_us)| time(last_us)),
            policies: policies
                .iter()
                .zip(&tally.policies)
                .map(|(policy, of)| of_policy(policy, of))
                .collect(),
            top_denied: top_denied.collect(),
            top_is_approximate: tally.forgot_keys,
        }
    }
}

fn of_policy(policy: &policy::Policy, of: &OfPolicy) -> PolicyReport {
    let worst =
        of.worst_minute.map(|minute| WorstMinute { start: time(minute.start_us), denied: minute.denied });
    let mode = match policy.mode() {
        Mode::Off => "off",
        Mode::Shadow => "shadow",
        Mode::Enforce if of.in_shadow > 0 => "partly_enforced",
        Mode::Enforce => "enforce",
    };
    PolicyReport {
        name: policy.name().to_owned(),
        limits: policy.limits().iter().map(|named| named.text.clone()).collect(),
        mode,
        matched: of.decided,
        would_have_denied: of.denied,
        share_percent: percent(of.denied, of.decided),
        worst_minute: worst,
        not_judged: of.not_judged,
        not_told: of.untold.clone(),
    }
}

/// With two decimals.
fn percent(part: u64, whole: u64) -> f64 {
    let hundredths = (u128::from(part) * 10_000 + u128::from(whole) / 2).checked_div(u128::from(whole));
    u32::try_from(hundredths.unwrap_or_default()).map_or(0.0, |hundredths| f64::from(hundredths) / 100.0)
}

/// Microseconds since 1970 as RFC 3339, in milliseconds.
fn time(us: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_micros(us)).to_string()
}

impl Report {
    /// For people.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        for filter in &self.filters {
            filter.write(to)?;
        }
        let read = self.lines - self.unreadable;
        writeln!(to, "{read} of {} lines were read", self.lines)?;
        self.notes.iter().try_for_each(|note| writeln!(to, "note: {}", Shown(note)))
    }
}

impl OfFilter {
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "The filter on line {}, domain {}:", self.line, Shown(&self.domain))?;
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            writeln!(to, "  {} requests from {first} to {last}", self.requests)?;
        }
        writeln!(to, "  {} would have been denied ({:.2} %)", self.would_have_denied, self.share_percent)?;
        if self.partly_judged > 0 {
            writeln!(to, "  {} were not judged by all of their policies", self.partly_judged)?;
        }
        let width = self.policies.iter().map(|policy| policy.name.len()).max().unwrap_or_default().max(6);
        writeln!(
            to,
            "\n  {:width$}  {:>12}  {:>12}  {:>8}  worst minute",
            "policy", "matched", "denied", "share"
        )?;
        for policy in &self.policies {
            policy.write(to, width)?;
        }
        if !self.top_denied.is_empty() {
            let about = if self.top_is_approximate {
                " (at least; there were too many keys to count all)"
            } else {
                ""
            };
            writeln!(to, "\n  Denied most{about}:")?;
        }
        for top in &self.top_denied {
            let all = if top.key.is_empty() { " (one for all)" } else { "" };
            writeln!(to, "  {:>12}  {:width$}  {}{all}", top.denied, top.policy, Quoted(&top.key))?;
        }
        writeln!(to)
    }
}

impl PolicyReport {
    fn write(&self, to: &mut impl Write, width: usize) -> io::Result<()> {
        let (name, matched, denied, share) =
            (&self.name, self.matched, self.would_have_denied, self.share_percent);
        write!(to, "  {name:width$}  {matched:>12}  {denied:>12}  {share:>6.2} %")?;
        match &self.worst_minute {
            Some(worst) => write!(to, "  {} in {}", worst.denied, worst.start)?,
            None => write!(to, "  -")?,
        }
        match self.mode {
            "off" => writeln!(to, "; it is off, so it decides nothing")?,
            "shadow" => writeln!(to, "; it is in shadow, so nothing is denied")?,
            "partly_enforced" => writeln!(to, "; it is enforced in part, so fewer are denied")?,
            _ => writeln!(to)?,
        }
        if self.not_judged > 0 {
            writeln!(
                to,
                "  {:width$}  not judged for {} requests: the log does not tell",
                "", self.not_judged
            )?;
        }
        for (what, requests) in &self.not_told {
            writeln!(to, "  {:width$}    {} ({requests})", "", Shown(what))?;
        }
        Ok(())
    }
}
