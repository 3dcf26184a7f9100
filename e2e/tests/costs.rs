//! How much a request takes: limits together, costs from a request, and what it really cost in the end.

use std::thread;

use e2e::{PATIENCE, PATIENT, ask, await_counter, governed_by, grpc, remaining, statuses, strict};
use fleet::http::{self, Answer, Request};
use fleet::{Fleet, FleetBuilder, Store, eventually};
use serde_json::{Value, json};

/// A policy for the paths below its name, for each API key.
fn at(name: &str, fields: Value) -> Value {
    let mut policy = json!({
        "name": name,
        "match": {"path": {"prefix": format!("/{name}")}},
        "key": [{"header": "x-api-key"}],
        "limit": "1 per day",
        "burst": 1_000,
    });
    if fields.get("limits").is_some() {
        policy.as_object_mut().expect("a policy").retain(|name, _| name != "limit" && name != "burst");
    }
    policy.as_object_mut().expect("a policy").extend(fields.as_object().cloned().expect("fields"));
    policy
}

fn builder(policies: Value) -> FleetBuilder {
    let mut configuration = strict(&policies);
    // Longer than a sidecar stands still here.
    configuration["sidecar"]["timeout"] = json!("60s");
    let nowhere =
        json!({"name": "nowhere", "type": "STATIC", "load_assignment": {"cluster_name": "nowhere"}});
    let builder =
        Fleet::builder().filter_configuration(configuration).sidecar_args(PATIENT).store(Store::Redis);
    builder.adjust(move |config| {
        config.tree()["static_resources"]["clusters"].as_array_mut().expect("clusters").push(nowhere.clone());
        let nowhere = json!({"match": {"path": "/failed/nowhere"}, "route": {"cluster": "nowhere"}});
        let mut look = json!({"match": {"path": "/said/look"}, "route": {"cluster": "upstream"}});
        look["metadata"] = json!({"filter_metadata": {"sluice": {"cost": 0}}});
        config.routes()?.as_array_mut().expect("routes").splice(0..0, [nowhere, look]);
        Ok(())
    })
}

fn fleet(policies: Value) -> Fleet {
    builder(policies).start().expect("a fleet")
}

/// Whole tokens in a client's bucket as Redis keeps it, below zero in debt; `None` where it is full.
fn kept(fleet: &Fleet, limit: &str, client: &str) -> Option<i64> {
    let key = format!("sluice:1:e2e/{limit}/{{header:x-api-key={client}}}");
    let kept = fleet.redis().command(&["GET", &key]).expect("Redis answers").to_string();
    let mut numbers = kept.split(' ').map_while(|number| number.parse::<i64>().ok());
    Some(numbers.next()?.div_euclid(numbers.next()?))
}

fn await_kept(fleet: &Fleet, limit: &str, client: &str, expected: Option<i64>) {
    let mut last = None;
    let reached = eventually(PATIENCE, &format!("{expected:?} are left to {client}"), || {
        last = kept(fleet, limit, client);
        (last == expected).then_some(())
    });
    reached.unwrap_or_else(|error| panic!("{error}; {last:?} are"));
}

fn get(path: &str) -> Request {
    http::get(path).header("x-api-key", "alice")
}

#[test]
fn a_request_takes_from_all_limits_or_from_none() {
    let fleet = fleet(json!([
        at(
            "both",
            json!({"limits": [
                {"limit": {"tokens": 5, "per": "1d"}, "burst": 3},
                {"limit": "100 per week", "name": "weekly"},
            ]})
        ),
        at("both/twice", json!({"name": "twice", "limit": "4 per day", "burst": 100})),
    ]));
    let first = ask(&fleet, get("/both"));
    assert_eq!(governed_by(&first), ["both.1d", "both.weekly"]);
    assert_eq!(
        first.header("ratelimit-policy"),
        Some("\"both.1d\";q=5;w=86400, \"both.weekly\";q=100;w=604800")
    );
    assert_eq!(remaining(&first), Some(2), "the one nearest to denying");
    assert_eq!(statuses(&fleet, 5, &get("/both/twice")), [200, 200, 429, 429, 429]);
    // Three passed in all: neither the weekly limit nor the other policy has lost more than those.
    assert_eq!(
        ["both.1d", "both.weekly", "twice"].map(|limit| kept(&fleet, limit, "alice")),
        [Some(0), Some(97), Some(98)]
    );
    let denied = ask(&fleet, get("/both/twice"));
    assert_eq!(denied.json().expect("a problem")["violated-policies"], json!(["both.1d"]));
}

#[test]
fn a_request_may_say_what_it_costs_within_bounds() {
    let fleet = fleet(json!([
        at("fixed", json!({"cost": 7})),
        at("header", json!({"cost": {"header": "X-Cost", "default": 5, "min": 2, "max": 50}})),
        at("bare", json!({"cost": {"header": "x-cost", "max": 50}})),
        at("look", json!({"cost": 0, "burst": 1})),
        at("large", json!({"cost": 1_001})),
    ]));
    assert_eq!(remaining(&ask(&fleet, get("/fixed"))), Some(993));
    let mut left = 1_000;
    for (said, cost) in [
        ("10", 10),
        ("0", 2),
        ("1", 2),
        ("51", 50),
        ("99999999999999999999", 50),
        ("-3", 5),
        ("1.5", 5),
        ("", 5),
    ] {
        left -= cost;
        let answer = ask(&fleet, get("/header").header("x-cost", said));
        assert_eq!(remaining(&answer), Some(left), "x-cost: {said}");
    }
    assert_eq!(remaining(&ask(&fleet, get("/header"))), Some(left - 5), "without the header");
    assert_eq!(remaining(&ask(&fleet, get("/bare"))), Some(999));
    assert_eq!(remaining(&ask(&fleet, get("/bare").header("x-cost", "0"))), Some(999), "it only looked");
    let looks: Vec<Answer> = (0..5).map(|_| ask(&fleet, get("/look"))).collect();
    assert!(looks.iter().all(|answer| answer.status == 200 && remaining(answer) == Some(1)));
    let never = ask(&fleet, get("/large"));
    assert_eq!((never.status, never.header("retry-after"), remaining(&never)), (429, None, Some(1_000)));
}

#[test]
fn what_it_really_cost_is_taken_or_returned_in_the_end() {
    let fleet = fleet(json!([
        at("said", json!({"cost": 100, "settle": {"header": "X-Used", "max": 5_000}})),
        at("bytes", json!({"cost": 10, "settle": {"bytes_per_token": 1_024, "max": 50}})),
        at(
            "failed",
            json!({"cost": 100, "settle": {"header": "x-used", "max": 5_000}, "refund_on": ["5xx", 404]})
        ),
    ]));
    let header = |header: &'static str| vec![("x-echo-header", header)];
    let status = |status: &'static str| vec![("x-echo-status", status), ("x-echo-header", "x-used: 7")];
    let body = |bytes: &'static str| vec![("x-echo-body-bytes", bytes)];
    // Of a full bucket of 1,000: where, what the upstream answers, and what is left in the end.
    let cases = [
        ("said", header("x-used: 1"), Some(999)),
        ("said", header("X-USED: 250"), Some(750)),
        ("said", header("x-used: 0"), None),
        ("said", header("x-used: 99999"), Some(-4_000)),
        ("said", header("x-used: 100"), Some(900)),
        ("said", header("x-used: much"), Some(900)),
        ("said", vec![], Some(900)),
        ("bytes", body("2048"), Some(998)),
        ("bytes", body("2049"), Some(997)),
        ("bytes", body("0"), None),
        ("bytes", body("1000000"), Some(950)),
        ("failed", status("503"), None),
        ("failed", status("404"), None),
        ("failed", status("400"), Some(993)),
        ("failed/nowhere", vec![], None),
    ];
    for (index, (path, headers, expected)) in cases.iter().enumerate() {
        let client = format!("client-{index}");
        let request = http::get(&format!("/{path}")).header("x-api-key", &client);
        let _answer =
            ask(&fleet, headers.iter().fold(request, |request, (name, value)| request.header(name, value)));
        await_kept(&fleet, path.split('/').next().expect("a policy"), &client, *expected);
    }
    await_counter(&fleet, "settled", 12);
    await_counter(&fleet, "settle_failed", 0);
}

/// Or whoever hangs up early would pay next to nothing for what was made ready.
#[test]
fn a_body_that_breaks_off_returns_nothing() {
    let fleet = fleet(json!([at(
        "bytes",
        json!({"cost": 40, "settle": {"bytes_per_token": 1_u64 << 40, "max": 50}})
    )]));
    let large = get("/bytes").header("x-echo-body-bytes", "50000000");
    let (answer, stream) = large.open(fleet.envoy(0).addr()).expect("the head of an answer");
    assert_eq!(remaining(&answer), Some(960));
    drop(stream);
    let active = || fleet.envoy(0).stat("http.ingress.downstream_rq_active").ok();
    eventually(PATIENCE, "it is over", || (active()? == 0).then_some(())).expect("over");
    assert_eq!(ask(&fleet, get("/bytes")).status, 200);
    // Of the second 39 come back.
    await_kept(&fleet, "bytes", "alice", Some(959));
    await_counter(&fleet, "settled", 1);
}

/// gRPC answers 200 whatever happened. Without a message it tells in the headers what did.
#[test]
fn an_error_of_grpc_is_returned_like_the_status_that_means_the_same() {
    let builder = builder(json!([at("shop.Cart", json!({"refund_on": ["5xx"]}))])).upstream(grpc::upstream());
    let fleet = builder.adjust(|config| config.http2("upstream").map(drop)).start().expect("a fleet");
    for (client, status, expected) in [("a", "14", None), ("b", "5", Some(999)), ("c", "13", None)] {
        let headers = [("x-api-key", client), ("x-echo-grpc-status", status)];
        let answer = grpc::call(fleet.envoy(0).addr(), "/shop.Cart/Add", &headers);
        assert_eq!(answer.status().map(|status| status.to_string()).as_deref(), Some(status));
        await_kept(&fleet, "shop.Cart", client, expected);
    }
    let answer = grpc::call(fleet.envoy(0).addr(), "/shop.Cart/Add", &[("x-api-key", "d")]);
    assert_eq!((answer.status(), kept(&fleet, "shop.Cart", "d")), (Some(0), Some(999)));
}

#[test]
fn whoever_is_in_debt_is_denied_and_may_look() {
    let fleet = fleet(json!([at("said", json!({"settle": {"header": "x-used", "max": 5_000}}))]));
    let used = get("/said").header("x-echo-header", "x-used: 1500");
    assert_eq!(remaining(&ask(&fleet, used)), Some(999), "it could not be known yet");
    await_kept(&fleet, "said", "alice", Some(-500));
    let denied = ask(&fleet, get("/said"));
    assert_eq!((denied.status, remaining(&denied)), (429, Some(0)));
    let wait: u64 = denied.header("retry-after").expect("retry-after").parse().expect("seconds");
    assert!((500 * 86_400..=501 * 86_400).contains(&wait), "until the debt is paid: {wait} s");
    let look = ask(&fleet, get("/said/look"));
    assert_eq!((look.status, remaining(&look)), (200, Some(0)), "what takes nothing is not denied");
}

#[test]
fn a_response_never_waits_for_its_settlement() {
    let fleet = fleet(json!([at("said", json!({"settle": {"header": "x-used", "max": 5_000}}))]));
    let addr = fleet.envoy(0).addr();
    let held = get("/said").header("x-echo-hold", "here").header("x-echo-header", "x-used: 30");
    let waiting = thread::spawn(move || held.send(addr).expect("a whole answer"));
    eventually(PATIENCE, "the request is at the upstream", || {
        (fleet.upstream().requests() == 1).then_some(())
    })
    .expect("allowed");
    fleet.sidecar(0).process().freeze();
    fleet.upstream().release();
    let answer = waiting.join().expect("no panic");
    assert_eq!((answer.status, remaining(&answer)), (200, Some(999)), "though the sidecar stands still");
    assert_eq!(kept(&fleet, "said", "alice"), Some(999), "not settled yet");
    fleet.sidecar(0).process().thaw();
    await_kept(&fleet, "said", "alice", Some(970));
    await_counter(&fleet, "settled", 1);
}

/// What was taken stands where it cannot be settled, and it is counted.
#[test]
fn what_cannot_be_settled_is_counted() {
    let fleet = fleet(json!([at("said", json!({"settle": {"header": "x-used", "max": 5_000}}))]));
    let addr = fleet.envoy(0).addr();
    let held = get("/said").header("x-echo-hold", "here").header("x-echo-header", "x-used: 30");
    let waiting = thread::spawn(move || held.send(addr).expect("a whole answer"));
    eventually(PATIENCE, "the request is at the upstream", || {
        (fleet.upstream().requests() == 1).then_some(())
    })
    .expect("allowed");
    fleet.sidecar(0).process().kill();
    fleet.upstream().release();
    assert_eq!(waiting.join().expect("no panic").status, 200);
    await_counter(&fleet, "settle_failed", 1);
    assert_eq!(kept(&fleet, "said", "alice"), Some(999));
}
