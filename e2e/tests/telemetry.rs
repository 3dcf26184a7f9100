//! What an operator is told of a fleet's traffic, against what its clients have seen.

use std::net::SocketAddr;

use e2e::{Client, PATIENCE, by_api_key, strict};
use fleet::{Envoy, Fleet, Store, eventually, http};
use serde_json::{Value, json};

const BURST: u64 = 20;

/// What is answered to an operator.
fn asked(fleet: &Fleet, path: &str) -> Value {
    let answer = http::get(path).send(fleet.sidecar(0).admin_addr()).expect("an answer");
    assert_eq!(answer.status, 200, "{path}");
    answer.json().expect("JSON")
}

/// What the filters deny by themselves is told later: so that is counted, too, once and for the one whose it was.
#[test]
fn every_answer_of_a_fleet_is_counted_and_the_noisiest_client_is_found() {
    let policies = json!([by_api_key("one", "1 per day", BURST)]);
    let mut configuration = strict(&policies);
    // So short that what a filter remembers is soon asked anew.
    configuration["deny_cache"] = json!({"ceiling": "5ms"});
    let fleet = Fleet::builder().filter_configuration(configuration).envoys(2).concurrency(1);
    let fleet = fleet.store(Store::Redis).start().expect("a fleet");
    let addrs: Vec<SocketAddr> = fleet.envoys().iter().map(Envoy::addr).collect();
    let is_allowed = |client: &Client, to: usize| match client.get(addrs[to], "/") {
        200 => true,
        429 => false,
        other => panic!("got {other}"),
    };
    let noisy = Client::new("noisy");
    for number in (0..600).step_by(20) {
        assert!(is_allowed(&Client::new(&format!("quiet-{number}")), 0));
    }
    let allowed = (0..600).filter(|number| is_allowed(&noisy, number % 2)).count() as u64;
    let mut denied = 600 - allowed;
    let told = eventually(PATIENCE, "all that was denied is told", || {
        // The next request that asks the same tells what was remembered before it.
        denied += (0..2).filter(|envoy| !is_allowed(&noisy, *envoy)).count() as u64;
        let totals = asked(&fleet, "/v1/stats")["totals"].clone();
        let count = |outcome: &str| totals[outcome].as_u64().expect("a count");
        let told = count("denied") + count("repeats");
        assert!(told <= denied, "{told} of {denied} are told: {totals}");
        (told == denied).then_some(totals)
    });
    let totals = told.expect("all is told");
    assert_eq!(
        (allowed, &totals["allowed"], &totals["failed"]),
        (BURST, &json!(BURST + 30), &json!(0)),
        "{totals}"
    );
    assert!(totals["repeats"].as_u64() > Some(0), "the filters remembered: {totals}");
    for by in ["requests", "denied"] {
        let top = asked(&fleet, &format!("/v1/top?by={by}"));
        let first = &top["keys"][0];
        assert_eq!(first["key"], "header:x-api-key=noisy", "{top}");
        // On a machine so slow that the first of them are out of the window by now, it is less.
        let count = |of: &str| first[of].as_u64().expect("a count");
        assert!(count("denied") <= denied && count("requests") <= denied + BURST, "{top}");
        assert!(count("requests") >= count("denied") && count("denied") > 30, "{top}");
    }
    let stats = asked(&fleet, "/v1/stats");
    let policy = &stats["policies"][0];
    assert_eq!((&policy["domain"], &policy["policy"]), (&json!("e2e"), &json!("one")), "{stats}");
    assert_eq!(policy["totals"]["denied"].as_u64(), stats["totals"]["denied"].as_u64(), "{stats}");
    assert_eq!(policy["limits"][0]["burst"], BURST, "{stats}");
}
