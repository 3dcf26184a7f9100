//! Takes of sampled traces as a receiver of OpenTelemetry hears of them.

mod support;

use std::{
    net::{TcpListener, TcpStream},
    sync::Arc,
};

use fleet::{ReceivedSpan, SpanReceiver, eventually};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use support::{
    DEADLINE,
    certificates::{Authority, Directory},
    free_port,
    running::{Running, ask, get},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const KEY: &str = "a-client-that-nobody-may-know";

fn sampled() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

fn bucket(policy: &str, burst: u64) -> Value {
    json!({"policy": policy, "key": KEY, "tokens": 1, "period_us": 3_600_000_000_u64, "burst": burst, "cost": 1})
}

/// What a take of these is answered.
fn take(sluice: &Running, takes: &Value) -> Value {
    let body = json!({"domain": "shop", "takes": takes}).to_string();
    let head = "POST /v1/take HTTP/1.1\r\nhost: sluice\r\nconnection: close\r\n";
    let answer = ask(&sluice.address, &format!("{head}content-length: {}\r\n\r\n{body}", body.len()));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
}

fn start(receiver: &str, environment: &[(&str, &str)]) -> Running {
    Running::start_in(&["--shutdown-delay", "0s", "--otlp-endpoint", receiver], environment)
}

fn spans(receiver: &SpanReceiver, count: usize) -> Vec<ReceivedSpan> {
    eventually(DEADLINE, "the spans", || Some(receiver.spans()).filter(|spans| spans.len() >= count))
        .expect("received")
}

fn counts(sluice: &Running) -> Value {
    let answer = get(&sluice.admin, "/v1/status");
    let status: Value = serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
    status["spans"].clone()
}

#[test]
fn a_sampled_take_is_told_as_part_of_its_trace_and_its_key_is_not() {
    let receiver = SpanReceiver::start().expect("it listens");
    let named = [("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")];
    let sluice = start(&receiver.url(), &named);
    let traced = |policies: &[Value]| json!({"buckets": policies, "traceparent": sampled()});
    let one = bucket("per-client", 1);
    let takes = json!([
        {"buckets": [one]},
        traced(&[one.clone(), bucket("all", 9)]),
        {"buckets": [bucket("strict", 1)], "follows": false, "traceparent": format!("00-{TRACE}-{PARENT}-00")},
        {"buckets": [bucket("wide", 9)], "traceparent": "nonsense"},
        {"buckets": [bucket("wide", 9)], "traceparent": format!("00-{TRACE}-{PARENT}-03")},
        {"buckets": [bucket("strict", 1)], "follows": true},
    ]);
    take(&sluice, &takes);
    let spans = spans(&receiver, 4);
    assert_eq!(spans.len(), 4, "of the two that are sampled, each with its store's: {spans:#?}");
    let takes: Vec<&ReceivedSpan> = spans.iter().filter(|span| span.name == "sluice.take").collect();
    for take in &takes {
        assert_eq!((take.trace_id.as_str(), take.parent_id.as_str()), (TRACE, PARENT), "{take:#?}");
        let within = spans.iter().find(|span| span.parent_id == take.span_id).expect("the store's");
        assert_eq!((within.trace_id.as_str(), within.name.as_str()), (TRACE, "sluice.store"));
        assert!(
            take.times_ns[0] <= within.times_ns[0] && within.times_ns[1] <= take.times_ns[1],
            "{spans:#?}"
        );
        for (name, value) in [
            ("service.name", "sluice"),
            ("deployment.environment.name", "test"),
            ("sluice.domain", "shop"),
            ("sluice.batch.takes", "6"),
            ("sluice.store", "memory"),
        ] {
            assert_eq!(take.attributes.get(name).map(String::as_str), Some(value), "{name}: {take:#?}");
        }
    }
    let of = |take: usize, name: &str| takes[take].attributes.get(name).map(String::as_str);
    assert_eq!((of(0, "sluice.policies"), of(0, "sluice.outcome")), (Some("per-client,all"), Some("denied")));
    assert_eq!((of(0, "sluice.denied_by"), of(0, "sluice.shadow_denied_by")), (Some("per-client"), None));
    let retry_after_us: u64 = of(0, "sluice.retry_after_us").expect("it").parse().expect("a number");
    assert!(retry_after_us > 3_000_000_000, "{retry_after_us}");
    assert_eq!(
        (of(1, "sluice.outcome"), of(1, "sluice.shadow_denied_by")),
        (Some("allowed"), Some("strict"))
    );
    assert!(takes.iter().all(|take| take.error.is_none()), "a denial is no error");
    assert!(!format!("{spans:?}").contains(KEY), "{spans:#?}");
    let shadow = json!([{"buckets": [bucket("tried", 1)], "shadow": true, "traceparent": sampled()}]);
    take(&sluice, &shadow);
    take(&sluice, &shadow);
    let shadows = self::spans(&receiver, 8);
    let outcomes = shadows[4..].iter().filter_map(|span| span.attributes.get("sluice.outcome"));
    assert_eq!(outcomes.collect::<Vec<_>>(), ["allowed", "shadow_denied"], "where nothing is enforced");
    eventually(DEADLINE, "the counts", || {
        (counts(&sluice) == json!({"exported": 8, "lost": 0})).then_some(())
    })
    .expect("counted");
}

/// What waits is handed on before the program ends.
#[test]
fn the_last_spans_are_told_before_the_end() {
    let receiver = SpanReceiver::start().expect("it listens");
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url()), ("OTEL_SERVICE_NAME", "limits".to_owned())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut sluice = Running::start_in(&["--shutdown-delay", "0s"], &environment);
    take(&sluice, &json!([{"buckets": [bucket("all", 9)], "traceparent": sampled()}]));
    sluice.terminate();
    assert_eq!(sluice.wait(), Some(0));
    let spans = receiver.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    assert_eq!(spans[0].attributes["service.name"], "limits");
}

/// A receiver that is gone, that refuses, and that takes again.
#[test]
fn a_receiver_that_is_down_costs_no_take() {
    let receiver = SpanReceiver::start().expect("it listens");
    receiver.refuse(true);
    let mut sluice = start(&receiver.url(), &[]);
    let traced = json!([{"buckets": [bucket("all", 9)], "traceparent": sampled()}]);
    take(&sluice, &traced);
    let told = sluice.wait_for_line("spans are lost");
    assert!(told.contains("503") && told.contains("WARN"), "{told}");
    assert_eq!(counts(&sluice), json!({"exported": 0, "lost": 2}));
    receiver.refuse(false);
    take(&sluice, &traced);
    sluice.wait_for_line("takes them again");
    assert_eq!(counts(&sluice), json!({"exported": 2, "lost": 2}));

    receiver.reject_one(true);
    take(&sluice, &traced);
    let told = sluice.wait_for_line("spans are lost");
    assert!(told.contains("\"reason\":\"too old\""), "{told}");
    assert_eq!(counts(&sluice), json!({"exported": 3, "lost": 3}));

    // Nobody listens there; and there somebody accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    for receiver in
        [format!("127.0.0.1:{}", free_port()), silent.local_addr().expect("its address").to_string()]
    {
        let mut sluice = start(&format!("http://{receiver}"), &[]);
        // Far more than may wait, and nothing of it waits for the receiver.
        let many = vec![json!({"buckets": [bucket("all", 1_000_000)], "traceparent": sampled()}); 2_000];
        for _ in 0..4 {
            let verdicts = take(&sluice, &json!(many));
            assert!(
                verdicts["verdicts"].as_array().expect("a list").iter().all(|one| one["allowed"].is_array())
            );
        }
        let lost = |counts: &Value| {
            counts["lost"].as_u64().is_some_and(|lost| lost >= 4 * 4_000 - 2_048 - 512 - 4_000)
        };
        eventually(DEADLINE, "what is lost", || Some(counts(&sluice)).filter(lost)).expect("counted");
        sluice.terminate();
        assert_eq!(sluice.wait(), Some(0), "its end waits for two seconds at most");
    }
}

#[test]
fn a_receiver_is_spoken_to_by_tls_where_its_authority_is_known() {
    let authority = Authority::new();
    let files = Directory::new("spans");
    let known = files.write("ca.pem", &authority.pem());
    let identity = authority.server("localhost");
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they fit");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://localhost:{}", listener.local_addr().expect("its address").port());
    let receiver = Arc::new(SpanReceiver::start().expect("it listens"));
    let ours = Arc::clone(&receiver);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream: TcpStream = stream.expect("a connection");
            let tls = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let ours = Arc::clone(&ours);
            // One that is refused ends with an error, as it should.
            std::thread::spawn(move || ours.answer(StreamOwned::new(tls, stream)));
        }
    });
    let traced = json!([{"buckets": [bucket("all", 9)], "traceparent": sampled()}]);
    let sluice = start(&url, &[("OTEL_EXPORTER_OTLP_CERTIFICATE", &known)]);
    take(&sluice, &traced);
    assert_eq!(spans(&receiver, 2)[0].trace_id, TRACE);

    let other = files.write("other.pem", &Authority::new().pem());
    let mut sluice = start(&url, &[("OTEL_EXPORTER_OTLP_CERTIFICATE", &other)]);
    take(&sluice, &traced);
    let told = sluice.wait_for_line("spans are lost");
    assert!(told.contains("invalid peer certificate"), "{told}");
}

/// It was not there, then it was, and now it refuses: what is told is what is wrong now.
#[test]
fn the_reason_that_is_told_is_that_of_the_batch_that_failed() {
    let traced = json!([{"buckets": [bucket("all", 9)], "traceparent": sampled()}]);
    let port = free_port();
    let mut sluice = start(&format!("http://127.0.0.1:{port}"), &[]);
    for lost in [2, 4] {
        take(&sluice, &traced);
        let wanted = json!({"exported": 0, "lost": lost});
        eventually(DEADLINE, "what is lost", || (counts(&sluice) == wanted).then_some(())).expect("counted");
    }
    let told = sluice.wait_for_line("spans are lost");
    assert!(told.contains("refused"), "{told}");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free still");
    let receiver = Arc::new(SpanReceiver::start().expect("it answers"));
    let ours = Arc::clone(&receiver);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = ours.answer(stream.expect("a connection"));
        }
    });
    take(&sluice, &traced);
    sluice.wait_for_line("takes them again");
    receiver.refuse(true);
    take(&sluice, &traced);
    let told = sluice.wait_for_line("spans are lost");
    assert!(told.contains("503") && !told.contains("Connection refused"), "{told}");
}

/// Variables that are there for every program of a machine are no reason not to decide takes.
#[test]
fn an_environment_that_cannot_be_obeyed_is_told_of_and_takes_are_decided() {
    let refused =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let no_file = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
    ];
    for environment in [refused, no_file] {
        let sluice = Running::start_in(&["--shutdown-delay", "0s"], &environment);
        let line = sluice.logged.lines().find(|line| line.contains("no spans are told"));
        let told = line.unwrap_or_else(|| panic!("{}", sluice.logged));
        assert!(told.contains(environment[1].0) && told.contains("WARN"), "{told}");
        take(&sluice, &json!([{"buckets": [bucket("all", 9)], "traceparent": sampled()}]));
        assert_eq!(counts(&sluice), Value::Null);
    }
}

/// What a sampler of the environment says is not for takes, whose traces were sampled by whoever began them.
#[test]
fn no_sampler_of_the_environment_hides_spans() {
    let receiver = SpanReceiver::start().expect("it listens");
    let sluice = start(&receiver.url(), &[("OTEL_TRACES_SAMPLER", "always_off")]);
    take(&sluice, &json!([{"buckets": [bucket("all", 9)], "traceparent": sampled()}]));
    assert_eq!(spans(&receiver, 2).len(), 2);
}

/// Whether a take is sampled any client may say.
#[test]
fn a_flood_of_sampled_takes_is_told_of_as_far_as_it_is_cheap() {
    let receiver = SpanReceiver::start().expect("it listens");
    let sluice = start(&receiver.url(), &[]);
    let many = vec![json!({"buckets": [bucket("all", 1_000_000)], "traceparent": sampled()}); 2_000];
    take(&sluice, &json!(many));
    eventually(DEADLINE, "the counts", || {
        (counts(&sluice) == json!({"exported": 1_000, "lost": 3_000})).then_some(())
    })
    .expect("no more than are told in a second");
}
