//! What the admin API answers, as far as the commands tell it. A later sidecar may tell more.

use serde::Deserialize;

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Limit {
    /// Tokens refilled per `period_us`.
    pub tokens: u64,
    /// Microseconds in which `tokens` are refilled.
    pub period_us: u64,
    /// Tokens in a full bucket.
    pub burst: u64,
}

/// What an operator has put in a limit's place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Override {
    /// Another limit.
    #[serde(default)]
    pub limit: Option<Limit>,
    /// None at all.
    #[serde(default)]
    pub unlimited: bool,
    /// Nothing passes.
    #[serde(default)]
    pub blocked: bool,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it ends, in microseconds since 1970.
    #[serde(default)]
    pub expires_at_us: Option<u64>,
}

/// How a bucket stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
pub struct Bucket {
    pub domain: String,
    pub policy: String,
    pub key: String,
    pub limit: Limit,
    pub tokens: u64,
    pub full_after_us: u64,
    pub now_us: u64,
    #[serde(default)]
    pub r#override: Option<Override>,
}

/// All overrides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Overrides {
    /// Those that hold.
    pub overrides: Vec<Overridden>,
}

/// A bucket, and what is in its limit's place.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
pub struct Overridden {
    pub domain: String,
    pub policy: String,
    pub key: String,
    #[serde(flatten)]
    pub r#override: Override,
}

/// How a sidecar does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
pub struct Stats {
    pub version: String,
    pub uptime_s: u64,
    pub now_us: u64,
    pub store: Store,
    pub connections: Connections,
    pub totals: Counts,
    pub last_10s: Counts,
    pub covers_us: u64,
    pub latency_us: Latencies,
    pub overrides: OverridesHeld,
    pub policies: Vec<Policy>,
}

/// Where the buckets are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
pub struct Store {
    pub kind: String,
    pub ready: bool,
    #[serde(default)]
    pub reason: Option<String>,
}

/// Those of Envoys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
pub struct Connections {
    pub open: u64,
    pub max: u64,
}

/// What was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
#[serde(default)]
pub struct Counts {
    pub allowed: u64,
    pub denied: u64,
    pub failed: u64,
    pub shadow_denied: u64,
    pub blocked: u64,
    pub repeats: u64,
    pub leased_tokens: u64,
}

/// How long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
pub struct Latencies {
    pub take: Latency,
    /// Of runs in Redis, where buckets are there.
    #[serde(default)]
    pub redis: Option<Latency>,
}

/// How long something took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
pub struct Latency {
    pub count: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct OverridesHeld {
    /// So many.
    pub count: u64,
}

/// What was decided by one policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
pub struct Policy {
    pub domain: String,
    pub policy: String,
    pub limits: Vec<Limit>,
    pub totals: Counts,
    pub last_10s: Counts,
    pub latency_us: Latency,
}

/// The hottest or most denied keys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Top {
    /// Over so many microseconds.
    pub covers_us: u64,
    /// The first is the hottest.
    pub keys: Vec<TopKey>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "docs/api.md tells them")]
pub struct TopKey {
    pub domain: String,
    pub policy: String,
    pub key: String,
    pub requests: u64,
    pub denied: u64,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Log {
    /// In the syntax of `--log`.
    pub filter: String,
}
