//! Each part tells clients apart.

use e2e::{ask, strict, tokens};
use fleet::http::{self, Request};
use serde_json::{Value, json};

use crate::{bearer, builder, get, keys, once_a_day};

/// What a key is to be shown by.
struct Shown {
    part: &'static str,
    key: Value,
    /// Two requests that share a bucket.
    same: [Request; 2],
    /// One that has another.
    other: Request,
    /// How Redis names the bucket of the first two, after the policy.
    redis: &'static str,
}

fn from(request: Request, address: &str) -> Request {
    request.header("x-forwarded-for", address)
}

/// Parts of the request itself.
fn of_requests() -> Vec<Shown> {
    let shown = |part, key, same, other, redis| Shown { part, key, same, other, redis };
    vec![
        shown(
            "address",
            json!(["client_address"]),
            [from(get("/address"), "2001:db8:1:2::7"), from(get("/address"), "2001:db8:1:2:ffff::8")],
            from(get("/address"), "2001:db8:1:3::7"),
            "client_address=2001:db8:1:2::/64",
        ),
        shown(
            "network",
            json!([{"client_address": {"ipv4_prefix": 24}}]),
            [from(get("/network"), "192.0.2.1"), from(get("/network"), "192.0.2.254")],
            from(get("/network"), "198.51.100.1"),
            "client_address=192.0.2.0/24",
        ),
        shown(
            "header",
            json!([{"header": "X-Api-Key"}]),
            [
                get("/header").header("x-api-key", "a b"),
                get("/header").header("X-API-KEY", "a b").header("x-api-key", "c"),
            ],
            get("/header").header("x-api-key", "a  b"),
            "header:x-api-key=a%20b",
        ),
        shown(
            "cookie",
            json!([{"cookie": "session"}]),
            [
                get("/cookie").header("cookie", "a=b; session=s1"),
                get("/cookie").header("cookie", "x=y").header("cookie", "session=s1; session=s2"),
            ],
            get("/cookie").header("cookie", "session=s2"),
            "cookie:session=s1",
        ),
        shown(
            "query",
            json!([{"query": "user"}]),
            [get("/query?user=ann%20e&x=y"), get("/query?x&u%73er=ann+e")],
            get("/query?user=ann"),
            "query:user=ann%20e",
        ),
        shown("path", json!(["path"]), [get("/path/a?x"), get("/path/a?y")], get("/path/b"), "path=/path/a"),
        shown(
            "segments",
            json!([{"path": {"segments": 2}}]),
            [get("/segments/a/b"), get("/segments/a/c/d")],
            get("/segments/b"),
            "path:2=/segments/a",
        ),
        shown(
            "method",
            json!(["method"]),
            [get("/method"), get("/method")],
            http::post("/method"),
            "method=GET",
        ),
        shown(
            "host",
            json!(["host"]),
            [
                get("/host").header("host", "API.example.com"),
                get("/host").header("host", "api.example.com:8080"),
            ],
            get("/host").header("host", "www.example.com"),
            "host=api.example.com",
        ),
        shown(
            "text",
            json!([{"text": "v2"}, {"header": "x-k"}]),
            [get("/text").header("x-k", "1"), get("/text").header("x-k", "1")],
            get("/text").header("x-k", "2"),
            "text=v2,header:x-k=1",
        ),
        shown(
            "first",
            json!([{"first_of": [{"header": "x-k"}, {"cookie": "c"}, "client_address"]}]),
            [get("/first").header("cookie", "c=1"), from(get("/first").header("cookie", "c=1"), "192.0.2.1")],
            get("/first").header("x-k", "1").header("cookie", "c=1"),
            "cookie:c=1",
        ),
        shown(
            "long",
            json!([{"header": "x-k"}]),
            [get("/long").header("x-k", "x".repeat(200)), get("/long").header("x-k", "x".repeat(200))],
            get("/long").header("x-k", "x".repeat(201)),
            "header:x-k=*sha256:",
        ),
    ]
}

/// Parts that Envoy and its other filters know of a request.
fn of_envoy() -> Vec<Shown> {
    let shown = |part, key, same, other, redis| Shown { part, key, same, other, redis };
    let metadata = |namespace: &str, path: &[&str]| json!({"namespace": namespace, "path": path});
    vec![
        shown(
            "route",
            json!(["route_name"]),
            [get("/route/a/1"), get("/route/a/2")],
            get("/route/b"),
            "route_name=alpha",
        ),
        shown(
            "plan",
            json!([{"route_metadata": metadata("com.example", &["plan", "name"])}]),
            [get("/plan/a/1"), get("/plan/a/2")],
            get("/plan/b"),
            "route_metadata:com.example:plan:name=gold",
        ),
        shown(
            "tenant",
            json!([{"dynamic_metadata": metadata("com.example", &["tenant"])}]),
            [get("/tenant").header("x-tenant", "shop"), get("/tenant?again").header("x-tenant", "shop")],
            get("/tenant").header("x-tenant", "bank"),
            "dynamic_metadata:com.example:tenant=shop",
        ),
        shown(
            "fixed",
            json!([{"dynamic_metadata": metadata("com.example.fixed", &["is", "deep"])}, {"header": "x-k"}]),
            [get("/fixed").header("x-k", "1"), get("/fixed").header("x-k", "1")],
            get("/fixed").header("x-k", "2"),
            "dynamic_metadata:com.example.fixed:is:deep=down,header:x-k=1",
        ),
        shown(
            "subject",
            json!([{"jwt_claim": {"payload": "jwt", "claim": "sub"}}]),
            [bearer("/subject", tokens::ALICE), bearer("/subject?again", tokens::ALICE)],
            bearer("/subject", tokens::BOB),
            "jwt_claim:jwt:sub=alice",
        ),
        shown(
            "organisation",
            json!([{"jwt_claim": {"payload": "jwt", "claim": ["org", "id"]}}]),
            [bearer("/organisation", tokens::ALICE), bearer("/organisation?again", tokens::ALICE)],
            bearer("/organisation", tokens::BOB),
            "jwt_claim:jwt:org:id=acme",
        ),
        shown(
            "level",
            json!([{"jwt_claim": {"payload": "jwt", "claim": "level"}}, {"jwt_claim": {"payload": "jwt", "claim": "admin"}}]),
            [bearer("/level", tokens::ALICE), bearer("/level?again", tokens::ALICE)],
            bearer("/level", tokens::BOB),
            "jwt_claim:jwt:level=*5,jwt_claim:jwt:admin=*true",
        ),
        shown(
            "state",
            json!([{"filter_state": "com.example.state"}]),
            [get("/state").header("x-state", "on fire"), get("/state?again").header("x-state", "on fire")],
            get("/state").header("x-state", "calm"),
            "filter_state:com.example.state=on%20fire",
        ),
    ]
}

#[test]
fn each_part_tells_clients_apart() {
    let all: Vec<Shown> = of_requests().into_iter().chain(of_envoy()).collect();
    let policies = all.iter().map(|shown| once_a_day(shown.part, &shown.key)).collect();
    let fleet = builder(strict(&policies)).start().expect("a fleet");
    for Shown { part, same: [first, second], other, .. } in &all {
        let statuses = [first, second, other].map(|request| ask(&fleet, request.clone()).status);
        assert_eq!(statuses, [200, 429, 200], "{part}");
    }
    let keys = keys(&fleet);
    for Shown { part, redis, .. } in &all {
        let key = format!("sluice:1:e2e/{part}/{{{redis}");
        assert!(keys.contains(&key), "{key} is not among\n{keys}");
    }
}
