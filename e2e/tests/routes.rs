//! What a route says in its metadata, since Wasm filters have no configuration per route.

use e2e::{PATIENT, ask, await_counter, governed_by, remaining, statuses, strict};
use fleet::http::{self, Request};
use fleet::{Fleet, eventually};
use serde_json::{Value, json};

/// A route with metadata under the namespace `sluice`.
fn route(prefix: &str, sluice: Value) -> Value {
    json!({
        "match": {"prefix": prefix},
        "route": {"cluster": "upstream"},
        "metadata": {"filter_metadata": {"sluice": sluice, "com.example": {"sluice": "is not meant"}}},
    })
}

fn fleet(routes: Value) -> Fleet {
    let configuration = strict(&json!([
        {"name": "first", "key": [{"header": "x-api-key"}], "limit": "10 per day"},
        {"name": "posts", "match": {"method": ["POST"]}, "key": [{"header": "x-api-key"}], "limit": "10 per day", "cost": 2},
        {"name": "strict", "only_if_chosen": true, "key": [{"header": "x-api-key"}], "limit": "1 per day"},
    ]));
    let routes = move |config: &mut fleet::Config| {
        *config.routes()? = routes.clone();
        // Nobody asked for that of the virtual host.
        let host = &mut config.connection_manager()?["route_config"]["virtual_hosts"][0];
        host["metadata"] = json!({"filter_metadata": {"sluice": {"skip": true}}});
        Ok(())
    };
    let builder = Fleet::builder().filter_configuration(configuration).sidecar_args(PATIENT);
    builder.adjust(routes).start().expect("a fleet")
}

fn of(client: &str, request: Request) -> Request {
    request.header("x-api-key", client)
}

#[test]
fn a_route_chooses_policies_prices_and_modes_or_is_exempt() {
    let fleet = fleet(json!([
        route("/skip", json!({"skip": true})),
        route("/kept", json!({"skip": false})),
        route("/chosen", json!({"policies": ["strict", "posts"]})),
        route("/none", json!({"policies": []})),
        route("/cost", json!({"cost": 4})),
        route("/look", json!({"cost": 0})),
        route("/shadow", json!({"mode": "shadow"})),
        route("/off", json!({"mode": "off"})),
        // What Envoy makes of the bare word in YAML.
        route("/bare", json!({"mode": false})),
        route("/many", json!({"policies": ["first"], "cost": 3, "mode": "enforce", "skip": false})),
        {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}},
    ]));
    let get = |client: &str, path: &str| ask(&fleet, of(client, http::get(path)));
    let post = |client: &str, path: &str| ask(&fleet, of(client, http::post(path)));

    assert_eq!(governed_by(&post("a", "/")), ["first", "posts"], "the virtual host says nothing");
    for path in ["/skip", "/none", "/off", "/bare"] {
        assert_eq!(governed_by(&post("a", path)), Vec::<String>::new(), "{path}");
    }
    assert_eq!(governed_by(&get("a", "/kept")), ["first"]);
    assert_eq!(governed_by(&get("a", "/chosen")), ["strict"], "the conditions of the other are not met");
    assert_eq!(governed_by(&post("b", "/chosen")), ["posts", "strict"], "in the order of the configuration");
    assert_eq!(statuses(&fleet, 2, &of("c", http::get("/chosen"))), [200, 429]);

    assert_eq!(remaining(&get("d", "/cost")), Some(6));
    assert_eq!(remaining(&post("e", "/cost")), Some(6), "of every policy, whatever its own price");
    assert_eq!(statuses(&fleet, 3, &of("f", http::get("/cost"))), [200, 200, 429]);
    assert_eq!(remaining(&get("f", "/look")), Some(2), "a look takes nothing");
    assert_eq!(remaining(&get("g", "/many")), Some(7));

    let shadow: Vec<http::Answer> = (0..12).map(|_| get("h", "/shadow")).collect();
    assert!(shadow.iter().all(|answer| answer.status == 200 && governed_by(answer).is_empty()));
    await_counter(&fleet, "policy.first.shadow_denied", 2);
    await_counter(&fleet, "route_mistakes", 0);
}

#[test]
fn a_mistake_of_a_route_does_not_count_and_is_told() {
    let fleet = fleet(json!([
        route("/misspelt", json!({"skp": true})),
        route("/unknown", json!({"policies": ["frist"], "skip": true})),
        {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}},
    ]));
    let misspelt = of("a", http::get("/misspelt"));
    assert_eq!(statuses(&fleet, 11, &misspelt), [vec![200; 10], vec![429]].concat(), "the limits rule");
    assert_eq!(statuses(&fleet, 1, &of("b", http::get("/unknown"))), [200]);
    await_counter(&fleet, "route_mistakes", 12);
    let log = eventually(e2e::PATIENCE, "both are in the log", || {
        let log = fleet.envoy(0).log();
        (log.contains("skp") && log.contains("frist")).then_some(log)
    });
    let log = log.expect("told");
    let told: Vec<&str> =
        log.lines().filter(|line| line.contains("the metadata of a route is not valid")).collect();
    assert_eq!(told.len(), 2, "each once: {told:#?}");
    assert!(log.contains("skp: found `skp`; expected one of"), "{log}");
    assert!(
        log.contains("policies[0]: found \"frist\", which is the name of no policy; did you mean `first`?"),
        "{log}"
    );
}
