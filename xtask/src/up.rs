//! `cargo xtask up`: three Envoys on this machine that share one limit.

use std::{
    process,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, SystemTime},
};

use clap::Args;
use fleet::{Config, Envoy, Fleet, RunDir, Store, http, tools};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::Failure;

const ENVOYS: u16 = 3;
/// The shipped configuration lets each client make this many requests at once.
const BURST: usize = 10;
const REQUESTS: usize = 12;

/// How `up` is called.
#[derive(Args)]
pub struct Arguments {
    /// End after the demonstration: exit code 0 if the limit held, 1 if not
    #[arg(long)]
    once: bool,
    /// Keep the buckets in this Redis, such as redis://127.0.0.1:6379, instead of in the sidecar's memory
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// The first Envoy's port; the other two take the next ones
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=65_533))]
    port: u16,
}

/// Sets everything up, shows the limit, and stays until it is told to end.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let programs = fleet::Programs::prepare(false)?;

    let (upstream, fleet) = tools::step("starting an upstream, a sidecar and three Envoys", || {
        let run = RunDir::new()?;
        let config = Config::read(&tools::workspace().join("envoy/upstream.yaml"))?;
        let upstream = Envoy::builder(config).start(programs.envoy()?, &run)?;
        let fleet = Fleet::builder()
            .programs(&programs)
            .envoys(usize::from(ENVOYS))
            .first_port(arguments.port)
            .store(arguments.redis.clone().map_or(Store::Memory, Store::External))
            .upstream(upstream.addr())
            .run_dir(&run);
        Ok((upstream, fleet.start()?))
    })?;
    let endings = endings()?;

    // Somebody else's Redis may remember an earlier demonstration.
    let first_key = if arguments.redis.is_some() { fresh_key() } else { "demo".to_owned() };
    if let Err(failure) = show(&fleet, first_key) {
        fleet.run_dir().keep();
        return Err(failure);
    }
    if arguments.once {
        return Ok(());
    }
    explain(&fleet);
    stay(&fleet, &upstream, &endings)
}

/// Shows the demonstration, and checks what it promises. On a machine so busy that a sidecar did not answer within
/// `sidecar.timeout`, on_error let a request pass undecided: then, and only then, it is tried again.
fn show(fleet: &Fleet, first_key: String) -> Result<(), Failure> {
    let mut key = first_key;
    for _ in 0..3 {
        let demonstration = Demonstration::run(fleet, &key)?;
        if !demonstration.is_decided() {
            eprintln!("the machine was too busy for a decision in time; once more");
            key = fresh_key();
            continue;
        }
        demonstration.print(fleet, &key);
        return demonstration.check();
    }
    Err(format!("requests were not decided in time\n{}", fleet.envoy(0).access_log()).into())
}

/// The answers to the demonstration's requests, sent to one Envoy after the other.
struct Demonstration(Vec<http::Answer>);

impl Demonstration {
    fn run(fleet: &Fleet, key: &str) -> Result<Self, Failure> {
        let envoys = fleet.envoys().iter().cycle().take(REQUESTS);
        let answers = envoys.map(|envoy| http::get("/").header("x-api-key", key).send(envoy.addr()));
        Ok(Self(answers.collect::<Result<_, _>>()?))
    }

    fn is_decided(&self) -> bool {
        self.0.iter().all(|answer| answer.header("x-ratelimit-remaining").is_some())
    }

    fn print(&self, fleet: &Fleet, key: &str) {
        println!(
            "\nThe limit: {BURST} requests per minute for each API key, over all {ENVOYS} Envoys together."
        );
        println!("{REQUESTS} requests with x-api-key: {key}\n");
        for ((index, answer), envoy) in self.0.iter().enumerate().zip(fleet.envoys().iter().cycle()) {
            let (number, port) = (index + 1, envoy.addr().port());
            let remaining = answer.header("x-ratelimit-remaining").unwrap_or("none");
            println!("{number:>4}  Envoy :{port}  {}  remaining {remaining}", answer.status);
        }
        if let Some(answer) = self.0.iter().find(|answer| answer.status == 429) {
            println!("\nThe first one denied:\n");
            answer.to_string().lines().for_each(|line| println!("{}", format!("    {line}").trim_end()));
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let statuses: Vec<u16> = self.0.iter().map(|answer| answer.status).collect();
        let promised: Vec<u16> = (0..REQUESTS).map(|index| if index < BURST { 200 } else { 429 }).collect();
        if statuses != promised {
            return Err(format!("promised were the answers {promised:?}, but they were {statuses:?}").into());
        }
        println!("\n{BURST} passed and {} were denied, as promised.", REQUESTS - BURST);
        Ok(())
    }
}

fn explain(fleet: &Fleet) {
    println!("\nTry it:\n");
    for envoy in fleet.envoys() {
        println!("    curl -i -H 'x-api-key: me' {}/", envoy.url());
    }
    println!("    curl -i -X POST {}/api/expensive", fleet.envoy(0).url());
    println!("    curl http://{}/stats?filter=sluice", fleet.envoy(0).admin_addr());
    println!("\nThe live page: http://{}/", fleet.sidecar(0).admin_addr());
    println!("\nThe limits are written in {}.", tools::workspace().join("envoy/envoy.yaml").display());
    println!("Configurations as started, logs and access logs: {}", fleet.run_dir().path().display());
    println!("Ctrl-C ends everything.");
}

/// Returns on a signal, and fails when a part of the fleet ends by itself.
fn stay(fleet: &Fleet, upstream: &Envoy, endings: &mpsc::Receiver<()>) -> Result<(), Failure> {
    loop {
        match endings.recv_timeout(Duration::from_millis(300)) {
            Err(RecvTimeoutError::Timeout) => {
                let alive = fleet.check_running().and_then(|()| upstream.process().check_running());
                alive.inspect_err(|_| fleet.run_dir().keep())?;
            }
            _ => {
                println!("\nending");
                return Ok(());
            }
        }
    }
}

/// Yields once for each signal that asks us to end.
fn endings() -> Result<mpsc::Receiver<()>, Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (tell, endings) = mpsc::channel();
    thread::spawn(move || signals.forever().try_for_each(|_| tell.send(())));
    Ok(endings)
}

fn fresh_key() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("demo-{:x}-{:x}", now.as_micros(), process::id())
}
