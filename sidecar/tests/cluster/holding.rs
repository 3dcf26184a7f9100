//! What a Cluster goes on deciding while a part of it is missing or moves, at the timeout that programs have.

use std::time::{Duration, Instant};

use contract::Verdict;
use sluice::store::redis::{
    Timeouts,
    cluster::{ClusterAddress, ClusterStore, slot::slot_of},
};

use crate::support::*;

#[tokio::test]
async fn a_slot_that_nobody_has_costs_its_node_no_other() {
    let cluster = cluster(&[]);
    let store = store(&cluster, PATIENT).await;
    let node = &cluster.nodes()[0];
    // The first of its slots is by which it is probed.
    let probe = |number: &u64| slot_of(&format!("sluice:1:/probe/{{{number}}}"));
    let slot = (0..).map(|number| probe(&number)).find(|slot| cluster.first_owner(*slot) == 0).expect("one");
    let other = key_of(&cluster, 0, 0);
    assert_ne!(slot_of(&name(&other)), slot);
    for node in cluster.nodes() {
        node.command(&["CLUSTER", "DELSLOTS", &slot.to_string()]).expect("DELSLOTS answers");
    }
    until("the missing slot to be told", async || store.partly().is_some()).await;
    // A new link is found fit by then, and an old one by its probe.
    let before = calls(node, "script|load");
    node.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).expect("CLIENT KILL answers");
    until("the node to decide its other slots", async || left(&store, &other, 9).await == Some(9)).await;
    assert!(calls(node, "script|load") > before, "over a new link");
    assert!(store.partly().expect("one is missing").starts_with("1 of 16384 slots cannot be asked"));
}

#[tokio::test]
async fn what_is_known_to_be_denied_is_denied_while_the_node_of_another_of_its_buckets_is_down() {
    let cluster = cluster(&[]);
    let store = store(&cluster, PATIENT).await;
    let [empty, lost] = [0, 2].map(|primary| key_of(&cluster, primary, 0));
    assert!(matches!(decide_one(&store, take(vec![ask(&empty, 5, 5)])).await, Verdict::Allowed(_)));
    let both = || take(vec![ask(&lost, 5, 1), ask(&empty, 5, 1)]);
    // No replica may take over meanwhile.
    cluster.nodes()[5].process().kill();
    cluster.nodes()[2].process().freeze();
    let begun = Instant::now();
    let hung = decide_one(&store, both()).await;
    let within = begun.elapsed();
    assert!(matches!(hung, Verdict::Denied(_)), "{hung:?}");
    assert!(within < PATIENT.answer, "it does not wait for the node that hangs: {within:?}");
    assert_eq!(remaining(&hung), [0, 0], "of what nobody tells no token is promised");
    cluster.nodes()[2].process().thaw();
    cluster.nodes()[2].process().kill();
    until("the loss to be noticed", async || store.partly().is_some()).await;
    let denied = decide_one(&store, both()).await;
    assert!(matches!(denied, Verdict::Denied(_)), "{denied:?}");
}

#[tokio::test]
async fn a_hot_key_is_decided_in_a_few_runs_while_its_slot_moves() {
    const TAKES: usize = 100;
    let cluster = cluster(&[]);
    let store = store(&cluster, PATIENT).await;
    let [hot, cold] = ["hot", "cold"].map(|policy| {
        let ask = ask(&key_of(&cluster, 0, 0), 50_000, 1);
        let bucket_key = ask.bucket_key.replace("slow", policy);
        sluice::batch::Ask { bucket_key, ..ask }
    });
    let slot = slot_of(&hot.bucket_key).to_string();
    // Two keys of the slot, by turns.
    let batch = || (0..TAKES).map(|turn| take(vec![[&hot, &cold][turn % 2].clone()])).collect::<Vec<_>>();
    assert!(!decide(&store, batch()).await.contains(&FAILED));
    let ids = [cluster.id(0).expect("an id"), cluster.id(1).expect("an id")];
    let [from, to] = [&cluster.nodes()[0], &cluster.nodes()[1]];
    to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]).expect("SETSLOT answers");
    from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]).expect("SETSLOT answers");
    let port = to.addr().port().to_string();
    from.command(&["MIGRATE", "127.0.0.1", &port, &hot.bucket_key, "0", "5000"]).expect("MIGRATE answers");
    let runs = || [from, to].map(|node| calls(node, "evalsha") + errors(node, "ASK")).iter().sum::<u64>();
    let before = runs();
    let verdicts = decide(&store, batch()).await;
    assert!(!verdicts.contains(&FAILED));
    let runs = runs() - before;
    assert!(runs < 20, "{runs} runs for {TAKES} takes of two keys");
    let expected: Vec<u64> = (0..TAKES as u64).map(|turn| 49_999 - 50 - turn / 2).collect();
    assert_eq!(verdicts.iter().flat_map(remaining).collect::<Vec<_>>(), expected, "each in its order");
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let cluster = cluster(&[]);
    let rights = "on >pw resetkeys ~sluice:1:* +evalsha +eval +script|load +mget +set +del +hget +hscan \
                  +hset +hdel +hlen +time +info";
    let grant = |rights: &str| {
        for node in cluster.nodes() {
            let words: Vec<&str> =
                ["ACL", "SETUSER", "sluice"].into_iter().chain(rights.split(' ')).collect();
            node.command(&words).expect("ACL answers");
        }
    };
    grant(rights);
    let url = cluster.url().replace("://", "://sluice:pw@");
    let start = async || {
        let timeouts = Timeouts { connect: Duration::from_secs(5), ..PATIENT };
        ClusterStore::start(ClusterAddress::parse(&url).expect("valid"), timeouts).await
    };
    let told = start().await.ready().expect_err("it may not ask for the map");
    for part in ["CLUSTER INFO", "CLUSTER NODES", "+cluster|info +cluster|nodes +asking"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    grant("+cluster|info +cluster|nodes");
    let told = start().await.ready().expect_err("it may not say ASKING");
    assert!(told.contains("ASKING") && told.contains("+asking"), "{told}");
    grant("+asking");
    assert_eq!(start().await.ready(), Ok(()));
}
