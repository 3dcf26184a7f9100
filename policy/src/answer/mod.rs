//! What a client gets to see of a decision, and what the access log says of it.

mod denied;
mod failure;
mod headers;
mod local;

use contract::{BucketVerdict, Outcome, Overridden, Verdict};
use serde::Serialize;

use crate::{Ask, NamedLimit, OnError, Policies, Policy};
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
    pub decided: Decided,
    /// What each of its policies did, by the policy's place in the configuration.
    pub counts: Vec<(usize, Count)>,
    /// For each of its asks, whether the cost was taken.
    pub charged: Vec<bool>,
}

/// Whether a request was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// By the limits that all Envoys share.
    Shared,
    /// By the buckets of this Envoy alone, for want of the others.
    Locally,
    /// It was not.
    No,
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
    /// This Envoy's own bucket allowed it.
    LocalAllowed,
    /// This Envoy's own bucket denied it.
    LocalDenied,
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

/// Who decided a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Sidecar,
    DenyCache,
    Lease,
    /// The buckets of this Envoy, because of a failure.
    Local(Failure),
}

/// What each ask of a request got.
struct Outcomes<'a> {
    /// Every limit of the enforced policies of which something is known, in the order of the configuration; empty where
    /// none is enforced.
    enforced: Vec<Heard<'a>>,
    /// For each ask, what its policy did; `None` where that is not known.
    counts: Vec<Option<Count>>,
    charged: Vec<bool>,
    source: Source,
}

impl Policies {
    /// What becomes of the request that asked `asks` and got `verdicts`, one for each of [`Policies::takes`]. `draw`
    /// is any number: it chooses within what is left to chance.
    ///
    /// # Errors
    /// Why these verdicts decide nothing: then [`Policies::local_asks`] says who does.
    pub fn answer(&self, asks: &[Ask], verdicts: &[Verdict], draw: u32) -> Result<Answer, Failure> {
        self.outcomes(asks, verdicts).map(|outcomes| self.compose(asks, outcomes, draw))
    }

    /// What becomes of the request that asked `asks`, each enforced, of which some are known to be denied: `known` has for
    /// each how its buckets stand, or `None`. What is not known is not told of.
    #[must_use]
    pub fn denied(&self, asks: &[Ask], known: &[Option<Vec<BucketVerdict>>], draw: u32) -> Answer {
        self.known(asks, known, Source::DenyCache, draw)
    }

    /// What becomes of the request that asked `asks`, each enforced, all of which are paid by leases: `known` has for each
    /// how its buckets stand.
    #[must_use]
    pub fn leased(&self, asks: &[Ask], known: &[Option<Vec<BucketVerdict>>], draw: u32) -> Answer {
        self.known(asks, known, Source::Lease, draw)
    }

    fn known(&self, asks: &[Ask], known: &[Option<Vec<BucketVerdict>>], source: Source, draw: u32) -> Answer {
        let charged = vec![source == Source::Lease; asks.len()];
        let mut outcomes =
            Outcomes { enforced: Vec::new(), counts: Vec::with_capacity(asks.len()), charged, source };
        for (index, ask) in asks.iter().enumerate() {
            let (Some(policy), Some(Some(own))) = (self.get(ask), known.get(index)) else {
                outcomes.counts.push(None);
                continue;
            };
            let allowed = outcomes.hear(ask, policy, &policy.limits, own);
            outcomes.counts.push(Some(if allowed { Count::Allowed } else { Count::Denied }));
        }
        self.compose(asks, outcomes, draw)
    }

    fn compose(&self, asks: &[Ask], outcomes: Outcomes<'_>, draw: u32) -> Answer {
        let denying = || outcomes.enforced.iter().filter(|heard| heard.bucket.outcome != Outcome::Allowed);
        // Of those that deny the one with the longest wait speaks: a retry before that would be denied again.
        let denied = denying().max_by_key(|heard| heard.bucket.retry_after_us.unwrap_or(u64::MAX));
        // What is not limited is the farthest from denying.
        let nearest = || {
            let far =
                |heard: &&Heard<'_>| (heard.is_unlimited(), heard.remaining() / heard.cost_tokens.max(1));
            outcomes.enforced.iter().min_by_key(far)
        };
        let speaking = denied.or_else(nearest);
        let report = self.report(asks, &outcomes, speaking, denied.is_some());
        let headers = match speaking {
            Some(speaking) => self.headers.of(&outcomes.enforced, speaking, &report),
            None => self.headers.of_shadow(&report),
        };
        let (denial, headers) = match denied {
            Some(speaking) => {
                let names: Vec<&str> = denying().map(|heard| heard.limit.name.as_str()).collect();
                (Some(self.denial(speaking, &names, headers, draw)), Vec::new())
            }
            None => (None, headers),
        };
        let counts = asks.iter().zip(outcomes.counts);
        let counts = counts.filter_map(|(ask, count)| Some((ask.policy, count?))).collect();
        let decided =
            if matches!(outcomes.source, Source::Local(_)) { Decided::Locally } else { Decided::Shared };
        Answer { denial, headers, report, decided, counts, charged: outcomes.charged }
    }

    /// What becomes of the request that asked `asks` and could not be decided, nor had this Envoy's own buckets to decide: it
    /// is denied unless all of its enforced policies let such requests pass.
    #[must_use]
    pub fn failed(&self, asks: &[Ask], failure: Failure) -> Answer {
        self.undecided(asks, failure, "")
    }

    /// The same where this Envoy's own buckets had to decide, and could not be had either.
    #[must_use]
    pub fn failed_locally(&self, asks: &[Ask], failure: Failure) -> Answer {
        self.undecided(asks, failure, " local=unavailable")
    }

    fn undecided(&self, asks: &[Ask], failure: Failure, locally: &str) -> Answer {
        let enforced = asks.iter().filter(|ask| !ask.shadow).filter_map(|ask| self.get(ask));
        let denying = { enforced }.find(|policy| policy.on_error != OnError::Allow);
        let why = failure.as_str();
        let (denial, report) = match denying {
            None => (None, format!("decision=failed answer=allow reason={why}{locally}")),
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
                let report =
                    format!("decision=failed answer=deny reason={why} policy={}{locally}", policy.name);
                (Some(denial), report)
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
        Answer { denial, headers, report, decided: Decided::No, counts, charged: Vec::new() }
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
        let limits = |ask: &Ask| self.get(ask).map_or(0, |policy| policy.limits.len());
        let enforced: usize = asks.iter().filter(|ask| !ask.shadow).map(limits).sum();
        let (first, mut shadows) = if asks.iter().any(|ask| !ask.shadow) {
            verdicts.split_first().map(|(first, rest)| (Some(first), rest)).ok_or(Failure::Unreadable)?
        } else {
            (None, verdicts)
        };
        let mut rest = first.map_or(Ok(&[][..]), |first| decided(first, enforced))?;
        let enforced_allow = first.is_none_or(|first| matches!(first, Verdict::Allowed(_)));
        let mut outcomes = Outcomes {
            enforced: Vec::with_capacity(enforced),
            counts: Vec::with_capacity(asks.len()),
            charged: Vec::with_capacity(asks.len()),
            source: Source::Sidecar,
        };
        for ask in asks {
            if ask.shadow {
                let (verdict, after) = shadows.split_first().ok_or(Failure::Unreadable)?;
                shadows = after;
                let own = decided(verdict, limits(ask));
                let allowed = own.map(|_| matches!(verdict, Verdict::Allowed(_)));
                outcomes.counts.push(Some(match allowed {
                    Ok(true) => Count::Allowed,
                    Ok(false) => Count::ShadowDenied,
                    Err(_) => Count::Failed,
                }));
                outcomes.charged.push(enforced_allow && allowed == Ok(true) && own.is_ok_and(was_taken));
            } else {
                let policy = self.get(ask).ok_or(Failure::Unreadable)?;
                let (own, after) = rest.split_at_checked(policy.limits.len()).ok_or(Failure::Unreadable)?;
                rest = after;
                let allowed = outcomes.hear(ask, policy, &policy.limits, own);
                outcomes.counts.push(Some(if allowed { Count::Allowed } else { Count::Denied }));
                outcomes.charged.push(enforced_allow && was_taken(own));
            }
        }
        // A denial that no bucket explains, or an allowance that one denies, is none that the contract knows.
        let all_allow = outcomes.enforced.iter().all(|heard| heard.bucket.outcome == Outcome::Allowed);
        if all_allow == enforced_allow { Ok(outcomes) } else { Err(Failure::Unreadable) }
    }

    fn report(
        &self,
        asks: &[Ask],
        outcomes: &Outcomes<'_>,
        speaking: Option<&Heard<'_>>,
        denied: bool,
    ) -> String {
        let mut report = String::with_capacity(64);
        report.push_str(if denied { "decision=denied" } else { "decision=allowed" });
        if let Some(heard) = speaking {
            report.push_str(" policy=");
            report.push_str(&heard.limit.name);
            if !heard.is_unlimited() {
                report.push_str(" remaining=");
                report.push_str(itoa::Buffer::new().format(heard.remaining()));
            }
            report.push_str(match heard.bucket.outcome {
                Outcome::Allowed => "",
                _ if heard.is_blocked() => " reason=blocked",
                Outcome::Denied => " reason=used_up",
                Outcome::NeverFits => " reason=never_fits",
            });
            report.push_str(match heard.overridden() {
                Some(Overridden::Limit { .. }) => " override=limit",
                Some(Overridden::Unlimited) => " override=unlimited",
                Some(Overridden::Blocked) | None => "",
            });
        }
        report.push_str(match outcomes.source {
            Source::Sidecar => "",
            Source::DenyCache => " source=deny_cache",
            Source::Lease => " source=lease",
            Source::Local(_) => " source=local",
        });
        if let Source::Local(failure) = outcomes.source {
            report.push_str(" failure=");
            report.push_str(failure.as_str());
        }
        let in_shadow =
            asks.iter().zip(&outcomes.counts).filter(|(_, count)| **count == Some(Count::ShadowDenied));
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
        let limit = heard.limit_text();
        let wait = bucket.retry_after_us.map(|wait_us| headers::seconds_up(wait_us).max(1));
        // What clients are told to wait, so that all say the same.
        let jitter = self.headers.retry_after.map_or(0, |most| u64::from(draw) % (u64::from(most) + 1));
        let retry_after_seconds = wait.map(|seconds| seconds.saturating_add(jitter));
        let message = match retry_after_seconds {
            _ if heard.is_blocked() => blocked(&named.name, retry_after_seconds),
            Some(1) => format!("the limit {:?} is used up; retry after 1 second", named.name),
            Some(seconds) => format!("the limit {:?} is used up; retry after {seconds} seconds", named.name),
            None => format!("the request costs more than the limit {:?} ever allows at once", named.name),
        };
        let own = policy.denied.as_deref();
        let status = own.map_or(TOO_MANY_REQUESTS, |own| own.status);
        let filling =
            Filling { policy: &named.name, limit: &limit, remaining: heard.remaining(), retry_after_seconds };
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

impl<'a> Outcomes<'a> {
    /// Adds how the buckets of an enforced ask stand; whether they allow it.
    fn hear(
        &mut self,
        ask: &Ask,
        policy: &'a Policy,
        limits: &'a [NamedLimit],
        own: &'a [BucketVerdict],
    ) -> bool {
        let cost_tokens = ask.cost_tokens;
        let limits = limits.iter().zip(own);
        self.enforced.extend(limits.map(|(limit, bucket)| Heard { policy, limit, bucket, cost_tokens }));
        own.iter().all(|bucket| bucket.outcome == Outcome::Allowed)
    }
}

/// Whether an allowed cost was taken from some of these buckets: of what is not limited nothing is, so there is nothing to
/// return to it either. Of several limits the one that is limited decides, lest what was taken there could not be settled.
fn was_taken(own: &[BucketVerdict]) -> bool {
    own.iter().any(|bucket| bucket.overridden != Some(Overridden::Unlimited))
}

/// Why a request is denied that an operator blocks.
fn blocked(name: &str, retry_after_seconds: Option<u64>) -> String {
    match retry_after_seconds {
        Some(1) => format!("blocked under the limit {name:?}; retry after 1 second"),
        Some(seconds) => format!("blocked under the limit {name:?}; retry after {seconds} seconds"),
        None => format!("blocked under the limit {name:?}"),
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
