//! `cargo xtask up | test | fuzz | bench | reliability | soak`: everything that takes more than one program, with one command each.

mod bench;
mod deny;
mod fuzz;
mod reliability;
mod soak;
mod test;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a task fails with: a sentence for the terminal.
type Failure = Box<dyn std::error::Error>;

/// Runs, tests and measures Sluice on this machine. What is missing is installed below target/ or by apt-get.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start three Envoys that share one limit, show it holding, and stay up to be tried
    Up(up::Arguments),
    /// Run everything that must pass: format, lints, every crate's tests, a little fuzzing, and those on real Envoys
    Test(test::Arguments),
    /// Throw made-up configurations, requests and answers at the policies for longer than `test` does
    Fuzz(fuzz::Arguments),
    /// Measure what a limit costs, against Envoy without one
    Bench(bench::Arguments),
    /// Have every fault happen on purpose, and write what came of each to docs/reliability.md
    Reliability,
    /// Load a fleet while faults happen at random, and hold what was admitted to the promise
    Soak(soak::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Up(arguments) => up::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Reliability => reliability::run(),
        Task::Soak(arguments) => soak::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
