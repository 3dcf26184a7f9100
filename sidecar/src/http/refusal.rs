//! Why a request is not answered with verdicts, and how that is said in HTTP.

use std::borrow::Cow;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use contract::Refusal;

use super::json_response;
use crate::{
    batch::InvalidBatch, code::Code, logging::InvalidFilter, overrides::ChangeError, store::Overloaded,
};

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
    fn code(&self) -> Code {
        match self {
            Self::InvalidName(_) => Code::InvalidName,
            Self::KeyTooLong { .. } => Code::KeyTooLong,
            Self::NotText => Code::NotText,
            Self::InvalidQuery(_) => Code::InvalidQuery,
            Self::InvalidLimit(_) => Code::InvalidLimit,
            Self::UnknownPolicy(_) => Code::UnknownPolicy,
            Self::AmbiguousDomain { .. } => Code::AmbiguousDomain,
            Self::InvalidBody(_) => Code::InvalidBody,
            Self::InvalidOverride(_) => Code::InvalidOverride,
            Self::InvalidRefund(_) => Code::InvalidRefund,
            Self::NoOverride => Code::NoOverride,
            Self::StoreUnavailable | Self::Change(ChangeError::Unasked(_) | ChangeError::Unavailable(_)) => {
                Code::StoreUnavailable
            }
            Self::StoreFull => Code::StoreFull,
            Self::Change(ChangeError::TooMany) => Code::TooManyOverrides,
        }
    }
}

impl RequestError {
    /// Tells what is no JSON at all from what is JSON of another shape; both come with line and column.
    pub(super) fn from_json(error: serde_json::Error) -> Self {
        if error.is_data() { Self::NotTakes(error) } else { Self::NotJson(error) }
    }

    /// The one place where errors become HTTP: by a code, which has its status.
    fn code(&self) -> Code {
        match self {
            Self::UnknownPath => Code::UnknownPath,
            Self::WrongMethod => Code::WrongMethod,
            Self::BodyTooLarge { .. } => Code::BodyTooLarge,
            Self::BodyTooSlow(_) => Code::BodyTooSlow,
            Self::NoRoom => Code::Overloaded,
            Self::BodyLost => Code::BodyLost,
            Self::NotJson(_) => Code::NotJson,
            Self::NotTakes(_) => Code::NotTakes,
            Self::InvalidFilter(_) => Code::InvalidFilter,
            Self::InvalidWhile(_) => Code::InvalidDuration,
            Self::Invalid(invalid) => invalid.code(),
            Self::Overloaded(_) => Code::Overloaded,
            Self::Stopping => Code::Stopping,
            Self::NotReady(_) | Self::NotReadyUntold => Code::StoreUnavailable,
            Self::UnknownAdminPath => Code::UnknownPath,
            Self::WrongAdminMethod => Code::WrongMethod,
            Self::NoToken => Code::NoToken,
            Self::InvalidQuery(_) => Code::InvalidQuery,
            Self::ForeignHost => Code::ForeignHost,
            Self::ForeignOrigin => Code::ForeignOrigin,
            Self::TooManyStreams { .. } => Code::TooManyStreams,
            Self::NotJsonContent => Code::NotJsonContent,
            Self::Bucket(error) => error.code(),
        }
    }
}

impl RequestError {
    /// As it is told in JSON.
    pub(super) fn refusal(&self) -> Refusal<'static> {
        Refusal { code: Cow::Borrowed(self.code().name()), reason: Cow::Owned(self.to_string()) }
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json_response(status, &self.refusal(), 0)
    }
}
