//! Why a request could not be decided.

use contract::FailureReason;

/// Why a request could not be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The callout could not be sent: the cluster is missing or has no endpoint, or its breaker is open.
    NotSent,
    /// Envoy itself answered the callout: the sidecar could not be reached, or not in time.
    NoAnswer,
    /// Envoy itself answered the callout with 504: the sidecar's answer did not come in time.
    Timeout,
    /// Callouts went unanswered, so none is sent until the sidecar has answered a probe.
    BreakerOpen,
    /// The sidecar's answer broke off.
    Reset,
    /// The sidecar refused the batch.
    Refused,
    /// The sidecar's answer is none that the contract knows.
    Unreadable,
    /// More requests wait for a decision than the filter holds.
    Overloaded,
    /// The policies that match the request have more limits than a take may have buckets.
    TooManyPolicies,
    /// The sidecar could not decide: see [`FailureReason::StoreFull`].
    StoreFull,
    /// The sidecar could not decide: see [`FailureReason::StoreUnavailable`].
    StoreUnavailable,
}

impl Failure {
    /// One word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::NoAnswer => "no_answer",
            Self::Timeout => "timeout",
            Self::BreakerOpen => "breaker_open",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Overloaded => "overloaded",
            Self::TooManyPolicies => "too_many_policies",
            Self::StoreFull => "store_full",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

impl From<FailureReason> for Failure {
    fn from(reason: FailureReason) -> Self {
        match reason {
            FailureReason::StoreFull => Self::StoreFull,
            FailureReason::StoreUnavailable => Self::StoreUnavailable,
        }
    }
}
