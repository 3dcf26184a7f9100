//! Whether a policy denies: enforced, in shadow, off, and everything between.

use e2e::{PATIENT, ask, await_counter, await_line, by_api_key, governed_by, remaining, statuses, strict};
use fleet::http::{self, Request};
use fleet::{Fleet, Store};
use serde_json::{Value, json};

fn fleet(configuration: Value) -> Fleet {
    let builder = Fleet::builder().filter_configuration(configuration).sidecar_args(PATIENT);
    builder.store(Store::Redis).start().expect("a fleet")
}

/// A policy for each API key with further fields.
fn with(name: &str, limit: &str, burst: u64, fields: Value) -> Value {
    let mut policy = by_api_key(name, limit, burst);
    let (policy_fields, fields) = (policy.as_object_mut().expect("a policy"), fields.as_object().cloned());
    policy_fields.extend(fields.expect("fields"));
    policy
}

fn of(key: &str) -> Request {
    http::get("/").header("x-api-key", key)
}

#[test]
fn a_policy_in_shadow_tells_what_it_would_deny_and_is_charged_for_what_passes() {
    let fleet = fleet(strict(&json!([
        with("shadow", "1 per day", 2, json!({"mode": "shadow"})),
        by_api_key("strict", "1 per day", 4),
    ])));
    let answers: Vec<http::Answer> = (0..6).map(|_| ask(&fleet, of("alice"))).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429], "only the enforced one denies");
    assert!(
        answers.iter().all(|answer| governed_by(answer) == ["strict"]),
        "clients see nothing of the other"
    );
    await_counter(&fleet, "policy.shadow.allowed", 2);
    await_counter(&fleet, "policy.shadow.shadow_denied", 4);
    await_counter(&fleet, "policy.strict.allowed", 4);
    await_counter(&fleet, "policy.strict.denied", 2);
    await_counter(&fleet, "policy.shadow.denied", 0);
    let line = await_line(&fleet, "decision=allowed policy=strict remaining=1");
    assert!(line.contains("remaining=1 shadow_denied=shadow\""), "{line}");
    let denied = await_line(&fleet, "decision=denied");
    assert!(denied.ends_with("shadow_denied=shadow\""), "{denied}");
}

/// What an enforced limit denies never reaches the upstream, so a limit in shadow would not have been charged either.
#[test]
fn what_another_denies_is_not_charged_in_shadow() {
    let fleet = fleet(strict(&json!([
        with("shadow", "1 per day", 5, json!({"mode": "shadow"})),
        by_api_key("strict", "1 per day", 1),
    ])));
    assert_eq!(statuses(&fleet, 8, &of("alice")), [vec![200], vec![429; 7]].concat());
    let bucket = "sluice:1:e2e/shadow/{header:x-api-key=alice}";
    let kept = fleet.redis().command(&["GET", bucket]).expect("Redis answers").to_string();
    let mut numbers = kept.split(' ').map(|number| number.parse::<u64>().expect("a number"));
    let (credits, unit) = (numbers.next().expect("credits"), numbers.next().expect("a unit"));
    assert_eq!(credits / unit, 4, "one of five: {kept}");
    await_counter(&fleet, "policy.shadow.allowed", 8);
}

#[test]
fn a_policy_in_shadow_stands_alone_where_none_is_enforced() {
    let mut configuration = strict(&json!([by_api_key("one", "1 per day", 2)]));
    configuration["mode"] = json!("shadow");
    let fleet = fleet(configuration);
    let answers: Vec<http::Answer> = (0..4).map(|_| ask(&fleet, of("alice"))).collect();
    assert!(answers.iter().all(|answer| answer.status == 200 && remaining(answer).is_none()));
    await_counter(&fleet, "policy.one.allowed", 2);
    await_counter(&fleet, "policy.one.shadow_denied", 2);
    assert!(await_line(&fleet, "shadow_denied").ends_with("sluice=\"decision=allowed shadow_denied=one\""));
    // It fails open, whatever `on_error` says.
    fleet.sidecar(0).process().kill();
    assert_eq!(ask(&fleet, of("alice")).status, 200);
    await_counter(&fleet, "policy.one.failed", 1);
}

#[test]
fn a_policy_that_is_off_is_not_asked() {
    let fleet = fleet(strict(&json!([
        with("word", "1 per day", 1, json!({"mode": "off"})),
        // What Envoy makes of the bare word in YAML.
        with("bare", "1 per day", 1, json!({"mode": false})),
    ])));
    for answer in (0..3).map(|_| ask(&fleet, of("alice"))) {
        assert_eq!((answer.status, remaining(&answer)), (200, None));
    }
    assert_eq!(fleet.envoy(0).stat("wasmcustom.sluice.callouts").expect("a stat"), 0);
}

#[test]
fn it_is_enforced_for_a_share_of_the_keys_and_always_for_the_same() {
    let policy = |name: &str, percent: Value| {
        let path = json!({"path": {"prefix": format!("/{name}")}});
        with(name, "1 per day", 1, json!({"enforce_percent": percent, "match": path}))
    };
    let fleet = fleet(strict(&json!([
        policy("half", json!(50)),
        policy("nobody", json!("0.0001")),
        {"name": "requests", "match": {"path": {"prefix": "/requests"}}, "key": [], "limit": "1 per day", "enforce_percent": 50},
    ])));
    let keys: Vec<String> = (0..30).map(|number| format!("client-{number}")).collect();
    let denied = |path: &str| -> Vec<&String> {
        let status = |key: &String| ask(&fleet, http::get(path).header("x-api-key", key)).status;
        keys.iter().filter(|key| status(key) == 429).collect()
    };
    assert!(denied("/half").is_empty(), "the first of each passes");
    let enforced = denied("/half");
    assert!((5..25).contains(&enforced.len()), "about half of 30: {enforced:?}");
    assert_eq!(denied("/half"), enforced, "always the same ones");
    assert!(denied("/nobody").is_empty() && denied("/nobody").is_empty(), "all in shadow");
    await_counter(&fleet, "policy.nobody.shadow_denied", 30);

    // All share one bucket: a share of the requests is meant. One passes in any case, and later ones by chance.
    let denied =
        statuses(&fleet, 60, &http::get("/requests")).iter().filter(|status| **status == 429).count();
    assert!((1..59).contains(&denied), "{denied} of 60");
}
