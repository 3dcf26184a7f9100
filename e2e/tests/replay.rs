//! `sluice replay` on the access logs of a real Envoy: it denies as many as the filter did.

use std::fs;
use std::process::Command;

use e2e::{PATIENCE, strict};
use fleet::{Envoy, Fleet, Programs, RunDir, Store, eventually, http};
use serde_json::{Value, json};

const REQUESTS: usize = 25;
/// As many pass, since nothing comes back within the time of a test.
const BURST: u64 = 10;

fn policies() -> Value {
    json!([
        {"name": "per-client", "key": ["client_address"], "limit": "1 per day", "burst": BURST},
        {"name": "writes", "match": {"method": ["POST"]}, "key": ["path"], "limit": "1 per day", "burst": 3},
        {"name": "secret", "match": {"header": {"x-api-key": {"exact": "a"}}}, "key": [], "limit": "1 per day"},
    ])
}

/// Sends requests one after the other to an Envoy that logs like this, and gives its file, its log and how many it denied.
fn logged(format: Option<Value>) -> (Fleet, String, u64) {
    let mut configuration = strict(&policies());
    // Each is asked for, so that the counters tell what each policy said to it.
    configuration["deny_cache"] = json!({"ceiling": "0s"});
    let fleet = Fleet::builder()
        .store(Store::Memory)
        .filter_configuration(configuration)
        .sidecar_args(["--deny-cache-ceiling", "0s"])
        .adjust(move |config| {
            let mut log = json!({
                "name": "envoy.access_loggers.stdout",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                },
            });
            if let Some(format) = &format {
                log["typed_config"]["log_format"] = json!({"json_format": format});
            }
            config.connection_manager()?["access_log"] = json!([log]);
            Ok(())
        })
        .start()
        .expect("a fleet");
    let mut denied = 0;
    for number in 0..REQUESTS {
        let method = if number % 2 == 0 { "POST" } else { "GET" };
        let path = format!("/{}?page={number}", number % 4);
        let answer = http::request(method, &path).header("user-agent", "a \"quoted\" agent");
        let answer = answer.send(fleet.envoy(0).addr()).expect("an answer");
        denied += u64::from(answer.status == 429);
    }
    let log = eventually(PATIENCE, "every request is logged", || {
        let log = fleet.envoy(0).access_log();
        let lines =
            log.lines().filter(|line| line.starts_with(['[', '{'])).filter(|line| line.contains("page="));
        let lines: Vec<&str> = lines.collect();
        (lines.len() == REQUESTS).then(|| lines.join("\n"))
    });
    (fleet, log.expect("a log"), denied)
}

/// What a replay of the log under the Envoy's own configuration tells of the filter.
fn replayed(envoy: &Envoy, log: &str) -> Value {
    let run = RunDir::new().expect("a directory");
    let file = run.path().join("access.log");
    fs::write(&file, log).expect("it is written");
    let mut command = Command::new(Programs::from_env().sluice().expect("the program"));
    command.args(["replay", "--strict", "--format", "json", "--config"]).arg(envoy.config_file()).arg(&file);
    let output = command.output().expect("it runs");
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), complaints.as_str()), (Some(0), ""), "{log}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["filters"][0].clone()
}

/// Asserts that the replay and the filter agree, in all and by policy.
fn assert_agrees(fleet: &Fleet, filter: &Value, denied: u64) {
    assert!(denied > 5, "{denied}");
    assert_eq!(filter["requests"], REQUESTS);
    assert_eq!(filter["would_have_denied"], denied, "{filter}");
    for (place, name) in [(0, "per-client"), (1, "writes")] {
        let counted = fleet.envoy(0).stat(&format!("wasmcustom.sluice.policy.{name}.denied"));
        let replayed = &filter["policies"][place]["would_have_denied"];
        assert_eq!(*replayed, counted.expect("it has denied"), "{name}: {filter}");
    }
}

#[test]
fn envoys_default_format_is_judged_as_the_filter_did() {
    let (fleet, log, denied) = logged(None);
    let filter = replayed(fleet.envoy(0), &log);
    assert_agrees(&fleet, &filter, denied);
    let secret = &filter["policies"][2];
    assert_eq!(secret["not_judged"], REQUESTS, "the log does not tell the key: {log}");
    assert_eq!(secret["not_told"], json!({"the header x-api-key": REQUESTS}));
}

#[test]
fn json_is_judged_as_the_filter_did() {
    let (fleet, log, denied) = logged(Some(json!({
        "start_time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "authority": "%REQ(:AUTHORITY)%",
        "user_agent": "%REQ(USER-AGENT)%",
        "x_api_key": "%REQ(X-API-KEY)%",
        "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "response_code": "%RESPONSE_CODE%",
        "bytes_sent": "%BYTES_SENT%",
    })));
    let filter = replayed(fleet.envoy(0), &log);
    assert_agrees(&fleet, &filter, denied);
    let told: Vec<&Value> =
        filter["policies"].as_array().expect("policies").iter().map(|policy| &policy["not_judged"]).collect();
    assert_eq!(told, [0, 0, 0], "that a header was not there is told, too: {log}");
}
