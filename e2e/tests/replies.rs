//! What clients get to see: headers, denials, and what gRPC makes of them.
//!
//! Each way to answer has a listener of its own in one Envoy, so that one fleet serves for all.

use std::net::SocketAddr;

use e2e::{Listener, PATIENT, by_api_key, grpc, strict};
use fleet::http::{self, Answer};
use fleet::{Fleet, FleetBuilder};
use serde_json::{Value, json};

/// A configuration of one limit with further fields.
fn hourly(fields: Value) -> Value {
    let mut configuration = strict(&json!([by_api_key("daily", "10 per day", 2)]));
    configuration.as_object_mut().expect("a mapping").extend(fields.as_object().cloned().expect("fields"));
    configuration
}

/// A listener for each configuration, all in one Envoy.
fn listeners<const N: usize>(configurations: [Value; N]) -> (FleetBuilder, [SocketAddr; N]) {
    let listeners = configurations.map(|configuration| {
        Listener::new(move |config| {
            *config.filter_configuration()? = configuration.clone();
            Ok(())
        })
    });
    let addrs = listeners.each_ref().map(Listener::addr);
    let add =
        move |config: &mut fleet::Config| listeners.iter().try_for_each(|listener| listener.add_to(config));
    (Fleet::builder().sidecar_args(PATIENT).adjust(add), addrs)
}

fn ask(addr: SocketAddr, client: &str) -> Answer {
    http::get("/").header("x-api-key", client).send(addr).expect("an answer")
}

/// The answer to a client that has used its limit up.
fn denied(addr: SocketAddr, client: &str) -> Answer {
    let answer = (0..10).map(|_| ask(addr, client)).find(|answer| answer.status != 200);
    answer.expect("denied")
}

/// Which headers of limits an answer has.
fn told(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.iter().map(|(name, _)| name.as_str());
    let mut told: Vec<&str> =
        names.filter(|name| name.contains("ratelimit") || *name == "retry-after").collect();
    told.sort_unstable();
    told
}

#[test]
fn each_header_can_be_switched() {
    let all =
        ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    let (builder, [plain, neither, only_x, silent, none]) = listeners([
        hourly(json!({})),
        hourly(json!({"headers": {"x_ratelimit": false, "ratelimit": true}})),
        hourly(json!({"headers": {"ratelimit": false}})),
        hourly(json!({"headers": {"retry_after": false}})),
        hourly(
            json!({"headers": {"x_ratelimit": false, "ratelimit": false, "retry_after": false, "debug": true}}),
        ),
    ]);
    let _fleet = builder.start().expect("a fleet");
    // One limit behind five listeners: each client is a new one.
    let answer = ask(plain, "a");
    assert_eq!(told(&answer), all);
    assert_eq!(answer.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("1"));
    assert_eq!(answer.header("x-ratelimit-reset"), Some("8640"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"daily\";q=10;w=86400"));
    assert_eq!(answer.header("ratelimit"), Some("\"daily\";r=1;t=8640"));
    let answer = denied(plain, "a");
    assert_eq!(told(&answer), [&all[..2], &["retry-after"], &all[2..]].concat());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));

    assert_eq!(told(&ask(neither, "b")), all[..2]);
    assert_eq!(told(&ask(only_x, "c")), all[2..]);
    assert_eq!(told(&denied(silent, "d")), all, "all but Retry-After");
    assert_eq!(told(&denied(none, "e")), Vec::<&str>::new());
    let decision = ["f", "e"].map(|client| ask(none, client).header("x-sluice-decision").map(str::to_owned));
    let expected = [
        "decision=allowed policy=daily remaining=1",
        // The second time, it is remembered.
        "decision=denied policy=daily remaining=0 reason=used_up source=deny_cache",
    ];
    assert_eq!(decision, expected.map(|text| Some(text.to_owned())));
    assert_eq!(ask(plain, "g").header("x-sluice-decision"), None);
}

#[test]
fn jitter_sends_clients_back_at_different_times_and_never_too_early() {
    let (builder, [plain, jitter]) =
        listeners([hourly(json!({})), hourly(json!({"headers": {"retry_after": {"jitter": "1h"}}}))]);
    let _fleet = builder.start().expect("a fleet");
    let wait =
        |answer: &Answer| -> u64 { answer.header("retry-after").expect("a wait").parse().expect("seconds") };
    let first = wait(&denied(jitter, "a"));
    let waits: Vec<u64> = (0..30).map(|_| wait(&ask(jitter, "a"))).collect();
    let due = wait(&ask(plain, "a"));
    assert!(waits.iter().all(|wait| (due..=8_640 + 3_600).contains(wait)), "{waits:?}, and {due} are needed");
    assert!(waits.iter().any(|wait| wait.abs_diff(first) > 60), "all the same: {waits:?}");
}

#[test]
fn the_upstreams_own_headers_are_replaced_kept_or_appended_to() {
    let with = |upstream: &str| hourly(json!({"headers": {"upstream": upstream}}));
    let (builder, addrs) = listeners([hourly(json!({})), with("replace"), with("keep"), with("append")]);
    let _fleet = builder.start().expect("a fleet");
    let expected = [vec!["1"], vec!["1"], vec!["77", "78"], vec!["77", "78", "1"]];
    for (index, (addr, expected)) in addrs.into_iter().zip(expected).enumerate() {
        let own = ["X-RateLimit-Remaining: 77", "x-ratelimit-remaining: 78", "x-other: stays"];
        let request = http::get("/").header("x-api-key", format!("client-{index}"));
        let request = own.iter().fold(request, |request, header| request.header("x-echo-header", header));
        let answer = request.send(addr).expect("an answer");
        let values = answer.headers.iter().filter(|(name, _)| name == "x-ratelimit-remaining");
        assert_eq!(values.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(answer.header("x-other"), Some("stays"));
        assert_eq!(answer.header("x-ratelimit-limit"), Some("2"), "what upstream did not send is added");
    }
}

#[test]
fn a_denied_request_is_answered_as_the_user_wants() {
    let own = json!({
        "status": 503,
        "headers": {"Content-Type": "application/json", "x-why": "%POLICY% at 100%%", "retry-after": "120", "x-ratelimit-limit": "none"},
        "body": "{\"limit\":\"%LIMIT%\",\"left\":%REMAINING%,\"wait\":%RETRY_AFTER%}",
    });
    let mut by_policy = hourly(json!({"denied": own}));
    by_policy["policies"][0]["denied"] = json!({"body": "slow down\n"});
    let mut never = hourly(json!({"denied": {"body": "%POLICY% %RETRY_AFTER%"}}));
    never["policies"][0]["cost"] = json!(3);
    let (builder, [plain, filter, policy, never]) =
        listeners([hourly(json!({})), hourly(json!({"denied": own})), by_policy, never]);
    let _fleet = builder.start().expect("a fleet");

    let answer = denied(plain, "a");
    let problem = answer.json().expect("a problem");
    assert_eq!(
        (answer.status, &problem["status"], &problem["violated-policies"]),
        (429, &json!(429), &json!(["daily"]))
    );

    let answer = denied(filter, "b");
    let expected = [
        ("content-type", "application/json"),
        ("x-why", "daily at 100%"),
        ("retry-after", "120"),
        ("x-ratelimit-limit", "none"),
    ];
    assert_eq!(answer.status, 503);
    for (name, value) in expected {
        assert_eq!(answer.header(name), Some(value));
    }
    assert_eq!(told(&answer).len(), 6, "the others are still sent, and none twice");
    let body = answer.json().expect("JSON");
    assert_eq!((&body["limit"], &body["left"]), (&json!("10 per day"), &json!(0)));
    assert!(body["wait"].as_u64().is_some_and(|wait| (1..=8_640).contains(&wait)), "{body}");

    let answer = denied(policy, "c");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (429, "slow down\n"),
        "as a whole, not field by field"
    );
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("x-why"), None);

    let answer = denied(never, "d");
    assert_eq!((answer.text().as_str(), answer.header("retry-after")), ("daily null", None), "it never fits");
}

#[test]
fn grpc_gets_its_own_words_without_a_body() {
    let denied = json!({"status": 403, "headers": {"x-why": "%POLICY%"}, "body": "<h1>no</h1>"});
    let (builder, [plain, own]) = listeners([hourly(json!({})), hourly(json!({"denied": denied}))]);
    let fleet = builder.upstream(grpc::upstream());
    let fleet = fleet.adjust(|config| config.http2("upstream").map(drop)).start().expect("a fleet");
    let method = "/shop.Catalog/List";
    for (addr, client) in [(plain, "a"), (own, "b")] {
        let call = |kind: &str| grpc::call(addr, method, &[("x-api-key", client), ("x-kind", kind)]);
        let answers = [call("one"), call("two")].map(|answer| (answer.status(), answer.trailers_only));
        assert_eq!(answers, [(Some(0), false); 2], "what passes is the upstream's");
        let denied = call("three");
        assert_eq!(
            (denied.http_status, denied.status(), denied.trailers_only),
            (200, Some(8), true),
            "{denied:?}"
        );
        let header = |name: &str| denied.headers.get(name).map(|value| value.to_str().expect("text"));
        let wait: u64 = header("retry-after").expect("a wait").parse().expect("seconds");
        let message = format!("the limit \"daily\" is used up; retry after {wait} seconds");
        assert_eq!(denied.message(), Some(message.as_str()));
        assert_eq!(header("x-ratelimit-remaining"), Some("0"));
        assert_eq!(header("content-type"), Some("application/grpc"));
        assert_eq!(header("x-why"), (client == "b").then_some("daily"));
    }
    // What Envoy does not take for gRPC is answered like any other request.
    let web =
        http::post(method).header("x-api-key", "a").header("content-type", "application/grpc-web+proto");
    assert_eq!(web.send(plain).expect("an answer").status, 429);

    fleet.sidecar(0).process().kill();
    // A client of whom nothing is remembered.
    let failed = grpc::call(plain, method, &[("x-api-key", "c")]);
    assert_eq!(
        (failed.http_status, failed.status(), failed.trailers_only),
        (200, Some(14), true),
        "{failed:?}"
    );
    assert_eq!(failed.message(), Some("the rate limit of this request could not be checked"));
}
