//! What a Cluster decides when a part of it is lost: the rest goes on, and what was lost is found again by itself.

use std::{sync::Arc, time::Instant};

use contract::Verdict;

use crate::support::*;

#[tokio::test]
async fn a_primary_that_is_killed_fails_its_slots_alone_until_its_replica_is_promoted() {
    const BURST: u64 = 1_000;
    let cluster = cluster(&[]);
    let store = store(&cluster, PATIENT).await;
    let [lost, well] = [0, 1].map(|primary| key_of(&cluster, primary, 0));
    assert_eq!(
        remaining(&decide_one(&store, take(vec![ask(&lost, BURST, 10), ask(&well, BURST, 10)])).await),
        [990; 2]
    );
    // What has reached the replica is not lost with the primary.
    assert_ne!(cluster.nodes()[0].command(&["WAIT", "1", "10000"]).expect("WAIT answers").to_string(), "0");

    cluster.nodes()[0].process().kill();
    let killed = Instant::now();
    until("the loss to be noticed", async || store.partly().is_some()).await;
    assert!(store.ready().is_ok(), "two thirds of the slots can be asked");
    assert!(
        store
            .partly()
            .expect("a third cannot")
            .starts_with("5461 of 16384 slots cannot be asked: 127.0.0.1:")
    );
    let mut failed = 0;
    let found = until("the replica to decide", async || {
        let verdicts =
            decide(&store, vec![take(vec![ask(&lost, BURST, 1)]), take(vec![ask(&well, BURST, 0)])]).await;
        assert!(matches!(verdicts[1], Verdict::Allowed(_)), "the others go on: {verdicts:?}");
        failed += u64::from(verdicts[0] == FAILED);
        verdicts[0] != FAILED
    })
    .await;
    println!("{failed} takes failed; the promoted replica decided {:?} after the kill", killed.elapsed());
    assert!(failed > 0, "{found:?}");
    assert_eq!(left(&store, &lost, BURST).await, Some(989), "nothing that failed was taken");

    // A take of both that fails in its later part is given back, whichever that is.
    let all = take(vec![ask(&lost, BURST, 1), ask(&well, BURST, 1)]);
    until("all slots", async || store.partly().is_none()).await;
    assert!(matches!(decide_one(&store, all).await, Verdict::Allowed(_)));
}

#[tokio::test]
async fn a_take_of_which_a_later_part_fails_gives_back_the_earlier_ones() {
    let cluster = cluster(&[]);
    // A refund that is late on a busy machine would be lost.
    let store = store(&cluster, PATIENT).await;
    let keys = [0, 1, 2].map(|primary| key_of(&cluster, primary, 0));
    let all = || take(keys.iter().map(|key| ask(key, 9, 2)).collect());
    assert_eq!(remaining(&decide_one(&store, all()).await), [7; 3]);
    // The last in the order of the slots, so that both others are taken from before.
    cluster.nodes()[2].process().kill();
    until("the loss to be noticed", async || store.partly().is_some()).await;
    let verdicts = decide(&store, vec![all(), follower(vec![ask("shadow", 9, 1)])]).await;
    assert_eq!(verdicts, [FAILED, FAILED], "and what follows it fails likewise");
    for key in &keys[..2] {
        until("the refund", async || left(&store, key, 9).await == Some(7)).await;
    }
    until("the promotion", async || matches!(decide_one(&store, all()).await, Verdict::Allowed(_))).await;
    for key in &keys[..2] {
        until("the last refund", async || left(&store, key, 9).await == Some(5)).await;
    }
}

#[tokio::test]
async fn a_primary_that_stands_still_is_replaced_and_what_it_heard_counts_no_more() {
    const BURST: u64 = 1_000;
    let cluster = Arc::new(cluster(&[]));
    // Only what asks the one that stands still is to be late, however busy the machine is.
    let (patient, store) = (store(&cluster, PATIENT).await, store(&cluster, IMPATIENT).await);
    let [lost, well] = [0, 1].map(|primary| key_of(&cluster, primary, 0));
    assert_eq!(left(&store, &lost, BURST).await, Some(BURST));
    cluster.nodes()[0].process().freeze();
    let frozen = Instant::now();
    assert_eq!(decide_one(&store, take(vec![ask(&lost, BURST, 1)])).await, FAILED);
    assert!(frozen.elapsed() < DEADLINE / 10, "failed after {:?}", frozen.elapsed());
    let mut failed = 0;
    until("another to decide", async || {
        assert_eq!(left(&patient, &well, BURST).await, Some(BURST), "the others go on");
        let is_failed = decide_one(&store, take(vec![ask(&lost, BURST, 1)])).await == FAILED;
        failed += u64::from(is_failed);
        !is_failed
    })
    .await;
    println!("the promoted replica decided {:?} after the freeze", frozen.elapsed());
    // It may be late once more: only a look is asked again.
    let left_at_last = async || {
        let mut remaining = None;
        until("a look", async || {
            remaining = left(&store, &lost, BURST).await;
            remaining.is_some()
        })
        .await;
        remaining.expect("decided")
    };
    let before = left_at_last().await;
    // What failed may have been taken, once, by the promoted one.
    assert!((1..=1 + failed).contains(&(BURST - before)), "{before} left, {failed} failed");
    cluster.nodes()[0].process().thaw();
    let all = Arc::clone(&cluster);
    blocking(move || all.until_well()).await.expect("it follows the one that replaced it");
    let mut taken = 0;
    until("a take", async || {
        taken += 1;
        matches!(decide_one(&store, take(vec![ask(&lost, BURST, 1)])).await, Verdict::Allowed(_))
    })
    .await;
    let after = left_at_last().await;
    assert!((1..=taken).contains(&(before - after)), "{before}, then {after}: one bucket, on one node");
}

#[tokio::test]
async fn a_cluster_that_is_down_says_so_and_is_used_again_by_itself() {
    let mut cluster = cluster(&["--cluster-require-full-coverage", "yes"]);
    let store = store(&cluster, IMPATIENT).await;
    let well = key_of(&cluster, 1, 0);
    assert_eq!(left(&store, &well, 9).await, Some(9));
    // A primary and its replica: nobody is left to have their slots.
    cluster.nodes()[3].process().kill();
    cluster.nodes()[0].process().kill();
    until("the others to refuse", async || left(&store, &well, 9).await.is_none()).await;
    until("the store to say so", async || store.ready().is_err()).await;
    assert!(store.ready().expect_err("down").contains("CLUSTERDOWN"));
    cluster.node_mut(0).restart().expect("restarted");
    let back = until("the Cluster to decide", async || left(&store, &well, 9).await == Some(9)).await;
    println!("decided {back:?} after the primary was restarted");
    until("the store to be ready", async || store.ready().is_ok()).await;
}
