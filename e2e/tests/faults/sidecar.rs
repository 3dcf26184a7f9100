//! Sidecars that end, stand still, or are slow, one of two or both.

use std::time::Duration;

use e2e::PATIENCE;
use fleet::{Fleet, Flow, Store, eventually, traffic::Traffic};

use crate::survive::{
    PATIENT_REDIS_TIMEOUT, PATIENT_TIMEOUT, Row, TIMEOUT, Undecided, addrs, builder, fleet, lasting, survive,
};

const SECOND: Duration = Duration::from_secs(1);

fn row(name: &'static str, undecided: Undecided) -> Row {
    Row { name, allowed_over: 0, undecided }
}

#[test]
fn a_sidecar_is_killed_amid_requests() {
    let mut fleet = fleet().start().expect("a fleet");
    let row = row("a_sidecar_is_killed_amid_requests", Undecided::Some);
    survive(&row, &addrs(&fleet), |traffic| {
        // Its runs are on their way to Redis and stay there: so it dies with requests in its hands, and what it sent
        // is executed after its death.
        fleet.wire_to_redis(0).set(Flow::Silent);
        lasting(traffic, Duration::from_millis(100));
        fleet.sidecar(0).process().kill();
        fleet.wire_to_redis(0).set(Flow::Passed);
        lasting(traffic, SECOND);
        fleet.sidecars_mut()[0].restart().expect("restarted");
    });
}

#[test]
fn a_sidecar_is_killed_amid_answers() {
    let mut fleet = fleet().start().expect("a fleet");
    let row = row("a_sidecar_is_killed_amid_answers", Undecided::Some);
    survive(&row, &addrs(&fleet), |traffic| {
        fleet.wire_to_sidecar(0).set(Flow::BrokenOff { after_bytes: 200 });
        lasting(traffic, Duration::from_millis(100));
        fleet.sidecar(0).process().kill();
        fleet.wire_to_sidecar(0).set(Flow::Passed);
        lasting(traffic, SECOND);
        fleet.sidecars_mut()[0].restart().expect("restarted");
    });
}

#[test]
fn all_sidecars_are_killed_and_started_again() {
    let mut fleet = fleet().start().expect("a fleet");
    let row = row("all_sidecars_are_killed_and_started_again", Undecided::Some);
    survive(&row, &addrs(&fleet), |traffic| {
        fleet.sidecars().iter().for_each(|sidecar| sidecar.process().kill());
        lasting(traffic, SECOND);
        fleet.sidecars_mut().iter_mut().for_each(|sidecar| sidecar.restart().expect("restarted"));
    });
}

#[test]
fn a_sidecar_is_stopped_and_goes_on() {
    let fleet = fleet().start().expect("a fleet");
    let row = row("a_sidecar_is_stopped_and_goes_on", Undecided::Some);
    survive(&row, &addrs(&fleet), |traffic| {
        fleet.sidecar(0).process().freeze();
        lasting(traffic, 2 * SECOND);
        fleet.sidecar(0).process().thaw();
    });
}

#[test]
fn all_sidecars_are_stopped_and_go_on() {
    let fleet = fleet().start().expect("a fleet");
    let row = row("all_sidecars_are_stopped_and_go_on", Undecided::Some);
    survive(&row, &addrs(&fleet), |traffic| {
        fleet.sidecars().iter().for_each(|sidecar| sidecar.process().freeze());
        lasting(traffic, 2 * SECOND);
        fleet.sidecars().iter().for_each(|sidecar| sidecar.process().thaw());
    });
}

#[test]
fn a_sidecar_is_slow_and_in_time() {
    let fleet = fleet().start().expect("a fleet");
    let row = row("a_sidecar_is_slow_and_in_time", Undecided::May);
    survive(&row, &addrs(&fleet), |traffic| late(&fleet, traffic, TIMEOUT / 5));
}

#[test]
fn a_sidecar_is_slow_and_too_late() {
    let fleet = fleet().start().expect("a fleet");
    let row = row("a_sidecar_is_slow_and_too_late", Undecided::Some);
    survive(&row, &addrs(&fleet), |traffic| late(&fleet, traffic, TIMEOUT * 2));
}

/// As a roll-out does it: each says that it leaves, goes on for a while, and ends; the next follows when it is back.
#[test]
fn sidecars_are_restarted_in_turn() {
    let fleet = builder(PATIENT_TIMEOUT, PATIENT_REDIS_TIMEOUT).store(Store::Redis);
    let mut fleet = fleet.sidecar_args(["--shutdown-delay", "3s"]).start().expect("a fleet");
    let row = row("sidecars_are_restarted_in_turn", Undecided::None);
    survive(&row, &addrs(&fleet), |traffic| {
        for index in 0..2 {
            fleet.sidecars_mut()[index].restart().expect("restarted");
            // Until Envoys send to it again, the other one must stay.
            for envoy in fleet.envoys() {
                let healthy = || (envoy.stat("cluster.sluice.membership_healthy").ok()? == 2).then_some(());
                eventually(PATIENCE, "both are healthy", healthy).expect("it is back");
            }
            lasting(traffic, SECOND / 10);
        }
    });
}

fn late(fleet: &Fleet, traffic: &Traffic, back: Duration) {
    fleet.wire_to_sidecar(0).set(Flow::Late { there: Duration::ZERO, back });
    lasting(traffic, 2 * SECOND);
    fleet.wire_to_sidecar(0).set(Flow::Passed);
}
