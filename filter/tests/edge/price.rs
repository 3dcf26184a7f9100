//! What a request costs in calls into Envoy: a change here is a change of the filter's price.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fake_host::host;
use crate::filter::{Filter, decided, request};

/// The calls of one request from its arrival to its end.
fn calls(policies: Value, path: &'static str) -> BTreeMap<&'static str, usize> {
    calls_of(&json!({"sidecar": {"cluster": "sluice"}, "policies": policies}), path)
}

fn calls_of(configuration: &Value, path: &'static str) -> BTreeMap<&'static str, usize> {
    let mut filter = Filter::configured(configuration);
    // The second of its kind: the first defines counters.
    for _ in 0..2 {
        host(|host| host.calls.clear());
        let id = filter.arrive(request(Some(path), Some(b"alice")));
        if host(|host| !host.callouts.is_empty()) {
            filter.deliver(decided(&[true]));
        }
        filter.respond(id, &[(":status", "200")]);
        filter.leave(id);
    }
    let calls = host(|host| host.calls.clone());
    filter.finish();
    calls
}

#[test]
fn a_lone_request_makes_few_calls() {
    let policies = json!([
        {"name": "all", "key": [{"header": "x-api-key"}], "limit": "1 per minute"},
        {"name": "api", "match": {"path": {"prefix": "/api"}}, "key": ["client_address"], "limit": "1 per day"},
    ]);
    let expected = BTreeMap::from([
        ("continue_stream", 1),
        ("get_buffer_bytes", 1),
        // The path, the key, and of the sidecar's answer the status and the marker.
        ("get_header_map_value", 4),
        // The route's metadata.
        ("get_property", 1),
        ("http_call", 1),
        // The callout, the request, and those of the policy.
        ("increment_metric", 3),
        // How long the callout took.
        ("record_metric", 1),
        ("replace_header_map_value", 5),
        // To the root for the callout, to the request for the answer.
        ("set_effective_context", 2),
        ("set_property", 1),
    ]);
    assert_eq!(calls(policies, "/"), expected);
}

#[test]
fn a_request_that_no_policy_governs_makes_hardly_any() {
    let policies =
        json!([{"name": "api", "match": {"path": {"prefix": "/api"}}, "key": [], "limit": "1 per day"}]);
    assert_eq!(calls(policies, "/"), BTreeMap::from([("get_header_map_value", 1)]));
}

#[test]
fn a_hundred_policies_make_as_few_calls_as_the_one_that_governs() {
    let policy = |place: usize| {
        let path = format!("/api/{place}/");
        json!({"name": format!("p{place}"), "match": {"path": {"prefix": path}, "method": ["GET"]},
            "key": [{"header": "x-api-key"}], "limit": "1 per minute"})
    };
    let lone = calls(json!([policy(42)]), "/api/42/x");
    assert_eq!(calls((0..100).map(policy).collect(), "/api/42/x"), lone);
    assert_eq!(calls((0..100).map(policy).collect(), "/"), BTreeMap::from([("get_header_map_value", 1)]));
}

#[test]
fn only_where_traces_are_told_the_trace_is_read() {
    let policies = json!([{"name": "all", "key": [], "limit": "1 per minute"}]);
    let mut expected = calls(policies.clone(), "/");
    let tracing = json!({"sidecar": {"cluster": "sluice"}, "policies": policies, "tracing": true});
    *expected.entry("get_header_map_value").or_default() += 1;
    assert_eq!(calls_of(&tracing, "/"), expected);
}

#[test]
fn only_a_policy_that_settles_looks_at_the_response() {
    let policy = json!({"name": "all", "key": [], "limit": "1 per minute"});
    let lone = calls(json!([policy]), "/");
    let mut refunding = policy.clone();
    refunding["refund_on"] = json!(["5xx"]);
    let mut expected = lone.clone();
    // The status, and that of gRPC.
    *expected.entry("get_header_map_value").or_default() += 2;
    assert_eq!(calls(json!([refunding]), "/"), expected);
}
