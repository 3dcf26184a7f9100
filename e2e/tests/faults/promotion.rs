//! Primaries that are lost, hang or hand over, and replicas that take their place.
//!
//! A replica hears of writes a moment after the primary has answered them. What it had not heard of when it took over is
//! forgotten: of each key a burst at most. While one sidecar still asks the old primary and another the new one, both
//! admit.

use e2e::PATIENCE;
use fleet::{Cluster, Fleet, Programs, Redis, RunDir, Sentinels, Store, eventually};

use crate::survive::{
    BURST, CALLERS, PATIENT_REDIS_TIMEOUT, PATIENT_TIMEOUT, PROMISE, REDIS_TIMEOUT, Row, TIMEOUT, Undecided,
    addrs, builder, key, survive,
};

fn row(name: &'static str) -> Row {
    Row { name, allowed_over: BURST, undecided: Undecided::May }
}

/// A sidecar asks the Sentinels each second, and until then the old primary may decide for it.
fn two_primaries(name: &'static str) -> Row {
    const LEFT_WITHIN_US: u64 = 1_500_000;
    Row { allowed_over: BURST + PROMISE.came_tokens(LEFT_WITHIN_US), ..row(name) }
}

fn await_left(sentinels: &Sentinels) {
    let left = || (asking(&sentinels.redises()[0]) == 0).then_some(());
    eventually(PATIENCE, "no sidecar asks the old primary", left).expect("all have left it");
}

fn watched() -> (Sentinels, Fleet) {
    let run = RunDir::new().expect("a directory");
    let programs = Programs::from_env();
    let sentinels = Sentinels::start(programs.redis_server().expect("Redis"), &run).expect("Sentinels");
    let fleet = builder(TIMEOUT, REDIS_TIMEOUT).store(Store::External(sentinels.url())).run_dir(&run);
    let fleet = fleet.start().expect("a fleet");
    (sentinels, fleet)
}

fn await_promotion(sentinels: &Sentinels) {
    let promoted = || (sentinels.primary() == Some(1)).then_some(());
    eventually(PATIENCE, "the replica is the primary", promoted).expect("promoted");
}

#[test]
fn a_primary_is_lost_and_sentinels_promote_its_replica() {
    let (sentinels, fleet) = watched();
    let row =
        Row { undecided: Undecided::Some, ..row("a_primary_is_lost_and_sentinels_promote_its_replica") };
    survive(&row, &addrs(&fleet), |_| {
        sentinels.redises()[0].process().kill();
        await_promotion(&sentinels);
    });
}

#[test]
fn a_primary_hangs_until_its_replica_was_promoted() {
    let (sentinels, fleet) = watched();
    let row =
        Row { undecided: Undecided::Some, ..two_primaries("a_primary_hangs_until_its_replica_was_promoted") };
    survive(&row, &addrs(&fleet), |_| {
        sentinels.redises()[0].process().freeze();
        await_promotion(&sentinels);
        // It takes itself for the primary, until a Sentinel tells it otherwise: whoever has not left it believes it.
        sentinels.redises()[0].process().thaw();
        await_left(&sentinels);
    });
}

#[test]
fn a_primary_hands_over_to_its_replica() {
    let (sentinels, fleet) = watched();
    survive(&two_primaries("a_primary_hands_over_to_its_replica"), &addrs(&fleet), |_| {
        sentinels.fail_over().expect("Sentinels obey");
        await_promotion(&sentinels);
        await_left(&sentinels);
    });
    assert!(fleet.sidecars().len() <= asking(&sentinels.redises()[1]), "all have gone over to the new one");
}

/// The clients of a Redis, but for Sentinels, replicas, and who asks for this.
fn asking(redis: &Redis) -> usize {
    let clients = redis.command(&["CLIENT", "LIST", "TYPE", "normal"]).expect("it answers").to_string();
    clients.lines().filter(|line| !line.contains("name=sentinel-") && !line.contains("cmd=client")).count()
}

#[test]
fn a_primary_of_a_cluster_is_lost_and_its_replica_promoted() {
    let run = RunDir::new().expect("a directory");
    let programs = Programs::from_env();
    // By default the nodes refuse all slots while one is served by nobody.
    let part = ["--cluster-require-full-coverage", "no"];
    let cluster = Cluster::start(programs.redis_server().expect("Redis"), &run, &part).expect("a Cluster");
    // The other keys are decided always: no slow machine shall have one fail by accident.
    let fleet = builder(PATIENT_TIMEOUT, PATIENT_REDIS_TIMEOUT);
    let fleet = fleet.store(Store::External(cluster.url())).run_dir(&run);
    let fleet = fleet.start().expect("a fleet");
    let row =
        Row { undecided: Undecided::Some, ..row("a_primary_of_a_cluster_is_lost_and_its_replica_promoted") };
    let owner = |caller| {
        let slot = cluster.slot_of(&format!("header:x-api-key={}", key(caller))).expect("its hash tag");
        cluster.first_owner(slot)
    };
    let lost: Vec<bool> = (0..CALLERS).map(|caller| owner(caller) == 0).collect();
    assert!(lost.contains(&true) && lost.contains(&false), "the keys are on several nodes: {lost:?}");
    let records = survive(&row, &addrs(&fleet), |_| {
        cluster.nodes()[0].process().kill();
        cluster.until_primary(3).expect("promoted");
    });
    let undecided = records.iter().find(|record| !lost[record.caller] && !record.outcome.is_decided());
    assert!(undecided.is_none(), "keys of the other primaries are decided as ever: {undecided:?}");
}
