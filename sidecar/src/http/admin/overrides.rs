//! `/v1/overrides`, and `override` of a bucket: what operators put in the place of limits.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::StatusCode, response::Response};
use bucket::EXACT;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{
    buckets::read,
    named::{AskedPath, AskedQuery, BucketStatus, InPath, InQuery, Named, OverrideStatus, written},
    openapi::Problem,
};
use crate::{
    batch::parts_of_key,
    http::{
        Service, json_response,
        refusal::{BucketError, RequestError},
    },
    logging::AUDIT,
    overrides::{Instead, Override},
};

/// The longest reason, in characters.
const MAX_REASON: usize = 200;

/// What to put in the place of a bucket's limit: one of `limit`, `unlimited` and `blocked`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Another limit, such as `100 per minute`.
    limit: Option<String>,
    /// The burst beside it. By default the limit's number.
    burst: Option<u64>,
    /// `true`: nothing is denied, and nothing taken.
    #[serde(default)]
    unlimited: bool,
    /// `true`: everything is denied.
    #[serde(default)]
    blocked: bool,
    /// Why, for whoever sees it later.
    #[schema(max_length = 200)]
    reason: Option<String>,
    /// After which time it ends, such as `1h`. By default it holds until it is removed.
    expires_in: Option<String>,
    /// Or when, in microseconds since 1970.
    expires_at_us: Option<u64>,
}

/// All overrides that hold.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AllOverrides<'a> {
    overrides: Vec<Listed<'a>>,
    /// How long ago this sidecar last saw that these are all, in microseconds; null where it never did.
    age_us: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Listed<'a> {
    domain: &'a str,
    policy: &'a str,
    key: &'a str,
    #[serde(flatten)]
    r#override: OverrideStatus,
}

/// Put something in the place of a bucket's limit
///
/// It holds at this sidecar at once, and at all that share its store within a second. What was there before is
/// replaced. A bucket that became full under a smaller burst is full under the larger one when that ends. Tells how the
/// bucket stands then.
#[utoipa::path(
    put,
    path = "/v1/buckets/{policy}/{key}/override",
    tag = "overrides",
    params(InPath, InQuery),
    request_body = Wanted,
    responses((status = 200, body = BucketStatus), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn put(
    State(service): State<Arc<Service>>,
    path: AskedPath,
    query: AskedQuery,
    body: Body,
) -> Result<Response, RequestError> {
    let wanted: Wanted = read(&service, body).await?;
    let named = Named::find(&service, path, query).await?;
    // Without the store's time nothing can expire, and nothing could be put.
    let now_us = service.overrides.now_us().ok_or(BucketError::StoreUnavailable)?;
    let wanted = wanted.valid(now_us).map_err(BucketError::InvalidOverride)?;
    let (instead, expires_at_us) = (wanted.instead, wanted.expires_at_us);
    service.overrides.put(&named.bucket_key, wanted).await.map_err(BucketError::from)?;
    let (domain, policy) = (&named.domain, &named.policy);
    info!(target: AUDIT, domain, policy, instead = %instead, expires_at_us, "an operator has overridden the limit of a bucket");
    named.stands(&service).await
}

/// Give a bucket its limit back
///
/// Tells how it stands then.
#[utoipa::path(
    delete,
    path = "/v1/buckets/{policy}/{key}/override",
    tag = "overrides",
    params(InPath, InQuery),
    responses((status = 200, body = BucketStatus), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(super) async fn remove(
    State(service): State<Arc<Service>>,
    path: AskedPath,
    query: AskedQuery,
) -> Result<Response, RequestError> {
    let named = Named::find(&service, path, query).await?;
    if !service.overrides.remove(&named.bucket_key).await.map_err(BucketError::from)? {
        return Err(BucketError::NoOverride.into());
    }
    info!(target: AUDIT, domain = named.domain, policy = named.policy, "an operator has removed the override of a bucket");
    named.stands(&service).await
}

/// All overrides
#[utoipa::path(
    get,
    path = "/v1/overrides",
    tag = "overrides",
    responses((status = 200, body = AllOverrides), (status = "4XX", body = Problem)),
)]
pub(super) async fn list(State(service): State<Arc<Service>>) -> Response {
    let list = service.overrides.list();
    let listed = list.iter().filter_map(|(bucket_key, found)| {
        let (domain, policy, key) = parts_of_key(bucket_key)?;
        Some(Listed { domain, policy, key, r#override: OverrideStatus::from(found) })
    });
    let all = AllOverrides { overrides: listed.collect(), age_us: service.overrides.age_us() };
    json_response(StatusCode::OK, &all, 64 + all.overrides.len() * 256)
}

impl Wanted {
    /// What it is at `now_us`; an error says what would be right.
    fn valid(self, now_us: u64) -> Result<Override, String> {
        let Self { limit, burst, unlimited, blocked, reason, expires_in, expires_at_us } = self;
        let instead = match (limit, unlimited, blocked) {
            (Some(text), false, false) => {
                let written = written(&text, burst)?;
                let limit = written.limit().map_err(|error| format!("limit: {error}"))?;
                Instead::Limit(limit, written)
            }
            (None, true, false) if burst.is_none() => Instead::Unlimited,
            (None, false, true) if burst.is_none() => Instead::Blocked,
            _ => {
                let mend =
                    "write one of \"limit\" (and \"burst\"), \"unlimited\": true and \"blocked\": true";
                return Err(mend.to_owned());
            }
        };
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
            return Err(format!("reason: it is longer than {MAX_REASON} characters; shorten it"));
        }
        let expires_at_us = match (expires_in, expires_at_us) {
            (Some(_), Some(_)) => {
                return Err("found \"expires_in\" and \"expires_at_us\"; write one of them".to_owned());
            }
            (Some(text), None) => {
                let time = humantime::parse_duration(&text).map_err(|_| {
                    format!("expires_in: {text:?} is not a time with a unit; write such as 30m or 1h")
                })?;
                Some(u64::try_from(time.as_micros()).unwrap_or(EXACT).saturating_add(now_us))
            }
            (None, given) => given,
        };
        match expires_at_us {
            Some(at_us) if at_us <= now_us => Err("the expiry is over already; name a later one".to_owned()),
            Some(EXACT..) => {
                Err("the expiry is beyond the year 2255; name an earlier one, or none".to_owned())
            }
            _ => Ok(Override { instead, reason, created_at_us: now_us, expires_at_us }),
        }
    }
}
