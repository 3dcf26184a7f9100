//! Each row of the README's failure table, by name.

use std::time::{Duration, Instant};

use e2e::{Impostor, PATIENCE, by_api_key};
use fleet::{Config, Endpoint, Fleet, FleetBuilder, Ready, Store, eventually, http};
use serde_json::{Value, json};

/// The timeout of a callout in these tests.
const TIMEOUT: Duration = Duration::from_millis(400);

/// No request waits longer: one timeout behind the callout that is on its way, one for its own, and as much again
/// for a slow machine.
const BOUND: Duration = Duration::from_millis(400 * 4);

fn configuration(on_error: &str) -> Value {
    json!({
        "sidecar": {"cluster": "sluice", "timeout": "400ms"},
        "on_error": on_error,
        "policies": [by_api_key("all", "1 per day", 1_000)],
    })
}

fn fleet(on_error: &str) -> FleetBuilder {
    Fleet::builder().filter_configuration(configuration(on_error)).sidecar_args(["--redis-timeout", "200ms"])
}

/// Sends a request, and checks that it waited no longer than promised.
fn ask(fleet: &Fleet) -> http::Answer {
    let start = Instant::now();
    let answer = http::get("/").header("x-api-key", "alice").send(fleet.envoy(0).addr()).expect("an answer");
    assert!(start.elapsed() < BOUND, "it took {:?}", start.elapsed());
    answer
}

/// What a request gets that could not be decided.
fn status(on_error: &str) -> u16 {
    if on_error == "deny" { 503 } else { 200 }
}

/// What the access log says of it.
fn word(on_error: &str, reason: &str) -> String {
    match on_error {
        "local" => format!("source=local failure={reason}"),
        _ => format!("decision=failed answer={on_error} reason={reason}"),
    }
}

/// Asserts that requests get what `on_error` says, and that the access log and the stats tell why.
fn assert_on_error_applies(fleet: &Fleet, on_error: &str, reason: &str) {
    for _ in 0..3 {
        let answer = ask(fleet);
        assert_eq!(answer.status, status(on_error), "{answer}");
        let told = answer.header("x-ratelimit-limit").is_some();
        assert_eq!(told, on_error == "local", "only who decides tells of it");
    }
    let word = word(on_error, reason);
    let told = eventually(PATIENCE, &format!("the access log says {word}"), || {
        fleet.envoy(0).access_log().contains(&word).then_some(())
    });
    told.unwrap_or_else(|error| panic!("{error}\n{}", fleet.envoy(0).access_log()));
    let stat = match on_error {
        "allow" => "failed_allowed",
        "deny" => "failed_denied",
        _ => "local_allowed",
    };
    assert!(fleet.envoy(0).stat(&format!("wasmcustom.sluice.{stat}")).expect("a stat") >= 3);
}

/// Asserts that limits rule again, without a restart of Envoy.
fn assert_recovers(fleet: &Fleet) {
    let counted = || fleet.envoy(0).stat("wasmcustom.sluice.allowed").expect("a stat");
    let before = counted();
    eventually(PATIENCE, "a request is decided again", || {
        http::get("/").header("x-api-key", "alice").send(fleet.envoy(0).addr()).ok()?;
        (counted() > before).then_some(())
    })
    .expect("recovered");
}

fn for_each_on_error(test: impl Fn(&str)) {
    ["allow", "deny", "local"].into_iter().for_each(test);
}

/// An Envoy whose sidecar is something else.
fn with_impostor(on_error: &str, bytes: &'static [u8]) -> Fleet {
    let impostor = Impostor::answering(bytes);
    let point_at = move |config: &mut Config| {
        config.endpoints("sluice", &[Endpoint::from(impostor.addr())])?;
        Ok(())
    };
    fleet(on_error).sidecars(0).adjust(point_at).start().expect("a fleet")
}

#[test]
fn the_sidecar_is_gone() {
    for_each_on_error(|on_error| {
        let mut fleet = fleet(on_error).start().expect("a fleet");
        assert_eq!(ask(&fleet).header("x-ratelimit-remaining"), Some("999"));
        fleet.sidecar(0).process().kill();
        assert_on_error_applies(&fleet, on_error, "no_answer");
        assert!(
            fleet.envoy(0).log().contains("callouts to the cluster \"sluice\" fail"),
            "{}",
            fleet.envoy(0).log()
        );
        fleet.sidecars_mut()[0].restart().expect("restarted");
        assert_recovers(&fleet);
    });
}

#[test]
fn the_sidecar_stands_still() {
    for_each_on_error(|on_error| {
        let fleet = fleet(on_error).start().expect("a fleet");
        assert_eq!(ask(&fleet).status, 200);
        fleet.sidecar(0).process().freeze();
        let start = Instant::now();
        assert_on_error_applies(&fleet, on_error, "timeout");
        assert!(start.elapsed() >= TIMEOUT, "the timeout was waited for");
        fleet.sidecar(0).process().thaw();
        assert_recovers(&fleet);
    });
}

#[test]
fn the_sidecar_stands_still_for_long() {
    for_each_on_error(|on_error| {
        let fleet = fleet(on_error).start().expect("a fleet");
        assert_eq!(ask(&fleet).status, 200);
        fleet.sidecar(0).process().freeze();
        let stat = |name: &str| fleet.envoy(0).stat(&format!("wasmcustom.sluice.{name}")).expect("a stat");
        eventually(PATIENCE, "the breaker opens", || {
            assert_eq!(ask(&fleet).status, status(on_error));
            (stat("breakers_open") == 1).then_some(())
        })
        .expect("open");
        // From here on nobody waits for the sidecar: none is asked.
        let (callouts, probes) = (stat("callouts"), stat("probes"));
        for _ in 0..100 {
            assert_eq!(ask(&fleet).status, status(on_error));
        }
        let word = word(on_error, "breaker_open");
        eventually(PATIENCE, "the access log tells why", || {
            (fleet.envoy(0).access_log().matches(&word).count() >= 100).then_some(())
        })
        .expect("told");
        eventually(PATIENCE, "probes are sent, with nobody's request", || {
            (stat("probes") >= probes + 2).then_some(())
        })
        .expect("probed");
        assert_eq!((stat("callouts"), stat("breaker_opened")), (callouts, 1));
        fleet.sidecar(0).process().thaw();
        assert_recovers(&fleet);
        assert_eq!(stat("breakers_open"), 0);
        assert!(
            fleet.envoy(0).log().contains("answers again, and is asked again"),
            "{}",
            fleet.envoy(0).log()
        );
    });
}

#[test]
fn the_cluster_has_no_endpoint() {
    for_each_on_error(|on_error| {
        let fleet = fleet(on_error).sidecars(0).start().expect("a fleet");
        assert_on_error_applies(&fleet, on_error, "not_sent");
    });
}

#[test]
fn the_cluster_is_missing() {
    for_each_on_error(|on_error| {
        let mut configuration = configuration(on_error);
        configuration["sidecar"]["cluster"] = json!("elsewhere");
        let fleet = Fleet::builder().filter_configuration(configuration).start().expect("a fleet");
        assert_on_error_applies(&fleet, on_error, "not_sent");
    });
}

#[test]
fn the_answer_breaks_off() {
    for_each_on_error(|on_error| {
        let whole_head =
            b"HTTP/1.1 200 OK\r\nx-sluice-contract: 1\r\ncontent-length: 1000\r\n\r\n{\"now_us\":";
        assert_on_error_applies(&with_impostor(on_error, whole_head), on_error, "reset");
    });
}

#[test]
fn something_else_answers() {
    for_each_on_error(|on_error| {
        let stranger = b"HTTP/1.1 200 OK\r\ncontent-length: 29\r\n\r\n{\"now_us\":1,\"verdicts\":[{}]} ";
        assert_on_error_applies(&with_impostor(on_error, stranger), on_error, "no_answer");
    });
}

#[test]
fn the_answer_is_not_readable() {
    for_each_on_error(|on_error| {
        let garbage =
            b"HTTP/1.1 200 OK\r\nx-sluice-contract: 1\r\ncontent-length: 9\r\n\r\n\xff\xfe{\"now\":1";
        assert_on_error_applies(&with_impostor(on_error, garbage), on_error, "unreadable");
        let short = b"HTTP/1.1 200 OK\r\nx-sluice-contract: 1\r\ncontent-length: 26\r\n\r\n{\"now_us\":1,\"verdicts\":[]}";
        assert_on_error_applies(&with_impostor(on_error, short), on_error, "unreadable");
    });
}

#[test]
fn the_sidecar_refuses() {
    for_each_on_error(|on_error| {
        let refusal =
            b"HTTP/1.1 503 Service Unavailable\r\nx-sluice-contract: 1\r\ncontent-length: 2\r\n\r\n{}";
        assert_on_error_applies(&with_impostor(on_error, refusal), on_error, "refused");
    });
}

#[test]
fn more_wait_than_may() {
    // Seven headers of 120 bytes make a key of nearly 1,000. A callout carries 16 KiB of keys, and 32 may be on the way.
    let names: Vec<String> = (1..=7).map(|number| format!("x-{number}")).collect();
    let key: Vec<Value> = names.iter().map(|name| json!({"header": name})).collect();
    for_each_on_error(|on_error| {
        let mut configuration = configuration(on_error);
        configuration["sidecar"]["timeout"] = json!("20s");
        configuration["policies"] = json!([{"name": "long", "key": key, "limit": "1000 per day"}]);
        let fleet = Fleet::builder().filter_configuration(configuration).start().expect("a fleet");
        let request =
            || names.iter().fold(http::get("/"), |request, name| request.header(name, "x".repeat(120)));
        fleet.sidecar(0).process().freeze();
        let waiting: Vec<_> =
            (0..620).map(|_| request().send_only(fleet.envoy(0).addr()).expect("sent")).collect();
        let word = word(on_error, "overloaded");
        let overloaded = || fleet.envoy(0).access_log().matches(&word).count();
        eventually(PATIENCE, "those beyond are answered", || (overloaded() >= 40).then_some(()))
            .expect("at once");
        fleet.sidecar(0).process().thaw();
        eventually(PATIENCE, "the others are decided", || {
            (fleet.envoy(0).stat("wasmcustom.sluice.allowed").ok()? >= 400).then_some(())
        })
        .expect("decided");
        drop(waiting);
    });
}

#[test]
fn more_policies_match_than_a_take_may_have() {
    for_each_on_error(|on_error| {
        let mut configuration = configuration(on_error);
        let policy = |number| {
            let everything = json!({"path": {"prefix": "/"}});
            json!({"name": format!("p{number}"), "match": everything, "key": [], "limit": "1000 per day"})
        };
        configuration["policies"] = (0..65).map(policy).collect();
        let fleet = Fleet::builder().filter_configuration(configuration).start().expect("a fleet");
        assert_on_error_applies(&fleet, on_error, "too_many_policies");
    });
}

#[test]
fn redis_is_gone_while_an_operator_changes_something() {
    let mut fleet = fleet("deny").store(Store::Redis).start().expect("a fleet");
    assert_eq!(ask(&fleet).status, 200);
    let operate = |fleet: &Fleet, wanted: Value| {
        let path = "/v1/buckets/all/header:x-api-key=alice/override";
        let request = http::request("PUT", path).header("content-type", "application/json");
        request.body(wanted.to_string()).send(fleet.sidecar(0).admin_addr()).expect("an answer")
    };
    let listed = |fleet: &Fleet| {
        let answer = http::get("/v1/overrides").send(fleet.sidecar(0).admin_addr()).expect("an answer");
        answer.json().expect("JSON")["overrides"].clone()
    };
    assert_eq!(operate(&fleet, json!({ "blocked": true })).status, 200);
    eventually(PATIENCE, "the block", || (ask(&fleet).status == 429).then_some(())).expect("blocked");
    fleet.redis().process().kill();
    let answer = operate(&fleet, json!({ "unlimited": true }));
    assert_eq!(answer.status, 503, "{answer}");
    assert_eq!(answer.json().expect("JSON")["code"], "store_unavailable");
    assert_eq!(listed(&fleet)[0]["blocked"], true, "what was known last stays");
    // This Redis has kept nothing: then nothing is in the place of any limit.
    fleet.redis_mut().restart().expect("restarted");
    eventually(PATIENCE, "what Redis has", || (listed(&fleet) == json!([])).then_some(())).expect("nothing");
    eventually(PATIENCE, "a decision", || (ask(&fleet).status == 200).then_some(())).expect("allowed");
    assert_eq!(operate(&fleet, json!({ "unlimited": true })).status, 200);
}

#[test]
fn redis_is_gone() {
    for_each_on_error(|on_error| {
        let mut fleet = fleet(on_error).sidecars(2).store(Store::Redis).start().expect("a fleet");
        assert_eq!(ask(&fleet).status, 200);
        fleet.redis().process().kill();
        assert_on_error_applies(&fleet, on_error, "store_unavailable");
        for sidecar in fleet.sidecars() {
            eventually(PATIENCE, "the sidecar says that it is not ready", || {
                (sidecar.get("/readyz").ok()?.status == 503).then_some(())
            })
            .expect("not ready");
            assert_eq!(sidecar.get("/healthz").expect("an answer").status, 200, "it need not be restarted");
        }
        fleet.redis_mut().restart().expect("restarted");
        assert_recovers(&fleet);
        for sidecar in fleet.sidecars() {
            eventually(PATIENCE, "the sidecar is ready again", || {
                (sidecar.get("/readyz").ok()?.status == 200).then_some(())
            })
            .expect("ready");
        }
        // Redis kept nothing: all buckets are full again, and no more than the burst passes.
        assert_eq!(ask(&fleet).status, 200);
    });
}

#[test]
fn redis_stands_still() {
    for_each_on_error(|on_error| {
        let fleet = fleet(on_error).store(Store::Redis).start().expect("a fleet");
        assert_eq!(ask(&fleet).status, 200);
        fleet.redis().process().freeze();
        assert_on_error_applies(&fleet, on_error, "store_unavailable");
        fleet.redis().process().thaw();
        assert_recovers(&fleet);
    });
}

#[test]
fn redis_is_not_there_when_the_sidecar_starts() {
    let nobody = Store::External("redis://127.0.0.1:1".to_owned());
    for_each_on_error(|on_error| {
        let fleet =
            fleet(on_error).store(nobody.clone()).sidecar_ready(Ready::Healthz).start().expect("a fleet");
        assert_on_error_applies(&fleet, on_error, "store_unavailable");
    });
}

#[test]
fn redis_is_full() {
    for_each_on_error(|on_error| {
        let fleet = fleet(on_error).store(Store::Redis).start().expect("a fleet");
        assert_eq!(ask(&fleet).status, 200);
        fleet.redis().command(&["CONFIG", "SET", "maxmemory", "1"]).expect("set");
        assert_on_error_applies(&fleet, on_error, "store_unavailable");
        fleet.redis().command(&["CONFIG", "SET", "maxmemory", "0"]).expect("set");
        assert_recovers(&fleet);
    });
}

#[test]
fn redis_forgets_the_script() {
    let fleet = fleet("deny").store(Store::Redis).start().expect("a fleet");
    assert_eq!(ask(&fleet).header("x-ratelimit-remaining"), Some("999"));
    fleet.redis().command(&["SCRIPT", "FLUSH"]).expect("flushed");
    assert_eq!(ask(&fleet).header("x-ratelimit-remaining"), Some("998"), "it is loaded anew, unseen");
}

#[test]
fn the_memory_store_is_full() {
    for_each_on_error(|on_error| {
        let fleet = fleet(on_error).sidecar_args(["--memory-max-buckets", "1"]).start().expect("a fleet");
        assert_eq!(ask(&fleet).header("x-ratelimit-remaining"), Some("999"));
        let other = http::get("/").header("x-api-key", "bob").send(fleet.envoy(0).addr()).expect("an answer");
        assert_eq!(other.status, status(on_error));
        assert_eq!(
            ask(&fleet).header("x-ratelimit-remaining"),
            Some("998"),
            "whose bucket is kept is still held to it"
        );
    });
}

#[test]
fn one_of_two_sidecars_is_gone() {
    let fleet = fleet("allow").sidecars(2).store(Store::Redis).start().expect("a fleet");
    assert_eq!(ask(&fleet).status, 200);
    fleet.sidecar(0).process().stop();
    // Until Envoy leaves out the one that is gone, those that meet it get what on_error says; then all are decided.
    let is_decided = || ask(&fleet).header("x-ratelimit-remaining").is_some();
    eventually(PATIENCE, "20 requests in a row are decided", || (0..20).all(|_| is_decided()).then_some(()))
        .expect("left out");
}

#[test]
fn the_receiver_of_spans_is_gone() {
    let mut configuration = configuration("deny");
    configuration["tracing"] = json!(true);
    let receiver = format!("http://127.0.0.1:{}", fleet::free_port().expect("a port"));
    let fleet = Fleet::builder()
        .filter_configuration(configuration)
        .sidecar_args(["--otlp-endpoint", &receiver])
        .start()
        .expect("a fleet");
    let request = || {
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        http::get("/").header("x-api-key", "alice").header("traceparent", traceparent)
    };
    let lost = || fleet.sidecar(0).log().contains("spans are lost until their receiver takes them");
    for _ in 0..20 {
        assert_eq!(request().send(fleet.envoy(0).addr()).expect("an answer").status, 200);
    }
    eventually(PATIENCE, "the sidecar to say so", || lost().then_some(())).expect("logged");
    assert_eq!(request().send(fleet.envoy(0).addr()).expect("an answer").status, 200);
}
