//! What Envoy accepts and hardly anybody means: each trap fires, and is silent where it should be.

use super::{ENVOY, envoy_with, headlines, replace};

/// The file with one change is told of by one headline that has these words (a note may follow).
fn assert_warns(text: &str, words: &[&str]) {
    let found = headlines(text);
    let warnings: Vec<_> = found.iter().filter(|line| !line.contains(": note: ")).collect();
    assert_eq!(warnings.len(), 1, "{found:?}");
    assert!(warnings[0].contains(": warning: "), "{found:?}");
    for word in words {
        assert!(found.iter().any(|line| line.contains(word)), "{word:?} is missing: {found:?}");
    }
}

fn assert_silent(text: &str) {
    assert_eq!(headlines(text), [""; 0]);
}

const WITHOUT_ADDRESS: [(&str, &str); 2] = [
    ("[{ first_of: [{ header: x-api-key }, client_address] }]", "[{ header: x-api-key }]"),
    ("[client_address]", "[]"),
];

#[test]
fn use_remote_address_is_missed_where_the_clients_address_is_used() {
    let on = "          use_remote_address: true\n";
    assert_warns(
        &envoy_with(on, ""),
        &["envoy.yaml:12:11: warning: use_remote_address: it is left out", "forge"],
    );
    assert_warns(
        &envoy_with("use_remote_address: true", "use_remote_address: false"),
        &["it is not true", "43:65: note"],
    );
    for also_right in ["useRemoteAddress: true", "use_remote_address: yes", "xff_num_trusted_hops: 1"] {
        assert_silent(&envoy_with("use_remote_address: true", also_right));
    }
    let extension =
        "original_ip_detection_extensions: [{ name: envoy.http.original_ip_detection.custom_header }]";
    assert_silent(&envoy_with("use_remote_address: true", extension));
    assert_warns(&envoy_with("use_remote_address: true", "xff_num_trusted_hops: 0"), &["use_remote_address"]);

    let mut without = envoy_with(on, "");
    for (from, to) in WITHOUT_ADDRESS {
        without = replace(&without, from, to);
    }
    assert_silent(&without);
    for condition in [
        "client_address: [10.0.0.0/8]",
        "not: { client_address: [10.0.0.0/8] }",
        "any: [{ client_address: [::1] }]",
    ] {
        assert_warns(&replace(&without, "method: [POST]", condition), &["use_remote_address"]);
    }
    assert_silent(&replace(&without, "method: [POST]", "header: { client_address: present }"));
    let skip = "domain: demo\n                    skip: [{ client_address: [127.0.0.1] }]";
    assert_warns(&replace(&without, "domain: demo", skip), &["use_remote_address"]);
}

#[test]
fn normalize_path_is_missed_where_the_path_is_used() {
    let on = "          normalize_path: true\n";
    assert_warns(
        &envoy_with(on, ""),
        &["envoy.yaml:12:11: warning: normalize_path: it is left out", "46:32: note"],
    );
    assert_warns(&envoy_with("normalize_path: true", "normalize_path: false"), &["it is not true"]);
    let without = replace(&envoy_with(on, ""), "path: { prefix: /api/expensive }, ", "");
    assert_silent(&without);
    assert_warns(&replace(&without, "[client_address]", "[path]"), &["normalize_path"]);
    assert_warns(&replace(&without, "[client_address]", "[{ path: { segments: 1 } }]"), &["normalize_path"]);
}

#[test]
fn a_failure_policy_other_than_fail_reload_is_told() {
    let line = "                failure_policy: FAIL_RELOAD\n";
    assert_warns(&envoy_with(line, ""), &["failure_policy: left out, which is FAIL_CLOSED"]);
    for other in ["FAIL_OPEN", "FAIL_CLOSED", "2"] {
        let text = envoy_with("FAIL_RELOAD", other);
        assert_warns(&text, &["envoy.yaml:30:33: warning: failure_policy: found ", other]);
    }
    assert_silent(&envoy_with("FAIL_RELOAD", "1"));
    assert_silent(&envoy_with("failure_policy", "failurePolicy"));
}

#[test]
fn a_sidecar_cluster_that_is_not_there_is_told() {
    let misspelt = envoy_with("cluster: sluice, timeout", "cluster: slucie, timeout");
    assert_warns(
        &misspelt,
        &["envoy.yaml:38:41: warning: sidecar.cluster: found \"slucie\"", "did you mean \"sluice\"?"],
    );
    let other = envoy_with("cluster: sluice, timeout", "cluster: limits.internal, timeout");
    assert_warns(&other, &["\"limits.internal\"", "every request gets `on_error`"]);
    let discovered =
        "dynamic_resources: { cds_config: { path_config_source: { path: /cds.yaml } } }\n\nstatic_resources:";
    assert_silent(&replace(&other, "\nstatic_resources:", discovered));
}

/// The file with its listener twice, the second on another port.
fn two_listeners() -> String {
    let text = ENVOY;
    let (before, rest) = text.split_once("  - name: ingress\n").expect("the listener");
    let (listener, after) = rest.split_once("\n  clusters:\n").expect("the clusters");
    let second = replace(listener, "port_value: 10000", "port_value: 10001");
    format!("{before}  - name: ingress\n{listener}  - name: second\n{second}\n  clusters:\n{after}")
}

#[test]
fn two_filters_that_share_a_vm_are_told() {
    let same = two_listeners();
    assert_silent(&same);
    let (first, second) = same.split_once("  - name: second\n").expect("two listeners");
    let other = replace(second, "domain: demo", "domain: other");
    assert_warns(
        &format!("{first}  - name: second\n{other}"),
        &[
            "vm_config.vm_id: the filter shares its VM with another",
            "envoy.yaml:31:17: note: the other filter",
        ],
    );
    let apart = replace(&other, "vm_id: sluice", "vm_id: second");
    assert_silent(&format!("{first}  - name: second\n{apart}"));
}

#[test]
fn claims_that_are_not_known_yet_are_told() {
    let jwt = [
        "          - name: envoy.filters.http.jwt_authn\n",
        "            typed_config:\n",
        "              \"@type\": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication\n",
    ]
    .concat();
    let claims = envoy_with("[client_address]", "[{ jwt_claim: { payload: jwt, claim: sub } }]");
    let router = "          - name: envoy.filters.http.router\n";
    let late = replace(&claims, router, &format!("{jwt}{router}"));
    assert_warns(
        &late,
        &["http_filters: found jwt_authn behind the Sluice filter", ": note: a claim is used here"],
    );
    let early = replace(
        &claims,
        "          - name: sluice\n            typed",
        &format!("{jwt}          - name: sluice\n            typed"),
    );
    assert_silent(&early);
    assert_silent(&claims);
    assert_silent(&replace(ENVOY, router, &format!("{jwt}{router}")));
}

#[test]
fn documents_that_envoy_does_not_read_are_told() {
    let second = ENVOY.to_owned() + "---\nadmin: {}\n";
    assert_warns(&second, &["found a second document; Envoy reads only the first"]);
    assert_silent(&("---\n".to_owned() + ENVOY + "---\n"));
}

#[test]
fn merge_keys_are_told() {
    let text = "sidecar: &s { cluster: sluice }\npolicies:\n- &p { name: a, key: [], limit: 5/min }\n- { <<: *p, name: b }\n";
    let found = headlines(text);
    assert!(found[0].starts_with("envoy.yaml:4:5: error: policies[1].<<: "), "{found:?}");
}

/// A route in front of the shipped one, with this metadata.
fn with_route(metadata: &str) -> String {
    let routes = "              routes:\n";
    let route = format!(
        "              - {{ match: {{ prefix: /pay }}, route: {{ cluster: upstream }}, metadata: {{ filter_metadata: {metadata} }} }}\n"
    );
    envoy_with(routes, &format!("{routes}{route}"))
}

#[test]
fn what_routes_say_is_checked() {
    for right in [
        "{ sluice: { policies: [per-client], cost: 2 } }",
        "{ sluice: { skip: true, mode: shadow } }",
        "{ com.example: { policies: [nobody] } }",
    ] {
        assert_silent(&with_route(right));
    }
    for (wrong, words) in [
        (
            "{ sluice: { policies: [expensiv] } }",
            ["sluice.policies[0]: found \"expensiv\"", "did you mean `expensive`?"],
        ),
        ("{ sluice: { mode: shadwo } }", ["sluice.mode: found `shadwo`", "did you mean `shadow`?"]),
        (
            "{ sluice: { polices: [expensive] } }",
            ["sluice.polices: found `polices`", "did you mean `policies`?"],
        ),
        ("{ sluice: [] }", ["metadata.filter_metadata.sluice: found a list", "expected a mapping"]),
    ] {
        let found = headlines(&with_route(wrong));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("envoy.yaml:22:"), "{found:?}");
        assert!(
            found[0].contains(": error: ") && words.iter().all(|word| found[0].contains(word)),
            "{found:?}"
        );
    }
}

#[test]
fn a_route_that_no_bucket_can_pay_is_told() {
    assert_warns(
        &with_route("{ sluice: { cost: 4 } }"),
        &[
            "envoy.yaml:22:121: warning: metadata.filter_metadata.sluice.cost: each request costs 4",
            "\"expensive\"",
            "of 3",
        ],
    );
    assert_warns(
        &with_route("{ sluice: { cost: \"11\", policies: [per-client] } }"),
        &["\"per-client\"", "of 10"],
    );
    for fine in
        ["cost: 3", "cost: 4, policies: [per-client]", "cost: 99, policies: []", "cost: 99, skip: true"]
    {
        assert_silent(&with_route(&format!("{{ sluice: {{ {fine} }} }}")));
    }
}

#[test]
fn a_policy_that_no_route_chooses_is_told() {
    let only = |text: &str| {
        replace(
            text,
            "limit: 3 per minute",
            "limit: 3 per minute\n                      only_if_chosen: true",
        )
    };
    assert_warns(
        &only(ENVOY),
        &["envoy.yaml:50:39: warning: policies[1].only_if_chosen: no route chooses", "[expensive]"],
    );
    assert_warns(
        &only(&with_route("{ sluice: { policies: [per-client] } }")),
        &["policies[1].only_if_chosen"],
    );
    assert_silent(&only(&with_route("{ sluice: { policies: [expensive] } }")));
    // Its routes come from elsewhere.
    let (before, rest) = ENVOY.split_once("          route_config:\n").expect("the routes");
    let (_, after) = rest.split_once("          http_filters:").expect("the filters");
    assert_silent(&only(&format!(
        "{before}          rds: {{ route_config_name: all }}\n          http_filters:{after}"
    )));
}

#[test]
fn a_route_is_held_against_the_filter_that_gets_its_requests() {
    let (first, second) = {
        let text = two_listeners();
        let (first, second) = text.split_once("  - name: second\n").expect("two listeners");
        (
            first.to_owned(),
            replace(&replace(second, "name: per-client", "name: other"), "vm_id: sluice", "vm_id: second"),
        )
    };
    let metadata = "match: { prefix: / }\n                metadata: { filter_metadata: { sluice: { policies: [other] } } }";
    let right = format!("{first}  - name: second\n{}", replace(&second, "match: { prefix: / }", metadata));
    assert_silent(&right);
    let wrong = format!("{}  - name: second\n{second}", replace(&first, "match: { prefix: / }", metadata));
    let found = headlines(&wrong);
    assert!(found.len() == 1 && found[0].contains("\"other\""), "{found:?}");
}

#[test]
fn metadata_that_nobody_reads_is_told() {
    let host = "domains: [\"*\"]\n              metadata: { filter_metadata: { sluice: { skip: true } } }";
    assert_warns(
        &envoy_with("domains: [\"*\"]", host),
        &["envoy.yaml:21:46: warning: metadata.filter_metadata.sluice: found it on what is no route"],
    );
}

#[test]
fn traps_of_the_language_are_told_at_their_place() {
    let dear = envoy_with("limit: 3 per minute", "limit: 3 per minute\n                      cost: 4");
    assert_warns(&dear, &["envoy.yaml:50:29: warning: policies[1].cost: each request costs 4", "burst of 3"]);
    assert_silent(&replace(&dear, "cost: 4", "cost: 3"));
    let never = envoy_with("method: [POST]", "all: [{ path: { prefix: /other } }]");
    assert_warns(&never, &["envoy.yaml:47:23: warning: policies[1].match: ", "never matches"]);
}

#[test]
fn a_timeout_below_a_millisecond_is_an_error() {
    let found = headlines(&envoy_with("timeout: 50ms", "timeout: 0.5ms"));
    assert!(found[0].starts_with("envoy.yaml:38:58: error: sidecar.timeout: found 500us"), "{found:?}");
    assert_silent(&envoy_with("timeout: 50ms", "timeout: 1ms"));
}

#[test]
fn filters_are_compared_by_their_order_and_not_by_their_places() {
    let claim = "[{ jwt_claim: { payload: jwt, claim: sub } }]";
    let jwt = "{ name: jwt, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication } }";
    let with_claim = envoy_with("[client_address]", claim);
    let router = "          - name: envoy.filters.http.router\n";
    let alias = replace(&with_claim, router, &format!("          - *jwt\n{router}"));
    assert_warns(&format!("x: &jwt {jwt}\n{alias}"), &["found jwt_authn behind the Sluice filter"]);
    // The filter is an alias of what stands before.
    let list = "          http_filters:\n";
    let (before, filter) = with_claim.split_once(list).expect("the list");
    let (filter, after) = filter.split_once(router).expect("the router");
    let filter = filter.replacen("- name: sluice\n", "&sluice\n            name: sluice\n", 1);
    let aliased = format!(
        "{before}          common: {filter}{list}          - {jwt}\n          - *sluice\n{router}{after}"
    );
    assert!(!headlines(&aliased).iter().any(|line| line.contains("jwt_authn")), "{:?}", headlines(&aliased));
}

#[test]
fn a_cost_is_too_dear_only_where_it_denies() {
    let route = "- match: { prefix: / }";
    let says = |said: &str| {
        let metadata = format!("metadata: {{ filter_metadata: {{ sluice: {{ cost: 50{said} }} }} }}");
        envoy_with(route, &format!("{route}\n                {metadata}"))
    };
    assert_warns(&says(""), &["it denies every request"]);
    assert_silent(&says(", mode: shadow"));
    assert_silent(&says(", mode: \"off\""));
    let shadow = |text: &str| replace(text, "domain: demo", "domain: demo\n                    mode: shadow");
    assert_silent(&shadow(&says("")));
    assert_warns(&shadow(&says(", mode: enforce")), &["it denies every request"]);
}
