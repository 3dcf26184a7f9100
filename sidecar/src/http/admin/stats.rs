//! `GET /v1/stats`: what this sidecar decided, by policy.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{openapi::Problem, status::Connections};
use crate::{
    clock::Clock,
    http::{Service, json_response},
    store::StoreStatus,
    telemetry::{Counts, Percentiles, PolicyStats},
};

/// What `GET /v1/stats` tells. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Stats {
    /// The sidecar's version.
    version: &'static str,
    /// Whole seconds since it began to serve.
    uptime_s: u64,
    /// Now, in microseconds since 1970 by this machine's clock.
    now_us: u64,
    /// How many sidecars are told of.
    sidecars: u64,
    /// Where the buckets are.
    store: StoreStatus,
    /// Those of Envoys, over all data listeners.
    connections: Connections,
    /// Takes since the start. One of several policies counts once here, and once for each of them there.
    totals: Counts,
    /// Takes of the last ten seconds, the one that is under way among them.
    last_10s: Counts,
    /// How far back `last_10s` counts in fact, here and of each policy, in microseconds: less than ten seconds by up to one,
    /// and less after a start. A rate is a count divided by this.
    covers_us: u64,
    /// How long things took in the last minute.
    latency_us: Latencies,
    /// How takes shared requests.
    batches: Batches,
    /// What operators have put in the place of limits.
    overrides: Overriding,
    /// The policies that were asked for, in the order in which they first were: at most 1,000, and one more for all others.
    policies: Vec<PolicyStats>,
}

/// How long things took in the last minute, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Latencies {
    /// Requests for takes, from when they had arrived in full to their answer, or until their clients gave up.
    take: Percentiles,
    /// Runs of the script in Redis, from when each was sent to its answer; none where the buckets are in memory.
    redis: Percentiles,
}

/// Since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Batches {
    /// Requests that were answered with verdicts.
    requests: u64,
    /// The takes in them.
    takes: u64,
    /// Runs of the script in Redis, which decide what arrived meanwhile; 0 where the buckets are in memory.
    runs: u64,
    /// The buckets in them.
    buckets_in_runs: u64,
}

/// What operators have put in the place of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Overriding {
    /// How many overrides there are.
    count: usize,
    /// How long ago they were last known to be as they are kept; absent where they never were.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_us: Option<u64>,
}

impl Stats {
    /// As they are now.
    pub(super) fn of(service: &Service) -> Self {
        let seen = service.telemetry.stats();
        let runs = service.store.runs();
        let (run_count, buckets_in_runs) =
            runs.as_ref().map_or((0, 0), |runs| (runs.ended.iter().sum(), runs.bucket_count));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: service.started.elapsed().as_secs(),
            now_us: Clock::start().now_us(),
            sidecars: 1,
            store: service.store.status(),
            connections: Connections::of(service),
            totals: seen.totals,
            last_10s: seen.last_10s,
            covers_us: seen.covers_us,
            latency_us: Latencies {
                take: seen.handling,
                redis: runs.map_or_else(Percentiles::default, |runs| runs.latency_us),
            },
            batches: Batches { requests: seen.requests, takes: seen.takes, runs: run_count, buckets_in_runs },
            overrides: Overriding { count: service.overrides.count(), age_us: service.overrides.age_us() },
            policies: seen.policies,
        }
    }
}

/// What this sidecar decided, by policy
#[utoipa::path(
    get,
    path = "/v1/stats",
    tag = "watching",
    responses((status = 200, body = Stats), (status = "4XX", body = Problem)),
)]
pub(super) async fn stats(State(service): State<Arc<Service>>) -> Response {
    json_response(StatusCode::OK, &Stats::of(&service), 4 << 10)
}
