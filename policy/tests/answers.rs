//! What clients and the access log see of a decision.

use contract::{BucketVerdict, FailureReason, Outcome, Verdict};
use policy::{Answer, Ask, Failure, Policies, Quota};
use serde_json::{Value, json};

fn policies() -> Policies {
    let config = json!({
        "sidecar": {"cluster": "sluice"},
        "policies": [
            {"name": "minute", "key": [], "limit": "60 per minute"},
            {"name": "second", "key": [], "limit": "5 per second", "burst": 7, "on_error": "deny"},
        ],
    });
    Policies::from_bytes(config.to_string().as_bytes()).expect("valid")
}

fn asks(policies: &[usize]) -> Vec<Ask> {
    policies.iter().map(|&policy| Ask { policy, key: String::new() }).collect()
}

fn bucket(
    outcome: Outcome,
    remaining: u64,
    retry_after_us: Option<u64>,
    full_after_us: u64,
) -> BucketVerdict {
    BucketVerdict { outcome, remaining, retry_after_us, full_after_us }
}

fn headers(answer: &Answer) -> Vec<String> {
    let denial = answer.denial.iter().flat_map(policy::Denial::headers);
    let quota = answer.quota.iter().flat_map(Quota::headers);
    denial.chain(quota).map(|(name, value)| format!("{name}: {value}")).collect()
}

#[test]
fn the_bucket_nearest_to_denying_speaks_for_an_allowed_request() {
    let verdict = Verdict::Allowed(vec![
        bucket(Outcome::Allowed, 59, Some(0), 1_000_000),
        bucket(Outcome::Allowed, 6, Some(0), 200_000),
    ]);
    let answer = policies().answer(&asks(&[0, 1]), &verdict);
    assert_eq!(answer.denial, None);
    assert_eq!(
        headers(&answer),
        ["x-ratelimit-limit: 7", "x-ratelimit-remaining: 6", "x-ratelimit-reset: 1"]
    );
    assert_eq!(answer.report, "decision=allowed policy=second remaining=6");
}

#[test]
fn a_denial_names_its_policies_and_the_wait_that_will_do() {
    let verdict = Verdict::Denied(vec![
        bucket(Outcome::Denied, 0, Some(999_999), 60_000_000),
        bucket(Outcome::Denied, 0, Some(100_001), 1_400_000),
    ]);
    let answer = policies().answer(&asks(&[0, 1]), &verdict);
    let denial = answer.denial.clone().expect("denied");
    assert_eq!((denial.status, denial.grpc_status), (429, 8));
    assert_eq!(
        headers(&answer),
        [
            "content-type: application/problem+json",
            "retry-after: 1",
            "x-ratelimit-limit: 60",
            "x-ratelimit-remaining: 0",
            "x-ratelimit-reset: 60"
        ]
    );
    let body: Value = serde_json::from_str(&denial.body).expect("JSON");
    assert_eq!(body["violated-policies"], json!(["minute", "second"]));
    assert_eq!(body["detail"], "the limit \"minute\" is used up; retry after 1 second");
    assert_eq!(denial.details, "sluice_denied_minute");
    assert_eq!(answer.report, "decision=denied policy=minute remaining=0");
}

#[test]
fn only_the_buckets_without_room_are_named() {
    let verdict = Verdict::Denied(vec![
        bucket(Outcome::Allowed, 12, Some(0), 48_000_000),
        bucket(Outcome::NeverFits, 7, None, 0),
    ]);
    let denial = policies().answer(&asks(&[0, 1]), &verdict).denial.expect("denied");
    let body: Value = serde_json::from_str(&denial.body).expect("JSON");
    assert_eq!(body["violated-policies"], json!(["second"]));
    assert_eq!(denial.retry_after_seconds, None, "no wait will help");
}

#[test]
fn a_failure_denies_only_where_a_policy_says_so() {
    let policies = policies();
    let passed = policies.failed(&asks(&[0]), Failure::Timeout);
    assert_eq!((passed.denial, passed.quota), (None, None));
    assert_eq!(passed.report, "decision=failed answer=allow reason=timeout");
    let denied = policies.answer(&asks(&[0, 1]), &Verdict::Failed(FailureReason::StoreUnavailable));
    let denial = denied.denial.expect("denied");
    assert_eq!((denial.status, denial.details.as_str()), (503, "sluice_failed_store_unavailable"));
    assert_eq!(denied.report, "decision=failed answer=deny reason=store_unavailable policy=second");
}

#[test]
fn an_answer_that_does_not_fit_what_was_asked_is_a_failure() {
    let one = vec![bucket(Outcome::Allowed, 1, Some(0), 1)];
    for verdict in [
        Verdict::Allowed(vec![]),
        Verdict::Allowed(one.clone()),
        Verdict::Denied([one.clone(), one].concat()),
    ] {
        let answer = policies().answer(&asks(&[0, 1]), &verdict);
        assert!(answer.report.contains("reason=unreadable"), "{verdict:?}: {answer:?}");
    }
}
