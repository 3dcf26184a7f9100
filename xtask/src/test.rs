//! `cargo xtask test`: everything that must pass, in the order in which a mistake is found soonest.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use fleet::{Programs, artifacts, tools};

use crate::{Failure, deny, fuzz};

/// The crates whose tests need no Envoy.
const CRATES: [&str; 9] = [
    "sluice-bucket",
    "sluice-contract",
    "sluice-denials",
    "sluice-policy",
    "sluice-filter",
    "sluice",
    "sluice-fleet",
    "sluice-micro",
    "xtask",
];

/// How `test` is called.
#[derive(Args)]
pub struct Arguments {
    /// Run only the tests whose names contain one of these; no format or lint checks, and no fuzzing
    filters: Vec<String>,
}

/// A step and how long it took.
type Done = (String, Duration);

/// Runs step after step and stops at the first that fails.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let start = Instant::now();
    let mut done = Vec::new();
    let outcome = run_steps(&arguments.filters, &mut done);
    eprintln!("\n{}", if outcome.is_ok() { "passed:" } else { "passed before the failure:" });
    for (name, took) in &done {
        eprintln!("{:>8.1} s  {name}", took.as_secs_f64());
    }
    eprintln!("{:>8.1} s  in all", start.elapsed().as_secs_f64());
    outcome
}

fn run_steps(filters: &[String], done: &mut Vec<Done>) -> Result<(), Failure> {
    if filters.is_empty() {
        step("format", done, || {
            cargo(&["fmt", "--all", "--check"], &Programs::default())?;
            cargo(&["fmt", "--manifest-path", fuzz::MANIFEST, "--check"], &Programs::default())
        })?;
        let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        step("lints", done, || cargo(&lints, &Programs::default()))?;
        step("lints of the filter as Envoy runs it", done, || {
            tools::wasm_target()?;
            let package = ["clippy", "--package", "sluice-filter", "--target", tools::WASM_TARGET];
            cargo(&[&package[..], &["--", "-D", "warnings"]].concat(), &Programs::default())
        })?;
        step("lints of the fuzz targets", done, fuzz::lint)?;
        step("dependencies", done, deny::run)?;
    }

    let redis_server = step("redis-server", done, || Ok(tools::redis_server()?))?;
    let mut programs = Programs { redis_server: Some(redis_server), ..Programs::default() };
    let packages: Vec<&str> = CRATES.iter().flat_map(|name| ["--package", name]).collect();
    let native = [&["test"], &packages[..]].concat();
    let real = ["test", "--package", "sluice-e2e"];
    if !filters.is_empty() && count(&native, filters)? + count(&real, filters)? == 0 {
        return Err(format!("no test has a name that contains one of {filters:?}").into());
    }
    step("unit, property and differential tests", done, || {
        cargo(&[&native[..], &["--"], &borrowed(filters)[..]].concat(), &programs)
    })?;
    if filters.is_empty() {
        step("fuzzing, shortly", done, fuzz::short)?;
    }

    programs.envoy = Some(step("Envoy", done, || Ok(tools::envoy()?))?);
    programs.chromium = Some(step("Chromium", done, || Ok(tools::chromium()?))?);
    programs.chromedriver = Some(step("chromedriver", done, || Ok(tools::chromedriver()?))?);
    programs.wasm = Some(step("build of the filter", done, || Ok(artifacts::filter()?))?);
    programs.sluice = Some(step("build of the sidecar", done, || Ok(artifacts::sidecar()?))?);
    step("tests on real Envoys", done, || {
        // Each of these tests runs several processes, some with deadlines of milliseconds, so they take turns.
        cargo(&[&real[..], &["--", "--test-threads=1"], &borrowed(filters)[..]].concat(), &programs)
    })
}

/// How many tests the filters select: a misspelt one would pass without having run anything.
fn count(run: &[&str], filters: &[String]) -> Result<usize, Failure> {
    let arguments = [run, &["--quiet", "--", "--list"], &borrowed(filters)[..]].concat();
    let mut command = Command::new(artifacts::cargo());
    command.args(&arguments).current_dir(tools::workspace()).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("`cargo {}` failed, see above", arguments.join(" ")).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.ends_with(": test")).count())
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn step<T>(name: &str, done: &mut Vec<Done>, run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    eprintln!("\n── {name}");
    let start = Instant::now();
    let value = run().map_err(|failure| format!("{name}: {failure}"))?;
    eprintln!("── {name}: {:.1} s", start.elapsed().as_secs_f64());
    done.push((name.to_owned(), start.elapsed()));
    Ok(value)
}

/// Runs cargo with its output on the terminal, and the programs in its environment.
fn cargo(arguments: &[&str], programs: &Programs) -> Result<(), Failure> {
    let mut command = Command::new(artifacts::cargo());
    command.args(arguments).current_dir(tools::workspace()).envs(programs.variables());
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`cargo {}` failed with {status}, see above", arguments.join(" ")).into())
}
