//! What a route says of its own limits.

use std::collections::BTreeMap;

use policy::{Asked, Policies};
use prost::Message;
use prost_types::{ListValue, Struct, Value as ProtoValue, value::Kind};
use serde_json::{Value, json};

use crate::sent::{Sent, policies};

/// Envoy's `Metadata`.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, Struct>,
}

fn proto(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().expect("a number")),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(proto).collect() }),
        Value::Object(_) => Kind::StructValue(object(value)),
    };
    ProtoValue { kind: Some(kind) }
}

fn object(value: &Value) -> Struct {
    let fields = value.as_object().expect("an object");
    Struct { fields: fields.iter().map(|(name, value)| (name.clone(), proto(value))).collect() }
}

fn sent(sluice: &Value) -> Sent {
    let other = json!({"team": "not sluice"});
    let filter_metadata =
        [("sluice".to_owned(), object(sluice)), ("com.example".to_owned(), object(&other))].into();
    Sent::get("/a").attribute("xds|route_metadata", Metadata { filter_metadata }.encode_to_vec())
}

fn shop() -> Policies {
    policies(json!([
        {"name": "everywhere", "key": [], "limit": "1 per day", "cost": 2},
        {"name": "at-a", "match": {"path": {"prefix": "/a"}}, "key": [], "limit": "1 per day", "mode": "shadow"},
        {"name": "at-b", "match": {"path": {"prefix": "/b"}}, "key": [], "limit": "1 per day"},
        {"name": "chosen", "key": [], "limit": "1 per day", "only_if_chosen": true},
        {"name": "sleeping", "key": [], "limit": "1 per day", "mode": "off"},
    ]))
}

/// `name cost`, and `?` where it is in shadow.
fn told(policies: &Policies, asked: &Asked) -> Vec<String> {
    let ask = |ask: &policy::Ask| {
        let shadow = if ask.shadow { "?" } else { "" };
        format!("{} {}{shadow}", policies.get(ask).expect("known").name(), ask.cost_tokens)
    };
    asked.asks.iter().map(ask).collect()
}

#[test]
fn a_route_chooses_policies_and_changes_their_cost_and_mode() {
    let shop = shop();
    let none: [&str; 0] = [];
    for (metadata, expected) in [
        (json!({}), &["everywhere 2", "at-a 1?"][..]),
        (json!({"skip": true}), &none),
        (json!({"skip": false, "cost": 5}), &["everywhere 5", "at-a 5?"]),
        (json!({"cost": "5000000000"}), &["everywhere 5000000000", "at-a 5000000000?"]),
        (json!({"mode": "enforce"}), &["everywhere 2", "at-a 1", "sleeping 1"]),
        (json!({"mode": "shadow"}), &["everywhere 2?", "at-a 1?", "sleeping 1?"]),
        (json!({"mode": "off"}), &none),
        (json!({"policies": ["chosen", "at-b"]}), &["chosen 1"]),
        (json!({"policies": ["chosen", "at-a"], "cost": 0, "mode": "enforce"}), &["at-a 0", "chosen 0"]),
        (json!({"policies": []}), &none),
    ] {
        let asked = shop.asks(&sent(&metadata));
        assert_eq!(
            (told(&shop, &asked), asked.mistakes.to_vec()),
            (expected.iter().map(ToString::to_string).collect(), vec![]),
            "{metadata}"
        );
    }
}

#[test]
fn a_mistake_in_a_route_is_told_and_the_policies_rule() {
    let shop = shop();
    for (metadata, expected) in [
        (
            json!({"polices": ["chosen"]}),
            "polices: found `polices`; expected one of `skip`, `policies`, `cost`, `mode`; did you mean `policies`?",
        ),
        (
            json!({"policies": ["everywear"]}),
            "policies[0]: found \"everywear\", which is the name of no policy; did you mean `everywhere`?",
        ),
        (json!({"skip": "yes"}), "skip: found \"yes\"; expected true or false"),
        (json!({"cost": 2.5}), "cost: found the number `2.5`; expected a whole number such as 60"),
        (json!({"cost": null}), "cost: found nothing"),
        (json!({"mode": "shade"}), "mode: found `shade`; expected one of"),
    ] {
        let asked = shop.asks(&sent(&metadata));
        assert_eq!(told(&shop, &asked), ["everywhere 2", "at-a 1?"], "{metadata}: as if it said nothing");
        assert!(asked.mistakes[0].to_string().contains(expected), "{:?}", asked.mistakes);
        assert_eq!(shop.check_route(&metadata), *asked.mistakes, "the same is told offline");
    }
}

#[test]
fn the_form_of_metadata_is_checked_without_policies() {
    assert_eq!(Policies::check_route_form(&json!({"policies": ["whatever"], "cost": 3, "mode": "off"})), []);
    let problems = Policies::check_route_form(&json!({"policys": ["whatever"]}));
    assert!(problems[0].to_string().contains("did you mean `policies`?"), "{problems:?}");
}

#[test]
fn why_a_policy_asks_nothing_is_told_in_the_order_of_deciding() {
    use policy::Unasked::{Condition, LacksKey, NotChosen, Off, OnlyIfChosen, RouteOff, RouteSkips};
    let shop = policies(json!([
        {"name": "keyed", "key": [{"header": "x"}], "missing": "skip", "limit": "1 per day"},
        {"name": "at-b", "match": {"path": {"prefix": "/b"}}, "key": [], "limit": "1 per day"},
        {"name": "chosen", "key": [], "limit": "1 per day", "only_if_chosen": true},
        {"name": "sleeping", "key": [], "limit": "1 per day", "mode": "off"},
    ]));
    for (metadata, expected) in [
        (json!({}), [LacksKey, Condition, OnlyIfChosen, Off]),
        (json!({"skip": true, "policies": []}), [RouteSkips, Condition, RouteSkips, RouteSkips]),
        (json!({"policies": ["sleeping"]}), [NotChosen, Condition, OnlyIfChosen, Off]),
        (json!({"policies": ["chosen", "keyed"], "mode": "off"}), [RouteOff, Condition, RouteOff, NotChosen]),
    ] {
        let answers: Vec<_> = shop.answers(&sent(&metadata)).into_iter().map(Result::unwrap_err).collect();
        assert_eq!(answers, expected, "{metadata}");
    }
    let exempt = crate::sent::read(&json!({
        "sidecar": {"cluster": "s"}, "skip": [{"client_address": ["192.0.2.0/24"]}],
        "policies": [{"name": "a", "key": [], "limit": "1 per day"}],
    }))
    .expect("valid");
    assert_eq!(exempt.answers(&sent(&json!({"skip": true}))), [Err(policy::Unasked::Exempt)]);
    assert!(exempt.uses_client_address());
}

#[test]
fn other_metadata_is_nobodys() {
    let shop = shop();
    for bytes in [&b""[..], b"sluice", b"\x0a\x06sluice", b"\xff\xff\xffsluice\xff"] {
        let asked = shop.asks(&Sent::get("/a").attribute("xds|route_metadata", bytes));
        assert_eq!((told(&shop, &asked).len(), asked.mistakes.to_vec()), (2, vec![]), "{bytes:?}");
    }
}
