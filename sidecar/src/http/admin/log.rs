//! `GET` and `PUT /v1/log`: what is logged, changed without a restart.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{buckets::read, openapi::Problem};
use crate::{
    http::{Service, json_response, refusal::RequestError},
    logging::{LogFilter, Logged},
};

/// What is meant to pass is over within a week.
const MAX_WHILE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What is logged.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Logging {
    /// The filter in force: a level, or levels by module, as in `--log`.
    #[schema(example = "info,sluice::store=debug")]
    filter: String,
    /// The filter that will be in force after it; absent where this one stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    reverts_to: Option<String>,
    /// In how many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    reverts_in_s: Option<u64>,
}

/// What is to be logged. This sidecar alone changes, until it is started again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogChange {
    /// A level, or levels by module, as in `--log`. What operators did is logged whatever it says, unless it names
    /// `sluice::audit`.
    #[schema(example = "info,sluice::store=debug")]
    filter: String,
    /// For how long, up to 7 days: then the last filter that was to stay is in force again. For good where it is left out.
    #[serde(rename = "for")]
    #[schema(example = "10m")]
    lasts: Option<String>,
}

impl From<Logged> for Logging {
    fn from(logged: Logged) -> Self {
        let (reverts_to, reverts_in) = logged.reverts.unzip();
        Self {
            filter: logged.filter.to_string(),
            reverts_to: reverts_to.map(|filter| filter.to_string()),
            // What is left of the last second counts: 0 would be now.
            reverts_in_s: reverts_in.map(|left| left.as_millis().div_ceil(1_000) as u64),
        }
    }
}

/// What is logged
#[utoipa::path(
    get,
    path = "/v1/log",
    tag = "logging",
    responses((status = 200, body = Logging), (status = "4XX", body = Problem)),
)]
pub(super) async fn get(State(service): State<Arc<Service>>) -> Response {
    answer(&service)
}

/// Change what is logged
#[utoipa::path(
    put,
    path = "/v1/log",
    tag = "logging",
    request_body = LogChange,
    responses((status = 200, body = Logging), (status = "4XX", body = Problem)),
)]
pub(super) async fn put(State(service): State<Arc<Service>>, body: Body) -> Result<Response, RequestError> {
    let change: LogChange = read(&service, body).await?;
    let filter: LogFilter = change.filter.parse()?;
    let lasts = change.lasts.map(|written| a_while(&written)).transpose()?;
    service.logging.change(filter, lasts);
    Ok(answer(&service))
}

fn answer(service: &Service) -> Response {
    json_response(StatusCode::OK, &Logging::from(service.logging.now()), 0)
}

fn a_while(written: &str) -> Result<Duration, RequestError> {
    let parsed = humantime::parse_duration(written).ok();
    let fits = |lasts: &Duration| !lasts.is_zero() && *lasts <= MAX_WHILE;
    parsed.filter(fits).ok_or_else(|| RequestError::InvalidWhile(written.to_owned()))
}
