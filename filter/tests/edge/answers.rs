//! What the client, the upstream's response and the counters see of an answer.

use serde_json::{Value, json};

use crate::fake_host::{Event, callback, host};
use crate::filter::{Filter, asked, counted, decided, keys_on_the_way, marked, request};

/// One policy for all, and what else the configuration says.
fn one_policy(rest: Value) -> Filter {
    let mut config = json!({
        "sidecar": {"cluster": "sluice"},
        "on_error": "deny",
        "policies": [{"name": "all", "key": [], "limit": "60 per minute"}],
    });
    config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    Filter::configured(&config)
}

/// The headers that a client sees where upstream sent these.
fn told(rest: Value, upstream: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut filter = one_policy(rest);
    let id = filter.arrive(request(Some("/"), None));
    filter.deliver(decided(&[true]));
    let headers = filter.respond(id, upstream);
    filter.finish();
    headers
}

fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
}

#[test]
fn a_response_tells_how_the_limit_stands() {
    let headers = told(json!({}), &[(":status", "200"), ("x-other", "stays")]);
    assert_eq!(values(&headers, "x-ratelimit-limit"), ["60"]);
    assert_eq!(values(&headers, "x-ratelimit-remaining"), ["0"]);
    assert_eq!(values(&headers, "x-ratelimit-reset"), ["1"]);
    assert_eq!(values(&headers, "ratelimit-policy").len(), 1);
    assert_eq!(values(&headers, "x-other"), ["stays"]);
}

#[test]
fn upstreams_headers_of_the_same_name_are_kept_replaced_or_appended_to() {
    for (mode, expected) in [
        ("keep", &["by upstream", "twice"][..]),
        ("replace", &["60"]),
        ("append", &["by upstream", "twice", "60"]),
    ] {
        let upstream =
            [(":status", "200"), ("x-ratelimit-limit", "by upstream"), ("x-ratelimit-limit", "twice")];
        let headers = told(json!({"headers": {"upstream": mode}}), &upstream);
        assert_eq!(values(&headers, "x-ratelimit-limit"), expected, "{mode}");
        assert_eq!(values(&headers, "x-ratelimit-remaining"), ["0"], "{mode}: upstream has none");
    }
}

#[test]
fn a_denial_is_as_it_is_configured() {
    let mut filter = one_policy(json!({
        "denied": {"status": 420, "headers": {"x-why": "%POLICY%"}, "body": "calm down, %POLICY%"},
        "headers": {"debug": true},
    }));
    let id = filter.arrive(request(Some("/"), None));
    filter.deliver(decided(&[false]));
    let reply = filter.reply(id).clone();
    assert_eq!((reply.status, reply.grpc_status, reply.body.as_str()), (420, 8, "calm down, all"));
    assert_eq!(values(&reply.headers, "x-why"), ["all"]);
    assert_eq!(values(&reply.headers, "retry-after"), ["1"]);
    assert_eq!(values(&reply.headers, "x-ratelimit-limit"), ["60"]);
    assert!(values(&reply.headers, "x-sluice-decision")[0].starts_with("decision=denied policy=all"));
    assert_eq!(reply.details, "sluice_denied_all");
    filter.finish();
}

#[test]
fn grpc_is_told_in_a_sentence() {
    for (content_type, is_grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc-web", false),
        ("application/json", false),
    ] {
        let mut filter = one_policy(json!({}));
        let mut headers = request(Some("/"), None);
        headers.push(("content-type", content_type.into()));
        let id = filter.arrive(headers);
        filter.deliver(decided(&[false]));
        let reply = filter.reply(id);
        assert_eq!(
            (reply.grpc_status, reply.body.starts_with('{')),
            (8, !is_grpc),
            "{content_type}: {}",
            reply.body
        );
        filter.finish();
    }
}

#[test]
fn a_policy_in_shadow_is_asked_and_counted_and_denies_nobody() {
    let mut filter = Filter::configured(&json!({
        "sidecar": {"cluster": "sluice"},
        "policies": [
            {"name": "enforced", "key": [], "limit": "60 per minute"},
            {"name": "tried", "key": [], "limit": "1 per minute", "mode": "shadow"},
        ],
    }));
    let id = filter.arrive(request(Some("/"), None));
    let shape: Vec<(bool, bool)> = asked().takes.iter().map(|take| (take.follows, take.shadow)).collect();
    assert_eq!(shape, [(false, false), (true, true)]);
    filter.deliver(decided(&[true, false]));
    assert_eq!(filter.events, [(id, Event::Resumed)]);
    let id = filter.arrive(request(Some("/"), None));
    filter.deliver(decided(&[false, true]));
    assert_eq!(filter.reply(id).status, 429);
    for (name, count) in [
        ("sluice.allowed", 1),
        ("sluice.denied", 1),
        ("sluice.policy.enforced.allowed", 1),
        ("sluice.policy.enforced.denied", 1),
        ("sluice.policy.tried.shadow_denied", 1),
    ] {
        assert_eq!(counted(name), count, "{name}");
    }
    filter.finish();
}

#[test]
fn a_policys_counter_is_defined_once_and_added_to_once_a_batch() {
    let mut filter = one_policy(json!({}));
    filter.arrive(request(Some("/"), None));
    for _ in 0..10 {
        filter.arrive(request(Some("/"), None));
    }
    filter.deliver(decided(&[true]));
    host(|host| host.calls.clear());
    filter.deliver(decided(&[true]));
    assert_eq!(host(|host| host.calls.get("define_metric").copied()), None);
    // The callout, the requests, and those of the policy.
    assert_eq!(host(|host| host.calls["increment_metric"]), 3);
    assert_eq!(counted("sluice.policy.all.allowed"), 11);
    filter.finish();
}

/// `Metadata { filter_metadata: { "sluice": Struct { "skip": true } } }`, as Envoy encodes it.
const SKIP: &[u8] = b"\n\x16\n\x06sluice\x12\x0c\n\n\n\x04skip\x12\x02 \x01";

fn route_says(metadata: &[u8]) {
    host(|host| host.attributes.insert("xds\0route_metadata", metadata.to_vec()));
}

#[test]
fn what_is_wrong_with_a_route_is_told_once_and_does_not_count() {
    let mut filter = one_policy(json!({}));
    let misspelt: Vec<u8> = SKIP.iter().map(|&byte| if byte == b'k' { b'l' } else { byte }).collect();
    route_says(&misspelt);
    for _ in 0..3 {
        let id = filter.arrive(request(Some("/"), None));
        filter.deliver(decided(&[false]));
        assert_eq!(filter.reply(id).status, 429);
    }
    let told = host(|host| host.log.clone());
    assert!(told.len() == 1 && told[0].contains("slip"), "{told:?}");
    assert_eq!(counted("sluice.route_mistakes"), 3);
    filter.finish();
}

#[test]
fn a_route_may_be_exempt() {
    let mut filter = one_policy(json!({}));
    route_says(SKIP);
    let id = filter.arrive(request(Some("/"), None));
    assert!(filter.answered[&id] && host(|host| host.callouts.is_empty()));
    filter.finish();
}

/// The filter of the golden files: two limits on `/expensive`, three on `/three`.
fn golden() -> Filter {
    Filter::configured(&json!({
        "sidecar": {"cluster": "sluice"},
        "domain": "shop",
        "on_error": "deny",
        "policies": [
            {"name": "per-client", "key": [{"header": "x-api-key"}], "limit": "60 per minute"},
            {
                "name": "expensive", "match": {"path": {"prefix": "/expensive"}},
                "key": ["client_address"], "limit": "5 per minute",
            },
            {"name": "third", "match": {"path": {"prefix": "/three"}}, "key": [], "limit": "5 per minute"},
            {"name": "other", "match": {"path": {"prefix": "/three"}}, "key": [], "limit": "5 per minute"},
        ],
    }))
}

#[test]
fn the_filter_asks_as_the_golden_request_does() {
    let mut filter = golden();
    filter.arrive(request(Some("/expensive"), Some(b"alice")));
    let asked: Value = host(|host| serde_json::from_slice(&host.callouts[0].body)).expect("JSON");
    let golden: Value =
        serde_json::from_str(include_str!("../../../contract/golden/take-request.json")).expect("JSON");
    assert_eq!((&asked["domain"], &asked["takes"][0]), (&golden["domain"], &golden["takes"][0]));
    filter.finish();
}

#[test]
fn the_filter_understands_the_golden_response() {
    let mut filter = golden();
    filter.arrive(request(Some("/"), None));
    let requests = ["/", "/three", "/", "/"].map(|path| filter.arrive(request(Some(path), None)));
    filter.deliver(decided(&[true]));
    filter.events.clear();
    let body = include_bytes!("../../../contract/golden/take-response.json").to_vec();
    filter.deliver(Some((marked("200"), body)));
    let seen: Vec<(u32, u32)> = filter
        .events
        .iter()
        .map(|(id, event)| (*id, if let Event::Replied(reply) = event { reply.status } else { 200 }))
        .collect();
    assert_eq!(seen, requests.into_iter().zip([200, 429, 503, 503]).collect::<Vec<_>>());
    filter.finish();
}

#[test]
fn a_trap_in_the_configuration_is_told() {
    let policy = json!({"name": "all", "key": [], "limit": "60 per minute", "cost": 61});
    one_policy(json!({"policies": [policy]})).finish();
    let told = host(|host| host.log.clone());
    assert!(told.len() == 1 && told[0].contains("policies[0].cost"), "{told:?}");
}

#[test]
fn a_callback_about_nobody_is_ignored() {
    let filter = one_policy(json!({}));
    unsafe extern "C" {
        safe fn proxy_on_response_headers(context: u32, num_headers: usize, end_of_stream: u32) -> u32;
        safe fn proxy_on_done(context: u32) -> u32;
    }
    callback(filter.root, || proxy_on_done(filter.root));
    callback(filter.root, || proxy_on_response_headers(999_999, 1, 1));
    filter.finish();
}

#[test]
fn a_cookie_in_a_second_line_is_seen() {
    let policy =
        json!({"name": "p", "key": [{"cookie": "session"}], "missing": "skip", "limit": "1 per day"});
    let mut filter = Filter::configured(&json!({"sidecar": {"cluster": "sluice"}, "policies": [policy]}));
    let mut headers = request(Some("/"), None);
    headers.extend([("cookie", b"a=1".to_vec()), ("x-a", Vec::new()), ("cookie", b"session=x\xff".to_vec())]);
    filter.arrive(headers);
    assert_eq!(keys_on_the_way(), ["cookie:session=x%FF"]);
    filter.finish();
}
