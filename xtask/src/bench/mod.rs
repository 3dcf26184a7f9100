//! `cargo xtask bench`: what a limit costs, against the same Envoy without one.
//!
//! Envoy answers every request itself, so that no upstream is measured, on one worker, with no access log.
//! They run side by side, but one at a time is loaded, in turn, round after round, so that what else happens on
//! the machine falls on all of them; the medians of the rounds are told.

mod aims;
mod chart;
mod charts;
mod counters;
mod load;
mod micro;
mod open_loop;
mod page;
mod record;
mod tables;
mod variants;

use std::{fs, net::SocketAddr, path::PathBuf};

use clap::Args;
use fleet::{Envoy, Redis, RunDir, tools};
use serde::{Serialize, de::DeserializeOwned};

use self::{
    load::Generator,
    record::{Load, Machine, Record, Row, Sample},
    variants::{Running, Surroundings},
};
use crate::Failure;

/// Where a share of what Envoy does alone is reckoned from.
const REFERENCE_CONNECTIONS: u32 = 64;

/// The rates of the open loop, in hundredths of what Envoy does alone.
const SHARES_PERCENT: [u32; 2] = [10, 30];

/// How `bench` is called.
#[derive(Args)]
pub struct Arguments {
    /// Seconds of load in each measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Measurements of each variant and load, of which the medians are told
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A smoke test: one round of one second. Its figures are worth little
    #[arg(long, conflicts_with_all = ["seconds", "rounds"])]
    quick: bool,
    /// Numbers of connections of the closed loop, one load after the other
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u32).range(1..))]
    connections: Vec<u32>,
    /// Requests per second of the open loop, one load after the other; 0 for none. Unless given: 10% and 30% of what
    /// Envoy does alone
    #[arg(long, value_name = "PER_SECOND", value_delimiter = ',')]
    rate: Vec<u32>,
    /// Measure only this variant besides Envoy alone; may be repeated
    #[arg(long, value_name = "NAME", value_parser = variants::names())]
    only: Vec<String>,
    /// Measure Envoy's own ratelimit filter, too, with the rate-limit service at this address (Envoy's gRPC protocol,
    /// cleartext). It is asked in the domain "bench" with one descriptor, "x-api-key" and the value of that header, and
    /// has to allow everything: give it a limit for each value that is never reached
    #[arg(long, value_name = "HOST:PORT")]
    rls: Option<SocketAddr>,
    /// A process whose processor time counts as that service's, such as its own and its Redis's; may be repeated
    #[arg(long, value_name = "PID", requires = "rls")]
    rls_pid: Vec<u32>,
    /// Run the micro-benchmarks instead: the parts one by one, and the script in Redis
    #[arg(long, conflicts_with_all = ["seconds", "rounds", "connections", "rate", "only", "rls"])]
    micro: bool,
    /// Do not measure, but tell what this file holds, as --json wrote it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "seconds", "rounds", "connections", "rate", "only", "rls", "json"])]
    from: Option<PathBuf>,
    /// Write the results to this file as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the results in docs/performance/, and make the tables and charts of docs/performance.md from them
    #[arg(long)]
    docs: bool,
}

/// Measures, and tells the results wherever they are wanted.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.micro {
        let micro = obtain(arguments, || micro::run(arguments.quick))?;
        print!("{}", tables::micro(&micro));
        return if arguments.docs { page::keep_micro(&micro) } else { Ok(()) };
    }
    let record = obtain(arguments, || measure(arguments))?;
    println!("\n{}\n\n{}", tables::setting(&record), tables::whole(&record));
    println!("{}", tables::aims(&record, page::kept_micro()?.as_ref()));
    if arguments.docs { page::keep_record(&record) } else { Ok(()) }
}

/// What a file holds, or what was measured, which goes into a file where one was named.
fn obtain<T: Serialize + DeserializeOwned>(
    arguments: &Arguments,
    measure: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    if let Some(path) = &arguments.from {
        let text = fs::read(path).map_err(|error| format!("could not read {}: {error}", path.display()))?;
        return serde_json::from_slice(&text)
            .map_err(|error| format!("{} holds no such results: {error}", path.display()).into());
    }
    let measured = measure()?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&measured)? + "\n";
        fs::write(path, text).map_err(|error| format!("could not write {}: {error}", path.display()))?;
    }
    Ok(measured)
}

/// Starts the variants and loads them in turn.
fn measure(arguments: &Arguments) -> Result<Record, Failure> {
    let chosen = variants::chosen(&arguments.only, arguments.rls.is_some())?;
    let wrk = tools::wrk()?;
    let around = Surroundings::prepare(&chosen, arguments.rls)?;
    let run = RunDir::new()?;
    let generator = Generator::new(wrk, arguments.rls_pid.clone(), &run)?;
    let machine = machine(&around)?;

    let mut running = Vec::new();
    for variant in chosen {
        let fleet = tools::step(&format!("starting: {}", variant.name), || variant.start(&around))?;
        running.push(Running { variant, fleet });
    }
    let (rounds, seconds) = if arguments.quick { (1, 1) } else { (arguments.rounds, arguments.seconds) };
    let mut record = Record { machine, rounds, seconds, rows: Vec::new() };
    for &connections in &arguments.connections {
        measure_load(Load::Connections(connections), &running, &generator, &mut record)?;
    }
    for rate in rates(arguments, &record) {
        measure_load(Load::RatePerSecond(rate), &running, &generator, &mut record)?;
    }
    Ok(record)
}

/// The rates of the open loop. A share is reckoned from the most connections up to 64 that were measured.
fn rates(arguments: &Arguments, record: &Record) -> Vec<u32> {
    if !arguments.rate.is_empty() {
        return arguments.rate.iter().copied().filter(|rate| *rate > 0).collect();
    }
    let known =
        arguments.connections.iter().filter(|connections| **connections <= REFERENCE_CONNECTIONS).max();
    let alone = known.and_then(|connections| record.row("envoy", Load::Connections(*connections)));
    let alone = alone.or(record.rows.first()).map_or(0.0, |row| row.median.per_second);
    SHARES_PERCENT.map(|share| (alone * f64::from(share) / 1e4).round().max(1.0) as u32 * 100).to_vec()
}

/// One row for each variant.
fn measure_load(
    load: Load,
    running: &[Running],
    generator: &Generator,
    into: &mut Record,
) -> Result<(), Failure> {
    for one in running {
        generator.warm_up(one, load)?;
    }
    let mut samples: Vec<Vec<Sample>> = running.iter().map(|_| Vec::new()).collect();
    for round in 1..=into.rounds {
        eprintln!("· {}, round {round} of {}", tables::load(load), into.rounds);
        for (one, samples) in running.iter().zip(&mut samples) {
            samples.push(generator.run(one, load, into.seconds)?);
        }
    }
    let medians: Vec<Sample> = samples.iter().map(|samples| Sample::median(samples)).collect();
    let alone = medians.first().map_or(f64::NAN, |alone| alone.per_second);
    into.rows.extend(running.iter().zip(medians).map(|(one, median)| Row {
        variant: one.variant.name.to_owned(),
        load,
        ratio_to_envoy: median.per_second / alone,
        median,
    }));
    Ok(())
}

fn machine(around: &Surroundings) -> Result<Machine, Failure> {
    Ok(Machine {
        cores: std::thread::available_parallelism()?.get(),
        envoy: Envoy::version(around.programs.envoy()?)?,
        redis: around.programs.redis_server.as_deref().map(Redis::version).transpose()?,
        load_average_before: load_average()?,
    })
}

/// The load average of the last minute.
fn load_average() -> Result<f64, Failure> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}
