//! One connection to Redis, found fit before it is used.

use std::{fmt, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value,
    aio::MultiplexedConnection,
};
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::{RedisAddress, Timeouts, lanes::Lane, queue::Part};
use crate::{
    batch::Take,
    store::script::{self, SCRIPT},
};

/// The oldest Redis with `SET … PXAT`.
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// A connection to a Redis that can decide takes.
pub(super) struct Link {
    connection: MultiplexedConnection,
    lost: Arc<Notify>,
    script_sha: Arc<str>,
    timeout: Duration,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("it is version {0}; sluice needs Redis 6.2 or later, or any Valkey")]
    TooOld(String),
    #[error("it is built for {0} bits; sluice needs a Redis of 64, whose numbers are exact")]
    TooNarrow(String),
    #[error("it is a replica, which takes no writes; name the primary")]
    Replica,
    #[error(
        "it is a node of a Redis Cluster, where one run cannot reach every bucket; name a Redis that stands alone"
    )]
    Cluster,
}

/// Why a run has no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// Redis answered that it will not: nothing was taken, and the link is fit for other runs.
    #[error("Redis refused the script: {0}")]
    Refused(RedisError),
    /// The run may or may not have been executed, or still be. No further one is sent over the link: it would wait
    /// behind this one.
    #[error("no reply within {0:?}")]
    Late(Duration),
    /// The run may or may not have been executed, or the server is no longer the one to ask: the link is of no
    /// more use.
    #[error("{0}")]
    Lost(String),
}

impl Link {
    /// Connects, authenticates, checks the server and loads the script.
    pub(super) async fn connect(address: &RedisAddress, timeouts: Timeouts) -> Result<Self, ConnectError> {
        tokio::time::timeout(timeouts.connect, Self::connect_unbounded(address, timeouts))
            .await
            .map_err(|_| ConnectError::Timeout(timeouts.connect))?
    }

    async fn connect_unbounded(address: &RedisAddress, timeouts: Timeouts) -> Result<Self, ConnectError> {
        let lost = Arc::new(Notify::new());
        let teller = Arc::clone(&lost);
        let on_push = move |push: PushInfo| -> Result<(), std::convert::Infallible> {
            if push.kind == PushKind::Disconnection {
                teller.notify_one();
            }
            Ok(())
        };
        // Both timeouts are set around whole calls, here and in `run`, so the library's own are off.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(on_push);
        let client = Client::open(address.connection_info())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        match redis::cmd("INFO").query_async::<String>(&mut connection).await {
            Ok(info) => check_server(&info)?,
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
                debug!(%error, "the server is not checked, since its user may not call INFO");
            }
            Err(error) => return Err(error.into()),
        }
        let script_sha: String =
            redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await?;
        Ok(Self { connection, lost, script_sha: script_sha.into(), timeout: timeouts.answer })
    }

    /// Waits until the connection is lost.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Runs the script once, behind whatever is under way on this connection. The parts come back with the reply.
    pub(super) fn run(
        &self,
        parts: Vec<Part>,
    ) -> impl Future<Output = (Vec<Part>, Result<Vec<u8>, RunError>)> + Send + 'static {
        let (mut connection, script_sha, timeout) =
            (self.connection.clone(), Arc::clone(&self.script_sha), self.timeout);
        async move {
            let evaluated = evaluate(&mut connection, &script_sha, &parts);
            let reply = match tokio::time::timeout(timeout, evaluated).await {
                Ok(Ok(Value::BulkString(reply))) => Ok(reply),
                Ok(Ok(_)) => Err(RunError::Lost("an unknown reply".to_owned())),
                Ok(Err(error)) if is_refusal(&error) => Err(RunError::Refused(error)),
                Ok(Err(error)) => Err(RunError::Lost(error.to_string())),
                Err(_) => Err(RunError::Late(timeout)),
            };
            (parts, reply)
        }
    }
}

async fn evaluate(
    connection: &mut MultiplexedConnection,
    script_sha: &str,
    parts: &[Part],
) -> Result<Value, RedisError> {
    let asking = parts.first().is_some_and(|part| part.lane() == Lane::Alone { asking: true });
    match send(connection, command("EVALSHA", script_sha, parts), asking).await {
        // A restart or a SCRIPT FLUSH forgot the script. This is the one failure after which the run was
        // certainly not executed, so it is sent again, with the whole script.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            send(connection, command("EVAL", SCRIPT, parts), asking).await
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
    asked.cmd("ASKING").ignore().add_command(command);
    let (reply,) = asked.query_async(connection).await?;
    Ok(reply)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

fn command(name: &str, script: &str, parts: &[Part]) -> redis::Cmd {
    let takes: Vec<&Take> = parts.iter().flat_map(Part::takes).collect();
    let run = script::encode(&takes);
    let bytes =
        name.len() + script.len() + run.argument.len() + run.keys.iter().map(|key| key.len()).sum::<usize>();
    // Name, script, how many keys, the keys, and the argument.
    let mut command = redis::Cmd::with_capacity(4 + run.keys.len(), bytes + 8);
    command.arg(name).arg(script).arg(run.keys.len()).arg(&run.keys).arg(run.argument.as_slice());
    command
}

/// Whether the server answered, is the right one, and just would not: out of memory, busy, too few replicas.
fn is_refusal(error: &RedisError) -> bool {
    // Before version 7 Redis tells of an error within a script as an error of the script, with the text of both.
    let text = error.to_string();
    if text.contains("READONLY ") || text.contains("MASTERDOWN ") {
        return false;
    }
    match error.kind() {
        ErrorKind::Server(kind) => !matches!(
            kind,
            ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown
        ),
        ErrorKind::Extension => true,
        _ => false,
    }
}

fn check_server(info: &str) -> Result<(), ConnectError> {
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    if let Some(version) = field("redis_version").filter(|version| is_too_old(version)) {
        return Err(ConnectError::TooOld(version.to_owned()));
    }
    if let Some(bits) = field("arch_bits").filter(|bits| *bits != "64") {
        return Err(ConnectError::TooNarrow(bits.to_owned()));
    }
    if field("redis_mode") == Some("cluster") {
        return Err(ConnectError::Cluster);
    }
    if field("role") == Some("slave") {
        return Err(ConnectError::Replica);
    }
    if let Some(policy) = field("maxmemory_policy").filter(|policy| *policy != "noeviction") {
        warn!(
            maxmemory_policy = policy,
            "Redis may evict buckets when its memory is full, and an evicted bucket is a forgotten debt: \
             set maxmemory-policy to noeviction"
        );
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
        assert!(matches!(check_server("redis_mode:cluster\r\n"), Err(ConnectError::Cluster)));
    }
}
