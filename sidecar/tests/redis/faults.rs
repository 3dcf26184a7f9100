//! Each error by which a real Redis refuses, and what only a stand-in can say at will.

use std::time::Duration;

use fleet::{Redis, free_port};
use sluice::store::redis::{RedisStore, Timeouts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};

use super::{FAILED, SLACK, TIMEOUTS, address, redis, remaining, take, until, until_ready, until_said};

async fn store(redis: &Redis) -> RedisStore {
    let store = RedisStore::start(address(&redis.url()), TIMEOUTS).await;
    assert_eq!(remaining(&store, "a").await, Some(999_999));
    store
}

/// Refused without traffic or with it, told, and healed without traffic.
async fn refuses_and_recovers(redis: &Redis, store: &RedisStore, said: &str, mend: &[&str]) {
    assert_eq!(take(store, "a").await, FAILED);
    until_said(store, said).await;
    redis.command(mend).expect("mended");
    until_ready(store).await;
    assert_eq!(remaining(store, "a").await, Some(999_998), "what was refused took nothing");
}

#[tokio::test]
async fn a_full_memory_is_noticed_and_mended_without_a_request() {
    let (redis, _run) = redis(&[]);
    let quick = Timeouts { answer: Duration::from_millis(500), ..TIMEOUTS };
    let store = RedisStore::start(address(&redis.url()), quick).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("set");
    until_said(&store, "its memory is full (OOM)").await;
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).expect("set");
    until_ready(&store).await;
}

#[tokio::test]
async fn a_redis_without_enough_replicas_is_told() {
    let (redis, _run) = redis(&[]);
    let store = store(&redis).await;
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]).expect("set");
    let mend = ["CONFIG", "SET", "min-replicas-to-write", "0"];
    refuses_and_recovers(&redis, &store, "(NOREPLICAS)", &mend).await;
}

#[tokio::test]
async fn a_redis_that_cannot_save_is_told() {
    let (redis, _run) = redis(&[]);
    let store = store(&redis).await;
    let dir = redis.command(&["CONFIG", "GET", "dir"]).expect("told").to_string();
    std::fs::remove_dir_all(dir.lines().nth(1).expect("a directory")).expect("removed");
    redis.command(&["CONFIG", "SET", "save", "3600 1"]).expect("set");
    // Its child fails where there is no directory, and then it refuses writes.
    let _ = redis.command(&["BGSAVE"]);
    until("the save to fail", || {
        let told = redis.command(&["INFO", "persistence"]).expect("INFO").to_string();
        told.contains("rdb_last_bgsave_status:err")
    })
    .await;
    refuses_and_recovers(&redis, &store, "(MISCONF)", &["CONFIG", "SET", "save", ""]).await;
}

#[tokio::test]
async fn a_redis_that_is_busy_with_a_script_is_told_and_used_again_once_it_is_not() {
    let (redis, _run) = redis(&["--lua-time-limit", "50"]);
    let impatient = Timeouts { answer: Duration::from_millis(300), ..TIMEOUTS };
    let store = RedisStore::start(address(&redis.url()), impatient).await;
    let (addr, url) = (redis.addr(), redis.url());
    let endless = std::thread::spawn(move || {
        let mut connection = redis::Client::open(url).expect("a URL").get_connection().expect("a connection");
        redis::cmd("EVAL")
            .arg("while true do end")
            .arg(0)
            .query::<()>(&mut connection)
            .expect_err("it is killed")
    });
    until_said(&store, "has run for too long (BUSY)").await;
    redis.command(&["SCRIPT", "KILL"]).unwrap_or_else(|error| panic!("{addr}: {error}"));
    until_ready(&store).await;
    endless.join().expect("it ends");
    assert!(remaining(&store, "a").await.is_some());
}

#[tokio::test]
async fn a_replica_that_has_lost_its_primary_is_left() {
    let (redis, _run) = redis(&["--replica-serve-stale-data", "no"]);
    let store = store(&redis).await;
    let nobody = free_port().expect("a port").to_string();
    redis.command(&["REPLICAOF", "127.0.0.1", &nobody]).expect("told");
    assert_eq!(take(&store, "a").await, FAILED);
    until_said(&store, "replica").await;
    redis.command(&["REPLICAOF", "NO", "ONE"]).expect("told");
    until_ready(&store).await;
}

#[tokio::test]
async fn a_node_of_a_cluster_is_told_from_a_redis_that_stands_alone() {
    let (redis, _run) = redis(&["--cluster-enabled", "yes"]);
    let store = RedisStore::start(address(&redis.url()), TIMEOUTS).await;
    let reason = store.ready().expect_err("it is refused");
    assert!(reason.contains("a node of a Redis Cluster"), "{reason}");
}

/// A stand-in that answers each script with what is told, and everything else as if all were well.
async fn stand_in(said: watch::Receiver<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let said = said.clone();
            tokio::spawn(async move {
                let (mut unread, mut bytes) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    unread.extend_from_slice(&bytes[..read]);
                    while let Some((words, length)) = command(&unread) {
                        unread.drain(..length);
                        let answer = match words[0].as_str() {
                            "HELLO" => "%1\r\n+proto\r\n:3\r\n".to_owned(),
                            "INFO" => "$22\r\nredis_version:7.0.15\r\n\r\n".to_owned(),
                            "SCRIPT" => "$2\r\nab\r\n".to_owned(),
                            "EVALSHA" => format!("{}\r\n", *said.borrow()),
                            _ => "+OK\r\n".to_owned(),
                        };
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    url
}

/// The words of the first command, and its length; nothing where it is not whole yet.
fn command(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    // A kind and a number, such as `*3` or `$7`; and the place behind it.
    let line = |at: usize| {
        let end = at + bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let number: usize = str::from_utf8(&bytes[at + 1..end]).ok()?.parse().ok()?;
        Some((number, end + 2))
    };
    let (count, mut after) = line(0)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, start) = line(after)?;
        let word = bytes.get(start..start + length)?;
        bytes.get(start + length..start + length + 2)?;
        words.push(String::from_utf8_lossy(word).to_uppercase());
        after = start + length + 2;
    }
    Some((words, after))
}

/// What no Redis says at will on one machine, or not for long enough to be seen.
#[tokio::test]
async fn what_a_redis_says_when_it_is_not_the_one_to_ask_ends_the_connection_and_is_told() {
    let well = "+OK";
    let (say, said) = watch::channel(well);
    let store = RedisStore::start(address(&stand_in(said).await), TIMEOUTS).await;
    assert_eq!(store.ready(), Ok(()));
    for (answer, reason) in [
        ("-LOADING Redis is loading the dataset in memory", "(LOADING)"),
        ("-READONLY You can't write against a read only replica.", "(READONLY)"),
        ("-MASTERDOWN Link with MASTER is down", "(MASTERDOWN)"),
        ("-CLUSTERDOWN The cluster is down", "(CLUSTERDOWN)"),
        ("-MOVED 1234 10.0.0.7:6379", "(MOVED)"),
        ("-ASK 1234 10.0.0.7:6379", "(ASK)"),
        ("-NOAUTH Authentication required.", "(NOAUTH)"),
        ("-ERR Error running script (call to f_1): @user_script:1: -READONLY no", "(READONLY)"),
    ] {
        say.send_replace(answer);
        assert_eq!(take(&store, "a").await, FAILED, "{answer}");
        until_said(&store, reason).await;
        let started = tokio::time::Instant::now();
        assert_eq!(take(&store, "a").await, FAILED, "{answer}");
        assert!(started.elapsed() < SLACK, "it is not waited for: {:?}", started.elapsed());
        say.send_replace(well);
        until_ready(&store).await;
    }
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_used_once_it_has() {
    let (redis, run) = redis(&[]);
    let value = "x".repeat(10_000);
    for number in 0..2_000 {
        redis.command(&["SET", &format!("other:{number}"), &value]).expect("set");
    }
    redis.command(&["CONFIG", "SET", "rdbcompression", "no"]).expect("set");
    redis.command(&["SAVE"]).expect("saved");
    let dir = redis.command(&["CONFIG", "GET", "dir"]).expect("told").to_string();
    let dump = std::path::Path::new(dir.lines().nth(1).expect("a directory")).join("dump.rdb");
    let home = run.path().join("loading");
    std::fs::create_dir(&home).expect("made");
    std::fs::copy(dump, home.join("dump.rdb")).expect("copied");
    // Each key takes a millisecond to load, by a setting that is made for tests, so that the state can be seen; Redis
    // answers every two megabytes.
    let port = free_port().expect("a port").to_string();
    let mut command = std::process::Command::new(super::program());
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--key-load-delay", "1000"]);
    command.args(["--rdbcompression", "no", "--dir"]).arg(&home);
    let loading = fleet::Process::start("loading", command, run.path()).expect("started");
    let store = RedisStore::start(address(&format!("redis://127.0.0.1:{port}")), TIMEOUTS).await;
    until_said(&store, "loading its data into memory (LOADING)").await;
    assert_eq!(take(&store, "a").await, FAILED);
    until_ready(&store).await;
    assert_eq!(remaining(&store, "a").await, Some(999_999));
    loading.check_running().expect("it runs");
}
