//! What `sluice replay` tells of access logs.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use bucket::{Limit, Outcome};
use fleet::RunDir;
use serde_json::{Value, json};

const EXPECTED: &str = "\
The filter on line 1, domain shop:
  6 requests from 2026-11-21T10:00:00.000Z to 2026-11-21T10:00:33.000Z
  2 would have been denied (33.33 %)
  4 were not judged by all of their policies

  policy           matched        denied     share  worst minute
  per-client             6             2   33.33 %  2 in 2026-11-21T10:00:00.000Z
  per-key                2             0    0.00 %  -
              not judged for 4 requests: the log does not tell
                the header x-api-key (4)
  tried                  6             5   83.33 %  5 in 2026-11-21T10:00:00.000Z; it is in shadow, so nothing is denied

  Denied most:
             5  tried       path=/a
             2  per-client  client_address=10.0.0.1

6 of 8 lines were read
note: 2 lines could not be read, and are not among the requests
note: 1 requests began before one above them, by 500ms at most, and were decided at the time of that one
";

/// Envoy's default format, with a client that lies about where it came from, one that writes quotation marks, a line out
/// of order, and JSON between.
const LOG: &str = r#"[2026-11-21T10:00:00.000Z] "GET /a HTTP/1.1" 200 - 0 5 1 0 "10.0.0.1" "curl/8" "id" "shop" "127.0.0.1:80"
[2026-11-21T10:00:01.000Z] "GET /a?x=1 HTTP/1.1" 200 - 0 5 1 0 "10.0.0.1" "curl/8 "b" c" "id" "shop" "127.0.0.1:80"
[2026-11-21T10:00:02.000Z] "GET /a HTTP/1.1" 503 UF 0 5 1 - "10.0.0.1" "-" "id" "shop" "-"

[2026-11-21T10:00:01.500Z] "GET /a HTTP/2" 200 - 0 5 1 0 "6.6.6.6, 10.0.0.1" "curl/8" "id" "shop" "127.0.0.1:80"
[2026-11-21T10:00:02.000Z] "GET /b HTTP/1.1" 200 - 0 5 1 - "10.0.0.2" "evil" "x" "id" "shop" "127.0.0.1:80"
{"start_time":"2026-11-21T10:00:03Z","method":"GET","path":"/a","downstream_remote_address":"10.0.0.1:555","x_api_key":"k"}
{"start_time":"2026-11-21T10:00:33Z","method":"GET","path":"/a","downstream_remote_address":"10.0.0.1:555","x_api_key":null}
nonsense
"#;

fn shop() -> Value {
    json!([
        {"name": "per-client", "key": ["client_address"], "limit": "3 per minute"},
        {"name": "per-key", "key": [{"header": "x-api-key"}], "limit": "2 per minute"},
        {"name": "tried", "key": ["path"], "limit": "1 per minute", "mode": "shadow"},
    ])
}

/// Replays a log from the standard input under these policies.
fn replay(policies: &Value, log: &[u8], arguments: &[&str]) -> Output {
    let run = RunDir::new().expect("a directory");
    let config = run.path().join("shop.json");
    let whole = json!({"sidecar": {"cluster": "sluice"}, "domain": "shop", "policies": policies});
    fs::write(&config, whole.to_string()).expect("it is written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .env_clear()
        .args(["replay", "--config"])
        .arg(&config)
        .args(arguments)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("piped");
    let log = log.to_vec();
    // It may have ended without reading.
    let writer = std::thread::spawn(move || stdin.write_all(&log));
    let output = child.wait_with_output().expect("it ends");
    let _ = writer.join().expect("it was written");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The first filter of the JSON, of a replay that went well.
fn filter(policies: &Value, log: &str, arguments: &[&str]) -> Value {
    let output = replay(policies, log.as_bytes(), &[&["--format", "json"], arguments].concat());
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["filters"][0].take()
}

fn json_line(at_ms: u64, fields: Value) -> String {
    let mut line =
        json!({"start_time": at_ms, "method": "GET", "path": "/", "downstream_remote_address": "10.0.0.1:1"});
    line.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
    format!("{line}\n")
}

const AT_MS: u64 = 1_795_000_000_000;

#[test]
fn a_log_is_told_by_policy_and_by_key() {
    let output = replay(&shop(), LOG.as_bytes(), &[]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), (EXPECTED, Some(0)));
    let complaints = text(&output.stderr);
    assert!(complaints.contains("-:6: this line is left out: a header holds"), "{complaints}");
    assert!(complaints.contains("-:9: this line is left out: it is neither"), "{complaints}");
}

#[test]
fn what_is_packed_is_unpacked() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(LOG.as_bytes()).expect("it is packed");
    let output = replay(&shop(), &packed.finish().expect("it is packed"), &[]);
    assert_eq!(text(&output.stdout), EXPECTED);
}

#[test]
fn istios_format_tells_the_client_and_the_route_too() {
    let line = |agent: &str, remote: &str, name: &str| {
        format!(
            "[2026-11-21T10:00:00.000Z] \"GET /a HTTP/2\" 200 - via_upstream - \"-\" 0 5 1 0 \"6.6.6.6\" \"{agent}\" \"id\" \
             \"shop\" \"10.1.0.9:80\" outbound|80||shop 10.1.0.5:4 10.1.0.5:80 {remote} {name} to shop\n"
        )
    };
    let policies = json!([{"name": "all", "key": ["client_address", "route_name"], "limit": "1 per hour"}]);
    let log = [
        line("curl/8", "10.0.0.1:1", "-"),
        line("a \"b\" c", "10.0.0.1:2", "-"),
        line("curl/8", "[2001:db8::1]:3", "-"),
    ];
    let replayed = filter(&policies, &log.concat(), &["--strict"]);
    let key = "client_address=10.0.0.1,route_name=to%20shop";
    assert_eq!(replayed["top_denied"], json!([{"policy": "all", "key": key, "denied": 1}]));
    for (agent, name) in [("evil\" \"x", "-"), ("curl/8", "x\""), ("curl/8", "\" \"x\" \"y\" a b c d")] {
        let output = replay(&policies, line(agent, "10.0.0.1:1", name).as_bytes(), &[]);
        assert_eq!(output.status.code(), Some(1), "{agent} {name}: {}", text(&output.stdout));
    }
}

#[test]
fn what_a_client_sends_breaks_nothing() {
    let policies =
        json!([{"name": "all", "key": ["client_address", {"header": "user-agent"}], "limit": "1 per hour"}]);
    let mut log = Vec::new();
    let long = vec![b'x'; 200_000];
    for agent in [&b"\xff\x00\x1b[2J"[..], &b"\\\""[..], &long] {
        for _ in 0..2 {
            log.extend_from_slice(
                b"[2026-11-21T10:00:00.000Z] \"GET /a HTTP/2\" 200 - 0 5 1 0 \"2001:db8::1\" \"",
            );
            log.extend_from_slice(agent);
            log.extend_from_slice(b"\" \"id\" \"shop\" \"-\"\n");
        }
    }
    log.extend_from_slice(&vec![b'x'; 2 << 20]);
    log.extend_from_slice(b"\n{\"start_time\":");
    log.extend_from_slice(&vec![b'['; 500_000]);
    log.extend_from_slice(b"\n{\"start_time\":\"9999-99-99T99:99:99Z\"}\n");
    let output = replay(&policies, &log, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains("6 requests from") && told.contains("3 would have been denied"), "{told}");
    assert!(told.contains("6 of 9 lines were read"), "{told}");
    assert!(!told.contains(['\0', '\u{1b}']), "a terminal is not told what clients write");
    assert!(told.contains("client_address=2001:db8::"), "{told}");
}

#[test]
fn what_is_packed_and_cut_off_is_told_and_fails() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(LOG.as_bytes()).expect("it is packed");
    let packed = packed.finish().expect("it is packed");
    let output = replay(&shop(), packed.get(..packed.len() - 9).expect("longer"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let complaints = text(&output.stderr);
    assert!(complaints.contains("sluice: -: it cannot be read"), "{complaints}");
    assert!(text(&output.stdout).contains("were read"), "what could be read is told all the same");
}

#[test]
fn lines_that_cannot_be_read_fail_where_that_is_asked_for_or_where_there_are_no_others() {
    assert_eq!(replay(&shop(), LOG.as_bytes(), &["--strict"]).status.code(), Some(1));
    let output = replay(&shop(), b"{}\n{\"start_time\":\"soon\"}\n{", &[]);
    assert_eq!(output.status.code(), Some(1));
    let complaints = text(&output.stderr);
    for why in ["-:1: this line is left out: it tells no time", "-:2: ", "-:3: ", "not a single line"] {
        assert!(complaints.contains(why), "{why} is missing in {complaints}");
    }
    assert_eq!(replay(&shop(), b"", &[]).status.code(), Some(0), "nothing was to be read");
}

#[test]
fn a_configuration_that_is_wrong_and_a_log_that_is_not_there_fail() {
    let wrong = json!([{"name": "a", "key": [], "limit": "often"}]);
    let output = replay(&wrong, LOG.as_bytes(), &[]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert!(text(&output.stderr).contains("limit"), "{}", text(&output.stderr));
    let output = replay(&shop(), LOG.as_bytes(), &["/nowhere/access.log"]);
    assert_eq!(output.status.code(), Some(1), "what could be read is told all the same");
    assert!(text(&output.stderr).contains("/nowhere/access.log: it cannot be read"));
    assert_eq!(text(&output.stdout), EXPECTED);
}

#[test]
fn the_key_of_a_field_may_have_another_name() {
    let log: String =
        (0..5).map(|number| json_line(AT_MS + number, json!({"api": "k", "x_api_key": "other"}))).collect();
    let filter = filter(&shop(), &log, &["--field", "x-api-key=api"]);
    assert_eq!(filter["policies"][1]["not_judged"], 0);
    let denied = json!({"policy": "per-key", "key": "header:x-api-key=k", "denied": 3});
    assert!(filter["top_denied"].as_array().expect("keys").contains(&denied), "{filter}");
}

#[test]
fn what_a_condition_needs_and_is_not_told_is_told_to_be_missing_of_that_policy_alone() {
    let policies = json!([
        {"name": "mobile", "match": {"header": {"x-app": {"exact": "mobile"}}}, "key": [], "limit": "1 per minute"},
        {"name": "posts", "match": {"method": ["POST"], "header": {"x-app": {"exact": "web"}}}, "key": [], "limit": "1 per minute"},
        {"name": "first", "key": [{"first_of": [{"cookie": "session"}, "client_address"]}], "limit": "1 per minute"},
        {"name": "all", "key": [], "limit": "2 per minute"},
        {"name": "off", "match": {"header": {"x-off": {"exact": "1"}}}, "key": [], "limit": "1 per minute", "mode": "off"},
    ]);
    let log: String = (0..3).map(|number| json_line(AT_MS + number, json!({}))).collect();
    let filter = filter(&policies, &log, &[]);
    let not_told = |place: usize| filter["policies"][place]["not_told"].clone();
    assert_eq!(not_told(0), json!({"the header x-app": 3}));
    assert_eq!(not_told(1), json!({}), "the method is told, and decides");
    assert_eq!(not_told(2), json!({"the header cookie": 3}));
    assert_eq!((not_told(3), not_told(4)), (json!({}), json!({})));
    assert_eq!((&filter["would_have_denied"], &filter["partly_judged"]), (&json!(1), &json!(3)));
}

#[test]
fn a_request_takes_from_all_of_its_buckets_or_from_none() {
    let policies = json!([
        {"name": "all", "key": [], "limit": "3 per hour"},
        {"name": "each", "key": ["path"], "limit": "1 per hour"},
    ]);
    let paths = ["/a", "/a", "/a", "/b", "/c", "/d"];
    let log: String = paths.iter().map(|path| json_line(AT_MS, json!({"path": path}))).collect();
    let filter = filter(&policies, &log, &[]);
    let denied = |place: usize| filter["policies"][place]["would_have_denied"].clone();
    assert_eq!((denied(0), denied(1)), (json!(1), json!(2)), "what one denied is not taken from the other");
    assert_eq!(filter["would_have_denied"], 3);
}

#[test]
fn what_is_returned_for_a_response_is_returned() {
    let policies = json!([{"name": "all", "key": [], "limit": "2 per hour", "refund_on": ["5xx"]}]);
    let log: String = [503, 503, 503, 200, 200, 200]
        .iter()
        .map(|status| json_line(AT_MS, json!({"response_code": status})))
        .collect();
    assert_eq!(filter(&policies, &log, &[])["would_have_denied"], 1);
}

#[test]
fn what_routes_say_counts_where_the_log_tells_them() {
    let run = RunDir::new().expect("a directory");
    let config = run.path().join("envoy.yaml");
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let yaml = json!({"static_resources": {"clusters": [{"name": "sluice"}], "listeners": [{"filter_chains": [{"filters": [
        {"typed_config": {
            "@type": manager,
            "xff_num_trusted_hops": 1,
            "route_config": {"virtual_hosts": [{"routes": [
                {"name": "free", "match": {"prefix": "/free"}, "metadata": {"filter_metadata": {"sluice": {"skip": true}}}},
                {"name": "dear", "match": {"prefix": "/"}, "metadata": {"filter_metadata": {"sluice": {"cost": 2}}}},
            ]}]},
            "http_filters": [{"name": "limits", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {"configuration": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {
                    "sidecar": {"cluster": "sluice"},
                    "policies": [{"name": "all", "key": ["client_address"], "limit": "4 per hour"}],
                }}},
            }}],
        }},
    ]}]}]}});
    fs::write(&config, yaml.to_string()).expect("it is written");
    let log = run.path().join("access.log");
    let line = |route: &str| {
        format!(
            "{{\"start_time\":{AT_MS},\"route_name\":\"{route}\",\"path\":\"/\",\"x_forwarded_for\":\"9.9.9.9, 10.0.0.7, 10.0.0.1\"}}\n"
        )
    };
    let lines = format!(
        "{{\"start_time\":{AT_MS},\"path\":\"/\",\"xff\":\"10.0.0.7,10.0.0.1\"}}\n{}{}",
        line("free").repeat(5),
        line("dear").repeat(3)
    );
    fs::write(&log, lines).expect("it is written");
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["replay", "--format", "json", "--config"])
        .args([&config, &log])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let policy = &report["filters"][0]["policies"][0];
    assert_eq!(policy["not_told"], json!({"the name of the route (route_name)": 1}));
    assert_eq!((&policy["matched"], &policy["would_have_denied"]), (&json!(3), &json!(1)));
    assert_eq!(report["filters"][0]["top_denied"][0]["key"], "client_address=10.0.0.7", "behind one proxy");
}

#[test]
fn as_many_are_denied_as_the_algorithm_denies() {
    let limit = Limit::new(30, 60_000_000, 10).expect("valid");
    let policies =
        json!([{"name": "all", "key": [{"header": "x-client"}], "limit": "30 per minute", "burst": 10}]);
    let (mut state, mut at_ms, mut log) = (1_u64, AT_MS, String::new());
    let (mut buckets, mut denied) = (HashMap::new(), HashMap::<u64, u64>::new());
    for _ in 0..5_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        at_ms += (state >> 33) % 700;
        let client = (state >> 48) % 7;
        // The busiest are the ones of low numbers.
        let client = client.min((state >> 52) % 7);
        log.push_str(&json_line(at_ms, json!({"x-client": client.to_string()})));
        let (kept, decision) = bucket::take(limit, buckets.get(&client).copied(), 1, at_ms * 1_000);
        match kept {
            None => drop(buckets.remove(&client)),
            Some(kept) => drop(buckets.insert(client, kept)),
        }
        *denied.entry(client).or_default() += u64::from(decision.outcome != Outcome::Allowed);
    }
    let filter = filter(&policies, &log, &[]);
    let total: u64 = denied.values().sum();
    assert!(total > 100, "{total}");
    assert_eq!(filter["would_have_denied"], total);
    for top in filter["top_denied"].as_array().expect("keys") {
        let client = top["key"].as_str().and_then(|key| key.rsplit('=').next()?.parse::<u64>().ok());
        assert_eq!(top["denied"], denied[&client.expect("a number")], "{top}");
    }
}
