//! What clients and the access log see of a decision.

use contract::{BucketVerdict, FailureReason, Outcome, Overridden, Verdict};
use policy::{Answer, Ask, Count, Decided, Failure, Policies, UpstreamHeaders};
use serde_json::{Value, json};

use crate::sent::read;

fn policies_with(fields: Value) -> Policies {
    let mut config = json!({
        "sidecar": {"cluster": "sluice"},
        "policies": [
            {"name": "minute", "key": [], "limit": "60 per minute"},
            {"name": "second", "key": [], "limit": "5 per second", "burst": 7, "on_error": "deny"},
            {"name": "tried", "key": [], "limit": "1 per day", "mode": "shadow"},
        ],
    });
    for (name, value) in fields.as_object().expect("fields") {
        config[name] = value.clone();
    }
    read(&config).expect("valid")
}

fn policies() -> Policies {
    policies_with(json!({}))
}

/// Asks of these policies; the third one is in shadow.
fn asks(policies: &[usize]) -> Vec<Ask> {
    let ask = |&policy: &usize| Ask { policy, key: String::new(), cost_tokens: 1, shadow: policy == 2 };
    policies.iter().map(ask).collect()
}

fn bucket(
    outcome: Outcome,
    remaining: u64,
    retry_after_us: Option<u64>,
    full_after_us: u64,
) -> BucketVerdict {
    BucketVerdict { outcome, remaining, retry_after_us, full_after_us, overridden: None }
}

/// One bucket with room, and one without.
fn room() -> BucketVerdict {
    bucket(Outcome::Allowed, 59, Some(0), 1_000_000)
}

fn no_room() -> BucketVerdict {
    bucket(Outcome::Denied, 0, Some(2_000_001), 60_000_000)
}

fn lines(headers: &[policy::Header]) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

fn denial_lines(answer: &Answer) -> Vec<String> {
    lines(&answer.denial.as_ref().expect("denied").headers)
}

#[test]
fn the_bucket_nearest_to_denying_speaks_and_all_are_listed() {
    let verdict = Verdict::Allowed(vec![room(), bucket(Outcome::Allowed, 6, Some(0), 200_000)]);
    let answer = policies().answer(&asks(&[0, 1]), &[verdict], 0).expect("decided");
    assert_eq!(answer.denial, None);
    assert_eq!(
        lines(&answer.headers),
        [
            "x-ratelimit-limit: 7",
            "x-ratelimit-remaining: 6",
            "x-ratelimit-reset: 1",
            "ratelimit-policy: \"minute\";q=60;w=60, \"second\";q=5;w=1",
            "ratelimit: \"minute\";r=59;t=1, \"second\";r=6;t=1",
        ]
    );
    assert_eq!(answer.report, "decision=allowed policy=second remaining=6");
    assert_eq!(answer.counts, [(0, Count::Allowed), (1, Count::Allowed)]);
    assert_eq!(answer.charged, [true, true]);
}

#[test]
fn nearest_is_who_has_room_for_the_fewest_more() {
    let mut asks = asks(&[0, 1]);
    asks[0].cost_tokens = 20;
    let verdict = Verdict::Allowed(vec![room(), bucket(Outcome::Allowed, 6, Some(0), 200_000)]);
    let answer = policies().answer(&asks, &[verdict], 0).expect("decided");
    assert!(answer.report.contains("policy=minute remaining=59"), "two more of 20, against six of 1");
}

#[test]
fn windows_are_told_in_whole_seconds() {
    for (limit, expected) in [
        ("5 per 12s", "\"p\";q=5;w=12"),
        ("1 per 100ms", "\"p\";q=10;w=1"),
        ("3 per 1500ms", "\"p\";q=4;w=2"),
        ("1000/day", "\"p\";q=1000;w=86400"),
    ] {
        let policies = policies_with(json!({"policies": [{"name": "p", "key": [], "limit": limit}]}));
        let answer = policies.answer(&asks(&[0]), &[Verdict::Allowed(vec![room()])], 0).expect("decided");
        assert!(
            lines(&answer.headers).contains(&format!("ratelimit-policy: {expected}")),
            "{limit}: {answer:?}"
        );
    }
}

#[test]
fn a_denial_names_its_policies_and_the_wait_that_will_do() {
    let verdict = Verdict::Denied(vec![
        bucket(Outcome::Denied, 0, Some(999_999), 60_000_000),
        bucket(Outcome::Denied, 0, Some(100_001), 1_400_000),
    ]);
    let answer = policies().answer(&asks(&[0, 1]), &[verdict], 0).expect("decided");
    let denial = answer.denial.clone().expect("denied");
    assert_eq!((denial.status, denial.grpc_status), (429, 8));
    assert_eq!(
        denial_lines(&answer),
        [
            "content-type: application/problem+json",
            "retry-after: 1",
            "x-ratelimit-limit: 60",
            "x-ratelimit-remaining: 0",
            "x-ratelimit-reset: 60",
            "ratelimit-policy: \"minute\";q=60;w=60, \"second\";q=5;w=1",
            "ratelimit: \"minute\";r=0;t=60, \"second\";r=0;t=2",
        ]
    );
    let body: Value = serde_json::from_str(&denial.body).expect("JSON");
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(body["violated-policies"], json!(["minute", "second"]));
    assert_eq!(body["detail"], "the limit \"minute\" is used up; retry after 1 second");
    assert_eq!(denial.message, "the limit \"minute\" is used up; retry after 1 second");
    assert_eq!(denial.details, "sluice_denied_minute");
    assert_eq!(answer.report, "decision=denied policy=minute remaining=0 reason=used_up");
    assert_eq!(answer.counts, [(0, Count::Denied), (1, Count::Denied)]);
    assert_eq!(answer.charged, [false, false]);
}

#[test]
fn only_the_buckets_without_room_are_named() {
    let verdict = Verdict::Denied(vec![
        bucket(Outcome::Allowed, 12, Some(0), 48_000_000),
        bucket(Outcome::NeverFits, 7, None, 0),
    ]);
    let answer = policies().answer(&asks(&[0, 1]), &[verdict], 0).expect("decided");
    let body: Value = serde_json::from_str(&answer.denial.as_ref().expect("denied").body).expect("JSON");
    assert_eq!(body["violated-policies"], json!(["second"]));
    assert!(!denial_lines(&answer).iter().any(|line| line.starts_with("retry-after")), "no wait will help");
    assert_eq!(answer.report, "decision=denied policy=second remaining=7 reason=never_fits");
    assert_eq!(answer.counts, [(0, Count::Allowed), (1, Count::Denied)]);
}

/// A bucket whose limit an operator has overridden.
fn overridden(by: Overridden, bucket: BucketVerdict) -> BucketVerdict {
    BucketVerdict { overridden: Some(by), ..bucket }
}

const RAISED: Overridden = Overridden::Limit { tokens: 1_000, period_us: 60_000_000, burst: 2_000 };

#[test]
fn another_limit_is_told_as_the_limit_that_holds() {
    let policies = policies_with(json!({"denied": {"body": "%LIMIT%"}}));
    let of = |verdict| policies.answer(&asks(&[0, 1]), &[verdict], 0).expect("decided");
    let allowed = of(Verdict::Allowed(vec![
        overridden(RAISED, bucket(Outcome::Allowed, 3, Some(0), 90_000_000)),
        bucket(Outcome::Allowed, 6, Some(0), 200_000),
    ]));
    assert_eq!(
        lines(&allowed.headers),
        [
            "x-ratelimit-limit: 2000",
            "x-ratelimit-remaining: 3",
            "x-ratelimit-reset: 90",
            "ratelimit-policy: \"minute\";q=1000;w=60, \"second\";q=5;w=1",
            "ratelimit: \"minute\";r=3;t=90, \"second\";r=6;t=1",
        ]
    );
    assert_eq!(allowed.report, "decision=allowed policy=minute remaining=3 override=limit");
    let denied = of(Verdict::Denied(vec![overridden(RAISED, no_room()), room()]));
    assert_eq!(denied.report, "decision=denied policy=minute remaining=0 reason=used_up override=limit");
    assert_eq!(denied.denial.expect("denied").body, "1000 per minute");
}

#[test]
fn of_what_is_not_limited_nothing_is_told() {
    let unlimited = || overridden(Overridden::Unlimited, bucket(Outcome::Allowed, 0, Some(0), 60_000_000));
    let of = |verdict| policies().answer(&asks(&[0, 1]), &[verdict], 0).expect("decided");
    let one = of(Verdict::Allowed(vec![unlimited(), bucket(Outcome::Allowed, 6, Some(0), 200_000)]));
    assert_eq!(one.report, "decision=allowed policy=second remaining=6", "the other is nearer to denying");
    assert!(lines(&one.headers).contains(&"ratelimit: \"second\";r=6;t=1".to_owned()), "{one:?}");
    assert_eq!(one.charged, [false, true], "nothing was taken, so nothing is to be returned");
    let all = of(Verdict::Allowed(vec![unlimited(), unlimited()]));
    assert_eq!(all.report, "decision=allowed policy=minute override=unlimited");
    assert_eq!(lines(&all.headers), [""; 0]);
    let denied = of(Verdict::Denied(vec![unlimited(), no_room()]));
    let told = denial_lines(&denied);
    assert!(told.contains(&"ratelimit-policy: \"second\";q=5;w=1".to_owned()), "{told:?}");
}

#[test]
fn what_is_blocked_is_denied_and_says_so() {
    let blocked = |wait_us| overridden(Overridden::Blocked, bucket(Outcome::Denied, 60, wait_us, 9_000_000));
    let of = |verdict| policies().answer(&asks(&[0]), &[verdict], 0).expect("decided");
    let detail = |answer: &Answer| {
        let body: Value = serde_json::from_str(&answer.denial.as_ref().expect("denied").body).expect("JSON");
        body["detail"].as_str().expect("a text").to_owned()
    };
    let for_a_while = of(Verdict::Denied(vec![blocked(Some(8_000_001))]));
    assert_eq!(for_a_while.report, "decision=denied policy=minute remaining=0 reason=blocked");
    assert_eq!(detail(&for_a_while), "blocked under the limit \"minute\"; retry after 9 seconds");
    assert!(denial_lines(&for_a_while).contains(&"retry-after: 9".to_owned()));
    assert!(denial_lines(&for_a_while).contains(&"x-ratelimit-remaining: 0".to_owned()));
    let for_good = of(Verdict::Denied(vec![blocked(None)]));
    assert_eq!(detail(&for_good), "blocked under the limit \"minute\"");
    assert!(!denial_lines(&for_good).iter().any(|line| line.starts_with("retry-after")), "nobody has said");
    assert_eq!(for_good.counts, [(0, Count::Denied)]);
}

#[test]
fn of_several_limits_the_one_that_denies_is_named() {
    let policies = policies_with(json!({"policies": [
        {"name": "p", "key": [], "limits": [{"limit": "10 per second"}, {"limit": "1000 per day"}]},
    ]}));
    let answer =
        policies.answer(&asks(&[0]), &[Verdict::Denied(vec![room(), no_room()])], 0).expect("decided");
    assert_eq!(answer.report, "decision=denied policy=p.1d remaining=0 reason=used_up");
    assert_eq!(answer.denial.expect("denied").details, "sluice_denied_p.1d");
    assert_eq!(answer.counts, [(0, Count::Denied)]);
}

#[test]
fn a_shadow_never_denies_and_is_reported() {
    let verdicts = [Verdict::Allowed(vec![room()]), Verdict::Denied(vec![no_room()])];
    let answer = policies().answer(&asks(&[0, 2]), &verdicts, 0).expect("decided");
    assert_eq!(answer.denial, None);
    assert_eq!(answer.report, "decision=allowed policy=minute remaining=59 shadow_denied=tried");
    assert_eq!(answer.counts, [(0, Count::Allowed), (2, Count::ShadowDenied)]);
    assert_eq!(answer.charged, [true, false]);
    assert!(!lines(&answer.headers).concat().contains("tried"), "clients are not told of it");

    let alone = policies().answer(&asks(&[2]), &[Verdict::Denied(vec![no_room()])], 0).expect("decided");
    assert_eq!((alone.denial, lines(&alone.headers)), (None, vec![]));
    assert_eq!(alone.report, "decision=allowed shadow_denied=tried");

    // What the enforced policy denied was not taken from the shadow either.
    let verdicts = [Verdict::Denied(vec![no_room()]), Verdict::Allowed(vec![room()])];
    let answer = policies().answer(&asks(&[0, 2]), &verdicts, 0).expect("decided");
    assert_eq!(answer.counts, [(0, Count::Denied), (2, Count::Allowed)]);
    assert_eq!(answer.charged, [false, false]);
}

#[test]
fn a_shadow_that_fails_denies_nobody() {
    let failed = || Verdict::Failed(FailureReason::StoreFull);
    let answer =
        policies().answer(&asks(&[1, 2]), &[Verdict::Allowed(vec![room()]), failed()], 0).expect("decided");
    assert_eq!((answer.denial, &answer.counts[1]), (None, &(2, Count::Failed)));
    let strict = policies_with(json!({"on_error": "deny"}));
    assert_eq!(strict.failed(&asks(&[2]), Failure::Timeout).denial, None);
}

#[test]
fn a_failure_denies_only_where_a_policy_says_so() {
    let policies = policies();
    let passed = policies.failed(&asks(&[0]), Failure::Timeout);
    assert_eq!((passed.denial, passed.headers, passed.decided), (None, vec![], Decided::No));
    assert_eq!(passed.report, "decision=failed answer=allow reason=timeout");
    let failed = policies.answer(&asks(&[0, 1]), &[Verdict::Failed(FailureReason::StoreUnavailable)], 0);
    assert_eq!(failed, Err(Failure::StoreUnavailable));
    let denied = policies.failed(&asks(&[0, 1]), Failure::StoreUnavailable);
    let denial = denied.denial.expect("denied");
    assert_eq!((denial.status, denial.details.as_str()), (503, "sluice_failed_store_unavailable"));
    assert_eq!(denied.report, "decision=failed answer=deny reason=store_unavailable policy=second");
    assert_eq!(denied.counts, [(0, Count::Failed), (1, Count::Failed)]);
}

#[test]
fn an_answer_that_does_not_fit_what_was_asked_is_a_failure() {
    let cases = [
        vec![],
        vec![Verdict::Allowed(vec![])],
        vec![Verdict::Allowed(vec![room()])],
        vec![Verdict::Denied(vec![room(), room()])],
        vec![Verdict::Allowed(vec![room(), no_room()])],
        vec![Verdict::Allowed(vec![room(), room()]), Verdict::Allowed(vec![room()])],
    ];
    for verdicts in cases {
        let answer = policies().answer(&asks(&[0, 1]), &verdicts, 0);
        assert_eq!(answer, Err(Failure::Unreadable), "{verdicts:?}");
    }
}

#[test]
fn each_header_can_be_switched() {
    let with = |headers: Value| {
        let policies = policies_with(json!({"headers": headers}));
        let answer = |verdict| policies.answer(&asks(&[0]), &[verdict], 5).expect("decided");
        (
            lines(&answer(Verdict::Allowed(vec![room()])).headers),
            denial_lines(&answer(Verdict::Denied(vec![no_room()]))),
        )
    };
    let (allowed, denied) = with(json!({"x_ratelimit": false, "ratelimit": false, "retry_after": false}));
    assert_eq!((allowed, denied), (vec![], vec!["content-type: application/problem+json".to_owned()]));
    let (allowed, denied) = with(json!({"x_ratelimit": false, "retry_after": {"jitter": "3s"}}));
    assert_eq!(allowed, ["ratelimit-policy: \"minute\";q=60;w=60", "ratelimit: \"minute\";r=59;t=1"]);
    assert!(denied.contains(&"retry-after: 4".to_owned()), "3 seconds, and 5 drawn of 0 to 3: {denied:?}");
    let (allowed, denied) = with(json!({"x_ratelimit": false, "ratelimit": false, "debug": true}));
    assert_eq!(allowed, ["x-sluice-decision: decision=allowed policy=minute remaining=59"]);
    assert!(
        denied.contains(
            &"x-sluice-decision: decision=denied policy=minute remaining=0 reason=used_up".to_owned()
        ),
        "{denied:?}"
    );
    let of = |upstream: &str| policies_with(json!({"headers": {"upstream": upstream}})).upstream_headers();
    assert_eq!(policies().upstream_headers(), UpstreamHeaders::Replace);
    assert_eq!([of("keep"), of("append")], [UpstreamHeaders::Keep, UpstreamHeaders::Append]);
}

#[test]
fn a_denial_can_be_written_by_the_user() {
    let own = json!({
        "status": 403,
        "headers": {"Content-Type": "application/json", "X-Why": "%POLICY%: %LIMIT%", "retry-after": "later"},
        "body": "{\"left\": %REMAINING%, \"after\": %RETRY_AFTER%, \"used\": \"100%%\"}",
    });
    let policies =
        policies_with(json!({"denied": own, "headers": {"x_ratelimit": false, "ratelimit": false}}));
    let answer = policies.answer(&asks(&[0]), &[Verdict::Denied(vec![no_room()])], 0).expect("decided");
    let denial = answer.denial.clone().expect("denied");
    assert_eq!((denial.status, denial.grpc_status), (403, 8));
    assert_eq!(denial.body, "{\"left\": 0, \"after\": 3, \"used\": \"100%\"}");
    assert_eq!(
        denial_lines(&answer),
        ["content-type: application/json", "x-why: minute: 60 per minute", "retry-after: later"]
    );
    let never = Verdict::Denied(vec![bucket(Outcome::NeverFits, 9, None, 0)]);
    let body = policies.answer(&asks(&[0]), &[never], 0).expect("decided").denial.expect("denied").body;
    assert_eq!(body, "{\"left\": 9, \"after\": null, \"used\": \"100%\"}");
}

#[test]
fn a_policys_own_answer_goes_before_the_filters() {
    let policies = policies_with(json!({
        "denied": {"body": "all"},
        "policies": [
            {"name": "a", "key": [], "limit": "1 per day", "denied": {"status": 420}},
            {"name": "b", "key": [], "limit": "1 per day"},
        ],
    }));
    let denial = |policy| {
        policies
            .answer(&asks(&[policy]), &[Verdict::Denied(vec![no_room()])], 0)
            .expect("decided")
            .denial
            .expect("denied")
    };
    assert_eq!((denial(0).status, denial(0).body.starts_with("{\"type\"")), (420, true), "as a whole");
    assert_eq!((denial(1).status, denial(1).body.as_str()), (429, "all"));
    assert_eq!(denial(1).headers[0].1, "text/plain; charset=utf-8");
}

#[test]
fn a_mistake_in_an_answer_is_told() {
    let told = |fields: Value| {
        let mut config = json!({"sidecar": {"cluster": "s"}, "policies": [{"name": "p", "key": [], "limit": "1 per day"}]});
        for (name, value) in fields.as_object().expect("fields") {
            config[name] = value.clone();
        }
        read(&config).expect_err("refused")
    };
    let cases = [
        (
            json!({"denied": {"status": 200}}),
            "denied.status: found 200; a denied request is answered with 400 to 599",
        ),
        (
            json!({"denied": {"body": "%POLCY%"}}),
            "denied.body: found %POLCY%; what is filled in is %POLICY%, %LIMIT%, %REMAINING%, %RETRY_AFTER%; did you mean %POLICY%?",
        ),
        (json!({"denied": {"body": "100% sure"}}), "denied.body: found a percent sign that begins none of"),
        (json!({"denied": {"body": "100% of %LIMIT%"}}), "write %% for a percent sign"),
        (
            json!({"denied": {"headers": {"x": "a\nb"}}}),
            "denied.headers.x: found 3 bytes; a value has at most 1024, and neither line breaks",
        ),
        (
            json!({"denied": {"headers": {"a b": "c"}}}),
            "denied.headers.a b: found \"a b\"; write the name of a header",
        ),
        (
            json!({"denied": {"headers": {"Content-Length": "5"}}}),
            "denied.headers.Content-Length: found \"Content-Length\", which Envoy itself sets",
        ),
        (
            json!({"denied": {"headers": {"x-A": "1", "x-a": "2"}}}),
            "denied.headers.x-a: found \"x-a\" twice, in capitals and not",
        ),
        (
            json!({"denied": {"body": "x".repeat(20_000)}}),
            "denied.body: found 20000 bytes; a body has at most 16384",
        ),
        (
            json!({"headers": {"retry_after": {"jitter": "1500ms"}}}),
            "headers.retry_after.jitter: found 1s 500ms; it must be whole seconds",
        ),
        (
            json!({"headers": {"retry_after": "yes"}}),
            "headers.retry_after: found \"yes\"; expected true, false or a mapping such as { jitter: 5s }",
        ),
        (
            json!({"headers": {"upstream": "merge"}}),
            "headers.upstream: found `merge`; expected one of `keep`, `replace`, `append`",
        ),
        (
            json!({"headers": {"x-ratelimit": true}}),
            "headers.x-ratelimit: found `x-ratelimit`; expected one of `x_ratelimit`",
        ),
        (json!({"hash_secret": "short"}), "hash_secret: found 5 bytes; write at least 16"),
    ];
    for (fields, expected) in cases {
        let found = told(fields.clone());
        assert!(found.contains(expected), "{fields}:\n  {found}\ndoes not say\n  {expected}");
    }
}
