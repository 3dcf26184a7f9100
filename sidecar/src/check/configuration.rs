//! What a plugin is configured with: the `Any` in its `configuration`, unpacked as the filter will get it.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::find::last_of_url;
use super::finding::Finding;
use crate::document::{Documents, Field, Node, Source, Span, Value, embedded, json};

const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";

/// What no configuration of ours is without.
const WORDS: [&str; 2] = ["policies", "sidecar"];

/// The configuration of the plugin that is the value of `plugin`.
pub fn of_plugin<'a>(source: &Source, plugin: &'a Field) -> Result<Cow<'a, Node>, Finding> {
    let Some(any) = plugin.node.option("configuration") else { return Err(absent(plugin.at)) };
    let Some(url) = any.node.get("@type").and_then(Node::text) else {
        let message =
            format!("configuration: found no `@type`; write \"@type\": {STRUCT} and the rest under `value`");
        return Err(Finding::error(any.at, message));
    };
    let beside = any.node.fields().iter().find(|field| field.name != "@type" && field.name != "value");
    if let Some(beside) = beside {
        let message =
            format!("configuration: found `{}` beside `@type`; write it under `value`", beside.name);
        return Err(Finding::error(beside.at, message));
    }
    let value = any.node.get("value").filter(|value| value.value != Value::Null);
    let Some(value) = value else { return Err(absent(any.at)) };
    match (last_of_url(url), &value.value) {
        ("google.protobuf.Struct", Value::Mapping(_)) => Ok(Cow::Borrowed(value)),
        ("google.protobuf.Struct", _) => Err(wrong(value, "a mapping with `sidecar` and `policies`")),
        ("google.protobuf.StringValue", Value::Text(text)) => {
            read_json(embedded::read(source, value.at, text, json::read), any.at)
        }
        ("google.protobuf.BytesValue", Value::Text(text)) => match from_base64(text) {
            Some(text) => {
                let Documents { mut roots, mut mistakes } = json::read(&text);
                let here = |_: Span| value.at;
                roots.iter_mut().for_each(|root| root.move_places(&here));
                mistakes.iter_mut().for_each(|mistake| (mistake.at, mistake.note) = (value.at, None));
                read_json(Documents { roots, mistakes }, any.at)
            }
            None => Err(wrong(value, "JSON in base64")),
        },
        ("google.protobuf.StringValue", _) => Err(wrong(value, "JSON as text")),
        ("google.protobuf.BytesValue", _) => Err(wrong(value, "JSON in base64")),
        (found, _) => {
            let message = format!("configuration: found the type {found:?}; write \"@type\": {STRUCT}");
            Err(Finding::error(any.node.get("@type").map_or(any.at, Node::shown), message))
        }
    }
}

/// Whether a plugin's configuration that could not be read is most likely ours: it has the words that ours has.
pub fn speaks_of_policies(plugin: &Field) -> bool {
    let Some(any) = plugin.node.option("configuration").map(|field| &field.node) else { return false };
    let value = any.get("value");
    let has_words = |text: &str| WORDS.iter().any(|word| text.contains(word));
    [Some(any), value].into_iter().flatten().any(|node| match &node.value {
        Value::Text(text) => has_words(text) || from_base64(text).is_some_and(|text| has_words(&text)),
        _ => WORDS.iter().any(|word| node.get(word).is_some()),
    })
}

fn read_json(documents: Documents, at: Span) -> Result<Cow<'static, Node>, Finding> {
    match (documents.mistakes.into_iter().next(), documents.roots.into_iter().next()) {
        (Some(mistake), _) => Err(mistake.into()),
        (None, Some(root)) => Ok(Cow::Owned(root)),
        (None, None) => Err(absent(at)),
    }
}

/// Envoy takes either alphabet, with padding or without.
fn from_base64(text: &str) -> Option<String> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok();
    decode(&STANDARD).or_else(|| decode(&URL_SAFE)).and_then(|bytes| String::from_utf8(bytes).ok())
}

fn absent(at: Span) -> Finding {
    Finding::error(at, policy::ConfigError::Absent.to_string())
}

fn wrong(value: &Node, expected: &str) -> Finding {
    let found = match &value.value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(found) => format!("the boolean {found}"),
        Value::Number(found) => format!("the number {found}"),
        Value::Text(_) => "text".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
    };
    Finding::error(value.shown(), format!("configuration.value: found {found}; expected {expected}"))
}
