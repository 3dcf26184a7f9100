//! Whatever happens, in whatever order.

use std::collections::BTreeMap;

use contract::Kind;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fake_host::{Event, callback, host, next_id, root_created};
use crate::filter::{
    Filter, asked, counted, decided, keys_on_the_way, marked, proxy_on_configure, proxy_on_context_create,
    request,
};

/// One policy of every kind: enforced, with several limits, in shadow, settled, refunded, for some requests only.
fn filter(on_error: &str) -> Filter {
    Filter::configured(&json!({
        "sidecar": {"cluster": "sluice"},
        "on_error": on_error,
        "skip": [{"path": {"exact": "/skip"}}],
        "headers": {"debug": true, "upstream": "keep", "retry_after": {"jitter": "5s"}},
        "policies": [
            {
                "name": "all", "key": [{"header": "x-api-key"}], "limit": "1 per minute",
                "cost": {"header": "x-api-key", "min": 1, "max": 3}, "lease": {"ttl": "10ms"},
            },
            {
                "name": "api", "match": {"path": {"prefix": "/api"}}, "key": ["client_address"],
                "limits": [{"limit": "1 per second"}, {"limit": "1 per day"}],
                "settle": {"header": "x-tokens-used", "max": 1000}, "refund_on": ["4xx", "5xx"],
                "lease": {"ttl": "10ms"},
            },
            {
                "name": "watched", "match": {"path": {"exact": "/watched"}}, "key": [], "limit": "1 per day", "mode": "shadow",
                "settle": {"bytes_per_token": 10, "max": 100},
            },
        ],
    }))
}

/// Something that happens to a filter.
#[derive(Clone, Debug)]
enum Step {
    Arrive { path: Option<&'static str>, key: Option<Vec<u8>> },
    Respond { to: prop::sample::Index, status: &'static str, tokens: Option<String>, body_bytes: u64 },
    Leave(prop::sample::Index),
    Decide(Vec<bool>),
    BreakOff,
    EnvoyAnswers(&'static str),
    Refuse,
    Garbage(Vec<u8>),
    Endpoints(bool),
    Tick,
    RouteMetadata(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Step> {
    let path = prop::sample::select(vec![
        None,
        Some("/"),
        Some("/api/x?y"),
        Some("/skip"),
        Some("/watched"),
        Some(""),
    ]);
    // Few keys, so that some are hot, and some that are none.
    let few = prop::sample::select(vec![b"1".to_vec(), b"2".to_vec(), b"0".to_vec()]);
    let key = prop::option::of(prop_oneof![9 => few, 1 => any::<Vec<u8>>()]);
    let status = prop::sample::select(vec!["200", "404", "503", "x"]);
    let tokens = prop::option::of("[0-9x]{0,5}");
    prop_oneof![
        8 => (path, key).prop_map(|(path, key)| Step::Arrive { path, key }),
        4 => (any::<prop::sample::Index>(), status, tokens, 0..2_000_u64).prop_map(
            |(to, status, tokens, body_bytes)| Step::Respond { to, status, tokens, body_bytes }
        ),
        4 => any::<prop::sample::Index>().prop_map(Step::Leave),
        5 => prop::collection::vec(any::<bool>(), 1..4).prop_map(Step::Decide),
        1 => Just(Step::BreakOff),
        // Often enough in a row for the breaker to open.
        4 => prop::sample::select(vec!["503", "504", "504", "504", "502"]).prop_map(Step::EnvoyAnswers),
        1 => Just(Step::Refuse),
        1 => any::<Vec<u8>>().prop_map(Step::Garbage),
        1 => any::<bool>().prop_map(Step::Endpoints),
        2 => Just(Step::Tick),
        1 => any::<Vec<u8>>().prop_map(Step::RouteMetadata),
    ]
}

fn run(filter: &mut Filter, step: Step) {
    let on_the_way = host(|host| !host.callouts.is_empty());
    match step {
        Step::Arrive { path, key } => {
            filter.arrive(request(path, key.as_deref()));
        }
        Step::Respond { to, status, tokens, body_bytes } => {
            host(|host| host.attributes.insert("response\0flags", (body_bytes % 2).to_le_bytes().to_vec()));
            let waiting_for_upstream = filter.answered.iter().filter(|(_, answered)| **answered);
            let ids: Vec<u32> = waiting_for_upstream.map(|(id, _)| *id).collect();
            if !ids.is_empty() {
                host(|host| host.attributes.insert("response\0size", body_bytes.to_le_bytes().to_vec()));
                let tokens = tokens.iter().map(|tokens| ("x-tokens-used", tokens.as_str()));
                let headers: Vec<(&str, &str)> = [(":status", status)].into_iter().chain(tokens).collect();
                filter.respond(*to.get(&ids), &headers);
            }
        }
        Step::Leave(index) if !filter.answered.is_empty() => {
            let ids: Vec<u32> = filter.answered.keys().copied().collect();
            filter.leave(*index.get(&ids));
        }
        Step::Decide(pattern) if on_the_way => filter.deliver(decided(&pattern)),
        Step::BreakOff if on_the_way => filter.deliver(None),
        Step::EnvoyAnswers(status) if on_the_way => {
            filter.deliver(Some((vec![(":status", status.into())], b"no healthy upstream".to_vec())));
        }
        Step::Refuse if on_the_way => filter.deliver(Some((marked("400"), b"{}".to_vec()))),
        Step::Garbage(bytes) if on_the_way => filter.deliver(Some((marked("200"), bytes))),
        Step::Tick => filter.tick(),
        Step::Endpoints(there) => host(|host| host.no_endpoints = !there),
        Step::RouteMetadata(bytes) => {
            host(|host| host.attributes.insert("xds\0route_metadata", bytes));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn every_request_gets_exactly_one_answer(
        on_error in prop::sample::select(vec!["allow", "deny", "local"]),
        steps in prop::collection::vec(steps(), 0..200),
    ) {
        let counters = [
            "allowed", "denied", "failed_allowed", "failed_denied", "local_allowed", "local_denied", "left", "abandoned",
        ];
        let count = || counters.map(|name| counted(&format!("sluice.{name}"))).iter().sum::<i64>();
        let (mut filter, before, mut governed) = (filter(on_error), count(), 0);
        for step in steps {
            governed += i64::from(matches!(&step, Step::Arrive { path, .. } if *path != Some("/skip")));
            run(&mut filter, step);
            let (probes, callouts) = host(|host| {
                let probes = host.callouts.iter().filter(|callout| callout.path == "/healthz").count();
                (probes, host.callouts.len() - probes)
            });
            prop_assert!(callouts <= 1 && probes <= 1, "one callout at a time, and one probe");
        }
        filter.finish();
        // A route's metadata may exempt some.
        let exempt = host(|host| host.attributes.contains_key("xds\0route_metadata"));
        prop_assert!(count() - before == governed || exempt, "{} of {governed} are counted", count() - before);
    }

    #[test]
    fn what_is_settled_was_taken(steps in prop::collection::vec(steps(), 0..100)) {
        // What is denied would be returned if it were billed by its own status.
        let mut filter = filter("allow");
        let (mut taken, mut refunded) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            let pattern = match &step {
                Step::Decide(pattern) if host(|host| !host.callouts.is_empty()) => pattern.clone(),
                _ => Vec::new(),
            };
            let is_probe = host(|host| host.callouts.first().is_some_and(|callout| callout.path == "/healthz"));
            let takes = if pattern.is_empty() || is_probe { Vec::new() } else { asked().takes };
            run(&mut filter, step);
            let mut leader_allowed = true;
            for (take, &allowed) in takes.into_iter().zip(pattern.iter().cycle()) {
                leader_allowed = if take.follows { leader_allowed } else { allowed };
                let into = match take.kind {
                    Kind::Refund => &mut refunded,
                    Kind::Take if allowed && leader_allowed => &mut taken,
                    Kind::Take | Kind::Charge | Kind::Lease | Kind::Return => continue,
                };
                for bucket in take.buckets {
                    *into.entry((bucket.policy, bucket.key)).or_insert(0) += bucket.cost;
                }
            }
        }
        for (bucket, tokens) in refunded {
            prop_assert!(taken.get(&bucket).is_some_and(|taken| *taken >= tokens), "{bucket:?} got {tokens}");
        }
        filter.finish();
    }
}

#[test]
fn a_client_that_leaves_before_its_take_is_sent_charges_nothing() {
    let mut filter = filter("deny");
    filter.arrive(request(Some("/"), Some(b"first")));
    let leaving = filter.arrive(request(Some("/"), Some(b"leaving")));
    filter.arrive(request(Some("/"), Some(b"staying")));
    filter.leave(leaving);
    filter.deliver(decided(&[true]));
    assert!(!keys_on_the_way().contains(&"header:x-api-key=leaving".to_owned()));
    assert!(keys_on_the_way().contains(&"header:x-api-key=staying".to_owned()));
    filter.finish();
}

#[test]
fn a_client_that_leaves_takes_nobodys_answer_with_it() {
    let mut filter = filter("deny");
    let first = filter.arrive(request(Some("/"), Some(b"first")));
    let [second, third] =
        [b"second", b"third!"].map(|key| filter.arrive(request(Some("/"), Some(key.as_slice()))));
    filter.leave(first);
    filter.deliver(decided(&[true]));
    filter.leave(second);
    filter.deliver(decided(&[true]));
    assert_eq!(filter.answered, BTreeMap::from([(third, true)]));
    assert_eq!((counted("sluice.left"), counted("sluice.abandoned"), counted("sluice.allowed")), (2, 0, 1));
    filter.finish();
}

#[test]
fn a_failing_callout_fails_only_its_batch() {
    let mut filter = filter("deny");
    let unlucky = filter.arrive(request(Some("/"), Some(b"unlucky")));
    let lucky = filter.arrive(request(Some("/"), Some(b"lucky")));
    filter.deliver(None);
    assert_eq!(filter.reply(unlucky).status, 503);
    filter.deliver(decided(&[true]));
    assert_eq!(filter.events.last(), Some(&(lucky, Event::Resumed)));
    filter.finish();
}

#[test]
fn a_request_that_too_many_policies_match_fails_alone() {
    let policy = |number: usize| {
        let prefix = if number == 0 { "/" } else { "/many" };
        json!({"name": format!("p{number}"), "match": {"path": {"prefix": prefix}}, "key": [], "limit": "1 per day"})
    };
    let policies: Vec<Value> = (0..=contract::MAX_BUCKETS).map(policy).collect();
    let mut filter = Filter::configured(
        &json!({"sidecar": {"cluster": "sluice"}, "on_error": "deny", "policies": policies}),
    );
    let many = filter.arrive(request(Some("/many"), None));
    assert!(filter.answered[&many], "at once, and nobody else's batch is refused for it");
    assert!(host(|host| host.callouts.is_empty()));
    filter.arrive(request(Some("/"), None));
    filter.deliver(decided(&[true]));
    filter.finish();
}

#[test]
fn a_configuration_that_is_wrong_is_refused_and_told() {
    let root = next_id();
    root_created(root);
    callback(root, || proxy_on_context_create(root, 0));
    for bad in [
        &b""[..],
        b"{",
        b"\xff\xfe",
        br#"{"sidecar": {"cluster": "x"}, "policies": [{"name": "a", "key": [], "limit": "often"}]}"#,
    ] {
        host(|host| (host.configuration, host.log) = (bad.to_vec(), Vec::new()));
        assert_eq!(callback(root, || proxy_on_configure(root, bad.len())), 0, "{bad:?} was accepted");
        assert_eq!(host(|host| host.log.len()), 1, "one line says what is wrong");
    }
    assert!(host(|host| host.log[0].contains("policies[0].limit")));
    assert_eq!(counted("sluice.allowed"), 0);
}
