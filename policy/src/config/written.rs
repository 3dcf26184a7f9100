//! The configuration as its author writes it.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::scalar::{Rate, Span, Whole};

/// A filter's whole configuration. Policies are read one by one, so that each can say what is wrong with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    pub sidecar: WrittenSidecar,
    #[serde(default = "default_domain")]
    pub domain: String,
    #[serde(default)]
    pub on_error: WrittenOnError,
    pub policies: Vec<Value>,
}

/// Where the decisions are made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenSidecar {
    pub cluster: String,
    #[serde(default, deserialize_with = "written")]
    pub timeout: Option<Span>,
}

/// What becomes of a request that could not be decided.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenOnError {
    #[default]
    Allow,
    Deny,
}

/// One policy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenPolicy {
    pub name: String,
    #[serde(default, rename = "match")]
    pub matches: WrittenMatch,
    pub key: Vec<WrittenKeyPart>,
    pub limit: Rate,
    #[serde(default, deserialize_with = "written")]
    pub burst: Option<Whole>,
    #[serde(default, deserialize_with = "written")]
    pub on_error: Option<WrittenOnError>,
}

/// Which requests a policy governs: those that fulfil every condition that is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenMatch {
    #[serde(default, deserialize_with = "written")]
    pub path: Option<WrittenPath>,
    #[serde(default, deserialize_with = "written")]
    pub method: Option<Vec<String>>,
}

/// A condition on the path, without the query.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenPath {
    Exact(String),
    Prefix(String),
}

/// A part of what tells clients apart.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenKeyPart {
    ClientAddress,
    Header(String),
    FirstOf(Vec<WrittenKeyPart>),
}

/// A field that is left out has its default; one that is written without a value, which YAML reads as null, is a
/// mistake: an empty condition must not come to match everything.
fn written<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn default_domain() -> String {
    "default".to_owned()
}
