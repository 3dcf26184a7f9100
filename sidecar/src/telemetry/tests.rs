//! What is counted of what was decided.

use std::borrow::Cow;

use contract::{BucketTake, BucketVerdict, FailureReason, LeaseTerms};

use super::*;

fn asked<'a>(policy: &'a str, key: &'a str) -> BucketTake<'a> {
    let (policy, key) = (Cow::Borrowed(policy), Cow::Borrowed(key));
    BucketTake { policy, key, tokens: 60, period_us: 60_000_000, burst: 60, cost: 1, repeats: 0 }
}

fn take<'a>(buckets: &[(&'a str, &'a str)]) -> Take<'a> {
    let buckets = buckets.iter().map(|(policy, key)| asked(policy, key)).collect();
    Take { buckets, ..Take::default() }
}

fn stood(outcome: contract::Outcome) -> BucketVerdict {
    BucketVerdict { outcome, remaining: 0, retry_after_us: None, full_after_us: 9, overridden: None }
}

const HAD: contract::Outcome = contract::Outcome::Allowed;
const HAD_NOT: contract::Outcome = contract::Outcome::Denied;
const NEVER: contract::Outcome = contract::Outcome::NeverFits;

fn allowed(buckets: usize) -> Verdict {
    Verdict::Allowed(vec![stood(HAD); buckets])
}

fn denied(outcomes: &[contract::Outcome]) -> Verdict {
    Verdict::Denied(outcomes.iter().copied().map(stood).collect())
}

fn observe(telemetry: &Telemetry, decided: Vec<(Take<'_>, Verdict)>) {
    let (takes, verdicts) = decided.into_iter().unzip();
    let request = TakeRequest { domain: Cow::Borrowed("shop"), takes };
    telemetry.observe(&request, &Answer { now_us: 1, verdicts }, Duration::from_micros(100));
}

fn policy(telemetry: &Telemetry, name: &str) -> PolicyStats {
    let policies = telemetry.stats().policies;
    policies.into_iter().find(|policy| &*policy.policy == name).expect("it was asked for")
}

fn top(telemetry: &Telemetry, by: TopBy) -> Vec<(String, u64, u64)> {
    let question = TopQuestion { by, limit: 100, window_us: 60_000_000, domain: None, policy: None };
    let keys = telemetry.top(&question).keys.into_iter();
    keys.map(|key| (format!("{}/{}", key.policy, key.key), key.requests, key.denied)).collect()
}

const NONE: Counts =
    Counts { allowed: 0, denied: 0, failed: 0, shadow_denied: 0, blocked: 0, repeats: 0, leased_tokens: 0 };

#[test]
fn a_take_counts_once_and_for_each_policy_that_decided_it() {
    let telemetry = Telemetry::default();
    let both = || take(&[("fast", "a"), ("slow", "a")]);
    observe(&telemetry, vec![(both(), allowed(2)), (both(), denied(&[HAD, HAD_NOT]))]);
    observe(&telemetry, vec![(both(), denied(&[NEVER, HAD_NOT]))]);
    observe(&telemetry, vec![(both(), Verdict::Failed(FailureReason::StoreFull))]);
    let stats = telemetry.stats();
    assert_eq!(stats.totals, Counts { allowed: 1, denied: 2, failed: 1, ..NONE });
    assert_eq!((stats.requests, stats.takes, stats.handling.count), (3, 4, 3));
    let (fast, slow) = (policy(&telemetry, "fast"), policy(&telemetry, "slow"));
    assert_eq!(fast.totals, Counts { allowed: 1, denied: 1, failed: 1, ..NONE });
    assert_eq!(slow.totals, Counts { allowed: 1, denied: 2, failed: 1, ..NONE });
    assert_eq!(slow.totals, slow.last_10s);
    assert_eq!((fast.latency_us.count, slow.latency_us.count), (3, 3), "each request once");
    assert_eq!(fast.limits, [WrittenLimit { tokens: 60, period_us: 60_000_000, burst: 60 }]);
    assert_eq!(top(&telemetry, TopBy::Denied), [("slow/a".to_owned(), 4, 2), ("fast/a".to_owned(), 4, 1)]);
}

#[test]
fn what_is_in_shadow_counts_only_where_it_would_deny() {
    let telemetry = Telemetry::default();
    let shadow = || Take { follows: true, shadow: true, ..take(&[("tried", "a")]) };
    let enforced = || (take(&[("per-client", "a")]), allowed(1));
    observe(&telemetry, vec![enforced(), (shadow(), allowed(1)), enforced(), (shadow(), denied(&[HAD_NOT]))]);
    let failed = Verdict::Failed(FailureReason::StoreUnavailable);
    observe(&telemetry, vec![(take(&[("per-client", "a")]), failed.clone()), (shadow(), failed)]);
    // Where all that governs a request is in shadow, there is nothing to follow.
    let alone = || Take { follows: false, ..shadow() };
    observe(&telemetry, vec![(alone(), allowed(1)), (alone(), denied(&[HAD_NOT]))]);
    assert_eq!(telemetry.stats().totals, Counts { allowed: 2, failed: 1, shadow_denied: 2, ..NONE });
    assert_eq!(policy(&telemetry, "tried").totals, Counts { shadow_denied: 2, ..NONE });
    assert_eq!(top(&telemetry, TopBy::Requests), [("per-client/a".to_owned(), 3, 0)]);
}

#[test]
fn settlements_count_nothing_and_leases_their_tokens() {
    let telemetry = Telemetry::default();
    let of = |kind| Take { kind, ..take(&[("per-client", "a")]) };
    observe(
        &telemetry,
        vec![
            (of(Kind::Refund), allowed(1)),
            (of(Kind::Charge), allowed(1)),
            (of(Kind::Charge), Verdict::Failed(FailureReason::StoreFull)),
            (of(Kind::Return), allowed(1)),
        ],
    );
    assert_eq!(policy(&telemetry, "per-client").totals, NONE);
    let lease = Some(LeaseTerms { ttl_us: 1_000_000, share_percent: 50 });
    let lease = || Take { lease, ..of(Kind::Lease) };
    let granted = |tokens| Verdict::Leased { tokens, lapses_at_us: 7, buckets: vec![stood(HAD)] };
    let failed = Verdict::Failed(FailureReason::StoreFull);
    observe(&telemetry, vec![(lease(), granted(7)), (lease(), granted(0)), (lease(), failed)]);
    assert_eq!(telemetry.stats().totals, Counts { leased_tokens: 7, ..NONE });
    assert_eq!(policy(&telemetry, "per-client").totals, Counts { leased_tokens: 7, ..NONE });
    assert_eq!(top(&telemetry, TopBy::Requests), [("per-client/a".to_owned(), 7, 0)]);
}

fn repeated<'a>(buckets: &[(&'a str, &'a str)], repeats: &[u64]) -> Take<'a> {
    let mut take = take(buckets);
    take.buckets.iter_mut().zip(repeats).for_each(|(bucket, repeats)| bucket.repeats = *repeats);
    take
}

#[test]
fn repeats_count_for_those_that_denied_them_whatever_becomes_of_the_take_that_tells_them() {
    let telemetry = Telemetry::default();
    let both = [("fast", "a"), ("all", "")];
    // Whoever comes first once the bucket for all has room again tells how many others it had denied.
    observe(&telemetry, vec![(repeated(&both, &[0, 10_000]), allowed(2))]);
    observe(&telemetry, vec![(repeated(&both, &[5, 0]), denied(&[HAD, HAD_NOT]))]);
    assert_eq!(telemetry.stats().totals, Counts { allowed: 1, denied: 1, repeats: 10_005, ..NONE });
    assert_eq!(policy(&telemetry, "fast").totals, Counts { allowed: 1, repeats: 5, ..NONE });
    assert_eq!(policy(&telemetry, "all").totals, Counts { allowed: 1, denied: 1, repeats: 10_000, ..NONE });
    let denied = [("all/".to_owned(), 10_002, 10_001), ("fast/a".to_owned(), 7, 5)];
    assert_eq!(top(&telemetry, TopBy::Denied), denied);
    // Two that denied the same requests tell of them twice.
    observe(&telemetry, vec![(repeated(&both, &[3, 7]), allowed(2))]);
    assert_eq!(telemetry.stats().totals.repeats, 10_012);
}

#[test]
fn however_many_repeats_are_claimed_it_takes_no_longer_than_it_may() {
    let telemetry = Telemetry::default();
    observe(&telemetry, vec![(repeated(&[("fast", "a")], &[u64::MAX]), allowed(1)); 64]);
    assert_eq!(telemetry.stats().totals.repeats, 64 * MAX_REPEATS);
    assert_eq!(policy(&telemetry, "fast").totals.repeats, 64 * MAX_REPEATS);
    let all = 64 * (MAX_REPEATS + 1);
    assert_eq!(top(&telemetry, TopBy::Requests), [("fast/a".to_owned(), all, all - 64)]);
}

#[test]
fn what_an_operator_has_blocked_is_told_from_what_had_no_room() {
    let telemetry = Telemetry::default();
    let blocked = BucketVerdict { overridden: Some(Overridden::Blocked), ..stood(NEVER) };
    let both = take(&[("fast", "a"), ("slow", "a")]);
    observe(&telemetry, vec![(both.clone(), Verdict::Denied(vec![blocked, stood(HAD_NOT)]))]);
    assert_eq!(telemetry.stats().totals, Counts { blocked: 1, ..NONE });
    assert_eq!(policy(&telemetry, "fast").totals, Counts { blocked: 1, ..NONE });
    assert_eq!(policy(&telemetry, "slow").totals, Counts { denied: 1, ..NONE });
    let unlimited = BucketVerdict { overridden: Some(Overridden::Unlimited), ..stood(HAD) };
    observe(&telemetry, vec![(both, Verdict::Denied(vec![unlimited, stood(HAD_NOT)]))]);
    assert_eq!(telemetry.stats().totals, Counts { blocked: 1, denied: 1, ..NONE });
}

#[test]
fn what_there_was_no_room_for_has_failed() {
    let telemetry = Telemetry::default();
    let takes =
        vec![take(&[("per-client", "a")]), Take { kind: Kind::Refund, ..take(&[("per-client", "a")]) }];
    telemetry.observe_refused(&TakeRequest { domain: Cow::Borrowed("shop"), takes });
    let stats = telemetry.stats();
    assert_eq!((stats.totals, stats.requests), (Counts { failed: 1, ..NONE }, 0));
    assert_eq!(policy(&telemetry, "per-client").latency_us.count, 0);
}

#[test]
fn a_request_of_many_policies_counts_each() {
    let telemetry = Telemetry::default();
    let names: Vec<String> = (0..40).map(|n| format!("p{n}")).collect();
    let decided = || names.iter().map(|name| (take(&[(name, "a")]), allowed(1))).collect::<Vec<_>>();
    observe(&telemetry, [decided(), decided()].concat());
    let policies = telemetry.stats().policies;
    assert_eq!(policies.len(), 40);
    for policy in policies {
        assert_eq!((policy.totals.allowed, policy.latency_us.count), (2, 1), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn windows_pass_with_the_clock() {
    let telemetry = Telemetry::default();
    observe(&telemetry, vec![(take(&[("per-client", "a")]), denied(&[HAD_NOT]))]);
    let question =
        TopQuestion { by: TopBy::Denied, limit: 9, window_us: 10_000_000, domain: None, policy: None };
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!((telemetry.stats().last_10s.denied, telemetry.stats().covers_us), (1, 9_000_000));
    assert_eq!(telemetry.top(&question).keys.len(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    let stats = telemetry.stats();
    assert_eq!((stats.last_10s.denied, stats.totals.denied, stats.handling.count), (0, 1, 1));
    assert_eq!(stats.covers_us, 9_000_000, "the tenth second back has passed, too");
    assert_eq!((stats.policies[0].last_10s.denied, stats.policies[0].latency_us.count), (0, 1));
    assert_eq!(telemetry.top(&question), TopKeys { covers_us: 7_500_000, keys: Vec::new() });
    tokio::time::advance(Duration::from_secs(50)).await;
    let stats = telemetry.stats();
    assert_eq!((stats.totals.denied, stats.handling.count, stats.policies[0].latency_us.count), (1, 0, 0));
}

#[test]
fn limits_are_found_by_policy() {
    let telemetry = Telemetry::default();
    observe(&telemetry, vec![(take(&[("per-client", "a")]), allowed(1))]);
    let request = TakeRequest { domain: Cow::Borrowed("bank"), takes: vec![take(&[("per-client", "a")])] };
    assert_eq!(telemetry.limit_news(), 1);
    telemetry.observe(&request, &Answer { now_us: 1, verdicts: vec![allowed(1)] }, Duration::ZERO);
    assert_eq!(telemetry.limit_news(), 2);
    let limit = WrittenLimit { tokens: 60, period_us: 60_000_000, burst: 60 };
    let [shop, bank] = ["shop", "bank"].map(|domain| (domain.to_owned(), limit));
    assert_eq!(telemetry.limits_of("per-client", None), [bank.clone(), shop]);
    assert_eq!(telemetry.limits_of("per-client", Some("bank")), [bank]);
    assert_eq!(telemetry.limits_of("per-client", Some("elsewhere")), []);
    // What others were asked with tells only what nobody has asked here.
    let raised = WrittenLimit { tokens: 120, ..limit };
    telemetry.learn_limit("bank", "per-client", raised);
    telemetry.learn_limit("bank", "all", raised);
    assert_eq!(telemetry.limits_of("per-client", Some("bank")), [("bank".to_owned(), limit)]);
    assert_eq!(telemetry.limits_of("all", None), [("bank".to_owned(), raised)]);
    assert_eq!(telemetry.limit_news(), 2, "that is no news to others");
}
