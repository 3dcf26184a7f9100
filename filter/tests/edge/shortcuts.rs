//! What is answered without asking: repeats of what was denied, and what a lease pays for.

use std::time::{Duration, Instant};

use contract::{Kind, Leased, Take};
use serde_json::{Value, json};

use crate::fake_host::{Event, Headers, Reply, host};
use crate::filter::{CalloutAnswer, Filter, asked, counted, decided, marked, request};
use crate::store::Store;

fn filter(more: Value) -> Filter {
    let mut config = json!({
        "sidecar": {"cluster": "sluice"},
        "policies": [{"name": "all", "key": [{"header": "x-api-key"}], "limit": "60 per minute"}],
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Filter::configured(&config)
}

fn of(key: &str) -> Headers {
    request(Some("/"), Some(key.as_bytes()))
}

/// An answer in which each bucket of a take denies it for `wait_us`.
fn denied(wait_us: u64) -> CalloutAnswer {
    let bucket = json!({"outcome": "denied", "remaining": 0, "retry_after_us": wait_us, "full_after_us": wait_us + 59_000_000});
    answer(|take| json!({"denied": vec![bucket.clone(); take.buckets.len()]}))
}

/// An answer that allows takes and returns, and grants leases what they ask for up to `most` tokens.
fn granted(most: u64) -> CalloutAnswer {
    let bucket =
        json!({"outcome": "allowed", "remaining": 100, "retry_after_us": 0, "full_after_us": 9_000_000});
    answer(move |take| {
        let buckets = vec![bucket.clone(); take.buckets.len()];
        match take.kind {
            Kind::Lease => {
                let tokens = take.buckets[0].cost.min(most);
                json!({"leased": {"tokens": tokens, "lapses_at_us": 77, "buckets": buckets}})
            }
            _ => json!({"allowed": buckets}),
        }
    })
}

fn answer(verdict: impl Fn(&Take) -> Value) -> CalloutAnswer {
    let verdicts: Vec<Value> = asked().takes.iter().map(verdict).collect();
    Some((marked("200"), json!({"now_us": 1, "verdicts": verdicts}).to_string().into_bytes()))
}

fn nothing_is_on_the_way() -> bool {
    host(|host| host.callouts.is_empty())
}

/// What a request was answered without a callout.
fn answered_at_once(filter: &mut Filter, headers: Headers) -> Reply {
    let id = filter.arrive(headers);
    assert!(nothing_is_on_the_way(), "a callout");
    filter.reply(id).clone()
}

#[test]
fn a_repeat_of_what_was_denied_gets_the_same_answer_without_a_callout() {
    let mut filter = filter(json!({}));
    let first = filter.arrive(of("alice"));
    filter.deliver(denied(30_500_000));
    let said = filter.reply(first).clone();
    assert_eq!(said.status, 429);
    for _ in 0..3 {
        let repeat = answered_at_once(&mut filter, of("alice"));
        assert_eq!(
            (repeat.status, repeat.body, repeat.details),
            (429, said.body.clone(), said.details.clone())
        );
        assert_eq!(repeat.headers, said.headers, "to the second");
    }
    assert_eq!((counted("sluice.denied"), counted("sluice.deny_cache_hits")), (4, 3));
    assert_eq!(counted("sluice.policy.all.denied"), 4);
    filter.arrive(of("bob"));
    assert!(!nothing_is_on_the_way(), "others are asked for");
    filter.finish();
}

/// Lets time pass, for real: the filter's clock is the machine's.
fn pass(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::thread::yield_now();
    }
}

#[test]
fn how_many_were_denied_since_is_told_when_the_same_is_next_asked_for() {
    const WAIT: Duration = Duration::from_millis(400);
    let mut filter = filter(json!({}));
    filter.arrive(of("alice"));
    assert_eq!(asked().takes[0].buckets[0].repeats, 0);
    filter.deliver(denied(400_000));
    for _ in 0..3 {
        answered_at_once(&mut filter, of("alice"));
    }
    pass(WAIT);
    filter.arrive(of("alice"));
    filter.arrive(of("bob"));
    assert_eq!(asked().takes[0].buckets[0].repeats, 3);
    filter.deliver(denied(400_000));
    assert_eq!(asked().takes[0].buckets[0].repeats, 0, "who was not denied");
    filter.deliver(denied(400_000));
    pass(WAIT);
    filter.arrive(of("alice"));
    assert_eq!(asked().takes[0].buckets[0].repeats, 0, "each is told once");
    filter.finish();
}

#[test]
fn each_policy_tells_how_many_it_has_denied() {
    const WAIT: Duration = Duration::from_millis(400);
    let policies = json!([
        {"name": "all", "key": [{"header": "x-api-key"}], "limit": "60 per minute", "cost": {"header": "x-cost", "max": 9}},
        {"name": "path", "key": ["path"], "limit": "60 per minute"},
    ]);
    let mut filter = filter(json!({"policies": policies}));
    let costing =
        |cost: &'static str| [("x-cost", cost.into())].into_iter().chain(of("a")).collect::<Headers>();
    filter.arrive(costing("5"));
    filter.deliver(denied(400_000));
    for _ in 0..3 {
        answered_at_once(&mut filter, costing("5"));
    }
    // The path still denies it, whatever it costs under the other.
    answered_at_once(&mut filter, costing("2"));
    pass(WAIT);
    filter.arrive(costing("5"));
    let repeats: Vec<u64> = asked().takes[0].buckets.iter().map(|bucket| bucket.repeats).collect();
    assert_eq!(repeats, [3, 4], "the path denied each");
    filter.finish();
}

/// A filter with a policy for each client and one for the path, of two limits each, that all denied who waits for some.
fn denied_by(waits_us: [u64; 4]) -> Filter {
    let limits = json!([{"limit": "60 per minute"}, {"limit": "600 per hour"}]);
    let policies = json!([
        {"name": "client", "key": [{"header": "x-api-key"}], "limits": limits},
        {"name": "path", "key": ["path"], "limits": limits},
    ]);
    let mut filter = filter(json!({"policies": policies}));
    filter.arrive(of("alice"));
    let bucket = |wait_us| {
        let outcome = if wait_us > 0 { "denied" } else { "allowed" };
        json!({"outcome": outcome, "remaining": 0, "retry_after_us": wait_us, "full_after_us": 60_000_000})
    };
    filter.deliver(answer(|_| json!({"denied": waits_us.map(bucket)})));
    filter
}

fn told() -> Vec<u64> {
    asked().takes[0].buckets.iter().map(|bucket| bucket.repeats).collect()
}

#[test]
fn what_one_policy_denied_is_told_of_it_alone_whoever_comes_next() {
    let mut filter = denied_by([0, 0, 0, 400_000]);
    for _ in 0..3 {
        answered_at_once(&mut filter, of("alice"));
    }
    answered_at_once(&mut filter, of("bob"));
    pass(Duration::from_millis(400));
    filter.arrive(of("innocent"));
    assert_eq!(told(), [0, 0, 0, 4], "of the limit that denied them");
    filter.finish();
}

#[test]
fn what_a_denial_counted_that_is_over_is_told_once_the_others_are() {
    let mut filter = denied_by([150_000, 0, 450_000, 0]);
    for _ in 0..3 {
        answered_at_once(&mut filter, of("alice"));
    }
    pass(Duration::from_millis(150));
    for _ in 0..2 {
        answered_at_once(&mut filter, of("alice"));
    }
    pass(Duration::from_millis(300));
    filter.arrive(of("alice"));
    assert_eq!(told(), [3, 0, 5, 0]);
    filter.finish();
}

#[test]
fn what_was_not_told_is_kept_where_another_cost_is_denied() {
    const WAIT: Duration = Duration::from_millis(400);
    let policy = json!([{
        "name": "all", "key": [], "limit": "60 per minute", "cost": {"header": "x-cost", "max": 9},
    }]);
    let mut filter = filter(json!({"policies": policy}));
    let costing =
        |cost: &'static str| [("x-cost", cost.into())].into_iter().chain(of("a")).collect::<Headers>();
    filter.arrive(costing("5"));
    filter.deliver(denied(400_000));
    for _ in 0..3 {
        answered_at_once(&mut filter, costing("5"));
    }
    filter.arrive(costing("2"));
    assert_eq!(asked().takes[0].buckets[0].repeats, 0, "they asked for another cost");
    filter.deliver(denied(400_000));
    answered_at_once(&mut filter, costing("2"));
    pass(WAIT);
    filter.arrive(costing("2"));
    assert_eq!(asked().takes[0].buckets[0].repeats, 4);
    filter.finish();
}

#[test]
fn a_take_tells_the_trace_of_its_request_where_that_is_sampled() {
    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    for (tracing, traceparent, told) in
        [(true, SAMPLED, Some(SAMPLED)), (true, NOT, None), (false, SAMPLED, None)]
    {
        let mut filter = filter(json!({"tracing": tracing}));
        filter.arrive(of("first"));
        filter.arrive([("traceparent", traceparent.into())].into_iter().chain(of("traced")).collect());
        filter.arrive(of("not traced"));
        filter.deliver(decided(&[true]));
        let asked = asked();
        assert_eq!(asked.takes[0].traceparent.as_deref(), told, "{tracing}, {traceparent}");
        assert_eq!(asked.takes[1].traceparent, None);
        filter.finish();
    }
}

#[test]
fn each_callout_is_timed() {
    let mut filter = filter(json!({}));
    let timed = || host(|host| host.histograms.get("sluice.callout_us").cloned().unwrap_or_default());
    for _ in 0..3 {
        filter.arrive(of("alice"));
    }
    pass(Duration::from_millis(5));
    filter.deliver(decided(&[true]));
    assert!(matches!(timed()[..], [5_000..=60_000_000]), "{:?}", timed());
    filter.deliver(None);
    assert_eq!(timed().len(), 2, "one for each callout, also where it fails");
    filter.finish();
}

#[test]
fn what_an_operator_blocks_is_denied_for_the_ceiling_at_most() {
    let mut filter = filter(json!({"deny_cache": {"ceiling": "400ms"}}));
    let blocked = |wait_us: Option<u64>| {
        let bucket = json!({"outcome": "denied", "remaining": 60, "retry_after_us": wait_us, "full_after_us": 0, "overridden": "blocked"});
        answer(|take| json!({"denied": vec![bucket.clone(); take.buckets.len()]}))
    };
    for (wait_us, retry_after) in [(None, None), (Some(3_600_000_000), Some("3600"))] {
        let first = filter.arrive(of("alice"));
        filter.deliver(blocked(wait_us));
        let said = filter.reply(first).clone();
        let told = said.headers.iter().find(|(name, _)| name == "retry-after");
        assert_eq!(told.map(|(_, value)| value.as_str()), retry_after);
        assert!(said.body.contains("blocked under the limit"), "{}", said.body);
        assert_eq!(answered_at_once(&mut filter, of("alice")).body, said.body);
        pass(Duration::from_millis(400));
    }
    filter.arrive(of("alice"));
    assert!(!nothing_is_on_the_way(), "it may be lifted by now");
    filter.finish();
}

#[test]
fn leases_of_a_key_end_once_its_limit_is_overridden() {
    let limit = json!({"limit": {"tokens": 5, "period_us": 1_000_000, "burst": 5}});
    for overridden in [limit, json!("unlimited"), json!("blocked")] {
        let mut filter = leasing(json!({"tokens": 8, "ttl": "60s"}));
        let tokens = heat_up(&mut filter, "alice", 8);
        let left = tokens / 2;
        // The next lease is asked for while half of it is left; an operator has changed the limit meanwhile.
        for _ in left..tokens {
            filter.arrive(of("alice"));
        }
        let bucket = json!({"outcome": "allowed", "remaining": 3, "retry_after_us": 0, "full_after_us": 1, "overridden": overridden});
        assert_eq!(asked().takes[0].kind, Kind::Lease);
        filter.deliver(answer(|_| json!({"leased": {"tokens": 0, "lapses_at_us": 9, "buckets": [bucket]}})));
        let leased = Leased { tokens, lapses_at_us: 77 };
        assert_eq!(upkeep(&mut filter), [], "what ended goes with the next that leaves");
        for _ in 0..3 {
            filter.arrive(of("alice"));
            let kinds: Vec<_> = asked().takes.iter().map(|take| (take.kind, take.returned)).collect();
            if kinds[0].0 == Kind::Return {
                assert_eq!(kinds, [(Kind::Return, Some(leased)), (Kind::Take, None)]);
                assert_eq!(asked().takes[0].buckets[0].cost, left, "what was not spent");
            } else {
                assert_eq!(kinds, [(Kind::Take, None)], "and no lease is asked for with each");
            }
            filter.deliver(answer(|_| json!({"allowed": [bucket]})));
        }
        filter.finish();
    }
}

#[test]
fn what_is_denied_no_more_is_asked_for_again() {
    let mut filter = filter(json!({}));
    filter.arrive(of("alice"));
    filter.deliver(denied(1));
    filter.arrive(of("alice"));
    filter.deliver(decided(&[true]));
    assert!(matches!(filter.events.last(), Some((_, Event::Resumed))));
    filter.finish();
}

#[test]
fn another_cost_is_asked_for() {
    let policy = json!([{
        "name": "all", "key": [], "limit": "60 per minute", "cost": {"header": "x-cost", "max": 9},
    }]);
    let mut filter = filter(json!({"policies": policy}));
    let costing =
        |cost: &'static str| [("x-cost", cost.into())].into_iter().chain(of("a")).collect::<Headers>();
    filter.arrive(costing("5"));
    filter.deliver(denied(30_000_000));
    answered_at_once(&mut filter, costing("5"));
    filter.arrive(costing("2"));
    assert_eq!(asked().takes[0].buckets[0].cost, 2);
    filter.finish();
}

#[test]
fn a_ceiling_of_nothing_asks_for_every_request() {
    for deny_cache in [json!({"ceiling": "0s"}), json!({"entries": 0})] {
        let mut filter = filter(json!({"deny_cache": deny_cache}));
        for _ in 0..2 {
            filter.arrive(of("alice"));
            filter.deliver(denied(30_000_000));
        }
        filter.finish();
    }
    assert_eq!(counted("sluice.deny_cache_hits"), 0);
}

#[test]
fn one_denied_policy_denies_the_request_whatever_else_governs_it() {
    let policies = json!([
        {"name": "all", "key": [{"header": "x-api-key"}], "limit": "60 per minute"},
        {"name": "path", "key": ["path"], "limit": "60 per minute"},
    ]);
    let mut filter = filter(json!({"policies": policies}));
    filter.arrive(of("alice"));
    let denied = json!({"outcome": "denied", "remaining": 0, "retry_after_us": 30_000_000, "full_after_us": 90_000_000});
    let allowed =
        json!({"outcome": "allowed", "remaining": 5, "retry_after_us": 0, "full_after_us": 1_000_000});
    filter.deliver(answer(|_| json!({"denied": [denied, allowed]})));
    // A client that is denied costs no callout, however it varies what else it asks for.
    let other_path = request(Some("/other"), Some(b"alice"));
    let reply = answered_at_once(&mut filter, other_path);
    let told = reply.headers.iter().find(|(name, _)| name == "ratelimit").map(|(_, value)| value.as_str());
    assert_eq!(told, Some("\"all\";r=0;t=90"), "what is not known is not told");
    assert_eq!(counted("sluice.policy.path.allowed"), 1);
    let other_key = request(Some("/"), Some(b"bob"));
    filter.arrive(other_key);
    assert!(!nothing_is_on_the_way(), "the path was not denied");
    filter.finish();
}

#[test]
fn what_a_policy_in_shadow_governs_is_always_asked_for() {
    let policies = json!([
        {"name": "all", "key": [], "limit": "60 per minute"},
        {"name": "tried", "key": [], "limit": "1 per minute", "mode": "shadow"},
    ]);
    let mut filter = filter(json!({"policies": policies}));
    for _ in 0..2 {
        filter.arrive(of("alice"));
        filter.deliver(denied(30_000_000));
    }
    assert_eq!(counted("sluice.policy.tried.shadow_denied"), 2);
    filter.finish();
}

#[test]
fn what_was_denied_is_asked_for_again_once_something_is_returned() {
    let policy = json!([{"name": "all", "key": [], "limit": "60 per minute", "refund_on": ["5xx"]}]);
    let mut filter = filter(json!({"policies": policy}));
    let passed = filter.arrive(of("alice"));
    filter.deliver(decided(&[true]));
    filter.arrive(of("alice"));
    filter.deliver(denied(30_000_000));
    answered_at_once(&mut filter, of("alice"));
    filter.respond(passed, &[(":status", "503")]);
    filter.leave(passed);
    filter.deliver(decided(&[true]));
    filter.arrive(of("alice"));
    assert!(!nothing_is_on_the_way());
    filter.finish();
}

fn leasing(lease: Value) -> Filter {
    let policy = json!([{
        "name": "all", "key": [{"header": "x-api-key"}], "limit": "100000 per minute", "lease": lease,
    }]);
    filter(json!({"policies": policy}))
}

/// Requests of one key until a lease has been asked for and granted; how many it was.
fn heat_up(filter: &mut Filter, key: &str, most: u64) -> u64 {
    for _ in 0..20 {
        filter.arrive(of(key));
        let lease = asked().takes.into_iter().find(|take| take.kind == Kind::Lease);
        filter.deliver(granted(most));
        if let Some(lease) = lease {
            assert!(lease.follows, "it goes with a request");
            return lease.buckets[0].cost.min(most);
        }
    }
    panic!("the key never became hot");
}

/// Takes of the callouts on the way, of each kind, and lets them be granted.
fn upkeep(filter: &mut Filter) -> Vec<(Kind, u64, Option<Leased>)> {
    let mut takes = Vec::new();
    while !nothing_is_on_the_way() {
        takes.extend(asked().takes.iter().map(|take| (take.kind, take.buckets[0].cost, take.returned)));
        filter.deliver(granted(0));
    }
    takes
}

#[test]
fn a_hot_key_gets_a_lease_and_spends_it_to_the_last_token() {
    let mut filter = leasing(json!({"tokens": 3, "ttl": "60s"}));
    let tokens = heat_up(&mut filter, "alice", 3);
    assert_eq!((tokens, counted("sluice.leases")), (3, 1));
    let spent = |filter: &mut Filter| {
        let id = filter.arrive(of("alice"));
        let sent = filter.respond(id, &[(":status", "200")]);
        sent.into_iter().find(|(name, _)| name == "x-ratelimit-remaining").map(|(_, value)| value)
    };
    assert_eq!(spent(&mut filter).as_deref(), Some("102"), "the bucket's and the lease's");
    assert_eq!(spent(&mut filter).as_deref(), Some("101"));
    assert_eq!(counted("sluice.lease_hits"), 2);
    // With little left the next is asked for, which nobody waits for.
    assert_eq!(upkeep(&mut filter), [(Kind::Lease, 3, None)]);
    assert_eq!(spent(&mut filter).as_deref(), Some("100"));
    assert_eq!(counted("sluice.lease_hits"), 3);
    filter.arrive(of("alice"));
    let kinds: Vec<Kind> = asked().takes.iter().map(|take| take.kind).collect();
    assert_eq!(kinds, [Kind::Return, Kind::Take], "it is used up, and what is returned makes room");
    assert_eq!(upkeep(&mut filter)[0], (Kind::Return, 0, Some(Leased { tokens: 3, lapses_at_us: 77 })));
    assert_eq!(counted("sluice.lease_hits"), 3, "no more than it had");
    assert_eq!(counted("sluice.allowed"), counted("sluice.policy.all.allowed"));
    filter.finish();
}

#[test]
fn a_key_that_is_not_hot_gets_none() {
    let mut filter = leasing(json!("auto"));
    for key in ["a", "b", "c", "a", "b", "c", "a", "b", "c"] {
        filter.arrive(of(key));
        assert!(asked().takes.iter().all(|take| take.kind == Kind::Take));
        filter.deliver(granted(9));
    }
    filter.finish();
}

#[test]
fn what_is_not_spent_in_time_is_returned() {
    let mut filter = leasing(json!({"tokens": 50, "ttl": "40ms"}));
    let tokens = heat_up(&mut filter, "alice", 50);
    assert!(host(|host| host.tick_periods_ms[&filter.root]) > 0, "it is told when time has passed");
    // For real: the filter's clock is the machine's.
    let patience = Instant::now() + Duration::from_secs(10);
    while nothing_is_on_the_way() {
        assert!(Instant::now() < patience);
        std::thread::yield_now();
        filter.tick();
    }
    let leased = Leased { tokens, lapses_at_us: 77 };
    assert_eq!(upkeep(&mut filter), [(Kind::Return, tokens, Some(leased))]);
    filter.tick();
    assert_eq!(host(|host| host.tick_periods_ms[&filter.root]), 0, "it need not be told any more");
    filter.arrive(of("alice"));
    assert_eq!(asked().takes[0].kind, Kind::Take);
    filter.finish();
}

#[test]
fn where_there_is_no_lease_to_have_requests_are_decided_as_always() {
    let mut filter = leasing(json!({"tokens": 50, "ttl": "60s"}));
    heat_up(&mut filter, "alice", 0);
    for _ in 0..5 {
        filter.arrive(of("alice"));
        let kinds: Vec<Kind> = asked().takes.iter().map(|take| take.kind).collect();
        assert_eq!(kinds, [Kind::Take], "and none is asked for again at once");
        filter.deliver(granted(0));
    }
    assert_eq!((counted("sluice.leases"), counted("sluice.lease_hits")), (0, 0));
    filter.finish();
}

#[test]
fn a_request_is_paid_by_leases_only_where_all_of_it_is() {
    let policies = json!([
        {"name": "leased", "key": [], "limit": "100000 per minute", "lease": "auto"},
        {"name": "not", "match": {"path": {"prefix": "/both"}}, "key": [], "limit": "100000 per minute"},
    ]);
    let mut filter = filter(json!({"policies": policies}));
    heat_up(&mut filter, "alice", 100);
    filter.arrive(request(Some("/both"), None));
    assert_eq!(asked().takes[0].buckets.len(), 2, "each bucket is asked, the lease pays nothing");
    filter.deliver(granted(0));
    filter.arrive(request(Some("/"), None));
    assert_eq!(counted("sluice.lease_hits"), 1);
    upkeep(&mut filter);
    filter.finish();
}

#[test]
fn a_request_that_is_paid_by_a_lease_passes_though_another_was_denied() {
    let policies = json!([
        {"name": "leased", "key": [], "limit": "100000 per minute", "lease": "auto"},
        {"name": "not", "match": {"path": {"prefix": "/both"}}, "key": [], "limit": "100000 per minute"},
    ]);
    let mut filter = filter(json!({"policies": policies}));
    heat_up(&mut filter, "alice", 50);
    filter.arrive(request(Some("/both"), None));
    filter.deliver(denied(30_000_000));
    let allowed = counted("sluice.allowed");
    filter.arrive(request(Some("/"), None));
    assert_eq!(counted("sluice.lease_hits"), 1);
    assert_eq!(
        (counted("sluice.allowed"), counted("sluice.denied")),
        (allowed + 1, 1),
        "what is spent passes"
    );
    upkeep(&mut filter);
    filter.finish();
}

/// How many of so many requests pass, each of the API key that it is given.
fn passing(policies: Value, keys: impl Iterator<Item = String>) -> i64 {
    let before = counted("sluice.allowed");
    let (mut filter, mut store) = (filter(json!({"policies": policies})), Store::new());
    for key in keys {
        store.now_us += 10;
        filter.arrive(of(&key));
        store.run(&mut filter);
    }
    filter.finish();
    counted("sluice.allowed") - before
}

#[test]
fn a_lone_worker_lets_as_many_pass_with_leases_as_without() {
    let leases = [json!(null), json!("auto"), json!({"share_percent": 16, "ttl": "10s"})];
    for [all, each, repeats] in [[100, 100, 1], [60, 100, 30], [75, 20, 9]] {
        let run = |lease: &Value, cost: u64| {
            let mut policies = json!([
                {"name": "all", "key": [], "limit": format!("{} per day", all * cost), "cost": cost},
                {"name": "each", "key": [{"header": "x-api-key"}], "limit": format!("{} per day", each * cost), "cost": cost},
            ]);
            for policy in policies.as_array_mut().unwrap().iter_mut().filter(|_| !lease.is_null()) {
                policy["lease"] = lease.clone();
            }
            passing(policies, (0..200).map(|number| format!("client-{}", number / repeats)))
        };
        for cost in [1, 15] {
            let passed = leases.each_ref().map(|lease| run(lease, cost));
            assert_eq!(passed, [passed[0]; 3], "{all} for all, {each} for each, {repeats} times, at {cost}");
        }
    }
}

#[test]
fn a_lease_that_is_less_than_a_request_costs_is_given_back() {
    let policy = json!([{
        "name": "all", "key": [], "limit": "75 per day", "cost": 15, "lease": {"share_percent": 16, "ttl": "10s"},
    }]);
    assert_eq!(passing(policy, (0..8).map(|_| "a".to_owned())), 5);
    assert_eq!(counted("sluice.lease_hits"), 0);
}

#[test]
fn a_configuration_that_is_over_is_called_no_more() {
    let mut filter = leasing(json!("auto"));
    heat_up(&mut filter, "alice", 50);
    let root = filter.root;
    assert!(host(|host| host.tick_periods_ms[&root]) > 0);
    filter.end();
    assert_eq!(host(|host| host.tick_periods_ms[&root]), 0, "Envoy would call a root that is gone for ever");
}

#[test]
fn returns_leave_room_for_requests() {
    let limits =
        ["second", "minute", "hour", "day"].map(|unit| json!({"limit": format!("1000000 per {unit}")}));
    let policy = json!([{
        "name": "all", "key": [{"header": "x-api-key"}], "limits": limits, "lease": {"ttl": "1s", "tokens": 100},
    }]);
    let (mut filter, mut store) = (filter(json!({"policies": policy})), Store::new());
    let began = Instant::now();
    for number in 0..200 {
        for _ in 0..4 {
            filter.arrive(of(&format!("{number:0120}")));
            store.run(&mut filter);
        }
    }
    assert!(counted("sluice.leases") > 100);
    // For real: the filter's clock is the machine's.
    while began.elapsed() < Duration::from_secs(1) {
        std::thread::yield_now();
    }
    filter.tick();
    let on_the_way = host(|host| host.callouts.len());
    assert!((1..=2).contains(&on_the_way), "{on_the_way} callouts for what nobody waits for");
    let id = filter.arrive(of("someone"));
    assert!(!filter.answered[&id], "it was not even asked for");
    // In the end all are returned.
    while host(|host| host.tick_periods_ms[&filter.root]) > 0 {
        store.run(&mut filter);
        filter.tick();
    }
    filter.finish();
}

#[test]
fn who_leaves_before_a_lease_is_asked_for_leaves_that_to_others() {
    let mut filter = leasing(json!("auto"));
    // Hot while one callout is on the way, so that nothing leaves.
    let ids: Vec<u32> = (0..4).map(|_| filter.arrive(of("alice"))).collect();
    assert_eq!(asked().takes.len(), 1);
    // It is the fourth that would ask for the lease.
    filter.leave(ids[3]);
    filter.arrive(of("alice"));
    filter.deliver(granted(9));
    assert!(asked().takes.iter().any(|take| take.kind == Kind::Lease), "{:?}", asked().takes);
    filter.finish();
}
