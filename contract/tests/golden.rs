//! The committed files are the contract: reading and writing them must give them back to the letter.

use std::borrow::Cow;

use contract::{
    BucketVerdict, FailureReason, Kind, LeaseTerms, Leased, Outcome, Overridden, Refusal, TakeRequest,
    TakeResponse, Verdict,
};
use serde::{Deserialize, Serialize};

const REQUEST: &str = include_str!("../golden/take-request.json");
const KINDS: &str = include_str!("../golden/take-request-kinds.json");
const RESPONSE: &str = include_str!("../golden/take-response.json");
const LEASES: &str = include_str!("../golden/take-request-leases.json");
const LEASED: &str = include_str!("../golden/take-response-leases.json");
const TOLD: &str = include_str!("../golden/take-request-told.json");
const OVERRIDDEN: &str = include_str!("../golden/take-response-overridden.json");
const REFUSAL: &str = include_str!("../golden/refusal.json");

fn assert_round_trip<'a, T: Serialize + Deserialize<'a>>(golden: &'a str) -> T {
    let read: T = serde_json::from_str(golden).expect("the golden file is read");
    let written = serde_json::to_string_pretty(&read).expect("and written");
    assert_eq!(written, golden.trim_end(), "what is written differs from the golden file");
    read
}

#[test]
fn a_request_is_read_and_written_as_committed() {
    let request: TakeRequest = assert_round_trip(REQUEST);
    assert_eq!(request.domain, "shop");
    assert_eq!(request.takes[0].buckets[1].period_us, 12_000_000);
    assert_eq!(request.takes.iter().map(|take| take.kind).collect::<Vec<_>>(), [Kind::Take, Kind::Refund]);
    assert!(!request.takes.iter().any(|take| take.follows));
    assert!(matches!(request.takes[0].buckets[0].key, Cow::Borrowed(_)), "a key is read without a copy");
}

#[test]
fn takes_of_each_kind_are_read_and_written_as_committed() {
    let request: TakeRequest = assert_round_trip(KINDS);
    let takes: Vec<(Kind, bool)> = request.takes.iter().map(|take| (take.kind, take.follows)).collect();
    let followed = [(Kind::Take, false), (Kind::Take, true), (Kind::Charge, true)];
    assert_eq!(takes, [&followed[..], &[(Kind::Charge, false), (Kind::Refund, false)]].concat());
}

#[test]
fn what_is_the_default_may_be_written() {
    let spelt_out =
        KINDS.replacen("{\n      \"buckets\"", "{\"kind\": \"take\", \"follows\": false, \"buckets\"", 1);
    assert_ne!(spelt_out, KINDS);
    let request: TakeRequest = serde_json::from_str(&spelt_out).expect("the default is a value too");
    assert_eq!(request, serde_json::from_str(KINDS).expect("golden"));
}

#[test]
fn a_kind_that_the_reader_does_not_know_is_refused() {
    let newer = KINDS.replacen("\"charge\"", "\"borrow\"", 1);
    let error =
        serde_json::from_str::<TakeRequest>(&newer).expect_err("an unknown kind was taken for another");
    assert!(
        error.to_string().contains(
            "unknown variant `borrow`, expected one of `take`, `refund`, `charge`, `lease`, `return`"
        ),
        "{error}"
    );
}

#[test]
fn a_response_is_read_and_written_as_committed() {
    let response: TakeResponse = assert_round_trip(RESPONSE);
    let Verdict::Denied(buckets) = &response.verdicts[1] else { panic!("the second take was denied") };
    let outcomes: Vec<Outcome> = buckets.iter().map(|bucket| bucket.outcome).collect();
    assert_eq!(outcomes, [Outcome::Allowed, Outcome::Denied, Outcome::NeverFits]);
    assert_eq!(buckets[1].retry_after_us, Some(11_999_000));
    assert_eq!(buckets[2].retry_after_us, None);
    assert_eq!(response.verdicts[3], Verdict::Failed(FailureReason::StoreFull));
}

#[test]
fn a_lease_and_its_return_are_read_and_written_as_committed() {
    let request: TakeRequest = assert_round_trip(LEASES);
    let kinds: Vec<(Kind, bool)> = request.takes.iter().map(|take| (take.kind, take.follows)).collect();
    assert_eq!(kinds, [(Kind::Take, false), (Kind::Lease, true), (Kind::Return, false)]);
    assert_eq!(request.takes[1].lease, Some(LeaseTerms { ttl_us: 1_000_000, share_percent: 50 }));
    let returned = Leased { tokens: 25, lapses_at_us: 1_763_650_002_000_000 };
    assert_eq!((request.takes[2].returned, request.takes[2].lease), (Some(returned), None));
    let response: TakeResponse = assert_round_trip(LEASED);
    let Verdict::Leased { tokens, lapses_at_us, buckets } = &response.verdicts[1] else {
        panic!("the second take was a lease")
    };
    assert_eq!((*tokens, *lapses_at_us), (30, 1_763_650_002_000_000));
    assert_eq!((buckets[0].outcome, buckets[0].remaining), (Outcome::Allowed, 29));
}

#[test]
fn what_a_take_only_tells_is_read_and_written_as_committed() {
    let request: TakeRequest = assert_round_trip(TOLD);
    let take = &request.takes[0];
    assert_eq!(take.buckets[0].repeats, 12_345);
    assert!(take.traceparent.as_deref().is_some_and(|told| told.starts_with("00-0af7")), "{take:?}");
    assert_eq!(request.takes.iter().map(|take| take.shadow).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_an_operator_has_overridden_is_read_and_written_as_committed() {
    let response: TakeResponse = assert_round_trip(OVERRIDDEN);
    let (Verdict::Allowed(allowed), Verdict::Denied(denied)) = (&response.verdicts[0], &response.verdicts[1])
    else {
        panic!("one was allowed and one denied")
    };
    let overridden: Vec<_> = allowed.iter().chain(denied).map(|bucket| bucket.overridden).collect();
    let limit = Overridden::Limit { tokens: 10, period_us: 1_000_000, burst: 600 };
    assert_eq!(overridden, [limit, Overridden::Unlimited, Overridden::Blocked].map(Some));
}

#[test]
fn terms_with_a_member_that_the_reader_does_not_know_are_refused() {
    for place in ["\"ttl_us\"", "\"lapses_at_us\""] {
        let newer = LEASES.replacen(place, &format!("\"renew\": true, {place}"), 1);
        let error = serde_json::from_str::<TakeRequest>(&newer).expect_err("an unknown member was ignored");
        assert!(error.to_string().contains("unknown field `renew`"), "{error}");
    }
}

#[test]
fn a_refusal_is_read_and_written_as_committed() {
    let refusal: Refusal = assert_round_trip(REFUSAL);
    assert_eq!(refusal.code, "invalid_limit");
}

#[test]
fn a_request_with_a_member_that_the_reader_does_not_know_is_refused() {
    // What an older sidecar does not know, it must not ignore: it might be the point of the take.
    let newer = REQUEST.replacen("\"cost\": 1", "\"cost\": 1, \"lease\": 50", 1);
    let error = serde_json::from_str::<TakeRequest>(&newer).expect_err("an unknown member was ignored");
    assert!(error.to_string().contains("unknown field `lease`"), "{error}");
}

#[test]
fn a_response_with_a_member_that_the_reader_does_not_know_is_read() {
    let newer = RESPONSE.replacen("\"remaining\": 59", "\"remaining\": 59, \"leased\": 50", 1);
    let response: TakeResponse = serde_json::from_str(&newer).expect("a newer sidecar may say more");
    let known = BucketVerdict {
        outcome: Outcome::Allowed,
        remaining: 59,
        retry_after_us: Some(0),
        full_after_us: 1_000_000,
        overridden: None,
    };
    assert_eq!(response.verdicts[0], Verdict::Allowed(vec![known]));
}
