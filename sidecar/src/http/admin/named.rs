//! Which bucket an operator means, and how it stands.

use std::sync::Arc;

use axum::{
    extract::{
        Path, Query,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    response::Response,
};
use bucket::{Kind, Limit};
use contract::{FailureReason, MAX_KEY_BYTES, MAX_NAME_BYTES, Verdict, is_name};
use policy::Rate;
use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value::Error},
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    batch::{Ask, Batch, Take, bucket_key},
    http::{
        Service, json_response,
        refusal::{BucketError, RequestError},
    },
    overrides::{Instead, Override, Told, WrittenLimit},
};

/// How a bucket stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BucketStatus<'a> {
    domain: &'a str,
    policy: &'a str,
    key: &'a str,
    /// What the policy asks for, whether or not something is in its place.
    limit: WrittenLimit,
    /// Whole tokens that are there now; 0 in debt.
    tokens: u64,
    /// Microseconds until it is full if nothing more is taken.
    full_after_us: u64,
    /// When that was, in microseconds since 1970 by the store's clock.
    now_us: u64,
    /// What an operator has put in the limit's place.
    r#override: Option<OverrideStatus>,
}

/// What an operator has put in the place of a bucket's limit.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OverrideStatus {
    #[serde(flatten)]
    told: Told,
    /// When it ends, in microseconds since 1970 by the store's clock; null where it holds until it is removed.
    expires_at_us: Option<u64>,
}

impl From<&Override> for OverrideStatus {
    fn from(of: &Override) -> Self {
        Self { told: Told::from(of), expires_at_us: of.expires_at_us }
    }
}

/// In the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct InPath {
    /// The name of the bucket's limit: its policy's, followed by `.` and a name where that has several.
    policy: String,
    /// Whose bucket, percent-encoded: a `/` is `%2F`. It may be empty.
    #[serde(default)]
    key: String,
}

/// In the query.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct InQuery {
    /// May be left out where only one domain has this policy.
    domain: Option<String>,
    /// The policy's limit, such as `60 per minute`, where this sidecar has not been asked for it.
    limit: Option<String>,
    /// The burst beside it. By default the limit's number.
    burst: Option<u64>,
}

/// A bucket that is known by its name, and what it is held to.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) domain: String,
    pub(super) policy: String,
    pub(super) key: String,
    pub(super) bucket_key: String,
    written: WrittenLimit,
    limit: Limit,
}

pub(super) type AskedPath = Result<Path<InPath>, PathRejection>;
pub(super) type AskedQuery = Result<Query<InQuery>, QueryRejection>;

impl Named {
    pub(super) async fn find(
        service: &Service,
        path: AskedPath,
        query: AskedQuery,
    ) -> Result<Self, BucketError> {
        let Path(path) = path.map_err(|_| BucketError::NotText)?;
        let Query(query) = query.map_err(|error| BucketError::InvalidQuery(error.body_text()))?;
        // Others may have been asked for it.
        if let Some(published) = &service.published
            && is_name(&path.policy)
            && service.telemetry.limits_of(&path.policy, query.domain.as_deref()).is_empty()
        {
            published.learn(&path.policy).await;
        }
        Self::of(service, path, query)
    }

    /// The bucket that somebody watches.
    pub(super) fn watched(
        service: &Service,
        policy: String,
        key: String,
        domain: Option<String>,
    ) -> Result<Self, BucketError> {
        Self::of(service, InPath { policy, key }, InQuery { domain, limit: None, burst: None })
    }

    fn of(service: &Service, path: InPath, query: InQuery) -> Result<Self, BucketError> {
        let InPath { policy, key } = path;
        for (place, name) in [("policy", Some(&policy)), ("domain", query.domain.as_ref())] {
            if let Some(name) = name
                && !is_name(name)
            {
                let found: String = name.chars().take(MAX_NAME_BYTES).collect();
                return Err(BucketError::InvalidName(format!(
                    "{place}: found {found:?}; a name is 1 to {MAX_NAME_BYTES} ASCII letters, digits, '-', '_' and '.'"
                )));
            }
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(BucketError::KeyTooLong { found_bytes: key.len() });
        }
        let mut known = service.telemetry.limits_of(&policy, query.domain.as_deref());
        let given = given(&query)?;
        let (domain, written) = match (known.len(), query.domain, given) {
            (_, Some(domain), Some(given)) => (domain, given),
            (1, ..) => {
                let (domain, limit) = known.remove(0);
                (domain, given.unwrap_or(limit))
            }
            (0, ..) => return Err(BucketError::UnknownPolicy(policy)),
            _ => {
                let domains = known.into_iter().map(|(domain, _)| domain).collect();
                return Err(BucketError::AmbiguousDomain { policy, domains });
            }
        };
        let limit = written.limit().map_err(|error| BucketError::InvalidLimit(format!("limit: {error}")))?;
        let bucket_key = bucket_key(&domain, &policy, &key);
        Ok(Self { domain, policy, key, bucket_key, written, limit })
    }

    /// Has the store do something with the bucket, under the limit that it is held to, whatever else is in its place.
    pub(super) async fn ask(
        &self,
        service: &Service,
        kind: Kind,
        cost_tokens: u64,
    ) -> Result<Response, RequestError> {
        let status = self.status_after(service, kind, cost_tokens).await?;
        Ok(json_response(StatusCode::OK, &status, 512))
    }

    /// How the bucket stands, as what is told of it.
    pub(super) async fn status(&self, service: &Service) -> Result<BucketStatus<'_>, RequestError> {
        self.status_after(service, Kind::Take, 0).await
    }

    async fn status_after(
        &self,
        service: &Service,
        kind: Kind,
        cost_tokens: u64,
    ) -> Result<BucketStatus<'_>, RequestError> {
        let found = service.overrides.find(&self.bucket_key);
        let limit = match &found {
            Some(Override { instead: Instead::Limit(limit, _), .. }) => *limit,
            _ => self.limit,
        };
        let buckets = vec![Ask { bucket_key: self.bucket_key.clone(), limit, cost_tokens }];
        let batch = Batch { takes: vec![Take { buckets, kind, follows: false }] };
        let answer = service.store.take(batch).await?;
        let stands = match answer.verdicts.first() {
            Some(Verdict::Allowed(buckets)) => buckets.first().ok_or(BucketError::StoreUnavailable)?,
            Some(Verdict::Failed(FailureReason::StoreFull)) => Err(BucketError::StoreFull)?,
            _ => Err(BucketError::StoreUnavailable)?,
        };
        Ok(BucketStatus {
            domain: &self.domain,
            policy: &self.policy,
            key: &self.key,
            limit: self.written,
            tokens: stands.remaining,
            full_after_us: stands.full_after_us,
            now_us: answer.now_us,
            r#override: found.as_ref().map(OverrideStatus::from),
        })
    }

    /// How the bucket stands.
    pub(super) async fn stands(&self, service: &Arc<Service>) -> Result<Response, RequestError> {
        self.ask(service, Kind::Take, 0).await
    }
}

/// The limit in the query.
fn given(query: &InQuery) -> Result<Option<WrittenLimit>, BucketError> {
    match (&query.limit, query.burst) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err(BucketError::InvalidQuery("found a burst without a limit; give both, or neither".to_owned()))
        }
        (Some(text), burst) => written(text, burst).map(Some).map_err(BucketError::InvalidLimit),
    }
}

/// A limit as people write it; an error says what would be right.
pub(super) fn written(text: &str, burst: Option<u64>) -> Result<WrittenLimit, String> {
    let rate: Result<Rate, Error> = Rate::deserialize(text.into_deserializer());
    let Rate { tokens, period_us } = rate.map_err(|error| format!("limit: {error}"))?;
    let written = WrittenLimit { tokens, period_us, burst: burst.unwrap_or(tokens) };
    written.limit().map(|_| written).map_err(|error| format!("limit: {error}"))
}
