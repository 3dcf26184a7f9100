//! What clients may send, and what they get to see.

use std::io::{Read, Write};

use e2e::{PATIENCE, PATIENT, by_api_key, strict};
use fleet::{Fleet, FleetBuilder, Store, eventually, http};
use serde_json::{Value, json};

fn builder(policies: &Value) -> FleetBuilder {
    Fleet::builder()
        .concurrency(2)
        .store(Store::Redis)
        .filter_configuration(strict(policies))
        .sidecar_args(PATIENT)
}

fn fleet(policies: &Value) -> Fleet {
    builder(policies).start().expect("a fleet")
}

/// A limit by address that every request below meets; so each of them is asked for at the sidecar.
fn roomy() -> Value {
    json!([{"name": "all", "key": ["client_address"], "limit": "1000 per minute"}])
}

#[test]
fn an_allowed_answer_carries_the_limit() {
    let fleet =
        fleet(&json!([by_api_key("minute", "60 per minute", 60), by_api_key("burst", "10 per second", 5)]));
    let answer =
        http::get("/x?y=z").header("x-api-key", "alice").send(fleet.envoy(0).addr()).expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-ratelimit-limit"), Some("5"), "of the limit that is nearest to denying");
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("4"));
    assert_eq!(answer.header("x-ratelimit-reset"), Some("1"));
    assert_eq!(answer.json().expect("the upstream's answer")["target"], "/x?y=z");
    let line = eventually(PATIENCE, "the access log", || {
        fleet.envoy(0).access_log().lines().next().map(str::to_owned)
    });
    let line = line.expect("a line");
    assert!(line.ends_with("sluice=\"decision=allowed policy=burst remaining=4\""), "{line}");
}

#[test]
fn a_denied_answer_names_the_policy_and_the_wait() {
    let fleet = fleet(&json!([by_api_key("hourly", "1 per hour", 1)]));
    let ask = || http::get("/").header("x-api-key", "alice").send(fleet.envoy(0).addr()).expect("an answer");
    assert_eq!(ask().status, 200);
    let answer = ask();
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.header("retry-after").expect("retry-after").parse().expect("seconds");
    assert!((3_590..=3_600).contains(&wait), "{wait} s");
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let body = answer.json().expect("JSON");
    assert_eq!(body["violated-policies"], json!(["hourly"]));
    assert_eq!(body["status"], 429);
    let denied = eventually(PATIENCE, "the access log", || {
        fleet.envoy(0).access_log().lines().find(|line| line.contains(" 429 ")).map(str::to_owned)
    });
    let line = denied.expect("a line");
    assert!(line.contains(" sluice_denied_hourly "), "the response code details tell why: {line}");
    assert!(line.ends_with("sluice=\"decision=denied policy=hourly remaining=0 reason=used_up\""), "{line}");
}

#[test]
fn a_grpc_request_gets_resource_exhausted() {
    let fleet = fleet(&json!([by_api_key("hourly", "1 per hour", 1)]));
    let ask = || {
        let call =
            http::post("/service/Method").header("content-type", "application/grpc").header("te", "trailers");
        call.header("x-api-key", "alice").body("").send(fleet.envoy(0).addr()).expect("an answer")
    };
    let _allowed = ask();
    let denied = ask();
    assert_eq!((denied.status, denied.header("grpc-status")), (200, Some("8")));
}

#[test]
fn a_request_that_no_policy_governs_is_left_alone() {
    let policies =
        json!([{"name": "api", "match": {"path": {"prefix": "/api"}}, "key": [], "limit": "1 per day"}]);
    let fleet = fleet(&policies);
    for _ in 0..3 {
        let answer = http::get("/elsewhere").send(fleet.envoy(0).addr()).expect("an answer");
        assert_eq!((answer.status, answer.header("x-ratelimit-limit")), (200, None));
    }
    assert_eq!(fleet.envoy(0).stat("wasmcustom.sluice.callouts").expect("a stat"), 0);
}

#[test]
fn header_values_that_are_not_utf8_are_limited_like_any_other() {
    let fleet = fleet(&json!([by_api_key("one", "1 per day", 1)]));
    let status = |key: &[u8]| {
        http::get("/").header("x-api-key", key).send(fleet.envoy(0).addr()).expect("an answer").status
    };
    for key in [&b"\xff\xfe"[..], b"\xff", b"\xc3\x28", b"\xf0\x9f\x92\xa9"] {
        assert_eq!(status(key), 200);
        assert_eq!(status(key), 429);
    }
    let long = vec![b'x'; 40_000];
    assert_eq!((status(&long), status(&long)), (200, 429));
}

#[test]
fn a_connect_without_a_path_is_decided() {
    let builder = builder(&json!([
        {"name": "path", "match": {"path": {"prefix": "/"}}, "key": [], "limit": "1 per day"},
        by_api_key("all", "1 per day", 1),
    ]));
    let fleet = builder
        .adjust(|config| {
            let manager = config.connection_manager()?;
            manager["upgrade_configs"] = json!([{"upgrade_type": "CONNECT"}]);
            *config.routes()? = json!([{
                "match": {"connect_matcher": {}},
                "route": {"cluster": "upstream", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]},
            }]);
            Ok(())
        })
        .start()
        .expect("a fleet");
    let connect = || {
        let request = http::request("CONNECT", "example.org:443").header("x-api-key", "alice");
        request.open(fleet.envoy(0).addr()).expect("an answer")
    };
    let (answer, mut stream) = connect();
    assert_eq!(answer.status, 200);
    stream.write_all(b"through the tunnel").expect("sent");
    let mut echoed = [0; 18];
    stream.read_exact(&mut echoed).expect("echoed");
    assert_eq!(&echoed, b"through the tunnel");
    assert_eq!(connect().0.status, 429);
}

#[test]
fn a_websocket_is_decided_once_and_then_left_alone() {
    let builder = builder(&json!([by_api_key("one", "1 per day", 1)]));
    let fleet = builder
        .adjust(|config| {
            config.connection_manager()?["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
            Ok(())
        })
        .start()
        .expect("a fleet");
    let upgrade = || {
        let request = http::get("/chat").header("x-api-key", "alice").header("connection", "Upgrade");
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
        let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        request.open(fleet.envoy(0).addr()).expect("an answer")
    };
    let (answer, mut stream) = upgrade();
    assert_eq!(answer.status, 101);
    for round in 0..3_u8 {
        stream.write_all(&[b'a' + round; 9]).expect("sent");
        let mut echoed = [0; 9];
        stream.read_exact(&mut echoed).expect("echoed");
        assert_eq!(echoed, [b'a' + round; 9]);
    }
    assert_eq!(upgrade().0.status, 429);
}

#[test]
fn a_large_post_waits_for_its_decision_and_arrives_whole() {
    let fleet = fleet(&json!([by_api_key("one", "1 per day", 1)]));
    let send = || {
        let body = vec![b'x'; 5 << 20];
        http::post("/upload").header("x-api-key", "alice").body(body).send(fleet.envoy(0).addr())
    };
    let answer = send().expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json().expect("JSON")["body_bytes"], 5 << 20);
    // Envoy may close the connection while the denied body is still being sent, so its answer may be lost to the
    // client; what counts is that the upstream never sees it.
    if let Ok(answer) = send() {
        assert_eq!(answer.status, 429);
    }
    assert_eq!(fleet.upstream().requests(), 1);
}

#[test]
fn a_client_that_hangs_up_harms_nobody_else() {
    let fleet = Fleet::builder().filter_configuration(strict(&roomy())).start().expect("a fleet");
    let addr = fleet.envoy(0).addr();
    // While the sidecar stands still one request is on its way there, and the others wait behind it.
    fleet.sidecar(0).process().freeze();
    let waiting = std::thread::scope(|scope| {
        let mut hanging: Vec<_> = (0..10).map(|_| http::get("/").send_only(addr).expect("sent")).collect();
        let staying: Vec<_> = (0..10).map(|_| scope.spawn(move || http::get("/").send(addr))).collect();
        eventually(PATIENCE, "all requests are in the filter", || {
            (fleet.envoy(0).stat("http.ingress.downstream_rq_active").ok()? == 20).then_some(())
        })
        .expect("20 requests wait");
        hanging.clear();
        eventually(PATIENCE, "the clients that hang up are gone", || {
            (fleet.envoy(0).stat("http.ingress.downstream_rq_active").ok()? == 10).then_some(())
        })
        .expect("10 requests wait");
        fleet.sidecar(0).process().thaw();
        staying
            .into_iter()
            .map(|thread| thread.join().expect("no panic").expect("an answer").status)
            .collect::<Vec<_>>()
    });
    assert_eq!(waiting, [200; 10]);
    // The first may have left alone, in a callout that was already on its way; all others were dropped unasked.
    let abandoned = fleet.envoy(0).stat("wasmcustom.sluice.abandoned").expect("a stat");
    assert!((9..=10).contains(&abandoned), "{abandoned} takes were dropped");
    let remaining = http::get("/").send(addr).expect("an answer");
    let remaining: u64 =
        remaining.header("x-ratelimit-remaining").expect("the limit").parse().expect("a number");
    assert!(remaining >= 1_000 - 12, "who left before being sent was not charged: {remaining} remain");
}

#[test]
fn a_client_that_sends_slowly_is_decided_once_it_has_sent_its_headers() {
    let fleet = fleet(&roomy());
    let mut stream = std::net::TcpStream::connect(fleet.envoy(0).addr()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for byte in b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n" {
        stream.write_all(&[*byte]).expect("sent");
    }
    stream.write_all(b"abc").expect("sent");
    let mut head = [0; 15];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
}

/// Envoy sends the replies to a batch from within each other, on one stack with the filter's.
#[test]
fn many_who_are_denied_at_once_are_all_answered() {
    let fleet = Fleet::builder()
        .filter_configuration(strict(&json!([{"name": "none", "key": [], "limit": "1 per day", "burst": 1}])))
        .start()
        .expect("a fleet");
    let envoy = fleet.envoy(0);
    fleet.sidecar(0).process().freeze();
    let waiting: Vec<_> = (0..700).map(|_| http::get("/").send_only(envoy.addr()).expect("sent")).collect();
    eventually(PATIENCE, "all requests are in the filter", || {
        (envoy.stat("http.ingress.downstream_rq_active").ok()? == 700).then_some(())
    })
    .expect("700 requests wait");
    fleet.sidecar(0).process().thaw();
    let statuses = || (envoy.stat("wasmcustom.sluice.denied").ok()? == 699).then_some(());
    eventually(PATIENCE, "all but one are denied", statuses)
        .unwrap_or_else(|error| panic!("{error}\n{}", envoy.log()));
    assert_eq!(
        http::get("/").send(envoy.addr()).expect("an answer").status,
        429,
        "the filter is still there"
    );
    assert!(!envoy.access_log().contains("wasm_fail_stream"), "{}", envoy.log());
    drop(waiting);
}
