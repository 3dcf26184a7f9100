//! `sluice replay`: what a configuration would have denied of the requests in an access log, by the filter's own code and
//! the algorithm of its buckets, at the log's own times.
//!
//! ```text
//! input ── a line ──▶ line ── columns ──▶ seen ── Policies::asks ──▶ buckets ──▶ tally ──▶ report
//! ```

pub mod args;
mod buckets;
mod columns;
mod input;
mod judge;
mod line;
mod report;
mod routes;
mod seen;
mod tally;
mod time;

use std::io::{self, Write};
use std::time::Duration;

use indicatif::ProgressBar;

use self::args::ReplayArgs;
use self::columns::{Columns, TIME};
use self::input::Next;
use self::judge::Judge;
use self::line::{Line, Unreadable};
use self::report::{OfFilter, Report};
use crate::check::finding::{Finding, Shown, ShownJson};
use crate::check::inspect::{File, Inspected};
use crate::check::write_all;
use crate::command::Format;

/// So many lines that cannot be read are told of one by one.
const MAX_TOLD: u64 = 5;

/// Replays the logs, and writes what is wrong with them or with the configuration to `complaints`; whether all went well.
///
/// # Errors
///
/// Where nothing can be written.
pub fn run(args: &ReplayArgs, to: &mut impl Write, complaints: &mut impl Write) -> io::Result<bool> {
    let file = File::read(&args.config);
    let mut inspected = file.inspect();
    inspected.findings.retain(Finding::is_error);
    if inspected.filters.is_empty() && inspected.findings.is_empty() {
        inspected.findings.push(Finding::of_file(inspected.none_found()));
    }
    if !inspected.findings.is_empty() {
        write_all(&file, &inspected.findings, complaints)?;
        return Ok(false);
    }
    let judges = judges(&file, &mut inspected);
    let mut replay = Replay {
        judges,
        columns: Columns::new(&args.fields),
        lines: 0,
        unreadable: 0,
        late: 0,
        latest_by_us: 0,
        at_us: 0,
    };
    let progress = input::progress(&args.logs);
    let mut all_read = true;
    for log in &args.logs {
        if let Err(error) = replay.log(log, &progress, complaints) {
            all_read = false;
            progress
                .suspend(|| writeln!(complaints, "sluice: {}: it cannot be read: {error}", Shown(log)))?;
        }
    }
    progress.finish_and_clear();
    let failed = replay.lines > 0 && replay.unreadable == replay.lines;
    if failed {
        writeln!(complaints, "sluice: not a single line could be read")?;
    }
    let well = all_read && !failed && (!args.strict || replay.unreadable == 0);
    let report = replay.report(usize::from(args.top));
    match args.format {
        Format::Json => writeln!(to, "{}", ShownJson(&serde_json::to_string_pretty(&report)?))?,
        Format::Text => report.write(to)?,
    }
    Ok(well)
}

/// One for each filter, with the line on which it stands.
fn judges(file: &File, inspected: &mut Inspected<'_>) -> Vec<(usize, Judge)> {
    let filters = std::mem::take(&mut inspected.filters).into_iter();
    let judge = |(filter, policies): (crate::check::find::Filter<'_>, _)| {
        let line = file.source.position(filter.at.start).0;
        Some((line, Judge::new(&filter, policies?, &inspected.routes)))
    };
    filters.filter_map(judge).collect()
}

/// A replay under way.
struct Replay {
    judges: Vec<(usize, Judge)>,
    columns: Columns,
    lines: u64,
    unreadable: u64,
    late: u64,
    /// By how much the latest of them was late.
    latest_by_us: u64,
    /// The latest time so far: buckets never go back.
    at_us: u64,
}

impl Replay {
    fn log(&mut self, log: &str, progress: &ProgressBar, complaints: &mut impl Write) -> io::Result<()> {
        let mut lines = input::open(log, progress)?;
        let mut number = 0_u64;
        while let Some(next) = lines.next()? {
            number += 1;
            let read = match next {
                Next::Line([]) => continue,
                Next::Line(line) => self.line(line),
                Next::TooLong => Err(Unreadable::TooLong),
            };
            self.lines += 1;
            let Err(why) = read else { continue };
            self.unreadable += 1;
            if self.unreadable <= MAX_TOLD {
                let name = Shown(log);
                progress.suspend(|| {
                    writeln!(complaints, "sluice: {name}:{number}: this line is left out: {why}")
                })?;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Unreadable> {
        let line = line::read(line, &mut self.columns)?;
        let at_us = began_us(&line, &self.columns)?;
        self.late += u64::from(at_us < self.at_us);
        self.latest_by_us = self.latest_by_us.max(self.at_us.saturating_sub(at_us));
        self.at_us = self.at_us.max(at_us);
        for (_, judge) in &mut self.judges {
            judge.judge(&line, &self.columns, self.lines, self.at_us);
        }
        Ok(())
    }

    fn report(&self, top: usize) -> Report {
        let filters = self.judges.iter();
        let filters = filters.map(|(line, judge)| OfFilter::new(*line, judge.policies(), &judge.tally, top));
        Report {
            lines: self.lines,
            unreadable: self.unreadable,
            late: self.late,
            filters: filters.collect(),
            notes: self.notes(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |count: u64, text: &str| {
            if count > 0 {
                notes.push(format!("{count} {text}"));
            }
        };
        note(self.unreadable, "lines could not be read, and are not among the requests");
        let by = humantime::format_duration(Duration::from_millis(self.latest_by_us.div_ceil(1_000)));
        note(
            self.late,
            &format!(
                "requests began before one above them, by {by} at most, and were decided at the time of that one"
            ),
        );
        for (_, judge) in &self.judges {
            let tally = &judge.tally;
            note(tally.too_many, "requests have more limits than can be asked at once; on_error would apply");
            note(
                tally.route_unknown,
                "requests may have taken a route that switches the filter off or on, but the log does not tell it (route_name)",
            );
            for (what, requests) in &tally.not_settled {
                note(
                    *requests,
                    &format!("requests were not settled or refunded in full: the log does not tell {what}"),
                );
            }
        }
        notes
    }
}

/// When the request of a line began.
fn began_us(line: &Line<'_>, columns: &Columns) -> Result<u64, Unreadable> {
    let told = columns.find(TIME).and_then(|place| line.values.get(place)?.as_ref()?.as_deref());
    let told = std::str::from_utf8(told.ok_or(Unreadable::NoTime)?).map_err(|_| Unreadable::BadTime)?;
    time::parse(told).ok_or(Unreadable::BadTime)
}
