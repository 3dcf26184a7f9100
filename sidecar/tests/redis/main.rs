//! The Redis store where Redis is hard to reach, refuses, is slow, or moves.

mod access;
mod faults;
mod sentinel;
mod slow;
mod tls;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use bucket::{Kind, Limit};
use contract::{FailureReason, Verdict};
use fleet::{Redis, RunDir};
use sluice::{
    batch::{Ask, Batch, Take, bucket_key},
    store::redis::{RedisAddress, RedisStore, Timeouts},
};

/// Generous, since the tests share a machine; where a timeout is the point, it is named.
const TIMEOUTS: Timeouts = Timeouts { answer: Duration::from_secs(5), connect: Duration::from_secs(5) };

/// A machine that is busy with other tests may add this to what is waited for.
const SLACK: Duration = Duration::from_secs(2);

const FAILED: Verdict = Verdict::Failed(FailureReason::StoreUnavailable);

fn program() -> PathBuf {
    fleet::tools::redis_server().expect("redis-server is there")
}

fn redis(args: &[&str]) -> (Redis, RunDir) {
    let run = RunDir::new().expect("a directory");
    (Redis::start(&program(), &run, args).expect("Redis starts"), run)
}

fn address(url: &str) -> RedisAddress {
    RedisAddress::parse(url).expect("the URL is right")
}

fn one(key: &str, burst: u64) -> Batch {
    let limit = Limit::new(1, 3_600_000_000, burst).expect("valid");
    let ask = Ask { bucket_key: bucket_key("test", "slow", key), limit, cost_tokens: 1 };
    Batch { takes: vec![Take { buckets: vec![ask], kind: Kind::Take, follows: false }] }
}

async fn take(store: &RedisStore, key: &str) -> Verdict {
    store.take(one(key, 1_000_000)).await.expect("not overloaded").verdicts.remove(0)
}

/// How many tokens of a million are left after one was taken; nothing where none could be.
async fn remaining(store: &RedisStore, key: &str) -> Option<u64> {
    match take(store, key).await {
        Verdict::Allowed(buckets) => Some(buckets[0].remaining),
        _ => None,
    }
}

/// Polls until it is true; fails the test where it is not for 30 s. How long it took.
async fn until(what: &str, mut poll: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !poll() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited 30 s for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    started.elapsed()
}

/// Waits until the store is not ready for a reason that says this.
async fn until_said(store: &RedisStore, what: &str) {
    let mut last = Ok(());
    let started = Instant::now();
    while !last.as_ref().is_err_and(|reason: &String| reason.contains(what)) {
        assert!(started.elapsed() < Duration::from_secs(30), "waited 30 s for {what:?}, and found {last:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
        last = store.ready();
    }
}

async fn until_ready(store: &RedisStore) -> Duration {
    until("the store to be ready", || store.ready().is_ok()).await
}
