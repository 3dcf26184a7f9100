//! What a request gets that the sidecar does not decide, where this Envoy's own buckets do.

use serde_json::{Value, json};

use crate::fake_host::{Event, host};
use crate::filter::{CalloutAnswer, Filter, counted, decided, marked, request};

fn config(policies: Value) -> Value {
    json!({"sidecar": {"cluster": "sluice"}, "on_error": "local", "policies": policies})
}

fn by_key(name: &str, burst: u64) -> Value {
    json!({"name": name, "key": [{"header": "x-api-key"}], "limit": "1 per day", "burst": burst})
}

/// Whether a request of `key` passes while the sidecar cannot be reached.
fn passes(filter: &mut Filter, key: &[u8]) -> bool {
    host(|host| host.no_endpoints = true);
    let id = filter.arrive(request(Some("/"), Some(key)));
    host(|host| host.no_endpoints = false);
    let event = filter.events.iter().rev().find(|(to, _)| *to == id).map(|(_, event)| event.clone());
    assert!(filter.answered[&id], "at once");
    match event {
        None | Some(Event::Resumed) => true,
        Some(Event::Replied(reply)) => {
            assert_eq!(reply.status, 429, "{reply:?}");
            false
        }
    }
}

#[test]
fn the_workers_of_an_envoy_share_what_is_left_and_the_sidecar_rules_at_once_when_it_is_back() {
    let config = config(json!([by_key("all", 5)]));
    let mut workers = [Filter::configured(&config), Filter::configured(&config)];
    let mut passed = 0;
    for turn in 0..12 {
        passed += u32::from(passes(&mut workers[turn % 2], b"alice"));
    }
    assert_eq!(passed, 5);
    assert!(passes(&mut workers[0], b"bob"), "another has a bucket of his own");
    assert_eq!((counted("sluice.local_allowed"), counted("sluice.local_denied")), (6, 7));
    assert_eq!(counted("sluice.policy.all.local_denied"), 7);
    let [mut one, other] = workers;
    let id = one.arrive(request(Some("/"), Some(b"alice")));
    one.deliver(decided(&[true]));
    assert_eq!(one.events.last(), Some(&(id, Event::Resumed)), "what was denied here says nothing any more");
    one.finish();
    other.finish();
}

#[test]
fn a_client_is_told_how_the_bucket_stands_that_decides() {
    let mut policy = by_key("all", 10);
    policy["local"] = json!({"share_percent": 20});
    let mut filter = Filter::configured(&config(json!([policy])));
    host(|host| host.no_endpoints = true);
    let id = filter.arrive(request(Some("/"), Some(b"told")));
    let headers = filter.respond(id, &[(":status", "200")]);
    let value = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!((value("x-ratelimit-limit"), value("x-ratelimit-remaining")), (Some("2"), Some("1")));
    filter.arrive(request(Some("/"), Some(b"told")));
    let denied = filter.arrive(request(Some("/"), Some(b"told")));
    let reply = filter.reply(denied);
    assert_eq!((reply.status, reply.details.as_str()), (429, "sluice_denied_all"));
    assert!(reply.headers.contains(&("retry-after".to_owned(), "432000".to_owned())), "{:?}", reply.headers);
    filter.finish();
}

#[test]
fn every_failure_is_answered_so_that_of_a_part_of_a_batch_too() {
    let failed = |reason: &str| -> CalloutAnswer {
        let body = json!({"now_us": 1, "verdicts": [{"failed": reason}]});
        Some((marked("200"), body.to_string().into_bytes()))
    };
    let answers: [CalloutAnswer; 6] = [
        None,
        Some((vec![(":status", b"503".to_vec())], b"no healthy upstream".to_vec())),
        Some((vec![(":status", b"504".to_vec())], b"upstream request timeout".to_vec())),
        Some((marked("503"), b"{}".to_vec())),
        Some((marked("200"), b"garbage".to_vec())),
        failed("store_unavailable"),
    ];
    let mut filter = Filter::configured(&config(json!([by_key("every", 3)])));
    for (turn, answer) in answers.into_iter().enumerate() {
        let id = filter.arrive(request(Some("/"), Some(b"alice")));
        filter.deliver(answer);
        match filter.events.last() {
            Some((to, Event::Resumed)) => assert!(*to == id && turn < 3, "{turn}"),
            Some((to, Event::Replied(reply))) => {
                assert!(*to == id && turn >= 3 && reply.status == 429, "{turn}")
            }
            None => panic!("no answer in turn {turn}"),
        }
    }
    filter.finish();
}

#[test]
fn a_policy_that_denies_goes_before_and_one_that_allows_takes_no_part() {
    let mut denying = by_key("denying", 100);
    (denying["on_error"], denying["match"]) = (json!("deny"), json!({"path": {"exact": "/strict"}}));
    let mut allowing = by_key("allowing", 1);
    allowing["on_error"] = json!("allow");
    let mut filter = Filter::configured(&config(json!([by_key("local", 2), denying, allowing])));
    host(|host| host.no_endpoints = true);
    let strict = filter.arrive(request(Some("/strict"), Some(b"a")));
    assert_eq!(filter.reply(strict).status, 503);
    assert_eq!(host(|host| host.shared.len()), 0, "nothing was taken for it");
    assert_eq!([(); 4].map(|()| passes(&mut filter, b"a")), [true, true, false, false]);
    filter.finish();
}

#[test]
fn where_these_buckets_cannot_be_had_either_it_is_denied_and_told() {
    let mut filter = Filter::configured(&config(json!([by_key("local", 2)])));
    for no_shared in [true, false] {
        host(|host| (host.no_endpoints, host.no_shared) = (true, no_shared));
        let id = filter.arrive(request(Some("/"), Some(b"a")));
        host(|host| (host.no_endpoints, host.no_shared) = (false, false));
        assert!(filter.answered[&id], "at once");
        if no_shared {
            let reply = filter.reply(id);
            assert_eq!((reply.status, reply.details.as_str()), (503, "sluice_failed_not_sent"));
            let report = "decision=failed answer=deny reason=not_sent policy=local local=unavailable";
            assert_eq!(host(|host| host.reports.get(&id).cloned()).as_deref(), Some(report));
        }
    }
    assert_eq!((counted("sluice.local_failed"), counted("sluice.failed_denied")), (1, 1));
    assert_eq!(counted("sluice.local_allowed"), 1, "once they can, they decide");
    filter.finish();
}

#[test]
fn what_is_decided_here_is_not_settled_with_the_others() {
    let mut policy = by_key("settled", 10);
    (policy["settle"], policy["refund_on"]) = (json!({"header": "x-tokens-used", "max": 5}), json!(["5xx"]));
    let mut filter = Filter::configured(&config(json!([policy])));
    host(|host| host.no_endpoints = true);
    let id = filter.arrive(request(Some("/"), Some(b"a")));
    host(|host| host.no_endpoints = false);
    filter.respond(id, &[(":status", "500"), ("x-tokens-used", "5")]);
    filter.leave(id);
    assert!(host(|host| host.callouts.is_empty()), "nothing was taken there");
    filter.finish();
}
