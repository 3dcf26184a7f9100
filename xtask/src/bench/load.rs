//! One measurement: wrk against a fleet, and the processor time that each process spent on it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    str,
};

use fleet::{Process, RunDir};
use serde_json::Value;

use super::variants::{Expect, Running};
use crate::Failure;

/// Distinct API keys, in turn. Requests are made before the load, so that the making is not measured.
const SCRIPT: &str = r#"-- Written by `cargo xtask bench`: 1,000 API keys in turn, and the outcome as one line of JSON.
local requests, next_request = {}, 0

function init(args)
  for key = 1, 1000 do
    requests[key] = wrk.format("GET", "/", { ["x-api-key"] = "key-" .. key })
  end
end

function request()
  next_request = next_request % 1000 + 1
  return requests[next_request]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"socket_errors":%d,"statuses":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.timeout, e.status))
end
"#;

/// The program that makes the load, and its script.
pub struct Load {
    wrk: PathBuf,
    script: PathBuf,
    /// Holds the script.
    _run: RunDir,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Answers per second.
    pub per_second: f64,
    /// The median latency, in microseconds.
    pub p50_us: f64,
    /// The latency that one request in a hundred exceeds, in microseconds.
    pub p99_us: f64,
    /// Processor time of Envoy, sidecars and Redis per request, in microseconds.
    pub cpu_us: [f64; 3],
}

impl Load {
    /// Writes the script.
    pub fn new(wrk: PathBuf, run: &RunDir) -> Result<Self, Failure> {
        Ok(Self { wrk, script: run.write("bench.lua", SCRIPT)?, _run: run.clone() })
    }

    /// Loads one fleet for a second, so that connections are made and every key has its bucket.
    pub fn warm_up(&self, one: &Running, connections: u32) -> Result<(), Failure> {
        self.wrk(one, connections, 1).map(drop)
    }

    /// Loads one fleet for some seconds.
    pub fn run(&self, one: &Running, connections: u32, seconds: u32) -> Result<Sample, Failure> {
        let before = cpu_us(one)?;
        let said = self.wrk(one, connections, seconds)?;
        let after = cpu_us(one)?;
        let number = |name: &str| said[name].as_f64().ok_or_else(|| format!("wrk told no {name}: {said}"));
        let requests = number("requests")?;
        check(one, requests, number("socket_errors")?, number("statuses")?)?;
        Ok(Sample {
            per_second: requests * 1e6 / number("duration_us")?,
            p50_us: number("p50_us")?,
            p99_us: number("p99_us")?,
            cpu_us: [0, 1, 2].map(|part| after[part].saturating_sub(before[part]) as f64 / requests),
        })
    }

    /// What the script's `done` tells.
    fn wrk(&self, one: &Running, connections: u32, seconds: u32) -> Result<Value, Failure> {
        let output = Command::new(&self.wrk)
            .args(["--threads", "1", "--connections", &connections.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--timeout", "5s", "--script"])
            .arg(&self.script)
            .arg(one.fleet.envoy(0).url())
            .stdin(Stdio::null())
            .output()?;
        let text = str::from_utf8(&output.stdout)?;
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        let Some(line) = line.filter(|_| output.status.success()) else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(format!("wrk failed with {}: {complaint}{text}", output.status).into());
        };
        Ok(serde_json::from_str(line)?)
    }
}

/// An answer of another kind is cheaper or dearer, and would be measured in the place of the right one.
fn check(one: &Running, requests: f64, socket_errors: f64, failed: f64) -> Result<(), Failure> {
    one.fleet.check_running()?;
    let unexpected = match one.variant.expect {
        Expect::Passed => failed,
        Expect::Denied => requests - failed,
    };
    if requests == 0.0 || socket_errors > 0.0 || unexpected > 0.0 {
        one.fleet.run_dir().keep();
        let envoy = one.fleet.envoy(0).log();
        return Err(format!(
            "{}: of {requests} answers {unexpected} were not as expected, and {socket_errors} connections broke\n{envoy}",
            one.variant.name
        )
        .into());
    }
    Ok(())
}

/// Processor time of Envoy, sidecars and Redis so far.
fn cpu_us(one: &Running) -> Result<[u64; 3], Failure> {
    let sum =
        |parts: &mut dyn Iterator<Item = &Process>| parts.map(Process::cpu_us).sum::<fleet::Result<u64>>();
    let fleet = &one.fleet;
    let redis = if one.variant.needs_redis { fleet.redis().process().cpu_us()? } else { 0 };
    Ok([
        sum(&mut fleet.envoys().iter().map(fleet::Envoy::process))?,
        sum(&mut fleet.sidecars().iter().map(fleet::Sidecar::process))?,
        redis,
    ])
}

impl Sample {
    /// The median of each figure.
    pub fn median(samples: &[Self]) -> Self {
        let of = |figure: &dyn Fn(&Self) -> f64| median(samples.iter().map(figure).collect());
        Self {
            per_second: of(&|sample| sample.per_second),
            p50_us: of(&|sample| sample.p50_us),
            p99_us: of(&|sample| sample.p99_us),
            cpu_us: [0, 1, 2].map(|part| of(&|sample| sample.cpu_us[part])),
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
}
