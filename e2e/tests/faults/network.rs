//! A network between sidecars and Redis that loses, delays, and cuts.

use std::time::Duration;

use fleet::{Fleet, Flow};

use crate::survive::{REDIS_TIMEOUT, Row, Undecided, addrs, fleet, lasting, survive};

const SECOND: Duration = Duration::from_secs(1);

/// Whatever is lost on the way was taken at most, so nothing is ever admitted beyond the promise.
fn survive_on_all_wires(name: &'static str, undecided: Undecided, flow: Flow, length: Duration) {
    let fleet = fleet().start().expect("a fleet");
    let row = Row { name, allowed_over: 0, undecided };
    survive(&row, &addrs(&fleet), |traffic| {
        set(&fleet, flow);
        lasting(traffic, length);
        set(&fleet, Flow::Passed);
    });
}

fn set(fleet: &Fleet, flow: Flow) {
    (0..fleet.sidecars().len()).for_each(|index| fleet.wire_to_redis(index).set(flow));
}

#[test]
fn the_network_to_redis_is_silent_for_a_while() {
    let name = "the_network_to_redis_is_silent_for_a_while";
    survive_on_all_wires(name, Undecided::Some, Flow::Silent, 2 * SECOND);
}

#[test]
fn the_network_to_redis_loses_its_connections() {
    let name = "the_network_to_redis_loses_its_connections";
    survive_on_all_wires(name, Undecided::Some, Flow::Lost, 2 * SECOND);
}

#[test]
fn the_network_to_redis_resets_its_connections() {
    let name = "the_network_to_redis_resets_its_connections";
    survive_on_all_wires(name, Undecided::Some, Flow::Reset, SECOND);
}

#[test]
fn the_network_to_redis_is_slow_and_in_time() {
    let name = "the_network_to_redis_is_slow_and_in_time";
    let (there, back) = (REDIS_TIMEOUT / 10, REDIS_TIMEOUT / 10);
    survive_on_all_wires(name, Undecided::May, Flow::Late { there, back }, SECOND);
}

#[test]
fn the_network_to_redis_is_slow_and_too_late() {
    let name = "the_network_to_redis_is_slow_and_too_late";
    let (there, back) = (REDIS_TIMEOUT, REDIS_TIMEOUT);
    survive_on_all_wires(name, Undecided::Some, Flow::Late { there, back }, 2 * SECOND);
}

#[test]
fn answers_of_redis_break_off() {
    let flow = Flow::BrokenOff { after_bytes: 500 };
    survive_on_all_wires("answers_of_redis_break_off", Undecided::Some, flow, SECOND);
}

#[test]
fn one_sidecar_of_two_is_cut_off_from_redis() {
    let fleet = fleet().start().expect("a fleet");
    let name = "one_sidecar_of_two_is_cut_off_from_redis";
    let row = Row { name, allowed_over: 0, undecided: Undecided::Some };
    survive(&row, &addrs(&fleet), |traffic| {
        fleet.wire_to_redis(0).set(Flow::Lost);
        // It says that it is not ready, and Envoys leave it out: all is well while it lasts.
        traffic.await_decided(500, e2e::PATIENCE).expect("the other decides");
        fleet.wire_to_redis(0).set(Flow::Passed);
    });
}
