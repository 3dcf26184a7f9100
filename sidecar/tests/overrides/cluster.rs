//! What operators put in the place of limits in a Redis Cluster: all of it is in one slot, which moves, and whose primary dies.

use std::{sync::Arc, time::Duration};

use contract::Overridden;
use fleet::{Cluster, Redis, RunDir};
use serde_json::{Value, json};
use sluice::store::{
    Store,
    redis::cluster::{ClusterAddress, ClusterStore, slot::slot_of},
};

use super::{SOON, Sidecar, ask, asking, only, program, within};

const HASH: &str = "sluice:1:{overrides}";
const PATH: &str = "/v1/buckets/per-client/a/override";
const LONG: Duration = Duration::from_secs(60);

async fn start() -> (Arc<Cluster>, [Sidecar; 2], RunDir) {
    let run = RunDir::new().expect("a directory");
    let args = ["--cluster-require-full-coverage", "no"];
    let cluster = Cluster::start(&program(), &run, &args).expect("a Cluster");
    let sidecar = async || {
        let address = ClusterAddress::parse(&cluster.url()).expect("the URL is right");
        let sidecar = Sidecar::of(Store::Cluster(ClusterStore::start(address, asking()).await));
        sidecar.service.tried().await;
        sidecar
    };
    let two = [sidecar().await, sidecar().await];
    two[0].empty("per-client", "a").await;
    (Arc::new(cluster), two, run)
}

fn told(node: &Redis, words: &[&str]) {
    node.command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

/// Puts each kind at one, and waits until the other sees it.
async fn changes([here, there]: [&Sidecar; 2]) {
    for (wanted, expected) in [
        (json!({ "blocked": true }), (false, Overridden::Blocked)),
        (json!({ "unlimited": true }), (true, Overridden::Unlimited)),
    ] {
        here.does("PUT", PATH, wanted).await;
        let expected = (expected.0, Some(expected.1));
        assert_eq!(here.lets_in("a").await, expected);
        within(SOON, "it there", async || there.lets_in("a").await == expected).await;
    }
}

#[tokio::test]
async fn they_are_found_while_their_slot_moves_and_afterwards() {
    let (cluster, [here, there], _run) = start().await;
    changes([&here, &there]).await;
    let slot = slot_of(HASH);
    let from = cluster.first_owner(slot);
    let to = (from + 1) % 3;
    let slot = slot.to_string();
    let [from_node, to_node] = [from, to].map(|node| &cluster.nodes()[node]);
    let [from_id, to_id] = [from, to].map(|node| cluster.id(node).expect("an id"));
    told(to_node, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    told(from_node, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    changes([&there, &here]).await;
    let (host, port) = (to_node.addr().ip().to_string(), to_node.addr().port().to_string());
    told(from_node, &["MIGRATE", &host, &port, HASH, "0", "5000"]);
    // It is there, and the slot is here.
    changes([&here, &there]).await;
    for node in [to_node, from_node, &cluster.nodes()[(from + 2) % 3]] {
        told(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    changes([&there, &here]).await;
    there.does("DELETE", PATH, Value::Null).await;
    within(SOON, "the removal here", async || here.lets_in("a").await.1.is_none()).await;
}

#[tokio::test]
async fn they_survive_the_primary_that_had_them() {
    let (cluster, [here, there], _run) = start().await;
    changes([&here, &there]).await;
    let primary = cluster.first_owner(slot_of(HASH));
    let replica = primary + 3;
    within(LONG, "the replica to have it", async || {
        let info = cluster.nodes()[replica].command(&["INFO", "replication"]).expect("INFO").to_string();
        let own = cluster.nodes()[primary].command(&["INFO", "replication"]).expect("INFO").to_string();
        let field = |info: &str, name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)).map(|offset| offset.trim().to_owned())
        };
        field(&info, "slave_repl_offset:") == field(&own, "master_repl_offset:")
    })
    .await;
    cluster.nodes()[primary].process().kill();
    within(LONG, "another to be changed", async || {
        here.operate("PUT", PATH, json!({ "blocked": true })).await.0 == 200
    })
    .await;
    within(LONG, "the block there", async || {
        let list = there.overrides().await;
        list.len() == 1 && list[0]["blocked"] == true
    })
    .await;
}

#[tokio::test]
async fn a_block_holds_for_a_take_over_several_slots_and_takes_from_no_other() {
    let (_cluster, [here, there], _run) = start().await;
    here.does("PUT", PATH, json!({ "blocked": true })).await;
    within(SOON, "the block there", async || there.lets_in("a").await.1.is_some()).await;
    let others: Vec<String> = (0..6).map(|number| format!("other-{number}")).collect();
    for sidecar in [&here, &there] {
        for other in &others {
            let verdict = sidecar.take(&[ask("per-other", other, 1), ask("per-client", "a", 1)]).await;
            let (allowed, bucket) = only(&verdict);
            assert_eq!((allowed, bucket.remaining), (false, 10), "{verdict:?}");
        }
    }
    for other in &others {
        let verdict = here.take(&[ask("per-other", other, 0)]).await;
        assert_eq!(only(&verdict).1.remaining, 10, "what was taken before the block was met is given back");
    }
}
