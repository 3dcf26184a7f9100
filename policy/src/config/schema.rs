//! The JSON Schema of the configuration, so that editors complete it.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::scalar::{Percent, Rate, Span, Whole};
use super::written::{
    OneOrMore, Word, Written, WrittenCost, WrittenHeaderCost, WrittenJitter, WrittenLease,
    WrittenLeaseFields, WrittenLeaseTokens, WrittenMode, WrittenPart, WrittenPartFields, WrittenRetryAfter,
};
use crate::cost::Statuses;

/// The JSON Schema of a filter's configuration, draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<Written>().into()
}

/// Gives a type a schema of its own, inline, where it is read by hand.
macro_rules! schema_of {
    ($type:ty, $name:literal, |$generator:ident| $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

schema_of!(Whole, "WholeNumber", |_generator| json_schema!({
    "description": "A whole number. Large ones are written in quotes.",
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+$"}],
}));

schema_of!(Span, "Duration", |_generator| json_schema!({
    "description": "A duration such as 50ms, 2s or 1h 30m.",
    "type": "string",
    "pattern": "^([0-9]+ *[a-z]+ *)+$",
    "examples": ["50ms", "2s", "1m"],
}));

schema_of!(Percent, "Percent", |_generator| json_schema!({
    "description": "From 0 to 100, with at most 4 decimals.",
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 100},
        {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,4})?$"},
    ],
}));

schema_of!(Statuses, "Statuses", |_generator| json_schema!({
    "description": "A status such as 404, or a class such as 5xx.",
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {"type": "string", "pattern": "^[1-5](xx|[0-9][0-9])$"},
    ],
}));

schema_of!(Rate, "Rate", |generator| {
    let tokens = generator.subschema_for::<Whole>();
    json_schema!({
        "description": "Tokens and the time in which they are refilled.",
        "anyOf": [
            {
                "type": "string",
                "pattern": "^ *[0-9]+( per |/).+$",
                "examples": ["60 per minute", "5 per 12s", "1000/day"],
            },
            {
                "type": "object",
                "properties": {
                    "tokens": tokens,
                    "per": {"type": "string", "examples": ["minute", "12s"]},
                },
                "required": ["tokens", "per"],
                "additionalProperties": false,
            },
        ],
    })
});

schema_of!(OneOrMore, "Names", |_generator| json_schema!({
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}));

schema_of!(WrittenMode, "Mode", |_generator| json_schema!({
    "description": "`enforce` denies what is beyond the limit; `shadow` decides, counts and reports, and never denies; `off` is not even asked.",
    // YAML 1.1 reads the bare word `off` as false.
    "enum": ["enforce", "shadow", "off", false],
}));

schema_of!(WrittenPart, "Part", |generator| {
    let (word, fields) = (generator.subschema_for::<Word>(), generator.subschema_for::<WrittenPartFields>());
    json_schema!({"description": "A part of a key.", "anyOf": [word, fields]})
});

schema_of!(WrittenCost, "Cost", |generator| {
    let (fixed, header) =
        (generator.subschema_for::<Whole>(), generator.subschema_for::<WrittenHeaderCost>());
    json_schema!({"anyOf": [fixed, header]})
});

schema_of!(WrittenRetryAfter, "RetryAfter", |generator| {
    let jitter = generator.subschema_for::<WrittenJitter>();
    json_schema!({"anyOf": [{"type": "boolean"}, jitter]})
});

schema_of!(WrittenLease, "Lease", |generator| {
    let fields = generator.subschema_for::<WrittenLeaseFields>();
    json_schema!({"anyOf": [{"const": "auto"}, fields]})
});

schema_of!(WrittenLeaseTokens, "LeaseTokens", |generator| {
    let most = generator.subschema_for::<Whole>();
    json_schema!({"anyOf": [{"const": "auto"}, most]})
});
