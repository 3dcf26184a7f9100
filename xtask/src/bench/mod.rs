//! `cargo xtask bench`: what a limit costs, against the same Envoy without one.
//!
//! All variants answer directly from Envoy, so that no upstream is measured, on one worker, with no access log.
//! They run side by side, but one at a time is loaded, in turn, round after round, so that what else happens on
//! the machine falls on all of them; the medians of the rounds are told.

mod load;
mod report;
mod variants;

use std::{fs, path::PathBuf};

use clap::Args;
use fleet::{Envoy, Redis, RunDir, tools};

use self::{
    load::{Load, Sample},
    report::{Machine, Row},
    variants::Running,
};
use crate::Failure;

/// How `bench` is called.
#[derive(Args)]
pub struct Arguments {
    /// Seconds of load in each measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Measurements of each variant and number of connections
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Numbers of connections, one load after the other
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u32).range(1..))]
    connections: Vec<u32>,
    /// Measure only this variant besides Envoy alone; may be repeated
    #[arg(long, value_name = "NAME", value_parser = variants::names())]
    only: Vec<String>,
    /// Write the results to this file as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Starts the variants, measures them in turn, and prints the table.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let chosen = variants::chosen(&arguments.only);
    let wrk = tools::wrk()?;
    let programs = fleet::Programs::prepare(chosen.iter().any(|variant| variant.needs_redis))?;
    let run = RunDir::new()?;
    let load = Load::new(wrk, &run)?;
    let machine = Machine {
        cores: std::thread::available_parallelism()?.get(),
        envoy: Envoy::version(programs.envoy()?)?,
        redis: programs.redis_server.as_deref().map(Redis::version).transpose()?,
        load: fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned(),
    };

    let mut running = Vec::new();
    for variant in chosen {
        let fleet = tools::step(&format!("starting: {}", variant.name), || variant.start(&programs))?;
        running.push(Running { variant, fleet });
    }
    let rows = measure(arguments, &running, &load)?;

    report::print(&machine, arguments, &rows);
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", report::json(&machine, arguments, &rows));
        fs::write(path, text).map_err(|error| format!("could not write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// One row for each number of connections and variant, in the order of the table.
fn measure(arguments: &Arguments, running: &[Running], load: &Load) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for &connections in &arguments.connections {
        for one in running {
            load.warm_up(one, connections)?;
        }
        let mut samples: Vec<Vec<Sample>> = running.iter().map(|_| Vec::new()).collect();
        for round in 1..=arguments.rounds {
            eprintln!("· {connections} connections, round {round} of {}", arguments.rounds);
            for (one, into) in running.iter().zip(&mut samples) {
                into.push(load.run(one, connections, arguments.seconds)?);
            }
        }
        let alone = samples.first().map(|samples| Sample::median(samples));
        for (one, samples) in running.iter().zip(&samples) {
            let median = Sample::median(samples);
            let ratio = alone.as_ref().map(|alone| median.per_second / alone.per_second);
            rows.push(Row { variant: one.variant.name, connections, median, ratio: ratio.unwrap_or(1.0) });
        }
    }
    Ok(rows)
}
