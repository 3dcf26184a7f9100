//! Who can tell what was decided, and why: the access log, Envoy's counters, and Prometheus.

use std::collections::BTreeSet;

use e2e::{PATIENT, ask, await_counter, await_line, by_api_key, strict};
use fleet::http::{self, Request};
use fleet::{Config, Fleet, FleetBuilder};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/configuration.md");

fn policies() -> Value {
    let path = |prefix: &str| json!({"path": {"prefix": prefix}});
    json!([
        by_api_key("per-client", "1 per day", 3),
        {"name": "large", "match": path("/large"), "key": [], "limit": "1 per day", "cost": 2},
        {"name": "v2.new_one", "match": path("/v2"), "key": [], "limit": "1 per day", "mode": "shadow"},
        {"name": "several", "match": path("/several"), "key": [], "limits": [{"limit": "1 per day"}, {"limit": "9 per week"}]},
    ])
}

fn builder() -> FleetBuilder {
    let mut configuration = strict(&policies());
    configuration["headers"] = json!({"debug": true});
    Fleet::builder().filter_configuration(configuration).sidecar_args(PATIENT)
}

fn of(client: &str, path: &str) -> Request {
    http::get(path).header("x-api-key", client)
}

#[test]
fn the_access_log_says_what_was_decided_and_why() {
    let fleet = builder().start().expect("a fleet");
    // A path of its own for each, which the access log has, too.
    let cases = [
        ("/v2/first", "v", 200, "via_upstream", "decision=allowed policy=per-client remaining=2"),
        (
            "/v2/second",
            "v",
            200,
            "via_upstream",
            "decision=allowed policy=per-client remaining=1 shadow_denied=v2.new_one",
        ),
        (
            "/large",
            "l",
            429,
            "sluice_denied_large",
            "decision=denied policy=large remaining=1 reason=never_fits",
        ),
        ("/several/first", "s", 200, "via_upstream", "decision=allowed policy=several.1d remaining=0"),
        (
            "/several/second",
            "t",
            429,
            "sluice_denied_several.1d",
            "decision=denied policy=several.1d remaining=0 reason=used_up",
        ),
    ];
    for (path, client, status, details, decision) in cases {
        let answer = ask(&fleet, of(client, path));
        assert_eq!((answer.status, answer.header("x-sluice-decision")), (status, Some(decision)), "{path}");
        let line = await_line(&fleet, &format!("\"GET {path}\""));
        assert!(line.contains(&format!(" {status} {details} ")), "{line}");
        assert!(line.ends_with(&format!("sluice=\"{decision}\"")), "{line}");
    }
    // A 429 of the upstream is not one of ours.
    let foreign = ask(&fleet, of("w", "/foreign").header("x-echo-status", "429"));
    assert_eq!(foreign.status, 429);
    assert!(await_line(&fleet, "/foreign").contains(" 429 via_upstream "));

    fleet.sidecar(0).process().kill();
    let failed = ask(&fleet, of("x", "/failed"));
    let decision = "decision=failed answer=deny reason=no_answer policy=per-client";
    assert_eq!((failed.status, failed.header("x-sluice-decision")), (503, Some(decision)));
    let line = await_line(&fleet, "/failed");
    assert!(
        line.contains(" 503 sluice_failed_no_answer ") && line.ends_with(&format!("{decision}\"")),
        "{line}"
    );
}

/// The names of all counters of ours.
fn names(fleet: &Fleet) -> BTreeSet<String> {
    let stats = fleet.envoy(0).admin("/stats?filter=wasmcustom").expect("stats").text();
    stats.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn each_policy_counts_under_names_that_no_client_chooses() {
    let fleet = builder().start().expect("a fleet");
    for _ in 0..5 {
        let _answer = ask(&fleet, of("alice", "/v2"));
    }
    let _denied = ask(&fleet, of("bob", "/large"));
    await_counter(&fleet, "policy.per-client.allowed", 4);
    await_counter(&fleet, "policy.per-client.denied", 2);
    await_counter(&fleet, "policy.v2.new_one.allowed", 1);
    await_counter(&fleet, "policy.v2.new_one.shadow_denied", 4);
    await_counter(&fleet, "policy.large.denied", 1);
    await_counter(&fleet, "allowed", 3);
    await_counter(&fleet, "denied", 3);
    let before = names(&fleet);
    for number in 0..20 {
        let _answer = ask(&fleet, of(&format!("client-{number}"), &format!("/path-{number}")));
    }
    await_counter(&fleet, "allowed", 23);
    assert_eq!(names(&fleet), before, "twenty more clients and paths, and not one more name");
    fleet.sidecar(0).process().kill();
    // Of whom nothing is known: whoever was denied is denied again without being asked for.
    let _failed = ask(&fleet, of("carol", "/"));
    await_counter(&fleet, "policy.per-client.failed", 1);
    await_counter(&fleet, "failed_denied", 1);
}

#[test]
fn the_tags_that_are_documented_make_labels_for_prometheus() {
    let shown =
        PAGE.split("```yaml\n").find(|block| block.starts_with("stats_config:")).expect("the snippet");
    let shown = shown.split("```").next().expect("its end").to_owned();
    let tags = move |config: &mut Config| {
        let stats_config = Config::from_yaml(&shown)?.tree()["stats_config"].clone();
        config.tree()["stats_config"] = stats_config;
        Ok(())
    };
    let fleet = builder().adjust(tags).start().expect("a fleet");
    for _ in 0..5 {
        let _answer = ask(&fleet, of("alice", "/v2"));
    }
    // The names in /stats stay as they are.
    await_counter(&fleet, "policy.per-client.denied", 2);
    await_counter(&fleet, "policy.v2.new_one.shadow_denied", 4);
    let page = fleet.envoy(0).admin("/stats/prometheus").expect("stats").text();
    for line in [
        "sluice_policy_allowed{policy=\"per-client\"} 3",
        "sluice_policy_denied{policy=\"per-client\"} 2",
        "sluice_policy_shadow_denied{policy=\"v2.new_one\"} 4",
        "sluice_denied{} 2",
    ] {
        let ours: Vec<&str> = page.lines().filter(|line| line.starts_with("sluice")).collect();
        assert!(ours.contains(&line), "{line} is not among {ours:#?}");
    }
}
