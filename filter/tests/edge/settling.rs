//! What a request cost in the end is charged or returned, and nobody waits for that.

use contract::{Kind, Take};
use serde_json::{Value, json};

use crate::fake_host::host;
use crate::filter::{Filter, asked, counted, decided, marked, request};

fn filter(policy: Value) -> Filter {
    let mut all = json!({"name": "all", "key": [{"header": "x-api-key"}], "limit": "60 per minute"});
    all.as_object_mut().unwrap().extend(policy.as_object().unwrap().clone());
    Filter::configured(&json!({"sidecar": {"cluster": "sluice"}, "on_error": "deny", "policies": [all]}))
}

fn by_header() -> Filter {
    // What is denied or fails would be returned, were it billed.
    let refunds = ["429", "503"];
    filter(json!({"cost": 3, "settle": {"header": "x-tokens-used", "max": 1000}, "refund_on": refunds}))
}

/// A request that passes, and is answered so by its upstream.
fn passed(filter: &mut Filter, response: &[(&str, &str)]) -> u32 {
    let id = filter.arrive(request(Some("/"), Some(b"alice")));
    filter.deliver(decided(&[true]));
    filter.respond(id, response);
    assert!(host(|host| host.callouts.is_empty()), "the response has not ended yet");
    id
}

/// What the only take on the way is, and what it costs.
fn settlement() -> (Kind, String, u64) {
    let takes = asked().takes;
    assert_eq!(takes.len(), 1);
    (takes[0].kind, takes[0].buckets[0].key.to_string(), takes[0].buckets[0].cost)
}

#[test]
fn what_it_cost_more_is_charged_and_what_it_cost_less_is_returned() {
    for (said, kind, cost) in [("10", Kind::Charge, 7), ("1", Kind::Refund, 2), ("99999", Kind::Charge, 997)]
    {
        let mut filter = by_header();
        let id = passed(&mut filter, &[(":status", "200"), ("x-tokens-used", said)]);
        filter.leave(id);
        assert_eq!(settlement(), (kind, "header:x-api-key=alice".to_owned(), cost), "{said}");
        filter.deliver(decided(&[true]));
        assert_eq!(filter.events.len(), 1, "nobody is told");
        filter.finish();
    }
    assert_eq!((counted("sluice.settled"), counted("sluice.settle_failed")), (3, 0));
}

#[test]
fn nothing_is_sent_where_nothing_is_left_to_settle() {
    let mut filter = by_header();
    for response in [&[(":status", "200"), ("x-tokens-used", "3")][..], &[(":status", "200")]] {
        let id = passed(&mut filter, response);
        filter.leave(id);
        assert!(host(|host| host.callouts.is_empty()), "{response:?}");
    }
    let denied = filter.arrive(request(Some("/"), Some(b"alice")));
    filter.deliver(decided(&[false]));
    filter.leave(denied);
    let failed = filter.arrive(request(Some("/"), Some(b"alice")));
    filter.deliver(None);
    filter.leave(failed);
    let without_response = filter.arrive(request(Some("/"), Some(b"alice")));
    filter.deliver(decided(&[true]));
    filter.leave(without_response);
    assert!(host(|host| host.callouts.is_empty()));
    filter.finish();
}

#[test]
fn a_request_that_could_not_be_decided_is_not_settled() {
    let config =
        json!({"on_error": "allow", "refund_on": ["2xx"], "settle": {"header": "x-tokens-used", "max": 10}});
    let mut filter = filter(config);
    let id = filter.arrive(request(Some("/"), Some(b"alice")));
    filter.deliver(None);
    filter.respond(id, &[(":status", "200"), ("x-tokens-used", "10")]);
    filter.leave(id);
    assert!(host(|host| host.callouts.is_empty()));
    filter.finish();
}

#[test]
fn a_response_for_which_it_costs_nothing_returns_all() {
    let mut filter = filter(json!({"cost": 3, "refund_on": ["5xx", 404]}));
    for status in ["500", "404"] {
        let id = passed(&mut filter, &[(":status", status)]);
        filter.leave(id);
        assert_eq!(settlement(), (Kind::Refund, "header:x-api-key=alice".to_owned(), 3));
        filter.deliver(decided(&[true]));
    }
    let id = passed(&mut filter, &[(":status", "403")]);
    filter.leave(id);
    assert!(host(|host| host.callouts.is_empty()));
    filter.finish();
}

#[test]
fn a_body_is_settled_by_what_was_sent_of_it() {
    let mut filter = filter(json!({"settle": {"bytes_per_token": 1000, "max": 100}}));
    let id = passed(&mut filter, &[(":status", "200")]);
    host(|host| host.attributes.insert("response\0size", 4_001_u64.to_le_bytes().to_vec()));
    filter.leave(id);
    assert_eq!(settlement(), (Kind::Charge, "header:x-api-key=alice".to_owned(), 4));
    filter.deliver(decided(&[true]));
    let id = passed(&mut filter, &[(":status", "200")]);
    host(|host| host.attributes.remove("response\0size"));
    filter.leave(id);
    assert!(host(|host| host.callouts.is_empty()), "what is not known is not charged");
    assert_eq!(counted("sluice.settle_failed"), 1);
    filter.finish();
}

#[test]
fn who_hangs_up_early_gets_nothing_back() {
    let mut filter = filter(json!({"cost": 3, "settle": {"bytes_per_token": 1000, "max": 100}}));
    let sent = |bytes: u64, flags: u64| {
        host(|host| {
            host.attributes.insert("response\0size", bytes.to_le_bytes().to_vec());
            host.attributes.insert("response\0flags", flags.to_le_bytes().to_vec());
        });
    };
    let cut_off = passed(&mut filter, &[(":status", "200")]);
    sent(0, 1 << 14);
    filter.leave(cut_off);
    assert!(host(|host| host.callouts.is_empty()));
    let whole = passed(&mut filter, &[(":status", "200")]);
    sent(0, 0);
    filter.leave(whole);
    assert_eq!(settlement(), (Kind::Refund, "header:x-api-key=alice".to_owned(), 3));
    filter.finish();
}

#[test]
fn settlements_share_callouts_with_requests_and_take_no_answer_from_them() {
    let mut filter = by_header();
    let ids = [(); 3].map(|()| filter.arrive(request(Some("/"), Some(b"alice"))));
    filter.deliver(decided(&[true]));
    filter.deliver(decided(&[true]));
    for id in ids {
        filter.respond(id, &[(":status", "200"), ("x-tokens-used", "10")]);
    }
    let first = filter.arrive(request(Some("/"), Some(b"bob")));
    filter.leave(ids[0]);
    let second = filter.arrive(request(Some("/"), Some(b"carol")));
    filter.leave(ids[1]);
    filter.leave(ids[2]);
    filter.deliver(decided(&[true]));
    let kinds: Vec<Kind> = asked().takes.iter().map(|take: &Take| take.kind).collect();
    assert_eq!(kinds, [Kind::Charge, Kind::Take, Kind::Charge, Kind::Charge]);
    filter.deliver(decided(&[false]));
    assert_eq!(filter.reply(second).status, 429);
    assert!(filter.answered[&first]);
    assert_eq!(counted("sluice.settled"), 3);
    filter.finish();
}

#[test]
fn a_settlement_that_fails_is_counted_and_nothing_else() {
    let mut filter = by_header();
    let response = [(":status", "200"), ("x-tokens-used", "10")];
    for answer in [None, Some((marked("200"), b"{".to_vec())), Some((marked("503"), Vec::new()))] {
        let id = passed(&mut filter, &response);
        filter.leave(id);
        filter.deliver(answer);
    }
    assert_eq!(counted("sluice.settle_failed"), 3);
    let id = passed(&mut filter, &response);
    host(|host| host.no_endpoints = true);
    filter.leave(id);
    assert_eq!((counted("sluice.settle_failed"), counted("sluice.settled")), (4, 0));
    filter.finish();
}

#[test]
fn a_settlement_is_dropped_and_counted_where_no_more_may_wait() {
    let mut filter = by_header();
    let response = [(":status", "200"), ("x-tokens-used", "10")];
    let settling: Vec<u32> = (0..1_100).map(|_| passed(&mut filter, &response)).collect();
    while counted("sluice.failed_denied") == 0 {
        filter.arrive(request(Some("/"), Some(b"bob")));
    }
    for id in &settling {
        filter.leave(*id);
    }
    let dropped = counted("sluice.settle_failed");
    assert!(dropped > 0);
    while host(|host| !host.callouts.is_empty()) {
        filter.deliver(decided(&[true]));
    }
    assert_eq!(counted("sluice.settled") + dropped, 1_100, "each is counted once");
    filter.finish();
}
