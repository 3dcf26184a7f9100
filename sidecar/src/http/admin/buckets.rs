//! `/v1/buckets/{policy}/{key}`: how a bucket stands, and an operator's hand on it.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use bucket::{EXACT, Kind};
use serde::Deserialize;
use tracing::info;
use utoipa::ToSchema;

use super::{
    named::{AskedPath, AskedQuery, BucketStatus, InPath, InQuery, Named},
    openapi::Problem,
};
use crate::{
    http::{
        Service, body,
        refusal::{BucketError, RequestError},
    },
    logging::AUDIT,
};

/// The largest body that an operator sends.
const MAX_BODY_BYTES: usize = 4 << 10;

/// How a bucket stands
#[utoipa::path(
    get,
    path = "/v1/buckets/{policy}/{key}",
    tag = "buckets",
    params(InPath, InQuery),
    responses((status = 200, body = BucketStatus), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn bucket(
    State(service): State<Arc<Service>>,
    path: AskedPath,
    query: AskedQuery,
) -> Result<Response, RequestError> {
    Named::find(&service, path, query).await?.stands(&service).await
}

/// Fill a bucket
///
/// Leased tokens keep their place. Tells how it stands then.
#[utoipa::path(
    post,
    path = "/v1/buckets/{policy}/{key}/reset",
    tag = "buckets",
    params(InPath, InQuery),
    responses((status = 200, body = BucketStatus), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn reset(
    State(service): State<Arc<Service>>,
    path: AskedPath,
    query: AskedQuery,
) -> Result<Response, RequestError> {
    let named = Named::find(&service, path, query).await?;
    // As large a refund as can be: it pays any debt, and never makes more than a full bucket.
    let answer = named.ask(&service, Kind::Refund, EXACT - 1).await?;
    info!(target: AUDIT, domain = named.domain, policy = named.policy, "an operator has reset a bucket");
    service.overrides.tell_others().await;
    Ok(answer)
}

/// What is returned to a bucket.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Refund {
    /// So many, up to what the bucket holds.
    #[schema(minimum = 1)]
    tokens: u64,
}

/// Return tokens to a bucket
///
/// Never more than it holds. Tells how it stands then.
#[utoipa::path(
    post,
    path = "/v1/buckets/{policy}/{key}/refund",
    tag = "buckets",
    params(InPath, InQuery),
    request_body = Refund,
    responses((status = 200, body = BucketStatus), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn refund(
    State(service): State<Arc<Service>>,
    path: AskedPath,
    query: AskedQuery,
    body: Body,
) -> Result<Response, RequestError> {
    let Refund { tokens } = read(&service, body).await?;
    if !(1..EXACT).contains(&tokens) {
        return Err(BucketError::InvalidRefund(tokens).into());
    }
    let named = Named::find(&service, path, query).await?;
    let answer = named.ask(&service, Kind::Refund, tokens).await?;
    info!(
        target: AUDIT,
        domain = named.domain,
        policy = named.policy,
        tokens,
        "an operator has returned tokens to a bucket"
    );
    service.overrides.tell_others().await;
    Ok(answer)
}

/// What an operator sends.
pub(super) async fn read<T: serde::de::DeserializeOwned>(
    service: &Service,
    body: Body,
) -> Result<T, RequestError> {
    let (body, _place) = body::read(body, MAX_BODY_BYTES, &service.bodies).await?;
    serde_json::from_slice(&body).map_err(|error| BucketError::InvalidBody(error).into())
}
