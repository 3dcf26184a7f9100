//! The route that a request is said to take, as the filter gets to know of it.

use std::collections::BTreeMap;

use policy::{ROUTE_METADATA, ROUTE_NAME};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as ProtoValue};
use serde_json::Value;

use super::request::Described;
use crate::document::Node;

/// The part of Envoy's `Metadata` that is ours.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, Struct>,
}

/// The request takes the route of this name, which has this metadata in the namespace `sluice`.
pub fn take(request: &mut Described, name: &str, metadata: Option<&Node>) {
    request.set(ROUTE_NAME, name.as_bytes().to_vec());
    if let Some(Value::Object(fields)) = metadata.map(Node::to_json) {
        let ours = Struct { fields: fields.into_iter().map(|(name, value)| (name, proto(value))).collect() };
        let metadata = Metadata { filter_metadata: [("sluice".to_owned(), ours)].into() };
        request.set(ROUTE_METADATA, metadata.encode_to_vec());
    }
}

fn proto(from: Value) -> ProtoValue {
    let kind = match from {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.into_iter().map(proto).collect() }),
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, value)| (name, proto(value))).collect(),
        }),
    };
    ProtoValue { kind: Some(kind) }
}
