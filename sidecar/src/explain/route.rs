//! The route that a request is said to take, as the filter gets to know of it.

use std::collections::BTreeMap;

use policy::{ROUTE_METADATA, ROUTE_NAME};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as ProtoValue};
use serde_json::{Map, Value};

use super::request::Described;
use crate::document::Node;

/// Envoy's `Metadata`, but for what is typed.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, Struct>,
}

/// The request takes the route of this name, which has this `filter_metadata`.
pub fn take(request: &mut Described, name: &str, metadata: Option<&Node>) {
    request.set(ROUTE_NAME, name.as_bytes().to_vec());
    let Some(Value::Object(spaces)) = metadata.map(Node::to_json) else { return };
    for (space, value) in &spaces {
        set_leaves(request, &format!("{ROUTE_METADATA}\0filter_metadata\0{space}"), value);
    }
    let structs = spaces.into_iter().filter_map(|(space, value)| match value {
        Value::Object(fields) => Some((space, structure(fields))),
        _ => None,
    });
    request.set(ROUTE_METADATA, Metadata { filter_metadata: structs.collect() }.encode_to_vec());
}

/// Envoy gives every value also by its path: text as it is, a number as eight bytes, and a boolean as one.
fn set_leaves(request: &mut Described, path: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| set_leaves(request, &format!("{path}\0{name}"), value));
        }
        Value::String(text) => request.set(path, text.as_bytes().to_vec()),
        Value::Number(number) => {
            request.set(path, number.as_f64().unwrap_or_default().to_le_bytes().to_vec());
        }
        Value::Bool(value) => request.set(path, vec![u8::from(*value)]),
        // There is no null for Envoy, and of a list no policy makes a key.
        Value::Null | Value::Array(_) => {}
    }
}

fn structure(fields: Map<String, Value>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name, proto(value))).collect() }
}

fn proto(from: Value) -> ProtoValue {
    let kind = match from {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.into_iter().map(proto).collect() }),
        Value::Object(fields) => Kind::StructValue(structure(fields)),
    };
    ProtoValue { kind: Some(kind) }
}
