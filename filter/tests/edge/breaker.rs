//! A sidecar that lets callouts wait in vain is not asked until it answers a probe.

use serde_json::{Value, json};

use crate::fake_host::{Event, callback, host};
use crate::filter::{CalloutAnswer, Filter, counted, decided, marked, proxy_on_configure, request};

fn filter(rest: Value) -> Filter {
    filter_with(json!({}), rest)
}

/// With what is said of the sidecar, and of the policy.
fn filter_with(sidecar: Value, rest: Value) -> Filter {
    let mut policy = json!({"name": "all", "key": [{"header": "x-api-key"}], "limit": "1 per minute"});
    policy.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let mut config = json!({"sidecar": {"cluster": "sluice"}, "on_error": "deny", "policies": [policy]});
    config["sidecar"].as_object_mut().unwrap().extend(sidecar.as_object().unwrap().clone());
    Filter::configured(&config)
}

fn timeout() -> CalloutAnswer {
    Some((vec![(":status", b"504".to_vec())], b"upstream request timeout".to_vec()))
}

fn refused_connection() -> CalloutAnswer {
    Some((vec![(":status", b"503".to_vec())], b"upstream connect error".to_vec()))
}

fn ask(filter: &mut Filter) -> u32 {
    filter.arrive(request(Some("/"), Some(b"alice")))
}

fn on_the_way() -> usize {
    host(|host| host.callouts.len())
}

/// Its breaker has just opened.
fn opened(rest: Value) -> Filter {
    let mut filter = filter(rest);
    for _ in 0..3 {
        ask(&mut filter);
        filter.deliver(timeout());
    }
    assert_eq!((counted("sluice.breaker_opened"), gauge()), (1, 1));
    filter
}

fn gauge() -> i64 {
    host(|host| host.gauges.get("sluice.breakers_open").copied().unwrap_or_default())
}

fn told(what: &str) -> usize {
    host(|host| host.log.iter().filter(|line| line.contains(what)).count())
}

fn period_ms(filter: &Filter) -> u32 {
    host(|host| host.tick_periods_ms[&filter.root])
}

/// Lets time pass until a probe is on the way.
fn probe(filter: &mut Filter) {
    filter.tick();
    assert_eq!(
        host(|host| host.callouts.iter().map(|callout| callout.path.clone()).collect::<Vec<_>>()),
        ["/healthz"]
    );
}

#[test]
fn three_waits_in_vain_are_enough() {
    let mut filter = opened(json!({}));
    let callouts = counted("sluice.callouts");
    for _ in 0..100 {
        let id = ask(&mut filter);
        assert_eq!(filter.reply(id).details, "sluice_failed_breaker_open");
    }
    assert_eq!((on_the_way(), counted("sluice.callouts")), (0, callouts), "nobody waits");
    assert_eq!(told("in vain"), 1, "told once");
    filter.finish();
}

#[test]
fn an_answered_probe_lets_callouts_leave_and_an_answered_take_closes_it() {
    let mut filter = opened(json!({}));
    probe(&mut filter);
    ask(&mut filter);
    assert_eq!(on_the_way(), 1, "a probe carries nobody's request");
    filter.deliver(decided(&[true]));
    assert_eq!((gauge(), period_ms(&filter)), (0, 0), "and no time is asked for any more");
    assert_eq!(told("answers again"), 0, "that is to be seen");
    let id = ask(&mut filter);
    filter.deliver(decided(&[true]));
    assert_eq!(filter.events.last(), Some(&(id, Event::Resumed)));
    assert_eq!(told("answers again"), 1);
    for _ in 0..2 {
        ask(&mut filter);
        filter.deliver(timeout());
    }
    assert_eq!(gauge(), 0, "three are needed again");
    filter.finish();
}

#[test]
fn a_sidecar_that_answers_probes_and_no_takes_is_asked_ever_more_seldom_and_told_of_once() {
    let mut filter = opened(json!({}));
    let lines = host(|host| host.log.len());
    let mut periods_ms = Vec::new();
    for turn in 1..=20 {
        periods_ms.push(period_ms(&filter));
        probe(&mut filter);
        filter.deliver(decided(&[true]));
        assert_eq!((gauge(), period_ms(&filter)), (0, 0));
        ask(&mut filter);
        filter.deliver(timeout());
        assert_eq!((gauge(), counted("sluice.breaker_opened")), (1, 1 + turn), "one in vain is enough");
    }
    assert_eq!(periods_ms[..6], [100, 200, 400, 800, 1_000, 1_000]);
    assert_eq!(host(|host| host.log.len()), lines);
    filter.finish();
}

#[test]
fn those_that_are_on_the_way_together_are_one_wait() {
    let mut filter = filter_with(json!({"in_flight": 3}), json!({}));
    for turn in 0..3 {
        assert_eq!(gauge(), 0, "after {turn} stalls");
        for _ in 0..3 {
            ask(&mut filter);
        }
        assert_eq!(on_the_way(), 3);
        for _ in 0..3 {
            filter.deliver(timeout());
        }
    }
    assert_eq!(gauge(), 1);
    filter.finish();
}

#[test]
fn a_probe_is_waited_for_no_longer_than_a_second() {
    for (timeout_written, probe_ms) in [("20s", 1_000), ("30ms", 30)] {
        let mut filter = filter_with(json!({"timeout": timeout_written}), json!({}));
        for _ in 0..3 {
            ask(&mut filter);
            filter.deliver(timeout());
        }
        probe(&mut filter);
        assert_eq!(host(|host| host.callouts[0].timeout_ms), probe_ms);
        filter.deliver(decided(&[true]));
        filter.finish();
    }
}

#[test]
fn probes_that_nobody_answers_come_ever_more_seldom() {
    let mut filter = opened(json!({}));
    let mut periods_ms = vec![period_ms(&filter)];
    let answers =
        [timeout(), refused_connection(), None, Some((vec![(":status", b"200".to_vec())], Vec::new()))];
    for answer in answers {
        probe(&mut filter);
        filter.tick();
        assert_eq!(on_the_way(), 1, "one at a time");
        filter.deliver(answer);
        periods_ms.push(period_ms(&filter));
    }
    assert_eq!(periods_ms, [100, 200, 400, 800, 1_000]);
    assert_eq!(gauge(), 1, "what is not marked is no sidecar");
    host(|host| host.no_endpoints = true);
    filter.tick();
    host(|host| host.no_endpoints = false);
    probe(&mut filter);
    filter.deliver(Some((marked("503"), b"{}".to_vec())));
    assert_eq!((gauge(), counted("sluice.probes")), (0, 6), "a sidecar that refuses is there");
    filter.finish();
}

#[test]
fn what_fails_at_once_needs_no_breaker_and_does_not_hide_what_is_waited_for() {
    // However slow the machine is, that is at once.
    let mut filter = filter_with(json!({"timeout": "60s"}), json!({}));
    for _ in 0..10 {
        ask(&mut filter);
        filter.deliver(refused_connection());
    }
    host(|host| host.no_endpoints = true);
    for _ in 0..10 {
        ask(&mut filter);
    }
    host(|host| host.no_endpoints = false);
    assert_eq!(gauge(), 0);
    for answer in [timeout(), timeout(), refused_connection(), timeout()] {
        ask(&mut filter);
        filter.deliver(answer);
    }
    assert_eq!(gauge(), 1);
    filter.finish();
}

#[test]
fn those_who_wait_when_it_opens_wait_no_longer() {
    let mut filter = filter(json!({}));
    for _ in 0..2 {
        ask(&mut filter);
        filter.deliver(timeout());
    }
    let ids = [(); 4].map(|()| ask(&mut filter));
    assert_eq!(on_the_way(), 1, "the first is on the way, the others wait");
    filter.deliver(timeout());
    assert!(ids.iter().all(|id| filter.answered[id]));
    assert_eq!(on_the_way(), 0);
    filter.finish();
}

#[test]
fn nothing_is_settled_while_it_is_open() {
    let mut filter = filter(json!({"refund_on": ["5xx"]}));
    let id = ask(&mut filter);
    filter.deliver(decided(&[true]));
    for _ in 0..3 {
        ask(&mut filter);
        filter.deliver(timeout());
    }
    filter.respond(id, &[(":status", "500")]);
    filter.leave(id);
    assert_eq!((on_the_way(), counted("sluice.settle_failed")), (0, 1), "and that is counted");
    filter.finish();
}

#[test]
fn leases_that_end_while_it_is_open_are_returned_afterwards() {
    let cost = json!({"header": "x-cost", "max": 100});
    let mut filter = filter(json!({"limit": "1000 per minute", "lease": {"ttl": "60s"}, "cost": cost}));
    // A lease is granted once its key is hot.
    for _ in 0..6 {
        ask(&mut filter);
        while on_the_way() > 0 {
            filter.deliver(decided(&[true]));
        }
    }
    assert!(counted("sluice.leases") > 0);
    for turn in 0..3 {
        filter.arrive(request(Some("/"), Some(format!("other {turn}").as_bytes())));
        filter.deliver(timeout());
    }
    assert_eq!((gauge(), period_ms(&filter)), (1, 100), "probes go before");
    // It ends by not paying for this.
    let mut dear = request(Some("/"), Some(b"alice"));
    dear.push(("x-cost", b"100".to_vec()));
    let id = filter.arrive(dear);
    assert_eq!(filter.reply(id).details, "sluice_failed_breaker_open");
    probe(&mut filter);
    filter.deliver(decided(&[true]));
    assert!(period_ms(&filter) > 0, "there is something to return");
    filter.tick();
    let kinds: Vec<_> = crate::filter::asked().takes.iter().map(|take| take.kind).collect();
    assert!(kinds.contains(&contract::Kind::Return), "{kinds:?}");
    filter.finish();
}

#[test]
fn a_configuration_that_ends_takes_its_breaker_with_it() {
    let filter = opened(json!({}));
    filter.end();
    assert_eq!((gauge(), period_ms(&filter)), (0, 0));
}

#[test]
fn a_configuration_that_is_read_anew_takes_the_former_breaker_with_it() {
    let filter = opened(json!({}));
    let size = host(|host| host.configuration.len());
    assert_eq!(callback(filter.root, || proxy_on_configure(filter.root, size)), 1);
    assert_eq!((gauge(), period_ms(&filter)), (0, 0));
}
