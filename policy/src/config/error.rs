//! What can be wrong with a configuration, in words that help.

use thiserror::Error;

use crate::Problem;

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is none.
    #[error(
        "the filter has no configuration; write one under `configuration` in envoy.yaml, with \"@type\": \
         type.googleapis.com/google.protobuf.Struct and a `value` that has `sidecar` and `policies`"
    )]
    Absent,
    /// It is larger than any that makes sense.
    #[error("the configuration has {found_bytes} bytes; it may have at most {max_bytes}")]
    TooLarge {
        /// The size that was found, in bytes.
        found_bytes: usize,
        /// The largest size that is read, in bytes.
        max_bytes: usize,
    },
    /// It is neither JSON nor a Struct.
    #[error(
        "the configuration is not readable as JSON ({0}), nor is it a google.protobuf.Struct; use \
         \"@type\": type.googleapis.com/google.protobuf.Struct with plain YAML under `value`, or \
         google.protobuf.StringValue with JSON"
    )]
    NotJson(#[source] serde_json::Error),
    /// It is readable, but these things in it are wrong.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}
