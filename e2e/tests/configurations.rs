//! A configuration reaches the filter whatever its form; a wrong one never rules.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use e2e::{Client, PATIENCE, by_api_key, strict};
use fleet::{Config, Envoy, Fleet, Programs, RunDir, eventually, free_port, http, tools};
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
        ("/on_error", json!("maybe"), "on_error: found `maybe`; expected `allow` or `deny`"),
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

/// The path of the first policy in a listener.
const POLICY: &str = "/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value/policies/0";

/// An Envoy with a listener that it watches in a file, beside one without a filter.
struct Watched {
    addr: SocketAddr,
    file: PathBuf,
    listener: Value,
    fleet: Fleet,
    _run: RunDir,
}

impl Watched {
    fn start(burst: u64) -> Self {
        let run = RunDir::new().expect("a directory");
        let file = run.path().join("listeners.yaml");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a port")));
        let mut config = shipped();
        *config.filter_configuration().expect("configured") =
            strict(&json!([by_api_key("one", "1 per day", burst)]));
        let mut listener = config.tree()["static_resources"]["listeners"][0].clone();
        listener["name"] = json!("watched");
        listener["address"] = json!({"socket_address": {"address": "127.0.0.1", "port_value": addr.port()}});
        write_listener(&file, &listener);
        config.without_filters().expect("a router is left");
        config.tree()["node"] = json!({"id": "test", "cluster": "test"});
        config.tree()["dynamic_resources"] = json!({"lds_config": {"path_config_source": {
            "path": file, "watched_directory": {"path": run.path()},
        }}});
        let fleet = Fleet::builder().config(config).concurrency(2).start().expect("a fleet");
        let watched = Self { addr, file, listener, fleet, _run: run };
        watched.await_limit(burst);
        watched
    }

    fn update(&mut self, burst: &Value) {
        self.listener.pointer_mut(POLICY).expect("a policy")["burst"] = burst.clone();
        write_listener(&self.file, &self.listener);
    }

    /// The burst of the listener that is in force, by what it tells a client.
    fn limit(&self) -> Option<u64> {
        let answer = http::get("/").header("x-api-key", "alice").send(self.addr).ok()?;
        answer.header("x-ratelimit-limit")?.parse().ok()
    }

    fn await_limit(&self, burst: u64) {
        let in_force = || (self.limit()? == burst).then_some(());
        eventually(PATIENCE, "the listener is in force", in_force).expect("served");
    }
}

/// Writes the file that Envoy watches, as a whole: it looks when a file is moved into the directory.
fn write_listener(file: &Path, listener: &Value) {
    let mut resource = listener.clone();
    resource["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    let draft = file.with_extension("draft");
    fs::write(&draft, json!({"resources": [resource]}).to_string()).expect("written");
    fs::rename(draft, file).expect("moved");
}

#[test]
fn an_update_rules_and_a_wrong_one_leaves_the_old_in_force() {
    let mut watched = Watched::start(7);
    watched.update(&json!(8));
    watched.await_limit(8);
    watched.update(&json!("none"));
    let envoy = watched.fleet.envoy(0);
    let rejected = || (envoy.stat("listener_manager.lds.update_rejected").ok()? >= 1).then_some(());
    eventually(PATIENCE, "Envoy rejects the third", rejected).expect("rejected");
    assert_eq!(watched.limit(), Some(8), "the second is still in force");
    let expected = "policies[0].burst: found \"none\"; expected a whole number such as 60";
    assert!(envoy.log().contains(expected), "{}", envoy.log());
}

#[test]
fn updates_under_load_lose_no_request_and_no_token() {
    let mut watched = Watched::start(100_000);
    let (addr, ended) = (watched.addr, AtomicBool::new(false));
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
            watched.update(&json!(burst));
            watched.await_limit(burst);
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
