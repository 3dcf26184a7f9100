//! A request's trace through a real Envoy: what its sidecar tells of it is part of it.

use e2e::{PATIENCE, PATIENT, ask, by_api_key, strict};
use fleet::{Fleet, SpanReceiver, eventually, http};
use serde_json::json;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[test]
fn a_sampled_request_is_joined_by_the_take_that_decided_it() {
    let receiver = SpanReceiver::start().expect("it listens");
    let mut configuration = strict(&json!([by_api_key("per-client", "1 per day", 1)]));
    configuration["tracing"] = json!(true);
    let url = receiver.url();
    let arguments = [&PATIENT[..], &["--otlp-endpoint", &url]].concat();
    let fleet = Fleet::builder()
        .filter_configuration(configuration)
        .sidecar_args(arguments)
        .start()
        .expect("a fleet");
    let traced = |flags: &str| {
        let traceparent = format!("00-{TRACE}-{PARENT}-{flags}");
        ask(&fleet, http::get("/").header("x-api-key", "alice").header("traceparent", traceparent)).status
    };
    assert_eq!((traced("00"), traced("01")), (200, 429));
    let spans = eventually(PATIENCE, "the spans", || Some(receiver.spans()).filter(|spans| spans.len() >= 2));
    let spans = spans.expect("received");
    let take = spans.iter().find(|span| span.name == "sluice.take").expect("the take's");
    assert_eq!((take.trace_id.as_str(), take.parent_id.as_str()), (TRACE, PARENT));
    let of = |name: &str| take.attributes.get(name).map(String::as_str);
    assert_eq!((of("sluice.outcome"), of("sluice.denied_by")), (Some("denied"), Some("per-client")));
    assert_eq!((of("sluice.domain"), of("sluice.store")), (Some("e2e"), Some("memory")));
    assert!(spans.iter().all(|span| span.trace_id == TRACE) && !format!("{spans:?}").contains("alice"));
    assert_eq!(spans.len(), 2, "the request that is not sampled is not told of: {spans:#?}");
}

/// What this Envoy's own tracer writes its router sends to the upstream, and no filter before it sees it.
#[test]
fn a_trace_that_this_envoy_begins_is_not_joined_and_one_that_came_is_told_of_as_it_came() {
    let receiver = SpanReceiver::start().expect("it listens");
    let mut configuration = strict(&json!([by_api_key("per-client", "1 per day", 9)]));
    configuration["tracing"] = json!(true);
    let url = receiver.url();
    let arguments = [&PATIENT[..], &["--otlp-endpoint", &url]].concat();
    let provider = json!({
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "grpc_service": {"envoy_grpc": {"cluster_name": "sluice"}, "timeout": "0.25s"},
            "service_name": "edge",
        },
    });
    let fleet = Fleet::builder()
        .filter_configuration(configuration)
        .sidecar_args(arguments)
        .adjust(move |config| {
            config.connection_manager()?["tracing"] =
                json!({"provider": provider, "random_sampling": {"value": 100}});
            Ok(())
        })
        .start()
        .expect("a fleet");
    let sent = |traceparent: Option<&str>| {
        let request = http::get("/").header("x-api-key", "alice");
        let answer =
            ask(&fleet, traceparent.iter().fold(request, |request, of| request.header("traceparent", *of)));
        assert_eq!(answer.status, 200);
        let reached = answer.json().expect("what reached the upstream");
        let headers = reached["headers"].as_array().expect("a list").iter();
        let traceparent =
            { headers }.find(|header| header[0] == "traceparent").expect("Envoy traces what it sends");
        traceparent[1].as_str().expect("text").to_owned()
    };
    // Envoy's own, sampled.
    let begun = sent(None);
    assert!(begun.ends_with("-01"), "{begun}");
    // One that came: Envoy puts a span of its own between.
    let continued = sent(Some(&format!("00-{TRACE}-{PARENT}-01")));
    assert!(continued.contains(TRACE) && !continued.contains(PARENT), "{continued}");
    let spans = eventually(PATIENCE, "the spans", || Some(receiver.spans()).filter(|spans| spans.len() >= 2));
    let spans = spans.expect("received");
    let take = spans.iter().find(|span| span.name == "sluice.take").expect("the take's");
    assert_eq!((take.trace_id.as_str(), take.parent_id.as_str()), (TRACE, PARENT));
    assert!(
        spans.iter().all(|span| span.trace_id == TRACE),
        "the trace that Envoy began is not joined: {spans:#?}"
    );
}
