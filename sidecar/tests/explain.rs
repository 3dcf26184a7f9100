//! What `sluice explain` tells of a request.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// A file with these policies, and with routes that speak of them.
fn envoy(policies: &str) -> String {
    format!(
        r#"
static_resources:
  clusters: [{{ name: sluice }}]
  listeners:
  - filter_chains:
    - filters:
      - typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          route_config:
            virtual_hosts:
            - routes:
              - {{ name: plain, match: {{ prefix: /a }} }}
              - {{ name: dear, match: {{ prefix: / }}, metadata: {{ filter_metadata: {{ sluice: {{ policies: [chosen], cost: 7 }} }} }} }}
          http_filters:
          - name: limits
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                configuration:
                  "@type": type.googleapis.com/google.protobuf.Struct
                  value:
                    sidecar: {{ cluster: sluice }}
                    domain: shop
                    {policies}
"#
    )
}

fn explain(file: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .env_clear()
        .args(["explain", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // It may have ended without reading.
    let _ = child.stdin.take().expect("piped").write_all(file.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn told(file: &str, arguments: &[&str]) -> String {
    let output = explain(file, arguments);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    String::from_utf8(output.stdout).expect("text")
}

/// The first filter of the JSON.
fn filter(file: &str, arguments: &[&str]) -> Value {
    let json = told(file, &[arguments, &["--format", "json"]].concat());
    let mut value: Value = serde_json::from_str(&json).expect("JSON");
    value["filters"][0].take()
}

const POLICIES: &str = r#"skip: [{ path: { exact: /healthz } }, { method: [OPTIONS] }]
                    policies:
                    - name: per-client
                      key: [{ first_of: [{ header: x-api-key }, client_address] }]
                      limits: [{ limit: 10 per second, burst: 20 }, { limit: 1000/day }]
                    - name: expensive
                      match: { path: { prefix: /api }, method: [POST], host: [shop.example.com] }
                      key: []
                      limit: 5 per minute
                      cost: { header: x-cost, max: 5 }
                    - { name: watched, key: [path], limit: 5 per minute, mode: shadow }
                    - { name: keyed, key: [{ header: x-tenant }], missing: skip, limit: 5 per minute }
                    - { name: idle, key: [], limit: 5 per minute, mode: off }
                    - { name: chosen, key: [], limit: 9 per minute, only_if_chosen: true }
"#;

#[test]
fn every_policy_is_told_with_its_key_limits_and_cost() {
    let arguments = ["--request", "GET /api/x?page=2", "-H", "x-api-key: a b", "--from", "192.0.2.1"];
    assert_eq!(
        told(&envoy(POLICIES), &arguments),
        "\
limits on line 19, domain shop
  per-client: takes 1 token
    key    header:x-api-key=a%20b
    limit  10 per second, burst 20 (per-client.1s)
    limit  1000 per day, burst 1000 (per-client.1d)
  expensive: does not apply (match.host, match.method)
  watched: takes 1 token, in shadow: it never denies
    key    path=/api/x
    limit  5 per minute, burst 5
  keyed: does not apply (missing: skip, and the request lacks a part of the key)
  idle: does not apply (mode: off)
  chosen: does not apply (only_if_chosen, and the route does not choose it)

note: it is not known which route the request takes, and that on line 13 says more; name one by --route
"
    );
}

#[test]
fn a_host_comes_from_the_url_or_from_its_header() {
    let takes = |arguments: &[&str]| filter(&envoy(POLICIES), arguments)["policies"][1]["takes"].clone();
    let by_url = takes(&["--request", "POST https://shop.example.com/api?x", "-H", "x-cost: 3"]);
    assert_eq!((&by_url["cost_tokens"], &by_url["key"]), (&json!(3), &json!("")));
    assert_eq!(
        takes(&["--request", "POST /api", "-H", "Host: Shop.example.com:443", "-H", "X-Cost: 3"]),
        by_url
    );
    assert_eq!(takes(&["--request", "POST https://shop.example.com"]), Value::Null);
}

#[test]
fn a_route_is_heard() {
    let arguments = ["--request", "GET /x", "--route", "dear"];
    let policies = filter(&envoy(POLICIES), &arguments)["policies"].clone();
    assert_eq!(policies[0]["why_not"], "the route's metadata chooses other policies");
    assert_eq!(
        policies[5]["takes"],
        json!({"key": "", "cost_tokens": 7, "percent": 100.0, "enforced_percent": 100.0,
               "limits": [{"bucket": "chosen", "limit": "9 per minute", "burst": 9}]})
    );
    let plain = told(&envoy(POLICIES), &["--request", "GET /x", "--route", "plain", "--from", "::1"]);
    assert!(plain.contains("client_address=::/64") && !plain.contains("note:"), "{plain}");
    let nowhere = explain(&envoy(POLICIES), &["--request", "GET /x", "--route", "nowhere"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&nowhere.stderr), "<stdin>: error: no route is named \"nowhere\"\n");
}

#[test]
fn all_metadata_of_a_route_is_known() {
    let policies = "policies:
                    - { name: planned, key: [{ route_metadata: { namespace: com.example, path: [plan] } }], missing: skip, limit: 5 per minute }
                    - { name: deep, key: [{ route_metadata: { namespace: com.example, path: [a, b] } }], limit: 5 per minute }
                    - { name: ours, key: [{ route_metadata: { namespace: sluice, path: [cost] } }], limit: 5 per minute }
";
    let file = envoy(policies).replace(
        "sluice: { policies: [chosen], cost: 7 }",
        "sluice: { cost: 7 }, com.example: { plan: gold, a: { b: true } }",
    );
    let said = told(&file, &["--request", "GET /", "--route", "dear"]);
    for key in ["com.example:plan=gold\n", "com.example:a:b=*true'\n", "sluice:cost=*7'\n", "takes 7 tokens"]
    {
        assert!(said.contains(key), "{key:?} is missing in: {said}");
    }
}

/// The file with one thing changed.
fn changed(from: &str, to: &str) -> String {
    let file = envoy(POLICIES);
    assert!(file.contains(from), "{from:?} is not in the file");
    file.replace(from, to)
}

#[test]
fn a_filter_that_is_disabled_is_told() {
    let disabled = changed("- name: limits\n", "- name: limits\n            disabled: true\n");
    let from = ["--request", "GET /", "--from", "::1"];
    let said = told(&disabled, &["--request", "GET /", "--route", "plain"]);
    assert!(said.ends_with("  the filter is disabled by line 16: it does not get the request\n\n"), "{said}");
    let of_route = |file: &str, config: &str| {
        let config = format!(
            "name: plain, typed_per_filter_config: {{ limits: {{ \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig{config} }} }}"
        );
        file.replace("name: plain", &config)
    };
    let route = [&from[..], &["--route", "plain"]].concat();
    let off = of_route(&envoy(POLICIES), ", disabled: true");
    let explained = filter(&off, &route);
    assert_eq!(explained["disabled_on_line"], 12);
    assert_eq!(explained["policies"][0]["why_not"], "the filter is disabled");
    assert!(told(&off, &from).contains("that on line 12 says more"));
    assert_eq!(
        filter(&of_route(&disabled, ""), &route)["disabled_on_line"],
        Value::Null,
        "it is switched on"
    );
    let all = changed(
        "- routes:",
        "- typed_per_filter_config: { limits: { \"@type\": x/envoy.config.route.v3.FilterConfig, disabled: true } }\n              routes:",
    );
    assert_eq!(filter(&all, &route)["disabled_on_line"], 11);
    assert_eq!(filter(&of_route(&all, ""), &route)["disabled_on_line"], Value::Null, "by the inner one");
}

#[test]
fn a_path_that_envoy_would_change_is_told() {
    let normal = changed(
        "route_config:",
        "normalize_path: true\n          merge_slashes: true\n          route_config:",
    );
    let notes = |file: &str, path: &str| {
        let arguments = ["--request", &format!("GET {path}"), "--from", "::1", "--route", "plain"];
        told(file, &arguments).matches("note: by ").count()
    };
    for (path, count) in
        [("/a/./b", 1), ("/a/..", 1), ("/a//b", 1), ("/%62", 1), ("/a/b?x=%62//", 0), ("/.well-known", 0)]
    {
        assert_eq!((notes(&normal, path), notes(&envoy(POLICIES), path)), (count, 0), "{path}");
    }
    let other = normal.replace("path: { prefix: /api }, ", "").replace("key: [path]", "key: []");
    let other = other.replace("{ path: { exact: /healthz } }, ", "");
    assert_eq!(notes(&other, "/a/./b"), 0, "no policy asks for the path");
}

#[test]
fn a_name_of_several_routes_is_told() {
    let arguments = ["--request", "GET /", "--from", "::1", "--route", "dear"];
    let two = changed("name: plain", "name: dear");
    let said = told(&two, &arguments);
    assert!(said.ends_with("the first is taken of those on lines 12 and 13\n"), "{said}");
    let same =
        two.replace(", metadata: { filter_metadata: { sluice: { policies: [chosen], cost: 7 } } }", "");
    assert!(!told(&same, &arguments).contains("note:"));
}

#[test]
fn a_route_that_no_filter_hears_is_told() {
    let other = "          http_filters: []
      - typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          route_config: { virtual_hosts: [] }
          http_filters:\n";
    let said = told(&changed("          http_filters:\n", other), &["--request", "GET /", "--route", "dear"]);
    assert_eq!(said, "note: no request of the route gets to the filter on line 23\n");
}

#[test]
fn a_route_of_a_file_without_routes_has_nothing_but_a_name() {
    let bare =
        "sidecar: { cluster: sluice }\npolicies: [{ name: a, key: [route_name], limit: 5 per minute }]\n";
    let said = told(bare, &["--request", "GET /", "--route", "x"]);
    assert!(said.contains("route_name=x\n") && said.contains("note: the file has no routes"), "{said}");
    let address = bare.replace("[route_name]", "[route_name, client_address]");
    assert!(told(&address, &["--request", "GET /", "--route", "x"]).contains("note: the client's address"));
}

#[test]
fn a_file_without_a_filter_cannot_be_explained() {
    let routes = "routes: [{ name: a, match: {}, metadata: { filter_metadata: { sluice: { cost: 1 } } } }]";
    for file in [routes, "a: 1"] {
        let output = explain(file, &["--request", "GET /"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("error: no Sluice filter was found"), "{said}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_connect_has_a_host_and_no_path() {
    let bare = "sidecar: { cluster: sluice }\npolicies: [{ name: a, key: [method, host, path], limit: 5 per minute }]\n";
    let said = told(bare, &["--request", "CONNECT Example.com:443"]);
    assert!(said.contains("key    method=CONNECT,host=example.com,path\n"), "{said}");
}

#[test]
fn nothing_from_the_file_steers_the_terminal() {
    let file = changed("- name: limits\n", "- name: \"a\\e[31mb\\nc\"\n");
    let said = told(&file, &["--request", "GET /", "--from", "::1"]);
    assert!(said.starts_with("a\\u{1b}[31mb\\nc on line 19, domain shop\n"), "{said:?}");
}

#[test]
fn what_exempts_a_request_is_named() {
    let said = told(&envoy(POLICIES), &["--request", "OPTIONS /", "--route", "plain", "--from", "::1"]);
    let expected = "the request is exempt from every policy: it meets skip[1]";
    assert_eq!(said, format!("limits on line 19, domain shop\n  {expected}\n\n"));
    assert_eq!(filter(&envoy(POLICIES), &["--request", "GET /healthz"])["exempt_by"], "skip[0]");
}

#[test]
fn what_is_drawn_at_random_is_told_as_it_is_written() {
    let bare = "sidecar: { cluster: sluice }
skip: [{ percent: 0.5, path: { prefix: /a } }]
policies:
- { name: some, match: { percent: 2.5 }, key: [], limit: 5 per minute, cost: 0 }
- { name: others, match: { not: { percent: 2.5 } }, key: [], limit: 5 per minute, enforce_percent: 20 }
- { name: few, match: { percent: 0.0001 }, key: [], limit: 5 per minute, enforce_percent: 0.001 }
- { name: never, match: { percent: 3, any: [{ not: { percent: 3 } }] }, key: [], limit: 5 per minute }
- { name: elsewhere, match: { not: { percent: 2.5 }, path: { exact: /b } }, key: [], limit: 5 per minute }
";
    let shares = |path: &str| -> Vec<Value> {
        let policies = filter(bare, &["--request", &format!("GET {path}")])["policies"].clone();
        let takes = policies.as_array().expect("a list").iter().map(|policy| &policy["takes"]);
        takes.map(|takes| json!([takes["percent"], takes["enforced_percent"]])).collect()
    };
    let null = json!([null, null]);
    let all = [json!([2.5, 100.0]), json!([97.5, 20.0]), json!([0.0001, 0.001]), null.clone(), null];
    assert_eq!(shares("/"), all);
    assert_eq!(shares("/a")[..3], [json!([2.0, 100.0]), json!([97.5, 20.0]), json!([null, null])]);
    let said = told(bare, &["--request", "GET /"]);
    assert!(
        said.contains("few: takes 1 token of 0.0001 percent of such requests, enforced for 0.001"),
        "{said}"
    );
    assert!(said.contains("never: does not apply (match)\n"), "{said}");
    assert!(said.contains("elsewhere: does not apply (match.path)\n"), "{said}");
}

#[test]
fn whether_a_policy_is_enforced_for_the_key_is_told() {
    let bare = "sidecar: { cluster: sluice }
policies: [{ name: some, key: [{ header: x }], limit: 5 per minute, enforce_percent: 50 }]
";
    let one = |value: &str| told(bare, &["--request", "GET /", "-H", &format!("x: {value}")]);
    let said: String = ('a'..='z').map(|value| one(&value.to_string())).collect();
    for words in ["takes 1 token, enforced for this key", "takes 1 token, in shadow for this key"] {
        assert!(said.contains(&format!("{words}: it is enforced for 50 percent of all keys\n")), "{said}");
    }
}

#[test]
fn why_a_policy_does_not_apply_is_told_by_the_first_reason() {
    let policies = "policies:
                    - { name: keyed, key: [{ header: x }], missing: skip, limit: 5 per minute }
                    - { name: idle, key: [], limit: 5 per minute, mode: off }
                    - { name: chosen, key: [], limit: 9 per minute, only_if_chosen: true, mode: off }
";
    let why = |metadata: &str| -> Vec<Value> {
        let file = envoy(policies).replace("policies: [chosen], cost: 7", metadata);
        let policies = filter(&file, &["--request", "GET /", "--route", "dear"])["policies"].clone();
        policies.as_array().expect("a list").iter().map(|policy| policy["why_not"].clone()).collect()
    };
    assert_eq!(why("skip: true"), ["the route's metadata: skip: true"; 3]);
    let lacks = "missing: skip, and the request lacks a part of the key";
    assert_eq!(why(""), [lacks, "mode: off", "only_if_chosen, and the route does not choose it"]);
    let others = "the route's metadata chooses other policies";
    assert_eq!(why("policies: [chosen]"), [others, others, "mode: off"]);
    let off = "the route's metadata: mode: off";
    assert_eq!(why("policies: [chosen, keyed], mode: \"off\""), [off, others, off]);
}

#[test]
fn more_limits_than_can_be_asked_for_are_told() {
    let limits: Vec<String> = (1..=8).map(|days| format!("{{ limit: 1 per {days}d }}")).collect();
    let policies = |mode: &str| -> String {
        let one = |number| {
            let matched = "match: { method: [GET] }";
            format!(
                "- {{ name: {mode}{number}, {matched}, key: [], limits: [{}], mode: {mode} }}\n",
                limits.join(", ")
            )
        };
        (0..9).map(one).collect()
    };
    let bare = format!("sidecar: {{ cluster: sluice }}\npolicies:\n{}", policies("enforce"));
    let said = told(&bare, &["--request", "GET /"]);
    assert!(said.contains("  72 limits govern the request, and at most 64 can be asked for"), "{said}");
    assert_eq!(filter(&bare, &["--request", "GET /"])["too_many_limits"], 72);
    let bare = format!("sidecar: {{ cluster: sluice }}\npolicies:\n{}", policies("shadow"));
    let policies = filter(&bare, &["--request", "GET /"])["policies"].clone();
    let makes_way = "in shadow, and more than 64 limits govern the request: it makes way";
    assert_eq!((&policies[7]["why_not"], &policies[8]["why_not"]), (&Value::Null, &json!(makes_way)));
}

#[test]
fn any_attribute_can_be_told() {
    let bare = "sidecar: { cluster: sluice }
policies: [{ name: a, key: [{ filter_state: tenant }, route_name], limit: 5 per minute }]
";
    let arguments =
        ["--request", "GET /", "--attribute", "filter_state|tenant=x=y", "--attribute", "xds|route_name=z"];
    let said = told(bare, &arguments);
    assert!(said.contains("key    filter_state:tenant=x%3Dy,route_name=z\n"), "{said}");
    let help = told("", &["--help"]);
    for path in ["connection|uri_san_peer_certificate", "filter_state|NAME", "jwt_authn|PAYLOAD|CLAIM"] {
        assert!(help.contains(path), "{path} is missing in: {help}");
    }
}

#[test]
fn bare_policies_are_explained_too() {
    let bare =
        "sidecar: { cluster: sluice }\npolicies: [{ name: a, key: [client_address], limit: 5 per minute }]\n";
    let said = told(bare, &["--request", "GET /", "--from", "[2001:db8::1]:4711"]);
    assert!(said.starts_with("policies on line 1, domain default\n  a: takes 1 token\n"), "{said}");
    assert!(said.contains("key    client_address=2001:db8::/64\n"), "{said}");
    let exempt = "sidecar: { cluster: sluice }\nskip: [{ client_address: [::1] }]\npolicies: [{ name: a, key: [], limit: 5/min }]\n";
    for bare in [bare, exempt] {
        let said = told(bare, &["--request", "GET /"]);
        assert!(said.ends_with("note: the client's address is not known; tell it by --from\n"), "{said}");
    }
}

#[test]
fn what_is_wrong_with_the_file_is_told_instead() {
    let output = explain("policies: [", &["--request", "GET /"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("<stdin>:1:11: error: the YAML cannot be read")
    );
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    for wrong in [
        &[][..],
        &["--request", "GET"],
        &["--request", "GET api"],
        &["--request", "GET https://"],
        &["--request", "CONNECT example.com"],
        &["--request", "GET /", "-H", "x-api-key"],
        &["--request", "GET /", "--from", "localhost"],
        &["--request", "GET /", "--attribute", "route_name"],
        &["--request", "GET /", "--format", "xml"],
    ] {
        let output = explain("", wrong);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
    }
}
