//! `GET /v1/top`: whose requests are most, and whose denials.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::openapi::Problem;
use crate::{
    http::{Service, json_response, refusal::RequestError},
    telemetry::{MAX_KEYS, TopBy, TopKey, TopQuestion},
};

/// Which keys are asked for.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// By what they are ranked.
    #[param(inline)]
    pub(super) by: TopBy,
    /// How many at most.
    #[param(minimum = 1, maximum = 100, default = 20)]
    pub(super) limit: usize,
    /// Over how many of the last seconds.
    #[param(minimum = 10, maximum = 60, default = 60)]
    pub(super) window_s: u64,
    /// Of that domain only, as far as its keys are among the hundred of all domains that are remembered of each 2.5 s.
    pub(super) domain: Option<String>,
    /// Of that policy only, as far as its keys are among those hundred.
    pub(super) policy: Option<String>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { by: TopBy::Requests, limit: 20, window_s: 60, domain: None, policy: None }
    }
}

/// The keys that were asked for or denied most, the most first.
///
/// They are told apart by sketches of bounded memory, so they are approximate: who makes more than a hundredth of all
/// requests is found, and counted a little too low rather than too high.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Top {
    /// By what they are ranked.
    by: TopBy,
    /// The window that was asked for.
    window_s: u64,
    /// How far back was counted in fact, in microseconds: less than the window by up to 2.5 s, and less after a start. A rate
    /// is a count divided by this.
    covers_us: u64,
    /// How many sidecars are told of.
    sidecars: u64,
    /// The keys.
    keys: Vec<TopKey>,
}

impl Top {
    /// As they are now.
    pub(super) fn of(service: &Service, wanted: &Wanted) -> Self {
        let Wanted { by, limit, window_s, domain, policy } = wanted;
        let (domain, policy) = (domain.as_deref(), policy.as_deref());
        let question =
            TopQuestion { by: *by, limit: *limit, window_us: window_s * 1_000_000, domain, policy };
        let found = service.telemetry.top(&question);
        Self { by: *by, window_s: *window_s, covers_us: found.covers_us, sidecars: 1, keys: found.keys }
    }
}

/// Whose requests are most, and whose denials
#[utoipa::path(
    get,
    path = "/v1/top",
    tag = "watching",
    params(Wanted),
    responses((status = 200, body = Top), (status = "4XX", body = Problem)),
)]
pub(super) async fn top(
    State(service): State<Arc<Service>>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, RequestError> {
    let Query(wanted) = query.map_err(|error| RequestError::InvalidQuery(error.body_text()))?;
    let Wanted { limit, window_s, .. } = wanted;
    if !(1..=MAX_KEYS).contains(&limit) {
        let said = format!("limit: found {limit}; it is from 1 to {MAX_KEYS}");
        return Err(RequestError::InvalidQuery(said));
    }
    if !(10..=60).contains(&window_s) {
        let said = format!("window_s: found {window_s}; it is from 10 to 60");
        return Err(RequestError::InvalidQuery(said));
    }
    Ok(json_response(StatusCode::OK, &Top::of(&service, &wanted), 4 << 10))
}
