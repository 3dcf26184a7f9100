//! One measurement: a load on a fleet, and the processor time that each process spent on it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    str,
    time::Duration,
};

use fleet::{Process, RunDir};
use serde::Deserialize;

use super::{
    counters::Counters,
    open_loop::{self, OpenLoop, Outcome},
    record::{Cpu, Load, Sample},
    variants::{Expect, Running, Variant},
};
use crate::Failure;

/// Requests are made before the load, so that the making is not measured. The number of keys comes after `--`.
const SCRIPT: &str = r#"-- Written by `cargo xtask bench`: API keys in turn, and the outcome as one line of JSON.
local requests, next_request = {}, 0

function init(args)
  for key = 1, tonumber(args[1]) do
    requests[key] = wrk.format("GET", "/", { ["x-api-key"] = "key-" .. key })
  end
end

function request()
  next_request = next_request % #requests + 1
  return requests[next_request]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"p999_us":%d,"socket_errors":%d,"denied":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency:percentile(99.9), e.connect + e.read + e.write + e.timeout, e.status))
end
"#;

/// How long after the last request of an open loop its answers are waited for.
const GRACE: Duration = Duration::from_secs(2);

/// Of what is to be paid by leases, more than this is, in hundredths: the rest finds a lease used up, or its key not yet hot.
const LEASED_PERCENT: u64 = 90;

/// What makes the load.
pub struct Generator {
    wrk: PathBuf,
    script: PathBuf,
    /// Processes that are no part of a fleet, but work for those that ask a rate-limit service.
    others: Vec<u32>,
    /// Holds the script.
    _run: RunDir,
}

/// What wrk's script tells.
#[derive(Debug, Deserialize)]
struct Said {
    requests: u64,
    duration_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    socket_errors: u64,
    denied: u64,
}

/// Answers and latencies of one load, without the processor time.
struct Told {
    passed: u64,
    /// Of a status that a denial may have: wrk tells no other, and Envoy's counters tell what was none.
    denied: u64,
    /// Of a status that nobody asked for.
    strange: u64,
    unanswered: u64,
    sample: Sample,
}

impl Generator {
    /// Writes the script.
    pub fn new(wrk: PathBuf, others: Vec<u32>, run: &RunDir) -> Result<Self, Failure> {
        Ok(Self { wrk, script: run.write("bench.lua", SCRIPT)?, others, _run: run.clone() })
    }

    /// Loads one fleet for a second, so that connections are made and every key has its bucket, or none any more.
    pub fn warm_up(&self, one: &Running, load: Load) -> Result<(), Failure> {
        self.load(one, load, 1).map(drop)
    }

    /// Loads one fleet for some seconds.
    pub fn run(&self, one: &Running, load: Load, seconds: u32) -> Result<Sample, Failure> {
        // Leases are returned while nothing comes, so a key is hot only in the midst of load.
        if matches!(one.variant.expect, Expect::Leased { .. }) {
            self.warm_up(one, load)?;
        }
        let counted = Counters::of(one.fleet.envoy(0))?;
        let before = self.cpu_us(one)?;
        let told = self.load(one, load, seconds)?;
        let after = self.cpu_us(one)?;
        one.fleet.check_running()?;
        let counted = Counters::of(one.fleet.envoy(0))?.since(counted);
        check(one.variant, load, &told, counted).map_err(|how| broken(one, &how))?;
        let answers = (told.passed + told.denied) as f64;
        let [envoy, sidecar, redis, other] =
            [0, 1, 2, 3].map(|part| after[part].saturating_sub(before[part]) as f64 / answers);
        // Those on their way when wrk stops are counted by the filter, and not by wrk.
        let leased = (counted.lease_hits as f64 / answers).min(1.0);
        Ok(Sample { cpu_us: Cpu { envoy, sidecar, redis, other }, leased, ..told.sample })
    }

    fn load(&self, one: &Running, load: Load, seconds: u32) -> Result<Told, Failure> {
        match load {
            Load::Connections(connections) => self.closed(one, connections, seconds),
            Load::RatePerSecond(rate) => open(one, rate, seconds),
        }
    }

    fn closed(&self, one: &Running, connections: u32, seconds: u32) -> Result<Told, Failure> {
        let output = Command::new(&self.wrk)
            .args(["--threads", "1", "--connections", &connections.to_string()])
            .args(["--duration", &format!("{seconds}s"), "--timeout", "5s", "--script"])
            .arg(&self.script)
            .args([&one.fleet.envoy(0).url(), "--", &one.variant.keys.to_string()])
            .stdin(Stdio::null())
            .output()?;
        let text = str::from_utf8(&output.stdout)?;
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        let Some(line) = line.filter(|_| output.status.success()) else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(format!("wrk failed with {}: {complaint}{text}", output.status).into());
        };
        let said: Said = serde_json::from_str(line)?;
        if said.socket_errors > 0 {
            return Err(broken(one, &format!("{} connections broke", said.socket_errors)));
        }
        let sample = Sample {
            per_second: said.requests as f64 * 1e6 / said.duration_us,
            p50_us: said.p50_us,
            p90_us: said.p90_us,
            p99_us: said.p99_us,
            p999_us: said.p999_us,
            cpu_us: Cpu::default(),
            unanswered: 0.0,
            leased: 0.0,
        };
        let passed = said.requests - said.denied;
        Ok(Told { passed, denied: said.denied, strange: 0, unanswered: 0, sample })
    }

    /// Processor time of Envoy, sidecars, Redis and others so far.
    fn cpu_us(&self, one: &Running) -> Result<[u64; 4], Failure> {
        let sum = |parts: &mut dyn Iterator<Item = &Process>| {
            parts.map(Process::cpu_us).sum::<fleet::Result<u64>>()
        };
        let fleet = &one.fleet;
        let redis = if one.variant.needs_redis() { fleet.redis().process().cpu_us()? } else { 0 };
        Ok([
            sum(&mut fleet.envoys().iter().map(fleet::Envoy::process))?,
            sum(&mut fleet.sidecars().iter().map(fleet::Sidecar::process))?,
            redis,
            if one.variant.needs_rls() {
                self.others.iter().map(|pid| fleet::cpu_us(*pid)).sum::<fleet::Result<u64>>()?
            } else {
                0
            },
        ])
    }
}

fn open(one: &Running, rate: u32, seconds: u32) -> Result<Told, Failure> {
    let addr = one.fleet.envoy(0).addr();
    let (per_second, duration) = (f64::from(rate), Duration::from_secs(seconds.into()));
    let outcome = OpenLoop { addr, keys: one.variant.keys, per_second, duration, grace: GRACE }.run();
    let outcome = outcome.map_err(|failure| broken(one, &failure.to_string()))?;
    let (answers, all) = (outcome.answers(), outcome.latencies_us.len());
    let at = |quantile| outcome.latencies_us.value_at_quantile(quantile) as f64;
    let sample = Sample {
        per_second: answers as f64 / outcome.took.as_secs_f64(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        cpu_us: Cpu::default(),
        unanswered: outcome.unanswered as f64 / all as f64,
        leased: 0.0,
    };
    let Outcome { passed, denied, strange, unanswered, .. } = outcome;
    Ok(Told { passed, denied, strange, unanswered, sample })
}

/// An answer of another kind is cheaper or dearer, and would be measured in the place of the right one. A failure looks
/// like a denial, or like a request that passed, by its status alone: so what Envoy counted is asked as well.
fn check(variant: &Variant, load: Load, told: &Told, counted: Counters) -> Result<(), String> {
    let (right, wrong) = match variant.expect {
        Expect::Passed | Expect::Leased { .. } => (told.passed, told.denied),
        Expect::Denied => (told.denied, told.passed),
    };
    if wrong + told.strange > 0 || right + told.unanswered == 0 {
        return Err(format!("{right} answers were as expected, and {} were not", wrong + told.strange));
    }
    if counted.failed + counted.server_errors > 0 {
        let Counters { failed, server_errors, .. } = counted;
        return Err(format!("{failed} requests could not be decided, and {server_errors} got a 5xx"));
    }
    match variant.expect {
        Expect::Leased { at_a_time }
            if on_the_way(load) <= at_a_time && counted.lease_hits * 100 <= right * LEASED_PERCENT =>
        {
            Err(format!("leases paid for {} of {right} requests only", counted.lease_hits))
        }
        _ => Ok(()),
    }
}

/// The most requests at a time.
fn on_the_way(load: Load) -> u32 {
    match load {
        Load::Connections(connections) => connections,
        Load::RatePerSecond(_) => open_loop::CONNECTIONS as u32,
    }
}

fn broken(one: &Running, how: &str) -> Failure {
    one.fleet.run_dir().keep();
    format!("{}: {how}\n{}", one.variant.name, one.fleet.envoy(0).log()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::variants;

    const TOLD: Told = Told {
        passed: 0,
        denied: 0,
        strange: 0,
        unanswered: 0,
        sample: Sample {
            per_second: 0.0,
            p50_us: 0.0,
            p90_us: 0.0,
            p99_us: 0.0,
            p999_us: 0.0,
            cpu_us: Cpu { envoy: 0.0, sidecar: 0.0, redis: 0.0, other: 0.0 },
            unanswered: 0.0,
            leased: 0.0,
        },
    };

    const NOTHING: Counters = Counters { failed: 0, server_errors: 0, lease_hits: 0 };

    fn is_right(name: &str, told: Told, counted: Counters) -> bool {
        is_right_at(64, name, told, counted)
    }

    fn is_right_at(connections: u32, name: &str, told: Told, counted: Counters) -> bool {
        let chosen = variants::chosen(&[name.to_owned()], false).unwrap();
        check(chosen.last().unwrap(), Load::Connections(connections), &told, counted).is_ok()
    }

    #[test]
    fn an_answer_of_the_wrong_kind_fails_the_run() {
        assert!(is_right("sluice-redis", Told { passed: 9, ..TOLD }, NOTHING));
        assert!(is_right("sluice-denied", Told { denied: 9, ..TOLD }, NOTHING));
        assert!(!is_right("sluice-redis", Told { passed: 9, denied: 1, ..TOLD }, NOTHING));
        assert!(!is_right("sluice-denied", Told { passed: 1, denied: 9, ..TOLD }, NOTHING));
        assert!(!is_right("sluice-denied", Told { denied: 9, strange: 1, ..TOLD }, NOTHING));
        assert!(!is_right("sluice-redis", TOLD, NOTHING));
    }

    #[test]
    fn a_failure_is_neither_a_denial_nor_a_pass() {
        for counted in [Counters { failed: 1, ..NOTHING }, Counters { server_errors: 1, ..NOTHING }] {
            assert!(!is_right("sluice-redis", Told { passed: 9, ..TOLD }, counted));
            assert!(!is_right("sluice-denied", Told { denied: 9, ..TOLD }, counted));
        }
    }

    #[test]
    fn what_leases_are_to_pay_for_is_paid_by_leases() {
        for (lease_hits, right) in [(91, true), (90, false), (0, false)] {
            let told = || Told { passed: 100, ..TOLD };
            assert_eq!(is_right("sluice-lease", told(), Counters { lease_hits, ..NOTHING }), right);
            assert_eq!(is_right("sluice-lease-auto", told(), Counters { lease_hits, ..NOTHING }), right);
            assert!(is_right("sluice-redis", told(), Counters { lease_hits, ..NOTHING }));
            // More at a time than leases of 50 tokens can pay for, but not more than others can.
            assert!(is_right_at(256, "sluice-lease", told(), Counters { lease_hits, ..NOTHING }));
            let hits = Counters { lease_hits, ..NOTHING };
            assert_eq!(is_right_at(256, "sluice-lease-auto", told(), hits), right);
        }
    }
}
