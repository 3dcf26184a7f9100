//! `cargo xtask fuzz`: made-up configurations, requests and answers, thrown at the policies until one breaks.
//!
//! The targets are the files of `fuzz/targets/`. They are built by cargo-fuzz, on stable Rust, without a
//! sanitizer: nothing under test is unsafe, and the targets count their own memory.

mod programs;
mod target;

use std::{fs, path::PathBuf, process::Command, sync::Mutex, thread, time::Duration};

use clap::Args;
use fleet::{artifacts, tools};

use self::{
    programs::CargoFuzz,
    target::{Corpus, Figures, Target},
};
use crate::Failure;

/// How long each target runs in `cargo xtask test`.
const SHORT: Duration = Duration::from_secs(10);

/// The crate of the targets, which is a workspace of its own.
pub const MANIFEST: &str = "fuzz/Cargo.toml";

/// How `fuzz` is called.
#[derive(Args)]
pub struct Arguments {
    /// A target, one of the files in fuzz/targets/; each in turn where none is named
    target: Option<String>,
    /// Try only these inputs, once, such as what broke it before: fuzz/artifacts/TARGET/crash-…
    inputs: Vec<PathBuf>,
    /// Seconds that each target runs
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Runs targets by hand, one at a time, on a corpus that grows from run to run.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let targets = Target::all()?;
    let chosen: Vec<&Target> = match &arguments.target {
        None => targets.iter().collect(),
        Some(name) => vec![targets.iter().find(|target| target.name() == name).ok_or_else(|| {
            let names: Vec<&str> = targets.iter().map(Target::name).collect();
            format!("there is no target {name:?}; there are {}", names.join(", "))
        })?],
    };
    let cargo_fuzz = programs::cargo_fuzz()?;
    build(&cargo_fuzz)?;
    if !arguments.inputs.is_empty() {
        return chosen.iter().try_for_each(|target| target.try_inputs(&cargo_fuzz, &arguments.inputs));
    }
    for target in chosen {
        let time = Duration::from_secs(arguments.seconds);
        eprintln!("{} for {} s; see {}", target.name(), arguments.seconds, target.log().display());
        println!("{}", target.run(&cargo_fuzz, time, &Corpus::Growing)?);
    }
    Ok(())
}

/// Runs every target for a few seconds from its seeds alone, as many at once as there are processors.
pub fn short() -> Result<(), Failure> {
    let cargo_fuzz = programs::cargo_fuzz()?;
    build(&cargo_fuzz)?;
    let targets = Target::all()?;
    let waiting = Mutex::new(targets.iter());
    let next = || waiting.lock().ok()?.next();
    let run_some = || -> Result<Vec<Figures>, String> {
        let runs = std::iter::from_fn(next).map(|target| target.run(&cargo_fuzz, SHORT, &Corpus::SeedsAlone));
        runs.collect::<Result<_, _>>().map_err(|failure| failure.to_string())
    };
    let outcomes: Vec<Result<Vec<Figures>, String>> = thread::scope(|scope| {
        let runners: Vec<_> =
            (0..thread::available_parallelism()?.get()).map(|_| scope.spawn(run_some)).collect();
        let ended = runners.into_iter().map(|runner| {
            runner.join().unwrap_or_else(|_| Err("a thread that ran a target has panicked".to_owned()))
        });
        Ok::<_, Failure>(ended.collect())
    })?;
    for figures in outcomes.into_iter().collect::<Result<Vec<_>, _>>()?.iter().flatten() {
        eprintln!("{figures}");
    }
    Ok(())
}

/// Lints the targets, without compiling libFuzzer for that.
pub fn lint() -> Result<(), Failure> {
    let mut command = Command::new(artifacts::cargo());
    command.args(["clippy", "--manifest-path", MANIFEST, "--no-default-features"]);
    // Much of what it needs is there already.
    command.arg("--target-dir").args(tools::state_dir().parent());
    succeed("cargo clippy", command.args(["--", "-D", "warnings"]).current_dir(tools::workspace()))
}

/// Builds all targets: optimised, but with debug assertions and overflow checks.
fn build(cargo_fuzz: &CargoFuzz) -> Result<(), Failure> {
    succeed("cargo fuzz build", &mut cargo_fuzz.command("build", []))
}

/// Runs a command with its output on the terminal.
fn succeed(name: &str, command: &mut Command) -> Result<(), Failure> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("`{name}` failed with {status}, see above").into()) }
}

/// Below the target directory: the build, the logs, and what need not be kept.
fn state_dir() -> Result<PathBuf, Failure> {
    let dir = tools::state_dir().join("fuzz");
    fs::create_dir_all(&dir).map_err(|error| format!("could not make {}: {error}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    fn read(file: &str) -> String {
        fs::read_to_string(tools::workspace().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// The versions of each package in a Cargo.lock.
    fn locked(file: &str) -> BTreeMap<String, BTreeSet<String>> {
        let text = read(file);
        let mut packages = BTreeMap::<_, BTreeSet<_>>::new();
        for package in text.split("[[package]]").skip(1) {
            let field = |name: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
                line.trim_matches('"').to_owned()
            };
            packages.entry(field("name = ")).or_default().insert(field("version = "));
        }
        packages
    }

    /// The crate of the targets has a lock file of its own, but what is tried must be what is shipped.
    #[test]
    fn what_is_fuzzed_is_what_is_shipped() {
        let (shipped, fuzzed) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
        for (name, versions) in &fuzzed {
            let Some(right) = shipped.get(name) else { continue };
            assert!(
                versions.is_subset(right),
                "{name} {versions:?} is fuzzed, but {right:?} is shipped; run `cargo update --manifest-path {MANIFEST} \
                 {name} --precise VERSION`"
            );
        }
        assert!(fuzzed.contains_key("regex") && fuzzed.contains_key("libfuzzer-sys"));
    }

    /// The names of all fields in a JSON Schema.
    fn fields(schema: &Value, found: &mut BTreeSet<String>) {
        for (name, inner) in schema.as_object().into_iter().flatten() {
            if name == "properties" {
                found.extend(inner.as_object().into_iter().flatten().map(|(field, _)| field.clone()));
            }
            fields(inner, found);
        }
        schema.as_array().into_iter().flatten().for_each(|inner| fields(inner, found));
    }

    #[test]
    fn every_field_of_the_language_is_fuzzed() {
        let schema = serde_json::from_str(&read("envoy/sluice.schema.json")).expect("JSON");
        let mut known = BTreeSet::new();
        fields(&schema, &mut known);
        assert!(known.contains("policies") && known.contains("ipv6_prefix"), "{known:?}");
        for file in ["fuzz/src/language.rs", "fuzz/words.dict"] {
            let text = read(file);
            let missing: Vec<_> = known.iter().filter(|name| !text.contains(&format!("{name:?}"))).collect();
            assert!(missing.is_empty(), "{file} does not know {missing:?}");
        }
    }
}
