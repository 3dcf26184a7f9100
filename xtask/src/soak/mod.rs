//! `cargo xtask soak`: a fleet under mixed traffic while faults happen at random, for as long as one likes. It ends
//! with what was admitted held to the promise in every window, with latencies, and with the memory of every process.

mod admits;
mod faults;
mod memory;
mod mix;
mod plan;
mod verdict;

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use fleet::{
    Fleet, Programs, Store, Watched,
    traffic::{Span, Traffic},
};

use self::{faults::Doing, memory::Memory, mix::Mix, plan::Plan};
use crate::Failure;

/// Callouts may take this long; no request waits for more than two of them, and a second on a busy machine.
const TIMEOUT_MS: u64 = 250;
const REDIS_TIMEOUT: &str = "150ms";

const ENVOYS: usize = 3;
const SIDECARS: usize = 2;
const CONNECTIONS: usize = 32;
const PACE: Duration = Duration::from_millis(20);

/// How long before the first fault, and after the last.
const CALM: Duration = Duration::from_secs(5);
/// How soon all must be well after a fault.
const PATIENCE: Duration = Duration::from_secs(20);
/// Decisions in a row that tell so.
const WELL: u64 = 200;

/// How `soak` is called.
#[derive(Args)]
pub struct Arguments {
    /// How long
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// What the plan of faults grows from: the same seed, the same plan
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A fault that has happened.
struct Happened {
    doing: Doing,
    span: Span,
}

/// Runs it; anything that must not be is a failure.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let programs = Programs::prepare(true)?;
    let mix = Mix::new();
    let soon = ["--drain-time-s", "2", "--drain-strategy", "immediate"];
    let fleet = Fleet::builder().programs(&programs).filter_configuration(mix.configuration(0));
    let fleet = fleet.envoys(ENVOYS).concurrency(2).envoy_args(soon).store(Store::Redis).wired();
    let mut watched = Watched::start(
        fleet.sidecars(SIDECARS).sidecar_args(["--redis-timeout", REDIS_TIMEOUT]).adjust(|config| {
            // A line for each request of hours is nothing that anybody reads.
            config.without_access_log()?;
            Ok(())
        }),
    );
    eprintln!(
        "· {} Envoys, {SIDECARS} sidecars, Redis; seed {}; {} min",
        ENVOYS, arguments.seed, arguments.minutes
    );

    let length = Duration::from_secs(arguments.minutes * 60);
    let traffic = Traffic::start(&[watched.addr()], mix.callers(), CONNECTIONS, PACE);
    let outcome = have_faults(&mut watched, &traffic, &mix, Plan::new(arguments.seed, SIDECARS), length);
    // What was seen until then is told, whatever went wrong.
    let counted = verdict::Counted::of(watched.fleet());
    let records = traffic.stop();
    let (happened, memory) = outcome?;
    let mut wrong = verdict::tell(&mix, &records, &happened, &counted?);
    wrong.extend(memory.tell());
    if wrong.is_empty() {
        println!("\nThe promise was kept.");
        return Ok(());
    }
    Err(format!("seed {}:\n  {}", arguments.seed, wrong.join("\n  ")).into())
}

/// Has fault after fault happen and end until time is over.
fn have_faults(
    watched: &mut Watched,
    traffic: &Traffic,
    mix: &Mix,
    mut plan: Plan,
    length: Duration,
) -> Result<(Vec<Happened>, Memory), Failure> {
    let start = Instant::now();
    let mut memory = Memory::new(length);
    traffic.await_decided(WELL, PATIENCE)?;
    thread::sleep(CALM);
    memory.look(start.elapsed(), watched.fleet())?;
    let mut happened = Vec::new();
    let mut faults = faults::Faults::new(mix);
    while start.elapsed() + 2 * CALM < length {
        let step = plan.next_step();
        // Calm is a part of the load, as faults are.
        thread::sleep(step.calm);
        memory.look(start.elapsed(), watched.fleet())?;
        println!("{:>7.1} s  {step}", start.elapsed().as_secs_f64());
        let from_us = traffic.now_us();
        faults.happen(step, watched)?;
        let mended_us = traffic.now_us();
        let well = traffic.await_decided(WELL, PATIENCE);
        well.map_err(|error| format!("all was not well again after {step}: {error}"))?;
        watched.fleet().check_running()?;
        let until_us = traffic.now_us();
        println!("           well again after {} ms", (until_us - mended_us) / 1_000);
        happened.push(Happened { doing: step.doing, span: Span { from_us, until_us } });
    }
    thread::sleep(length.saturating_sub(start.elapsed()));
    memory.look(length, watched.fleet())?;
    Ok((happened, memory))
}
