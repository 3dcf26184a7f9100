//! What a configuration means, and what its author is told where it is wrong.

use std::time::Duration;

use policy::{OnError, Policies};
use serde_json::{Value, json};

use crate::sent::{Sent, asks, read};

fn shop() -> Value {
    json!({
        "sidecar": {"cluster": "sluice", "timeout": "20ms"},
        "domain": "shop",
        "on_error": "deny",
        "policies": [
            {
                "name": "per-client",
                "key": [{"first_of": [{"header": "X-API-Key"}, "client_address"]}],
                "limit": "60 per minute",
                "burst": "90",
            },
            {
                "name": "expensive",
                "match": {"path": {"prefix": "/api/expensive"}, "method": ["POST", "PUT"]},
                "key": ["client_address"],
                "limit": "5/minute",
                "on_error": "allow",
            },
            {"name": "login", "match": {"path": {"exact": "/login"}}, "key": [], "limit": "1000 per day"},
        ],
    })
}

/// The configuration with the value at `pointer` replaced; the error that this makes.
fn error_with(pointer: &str, value: Value) -> String {
    let mut config = shop();
    *config.pointer_mut(pointer).expect("the place exists") = value;
    read(&config).expect_err("a wrong configuration was accepted")
}

fn names(policies: &Policies, sent: &Sent) -> Vec<String> {
    let asks = asks(policies, sent);
    asks.iter().map(|ask| format!("{} {}", policies.get(ask).expect("known").name(), ask.key)).collect()
}

#[test]
fn a_whole_configuration_is_read() {
    let policies = read(&shop()).expect("valid");
    assert_eq!(policies.domain(), "shop");
    assert_eq!(policies.sidecar().cluster, "sluice");
    assert_eq!(policies.sidecar().timeout, Duration::from_millis(20));
    let sent = Sent::get("/api/expensive/x").method("POST").header("x-api-key", "alice");
    let asks = asks(&policies, &sent);
    assert_eq!(
        names(&policies, &sent),
        ["per-client header:x-api-key=alice", "expensive client_address=192.0.2.1"]
    );
    let [per_client, expensive] = [0, 1].map(|index| policies.get(&asks[index]).expect("known"));
    assert_eq!(per_client.limits()[0].limit.burst_tokens(), 90, "a number may be a string of digits");
    assert_eq!(
        expensive.limits()[0].limit.burst_tokens(),
        5,
        "the burst is the limit's number unless it is written"
    );
    assert_eq!(per_client.on_error(), OnError::Deny, "of the filter");
    assert_eq!(expensive.on_error(), OnError::Allow, "of its own");
}

#[test]
fn policies_govern_what_they_match() {
    let policies = read(&shop()).expect("valid");
    let with = |method, path| names(&policies, &Sent::get(path).method(method));
    let client = "per-client client_address=192.0.2.1";
    assert_eq!(with("GET", "/api/expensive"), [client]);
    assert_eq!(with("GET", "/login"), [client, "login "]);
    assert_eq!(with("GET", "/login/"), [client]);
}

#[test]
fn a_mistake_is_told_with_its_place_what_was_found_and_what_is_right() {
    let cases = [
        (
            "/policies/0/limit",
            json!(60),
            "policies[0].limit: found the number `60`; expected a limit such as",
        ),
        (
            "/policies/0/limit",
            json!("0 per minute"),
            "policies[0].limit: the limit allows 0 tokens; it must allow at least 1",
        ),
        ("/policies/0/burst", json!(0), "policies[0].burst: the burst is 0; it must be at least 1"),
        (
            "/policies/0/burst",
            json!(-1),
            "policies[0].burst: found the number `-1`; expected a whole number such as 60",
        ),
        ("/policies/0/burst", json!("2.5"), "policies[0].burst: found \"2.5\"; expected a whole number"),
        (
            "/policies/0/burst",
            json!(9_007_199_254_u64),
            "policies[0].burst: the burst is too large to be counted exactly at this rate; it may be at most 9007199253",
        ),
        (
            "/policies/1/name",
            json!("per-client"),
            "policies[1].name: found the name \"per-client\" of policies[0] again",
        ),
        (
            "/policies/1/name",
            json!("per client"),
            "policies[1].name: found \"per client\"; use 1 to 64 ASCII letters, digits, `-`, `_` and `.`",
        ),
        ("/policies", json!([]), "policies: found no policy; list at least one"),
        ("/policies", json!({}), "policies: found a mapping; expected a list"),
        (
            "/policies/1",
            json!("expensive"),
            "policies[1]: found \"expensive\"; expected a policy: a mapping with",
        ),
        ("/domain", json!("my shop"), "domain: found \"my shop\"; use 1 to 64 ASCII letters"),
        (
            "/on_error",
            json!("alow"),
            "on_error: found `alow`; expected one of `allow`, `deny`, `local`; did you mean `allow`?",
        ),
        ("/sidecar/timeout", json!("900us"), "sidecar.timeout: found 900us; it must be between 1ms and 1m"),
        (
            "/sidecar/timeout",
            json!(50),
            "sidecar.timeout: found the number `50`; expected a duration such as \"50ms\"",
        ),
        (
            "/sidecar/cluster",
            json!(""),
            "sidecar.cluster: found an empty name; name the cluster of envoy.yaml",
        ),
        (
            "/sidecar",
            json!(["sluice"]),
            "sidecar: found a list; expected a mapping such as { cluster: sluice",
        ),
        ("/sidecar", json!({"timeout": "5ms"}), "sidecar: the field `cluster` is missing"),
    ];
    for (pointer, value, expected) in cases {
        let error = error_with(pointer, value.clone());
        assert!(error.contains(expected), "{pointer} = {value}:\n  {error}\ndoes not say\n  {expected}");
    }
}

#[test]
fn a_misspelt_field_is_refused_with_a_suggestion() {
    let mut config = shop();
    config["policys"] = json!([]);
    let error = read(&config).expect_err("refused");
    assert!(
        error.contains("policys: found `policys`; expected one of")
            && error.ends_with("did you mean `policies`?"),
        "{error}"
    );
    let mut config = shop();
    config["policies"][2]["brust"] = json!(5);
    let error = read(&config).expect_err("refused");
    assert!(
        error.contains("policies[2].brust: found `brust`; expected one of") && error.contains("`burst`?"),
        "{error}"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mut config = shop();
    config["policies"][0]["limit"] = json!("often");
    config["policies"][0]["cost"] = json!("dear");
    config["policies"][2]["key"] = json!("client_address");
    config["domain"] = json!("");
    let error = read(&config).expect_err("refused");
    for place in ["policies[0].limit", "policies[0].cost", "policies[2].key", "domain"] {
        assert!(error.contains(place), "{error} does not name {place}");
    }
}

#[test]
fn hostile_configurations_are_refused_in_few_words() {
    let nested = |depth: usize| (0..depth).fold(json!({"method": ["GET"]}), |inner, _| json!({"not": inner}));
    let mut config = shop();
    config["policies"][0]["match"] = nested(15);
    assert!(read(&config).is_ok());
    config["policies"][0]["match"] = nested(60);
    let error = read(&config).expect_err("refused");
    assert!(error.contains("found conditions in conditions, more than 16 deep"), "{error}");

    let mut many = shop();
    many["skip"] = json!(vec![0; 20_000]);
    let error = read(&many).expect_err("refused");
    assert!(error.len() < 50_000 && error.contains("there is more that is wrong"), "{} bytes", error.len());

    for field in ["name", "limit", "burst", "on_error", "x"] {
        let mut long = shop();
        long["policies"][0][field] = json!("y".repeat(200_000));
        let error = read(&long).expect_err("refused");
        assert!(error.len() < 2_000, "{field}: {} bytes", error.len());
        let mut long = shop();
        long["policies"][0][field.repeat(40_000)] = json!(1);
        let error = read(&long).expect_err("refused");
        assert!(error.len() < 3_000, "{field}: {} bytes", error.len());
    }
}

#[test]
fn a_word_that_yaml_takes_for_a_boolean_is_to_be_quoted() {
    let error = error_with("/policies/1/match/path/prefix", json!(false));
    assert!(error.contains("found the boolean `false`; expected text: put it in quotes"), "{error}");
}
