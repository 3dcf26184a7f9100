//! What the tests of a Cluster stand on: six real nodes, keys of chosen slots, and takes of slow buckets.

use std::{
    env,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bucket::{Kind, Limit};
use contract::{BucketVerdict, FailureReason, Verdict};
use fleet::{Cluster, Redis, RunDir};
use sluice::{
    batch::{Ask, Batch, Take, bucket_key},
    store::{
        denials::DenyCache,
        redis::{
            Asking, Timeouts,
            cluster::{ClusterAddress, ClusterStore, slot::slot_of},
        },
    },
};

/// Generous, since the tests share a machine; where a timeout is the point, it is named.
pub const PATIENT: Timeouts = Timeouts { answer: Duration::from_secs(10), connect: Duration::from_secs(5) };
pub const IMPATIENT: Timeouts =
    Timeouts { answer: Duration::from_millis(200), connect: Duration::from_millis(500) };

/// How long an event is waited for before the test fails: far longer than it takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub const FAILED: Verdict = Verdict::Failed(FailureReason::StoreUnavailable);

/// Parts of the Cluster serve without the others, unless `args` say otherwise.
pub fn cluster(args: &[&str]) -> Cluster {
    let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let run = RunDir::new().expect("a directory");
    let args = [&["--cluster-require-full-coverage", "no"], args].concat();
    Cluster::start(Path::new(&program), &run, &args).unwrap_or_else(|error| {
        panic!(
            "{program} forms no Cluster ({error}): install it (apt-get install redis-server), or name one in REDIS_SERVER"
        )
    })
}

/// Each take is asked: what is remembered would hide what the Cluster says.
pub async fn store(cluster: &Cluster, timeouts: Timeouts) -> Arc<ClusterStore> {
    let address = ClusterAddress::parse(&cluster.url()).expect("the URL is right");
    let deny_cache = DenyCache { ceiling: Duration::ZERO, ..DenyCache::default() };
    let store = ClusterStore::start(address, Asking { deny_cache, ..timeouts.into() }).await;
    assert_eq!((store.ready(), store.partly()), (Ok(()), None));
    Arc::new(store)
}

/// A key that a primary has at first, one for each number.
pub fn key_of(cluster: &Cluster, primary: usize, number: usize) -> String {
    let keys = (0..).map(|try_| format!("k{number}-{try_}"));
    let mut of = keys.filter(|key| cluster.first_owner(slot_of(&name(key))) == primary);
    of.next().expect("there are enough")
}

pub fn name(key: &str) -> String {
    bucket_key("test", "slow", key)
}

/// Of a bucket of `burst` tokens that refills once a day.
pub fn ask(key: &str, burst: u64, cost_tokens: u64) -> Ask {
    let limit = Limit::new(1, 86_400_000_000, burst).expect("valid");
    Ask { bucket_key: name(key), limit, cost_tokens }
}

pub fn take(asks: Vec<Ask>) -> Take {
    Take { buckets: asks, kind: Kind::Take, follows: false }
}

pub fn follower(asks: Vec<Ask>) -> Take {
    Take { follows: true, ..take(asks) }
}

pub fn of_kind(kind: Kind, asks: Vec<Ask>) -> Take {
    Take { kind, ..take(asks) }
}

pub async fn decide(store: &ClusterStore, takes: Vec<Take>) -> Vec<Verdict> {
    let count = takes.len();
    let answer = store.take(Batch { takes }).await.expect("not overloaded");
    assert_eq!(answer.verdicts.len(), count);
    answer.verdicts
}

pub async fn decide_one(store: &ClusterStore, take: Take) -> Verdict {
    decide(store, vec![take]).await.remove(0)
}

/// What is left of a bucket.
pub async fn left(store: &ClusterStore, key: &str, burst: u64) -> Option<u64> {
    match decide_one(store, take(vec![ask(key, burst, 0)])).await {
        Verdict::Allowed(buckets) => Some(buckets[0].remaining),
        _ => None,
    }
}

pub fn buckets(verdict: &Verdict) -> &[BucketVerdict] {
    match verdict {
        Verdict::Allowed(buckets) | Verdict::Denied(buckets) | Verdict::Leased { buckets, .. } => buckets,
        Verdict::Failed(_) => &[],
    }
}

pub fn remaining(verdict: &Verdict) -> Vec<u64> {
    buckets(verdict).iter().map(|bucket| bucket.remaining).collect()
}

/// Polls until it is true; fails the test where it is not in time. How long it took.
pub async fn until(what: &str, mut poll: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !poll().await {
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    started.elapsed()
}

/// Has a thread wait for what the runtime must not.
pub async fn blocking<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(wait).await.expect("no panic")
}

/// How often a node executed a command.
pub fn calls(node: &Redis, command: &str) -> u64 {
    let stats = node.command(&["INFO", "commandstats"]).expect("INFO answers").to_string();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().expect("a number"))
}

/// How often a node answered an error of this name; nothing before version 6.2.
pub fn errors(node: &Redis, name: &str) -> u64 {
    let stats = node.command(&["INFO", "errorstats"]).expect("INFO answers").to_string();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{name}:count=")));
    line.map_or(0, |count| count.trim().parse().expect("a number"))
}
