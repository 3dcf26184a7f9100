//! What can be wrong with a configuration, in words that help.

use std::fmt;

use thiserror::Error;

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

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The place, such as `policies[0].limit`.
    pub place: Place,
    /// What was found there, and what would be right.
    pub message: String,
}

/// A place in a configuration: the steps from its root. Shown as `policies[0].limit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place(pub Vec<Step>);

/// One step into a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// To the value of this field.
    Field(String),
    /// To the item of a list, counted from 0.
    Item(usize),
}

impl Place {
    /// The place one step further in.
    #[must_use]
    pub fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("configuration");
        }
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(index) => write!(f, "[{index}]")?,
                Step::Field(name) if depth == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}
