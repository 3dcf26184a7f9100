//! What a client gets to see of a decision, and what the access log says of it.

mod denied;
mod failure;
mod headers;

use contract::{BucketVerdict, Outcome, Verdict};
use serde::Serialize;

use crate::{Ask, OnError, Policies};
use denied::Filling;

pub use denied::{BadTemplate, Denied, Template, WORDS};
pub use failure::Failure;
use headers::Heard;
pub use headers::{Header, Headers, UpstreamHeaders, policy_item};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `None`: it passes. Otherwise it is answered with this.
    pub denial: Option<Denial>,
    /// What its response gets, where it passes.
    pub headers: Vec<Header>,
    /// What was decided and why, as `name=value` words for the access log.
    pub report: String,
    /// Whether it was decided, not merely answered because of a failure.
    pub decided: bool,
    /// What each of its policies did, by the policy's place in the configuration.
    pub counts: Vec<(usize, Count)>,
    /// For each of its asks, whether the cost was taken.
    pub charged: Vec<bool>,
}

/// What a policy did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// It allowed it.
    Allowed,
    /// It denied it.
    Denied,
    /// It would have denied it, were it enforced.
    ShadowDenied,
    /// It was not decided.
    Failed,
}

/// An answer that is sent in the upstream's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The HTTP status.
    pub status: u16,
    /// The status for gRPC requests.
    pub grpc_status: i32,
    /// All headers, their names in lower case.
    pub headers: Vec<Header>,
    /// The body.
    pub body: String,
    /// The reason in one sentence: for gRPC requests, which get no body.
    pub message: String,
    /// For Envoy's response code details: one word.
    pub details: String,
}

/// The body of a denial: RFC 9457, and for a denied request draft-ietf-httpapi-ratelimit-headers-10.
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
pub const TOO_MANY_REQUESTS: u16 = 429;
const GRPC_RESOURCE_EXHAUSTED: i32 = 8;
const GRPC_UNAVAILABLE: i32 = 14;

/// What each ask of a request got.
struct Outcomes<'a> {
    /// Every limit of the enforced policies, in the order of the configuration; empty where none is enforced.
    enforced: Vec<Heard<'a>>,
    /// For each ask, what its policy did.
    counts: Vec<Count>,
    charged: Vec<bool>,
}

impl Policies {
    /// What becomes of the request that asked `asks` and got `verdicts`, one for each of [`Policies::takes`]. `draw`
    /// is any number: it chooses within what is left to chance.
    #[must_use]
    pub fn answer(&self, asks: &[Ask], verdicts: &[Verdict], draw: u32) -> Answer {
        let outcomes = match self.outcomes(asks, verdicts) {
            Ok(outcomes) => outcomes,
            Err(failure) => return self.failed(asks, failure),
        };
        let denying: Vec<&Heard<'_>> =
            outcomes.enforced.iter().filter(|heard| heard.bucket.outcome != Outcome::Allowed).collect();
        // Of those that deny the one with the longest wait speaks: a retry before that would be denied again.
        let speaking = if denying.is_empty() {
            outcomes.enforced.iter().min_by_key(|heard| heard.bucket.remaining / heard.cost_tokens.max(1))
        } else {
            denying.iter().copied().max_by_key(|heard| heard.bucket.retry_after_us.unwrap_or(u64::MAX))
        };
        let report = self.report(asks, &outcomes, speaking, !denying.is_empty());
        let headers = match speaking {
            Some(speaking) => self.headers.of(&outcomes.enforced, speaking, &report),
            None => self.headers.of_shadow(&report),
        };
        let counts = asks.iter().map(|ask| ask.policy).zip(outcomes.counts).collect();
        let (denial, headers) = match speaking.filter(|_| !denying.is_empty()) {
            Some(speaking) => {
                let names: Vec<&str> = denying.iter().map(|heard| heard.limit.name.as_str()).collect();
                (Some(self.denial(speaking, &names, headers, draw)), Vec::new())
            }
            None => (None, headers),
        };
        Answer { denial, headers, report, decided: true, counts, charged: outcomes.charged }
    }

    /// What becomes of the request that asked `asks` and could not be decided: it is denied where one of its
    /// enforced policies says so.
    #[must_use]
    pub fn failed(&self, asks: &[Ask], failure: Failure) -> Answer {
        let enforced = asks.iter().filter(|ask| !ask.shadow).filter_map(|ask| self.get(ask));
        let denying = { enforced }.find(|policy| policy.on_error == OnError::Deny);
        let why = failure.as_str();
        let (denial, report) = match denying {
            None => (None, format!("decision=failed answer=allow reason={why}")),
            Some(policy) => {
                let message = "the rate limit of this request could not be checked";
                let body = ProblemDetails {
                    kind: "about:blank",
                    title: "Service Unavailable",
                    status: SERVICE_UNAVAILABLE,
                    detail: message,
                    violated_policies: &[],
                };
                let denial = Denial {
                    status: SERVICE_UNAVAILABLE,
                    grpc_status: GRPC_UNAVAILABLE,
                    headers: vec![("content-type".into(), "application/problem+json".to_owned())],
                    body: body.to_json(),
                    message: message.to_owned(),
                    details: format!("sluice_failed_{why}"),
                };
                (Some(denial), format!("decision=failed answer=deny reason={why} policy={}", policy.name))
            }
        };
        let headers = self.headers.of_shadow(&report);
        let (denial, headers) = match denial {
            Some(denial) => {
                (Some(Denial { headers: [denial.headers, headers].concat(), ..denial }), Vec::new())
            }
            None => (None, headers),
        };
        let counts = asks.iter().map(|ask| (ask.policy, Count::Failed)).collect();
        Answer { denial, headers, report, decided: false, counts, charged: Vec::new() }
    }

    /// What becomes of the upstream's own headers of the same names.
    #[must_use]
    pub fn upstream_headers(&self) -> UpstreamHeaders {
        self.headers.upstream
    }

    /// Sorts the verdicts to the asks; an error where they are not those of the asks.
    fn outcomes<'a>(&'a self, asks: &[Ask], verdicts: &'a [Verdict]) -> Result<Outcomes<'a>, Failure> {
        if verdicts.is_empty() || verdicts.len() != Self::take_count(asks) {
            return Err(Failure::Unreadable);
        }
        let mut verdicts = verdicts.iter();
        let mut enforced = Vec::new();
        let mut enforced_allow = true;
        if asks.iter().any(|ask| !ask.shadow) {
            let first = verdicts.next().ok_or(Failure::Unreadable)?;
            let limits = asks.iter().filter(|ask| !ask.shadow).flat_map(|ask| {
                let policy = self.get(ask).into_iter();
                policy.flat_map(move |policy| policy.limits.iter().map(move |limit| (ask, policy, limit)))
            });
            let limits: Vec<_> = limits.collect();
            let buckets = decided(first, limits.len())?;
            enforced_allow = matches!(first, Verdict::Allowed(_));
            let heard = limits.into_iter().zip(buckets).map(|((ask, policy, limit), bucket)| Heard {
                policy,
                limit,
                bucket,
                cost_tokens: ask.cost_tokens,
            });
            enforced = heard.collect();
            // A denial that no bucket explains, or an allowance that one denies, is none that the contract knows.
            if enforced.iter().all(|heard| heard.bucket.outcome == Outcome::Allowed) != enforced_allow {
                return Err(Failure::Unreadable);
            }
        }
        let mut counts = Vec::with_capacity(asks.len());
        let mut charged = Vec::with_capacity(asks.len());
        for ask in asks {
            let limits = self.get(ask).map_or(0, |policy| policy.limits.len());
            if ask.shadow {
                let verdict = verdicts.next().ok_or(Failure::Unreadable)?;
                let allowed = decided(verdict, limits).map(|_| matches!(verdict, Verdict::Allowed(_)));
                counts.push(match allowed {
                    Ok(true) => Count::Allowed,
                    Ok(false) => Count::ShadowDenied,
                    Err(_) => Count::Failed,
                });
                charged.push(enforced_allow && allowed == Ok(true));
            } else {
                let own = self.get(ask).map(std::ptr::from_ref);
                let mut own = enforced.iter().filter(|heard| own == Some(std::ptr::from_ref(heard.policy)));
                let allowed = own.all(|heard| heard.bucket.outcome == Outcome::Allowed);
                counts.push(if allowed { Count::Allowed } else { Count::Denied });
                charged.push(enforced_allow);
            }
        }
        Ok(Outcomes { enforced, counts, charged })
    }

    fn report(
        &self,
        asks: &[Ask],
        outcomes: &Outcomes<'_>,
        speaking: Option<&Heard<'_>>,
        denied: bool,
    ) -> String {
        let mut report = if denied { "decision=denied".to_owned() } else { "decision=allowed".to_owned() };
        if let Some(heard) = speaking {
            report.push_str(&format!(" policy={} remaining={}", heard.limit.name, heard.bucket.remaining));
            report.push_str(match heard.bucket.outcome {
                Outcome::Allowed => "",
                Outcome::Denied => " reason=used_up",
                Outcome::NeverFits => " reason=never_fits",
            });
        }
        let in_shadow = asks.iter().zip(&outcomes.counts).filter(|(_, count)| **count == Count::ShadowDenied);
        let in_shadow: Vec<&str> =
            in_shadow.filter_map(|(ask, _)| self.get(ask)).map(|policy| policy.name.as_str()).collect();
        if !in_shadow.is_empty() {
            report.push_str(&format!(" shadow_denied={}", in_shadow.join(",")));
        }
        report
    }

    /// The denial for which `heard` speaks; `headers` are those that every answer gets.
    fn denial(&self, heard: &Heard<'_>, violated: &[&str], headers: Vec<Header>, draw: u32) -> Denial {
        let Heard { policy, limit: named, bucket, .. } = heard;
        let wait = bucket.retry_after_us.map(|wait_us| headers::seconds_up(wait_us).max(1));
        // What clients are told to wait, so that all say the same.
        let jitter = self.headers.retry_after.map_or(0, |most| u64::from(draw) % (u64::from(most) + 1));
        let retry_after_seconds = wait.map(|seconds| seconds.saturating_add(jitter));
        let message = match retry_after_seconds {
            Some(1) => format!("the limit {:?} is used up; retry after 1 second", named.name),
            Some(seconds) => format!("the limit {:?} is used up; retry after {seconds} seconds", named.name),
            None => format!("the request costs more than the limit {:?} ever allows at once", named.name),
        };
        let own = policy.denied.as_deref();
        let status = own.map_or(TOO_MANY_REQUESTS, |own| own.status);
        let filling = Filling {
            policy: &named.name,
            limit: &named.text,
            remaining: bucket.remaining,
            retry_after_seconds,
        };
        let default = Denied { status, headers: Vec::new(), body: None };
        let written = own.unwrap_or(&default);
        let retry_after = retry_after_seconds.filter(|_| self.headers.retry_after.is_some());
        let retry_after = retry_after.map(|seconds| ("retry-after".into(), seconds.to_string()));
        let mut all = written.headers(&filling);
        // What the user writes goes before what we would say.
        for header in retry_after.into_iter().chain(headers) {
            if !all.iter().any(|(name, _)| *name == header.0) {
                all.push(header);
            }
        }
        let problem = || {
            let problem = ProblemDetails {
                kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
                title: "Too Many Requests",
                status,
                detail: &message,
                violated_policies: violated,
            };
            problem.to_json()
        };
        let body = written.body.as_ref().map_or_else(problem, |body| body.fill(&filling));
        Denial {
            status,
            grpc_status: GRPC_RESOURCE_EXHAUSTED,
            headers: all,
            body,
            details: format!("sluice_denied_{}", named.name),
            message,
        }
    }
}

/// The buckets of a verdict on `count` of them.
fn decided(verdict: &Verdict, count: usize) -> Result<&[BucketVerdict], Failure> {
    match verdict {
        Verdict::Allowed(buckets) | Verdict::Denied(buckets) if buckets.len() == count => Ok(buckets),
        Verdict::Allowed(_) | Verdict::Denied(_) | Verdict::Leased { .. } => Err(Failure::Unreadable),
        Verdict::Failed(reason) => Err((*reason).into()),
    }
}
