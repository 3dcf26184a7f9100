//! Mutual TLS between Envoy and the sidecar, on the example: who is not let in gets `on_error`, and new certificates
//! cost no request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use e2e::{MutualTls, PATIENCE, by_api_key, strict};
use fleet::{Config, Fleet, FleetBuilder, Ready, RunDir, Transport, eventually, http, tools};
use serde_json::json;

fn builder(run: &RunDir, tls: &MutualTls) -> FleetBuilder {
    let config = Config::read(&tools::workspace().join("envoy/examples/mtls.yaml")).expect("the example");
    let policies = json!([by_api_key("all", "1000000 per day", 1_000_000)]);
    let builder = Fleet::builder().config(config).filter_configuration(strict(&policies)).run_dir(run);
    tls.wire(builder.sidecar_args(tls.arguments()), Transport::Http1)
}

fn ask(fleet: &Fleet) -> http::Answer {
    http::get("/").header("x-api-key", "alice").send(fleet.envoy(0).addr()).expect("an answer")
}

/// Nothing is decided, and `counter` of the cluster tells why.
fn assert_on_error_applies(fleet: &Fleet, counter: &str) {
    let answer = ask(fleet);
    assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (503, None), "{answer}");
    let counted = || (fleet.envoy(0).stat(&format!("cluster.sluice.{counter}")).ok()? > 0).then_some(());
    eventually(PATIENCE, counter, counted).expect("it is counted");
    assert!(fleet.envoy(0).stat("wasmcustom.sluice.failed_denied").expect("a stat") >= 1);
}

#[test]
fn an_envoy_without_a_certificate_gets_on_error() {
    let run = RunDir::new().expect("a directory");
    let tls = MutualTls::new(&run);
    let nameless = |config: &mut Config| {
        let context =
            &mut config.cluster("sluice")?["transport_socket"]["typed_config"]["common_tls_context"];
        context.as_object_mut().expect("a context").remove("tls_certificates").expect("there was one");
        Ok(())
    };
    let fleet = builder(&run, &tls).adjust(nameless).start().expect("a fleet");
    assert_on_error_applies(&fleet, "upstream_cx_total");
}

#[test]
fn an_envoy_with_a_foreign_certificate_gets_on_error() {
    let run = RunDir::new().expect("a directory");
    let tls = MutualTls::new(&run);
    tls.forge("envoy");
    let fleet = builder(&run, &tls).start().expect("a fleet");
    assert_on_error_applies(&fleet, "upstream_cx_total");
}

#[test]
fn a_sidecar_with_a_foreign_certificate_is_not_asked() {
    let run = RunDir::new().expect("a directory");
    let tls = MutualTls::new(&run);
    tls.forge("sluice");
    let fleet = builder(&run, &tls).sidecar_ready(Ready::Healthz).start().expect("a fleet");
    assert_on_error_applies(&fleet, "ssl.fail_verify_error");
}

/// Each callout makes a connection of its own, so that each meets the certificate of its moment.
#[test]
fn new_certificates_cost_no_request() {
    let run = RunDir::new().expect("a directory");
    let tls = MutualTls::new(&run);
    let one_each = |config: &mut Config| {
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let one_each = json!({options: {
            "@type": format!("type.googleapis.com/{options}"),
            "common_http_protocol_options": {"max_requests_per_connection": 1},
            "explicit_http_config": {"http_protocol_options": {}},
        }});
        config.cluster("sluice")?.insert("typed_extension_protocol_options".to_owned(), one_each);
        Ok(())
    };
    let fleet = builder(&run, &tls).adjust(one_each).start().expect("a fleet");
    let ended = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut asked = 0_u64;
            while !ended.load(Ordering::Relaxed) {
                let answer = ask(&fleet);
                assert!(answer.header("x-ratelimit-remaining").is_some(), "{answer}");
                asked += 1;
            }
            asked
        });
        let rotated = (1..=3).try_for_each(|times| {
            tls.renew("sluice");
            eventually(PATIENCE, "the certificates are read anew", || {
                (fleet.sidecar(0).log().matches("read anew").count() >= times).then_some(())
            })
        });
        ended.store(true, Ordering::Relaxed);
        rotated.expect("rotated");
        traffic.join().expect("each was decided")
    });
    assert!(asked > 10, "{asked}");
    let connections = fleet.envoy(0).stat("cluster.sluice.ssl.handshake").expect("a stat");
    assert!(connections >= asked, "{connections} handshakes for {asked} requests");
}
