//! A configuration reaches the filter whatever its form; a wrong one never rules.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use e2e::{Client, PATIENCE, Watched, by_api_key, strict};
use fleet::{Config, Envoy, Fleet, Programs, RunDir, eventually, http, tools};
use serde_json::{Value, json};

/// The shipped configuration with the filter's code of this run.
fn shipped() -> Config {
    let mut config = Config::shipped().expect("the shipped configuration");
    config.wasm(Programs::from_env().wasm().expect("the filter")).expect("a Wasm filter");
    config
}

fn validate(config: &Config) -> fleet::Validation {
    let run = RunDir::new().expect("a directory");
    let programs = Programs::from_env();
    Envoy::validate(config, programs.envoy().expect("Envoy"), &run).expect("Envoy ran")
}

#[test]
fn envoy_accepts_the_shipped_configuration() {
    let validation = validate(&shipped());
    assert_eq!(validation.code, Some(0), "{}", validation.output);
}

#[test]
fn envoy_refuses_a_wrong_configuration_and_says_what_is_wrong() {
    let cases = [
        ("/policies/0/limit", json!("often"), "policies[0].limit: found \"often\"; expected a limit such as"),
        ("/policies/0/burst", json!(2.5), "policies[0].burst: found \"2.5\"; expected a whole number"),
        ("/policies/1/match", json!({"paht": {"prefix": "/"}}), "did you mean `path`?"),
        ("/sidecar/timeout", json!("0ms"), "sidecar.timeout: found 0s; it must be between 1ms and 1m"),
        ("/on_error", json!("maybe"), "on_error: found `maybe`; expected one of `allow`, `deny`, `local`"),
    ];
    for (pointer, value, expected) in cases {
        let mut config = shipped();
        let configuration = config.filter_configuration().expect("configured");
        *configuration.pointer_mut(pointer).expect("the place exists") = value;
        let validation = validate(&config);
        assert_eq!(validation.code, Some(1), "{pointer}: {}", validation.output);
        assert!(validation.output.contains(expected), "{pointer}: {}", validation.output);
    }
}

/// Bare words that YAML takes for true or false, as Envoy itself reads them.
#[test]
fn words_that_yaml_takes_for_booleans_are_understood_or_told() {
    let (programs, run) = (Programs::from_env(), RunDir::new().expect("a directory"));
    let wasm = programs.wasm().expect("the filter").display().to_string();
    let shipped = fs::read_to_string(tools::workspace().join("envoy/envoy.yaml")).expect("readable");
    let validate = |name: &str, line: &str| {
        let limit = "limit: 3 per minute\n";
        assert!(shipped.contains(limit));
        let text = shipped.replace(limit, &format!("{limit}{}{line}\n", " ".repeat(22)));
        let file = run.write(name, &text.replace("/etc/envoy/filter.wasm", &wasm)).expect("written");
        Envoy::validate_file(&file, programs.envoy().expect("Envoy"), &run).expect("Envoy ran")
    };
    let off = validate("off.yaml", "mode: off");
    assert_eq!(off.code, Some(0), "{}", off.output);
    let quoted = validate("quoted.yaml", "missing: \"skip\"");
    assert_eq!(quoted.code, Some(0), "{}", quoted.output);
    let name = validate("name.yaml", "name: no");
    assert_eq!(name.code, Some(1), "{}", name.output);
    assert!(
        name.output.contains("policies[1].name: found the boolean `false`; expected text: put it in quotes"),
        "{}",
        name.output
    );
}

#[test]
fn envoy_does_not_start_with_a_wrong_configuration() {
    let mut wrong = strict(&json!([by_api_key("one", "1 per day", 1)]));
    wrong["policies"][0]["limit"] = json!("0 per day");
    let error = Fleet::builder().filter_configuration(wrong).start().expect_err("it started");
    let expected = "policies[0].limit: the limit allows 0 tokens; it must allow at least 1";
    assert!(error.to_string().contains(expected), "{error}");
}

/// Passes the filter's configuration to Envoy in another form.
fn fleet_with(configuration: Value) -> Fleet {
    let replace = move |config: &mut Config| {
        config.plugin()?["configuration"] = configuration.clone();
        Ok(())
    };
    Fleet::builder().adjust(replace).start().expect("a fleet")
}

#[test]
fn json_in_a_string_value_is_read_like_a_struct() {
    let text = strict(&json!([by_api_key("one", "1 per second", 3_000_000_000)])).to_string();
    for padding in ["", "\n  "] {
        let fleet = fleet_with(json!({
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": format!("{padding}{text}{padding}"),
        }));
        let answer = http::get("/").send(fleet.envoy(0).addr()).expect("an answer");
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3000000000"));
    }
}

#[test]
fn numbers_that_yaml_turns_into_strings_are_read() {
    // 3,000,000,000 is beyond 32 bits: on its way through YAML to a Struct it becomes a string.
    let configuration = strict(&json!([by_api_key("one", "1 per second", 3_000_000_000)]));
    let fleet = Fleet::builder().filter_configuration(configuration).start().expect("a fleet");
    let answer = http::get("/").send(fleet.envoy(0).addr()).expect("an answer");
    assert_eq!(answer.header("x-ratelimit-limit"), Some("3000000000"));
}

/// A listener that is updated by the burst of its one policy.
fn watched(burst: u64) -> Watched {
    let fleet = Fleet::builder().concurrency(2).filter_configuration(of_burst(&json!(burst)));
    let watched = Watched::start(fleet);
    await_limit(&watched, burst);
    watched
}

fn of_burst(burst: &Value) -> Value {
    let mut configuration = strict(&json!([by_api_key("one", "1 per day", 1)]));
    configuration["policies"][0]["burst"] = burst.clone();
    configuration
}

/// The burst of the listener that is in force, by what it tells a client.
fn limit(watched: &Watched) -> Option<u64> {
    let answer = http::get("/").header("x-api-key", "alice").send(watched.addr()).ok()?;
    answer.header("x-ratelimit-limit")?.parse().ok()
}

fn await_limit(watched: &Watched, burst: u64) {
    let in_force = || (limit(watched)? == burst).then_some(());
    eventually(PATIENCE, "the listener is in force", in_force).expect("served");
}

#[test]
fn an_update_rules_and_a_wrong_one_leaves_the_old_in_force() {
    let watched = watched(7);
    watched.update(&of_burst(&json!(8)));
    await_limit(&watched, 8);
    watched.update(&of_burst(&json!("none")));
    let envoy = watched.fleet().envoy(0);
    let rejected = || (envoy.stat("listener_manager.lds.update_rejected").ok()? >= 1).then_some(());
    eventually(PATIENCE, "Envoy rejects the third", rejected).expect("rejected");
    assert_eq!(limit(&watched), Some(8), "the second is still in force");
    let expected = "policies[0].burst: found \"none\"; expected a whole number such as 60";
    assert!(envoy.log().contains(expected), "{}", envoy.log());
}

#[test]
fn updates_under_load_lose_no_request_and_no_token() {
    let watched = watched(100_000);
    let (addr, ended) = (watched.addr(), AtomicBool::new(false));
    assert_eq!(Client::new("bob").get(addr, "/"), 200, "the bucket begins under the first version");
    let sent: usize = thread::scope(|scope| {
        let load = || {
            let client = Client::new("bob");
            let mut sent = 0;
            while !ended.load(Ordering::Relaxed) {
                assert_eq!(client.get(addr, "/"), 200);
                sent += 1;
            }
            sent
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        for burst in 100_001..100_009 {
            watched.update(&of_burst(&json!(burst)));
            await_limit(&watched, burst);
        }
        ended.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("every request passed")).sum()
    });
    // Each version raises the burst by one and keeps the tokens: what was taken is what was sent.
    let answer = http::get("/").header("x-api-key", "bob").send(addr).expect("an answer");
    let remaining: usize =
        answer.header("x-ratelimit-remaining").expect("decided").parse().expect("a number");
    assert_eq!(remaining, 100_000 - 1 - sent - 1);
}
