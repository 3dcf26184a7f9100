//! Limits, and what a request takes from them, then and later.

use std::borrow::Cow;

use contract::{BucketTake, Kind};
use policy::{Policies, Response};
use serde_json::{Value, json};

use crate::sent::{Sent, asks, error, one, policies, read};

/// `name tokens/period_us burst` of each bucket that a request asks.
fn buckets(policies: &Policies) -> Vec<String> {
    let asks = asks(policies, &Sent::get("/"));
    let takes = policies.takes(&asks);
    let of = |bucket: &BucketTake<'_>| {
        format!("{} {}/{} {}", bucket.policy, bucket.tokens, bucket.period_us, bucket.burst)
    };
    takes.iter().flat_map(|take| &take.buckets).map(of).collect()
}

#[test]
fn a_limit_is_written_in_short_or_at_length() {
    for limit in [
        json!("60 per minute"),
        json!({"tokens": 60, "per": "minute"}),
        json!({"tokens": "60", "per": "60s"}),
    ] {
        assert_eq!(buckets(&one("limit", limit)), ["p 1/1000000 60"]);
    }
    let apart = json!([{"name": "p", "key": [], "limit": "60 per minute", "burst": 5}]);
    assert_eq!(buckets(&policies(apart)), ["p 1/1000000 5"]);
}

#[test]
fn several_limits_are_asked_together_each_by_its_name() {
    let several = policies(json!([{"name": "p", "key": [], "limits": [
        {"limit": "10 per second", "burst": 20},
        {"limit": "1000 per day"},
        {"limit": "3 per 90s", "name": "slow"},
    ]}]));
    assert_eq!(buckets(&several), ["p.1s 1/100000 20", "p.1d 1/86400000 1000", "p.slow 1/30000000 3"]);
    let policy = several.iter().next().expect("one");
    let texts: Vec<&str> = policy.limits().iter().map(|named| named.text.as_str()).collect();
    assert_eq!(texts, ["10 per second", "1000 per day", "3 per 90 seconds"]);
}

#[test]
fn names_of_buckets_never_meet() {
    let wrong = |policies: Value| {
        read(&json!({"sidecar": {"cluster": "s"}, "policies": policies})).expect_err("refused")
    };
    let twice = json!([{"name": "p", "key": [], "limits": [{"limit": "1 per day"}, {"limit": "2 per 24h"}]}]);
    let told = wrong(twice);
    assert!(
        told.contains(
            "policies[0].limits: found two limits whose buckets are named \"p.1d\"; give one of them a `name`"
        ),
        "{told}"
    );
    let other = json!([
        {"name": "p", "key": [], "limits": [{"limit": "1 per day"}, {"limit": "2 per hour"}]},
        {"name": "p.1d", "key": [], "limit": "1 per day"},
    ]);
    let told = wrong(other);
    assert!(told.contains("policies[1].name: found the name \"p.1d\" of policies[0] again"), "{told}");
}

#[test]
fn a_request_costs_what_is_written_or_what_a_header_says() {
    let cost = |written: Value, sent: Sent| asks(&one("cost", written), &sent)[0].cost_tokens;
    let with = |value: &str| Sent::get("/").header("x-cost", value);
    assert_eq!(cost(json!(5), Sent::get("/")), 5);
    assert_eq!(cost(json!("0"), Sent::get("/")), 0);
    let header = json!({"header": "X-Cost", "default": 2, "min": 1, "max": 50});
    for (value, expected) in [
        ("7", 7),
        (" 7 ", 7),
        ("0", 1),
        ("51", 50),
        ("99999999999999999999", 50),
        ("-1", 2),
        ("1.5", 2),
        ("", 2),
        ("x", 2),
    ] {
        assert_eq!(cost(header.clone(), with(value)), expected, "{value:?}");
    }
    assert_eq!(cost(header, Sent::get("/")), 2);
    assert_eq!(cost(json!({"header": "x-cost", "max": 9}), Sent::get("/")), 1, "by default 1");
}

struct Got(&'static [(&'static str, &'static str)]);

impl Response for Got {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let named = self.0.iter().find(|(found, _)| *found == name);
        named.map(|(_, value)| Cow::Borrowed(value.as_bytes()))
    }
}

/// What is settled for a request that cost 3, as `kind cost`.
fn settled(policies: &Policies, got: &Got, body_bytes: u64) -> Vec<String> {
    let asks = asks(policies, &Sent::get("/"));
    assert!(policies.settles(&asks));
    let bill = policies.bill(&asks, &[true], got);
    let takes = bill.takes(policies, &asks, body_bytes);
    let of = |take: &contract::Take<'_>| format!("{:?} {}", take.kind, take.buckets[0].cost);
    takes.iter().map(of).collect()
}

#[test]
fn what_a_response_tells_is_taken_or_returned() {
    let by_header = json!([{"name": "p", "key": [], "limit": "9 per day", "cost": 3, "settle": {"header": "X-Used", "max": 100}}]);
    let by_header = policies(by_header);
    let none: [&str; 0] = [];
    assert_eq!(settled(&by_header, &Got(&[("x-used", "10")]), 0), ["Charge 7"]);
    assert_eq!(settled(&by_header, &Got(&[("x-used", "1")]), 0), ["Refund 2"]);
    assert_eq!(settled(&by_header, &Got(&[("x-used", "3")]), 0), none);
    assert_eq!(settled(&by_header, &Got(&[("x-used", "1000")]), 0), ["Charge 97"], "at most `max`");
    assert_eq!(settled(&by_header, &Got(&[("x-used", "many")]), 0), none, "what it took stands");
    assert_eq!(settled(&by_header, &Got(&[]), 0), none);

    let by_size = json!([{"name": "p", "key": [], "limit": "9 per day", "cost": 3, "settle": {"bytes_per_token": 1024, "max": 100}}]);
    let by_size = policies(by_size);
    assert_eq!(settled(&by_size, &Got(&[]), 3072), none);
    assert_eq!(settled(&by_size, &Got(&[]), 3073), ["Charge 1"], "rounded up");
    assert_eq!(settled(&by_size, &Got(&[]), 0), ["Refund 3"]);
    assert_eq!(settled(&by_size, &Got(&[]), u64::MAX), ["Charge 97"]);
    let asks = asks(&by_size, &Sent::get("/"));
    assert!(by_size.bill(&asks, &[true], &Got(&[])).needs_body_bytes());
    let broken = by_size.bill(&asks, &[true], &Got(&[])).cut_off();
    assert_eq!(broken.takes(&by_size, &asks, 1024), [], "who hangs up gets nothing back");
    assert_eq!(broken.takes(&by_size, &asks, 4096)[0].buckets[0].cost, 1, "and pays for what was sent");
    assert_eq!(by_size.bill(&asks, &[false], &Got(&[])).takes(&by_size, &asks, 9), [], "nothing was taken");
}

#[test]
fn a_status_can_return_what_was_taken() {
    let refunding = policies(json!([{
        "name": "p", "key": [], "limit": "9 per day", "cost": 3,
        "settle": {"header": "x-used", "max": 100}, "refund_on": ["5xx", 404, "409"],
    }]));
    for status in ["500", "503", "599", "404", "409"] {
        let got = Got(Box::leak(Box::new([(":status", status), ("x-used", "50")])));
        assert_eq!(settled(&refunding, &got, 0), ["Refund 3"], "{status}");
    }
    for status in ["200", "403", "499"] {
        let got = Got(Box::leak(Box::new([(":status", status), ("x-used", "50")])));
        assert_eq!(settled(&refunding, &got, 0), ["Charge 47"], "{status}");
    }
    // Without a message gRPC tells its status in the headers; otherwise in trailers, which come too late.
    let grpc = |code| Got(Box::leak(Box::new([(":status", "200"), ("grpc-status", code)])));
    for (code, refunded) in
        [("14", true), ("13", true), ("5", true), ("2", true), ("99", true), ("0", false), ("7", false)]
    {
        assert_eq!(settled(&refunding, &grpc(code), 0).len(), usize::from(refunded), "{code}");
    }
    assert!(!one("cost", json!(1)).settles(&asks(&one("cost", json!(1)), &Sent::get("/"))));
}

#[test]
fn all_that_is_charged_is_one_take_and_all_that_is_returned_another() {
    let several = policies(json!([
        {"name": "a", "key": [], "limits": [{"limit": "9 per day"}, {"limit": "9 per hour"}], "settle": {"header": "a", "max": 100}},
        {"name": "b", "key": [], "limit": "9 per day", "refund_on": ["5xx"]},
        {"name": "c", "key": [], "limit": "9 per day", "settle": {"header": "a", "max": 50}},
    ]));
    let asks = asks(&several, &Sent::get("/"));
    let got = Got(&[(":status", "500"), ("a", "70")]);
    let bill = several.bill(&asks, &[true; 3], &got);
    let takes = bill.takes(&several, &asks, 0);
    let told: Vec<(Kind, Vec<(&str, u64)>)> = takes
        .iter()
        .map(|take| {
            (take.kind, take.buckets.iter().map(|bucket| (bucket.policy.as_ref(), bucket.cost)).collect())
        })
        .collect();
    let expected =
        [(Kind::Charge, vec![("a.1d", 69), ("a.1h", 69), ("c", 49)]), (Kind::Refund, vec![("b", 1)])];
    assert_eq!(told, expected);
}

#[test]
fn a_mistake_in_a_limit_or_a_cost_is_told() {
    let cases = [
        (
            "limit",
            json!("60 per fortnight"),
            "policies[0].limit: found \"60 per fortnight\"; expected a limit such as \"60 per minute\", \"5 per 12s\", \"1000/day\" or { tokens: 60, per: minute }",
        ),
        ("limit", json!({"tokens": 60}), "policies[0].limit: the field `per` is missing"),
        (
            "limit",
            json!({"tokens": 60, "per": "moon"}),
            "policies[0].limit.per: found \"moon\"; expected a time such as \"minute\"",
        ),
        (
            "limit",
            json!({"tokens": 60, "per": "day", "burst": 5}),
            "policies[0].limit.burst: found `burst`; expected `tokens` or `per`",
        ),
        ("limits", json!([{"limit": "1 per day"}]), "policies[0].limits: found `limit` and `limits`"),
        (
            "cost",
            json!(-1),
            "policies[0].cost: found the number `-1`; expected a whole number such as 1, or a mapping",
        ),
        (
            "cost",
            json!(9_007_199_254_740_992_u64),
            "policies[0].cost: found 9007199254740992; it must be below 2^53",
        ),
        ("cost", json!({"header": "x"}), "policies[0].cost: the field `max` is missing"),
        (
            "cost",
            json!({"header": "x", "max": 5, "min": 6}),
            "policies[0].cost.min: found 6, which is more than `max`: 5",
        ),
        (
            "cost",
            json!({"header": "x", "max": 5, "default": 9}),
            "policies[0].cost.default: found 9, which is not between `min`: 0 and `max`: 5",
        ),
        ("settle", json!({"max": 5}), "policies[0].settle: found neither `header` nor `bytes_per_token`"),
        (
            "settle",
            json!({"header": "x", "bytes_per_token": 1, "max": 5}),
            "policies[0].settle: found `header` and `bytes_per_token`",
        ),
        ("settle", json!({"bytes_per_token": 0, "max": 5}), "policies[0].settle.bytes_per_token: found 0"),
        ("settle", json!({"header": "x"}), "policies[0].settle: the field `max` is missing"),
        (
            "refund_on",
            json!(["6xx"]),
            "policies[0].refund_on[0]: found \"6xx\"; expected a status such as 404, or a class such as 5xx",
        ),
        ("refund_on", json!([99]), "policies[0].refund_on[0]: found the number `99`; expected a status"),
    ];
    for (field, value, expected) in cases {
        let told = error(field, value.clone());
        assert!(told.contains(expected), "{field}: {value}:\n  {told}\ndoes not say\n  {expected}");
    }
    let wrong = |policy: Value| {
        read(&json!({"sidecar": {"cluster": "s"}, "policies": [policy]})).expect_err("refused")
    };
    let told = wrong(json!({"name": "p", "key": []}));
    assert!(
        told.contains("policies[0]: the field `limit` is missing; write one, such as `limit: 60 per minute`"),
        "{told}"
    );
    let told = wrong(json!({"name": "p", "key": [], "burst": 5, "limits": [{"limit": "1 per day"}]}));
    assert!(told.contains("policies[0].burst: found a burst beside `limits`"), "{told}");
    for cost in [json!(0), json!({"header": "x", "max": 5})] {
        let settle = json!({"header": "y", "max": 5});
        let told =
            wrong(json!({"name": "p", "key": [], "limit": "1 per day", "cost": cost, "settle": settle}));
        assert!(told.contains("policies[0].cost: found a cost that may be 0 beside `settle`"), "{told}");
    }
    let told = wrong(json!({"name": "p", "key": [], "limits": []}));
    assert!(told.contains("policies[0].limits: found 0 limits; write 1 to 8"), "{told}");
}
