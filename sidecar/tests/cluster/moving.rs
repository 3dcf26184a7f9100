//! What a Cluster decides while slots move from node to node, and primaries change on purpose: nothing is lost, and nothing
//! is taken twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use contract::Verdict;
use fleet::{Cluster, Redis, Reply};
use sluice::{
    batch::{Ask, bucket_key},
    store::redis::cluster::{ClusterStore, slot::slot_of},
};
use tokio::task::JoinHandle;

use crate::support::*;

/// Enough that none is empty before the test ends.
const BURST: u64 = 50_000;

/// Buckets of one client's key under several policies: all are in one slot.
fn of_policy(policy: usize, key: &str, cost_tokens: u64) -> Ask {
    Ask { bucket_key: bucket_key("test", &format!("p{policy}"), key), ..ask(key, BURST, cost_tokens) }
}

const POLICIES: usize = 6;

/// Takes without a pause from one, two and three buckets of a key, and counts what was taken of each.
struct Load {
    stop: Arc<AtomicBool>,
    taken: Arc<[AtomicU64; POLICIES]>,
    failed: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(store: &Arc<ClusterStore>, key: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let taken: Arc<[AtomicU64; POLICIES]> = Arc::default();
        let failed = Arc::new(AtomicU64::new(0));
        let tasks = (0..8).map(|task: usize| {
            let (store, key) = (Arc::clone(store), key.to_owned());
            let (stop, taken, failed) = (Arc::clone(&stop), Arc::clone(&taken), Arc::clone(&failed));
            tokio::spawn(async move {
                for turn in task.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let policies: Vec<usize> =
                        (0..=turn % 3).map(|place| (turn + place) % POLICIES).collect();
                    let asks = policies.iter().map(|&policy| of_policy(policy, &key, 1)).collect();
                    match decide_one(&store, take(asks)).await {
                        Verdict::Allowed(_) => policies.iter().for_each(|&policy| {
                            taken[policy].fetch_add(1, Ordering::Relaxed);
                        }),
                        FAILED => {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            })
        });
        let tasks = tasks.collect();
        Self { stop, taken, failed, tasks }
    }

    /// Waits until so many more were taken from each.
    async fn go_on(&self, count: u64) {
        let before = self.counts();
        until("takes to go on", async || {
            self.counts().iter().zip(&before).all(|(now, before)| *now >= before + count)
        })
        .await;
    }

    fn counts(&self) -> Vec<u64> {
        self.taken.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// How often each was taken from, and how many takes failed.
    async fn end(self) -> (Vec<u64>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        (
            self.taken.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            self.failed.load(Ordering::Relaxed),
        )
    }
}

/// What is left of each.
async fn all_left(store: &ClusterStore, key: &str) -> Vec<u64> {
    let asks = (0..POLICIES).map(|policy| of_policy(policy, key, 0)).collect();
    remaining(&decide_one(store, take(asks)).await)
}

fn told(node: &Redis, words: &[&str]) -> Reply {
    node.command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Moves so many keys of a slot.
fn move_keys(from: &Redis, to: &Redis, slot: &str, count: &str) {
    let Reply::List(keys) = told(from, &["CLUSTER", "GETKEYSINSLOT", slot, count]) else { panic!("no list") };
    let (host, port) = (to.addr().ip().to_string(), to.addr().port().to_string());
    for key in keys {
        told(from, &["MIGRATE", &host, &port, &key.to_string(), "0", "5000"]);
    }
}

fn all_errors(cluster: &Cluster, name: &str) -> u64 {
    cluster.nodes()[..3].iter().map(|node| errors(node, name)).sum()
}

#[tokio::test]
async fn a_slot_that_moves_under_load_loses_nothing_and_fails_nothing() {
    let cluster = Arc::new(cluster(&[]));
    let store = store(&cluster, PATIENT).await;
    let key = key_of(&cluster, 0, 0);
    let slot = slot_of(&name(&key)).to_string();
    let load = Load::start(&store, &key);
    load.go_on(50).await;

    let ids = [cluster.id(0).expect("an id"), cluster.id(1).expect("an id")];
    let (all, to, slots) = (Arc::clone(&cluster), ids.clone(), slot.clone());
    blocking(move || {
        let [from_node, to_node] = [&all.nodes()[0], &all.nodes()[1]];
        told(to_node, &["CLUSTER", "SETSLOT", &slots, "IMPORTING", &to[0]]);
        told(from_node, &["CLUSTER", "SETSLOT", &slots, "MIGRATING", &to[1]]);
        move_keys(from_node, to_node, &slots, "3");
    })
    .await;
    // Some keys are here and some there, for as long as it may take.
    load.go_on(100).await;
    let stands =
        decide(&store, vec![take((0..POLICIES).map(|policy| of_policy(policy, &key, 0)).collect())]).await;
    assert_eq!(remaining(&stands[0]).len(), POLICIES);
    // A look is cut by keys likewise, and changes nothing.
    let never = take(vec![ask("elsewhere", 5, 6)]);
    let looks = follower((0..POLICIES).map(|policy| of_policy(policy, &key, 1)).collect());
    let looked = decide(&store, vec![never, looks]).await;
    assert!(matches!(&looked[..], [Verdict::Denied(_), Verdict::Allowed(_)]), "{looked:?}");
    let (all, to, slots) = (Arc::clone(&cluster), ids, slot);
    blocking(move || {
        let [from_node, to_node] = [&all.nodes()[0], &all.nodes()[1]];
        loop {
            move_keys(from_node, to_node, &slots, "100");
            if told(from_node, &["CLUSTER", "COUNTKEYSINSLOT", &slots]) == Reply::Integer(0) {
                break;
            }
        }
        for node in [to_node, from_node, &all.nodes()[2]] {
            told(node, &["CLUSTER", "SETSLOT", &slots, "NODE", &to[1]]);
        }
    })
    .await;
    load.go_on(100).await;

    let (taken, failed) = load.end().await;
    let left = all_left(&store, &key).await;
    let expected: Vec<u64> = taken.iter().map(|taken| BURST - taken).collect();
    assert_eq!(left, expected, "what was taken is what is gone: {failed} failed");
    assert_eq!(failed, 0);
    // Before version 7 a node says ASK where it has some of the keys.
    let info = told(&cluster.nodes()[0], &["INFO", "server"]).to_string();
    let said: &[&str] =
        if info.contains("redis_version:6.") { &["ASK", "MOVED"] } else { &["ASK", "TRYAGAIN", "MOVED"] };
    for error in said {
        assert!(all_errors(&cluster, error) > 0, "{error} was never answered");
    }
    println!(
        "{} takes while the slot moved; {:?}",
        taken.iter().sum::<u64>(),
        [all_errors(&cluster, "ASK"), all_errors(&cluster, "TRYAGAIN"), all_errors(&cluster, "MOVED"),]
    );
}

#[tokio::test]
async fn a_primary_that_is_replaced_on_purpose_costs_a_moment() {
    let cluster = Arc::new(cluster(&[]));
    let store = store(&cluster, IMPATIENT).await;
    let key = key_of(&cluster, 0, 0);
    let load = Load::start(&store, &key);
    load.go_on(50).await;
    let started = Instant::now();
    told(&cluster.nodes()[3], &["CLUSTER", "FAILOVER"]);
    let all = Arc::clone(&cluster);
    blocking(move || all.until_primary(3)).await.expect("promoted");
    let promoted = started.elapsed();
    let runs = calls(&cluster.nodes()[3], "evalsha");
    load.go_on(50).await;
    assert!(calls(&cluster.nodes()[3], "evalsha") > runs, "the new primary decides");
    println!(
        "promoted after {promoted:?}, fifty of each bucket taken there {:?} later",
        started.elapsed() - promoted
    );
    let (taken, failed) = load.end().await;
    for (left, taken) in all_left(&store, &key).await.iter().zip(&taken) {
        // Whatever failed may have been taken, and nothing that was allowed is forgotten.
        let gone = BURST - left;
        assert!(gone >= *taken && gone <= taken + failed, "{taken} allowed, {gone} gone, {failed} failed");
    }
    println!("{failed} failed");
}
