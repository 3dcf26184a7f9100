//! What a client gets to see of a decision, and what the access log says of it.

use contract::{BucketVerdict, FailureReason, Outcome, Verdict};
use serde::Serialize;

use crate::{Ask, OnError, Policies, Policy};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `None`: it passes. Otherwise it is answered with this.
    pub denial: Option<Denial>,
    /// How the bucket stands that is nearest to denying; absent where nothing was decided.
    pub quota: Option<Quota>,
    /// What was decided and why, as `name=value` words for the access log.
    pub report: String,
}

/// An answer that is sent in the upstream's place. Its body is JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The HTTP status.
    pub status: u16,
    /// The status for gRPC requests.
    pub grpc_status: i32,
    /// Seconds until a retry may pass, rounded up; absent where no wait will help.
    pub retry_after_seconds: Option<u64>,
    /// The body, of type `application/problem+json`.
    pub body: String,
    /// For Envoy's response code details: one word.
    pub details: String,
}

/// How a bucket stands, in the terms of the `X-RateLimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Tokens in a full bucket.
    pub limit: u64,
    /// Whole tokens that are left.
    pub remaining: u64,
    /// Seconds until the bucket is full again, rounded up.
    pub reset_seconds: u64,
}

/// Why a request could not be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The callout could not be sent: the cluster is missing or has no endpoint, or its breaker is open.
    NotSent,
    /// Envoy itself answered the callout: the sidecar could not be reached, or not in time.
    NoAnswer,
    /// Envoy itself answered the callout with 504: the sidecar's answer did not come in time.
    Timeout,
    /// The sidecar's answer broke off.
    Reset,
    /// The sidecar refused the batch.
    Refused,
    /// The sidecar's answer is none that the contract knows.
    Unreadable,
    /// More requests wait for a decision than the filter holds.
    Overloaded,
    /// More policies match the request than a take may have buckets.
    TooManyPolicies,
    /// The sidecar could not decide: see [`FailureReason::StoreFull`].
    StoreFull,
    /// The sidecar could not decide: see [`FailureReason::StoreUnavailable`].
    StoreUnavailable,
}

/// The body of a denial: RFC 9457, and for a 429 draft-ietf-httpapi-ratelimit-headers-10.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ProblemDetails<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    violated_policies: &'a [&'a str],
}

impl ProblemDetails<'_> {
    /// One line of JSON. Numbers and texts always serialize: the empty body is for an error that cannot be.
    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

const SERVICE_UNAVAILABLE: u16 = 503;
const TOO_MANY_REQUESTS: u16 = 429;
const GRPC_RESOURCE_EXHAUSTED: i32 = 8;
const GRPC_UNAVAILABLE: i32 = 14;

impl Failure {
    /// One word for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::NoAnswer => "no_answer",
            Self::Timeout => "timeout",
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

impl Quota {
    /// The three headers, in lower case.
    #[must_use]
    pub fn headers(&self) -> [(&'static str, String); 3] {
        [
            ("x-ratelimit-limit", self.limit.to_string()),
            ("x-ratelimit-remaining", self.remaining.to_string()),
            ("x-ratelimit-reset", self.reset_seconds.to_string()),
        ]
    }

    fn of(policy: &Policy, bucket: &BucketVerdict) -> Self {
        Self {
            limit: policy.limit.burst_tokens(),
            remaining: bucket.remaining,
            reset_seconds: seconds_up(bucket.full_after_us),
        }
    }
}

impl Denial {
    /// The headers of the answer besides those of the quota, in lower case.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let retry_after = self.retry_after_seconds.map(|seconds| ("retry-after", seconds.to_string()));
        let content_type = ("content-type", "application/problem+json".to_owned());
        [content_type].into_iter().chain(retry_after).collect()
    }
}

impl Policies {
    /// What becomes of the request that asked `asks` and got `verdict`.
    #[must_use]
    pub fn answer(&self, asks: &[Ask], verdict: &Verdict) -> Answer {
        let buckets = match verdict {
            Verdict::Allowed(buckets) | Verdict::Denied(buckets) => buckets,
            Verdict::Failed(reason) => return self.failed(asks, (*reason).into()),
        };
        let mut spoken: Vec<(&Policy, &BucketVerdict)> =
            asks.iter().filter_map(|ask| self.get(ask)).zip(buckets).collect();
        if spoken.is_empty() || asks.len() != buckets.len() {
            return self.failed(asks, Failure::Unreadable);
        }
        match verdict {
            Verdict::Allowed(_) => allowed(&spoken),
            _ => {
                spoken.retain(|(_, bucket)| bucket.outcome != Outcome::Allowed);
                // A denial that no bucket explains is none that the contract knows.
                denied(&spoken).unwrap_or_else(|| self.failed(asks, Failure::Unreadable))
            }
        }
    }

    /// What becomes of the request that asked `asks` and could not be decided: it is denied where one of its
    /// policies says so.
    #[must_use]
    pub fn failed(&self, asks: &[Ask], failure: Failure) -> Answer {
        let denying =
            asks.iter().filter_map(|ask| self.get(ask)).find(|policy| policy.on_error == OnError::Deny);
        let why = failure.as_str();
        let Some(policy) = denying else {
            return Answer {
                denial: None,
                quota: None,
                report: format!("decision=failed answer=allow reason={why}"),
            };
        };
        let body = ProblemDetails {
            kind: "about:blank",
            title: "Service Unavailable",
            status: SERVICE_UNAVAILABLE,
            detail: "the rate limit of this request could not be checked",
            violated_policies: &[],
        };
        let denial = Denial {
            status: SERVICE_UNAVAILABLE,
            grpc_status: GRPC_UNAVAILABLE,
            retry_after_seconds: None,
            body: body.to_json(),
            details: format!("sluice_failed_{why}"),
        };
        let report = format!("decision=failed answer=deny reason={why} policy={}", policy.name);
        Answer { denial: Some(denial), quota: None, report }
    }
}

fn allowed(spoken: &[(&Policy, &BucketVerdict)]) -> Answer {
    let nearest = spoken.iter().min_by_key(|(_, bucket)| bucket.remaining);
    let Some((policy, bucket)) = nearest else {
        return Answer { denial: None, quota: None, report: "decision=allowed".to_owned() };
    };
    Answer {
        denial: None,
        quota: Some(Quota::of(policy, bucket)),
        report: format!("decision=allowed policy={} remaining={}", policy.name, bucket.remaining),
    }
}

/// The denial by `denying`, the buckets that had no room; `None` where there is none. The one with the longest wait
/// speaks: a retry before that would be denied again.
fn denied(denying: &[(&Policy, &BucketVerdict)]) -> Option<Answer> {
    let wait_us = |bucket: &BucketVerdict| bucket.retry_after_us.unwrap_or(u64::MAX);
    let (policy, bucket) = denying.iter().max_by_key(|(_, bucket)| wait_us(bucket))?;
    let retry_after_seconds = bucket.retry_after_us.map(|wait_us| seconds_up(wait_us).max(1));
    let names: Vec<&str> = denying.iter().map(|(policy, _)| policy.name.as_str()).collect();
    let detail = match retry_after_seconds {
        Some(1) => format!("the limit {:?} is used up; retry after 1 second", policy.name),
        Some(seconds) => format!("the limit {:?} is used up; retry after {seconds} seconds", policy.name),
        None => format!("the request costs more than the limit {:?} ever allows at once", policy.name),
    };
    let body = ProblemDetails {
        kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
        title: "Too Many Requests",
        status: TOO_MANY_REQUESTS,
        detail: &detail,
        violated_policies: &names,
    };
    let denial = Denial {
        status: TOO_MANY_REQUESTS,
        grpc_status: GRPC_RESOURCE_EXHAUSTED,
        retry_after_seconds,
        body: body.to_json(),
        details: format!("sluice_denied_{}", policy.name),
    };
    let report = format!("decision=denied policy={} remaining={}", policy.name, bucket.remaining);
    Some(Answer { denial: Some(denial), quota: Some(Quota::of(policy, bucket)), report })
}

/// Whole seconds, rounded up: never earlier than the truth.
const fn seconds_up(us: u64) -> u64 {
    us.div_ceil(1_000_000)
}
