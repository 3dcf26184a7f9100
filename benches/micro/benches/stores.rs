//! What a decision costs Redis, and what a bucket costs each store in memory. Printed as lines of JSON.
//!
//! It is processor time that is counted, as the kernel counts it for the redis-server, not what passes on a clock: that
//! would be time for the network and for whatever else the machine does.

use std::{
    env,
    error::Error,
    fs, hint,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use fleet::{Redis, Reply, RunDir, tools};
use micro::{batch, thousands};
use serde_json::json;
use sluice::{
    batch::Batch,
    store::{
        memory::Memory,
        redis::{RedisAddress, RedisStore, Timeouts},
    },
};
use tokio::runtime;

type Failure = Box<dyn Error>;

/// `cargo xtask bench` finds the script's figures by this.
const SCRIPT: &str = "the script: processor time of Redis for each decision";
const MEMORY: &str = "memory for each bucket";

const NOW_US: u64 = 1_795_176_000_000_000;
const TIMEOUTS: Timeouts = Timeouts { answer: Duration::from_secs(10), connect: Duration::from_secs(10) };

/// Keys that all takes are of where it is not their number that is measured.
const KEYS: u64 = 1_000;

/// Below this many keys what is there anyway would be counted as theirs.
const ENOUGH_KEYS: u64 = 100_000;

/// Said before a number of keys, to a process that is to fill a memory store with them and tell by how much it grew.
const FILL: &str = "--fill";

fn main() -> Result<(), Failure> {
    // `cargo bench` adds arguments of its own.
    let arguments: Vec<String> = env::args().collect();
    if let [_, fill, keys] = &arguments[..]
        && fill == FILL
    {
        println!("{}", memory_store_bytes(keys.parse()?)?);
        return Ok(());
    }
    let (time, growth): (_, &[u64]) = if arguments.iter().any(|argument| argument == "--quick") {
        (Duration::from_millis(200), &[1_000, 100_000])
    } else {
        (Duration::from_secs(3), &[1_000, 10_000, 100_000, 1_000_000])
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    for takes in [1, 4, 16, 64, 256] {
        let server = Server::start()?;
        let cost_us = runtime.block_on(server.cost_us(takes, KEYS, time))?;
        tell(SCRIPT, &format!("batch of {takes}"), cost_us, "µs");
    }
    for &keys in growth {
        let server = Server::start()?;
        let before = server.used_bytes()?;
        runtime.block_on(server.fill(keys))?;
        let bytes = server.used_bytes()?.saturating_sub(before) as f64 / keys as f64;
        let cost_us = runtime.block_on(server.cost_us(64, keys, time))?;
        let case = format!("{} keys", thousands(keys));
        tell("the script: the same in batches of 64, by how many keys there are", &case, cost_us, "µs");
        if keys >= ENOUGH_KEYS {
            tell(MEMORY, &format!("in Redis, of {}", thousands(keys)), bytes, "bytes");
        }
    }
    for &keys in growth.iter().filter(|keys| **keys >= ENOUGH_KEYS) {
        // Another process, since what this one has freed would be used again, and not be seen.
        let output = Command::new(env::current_exe()?).args([FILL, &keys.to_string()]).output()?;
        let bytes: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
        tell(MEMORY, &format!("in the sidecar, of {}", thousands(keys)), bytes as f64 / keys as f64, "bytes");
    }
    Ok(())
}

fn tell(subject: &str, case: &str, value: f64, unit: &str) {
    println!("{}", json!({"subject": subject, "case": case, "value": value, "unit": unit}));
}

/// A Redis of our own.
struct Server {
    redis: Redis,
    /// Holds its directory.
    _run: RunDir,
}

impl Server {
    fn start() -> Result<Self, Failure> {
        let run = RunDir::new()?;
        let program: PathBuf = tools::redis_server()?;
        Ok(Self { redis: Redis::start(&program, &run, &[])?, _run: run })
    }

    /// Processor time of Redis for each decision, in microseconds, in batches of so many takes of as many keys.
    async fn cost_us(&self, takes: u64, keys: u64, time: Duration) -> Result<f64, Failure> {
        let store = self.store().await?;
        let batches: Vec<Batch> = (0..(keys / takes).min(4_000))
            .map(|number| batch((number * takes..(number + 1) * takes).map(|key| key * 611_953 % keys)))
            .collect::<Result<_, _>>()?;
        for batch in &batches {
            decide(&store, batch).await?;
        }
        let (start, before) = (Instant::now(), self.redis.process().cpu_us()?);
        let mut decided = 0;
        let mut next = batches.iter().cycle();
        while start.elapsed() < time {
            if let Some(batch) = next.next() {
                decide(&store, batch).await?;
                decided += takes;
            }
        }
        Ok(self.redis.process().cpu_us()?.saturating_sub(before) as f64 / decided as f64)
    }

    /// Writes a bucket for each of so many keys.
    async fn fill(&self, keys: u64) -> Result<(), Failure> {
        let store = self.store().await?;
        for first in (0..keys).step_by(1_000) {
            decide(&store, &batch(first..(first + 1_000).min(keys))?).await?;
        }
        Ok(())
    }

    async fn store(&self) -> Result<RedisStore, Failure> {
        Ok(RedisStore::start(RedisAddress::parse(&self.redis.url())?, TIMEOUTS).await)
    }

    fn used_bytes(&self) -> Result<u64, Failure> {
        let Reply::Text(text) = self.redis.command(&["INFO", "memory"])? else {
            return Err("INFO told no text".into());
        };
        let used = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
        Ok(used.ok_or("INFO tells no used_memory")?.trim().parse()?)
    }
}

/// Decides a batch; whatever does not pass is cheaper or dearer, and would be measured in the place of the right thing.
async fn decide(store: &RedisStore, batch: &Batch) -> Result<(), Failure> {
    let answer = store.take(batch.clone()).await?;
    let passed = answer.verdicts.iter().all(|verdict| matches!(verdict, contract::Verdict::Allowed(_)));
    if passed { Ok(()) } else { Err(format!("not everything passed: {:?}", answer.verdicts.first()).into()) }
}

/// By how much this process grows for so many buckets, the room of the map for more included.
fn memory_store_bytes(keys: u64) -> Result<u64, Failure> {
    let before = resident_bytes()?;
    let mut memory = Memory::new(usize::try_from(keys)? * 2);
    for first in (0..keys).step_by(1_000) {
        memory.take(&batch(first..(first + 1_000).min(keys))?.takes, NOW_US);
    }
    let grown = resident_bytes()?.saturating_sub(before);
    hint::black_box(&memory);
    Ok(grown)
}

fn resident_bytes() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = kib.ok_or("there is no VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
