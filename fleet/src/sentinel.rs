//! A primary, its replicas, and three Sentinels that watch over them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::{
    Error, Process, Redis, Reply, Result, RunDir, free_port,
    redis::ask,
    wait::{self, eventually},
};

/// Sentinels find each other within two seconds, and a replica at once.
const BOUND: Duration = Duration::from_secs(20);

/// What the primary is called.
const NAME: &str = "main";

/// How long the primary may be silent before a Sentinel takes it for gone, in milliseconds.
const DOWN_AFTER_MS: u32 = 500;

/// Redis servers, of which one is the primary, and three Sentinels, all stopped when this is dropped.
#[derive(Debug)]
pub struct Sentinels {
    redises: Vec<Redis>,
    sentinels: Vec<(Process, SocketAddr)>,
}

impl Sentinels {
    /// Starts all of them with one replica, and waits until each Sentinel knows of it and of the others.
    pub fn start(program: &Path, run: &RunDir) -> Result<Self> {
        Self::start_with(program, run, 1)
    }

    /// Likewise, with more replicas, of which the first is the one that is promoted.
    pub fn start_with(program: &Path, run: &RunDir, replicas: usize) -> Result<Self> {
        let at_once = ["--repl-diskless-sync-delay", "0"];
        let primary = Redis::start(program, run, &at_once)?;
        let port = primary.addr().port().to_string();
        let mut redises = vec![primary];
        for number in 1..=replicas {
            // The lowest is preferred.
            let priority = (100 * number).to_string();
            let follow = ["--replicaof", "127.0.0.1", &port, "--replica-priority", &priority];
            redises.push(Redis::start(program, run, &[&at_once[..], &follow].concat())?);
        }
        let primary = &redises[0];
        eventually(BOUND, "the replicas to follow", || {
            let told = primary.command(&["INFO", "replication"]).ok()?.to_string();
            (told.matches("state=online").count() == replicas).then_some(())
        })?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(start_one(program, run, primary.addr())?);
        }
        let fleet = Self { redises, sentinels };
        let replicas = replicas.to_string();
        for (process, addr) in &fleet.sentinels {
            wait::try_eventually(BOUND, "the Sentinels to find each other", || {
                process.check_running()?;
                let told = told(*addr).unwrap_or_default();
                let knows = |what: &str, count: &str| field(&told, what).is_some_and(|known| known == count);
                Ok((knows("num-slaves", &replicas) && knows("num-other-sentinels", "2")).then_some(()))
            })?;
        }
        Ok(fleet)
    }

    /// Where all of them are, as the sidecar reads it.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|(_, addr)| addr.to_string()).collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// The one that began as the primary, and its replicas.
    #[must_use]
    pub fn redises(&self) -> &[Redis] {
        &self.redises
    }

    /// A Sentinel's process.
    #[must_use]
    pub fn sentinel(&self, number: usize) -> &Process {
        &self.sentinels[number].0
    }

    /// Which of them the first Sentinel that answers takes for the primary.
    #[must_use]
    pub fn primary(&self) -> Option<usize> {
        let told = self.sentinels.iter().find_map(|(_, addr)| told(*addr).ok())?;
        let port = field(&told, "port")?;
        self.redises.iter().position(|redis| redis.addr().port().to_string() == port)
    }

    /// Runs one command at each of the Sentinels.
    pub fn command(&self, words: &[&str]) -> Result<()> {
        self.sentinels.iter().try_for_each(|(_, addr)| ask(*addr, words).map(drop))
    }

    /// Has the Sentinels promote the first replica now.
    pub fn fail_over(&self) -> Result<()> {
        ask(self.sentinels[0].1, &["SENTINEL", "FAILOVER", NAME]).map(drop)
    }
}

fn start_one(program: &Path, run: &RunDir, primary: SocketAddr) -> Result<(Process, SocketAddr)> {
    let name = run.name("sentinel");
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    // It writes what it learns into this file.
    let config = format!(
        "port {}\nbind 127.0.0.1\nprotected-mode no\nsentinel monitor {NAME} 127.0.0.1 {} 2\n\
         sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 5000\n",
        addr.port(),
        primary.port()
    );
    let path = run.write(&format!("{name}.conf"), &config)?;
    let mut command = Command::new(program);
    command.arg(path).arg("--sentinel").current_dir(run.path());
    let process = Process::start(&name, command, run.path())?;
    wait::try_eventually(BOUND, "a Sentinel to answer", || {
        process.check_running()?;
        Ok(ask(addr, &["PING"]).ok().map(drop))
    })?;
    Ok((process, addr))
}

/// What a Sentinel says of the primary: names and values in turn.
fn told(sentinel: SocketAddr) -> Result<Vec<Reply>> {
    match ask(sentinel, &["SENTINEL", "MASTER", NAME])? {
        Reply::List(told) => Ok(told),
        other => Err(Error::Answer { from: sentinel.to_string(), detail: other.to_string() }),
    }
}

fn field(told: &[Reply], name: &str) -> Option<String> {
    let mut pairs = told.chunks_exact(2);
    pairs.find(|pair| pair[0].to_string() == name).map(|pair| pair[1].to_string())
}
