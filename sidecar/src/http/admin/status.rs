//! `GET /v1/status`: how this sidecar does.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::Problem;
use crate::{
    http::{Count, Service, json_response},
    spans::{SpanCounts, Spans},
    store::StoreStatus,
};

/// What `GET /v1/status` tells. Fields are only ever added.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status<'a> {
    /// The sidecar's version.
    version: &'static str,
    /// Whole seconds since it began to serve.
    uptime_s: u64,
    /// Whether it is leaving or ending.
    stopping: bool,
    /// Where the buckets are.
    store: StoreStatus,
    /// Those of Envoys, over all data listeners.
    connections: Connections,
    /// What became of spans since the start; absent where none are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    spans: Option<SpanCounts>,
    /// Requests to the data listeners since the start.
    requests: Requests<'a>,
}

/// How many connections there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Connections {
    /// Open now.
    open: usize,
    /// At most.
    max: usize,
    /// Closed at once since the start, because too many were open.
    refused: u64,
}

impl Connections {
    pub(super) fn of(service: &Service) -> Self {
        let connections = service.connections();
        Self { open: connections.taken(), max: connections.max(), refused: connections.refused() }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Requests<'a> {
    /// All, those of health checks included.
    #[schema(value_type = u64)]
    answered: &'a Count,
    /// Those of them that were answered with a status of 400 and above.
    #[schema(value_type = u64)]
    refused: &'a Count,
}

/// How this sidecar does
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "watching",
    responses((status = 200, body = Status), (status = "4XX", body = Problem)),
)]
pub(super) async fn status(State(service): State<Arc<Service>>) -> Response {
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: service.started.elapsed().as_secs(),
        stopping: service.is_stopping(),
        store: service.store.status(),
        connections: Connections::of(&service),
        spans: service.spans.as_ref().map(Spans::counts),
        requests: Requests { answered: &service.answered, refused: &service.refused },
    };
    json_response(StatusCode::OK, &status, 512)
}
