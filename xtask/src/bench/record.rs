//! What was measured, as it is kept in JSON: everything that tables, charts and ratios are made of.

use serde::{Deserialize, Serialize};

/// One run of `cargo xtask bench`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it was measured on.
    pub machine: Machine,
    /// Measurements of each row, of which the medians are told.
    pub rounds: u32,
    /// Seconds of load in each.
    pub seconds: u32,
    /// One for each load and variant, in the order of measuring.
    pub rows: Vec<Row>,
}

/// What it was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor cores.
    pub cores: usize,
    /// Envoy's version.
    pub envoy: String,
    /// Redis's, where it takes part.
    pub redis: Option<String>,
    /// The load average of the last minute before it began: what else the machine did.
    pub load_average_before: f64,
}

/// The medians of one variant under one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The variant's name.
    pub variant: String,
    /// The load that it was under.
    pub load: Load,
    /// Answers per second, against those of Envoy alone.
    pub ratio_to_envoy: f64,
    /// The medians.
    #[serde(flatten)]
    pub median: Sample,
}

/// How requests were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// So many connections, each of which sends its next request once it has its answer: a closed loop.
    Connections(u32),
    /// So many requests per second at random instants, whether or not earlier ones have their answers: an open loop.
    RatePerSecond(u32),
}

/// What one measurement told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Answers per second.
    pub per_second: f64,
    /// The median latency, in microseconds.
    pub p50_us: f64,
    /// The latency that one request in ten exceeds, in microseconds.
    pub p90_us: f64,
    /// The latency that one request in a hundred exceeds, in microseconds.
    pub p99_us: f64,
    /// The latency that one request in a thousand exceeds, in microseconds.
    pub p999_us: f64,
    /// Processor time per request.
    pub cpu_us: Cpu,
    /// The share of the requests that had no answer in time; above 0 only in an open loop that is too fast.
    pub unanswered: f64,
    /// The share of the answers that leases paid for.
    #[serde(default)]
    pub leased: f64,
}

/// Processor time per request by process, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Envoy.
    pub envoy: f64,
    /// The sidecars.
    pub sidecar: f64,
    /// The Redis that the bench started.
    pub redis: f64,
    /// The processes that `--rls-pid` named.
    pub other: f64,
}

impl Record {
    /// The row of a variant under a load, where it was measured.
    pub fn row(&self, variant: &str, load: Load) -> Option<&Row> {
        self.rows.iter().find(|row| row.variant == variant && row.load == load)
    }

    /// The loads of a kind, in the order of measuring.
    pub fn loads(&self, of_kind: impl Fn(Load) -> bool) -> Vec<Load> {
        let mut loads: Vec<Load> =
            self.rows.iter().map(|row| row.load).filter(|load| of_kind(*load)).collect();
        loads.dedup();
        loads
    }

    /// The variants, in the order of measuring.
    pub fn variants(&self) -> Vec<&str> {
        let first = self.rows.first().map(|row| row.load);
        let of_first = self.rows.iter().filter(|row| Some(row.load) == first);
        of_first.map(|row| row.variant.as_str()).collect()
    }
}

impl Cpu {
    /// Of all processes together.
    pub fn sum(&self) -> f64 {
        self.envoy + self.sidecar + self.redis + self.other
    }
}

impl Sample {
    /// The median of each figure for itself: they may be of different rounds.
    pub fn median(samples: &[Self]) -> Self {
        let of = |figure: &dyn Fn(&Self) -> f64| median(samples.iter().map(figure).collect());
        Self {
            per_second: of(&|sample| sample.per_second),
            p50_us: of(&|sample| sample.p50_us),
            p90_us: of(&|sample| sample.p90_us),
            p99_us: of(&|sample| sample.p99_us),
            p999_us: of(&|sample| sample.p999_us),
            cpu_us: Cpu {
                envoy: of(&|sample| sample.cpu_us.envoy),
                sidecar: of(&|sample| sample.cpu_us.sidecar),
                redis: of(&|sample| sample.cpu_us.redis),
                other: of(&|sample| sample.cpu_us.other),
            },
            unanswered: of(&|sample| sample.unanswered),
            leased: of(&|sample| sample.leased),
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_load_is_written_by_its_kind() {
        let written = serde_json::to_string(&[Load::Connections(64), Load::RatePerSecond(5000)]).unwrap();
        assert_eq!(written, r#"[{"connections":64},{"rate_per_second":5000}]"#);
    }
}
