//! What the language says of an Envoy's own buckets, and what a request gets that they decide.

use bucket::Limit;
use contract::{BucketVerdict, Outcome};
use policy::{Answer, Ask, Count, Decided, Failure, OnError, Policies};
use serde_json::{Value, json};

use crate::sent::read;

fn config(policy: Value) -> Value {
    let mut config = json!({
        "sidecar": {"cluster": "sluice"},
        "policies": [{"name": "all", "key": [], "limit": "60 per minute", "on_error": "local"}],
    });
    let fields = policy.as_object().expect("fields").clone();
    config["policies"][0].as_object_mut().expect("a map").extend(fields);
    config
}

fn with(fields: Value) -> Policies {
    read(&config(fields)).expect("valid")
}

fn refused(config: &Value) -> String {
    read(config).expect_err("refused").to_string()
}

fn limits(policies: &Policies) -> Vec<Limit> {
    policies.iter().flat_map(policy::Policy::local_limits).map(|named| named.limit).collect()
}

#[test]
fn without_a_share_the_whole_limit_is_allowed() {
    let policies = with(json!({}));
    assert_eq!(policies.iter().next().map(policy::Policy::on_error), Some(OnError::Local));
    assert_eq!(limits(&policies), [Limit::new(60, 60_000_000, 60).expect("a limit")]);
    assert_eq!(policies.local().buckets, 16_384);
    let none = with(json!({"on_error": "deny"}));
    assert_eq!(limits(&none), []);
}

#[test]
fn a_share_is_exact_in_its_rate_and_rounded_down_in_its_burst() {
    let limit = |tokens, period_us, burst| Limit::new(tokens, period_us, burst).expect("a limit");
    for (percent, expected) in [
        (json!(34), limit(60 * 34, 6_000_000_000, 20)),
        (json!("0.5"), limit(60 * 5, 60_000_000_000, 1)),
        (json!(100), limit(60, 60_000_000, 60)),
    ] {
        let policies = with(json!({"local": {"share_percent": percent}}));
        assert_eq!(limits(&policies), [expected], "{percent}");
    }
    let several = json!([{"limit": "10 per second", "burst": 20}, {"limit": "1000 per day"}]);
    let mut config = config(json!({"limits": several}));
    config["policies"][0].as_object_mut().expect("a map").remove("limit");
    config["local"] = json!({"share_percent": 25, "buckets": 16});
    let policies = read(&config).expect("valid");
    assert_eq!(limits(&policies), [limit(250, 100_000_000, 5), limit(250, 86_400_000_000, 250)]);
    assert_eq!(policies.local().buckets, 16);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (fields, expected) in [
        (
            json!({"local": {"share_percent": 0}}),
            "policies[0].local.share_percent: found 0; write more than 0",
        ),
        (json!({"local": {}}), "policies[0].local: the field `share_percent` is missing"),
        (
            json!({"on_error": "allow", "local": {"share_percent": 5}}),
            "policies[0].local: found a share in a policy",
        ),
        (
            json!({"limit": "1000003 per day", "burst": 100_000, "local": {"share_percent": 33}}),
            "policies[0].local.share_percent: a share of 33 percent of the limit \"all\" cannot be counted exactly",
        ),
    ] {
        let message = refused(&config(fields));
        assert!(message.starts_with(expected), "{message}");
    }
    for (local, expected) in [
        (json!({"buckets": 15}), "local.buckets: found 15; it must be between 16 and 1000000"),
        (json!({"share_percent": 0}), "local.share_percent: found 0; write more than 0"),
    ] {
        let mut config = config(json!({}));
        config["local"] = local;
        let message = refused(&config);
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn what_nothing_uses_is_warned_of() {
    let mut config = config(json!({"on_error": "deny"}));
    config["local"] = json!({"buckets": 100});
    let warnings = |config: &Value| read(config).expect("valid").warnings().len();
    assert_eq!(warnings(&config), 1);
    config["on_error"] = json!("local");
    assert_eq!(warnings(&config), 1, "the policy says something else");
    config["policies"][0]["on_error"] = json!("local");
    assert_eq!(warnings(&config), 0);
}

/// `a` and `b` decide locally, `c` lets pass, `d` denies, `e` is in shadow.
fn five() -> Policies {
    let policy = |name: &str, on_error: &str| json!({"name": name, "key": [], "limit": "10 per minute", "on_error": on_error});
    let mut shadow = policy("e", "deny");
    shadow["mode"] = json!("shadow");
    let mut share = policy("a", "local");
    share["local"] = json!({"share_percent": 45});
    let policies = json!([share, policy("b", "local"), policy("c", "allow"), policy("d", "deny"), shadow]);
    read(&json!({"sidecar": {"cluster": "sluice"}, "policies": policies})).expect("valid")
}

fn asks(places: &[usize]) -> Vec<Ask> {
    let ask = |&policy: &usize| Ask { policy, key: String::new(), cost_tokens: 1, shadow: policy == 4 };
    places.iter().map(ask).collect()
}

fn bucket(allowed: bool) -> Option<Vec<BucketVerdict>> {
    let (outcome, remaining) = if allowed { (Outcome::Allowed, 3) } else { (Outcome::Denied, 0) };
    let retry_after_us = Some(if allowed { 0 } else { 2_000_000 });
    Some(vec![BucketVerdict {
        outcome,
        remaining,
        retry_after_us,
        full_after_us: 9_000_000,
        overridden: None,
    }])
}

fn locally(places: &[usize], known: &[Option<Vec<BucketVerdict>>]) -> Answer {
    five().locally(&asks(places), known, Failure::Timeout, 0)
}

#[test]
fn those_that_say_so_decide_unless_another_denies() {
    let local = |places: &[usize]| five().local_asks(&asks(places));
    assert_eq!(local(&[0, 1, 2, 4]), [0, 1]);
    assert_eq!(local(&[2, 1]), [1]);
    assert_eq!(local(&[0, 1, 3]), [0; 0], "one denies whatever they say");
    assert_eq!(local(&[2]), [0; 0]);
    assert_eq!(five().failed(&asks(&[0, 2]), Failure::Timeout).denial.map(|denial| denial.status), Some(503));
}

#[test]
fn a_client_is_told_of_the_bucket_that_decides() {
    let answer = locally(&[0, 2, 4], &[bucket(true), None, None]);
    assert_eq!((answer.denial, answer.decided), (None, Decided::Locally));
    assert_eq!(answer.report, "decision=allowed policy=a remaining=3 source=local failure=timeout");
    let told: Vec<String> = answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(
        told,
        [
            "x-ratelimit-limit: 4",
            "x-ratelimit-remaining: 3",
            "x-ratelimit-reset: 9",
            "ratelimit-policy: \"a\";q=4;w=60",
            "ratelimit: \"a\";r=3;t=9",
        ]
    );
    assert_eq!(answer.counts, [(0, Count::LocalAllowed), (2, Count::Failed), (4, Count::Failed)]);
    assert_eq!(answer.charged, [false; 3], "nothing was taken of what all share");
}

#[test]
fn the_window_that_is_told_is_one_in_which_the_share_comes_back() {
    for (limit, percent, item) in [
        ("60 per minute", "25", "q=15;w=60"),
        ("1 per minute", "25", "q=1;w=240"),
        ("1 per minute", "33.3", "q=1;w=181"),
        ("10 per 100ms", "45", "q=45;w=1"),
        ("1 per 100ms", "0.01", "q=1;w=1000"),
        ("1 per minute", "100", "q=1;w=60"),
    ] {
        let policies = with(json!({"limit": limit, "burst": 10_000, "local": {"share_percent": percent}}));
        let asks = [Ask { policy: 0, key: String::new(), cost_tokens: 1, shadow: false }];
        let answer = policies.locally(&asks, &[bucket(true)], Failure::Timeout, 0);
        let expected = ("ratelimit-policy".into(), format!("\"all\";{item}"));
        assert!(answer.headers.contains(&expected), "{limit} at {percent}: {:?}", answer.headers);
    }
}

#[test]
fn what_they_deny_is_denied_as_the_limit_denies() {
    let answer = locally(&[0, 1], &[bucket(true), bucket(false)]);
    let denial = answer.denial.expect("denied");
    assert_eq!((denial.status, denial.details.as_str()), (429, "sluice_denied_b"));
    assert!(denial.headers.contains(&("retry-after".into(), "2".to_owned())), "{:?}", denial.headers);
    assert_eq!(
        answer.report,
        "decision=denied policy=b remaining=0 reason=used_up source=local failure=timeout"
    );
    assert_eq!(answer.counts, [(0, Count::LocalAllowed), (1, Count::LocalDenied)]);
}

#[test]
fn a_denial_tells_the_share_that_is_allowed() {
    let policies = with(
        json!({"limit": "10 per minute", "local": {"share_percent": 45}, "denied": {"body": "%LIMIT%"}}),
    );
    let denial = policies.locally(&asks(&[0]), &[bucket(false)], Failure::Timeout, 0).denial.expect("denied");
    assert_eq!(denial.body, "4.5 per minute");
}
