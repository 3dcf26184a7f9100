//! Primaries that are lost, hang or hand over, and replicas that take their place.
//!
//! A replica hears of writes a moment after the primary has answered them. What it had not heard of when it took over is
//! forgotten: of each key a burst at most.

use e2e::PATIENCE;
use fleet::{Cluster, Fleet, Programs, RunDir, Sentinels, Store, eventually};

use crate::survive::{BURST, REDIS_TIMEOUT, Row, TIMEOUT, Undecided, addrs, builder, survive};

fn row(name: &'static str) -> Row {
    Row { name, allowed_over: BURST, undecided: Undecided::May }
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
    let row = Row { undecided: Undecided::Some, ..row("a_primary_hangs_until_its_replica_was_promoted") };
    survive(&row, &addrs(&fleet), |_| {
        sentinels.redises()[0].process().freeze();
        await_promotion(&sentinels);
        // It takes itself for the primary, until a Sentinel tells it otherwise: nobody may believe it.
        sentinels.redises()[0].process().thaw();
    });
}

#[test]
fn a_primary_hands_over_to_its_replica() {
    let (sentinels, fleet) = watched();
    survive(&row("a_primary_hands_over_to_its_replica"), &addrs(&fleet), |_| {
        sentinels.fail_over().expect("Sentinels obey");
        await_promotion(&sentinels);
    });
}

#[test]
fn a_primary_of_a_cluster_is_lost_and_its_replica_promoted() {
    let run = RunDir::new().expect("a directory");
    let programs = Programs::from_env();
    let cluster = Cluster::start(programs.redis_server().expect("Redis"), &run, &[]).expect("a Cluster");
    let fleet = builder(TIMEOUT, REDIS_TIMEOUT).store(Store::External(cluster.url())).run_dir(&run);
    let fleet = fleet.start().expect("a fleet");
    let row =
        Row { undecided: Undecided::Some, ..row("a_primary_of_a_cluster_is_lost_and_its_replica_promoted") };
    survive(&row, &addrs(&fleet), |_| {
        cluster.nodes()[0].process().kill();
        cluster.until_primary(3).expect("promoted");
    });
}
