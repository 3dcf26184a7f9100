//! Mutual TLS, and where a request came in.

use std::net::SocketAddr;

use e2e::{Authority, Listener, ask, statuses, strict};
use fleet::{Config, RunDir};
use rcgen::SanType;
use serde_json::{Value, json};

use crate::{builder, get, keys, once_a_day};

#[test]
fn a_client_certificate_and_the_listener_tell_clients_apart() {
    let (authority, run) = (Authority::new(), RunDir::new().expect("a directory"));
    let server = authority.sign("server", vec![SanType::IpAddress([127, 0, 0, 1].into())]);
    let client = |name: &str| {
        let uri = format!("spiffe://example.org/{name}").try_into().expect("a URI");
        let dns = format!("{name}.example.org").try_into().expect("a name");
        authority.sign(name, vec![SanType::URI(uri), SanType::DnsName(dns)])
    };
    let (alice, bob) = (client("alice"), client("bob"));
    let socket = authority.transport_socket(&server, &run);
    let zone = |config: &mut Config, zone: &str| {
        let metadata = json!({"filter_metadata": {"com.example": {"zone": zone}}});
        config.tree()["static_resources"]["listeners"][0]["metadata"] = metadata;
    };
    let mutual = Listener::new(move |config| {
        zone(config, "inner");
        config.tree()["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] =
            socket.clone();
        Ok(())
    });
    let tls: SocketAddr = mutual.addr();
    let kinds = ["uri_san", "dns_san", "digest", "subject"];
    let mut policies: Vec<Value> =
        kinds.iter().map(|kind| once_a_day(kind, &json!([{"client_certificate": kind}]))).collect();
    let place = json!([{"listener_metadata": {"namespace": "com.example", "path": ["zone"]}}]);
    policies.push(once_a_day("zone", &place));
    let fleet = builder(strict(&policies.into()))
        .adjust(move |config| {
            mutual.add_to(config)?;
            zone(config, "edge");
            Ok(())
        })
        .start()
        .expect("a fleet");
    for kind in kinds {
        let path = format!("/{kind}");
        let over_tls = [Some(&alice), Some(&alice), Some(&bob), None, None];
        let statuses = over_tls.map(|identity| authority.get(identity, tls, &path));
        assert_eq!(statuses, [200, 429, 200, 200, 429], "{kind}");
        assert_eq!(ask(&fleet, get(&path)).status, 429, "without TLS there is no certificate, either");
    }
    assert_eq!(statuses(&fleet, 2, &get("/zone")), [200, 429]);
    assert_eq!([0; 2].map(|_| authority.get(None, tls, "/zone")), [200, 429], "another listener");

    let keys = keys(&fleet);
    for key in [
        "uri_san/{client_certificate:uri_san=spiffe://example.org/alice}",
        "dns_san/{client_certificate:dns_san=bob.example.org}",
        "dns_san/{client_certificate:dns_san}",
        "subject/{client_certificate:subject=CN%3Dalice}",
        "zone/{listener_metadata:com.example:zone=edge}",
        "zone/{listener_metadata:com.example:zone=inner}",
    ] {
        assert!(keys.lines().any(|line| line == format!("sluice:1:e2e/{key}")), "{key} is not among\n{keys}");
    }
    let digest =
        keys.lines().find_map(|line| line.split_once("client_certificate:digest=")).expect("a digest").1;
    assert_eq!(digest.trim_end_matches('}').len(), 64, "a SHA-256 in hex: {digest}");
}
