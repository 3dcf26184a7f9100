//! What Envoy hands over as protobuf.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::{ListValue, Struct, Value as ProtoValue, value::Kind};
use serde_json::Value;

/// The part of Envoy's `Metadata` that holds plain values.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, Struct>,
}

/// A mapping as a `google.protobuf.Struct`, as Envoy makes it of YAML; `None` where it is no mapping.
#[must_use]
pub fn configuration(value: &Value) -> Option<Vec<u8>> {
    object(value).map(|message| message.encode_to_vec())
}

/// Metadata with one namespace.
#[must_use]
pub fn metadata(namespace: &str, value: &Value) -> Vec<u8> {
    let ours = object(value).map(|message| (namespace.to_owned(), message));
    Metadata { filter_metadata: ours.into_iter().collect() }.encode_to_vec()
}

fn object(value: &Value) -> Option<Struct> {
    let fields = value.as_object()?.iter().map(|(name, value)| (name.clone(), proto(value)));
    Some(Struct { fields: fields.collect() })
}

fn proto(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(proto).collect() }),
        Value::Object(_) => Kind::StructValue(object(value).unwrap_or_default()),
    };
    ProtoValue { kind: Some(kind) }
}
