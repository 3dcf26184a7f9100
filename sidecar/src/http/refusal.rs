//! Why a request is not answered with verdicts, and how that is said in HTTP.

use std::borrow::Cow;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use contract::Refusal;

use super::json_response;
use crate::{batch::InvalidBatch, logging::InvalidFilter, overrides::ChangeError, store::Overloaded};

/// Why a request is refused. Nothing of it was taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("there is nothing at this path; takes go to POST {}", contract::TAKE_PATH)]
    UnknownPath,
    #[error(
        "this path does not answer this method; takes go to POST {}, /healthz and /readyz answer GET",
        contract::TAKE_PATH
    )]
    WrongMethod,
    #[error("the body is larger than {max_bytes} bytes; send fewer takes in one request")]
    BodyTooLarge { max_bytes: usize },
    #[error("the body did not arrive within {0:?}")]
    BodyTooSlow(std::time::Duration),
    #[error("other requests hold all the memory that there is for bodies; try again")]
    NoRoom,
    #[error("the body could not be read to its end")]
    BodyLost,
    #[error("the body is not JSON: {0}")]
    NotJson(serde_json::Error),
    #[error("the body is not a take request: {0}")]
    NotTakes(serde_json::Error),
    #[error("filter: {0}. {mend}", mend = InvalidFilter::MEND)]
    InvalidFilter(#[from] InvalidFilter),
    #[error(
        "for: {0:?} is not a time above zero, and of 7 days at most. Write a number and a unit, such as 10m, or leave it out"
    )]
    InvalidWhile(String),
    #[error(transparent)]
    Invalid(#[from] InvalidBatch),
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error("this sidecar is stopping")]
    Stopping,
    #[error("{0}")]
    NotReady(String),
    #[error("the store cannot decide; its log says why, and /v1/status to whoever may ask there")]
    NotReadyUntold,
    #[error("there is nothing at this path; GET /v1/status tells how this sidecar does")]
    UnknownAdminPath,
    #[error("this path does not answer this method; /v1/status, /healthz and /readyz answer GET")]
    WrongAdminMethod,
    #[error("the token is missing or wrong; send it as \"authorization: Bearer TOKEN\"")]
    NoToken,
    #[error("the host is a name; ask by localhost or by an IP address, so that no web page can lead here")]
    ForeignHost,
    #[error("no web page is answered but the one at / of this listener")]
    ForeignOrigin,
    #[error("the content-type is not application/json; send what changes anything as JSON")]
    NotJsonContent,
    #[error("the query: {0}")]
    InvalidQuery(String),
    #[error("{max} streams of events are open already, and no more may be; close a page that watches")]
    TooManyStreams { max: usize },
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// Why nothing is told of a bucket, or changed in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum BucketError {
    #[error("{0}")]
    InvalidName(String),
    #[error("the key has {found_bytes} bytes; a key has at most {}", contract::MAX_KEY_BYTES)]
    KeyTooLong { found_bytes: usize },
    #[error("policy or key: what is percent-encoded in the path is not UTF-8")]
    NotText,
    #[error("{0}")]
    InvalidQuery(String),
    #[error("{0}")]
    InvalidLimit(String),
    #[error(
        "nobody has asked this sidecar for the policy {0:?} yet; see the name, or give its limit as \
         ?domain=…&limit=60%20per%20minute&burst=60"
    )]
    UnknownPolicy(String),
    #[error("several domains have the policy {policy:?}: {}; name one as ?domain=…", .domains.join(", "))]
    AmbiguousDomain { policy: String, domains: Vec<String> },
    #[error("the body is not what is expected here: {0}")]
    InvalidBody(serde_json::Error),
    #[error("{0}")]
    InvalidOverride(String),
    #[error("tokens: found {0}; it must be from 1 and below 2^53")]
    InvalidRefund(u64),
    #[error("this bucket has no override")]
    NoOverride,
    #[error("the store did not answer; whether anything was changed is not known")]
    StoreUnavailable,
    #[error("the store is full, and knows nothing of this bucket")]
    StoreFull,
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl BucketError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidName(_) => (StatusCode::BAD_REQUEST, "invalid_name"),
            Self::KeyTooLong { .. } => (StatusCode::BAD_REQUEST, "key_too_long"),
            Self::NotText => (StatusCode::BAD_REQUEST, "not_text"),
            Self::InvalidQuery(_) => (StatusCode::BAD_REQUEST, "invalid_query"),
            Self::InvalidLimit(_) => (StatusCode::BAD_REQUEST, "invalid_limit"),
            Self::UnknownPolicy(_) => (StatusCode::NOT_FOUND, "unknown_policy"),
            Self::AmbiguousDomain { .. } => (StatusCode::CONFLICT, "ambiguous_domain"),
            Self::InvalidBody(_) => (StatusCode::BAD_REQUEST, "invalid_body"),
            Self::InvalidOverride(_) => (StatusCode::BAD_REQUEST, "invalid_override"),
            Self::InvalidRefund(_) => (StatusCode::BAD_REQUEST, "invalid_refund"),
            Self::NoOverride => (StatusCode::NOT_FOUND, "no_override"),
            Self::StoreUnavailable | Self::Change(ChangeError::Unavailable(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
            }
            Self::StoreFull => (StatusCode::SERVICE_UNAVAILABLE, "store_full"),
            Self::Change(ChangeError::TooMany) => (StatusCode::CONFLICT, "too_many_overrides"),
        }
    }
}

impl RequestError {
    /// Tells what is no JSON at all from what is JSON of another shape; both come with line and column.
    pub(super) fn from_json(error: serde_json::Error) -> Self {
        if error.is_data() { Self::NotTakes(error) } else { Self::NotJson(error) }
    }

    /// The one place where errors become HTTP: a status, and a code that stays the same when words change.
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "wrong_method"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BodyTooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
            Self::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::BodyLost => (StatusCode::BAD_REQUEST, "body_lost"),
            Self::NotJson(_) => (StatusCode::BAD_REQUEST, "not_json"),
            Self::NotTakes(_) => (StatusCode::BAD_REQUEST, "not_takes"),
            Self::InvalidFilter(_) => (StatusCode::BAD_REQUEST, "invalid_filter"),
            Self::InvalidWhile(_) => (StatusCode::BAD_REQUEST, "invalid_duration"),
            Self::Invalid(invalid) => (StatusCode::BAD_REQUEST, invalid.code()),
            Self::Overloaded(_) => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            Self::NotReady(_) | Self::NotReadyUntold => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
            }
            Self::UnknownAdminPath => (StatusCode::NOT_FOUND, "unknown_path"),
            Self::WrongAdminMethod => (StatusCode::METHOD_NOT_ALLOWED, "wrong_method"),
            Self::NoToken => (StatusCode::UNAUTHORIZED, "no_token"),
            Self::InvalidQuery(_) => (StatusCode::BAD_REQUEST, "invalid_query"),
            Self::ForeignHost => (StatusCode::FORBIDDEN, "foreign_host"),
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign_origin"),
            Self::TooManyStreams { .. } => (StatusCode::SERVICE_UNAVAILABLE, "too_many_streams"),
            Self::NotJsonContent => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json_content"),
            Self::Bucket(error) => error.status_and_code(),
        }
    }
}

impl RequestError {
    /// As it is told in JSON.
    pub(super) fn refusal(&self) -> Refusal<'static> {
        Refusal { code: Cow::Borrowed(self.status_and_code().1), reason: Cow::Owned(self.to_string()) }
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        json_response(self.status_and_code().0, &self.refusal(), 0)
    }
}
