//! One connection to Redis, found fit before it is used.

use std::{fmt, sync::Arc, time::Duration};

use bucket::{Kind, Limit};
use redis::{RedisError, Value, aio::MultiplexedConnection};
use tokio::{sync::watch, time::Instant};
use tracing::debug;

use super::{
    Fault, Handle, RedisAddress, Timeouts,
    dial::{Connection, DialError, dial},
    fault::RIGHTS,
    lanes::Lane,
    queue::Part,
    redirect::Redirect,
};
use crate::{
    batch::{Ask, Take},
    store::script::{self, SCRIPT},
};

/// The oldest Redis with `SET … PXAT`.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// A bucket of nobody's: every domain has a name.
const PROBE_KEY: &str = "sluice:1:/probe";

/// A connection to a Redis that can decide takes.
pub(super) struct Link {
    connection: Connection,
    script_sha: Arc<str>,
    timeout: Duration,
    probe: Probe,
    /// The policy by which it may evict buckets, where it may.
    evicts: Option<String>,
}

/// By what a server is probed.
#[derive(Clone, Debug)]
struct Probe {
    /// A key of this node's, where it is one of a Cluster. It may say that it has it no longer: then it has answered.
    node_key: Option<watch::Receiver<String>>,
}

impl Probe {
    fn of(address: &RedisAddress) -> Self {
        Self { node_key: address.node_key() }
    }

    fn key(&self) -> String {
        self.node_key.as_ref().map_or_else(|| PROBE_KEY.to_owned(), |key| key.borrow().clone())
    }

    /// Whether a node says that another has the key, or none: of its other slots that tells nothing.
    fn is_elsewhere(&self, error: &RedisError) -> bool {
        self.node_key.is_some() && Redirect::of(error, Lane::Alone { asking: false }).is_some()
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {within:?}{}", if *.tls { "; perhaps it does not speak TLS at this port" } else { "" })]
    Timeout { within: Duration, tls: bool },
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("it is version {0}; sluice needs Redis 6.2 or later, or any Valkey")]
    TooOld(String),
    #[error("it is built for {0} bits; sluice needs a Redis of 64, whose numbers are exact")]
    TooNarrow(String),
    #[error("it is a replica, which takes no writes; name the primary")]
    Replica,
    #[error("it is a node of a Redis Cluster; name some of its nodes by redis+cluster://host:port,host:port")]
    Cluster,
    #[error("its user lacks rights (NOPERM): {}; give them by ACL SETUSER: {RIGHTS}", .0.join(", "))]
    Rights(Vec<&'static str>),
    #[error("it is no node of a Redis Cluster; name a Redis that stands alone by redis://")]
    NoCluster,
}

/// Why a run has no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// Another node of a Cluster decides it: nothing was taken, and the link is fit for other runs.
    #[error("it is for another node to decide")]
    Redirected(Redirect),
    /// Redis answered that it will not: nothing was taken, and the link is fit for other runs.
    #[error("{0}")]
    Refused(Fault),
    /// Redis answered that it will not, and is not the one to ask: nothing was taken, and the link is of no more use.
    #[error("{0}")]
    Left(Fault),
    /// The run may or may not have been executed, or still be. What is sent behind it waits for it.
    #[error("answers take longer than --redis-timeout ({0:?})")]
    Late(Duration),
    /// The run may or may not have been executed: the link is of no more use.
    #[error("{0}")]
    Lost(String),
}

impl From<RedisError> for RunError {
    fn from(error: RedisError) -> Self {
        match Fault::of(&error) {
            None => Self::Lost(error.to_string()),
            Some(fault) if fault.ends_link() => Self::Left(fault),
            Some(fault) => Self::Refused(fault),
        }
    }
}

impl Link {
    /// Connects, authenticates, checks the server and the user's rights, and loads the script.
    pub(super) async fn connect(address: &RedisAddress, timeouts: Timeouts) -> Result<Self, ConnectError> {
        tokio::time::timeout(timeouts.connect, Self::connect_unbounded(address, timeouts))
            .await
            .map_err(|_| ConnectError::Timeout { within: timeouts.connect, tls: address.has_tls() })?
    }

    async fn connect_unbounded(address: &RedisAddress, timeouts: Timeouts) -> Result<Self, ConnectError> {
        let connection = dial(address).await?;
        let mut redis = connection.redis.clone();
        let failed = |error| ConnectError::Dial(DialError::of(error, address.host()));
        let mut evicts = None;
        match redis::cmd("INFO").query_async::<String>(&mut redis).await {
            Ok(info) => {
                check_server(&info, address.node_key().is_some())?;
                evicts = field(&info, "maxmemory_policy")
                    .filter(|policy| *policy != "noeviction")
                    .map(str::to_owned);
            }
            Err(error) if matches!(Fault::of(&error), Some(Fault::NoRight(_))) => {
                debug!(%error, "the server is not checked, since its user may not call INFO");
            }
            Err(error) => return Err(failed(error)),
        }
        let probe = Probe::of(address);
        check_rights(&mut redis, &probe).await?.map_err(failed)?;
        let load: Result<String, _> =
            redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut redis).await;
        let script_sha = load.map_err(failed)?.into();
        Ok(Self { connection, script_sha, timeout: timeouts.answer, probe, evicts })
    }

    /// The policy by which it may evict buckets, where it may and tells so.
    pub(super) fn evicts(&self) -> Option<&str> {
        self.evicts.as_deref()
    }

    /// Asks a node of a Redis Cluster, over a connection of its own, how the Cluster is and who has which slots.
    pub(super) async fn ask_cluster(
        address: &RedisAddress,
        timeouts: Timeouts,
    ) -> Result<(String, String), ConnectError> {
        let asked = async {
            let connection = dial(address).await?;
            let mut redis = connection.redis.clone();
            let mut pipe = redis::pipe();
            pipe.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("NODES").ignore_errors();
            let failed = |error| ConnectError::Dial(DialError::of(error, address.host()));
            let answers: Vec<Result<String, RedisError>> =
                pipe.query_async(&mut redis).await.map_err(failed)?;
            let mut told = Vec::new();
            let mut missing = Vec::new();
            for (name, answer) in ["CLUSTER INFO", "CLUSTER NODES"].into_iter().zip(answers) {
                match answer {
                    Ok(text) => told.push(text),
                    Err(error) if matches!(Fault::of(&error), Some(Fault::NoRight(_))) => missing.push(name),
                    Err(error) => return Err(failed(error)),
                }
            }
            match <[String; 2]>::try_from(told) {
                Ok([info, nodes]) => Ok((info, nodes)),
                Err(_) => Err(ConnectError::Rights(missing)),
            }
        };
        tokio::time::timeout(timeouts.connect, asked)
            .await
            .map_err(|_| ConnectError::Timeout { within: timeouts.connect, tls: address.has_tls() })?
    }

    /// Its connection, for whoever asks for what is no take.
    pub(super) fn handle(&self) -> Handle {
        Handle(self.connection.redis.clone())
    }

    /// Waits until the connection is lost.
    pub(super) async fn lost(&self) {
        self.connection.lost.notified().await;
    }

    /// Runs the script once, behind whatever is under way on this connection. The parts come back with the reply.
    pub(super) fn run(
        &self,
        parts: Vec<Part>,
    ) -> impl Future<Output = (Vec<Part>, Result<Vec<u8>, RunError>)> + Send + 'static {
        let (mut connection, script_sha, timeout) =
            (self.connection.redis.clone(), Arc::clone(&self.script_sha), self.timeout);
        async move {
            let takes: Vec<&Take> = parts.iter().flat_map(Part::takes).collect();
            let lane = parts.first().map_or(Lane::Any, Part::lane);
            let asking = lane == Lane::Alone { asking: true };
            let evaluated = evaluate(&mut connection, &script_sha, &takes, asking);
            let reply = match tokio::time::timeout(timeout, evaluated).await {
                Ok(Ok(Value::BulkString(reply))) => Ok(reply),
                Ok(Ok(_)) => Err(RunError::Lost("an unknown reply".to_owned())),
                Ok(Err(error)) => {
                    Err(Redirect::of(&error, lane).map_or_else(|| error.into(), RunError::Redirected))
                }
                Err(_) => Err(RunError::Late(timeout)),
            };
            (parts, reply)
        }
    }

    /// Runs the script once to see whether it is: it takes a token of a bucket of nobody's, which is full again a moment
    /// later. How long the answer took, behind whatever is under way; an error where there is none for `patience`.
    pub(super) fn probe(
        &self,
        patience: Duration,
    ) -> impl Future<Output = Result<Duration, RunError>> + Send + 'static {
        let (mut connection, script_sha) = (self.connection.redis.clone(), Arc::clone(&self.script_sha));
        let probe = self.probe.clone();
        async move {
            let take = probing_take(&probe.key());
            let takes = [&take];
            let sent = Instant::now();
            let evaluated = evaluate(&mut connection, &script_sha, &takes, false);
            match tokio::time::timeout(patience, evaluated).await {
                Ok(Ok(_)) => Ok(sent.elapsed()),
                Ok(Err(error)) if probe.is_elsewhere(&error) => Ok(sent.elapsed()),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(RunError::Lost(format!("nothing was heard of it for {patience:?}"))),
            }
        }
    }
}

/// A bucket that earns a million tokens a second.
fn probing_take(key: &str) -> Take {
    const LIMIT: Limit = match Limit::new(1, 1, 1_000) {
        Ok(limit) => limit,
        Err(_) => panic!("the limit is valid"),
    };
    let buckets = vec![Ask { bucket_key: key.to_owned(), limit: LIMIT, cost_tokens: 1 }];
    Take { buckets, kind: Kind::Take, follows: false }
}

async fn evaluate(
    connection: &mut MultiplexedConnection,
    script_sha: &str,
    takes: &[&Take],
    asking: bool,
) -> Result<Value, RedisError> {
    match send(connection, command("EVALSHA", script_sha, takes), asking).await {
        // A restart or a SCRIPT FLUSH forgot the script. This is the one failure after which the run was
        // certainly not executed, so it is sent again, with the whole script.
        Err(error) if Fault::of(&error) == Some(Fault::NoScript) => {
            send(connection, command("EVAL", SCRIPT, takes), asking).await
        }
        reply => reply,
    }
}

/// With `ASKING` before it, a node decides what is about to be its own.
async fn send(
    connection: &mut MultiplexedConnection,
    command: redis::Cmd,
    asking: bool,
) -> Result<Value, RedisError> {
    if !asking {
        return command.query_async(connection).await;
    }
    let mut asked = redis::pipe();
    asked.cmd("ASKING").add_command(command);
    // Of the two replies the second, whose error tells its details only by itself.
    match connection.send_packed_commands(&asked, 1, 1).await?.pop() {
        Some(reply) => reply.extract_error(),
        None => Ok(Value::Nil),
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

fn command(name: &str, script: &str, takes: &[&Take]) -> redis::Cmd {
    let run = script::encode(takes);
    let bytes =
        name.len() + script.len() + run.argument.len() + run.keys.iter().map(|key| key.len()).sum::<usize>();
    // Name, script, how many keys, the keys, and the argument.
    let mut command = redis::Cmd::with_capacity(4 + run.keys.len(), bytes + 8);
    command.arg(name).arg(script).arg(run.keys.len()).arg(&run.keys).arg(run.argument.as_slice());
    command
}

/// Calls what the scripts call, so that a right that is missing is named: of an error within a script Redis tells neither
/// command nor key. A user that may `SET` and not `DEL` would fail a batch after a part of it was written.
async fn check_rights(
    connection: &mut MultiplexedConnection,
    probe: &Probe,
) -> Result<Result<(), RedisError>, ConnectError> {
    let key = &*probe.key();
    let mut calls = redis::pipe();
    calls.cmd("TIME").cmd("MGET").arg(key);
    calls.cmd("SET").arg(key).arg("").arg("PX").arg(1).cmd("DEL").arg(key);
    calls.cmd("HSET").arg(key).arg("").arg("").cmd("HGET").arg(key).arg("");
    calls.cmd("HSCAN").arg(key).arg(0).cmd("HLEN").arg(key).cmd("HDEL").arg(key).arg("");
    calls.cmd("EVAL").arg("return 1").arg(0).ignore_errors();
    let mut names = vec!["TIME", "MGET", "SET", "DEL", "HSET", "HGET", "HSCAN", "HLEN", "HDEL", "EVAL"];
    if probe.node_key.is_some() {
        // It tells of the command behind it, which needs none.
        calls.cmd("ASKING").cmd("TIME");
        names.extend(["ASKING", "TIME"]);
    }
    let outcomes: Vec<Result<Value, RedisError>> = match calls.query_async(connection).await {
        Ok(outcomes) => outcomes,
        Err(error) => return Ok(Err(error)),
    };
    let mut missing = Vec::new();
    for (name, outcome) in names.into_iter().zip(outcomes) {
        let Err(error) = outcome else { continue };
        match Fault::of(&error) {
            // It quotes the user's name, which may hold anything but a space.
            Some(Fault::NoRight(said)) if said.contains("permissions to access") => {
                missing.push("the keys sluice:1:*");
            }
            Some(Fault::NoRight(_)) => missing.push(name),
            _ if probe.is_elsewhere(&error) => {}
            Some(fault) if fault.ends_link() => return Ok(Err(error)),
            // A probe tells of what may pass, such as memory that is full.
            _ => {}
        }
    }
    missing.dedup();
    if missing.is_empty() { Ok(Ok(())) } else { Err(ConnectError::Rights(missing)) }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn check_server(info: &str, is_node: bool) -> Result<(), ConnectError> {
    let field = |name: &str| field(info, name);
    if let Some(version) = field("redis_version").filter(|version| is_too_old(version)) {
        return Err(ConnectError::TooOld(version.to_owned()));
    }
    if let Some(bits) = field("arch_bits").filter(|bits| *bits != "64") {
        return Err(ConnectError::TooNarrow(bits.to_owned()));
    }
    match field("redis_mode") {
        Some("cluster") if !is_node => return Err(ConnectError::Cluster),
        Some(mode) if is_node && mode != "cluster" => return Err(ConnectError::NoCluster),
        _ => {}
    }
    if field("role") == Some("slave") {
        return Err(ConnectError::Replica);
    }
    Ok(())
}

/// A version that cannot be read is not held against the server: the script tells.
fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < OLDEST_VERSION,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_decide_takes_is_refused() {
        let check_server = |info: &str| check_server(info, false);
        let info = |version: &str, role: &str| {
            format!("# Server\r\nredis_version:{version}\r\nrole:{role}\r\nmaxmemory_policy:noeviction\r\n")
        };
        for version in ["6.2.0", "7.0.15", "8.0.1", "255.255.255", "unstable"] {
            assert!(check_server(&info(version, "master")).is_ok(), "{version}");
        }
        assert!(matches!(check_server(&info("6.0.20", "master")), Err(ConnectError::TooOld(_))));
        assert!(matches!(check_server(&info("7.0.15", "slave")), Err(ConnectError::Replica)));
        assert!(check_server("arch_bits:64\r\n").is_ok());
        assert!(matches!(check_server("arch_bits:32\r\n"), Err(ConnectError::TooNarrow(_))));
        let mode = |mode: &str, is_node| super::check_server(&format!("redis_mode:{mode}\r\n"), is_node);
        assert!(matches!(mode("cluster", false), Err(ConnectError::Cluster)));
        assert!(matches!(mode("standalone", true), Err(ConnectError::NoCluster)));
        assert!(mode("cluster", true).is_ok() && mode("standalone", false).is_ok());
    }
}
