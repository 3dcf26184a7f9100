//! Where Sluice's configuration may stand, and how it may be written there.

use super::{ENVOY, RIGHT, WRONG, headlines, replace, said_of};

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// It is found here: what is right is silent, and what is wrong is told once, on this line and column.
fn assert_found(template: &str, place: &str) {
    assert_eq!(headlines(&replace(template, "HERE", RIGHT)), [""; 0], "{template}");
    let found = headlines(&replace(template, "HERE", WRONG));
    assert_eq!(found.len(), 1, "{template}: {found:?}");
    assert!(
        found[0].starts_with(&format!("envoy.yaml:{place}: error: policies[0].limit: ")),
        "{template}: {found:?}"
    );
}

/// A Wasm filter with this configuration, in an extension's discovery file.
fn discovered(configuration: &str) -> String {
    format!(
        "resources:\n- \"@type\": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig\n  name: limits\n  typed_config:\n    \
         \"@type\": {WASM}\n    config:\n      failure_policy: FAIL_RELOAD\n      configuration: {configuration}\n"
    )
}

fn of_type(name: &str, value: &str) -> String {
    discovered(&format!("{{ \"@type\": type.googleapis.com/google.protobuf.{name}, value: {value} }}"))
}

#[test]
fn in_envoys_own_configuration() {
    assert_found(&of_type("Struct", "HERE"), "8:166");
    assert_found(&of_type("StringValue", "'HERE'"), "8:172");
    let block = "\n        \"@type\": type.googleapis.com/google.protobuf.StringValue\n        value: |-\n          \n\n          HERE";
    assert_found(&discovered(block), "13:93");
    assert_found(&discovered(&block.replace("|-\n          \n\n", ">-\n")), "11:93");
}

#[test]
fn in_base64() {
    for (value, right) in
        [("eyJhIjoxfQ==", true), ("eyJhIjoxfQ", true), ("eyJhIjox", false), ("{}", false), ("\"*\"", false)]
    {
        let found = headlines(
            &of_type("BytesValue", value).replace("    config:\n", "    config:\n      name: sluice\n"),
        );
        let told = if right {
            "error: a: found `a`"
        } else if value == "eyJhIjox" {
            "JSON cannot be read"
        } else {
            "JSON in base64"
        };
        assert!(found.len() == 1 || right, "{found:?}");
        assert!(found.iter().any(|line| line.contains(told)), "{value}: {found:?}");
    }
}

#[test]
fn in_a_typed_struct() {
    for kind in ["udpa.type.v1", "xds.type.v3"] {
        let filter = format!(
            "kind: EnvoyFilter\nspec:\n  configPatches:\n  - patch:\n      value:\n        typed_config:\n          \
             \"@type\": type.googleapis.com/{kind}.TypedStruct\n          type_url: {WASM}\n          value:\n            \
             config:\n              failure_policy: FAIL_RELOAD\n              configuration:\n                \"@type\": \
             type.googleapis.com/google.protobuf.StringValue\n                value: |\n                  HERE\n"
        );
        assert_found(&filter, "15:101");
    }
}

#[test]
fn in_resources_of_kubernetes() {
    let plugin = "kind: WasmPlugin\nmetadata: { name: limits }\nspec:\n  pluginConfig: HERE\n";
    assert_found(plugin, "4:99");
    let policy =
        "kind: EnvoyExtensionPolicy\nspec:\n  wasm:\n  - { name: other, config: {} }\n  - config: HERE\n";
    assert_found(policy, "5:95");
    let list = format!("kind: List\nitems:\n- {}", plugin.trim_end().replace('\n', "\n  "));
    assert_found(&list, "6:101");
    let after_others = format!("kind: Service\n---\n{plugin}---\nkind: Service\n");
    assert_found(&after_others, "6:99");
}

#[test]
fn in_a_config_map() {
    let inner = ENVOY.replace('\n', "\n    ").replace("limit: 3 per minute", "limit: LIMIT");
    let map = format!("kind: ConfigMap\ndata:\n  readme.yaml: \"[\"\n  envoy.yaml: |\n    {inner}\n");
    assert_eq!(headlines(&map.replace("LIMIT", "3/min")), [""; 0]);
    let found = headlines(&map.replace("LIMIT", "3/mi"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("envoy.yaml:53:34: error: policies[1].limit: "), "{found:?}");
    // JSON within YAML within YAML.
    let (before, after) = map.split_once("google.protobuf.Struct\n").expect("the Struct");
    let (_, after) = after.split_once("          - name: envoy.filters.http.router").expect("the router");
    let value = "google.protobuf.StringValue\n                      value: |\n                        HERE";
    let nested = format!("{before}{value}\n              - name: envoy.filters.http.router{after}");
    assert_found(&nested, "42:107");
}

#[test]
fn in_a_list_of_config_maps() {
    let inner =
        "policies.yaml: |\n      HERE\n    readme.md: sidecar, policies and a limit\n    other.json: '{]'";
    let map = format!("kind: ConfigMap\n  data:\n    {inner}\n");
    assert_found(&format!("apiVersion: v1\nkind: List\nitems:\n- {map}"), "7:89");
    let map = map.replace("\n  ", "\n");
    assert_found(&map, "4:87");
    assert_found(&map.replace("policies.yaml: |\n    HERE", "policies.json: 'HERE'"), "3:101");
    // What cannot be read is told, too.
    let found = headlines(&map.replace("HERE", "{policies: [{limit: 1}], sidecar: {cluster: ["));
    assert!(found.len() == 1 && found[0].contains("the YAML cannot be read"), "{found:?}");
    // Of another program.
    let other = map.replace("HERE", "{sidecar: {cluster: a, limits: {}}, policy: policies}");
    assert!(headlines(&other)[0].contains("no Sluice filter was found"), "{:?}", headlines(&other));
}

#[test]
fn what_kubernetes_merges_is_merged() {
    let plugin = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nspec:\n  url: oci://x/sluice\n  pluginConfig:\n    \
                  sidecar: { cluster: a }\n    policies:\n    - &base { name: a, key: [], limit: LIMIT }\n    \
                  - { <<: *base, name: b }\n";
    assert_eq!(headlines(&plugin.replace("LIMIT", "5/min")), [""; 0]);
    let found = headlines(&plugin.replace("LIMIT", "5/mi"));
    assert!(found[0].starts_with("envoy.yaml:8:40: error: policies[0].limit: "), "{found:?}");
    // Envoy does not merge.
    let bare = plugin.split_once("pluginConfig:\n").expect("bare policies").1.replace("LIMIT", "5/min");
    assert!(headlines(&bare).iter().any(|line| line.contains("found `<<`")));
}

#[test]
fn a_configuration_that_cannot_be_read_is_not_somebody_elses() {
    let rest = of_type("Struct", RIGHT).split_once("resources:\n").expect("a list").1.to_owned();
    for (kind, value, ours) in [
        ("StringValue", "'{\"sidecar\": {}'", true),
        ("StringValue", "'policies: []'", true),
        ("BytesValue", "eyJwb2xpY2llcyI6IFs=", true),
        ("Value", "{ policies: [] }", true),
        ("StringValue", "'{\"rules\": ['", false),
        ("StringValue", "'{\"debug\": \"sidecar\"}'", false),
    ] {
        let found = headlines(&(of_type(kind, value) + &rest));
        assert_eq!(found.len(), usize::from(ours), "{value}: {found:?}");
        assert!(found.iter().all(|line| line.contains(": error: ")), "{value}: {found:?}");
    }
}

#[test]
fn what_istio_merges_into_a_route_is_a_route() {
    let filter = of_type("Struct", RIGHT).replace("resources:\n", "").replace("\n  ", "\n      ");
    let patches = |policy: &str| {
        format!(
            "kind: EnvoyFilter\nspec:\n  configPatches:\n  - applyTo: HTTP_FILTER\n    patch:\n      value:\n    {filter}\n  \
             - applyTo: HTTP_ROUTE\n    match: {{ routeConfiguration: {{ vhost: {{ route: {{ name: login }} }} }} }}\n    \
             patch:\n      operation: MERGE\n      value:\n        metadata: {{ filter_metadata: {{ sluice: {{ policies: [{policy}] }} }} }}\n"
        )
        .replace("    - \"@type\": type.googleapis.com/envoy.config.core", "        \"@type\": type.googleapis.com/envoy.config.core")
    };
    assert_eq!(headlines(&patches("a")), [""; 0]);
    let found = headlines(&patches("nope"));
    assert!(found.len() == 1 && found[0].contains("which is the name of no policy"), "{found:?}");
}

#[test]
fn a_byte_order_mark_is_named() {
    let said = said_of("limits.json", &format!("\u{feff}{RIGHT}"));
    assert!(said.contains("it begins with a byte order mark"), "{said}");
}

#[test]
fn alone() {
    assert_found("HERE", "1:83");
    assert_found("# policies\n---\nHERE\n", "3:83");
    let said = said_of("limits.json", WRONG);
    assert!(said.starts_with("limits.json:1:83: error: policies[0].limit: "), "{said}");
}

#[test]
fn what_is_not_sluice_is_left_alone() {
    let other = of_type("Struct", "{ rules: [] }");
    let found = headlines(&other);
    assert!(
        found.len() == 1 && found[0].starts_with("envoy.yaml: error: no Sluice filter was found"),
        "{found:?}"
    );
    assert!(found[0].ends_with("the one Wasm filter in it is another"), "{found:?}");
    let both = other.clone() + of_type("Struct", RIGHT).split_once("resources:\n").expect("a list").1;
    assert_eq!(headlines(&both), [""; 0]);
    assert!(headlines("a: 1")[0].ends_with("or bare policies"));
    // By its name it is Sluice's, whatever is in it.
    for name in [
        "name: sluice",
        "root_id: my-Sluice",
        "vm_config: { vm_id: sluice }",
        "vm_config: { code: { local: { filename: /x/sluice_filter.wasm } } }",
    ] {
        let found = headlines(&other.replace("    config:\n", &format!("    config:\n      {name}\n")));
        assert!(found.iter().any(|line| line.contains("error: rules: found `rules`")), "{name}: {found:?}");
    }
}

/// Envoy 1.40 refuses each of these.
#[test]
fn what_the_filter_would_never_get_is_told() {
    let named = |text: String| text.replace("    config:\n", "    config:\n      name: sluice\n");
    for (text, told) in [
        (named(discovered("")), "the filter has no configuration"),
        (named(discovered("~")), "the filter has no configuration"),
        (named(of_type("Struct", "")), "the filter has no configuration"),
        (named(discovered("\"x\"")), "configuration: found no `@type`"),
        (named(discovered(RIGHT)), "configuration: found no `@type`"),
        (
            named(discovered("{ \"@type\": type.googleapis.com/google.protobuf.Struct, policies: [] }")),
            "configuration: found `policies` beside `@type`; write it under `value`",
        ),
        (named(of_type("Value", RIGHT)), "configuration: found the type \"google.protobuf.Value\""),
        (named(of_type("Struct", "[1]")), "configuration.value: found a list; expected a mapping"),
        (named(of_type("StringValue", RIGHT)), "configuration.value: found a mapping; expected JSON as text"),
        (named(of_type("StringValue", "'[1,'")), "the JSON cannot be read"),
        (named(of_type("StringValue", "'policies: []'")), "the JSON cannot be read"),
        (named(of_type("StringValue", "'5'")), "configuration: found the number `5`"),
        ("kind: WasmPlugin\nspec: { url: oci://x/sluice }\n".to_owned(), "pluginConfig: left out"),
    ] {
        let found = headlines(&text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(": error: ") && found[0].contains(told), "{text}: {found:?}");
    }
}

/// Envoy 1.40 refuses it: "The filter sluice doesn't support virtual host or route specific configurations".
#[test]
fn a_filter_of_a_route_is_refused() {
    let filter = format!(
        "{{ \"@type\": {WASM}, config: {{ failure_policy: FAIL_RELOAD, configuration: {{ \"@type\": \
         type.googleapis.com/google.protobuf.Struct, value: {RIGHT} }} }} }}"
    );
    let of_route = format!(
        "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig\n        config: {filter}"
    );
    for told in [filter.clone(), of_route] {
        let text = format!(
            "routes:\n- match: {{ prefix: / }}\n  typed_per_filter_config:\n      sluice:\n        {told}\n"
        );
        let found = headlines(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(": error: found a Sluice filter in typed_per_filter_config"), "{found:?}");
    }
}
