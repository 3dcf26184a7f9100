//! What a request lacks, and what is not to be seen.

use e2e::{ask, statuses, strict, tokens};
use serde_json::{Value, json};

use crate::{bearer, builder, get, keys, once_a_day};

#[test]
fn a_missing_part_is_shared_or_skipped_and_an_empty_one_is_neither() {
    let parts = json!([
        {"header": "x-k"},
        {"cookie": "c"},
        {"query": "q"},
        {"route_metadata": {"namespace": "com.example", "path": ["plan"]}},
        {"dynamic_metadata": {"namespace": "com.example", "path": ["tenant"]}},
        {"jwt_claim": {"payload": "jwt", "claim": "sub"}},
        {"client_certificate": "uri_san"},
        {"filter_state": "com.example.state"},
    ]);
    let parts: Vec<Value> =
        parts.as_array().cloned().into_iter().flatten().chain([json!("route_name")]).collect();
    let mut policies = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        policies.push(once_a_day(&format!("share-{index}"), &json!([part])));
        let mut skip = once_a_day(&format!("skip-{index}"), &json!([part]));
        skip["missing"] = json!("skip");
        policies.push(skip);
    }
    let fleet = builder(strict(&policies.into())).start().expect("a fleet");
    for (index, part) in parts.iter().enumerate() {
        assert_eq!(statuses(&fleet, 2, &get(&format!("/share-{index}"))), [200, 429], "{part} is missing");
        assert_eq!(statuses(&fleet, 2, &get(&format!("/skip-{index}"))), [200, 200], "{part} is missing");
    }
    let empty =
        [get("/share-0").header("x-k", ""), get("/share-1").header("cookie", "c="), get("/share-2?q")];
    for request in empty {
        assert_eq!(statuses(&fleet, 2, &request), [200, 429], "it is empty: a key of its own");
    }
    let keys = keys(&fleet);
    for key in ["share-0/{header:x-k}", "share-0/{header:x-k=}", "share-1/{cookie:c=}", "share-2/{query:q=}"]
    {
        assert!(keys.lines().any(|line| line == format!("sluice:1:e2e/{key}")), "{key} is not among\n{keys}");
    }
}

#[test]
fn what_is_hashed_is_nowhere_in_redis() {
    let mut configuration = strict(&json!([
        once_a_day("header", &json!([{"header": "x-api-key", "hash": true}])),
        once_a_day("cookie", &json!([{"first_of": [{"cookie": "session", "hash": true}, "client_address"]}])),
        once_a_day(
            "claim",
            &json!([{"jwt_claim": {"payload": "jwt", "claim": "sub"}, "hash": true}, "method"])
        ),
    ]));
    configuration["hash_secret"] = json!("of these tests alone");
    let fleet = builder(configuration).start().expect("a fleet");
    let secret = "hunter2-correct-horse";
    for (one, other) in [
        (get("/header").header("x-api-key", secret), get("/header").header("x-api-key", "another")),
        (
            get("/cookie").header("cookie", format!("session={secret}")),
            get("/cookie").header("cookie", "session=x"),
        ),
        (bearer("/claim", tokens::ALICE), bearer("/claim", tokens::BOB)),
    ] {
        assert_eq!(statuses(&fleet, 2, &one), [200, 429]);
        assert_eq!(ask(&fleet, other).status, 200);
    }
    // Keys and values, and whatever else Redis would show of them.
    let keys = keys(&fleet);
    let names: Vec<&str> = keys.lines().collect();
    assert_eq!(names.len(), 6, "{keys}");
    let values =
        names.iter().map(|name| fleet.redis().command(&["GET", name]).expect("Redis answers").to_string());
    let all = values.fold(keys.clone(), |all, value| all + &value);
    for word in [secret, "another", "alice", "bob", "hunter"] {
        assert!(!all.contains(word), "{word} is in Redis:\n{all}");
    }
    assert_eq!(all.matches("=*hmac-sha256:").count(), 6, "{all}");
    let log = fleet.envoy(0).access_log() + &fleet.envoy(0).log() + &fleet.sidecar(0).log();
    assert!(!log.contains(secret), "it is in a log:\n{log}");
}
