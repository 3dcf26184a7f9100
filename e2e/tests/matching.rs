//! Which requests a policy governs: each condition, on a real Envoy.

use e2e::{PATIENT, ask, governed_by, strict, tokens};
use fleet::http::{self, Request};
use fleet::{Config, Fleet, Result};
use serde_json::{Value, json};

/// A policy that nothing uses up, under one condition.
fn under(name: &str, condition: Value) -> Value {
    json!({"name": name, "match": condition, "key": [], "limit": "1000000 per day"})
}

/// Claims, dynamic metadata, named routes, and clients that say where they are.
fn with_filters(config: &mut Config) -> Result<()> {
    let tenant = json!({
        "name": "tenant",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config",
            "request_rules": [{
                "header": "x-tenant",
                "on_header_present": {"metadata_namespace": "com.example", "key": "tenant", "type": "STRING"},
            }],
        },
    });
    config.http_filters()?.splice(0..0, [tokens::jwt_authn(), tenant]);
    *config.routes()? = json!([
        {"name": "pay", "match": {"prefix": "/pay"}, "route": {"cluster": "upstream"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}},
    ]);
    config.connection_manager()?["xff_num_trusted_hops"] = json!(1);
    Ok(())
}

fn fleet(configuration: Value) -> Fleet {
    let builder = Fleet::builder().filter_configuration(configuration).sidecar_args(PATIENT);
    builder.adjust(with_filters).start().expect("a fleet")
}

fn get(path: &str) -> Request {
    http::get(path)
}

fn policies() -> Value {
    let claim = |claim: Value, is: Value| json!({"jwt_claim": {"payload": "jwt", "claim": claim, "is": is}});
    json!([
        under("path-exact", json!({"path": {"exact": "/a"}})),
        under("path-prefix", json!({"path": {"prefix": "/a/"}})),
        under("path-regex", json!({"path": {"regex": "/v[0-9]+/x"}})),
        under("method", json!({"method": ["PUT", "DELETE"]})),
        under("host", json!({"host": ["api.example.com", "*.example.org"]})),
        under("header-present", json!({"header": {"x-h": "present"}})),
        under("header-exact", json!({"header": {"x-h": {"exact": "gold"}}})),
        under("header-prefix", json!({"header": {"X-H": {"prefix": "go"}}})),
        under("header-suffix", json!({"header": {"x-h": {"suffix": "ld"}}})),
        under("header-regex", json!({"header": {"x-h": {"regex": "(?i)GOLD|silver"}}})),
        under("query", json!({"query": {"q": {"exact": "a b"}, "debug": "present"}})),
        under("cookie", json!({"cookie": {"session": {"prefix": "s"}}})),
        under("address", json!({"client_address": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]})),
        under("route", json!({"route_name": ["pay"]})),
        under("tier", claim(json!("tier"), json!({"exact": "gold"}))),
        under("organisation", claim(json!(["org", "id"]), json!("present"))),
        under("level", claim(json!("level"), json!({"exact": "6"}))),
        under(
            "tenant",
            json!({"dynamic_metadata": {"namespace": "com.example", "path": ["tenant"], "is": {"exact": "shop"}}}),
        ),
        under("not", json!({"header": {"x-set": "present"}, "not": {"method": ["GET"]}})),
        under("any", json!({"any": [{"header": {"x-a": "present"}}, {"header": {"x-b": "present"}}]})),
        under(
            "all",
            json!({"all": [{"header": {"x-a": "present"}}, {"not": {"header": {"x-b": "present"}}}]})
        ),
        under("never", json!({"percent": 0})),
    ])
}

#[test]
fn each_condition_chooses_its_requests() {
    let fleet = fleet(strict(&policies()));
    let bearer = |token: &str| get("/").header("authorization", format!("Bearer {token}"));
    let with = |value: &str| get("/").header("x-h", value);
    let cases: Vec<(Request, &[&str])> = vec![
        (get("/"), &[]),
        (get("/a?b"), &["path-exact"]),
        (get("/a/b"), &["path-prefix"]),
        (get("/v12/x?y"), &["path-regex"]),
        (get("/v12/xx"), &[]),
        (http::request("PUT", "/"), &["method"]),
        (get("/").header("host", "API.example.com:81"), &["host"]),
        (get("/").header("host", "a.b.example.org"), &["host"]),
        (get("/").header("host", "example.org"), &[]),
        (with(""), &["header-present"]),
        (with("gold"), &["header-present", "header-exact", "header-prefix", "header-suffix", "header-regex"]),
        (with("Silver"), &["header-present", "header-regex"]),
        (with("golden").header("x-h", "gold"), &["header-present", "header-prefix"]),
        (get("/?debug&q=a%20b"), &["query"]),
        (get("/?q=a+b"), &[]),
        (get("/").header("cookie", "a=1; session=s1"), &["cookie"]),
        (get("/").header("cookie", "session=x"), &[]),
        (get("/").header("x-forwarded-for", "10.1.2.3"), &["address"]),
        (get("/").header("x-forwarded-for", "2001:db8:9::1"), &["address"]),
        (get("/").header("x-forwarded-for", "192.0.2.2"), &[]),
        (get("/pay/now"), &["route"]),
        (bearer(tokens::ALICE), &["tier", "organisation"]),
        (bearer(tokens::BOB), &["organisation", "level"]),
        (get("/").header("x-tenant", "shop"), &["tenant"]),
        (get("/").header("x-tenant", "bank"), &[]),
        (get("/").header("x-set", "1"), &[]),
        (http::post("/").header("x-set", "1"), &["not"]),
        (get("/").header("x-a", "1"), &["any", "all"]),
        (get("/").header("x-b", "1"), &["any"]),
        (get("/").header("x-a", "1").header("x-b", "1"), &["any"]),
    ];
    for (request, expected) in cases {
        let answer = ask(&fleet, request.clone());
        assert_eq!(answer.status, 200);
        assert_eq!(governed_by(&answer), expected, "{request:?}");
    }
}

#[test]
fn a_share_of_the_requests_is_drawn_once_for_each() {
    let fleet = fleet(strict(&json!([
        under("half", json!({"percent": "50"})),
        under("most", json!({"percent": 90.5})),
        under("everybody", json!({"percent": 100})),
    ])));
    let drawn: Vec<Vec<String>> = (0..60).map(|_| governed_by(&ask(&fleet, get("/")))).collect();
    let governs = |found: &[String], name: &str| found.iter().any(|one| one == name);
    let half = drawn.iter().filter(|found| governs(found, "half")).count();
    assert!((1..60).contains(&half), "{half} of 60");
    assert!(drawn.iter().all(|found| governs(found, "everybody")));
    assert!(drawn.iter().all(|found| governs(found, "most") || !governs(found, "half")), "the same draw");
}

#[test]
fn who_is_exempt_is_not_even_asked_for() {
    let mut configuration = strict(&json!([{"name": "none", "key": [], "limit": "1 per day"}]));
    configuration["skip"] = json!([
        {"path": {"prefix": "/healthz"}},
        {"header": {"x-internal": {"exact": "yes"}}, "client_address": ["10.0.0.0/8"]},
    ]);
    let fleet = fleet(configuration);
    let inner = get("/").header("x-internal", "yes");
    for request in [get("/healthz/live"), inner.clone().header("x-forwarded-for", "10.0.0.1")] {
        for _ in 0..2 {
            let answer = ask(&fleet, request.clone());
            assert_eq!((answer.status, governed_by(&answer)), (200, vec![]), "{request:?}");
        }
    }
    assert_eq!(fleet.envoy(0).stat("wasmcustom.sluice.callouts").expect("a stat"), 0);
    let outer = [inner.clone(), inner].map(|request| ask(&fleet, request).status);
    assert_eq!(outer, [200, 429], "only one of its conditions is met");
}
