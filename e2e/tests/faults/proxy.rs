//! Envoys that change their configuration, and whose breaker is full.

use std::time::Duration;

use e2e::Watched;
use fleet::http;
use serde_json::{Value, json};

use crate::survive::{
    PATIENT_TIMEOUT, Row, Undecided, addrs, configuration, fleet, lasting, patient, survive,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_listener_is_replaced_under_load() {
    let soon = ["--drain-time-s", "1", "--drain-strategy", "immediate"];
    let watched = Watched::start(patient().envoys(1).envoy_args(soon));
    let name = "a_listener_is_replaced_under_load";
    let row = Row { name, allowed_over: 0, undecided: Undecided::None };
    survive(&row, &[watched.addr()], |traffic| {
        for update in 1..=4 {
            // Another configuration by a field that changes no decision.
            watched.update(&configuration(PATIENT_TIMEOUT + Duration::from_millis(update)));
            watched.await_updates(update + 1);
            lasting(traffic, SECOND / 2);
        }
        lasting(traffic, SECOND);
    });
}

#[test]
fn the_breaker_of_the_cluster_is_full() {
    let layers: Value = json!({"layers": [{"name": "by hand", "admin_layer": {}}]});
    let by_hand = move |config: &mut fleet::Config| {
        config.tree()["layered_runtime"] = layers.clone();
        Ok(())
    };
    let fleet = fleet().adjust(by_hand).start().expect("a fleet");
    let room = |requests: u32| {
        for envoy in fleet.envoys() {
            let set = format!("/runtime_modify?circuit_breakers.sluice.default.max_requests={requests}");
            assert_eq!(http::post(&set).send(envoy.admin_addr()).expect("an answer").status, 200);
        }
    };
    let name = "the_breaker_of_the_cluster_is_full";
    let row = Row { name, allowed_over: 0, undecided: Undecided::Some };
    survive(&row, &addrs(&fleet), |traffic| {
        room(0);
        lasting(traffic, SECOND);
        room(4_096);
    });
    let log = fleet.envoy(0).access_log();
    let why = log.lines().find_map(|line| line.split_once("answer=allow reason=")).map(|(_, why)| why);
    assert!(why.is_some_and(|why| why.starts_with("not_sent")), "the table says why: {why:?}");
}
