//! What the language says of the deny cache, of leases and of callouts, and what a request gets that was not asked for.

use std::time::Duration;

use contract::{BucketVerdict, Kind, LeaseTerms, Leased, Outcome};
use policy::{Ask, Count, Decided, Lease};
use serde_json::{Value, json};

use crate::sent::{one, policies, read};

fn config(fields: Value) -> Value {
    let mut config = json!({
        "sidecar": {"cluster": "sluice"},
        "policies": [{"name": "all", "key": [], "limit": "100 per minute"}],
    });
    config.as_object_mut().expect("a map").extend(fields.as_object().expect("fields").clone());
    config
}

fn lease(written: Value) -> Option<Lease> {
    one("lease", written).iter().next().and_then(policy::Policy::lease)
}

#[test]
fn without_a_word_denials_are_remembered_and_nothing_is_leased() {
    let policies = read(&config(json!({}))).expect("valid");
    assert_eq!(
        (policies.deny_cache().ceiling, policies.deny_cache().entries),
        (Duration::from_millis(500), 4_096)
    );
    assert_eq!(policies.sidecar().in_flight, 1);
    assert_eq!(policies.iter().next().and_then(policy::Policy::lease), None);
}

#[test]
fn each_is_read_as_it_is_written() {
    let written = json!({
        "sidecar": {"cluster": "sluice", "in_flight": "2"},
        "deny_cache": {"ceiling": "0s", "entries": 0},
    });
    let policies = read(&config(written)).expect("valid");
    assert_eq!((policies.deny_cache().ceiling, policies.deny_cache().entries), (Duration::ZERO, 0));
    assert_eq!(policies.sidecar().in_flight, 2);
    let default = Lease { most_tokens: None, ttl: Duration::from_secs(1), share_percent: 50 };
    for all_defaults in [json!("auto"), json!({}), json!({"tokens": "auto"})] {
        assert_eq!(lease(all_defaults.clone()), Some(default), "{all_defaults}");
    }
    let written = json!({"tokens": "50", "ttl": "250ms", "share_percent": 10});
    let expected = Lease { most_tokens: Some(50), ttl: Duration::from_millis(250), share_percent: 10 };
    assert_eq!(lease(written), Some(expected));
}

#[test]
fn a_mistake_is_told_with_its_place_and_the_mend() {
    for (fields, told) in [
        (
            json!({"deny_cache": {"ceiling": "2m"}}),
            "deny_cache.ceiling: found 2m; it must be between 0s and 1m",
        ),
        (
            json!({"deny_cache": {"entries": 100_001}}),
            "deny_cache.entries: found 100001; it may be at most 100000",
        ),
        (
            json!({"sidecar": {"cluster": "x", "in_flight": 0}}),
            "sidecar.in_flight: found 0; it must be between 1 and 32",
        ),
        (json!({"sidecar": {"cluster": "x", "in_flight": 33}}), "sidecar.in_flight: found 33;"),
    ] {
        let error = read(&config(fields)).expect_err("a mistake was accepted");
        assert!(error.contains(told), "{error}");
    }
    for (lease, told) in [
        (
            json!("often"),
            "lease: found \"often\"; expected `auto`, or a mapping such as { tokens: 50, ttl: 1s }",
        ),
        (json!({"tokens": 0}), "lease.tokens: found 0; lease at least 1, or leave out `lease`"),
        (
            json!({"tokens": "some"}),
            "lease.tokens: found \"some\"; expected `auto`, or a whole number such as 50",
        ),
        (json!({"ttl": "5ms"}), "lease.ttl: found 5ms; it must be between 10ms and 1m"),
        (json!({"share_percent": 101}), "lease.share_percent: found 101; it must be between 1 and 100"),
    ] {
        let policy = json!([{"name": "all", "key": [], "limit": "100 per minute", "lease": lease}]);
        let error = read(&config(json!({"policies": policy}))).expect_err("a mistake was accepted");
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_lease_that_can_never_be_is_told() {
    let policy = |share_percent: u64| json!([{"name": "few", "key": [], "limit": "9 per minute", "lease": {"share_percent": share_percent}}]);
    let warnings = policies(policy(11)).warnings();
    assert_eq!(warnings.len(), 1);
    let told = warnings[0].to_string();
    assert!(
        told.starts_with("policies[0].lease: 11 percent of the limit \"few\", whose burst is 9,"),
        "{told}"
    );
    assert!(policies(policy(12)).warnings().is_empty(), "12 percent of 9 are a token");
}

#[test]
fn a_lease_and_its_return_are_asked_of_every_bucket_of_the_policy() {
    let policies = policies(json!([{
        "name": "both", "key": ["client_address"], "lease": {"ttl": "2s", "share_percent": 20},
        "limits": [{"limit": "100 per second"}, {"limit": "1000 per minute"}],
    }]));
    let ask = Ask { policy: 0, key: "k".to_owned(), cost_tokens: 1, shadow: false };
    let take = policies.lease_take(&ask, 30, true).expect("it has leases");
    assert_eq!((take.kind, take.follows), (Kind::Lease, true));
    assert_eq!(take.lease, Some(LeaseTerms { ttl_us: 2_000_000, share_percent: 20 }));
    assert_eq!(take.buckets.iter().map(|bucket| bucket.cost).collect::<Vec<_>>(), [30, 30]);
    let leased = Leased { tokens: 30, lapses_at_us: 7 };
    let take = policies.return_take(&ask, leased, 4);
    assert_eq!(
        (take.kind, take.follows, take.returned, take.buckets.len()),
        (Kind::Return, false, Some(leased), 2)
    );
    assert_eq!(take.buckets[1].cost, 4);
}

#[test]
fn what_is_known_to_be_denied_is_denied_and_what_is_not_known_is_not_told() {
    let policies = policies(json!([
        {"name": "known", "key": [], "limit": "60 per minute"},
        {"name": "unknown", "key": [], "limit": "5 per second"},
    ]));
    let asks: Vec<Ask> =
        [0, 1].map(|policy| Ask { policy, key: String::new(), cost_tokens: 1, shadow: false }).into();
    let denied = BucketVerdict {
        outcome: Outcome::Denied,
        remaining: 0,
        retry_after_us: Some(1_500_000),
        full_after_us: 60_000_000,
        overridden: None,
    };
    let answer = policies.denied(&asks, &[Some(vec![denied]), None], 0);
    let denial = answer.denial.expect("denied");
    assert_eq!(denial.status, 429);
    assert_eq!(answer.report, "decision=denied policy=known remaining=0 reason=used_up source=deny_cache");
    let header =
        |name: &str| denial.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!(header("retry-after"), Some("2"));
    assert_eq!(header("ratelimit"), Some("\"known\";r=0;t=60"));
    assert_eq!(answer.counts, [(0, Count::Denied)]);
    assert_eq!(answer.charged, [false, false]);
}

#[test]
fn what_a_lease_pays_for_is_charged_and_told() {
    let policies = policies(json!([{"name": "all", "key": [], "limit": "60 per minute", "lease": "auto"}]));
    let asks = [Ask { policy: 0, key: String::new(), cost_tokens: 1, shadow: false }];
    let bucket = BucketVerdict {
        outcome: Outcome::Allowed,
        remaining: 41,
        retry_after_us: Some(0),
        full_after_us: 19_000_000,
        overridden: None,
    };
    let answer = policies.leased(&asks, &[Some(vec![bucket])], 0);
    assert!(answer.denial.is_none() && answer.decided == Decided::Shared);
    assert_eq!(answer.report, "decision=allowed policy=all remaining=41 source=lease");
    assert_eq!((answer.counts, answer.charged), (vec![(0, Count::Allowed)], vec![true]));
}
