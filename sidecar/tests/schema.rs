//! The JSON Schema that is shipped for editors: it is the one of the code, takes what the filter takes, and marks what
//! the filter refuses for its form.

use std::fs;
use std::path::Path;

use jsonschema::Validator;
use policy::Policies;
use serde_json::{Value, json};
use sluice::document::yaml;

const SHIPPED: &str = include_str!("../../envoy/sluice.schema.json");

fn validator() -> Validator {
    jsonschema::validator_for(&policy::schema()).expect("a valid schema")
}

#[test]
fn what_is_shipped_is_the_schema_of_the_code() {
    let shipped: Value = serde_json::from_str(SHIPPED).expect("JSON");
    assert_eq!(
        shipped,
        policy::schema(),
        "write it anew: cargo run -p sluice -- schema > envoy/sluice.schema.json"
    );
}

/// Every mapping in a tree that is a filter's configuration.
fn configurations(tree: &Value, found: &mut Vec<Value>) {
    match tree {
        Value::Object(fields) if fields.contains_key("policies") && fields.contains_key("sidecar") => {
            found.push(tree.clone());
        }
        Value::Object(fields) => fields.values().for_each(|value| configurations(value, found)),
        Value::Array(items) => items.iter().for_each(|item| configurations(item, found)),
        _ => {}
    }
}

#[test]
fn it_takes_every_configuration_that_is_shipped() {
    let envoy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
    let mut found = Vec::new();
    for directory in [envoy.clone(), envoy.join("examples")] {
        for file in fs::read_dir(directory).expect("a directory") {
            let path = file.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let documents = yaml::read(&fs::read_to_string(path).expect("readable"));
                documents.roots.iter().for_each(|root| configurations(&root.to_json(), &mut found));
            }
        }
    }
    assert!(found.len() >= 8, "found {} configurations", found.len());
    let validator = validator();
    for configuration in found {
        let errors: Vec<String> =
            validator.iter_errors(&configuration).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{configuration:#}");
    }
}

/// A configuration of one policy with these fields.
fn with(fields: Value) -> Value {
    let mut policy = json!({"name": "p", "key": [], "limit": "60 per minute"});
    for (name, value) in fields.as_object().expect("fields") {
        policy[name] = value.clone();
    }
    json!({"sidecar": {"cluster": "sluice"}, "hash_secret": "0123456789abcdef", "policies": [policy]})
}

#[test]
fn it_agrees_with_the_filter_about_form() {
    let validator = validator();
    let right = [
        json!({"burst": 5}),
        json!({"burst": "3000000000"}),
        json!({"limit": {"tokens": 60, "per": "minute"}}),
        json!({"mode": "off"}),
        json!({"mode": false}),
        json!({"enforce_percent": "2.5"}),
        json!({"enforce_percent": 2.5}),
        json!({"cost": {"header": "x-cost", "max": 5}}),
        json!({"settle": {"bytes_per_token": 10, "max": 5}}),
        json!({"refund_on": ["5xx", 404]}),
        json!({"key": ["client_address", {"header": "a", "hash": true}, {"first_of": [{"cookie": "c"}, "path"]}]}),
        json!({"key": [{"client_address": {"ipv4_prefix": 24}}, {"jwt_claim": {"payload": "jwt", "claim": ["a", "b"]}}]}),
        json!({"match": {"path": {"regex": "/a+"}, "not": {"header": {"a": "present"}}, "any": [{"percent": 5}]}}),
        json!({"denied": {"status": 403, "headers": {"x-a": "b"}, "body": "%LIMIT%"}}),
    ];
    for fields in right {
        let configuration = with(fields);
        assert!(Policies::from_value(configuration.clone()).is_ok(), "the filter refuses {configuration}");
        assert!(validator.is_valid(&configuration), "the schema refuses {configuration}");
    }
    let wrong = [
        json!({"brust": 5}),
        json!({"burst": -1}),
        json!({"burst": null}),
        json!({"burst": "2.5"}),
        json!({"limit": 60}),
        json!({"limit": {"tokens": 60}}),
        json!({"mode": "shade"}),
        json!({"mode": true}),
        json!({"enforce_percent": 101}),
        json!({"cost": {"header": "x-cost"}}),
        json!({"settle": {"header": "x"}}),
        json!({"refund_on": ["6xx"]}),
        json!({"key": "client_address"}),
        json!({"key": ["header"]}),
        json!({"key": [{"heder": "a"}]}),
        json!({"match": []}),
        json!({"match": {"path": "/a"}}),
        json!({"match": {"header": {"a": {"exakt": "b"}}}}),
        json!({"only_if_chosen": "yes"}),
        json!({"denied": {"code": 403}}),
    ];
    for fields in wrong {
        let configuration = with(fields);
        assert!(Policies::from_value(configuration.clone()).is_err(), "the filter takes {configuration}");
        assert!(!validator.is_valid(&configuration), "the schema takes {configuration}");
    }
}
