//! The charts of docs/performance.md, with what they show in words for those who do not see them.

use super::{
    chart::{Chart, Layout},
    record::{Load, Record, Row},
    tables::{is_closed, load, percent, thousands},
};
use crate::Failure;

/// A chart of the page.
pub struct Drawn {
    /// Its file in docs/performance/.
    pub file: &'static str,
    /// What it shows, in words.
    pub alternative: String,
    /// The file's content.
    pub svg: String,
}

/// Answers per second against Envoy alone, by connections.
pub fn throughput(record: &Record) -> Result<Drawn, Failure> {
    let loads = record.loads(is_closed);
    let figure = |row: &Row| row.ratio_to_envoy * 100.0;
    let chart = Chart {
        title: "Requests per second, against Envoy alone",
        layout: Layout::Grouped,
        legend: loads.iter().map(|one| load(*one)).collect(),
        lines: lines(record, &loads, |row| vec![figure(row)]),
        written: |figure| format!("{figure:.0}%"),
    };
    let last = loads.last().copied();
    drawn("throughput.svg", &chart, "Requests per second against Envoy alone", record, last, |row| {
        percent(row.ratio_to_envoy)
    })
}

/// Processor time per request by process.
pub fn cpu(record: &Record) -> Result<Drawn, Failure> {
    let at = reference(record);
    let has_service = record.rows.iter().any(|row| row.median.cpu_us.other > 0.0);
    let parts = if has_service { 4 } else { 3 };
    let chart = Chart {
        title: &format!("Processor time per request at {}, µs", at.map(load).unwrap_or_default()),
        layout: Layout::Stacked,
        legend: ["Envoy", "sidecar", "Redis", "rate-limit service"][..parts]
            .iter()
            .map(ToString::to_string)
            .collect(),
        lines: lines(record, at.as_slice(), |row| {
            let cpu = &row.median.cpu_us;
            [cpu.envoy, cpu.sidecar, cpu.redis, cpu.other][..parts].to_vec()
        }),
        written: |figure| format!("{figure:.1}"),
    };
    drawn("cpu.svg", &chart, "Processor time per request of all processes", record, at, |row| {
        format!("{:.0} µs", row.median.cpu_us.sum())
    })
}

/// The latency of a lone client.
pub fn latency(record: &Record) -> Result<Drawn, Failure> {
    let at = record.loads(is_closed).first().copied();
    let chart = Chart {
        title: &format!("Latency at {}, µs", at.map(load).unwrap_or_default()),
        layout: Layout::Grouped,
        legend: ["median", "99th percentile"].map(str::to_owned).to_vec(),
        lines: lines(record, at.as_slice(), |row| vec![row.median.p50_us, row.median.p99_us]),
        written: thousands,
    };
    drawn("latency.svg", &chart, "Median latency", record, at, |row| {
        format!("{} µs", thousands(row.median.p50_us))
    })
}

/// The latencies of the slowest open loop, of the variants that kept up with it.
pub fn open_loop(record: &Record) -> Result<Option<Drawn>, Failure> {
    let Some(at) = record.loads(|load| !is_closed(load)).first().copied() else { return Ok(None) };
    let mut kept_up = record.clone();
    kept_up.rows.retain(|row| row.load == at && row.median.unanswered == 0.0);
    let chart = Chart {
        title: &format!("Latency when {} are due, µs", load(at)),
        layout: Layout::Grouped,
        legend: ["median", "90th percentile", "99th percentile"].map(str::to_owned).to_vec(),
        lines: lines(&kept_up, &[at], |row| vec![row.median.p50_us, row.median.p90_us, row.median.p99_us]),
        written: thousands,
    };
    drawn("open-loop.svg", &chart, "Median latency in the open loop", &kept_up, Some(at), |row| {
        format!("{} µs", thousands(row.median.p50_us))
    })
    .map(Some)
}

/// The load that most figures are compared under: 64 connections, or the last that was measured.
fn reference(record: &Record) -> Option<Load> {
    let loads = record.loads(is_closed);
    loads.iter().copied().find(|load| *load == Load::Connections(64)).or(loads.last().copied())
}

/// A line for each variant, with the figures of each load.
fn lines(record: &Record, loads: &[Load], figures: impl Fn(&Row) -> Vec<f64>) -> Vec<(String, Vec<f64>)> {
    let of = |variant: &str| {
        loads.iter().filter_map(|load| record.row(variant, *load)).flat_map(&figures).collect()
    };
    record.variants().into_iter().map(|variant| (variant.to_owned(), of(variant))).collect()
}

fn drawn(
    file: &'static str,
    chart: &Chart,
    what: &str,
    record: &Record,
    at: Option<Load>,
    said: impl Fn(&Row) -> String,
) -> Result<Drawn, Failure> {
    let rows = record.rows.iter().filter(|row| Some(row.load) == at);
    let said: Vec<String> = rows.map(|row| format!("{} {}", row.variant, said(row))).collect();
    let alternative = format!("{what} at {}: {}", at.map(load).unwrap_or_default(), said.join(", "));
    Ok(Drawn { file, alternative, svg: chart.svg()? })
}
