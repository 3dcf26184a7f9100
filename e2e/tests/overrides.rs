//! What an operator changes at one sidecar, as the clients of three Envoys meet it: everywhere within a second.

use std::{
    thread,
    time::{Duration, Instant},
};

use e2e::{PATIENCE, by_api_key, strict};
use fleet::{Fleet, Store, eventually, http};
use serde_json::{Value, json};

/// What is promised, from the answer to an operator on.
const PROMISED: Duration = Duration::from_secs(1);

/// How often each Envoy is asked after that.
const ASKED_AFTER: usize = 12;

const BUCKET: &str = "/v1/buckets/per-client/header:x-api-key=alice";

/// Three Envoys, each with a sidecar of its own, one Redis; and a limit that lets one request a day pass.
fn start() -> Fleet {
    let policies = json!([by_api_key("per-client", "1 per day", 1)]);
    let fleet = Fleet::builder().filter_configuration(strict(&policies)).envoys(3).sidecars(3);
    fleet.store(Store::Redis).sidecar_args(["--redis-timeout", "2s"]).start().expect("a fleet")
}

/// Asks a sidecar as an operator does.
fn operate(fleet: &Fleet, sidecar: usize, method: &str, path: &str, body: &Value) -> Value {
    let request = http::request(method, path).header("content-type", "application/json");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = request.body(body).send(fleet.sidecar(sidecar).admin_addr()).expect("an answer");
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
    answer.json().expect("JSON")
}

fn ask(fleet: &Fleet, envoy: usize) -> http::Answer {
    http::get("/").header("x-api-key", "alice").send(fleet.envoy(envoy).addr()).expect("an answer")
}

/// Has the client limited at each Envoy, so that each filter and each sidecar remembers that it is.
fn limit_everywhere(fleet: &Fleet) {
    for envoy in [0, 1, 2, 0, 1, 2] {
        eventually(PATIENCE, "a denial", || (ask(fleet, envoy).status == 429).then_some(()))
            .expect("it is limited");
    }
    // A sidecar that was not asked yet knows the policy's limit by the others, a moment later.
    for sidecar in fleet.sidecars() {
        let knows = || http::get(BUCKET).send(sidecar.admin_addr()).is_ok_and(|answer| answer.status == 200);
        eventually(PATIENCE, "each sidecar to know of the policy", || knows().then_some(()))
            .expect("it does");
    }
}

/// Asks at each Envoy without a pause: from when on what is promised, after an operator was answered, all answer as expected.
/// Each Envoy asks all sidecars in turn. How long after the operator's answer the last other answer was.
fn seen_everywhere(fleet: &Fleet, what: &str, is: impl Fn(&http::Answer) -> bool + Sync) {
    let answered = Instant::now();
    let last_other = |envoy| {
        let (mut last, mut since) = (Duration::ZERO, 0);
        while since < ASKED_AFTER {
            let asked = answered.elapsed();
            let answer = ask(fleet, envoy);
            if !is(&answer) {
                assert!(asked <= PROMISED, "{what}: {asked:?} after it, Envoy {envoy} says {answer}");
                last = asked;
            }
            since += usize::from(asked > PROMISED);
        }
        last
    };
    let last: Vec<Duration> = thread::scope(|scope| {
        let last_other = &last_other;
        let envoys: Vec<_> = (0..3).map(|envoy| scope.spawn(move || last_other(envoy))).collect();
        envoys.into_iter().map(|envoy| envoy.join().expect("seen")).collect()
    });
    println!("{what}: the last other answers were asked for {last:?} after it");
}

fn is_allowed(answer: &http::Answer) -> bool {
    answer.status == 200
}

fn is_blocked(answer: &http::Answer) -> bool {
    answer.status == 429 && answer.text().contains("blocked")
}

fn is_limited(answer: &http::Answer) -> bool {
    answer.status == 429 && !answer.text().contains("blocked")
}

#[test]
fn what_an_operator_changes_at_one_sidecar_holds_at_every_envoy_within_a_second() {
    let fleet = start();
    limit_everywhere(&fleet);
    let path = format!("{BUCKET}/override");

    operate(&fleet, 0, "PUT", &path, &json!({ "limit": "100000 per second", "reason": "a launch" }));
    seen_everywhere(&fleet, "a raised limit", is_allowed);

    operate(&fleet, 1, "PUT", &path, &json!({ "blocked": true, "expires_in": "1h" }));
    seen_everywhere(&fleet, "a block", is_blocked);
    for envoy in 0..3 {
        let answer = ask(&fleet, envoy);
        let wait: u64 = answer.header("retry-after").expect("a retry-after").parse().expect("seconds");
        assert!((3_500..=3_601).contains(&wait), "{answer}");
        eventually(PATIENCE, "the access log", || {
            fleet.envoy(envoy).access_log().contains("reason=blocked").then_some(())
        })
        .expect("it tells that it was blocked");
    }

    operate(&fleet, 2, "PUT", &path, &json!({ "unlimited": true }));
    seen_everywhere(&fleet, "no limit", is_allowed);

    operate(&fleet, 0, "POST", &format!("{BUCKET}/reset"), &Value::Null);
    operate(&fleet, 0, "DELETE", &path, &Value::Null);
    // The bucket is full, of one token: whoever comes first has it, and everybody is limited as before.
    eventually(PATIENCE, "the limit to be back", || {
        (0..3).all(|envoy| is_limited(&ask(&fleet, envoy))).then_some(())
    })
    .expect("it is");
    eventually(PATIENCE, "every sidecar to know that there is none", || {
        let lists = |sidecar| {
            operate(&fleet, sidecar, "GET", "/v1/overrides", &Value::Null)["overrides"] != json!([])
        };
        (!(0..3).any(lists)).then_some(())
    })
    .expect("there is none");
}

#[test]
fn a_bucket_that_is_filled_at_one_sidecar_lets_clients_in_at_every_envoy_within_a_second() {
    let fleet = start();
    let roomy = json!({ "limit": "1 per day", "burst": 100_000 });
    limit_everywhere(&fleet);
    for (change, body) in [("reset", Value::Null), ("refund", json!({ "tokens": 50_000 }))] {
        // Room for what is asked meanwhile, and no token yet. Under the policy's own limit the bucket would hold one.
        operate(&fleet, 0, "PUT", &format!("{BUCKET}/override"), &roomy);
        for sidecar in 0..3 {
            eventually(PATIENCE, "the room", || {
                let list = operate(&fleet, sidecar, "GET", "/v1/overrides", &Value::Null);
                (list["overrides"][0]["limit"]["burst"] == 100_000).then_some(())
            })
            .expect("each sidecar knows of it");
        }
        operate(&fleet, 1, "POST", &format!("{BUCKET}/{change}"), &body);
        seen_everywhere(&fleet, change, is_allowed);
        // An empty bucket again, with the same limit.
        operate(&fleet, 1, "PUT", &format!("{BUCKET}/override"), &json!({ "limit": "1 per day" }));
        seen_everywhere(&fleet, "a limit of one again", is_limited);
    }
}

#[test]
fn an_override_survives_a_sidecar_and_ends_at_its_time() {
    let mut fleet = start();
    limit_everywhere(&fleet);
    let path = format!("{BUCKET}/override");
    operate(&fleet, 0, "PUT", &path, &json!({ "blocked": true }));
    seen_everywhere(&fleet, "a block", is_blocked);
    for sidecar in fleet.sidecars_mut() {
        sidecar.restart().expect("restarted");
    }
    for envoy in 0..3 {
        eventually(PATIENCE, "the block after a restart", || {
            let answer = ask(&fleet, envoy);
            assert_ne!(answer.status, 200, "nobody is let in before the block is known: {answer}");
            is_blocked(&answer).then_some(())
        })
        .expect("it is blocked");
    }
    let bucket = operate(&fleet, 2, "PUT", &path, &json!({ "blocked": true, "expires_in": "10s" }));
    let times =
        ["expires_at_us", "created_at_us"].map(|time| bucket["override"][time].as_u64().expect("a time"));
    assert_eq!(times[0] - times[1], 10_000_000);
    seen_everywhere(&fleet, "a block that ends", |answer| {
        is_blocked(answer) && answer.header("retry-after").is_some()
    });
    eventually(PATIENCE, "its end", || (0..3).all(|envoy| is_limited(&ask(&fleet, envoy))).then_some(()))
        .expect("the limit is back");
}
