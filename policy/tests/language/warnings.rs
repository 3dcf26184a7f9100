//! What is allowed, and most likely a mistake.

use serde_json::{Value, json};

use crate::sent::{one, policies};

fn warnings(field: &str, value: Value) -> Vec<String> {
    one(field, value).warnings().iter().map(ToString::to_string).collect()
}

#[test]
fn conditions_that_nothing_meets_are_told() {
    let exact = |path: &str| json!({"path": {"exact": path}});
    for (condition, why) in [
        (json!({"path": {"exact": "/a"}, "not": {}}), "`not` excludes every request"),
        (json!({"path": {"exact": "/a"}, "all": [{"path": {"prefix": "/b"}}]}), "the path cannot be both"),
        (
            json!({"path": {"prefix": "/a"}, "all": [{"all": [{"path": {"prefix": "/b"}}]}]}),
            "the path cannot be both",
        ),
        (json!({"path": {"exact": "/a"}, "all": [{"path": {"regex": "/b+"}}]}), "the path cannot be both"),
        (json!({"all": [exact("/a"), exact("/b")]}), "the path cannot be both"),
        (json!({"method": ["GET"], "all": [{"method": ["POST", "PUT"]}]}), "no method is in both lists"),
        (
            json!({"header": {"x-a": {"exact": "b"}}, "all": [{"header": {"X-A": {"suffix": "c"}}}]}),
            "the header \"x-a\" cannot be both",
        ),
        (json!({"percent": 0}), "0 percent are none"),
        (json!({"any": [{"percent": 0}, {"all": [exact("/a"), exact("/b")]}]}), "0 percent are none"),
    ] {
        let told = warnings("match", condition.clone());
        let expected =
            format!("policies[0].match: no request meets these conditions: {why}; the policy never matches");
        assert_eq!(told, [expected], "{condition}");
    }
}

#[test]
fn conditions_that_something_meets_are_not() {
    let none: [&str; 0] = [];
    for condition in [
        json!({}),
        json!({"path": {"exact": "/a/b"}, "all": [{"path": {"prefix": "/a"}}, {"path": {"regex": "/.*"}}]}),
        json!({"path": {"prefix": "/a"}, "all": [{"path": {"prefix": "/a/b"}}]}),
        json!({"method": ["GET", "PUT"], "all": [{"method": ["PUT"]}]}),
        json!({"any": [{"percent": 0}, {"method": ["GET"]}]}),
        json!({"not": {"percent": 0}}),
        json!({"header": {"x-a": {"exact": "b"}}, "all": [{"header": {"x-b": {"exact": "c"}}}]}),
    ] {
        assert_eq!(warnings("match", condition.clone()), none, "{condition}");
    }
}

#[test]
fn a_burst_that_no_request_can_use_is_told() {
    let with = |cost: Value, burst: u64| {
        let policies = policies(
            json!([{"name": "p", "key": [], "limit": "60 per minute", "burst": burst, "cost": cost}]),
        );
        policies.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let told = with(json!(6), 5);
    assert!(
        told[0].starts_with(
            "policies[0].cost: each request costs 6, and the limit \"p\" never holds more than its burst of 5"
        ),
        "{told:?}"
    );
    let told = with(json!({"header": "x", "max": 6}), 5);
    assert!(told[0].starts_with("policies[0].cost: a request may cost up to 6"), "{told:?}");
    assert!(with(json!(5), 5).is_empty() && with(json!({"header": "x", "max": 5}), 5).is_empty());
}

#[test]
fn what_is_enforced_for_nobody_is_told() {
    let told = warnings("enforce_percent", json!(0));
    assert_eq!(told, ["policies[0].enforce_percent: it is enforced for nobody; `mode: shadow` says so"]);
    assert!(warnings("enforce_percent", json!("0.0001")).is_empty());
}

#[test]
fn a_debt_that_cannot_be_counted_is_told() {
    let with = |limit: &str| {
        let policy =
            json!([{"name": "p", "key": [], "limit": limit, "settle": {"header": "x", "max": 200_000}}]);
        policies(policy).warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(with("60 per minute").is_empty());
    let told = with("100003 per day");
    assert!(
        told[0].contains("settle: a request may cost up to 200000, and a bucket of the limit \"p\" can owe no more than 4246"),
        "{told:?}"
    );
}
