//! What a configuration means, and what its author is told where it is wrong.

use std::time::Duration;

use policy::{OnError, Policies, Request};
use serde_json::{Value, json};

/// A request, by what policies may ask of it.
struct Sent<'a> {
    method: &'a str,
    path: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
}

impl Request for Sent<'_> {
    fn path(&self) -> Option<&[u8]> {
        self.path.map(str::as_bytes)
    }

    fn method(&self) -> Option<&[u8]> {
        Some(self.method.as_bytes())
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_bytes())
    }

    fn client_address(&self) -> Option<&[u8]> {
        Some(b"192.0.2.1:4711")
    }
}

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

fn read(config: &Value) -> Result<Policies, String> {
    Policies::from_bytes(config.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// The configuration with the value at `pointer` replaced; the error that this makes.
fn error_with(pointer: &str, value: Value) -> String {
    let mut config = shop();
    *config.pointer_mut(pointer).expect("the place exists") = value;
    read(&config).expect_err("a wrong configuration was accepted")
}

fn names(policies: &Policies, sent: &Sent) -> Vec<String> {
    let asks = policies.asks(sent);
    asks.iter().map(|ask| format!("{} {}", policies.get(ask).expect("known").name(), ask.key)).collect()
}

#[test]
fn a_whole_configuration_is_read() {
    let policies = read(&shop()).expect("valid");
    assert_eq!(policies.domain(), "shop");
    assert_eq!(policies.sidecar().cluster, "sluice");
    assert_eq!(policies.sidecar().timeout, Duration::from_millis(20));
    let sent = Sent { method: "POST", path: Some("/api/expensive/x"), headers: &[("x-api-key", "alice")] };
    let asks = policies.asks(&sent);
    assert_eq!(
        names(&policies, &sent),
        ["per-client header:x-api-key=alice", "expensive client_address=192.0.2.1"]
    );
    let [per_client, expensive] = [0, 1].map(|index| policies.get(&asks[index]).expect("known"));
    assert_eq!(per_client.limit().burst_tokens(), 90, "a number may be a string of digits");
    assert_eq!(expensive.limit().burst_tokens(), 5, "the burst is the limit's number unless it is written");
    assert_eq!(per_client.on_error(), OnError::Deny, "of the filter");
    assert_eq!(expensive.on_error(), OnError::Allow, "of its own");
}

#[test]
fn policies_govern_what_they_match() {
    let policies = read(&shop()).expect("valid");
    let with = |method, path| names(&policies, &Sent { method, path, headers: &[] });
    let client = "per-client client_address=192.0.2.1";
    assert_eq!(with("GET", Some("/api/expensive")), [client]);
    assert_eq!(with("GET", Some("/login")), [client, "login "]);
    assert_eq!(with("GET", Some("/login/")), [client]);
    assert_eq!(with("CONNECT", None), [client], "without a path no condition on it is met");
}

#[test]
fn a_mistake_is_told_with_its_place_what_was_found_and_what_is_right() {
    let cases = [
        (
            "/policies/0/limit",
            json!("60 per fortnight"),
            "policies[0].limit: invalid value: string \"60 per fortnight\", expected a limit such as \"60 per minute\", \"5 per 12s\" or \"1000/day\"",
        ),
        (
            "/policies/0/limit",
            json!(60),
            "policies[0].limit: invalid type: integer `60`, expected a limit such as",
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
            "policies[0].burst: invalid type: integer `-1`, expected a whole number such as 60",
        ),
        (
            "/policies/0/burst",
            json!("2.5"),
            "policies[0].burst: invalid value: string \"2.5\", expected a whole number",
        ),
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
        (
            "/policies/1/match/path",
            json!({"prefx": "/"}),
            "policies[1].match.path: unknown variant `prefx`, expected `exact` or `prefix`; did you mean `prefix`?",
        ),
        (
            "/policies/1/match/path/prefix",
            json!("api"),
            "policies[1].match.path.prefix: found \"api\"; a path begins with `/`",
        ),
        ("/policies/1/match/path/prefix", json!("/a?b"), "the query is not part of the path that is matched"),
        (
            "/policies/1/match/method",
            json!(["post"]),
            "policies[1].match.method[0]: found \"post\"; methods are written in capitals, such as \"POST\"",
        ),
        (
            "/policies/0/key/0/first_of/0",
            json!({"heder": "x"}),
            "policies[0].key[0].first_of[0]: unknown variant `heder`, expected one of `client_address`, `header`, `first_of`; did you mean `header`?",
        ),
        (
            "/policies/0/key/0/first_of/0",
            json!({"header": "x y"}),
            "policies[0].key[0].first_of[0].header: found \"x y\"; write the name of a header",
        ),
        ("/policies/0/key/0/first_of", json!([]), "policies[0].key[0].first_of: found an empty list"),
        ("/policies/0/key/0", json!("client_adress"), "did you mean `client_address`?"),
        (
            "/policies/0/key",
            json!(vec!["client_address"; 9]),
            "policies[0].key: found 9 parts; a key has at most 8",
        ),
        ("/policies", json!([]), "policies: found an empty list; list at least one policy"),
        ("/policies", json!({}), "policies: invalid type: map, expected a sequence"),
        ("/domain", json!("my shop"), "domain: found \"my shop\"; use 1 to 64 ASCII letters"),
        (
            "/on_error",
            json!("alow"),
            "on_error: unknown variant `alow`, expected `allow` or `deny`; did you mean `allow`?",
        ),
        ("/sidecar/timeout", json!("900us"), "sidecar.timeout: found 900us; it must be between 1ms and 1m"),
        (
            "/sidecar/timeout",
            json!(50),
            "sidecar.timeout: invalid type: integer `50`, expected a duration such as \"50ms\"",
        ),
        (
            "/sidecar/cluster",
            json!(""),
            "sidecar.cluster: found an empty name; name the cluster of envoy.yaml",
        ),
        ("/sidecar", json!({"timeout": "5ms"}), "sidecar: missing field `cluster`"),
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
        error.contains("unknown field `policys`") && error.ends_with("did you mean `policies`?"),
        "{error}"
    );
    let mut config = shop();
    config["policies"][2]["brust"] = json!(5);
    let error = read(&config).expect_err("refused");
    assert!(
        error.contains("policies[2].brust: unknown field `brust`") && error.contains("`burst`?"),
        "{error}"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mut config = shop();
    config["policies"][0]["limit"] = json!("often");
    config["policies"][2]["key"] = json!("client_address");
    config["domain"] = json!("");
    let error = read(&config).expect_err("refused");
    for place in ["policies[0].limit", "policies[2].key", "domain"] {
        assert!(error.contains(place), "{error} does not name {place}");
    }
}
