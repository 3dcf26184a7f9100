//! Which requests a policy governs, as written.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Later;
use super::OneOrMore;
use crate::config::scalar::Percent;

/// Conditions on a request. It meets them where it meets every one that is written.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a mapping of conditions such as { path: { prefix: /api } }")]
pub struct WrittenCondition {
    /// The path without the query.
    #[serde(default)]
    pub path: Later<WrittenPath>,
    /// The method is one of these.
    #[serde(default)]
    pub method: Later<Vec<String>>,
    /// The host, without the port, is one of these; `*.example.com` is every host below example.com.
    #[serde(default)]
    pub host: Later<Vec<String>>,
    /// The first value of each of these request headers.
    #[serde(default)]
    pub header: Later<BTreeMap<String, Later<WrittenTest>>>,
    /// The value of each of these query parameters, decoded.
    #[serde(default)]
    pub query: Later<BTreeMap<String, Later<WrittenTest>>>,
    /// The value of each of these cookies.
    #[serde(default)]
    pub cookie: Later<BTreeMap<String, Later<WrittenTest>>>,
    /// The client's address is one of these, or in one of these networks.
    #[serde(default)]
    pub client_address: Later<Vec<String>>,
    /// The name of the route is one of these.
    #[serde(default)]
    pub route_name: Later<Vec<String>>,
    /// A claim of a token that the filter jwt_authn has verified.
    #[serde(default)]
    pub jwt_claim: Later<WrittenClaimTest>,
    /// Dynamic metadata that an earlier filter has set.
    #[serde(default)]
    pub dynamic_metadata: Later<WrittenMetadataTest>,
    /// So many of the requests, at random.
    #[serde(default)]
    pub percent: Later<Percent>,
    /// The request does not meet these conditions.
    #[serde(default)]
    pub not: Later<Box<WrittenCondition>>,
    /// The request meets at least one of these.
    #[serde(default)]
    pub any: Later<Vec<Later<WrittenCondition>>>,
    /// The request meets all of these.
    #[serde(default)]
    pub all: Later<Vec<Later<WrittenCondition>>>,
}

/// A condition on the path, without the query.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(
    rename_all = "snake_case",
    expecting = "a condition such as { prefix: /api }, { exact: /login } or { regex: … }"
)]
pub enum WrittenPath {
    /// It is this path.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// The whole of it matches this regular expression.
    Regex(String),
}

/// A condition on a value.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", expecting = "`present`, or a condition such as { exact: gold }")]
pub enum WrittenTest {
    /// There is one.
    Present,
    /// It is this text.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// It ends with this.
    Suffix(String),
    /// The whole of it matches this regular expression.
    Regex(String),
}

/// A condition on a claim.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping such as { payload: jwt, claim: tier, is: { exact: gold } }"
)]
pub struct WrittenClaimTest {
    /// What `payload_in_metadata` of the provider in jwt_authn says.
    pub payload: String,
    /// The claim's name, or the list of names that lead to a nested one.
    pub claim: OneOrMore,
    /// What the claim's value must be.
    pub is: Later<WrittenTest>,
}

/// A condition on dynamic metadata.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping such as { namespace: com.example, path: [tier], is: { exact: gold } }"
)]
pub struct WrittenMetadataTest {
    /// The namespace.
    pub namespace: String,
    /// The fields from there to the value.
    pub path: Vec<String>,
    /// What the value must be.
    pub is: Later<WrittenTest>,
}
