//! Each of `envoy/examples` runs on a real Envoy and does what its first lines say.
//!
//! Only what a test cannot wait for is changed: limits per minute become limits per week, so that no slow machine gives a
//! token back in between, and callouts may take longer.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use e2e::{MutualTls, PATIENCE, PATIENT, grpc};
use fleet::{
    Config, Envoy, Fleet, FleetBuilder, Programs, RunDir, Store, Transport, eventually, http, tools,
};
use serde_json::{Value, json};

fn directory() -> PathBuf {
    tools::workspace().join("envoy/examples")
}

fn text(name: &str) -> String {
    fs::read_to_string(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The names of the examples.
fn names() -> BTreeSet<String> {
    let entries = fs::read_dir(directory()).expect("the examples").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".yaml")).collect()
}

/// Makes the limits of a configuration ones that time does not touch while a test runs.
fn slow_down(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(number) = text.strip_suffix(" per minute") {
                *text = format!("{number} per week");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(slow_down),
        Value::Object(fields) => fields.values_mut().for_each(slow_down),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn patient(configuration: &mut Value) {
    slow_down(configuration);
    configuration["sidecar"]["timeout"] = json!("5s");
}

fn builder(name: &str) -> FleetBuilder {
    let mut config = Config::read(&directory().join(name)).expect("an example");
    patient(config.filter_configuration().expect("a filter"));
    Fleet::builder().config(config).sidecar_args(PATIENT)
}

fn ask(fleet: &Fleet, request: http::Request) -> http::Answer {
    request.send(fleet.envoy(0).addr()).expect("an answer")
}

fn statuses(fleet: &Fleet, count: usize, request: impl Fn() -> http::Request) -> Vec<u16> {
    (0..count).map(|_| ask(fleet, request()).status).collect()
}

/// As many that pass, then as many that are denied.
fn pass_then_deny(pass: usize, deny: usize) -> Vec<u16> {
    [vec![200; pass], vec![429; deny]].concat()
}

#[test]
fn every_example_is_listed_and_every_listed_one_is_there() {
    let readme = text("README.md");
    let listed = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| [")?.split_once(']'))
        .map(|(name, _)| name.to_owned());
    assert_eq!(listed.collect::<BTreeSet<_>>(), names());
}

/// Envoy reads the files as they are, with its own reading of YAML.
#[test]
fn envoy_accepts_every_example_as_it_is() {
    let (programs, run) = (Programs::from_env(), RunDir::new().expect("a directory"));
    let wasm = programs.wasm().expect("the filter").display().to_string();
    let files = names().into_iter().map(|name| format!("examples/{name}")).chain(["envoy.yaml".to_owned()]);
    let mut validated = 0;
    for name in files {
        let text = fs::read_to_string(tools::workspace().join("envoy").join(&name)).expect("readable");
        if !text.contains("static_resources:") {
            continue;
        }
        let text = text.replace("/etc/envoy/filter.wasm", &wasm);
        let text = text.replace("/etc/envoy/certs", &MutualTls::new(&run).directory().display().to_string());
        let file = run.write(&name.replace('/', "-"), &text).expect("written");
        let validation =
            Envoy::validate_file(&file, programs.envoy().expect("Envoy"), &run).expect("Envoy ran");
        assert_eq!(validation.code, Some(0), "{name}: {}", validation.output);
        validated += 1;
    }
    assert_eq!(validated, names().len() + 1 - 2, "all but the two for control planes");
}

#[test]
fn nothing_in_any_example_is_hardly_meant() {
    let programs = Programs::from_env();
    let mut check = Command::new(programs.sluice().expect("the sidecar"));
    check.args(["check", "--deny-warnings"]).args(names()).current_dir(directory());
    let outcome = check.output().expect("it ran");
    let told = String::from_utf8_lossy(&outcome.stdout) + String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{told}");
    assert!(told.contains(&format!("{0} files, {0} Sluice filters", names().len())), "{told}");
}

#[test]
fn per_api_key() {
    let fleet = builder("per-api-key.yaml").store(Store::Redis).start().expect("a fleet");
    let with = |key: &'static str| move || http::get("/").header("x-api-key", key);
    assert_eq!(statuses(&fleet, 12, with("alice")), pass_then_deny(10, 2));
    assert_eq!(statuses(&fleet, 2, with("bob")), [200, 200], "another key has its own limit");
    assert_eq!(statuses(&fleet, 11, || http::get("/")), pass_then_deny(10, 1), "no key: the address counts");
    let keys = fleet.redis().command(&["KEYS", "*"]).expect("Redis answers").to_string();
    assert!(!keys.contains("alice") && !keys.contains("bob"), "{keys}");
    assert_eq!(keys.matches("header:x-api-key=*hmac-sha256:").count(), 2, "{keys}");
    assert_eq!(keys.matches("{client_address=127.0.0.1}").count(), 1, "{keys}");
}

#[test]
fn per_ip_expensive() {
    let fleet = builder("per-ip-expensive.yaml").start().expect("a fleet");
    assert_eq!(statuses(&fleet, 3, || http::post("/api/reports")), [200; 3]);
    let denied = ask(&fleet, http::post("/api/reports"));
    assert_eq!((denied.status, denied.header("content-type")), (429, Some("application/json")));
    let body = denied.json().expect("JSON");
    assert_eq!(body["error"], "reports are limited to 3 per week");
    assert!(body["retry_after_seconds"].as_u64().is_some_and(|seconds| seconds > 60), "{body}");
    assert_eq!(statuses(&fleet, 18, || http::get("/")), pass_then_deny(17, 1), "the denied one took nothing");
    assert_eq!(statuses(&fleet, 3, || http::get("/healthz")), [200; 3], "exempt");
}

#[test]
fn jwt_tiers() {
    let shown = text("jwt-tiers.yaml");
    let token = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(&format!("#   {name}=")));
        format!("Bearer {}", line.expect("a token to try it with"))
    };
    let fleet = builder("jwt-tiers.yaml").start().expect("a fleet");
    let with = |token: String| move || http::get("/").header("authorization", &token);
    assert_eq!(statuses(&fleet, 12, with(token("GOLD"))), pass_then_deny(10, 2));
    assert_eq!(statuses(&fleet, 6, with(token("FREE"))), pass_then_deny(5, 1));
    assert_eq!(statuses(&fleet, 4, || http::get("/")), pass_then_deny(3, 1));
    let forged = token("GOLD") + "x";
    assert_eq!(ask(&fleet, http::get("/").header("authorization", forged)).status, 401);
}

#[test]
fn grpc_methods() {
    let fleet = builder("grpc.yaml").upstream(grpc::upstream()).start().expect("a fleet");
    let call_of =
        |client: &str, method: &str| grpc::call(fleet.envoy(0).addr(), method, &[("x-api-key", client)]);
    let call = |method: &str| call_of("alice", method);
    for _ in 0..3 {
        let answer = call("/shop.Checkout/Pay");
        assert_eq!((answer.http_status, answer.status(), answer.trailers_only), (200, Some(0), false));
    }
    let denied = call("/shop.Checkout/Pay");
    assert_eq!(
        (denied.http_status, denied.status(), denied.trailers_only),
        (200, Some(8), true),
        "{denied:?}"
    );
    let message = denied.message().unwrap_or_default();
    assert!(message.starts_with("the limit \"pay\" is used up; retry after "), "{message}");
    assert_eq!(call("/shop.Catalog/List").status(), Some(0), "other methods are not held to it");
    fleet.sidecar(0).process().kill();
    // Of a client of whom nothing is remembered.
    let undecided = call_of("bob", "/shop.Checkout/Pay");
    assert_eq!(undecided.status(), Some(14), "what cannot be decided is not paid");
    assert_eq!(call("/shop.Catalog/List").status(), Some(0), "and lists nevertheless");
}

#[test]
fn shadow_rollout() {
    let fleet = builder("shadow-rollout.yaml").start().expect("a fleet");
    let ask_as = |key: &str, method: &str| ask(&fleet, http::request(method, "/").header("x-api-key", key));
    let answers: Vec<http::Answer> = (0..10).map(|_| ask_as("alice", "GET")).collect();
    assert!(answers.iter().all(|answer| answer.status == 200));
    let decision = |answer: &http::Answer| answer.header("x-sluice-decision").unwrap_or_default().to_owned();
    assert_eq!(decision(&answers[3]), "decision=allowed policy=today remaining=96");
    assert_eq!(decision(&answers[9]), "decision=allowed policy=today remaining=90 shadow_denied=next");
    let stat = |name: &str| fleet.envoy(0).stat(&format!("wasmcustom.sluice.policy.{name}")).expect("a stat");
    assert_eq!((stat("next.allowed"), stat("next.shadow_denied")), (4, 6));
    assert_eq!((stat("today.allowed"), stat("today.denied"), stat("next.denied")), (10, 0, 0));

    // Which keys are enforced depends on nothing but their names, so this is the same on every machine.
    let keys: Vec<String> = (0..40).map(|number| format!("client-{number}")).collect();
    let enforced =
        || -> Vec<&String> { keys.iter().filter(|key| ask_as(key, "PUT").status == 429).collect() };
    assert!(enforced().is_empty() && enforced().is_empty(), "two each pass");
    let third = enforced();
    assert!((4..=16).contains(&third.len()), "about a quarter of 40: {third:?}");
    assert_eq!(enforced(), third, "always the same ones");
}

#[test]
fn llm_tokens() {
    let fleet = builder("llm-tokens.yaml").start().expect("a fleet");
    let ask_as = |who: &str, headers: &[(&str, &str)]| {
        let request = http::post("/v1/chat/completions").header("x-api-key", who);
        ask(&fleet, headers.iter().fold(request, |request, (name, value)| request.header(name, value)))
    };
    let settled = |count: u64| {
        eventually(PATIENCE, "it is settled", || {
            (fleet.envoy(0).stat("wasmcustom.sluice.settled").ok()? == count).then_some(())
        })
        .expect("settled");
    };
    let remaining = |answer: &http::Answer| answer.header("x-ratelimit-remaining").map(str::to_owned);

    let first = ask_as("alice", &[("x-estimated-tokens", "200"), ("x-echo-header", "x-tokens-used: 350")]);
    assert_eq!((first.status, remaining(&first)), (200, Some("800".into())), "the estimate");
    settled(1);
    let second = ask_as("alice", &[("x-echo-header", "x-tokens-used: 2000")]);
    assert_eq!((second.status, remaining(&second)), (200, Some("550".into())), "what it was, less 100");
    settled(2);
    assert_eq!(ask_as("alice", &[]).status, 429, "in debt");

    let failed = ask_as("bob", &[("x-echo-status", "500")]);
    assert_eq!((failed.status, remaining(&failed)), (500, Some("900".into())));
    settled(3);
    assert_eq!(remaining(&ask_as("bob", &[])), Some("900".into()), "what failed cost nothing");
    let stranger = ask(&fleet, http::post("/v1/chat/completions"));
    assert_eq!((stranger.status, remaining(&stranger)), (200, None));
}

#[test]
fn route_metadata() {
    let fleet = builder("route-metadata.yaml").start().expect("a fleet");
    let get = |path: &'static str| move || http::get(path);
    for path in ["/healthz", "/static/logo.svg"] {
        let answer = ask(&fleet, http::get(path));
        assert_eq!((answer.status, answer.header("x-ratelimit-limit")), (200, None), "{path}");
    }
    assert_eq!(statuses(&fleet, 3, get("/login")), pass_then_deny(2, 1));
    assert_eq!(statuses(&fleet, 5, get("/search")), pass_then_deny(4, 1));
    assert_eq!(ask(&fleet, http::get("/")).status, 429);
    assert_eq!(statuses(&fleet, 3, get("/beta")), [200; 3]);
    let stat = |name: &str| fleet.envoy(0).stat(&format!("wasmcustom.sluice.{name}")).expect("a stat");
    assert_eq!((stat("policy.per-client.shadow_denied"), stat("route_mistakes")), (3, 0));
}

#[test]
fn mtls() {
    for transport in [Transport::Http1, Transport::Http2] {
        let run = RunDir::new().expect("a directory");
        let tls = MutualTls::new(&run);
        let builder = builder("mtls.yaml").run_dir(&run).transport(transport);
        let fleet = tls.wire(builder.sidecar_args(tls.arguments()), transport).start().expect("a fleet");
        let answer = ask(&fleet, http::get("/"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("9"), "{answer}\n{}", fleet.envoy(0).log());
        assert_eq!(statuses(&fleet, 11, || http::get("/")), pass_then_deny(9, 2), "{transport:?}");
        let secured = fleet.envoy(0).stat("cluster.sluice.ssl.handshake").expect("a stat");
        let http2 = fleet.envoy(0).stat("cluster.sluice.upstream_cx_http2_total").expect("a stat");
        assert_eq!((secured >= 1, http2 >= 1), (true, transport == Transport::Http2));
    }
}

/// What a control plane does with the configuration in one of its resources: JSON in a StringValue.
fn from_control_plane(configuration: &Value) {
    let mut configuration = configuration.clone();
    patient(&mut configuration);
    let cluster = configuration["sidecar"]["cluster"].clone();
    let adjust = move |config: &mut Config| {
        config.plugin()?["configuration"] = json!({
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": configuration.to_string(),
        });
        // The cluster has the name that the control plane gives to it.
        config.cluster("sluice")?.insert("name".to_owned(), cluster.clone());
        Ok(())
    };
    let fleet = Fleet::builder().adjust(adjust).sidecar_args(PATIENT).start().expect("a fleet");
    let with_key = || http::get("/").header("x-api-key", "alice");
    assert_eq!(statuses(&fleet, 11, with_key), pass_then_deny(10, 1));
    assert_eq!(statuses(&fleet, 4, || http::post("/api/reports")), pass_then_deny(3, 1));
}

#[test]
fn istio_wasmplugin() {
    let plugin = Config::from_yaml(&text("istio-wasmplugin.yaml")).expect("YAML").tree().clone();
    assert_eq!(plugin["kind"], "WasmPlugin");
    from_control_plane(&plugin["spec"]["pluginConfig"]);
}

#[test]
fn envoy_gateway() {
    let text = text("envoy-gateway.yaml");
    let resources: Vec<Value> =
        text.split("\n---\n").map(|part| Config::from_yaml(part).expect("YAML").tree().clone()).collect();
    let [extension, patch] = &resources[..] else { panic!("{} resources", resources.len()) };
    let configuration = &extension["spec"]["wasm"][0]["config"];
    let operation = &patch["spec"]["jsonPatches"][0]["operation"];
    assert_eq!(operation["value"]["name"], configuration["sidecar"]["cluster"], "the cluster that is added");
    from_control_plane(configuration);

    // Envoy takes the cluster of the patch.
    let mut config = Config::shipped().expect("the shipped configuration");
    config.wasm(Programs::from_env().wasm().expect("the filter")).expect("a filter");
    let clusters = config.tree()["static_resources"]["clusters"].as_array_mut().expect("clusters");
    clusters.retain(|cluster| cluster["name"] != "sluice");
    clusters.push(operation["value"].clone());
    let (programs, run) = (Programs::from_env(), RunDir::new().expect("a directory"));
    let validation = Envoy::validate(&config, programs.envoy().expect("Envoy"), &run).expect("Envoy ran");
    assert_eq!(validation.code, Some(0), "{}", validation.output);
}
