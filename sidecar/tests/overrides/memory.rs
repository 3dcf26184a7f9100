//! What an operator does to a bucket, where buckets are in memory.

use contract::{Kind, LeaseTerms, Outcome, Overridden, Take, Verdict};
use serde_json::{Value, json};

use super::{DAY_US, Sidecar, ask, only};

#[tokio::test]
async fn a_bucket_is_seen_returned_to_and_filled() {
    let sidecar = Sidecar::start();
    sidecar.empty("per-client", "a/b c").await;
    let path = "/v1/buckets/per-client/a%2Fb%20c";
    let bucket = sidecar.does("GET", path, Value::Null).await;
    assert_eq!(bucket["domain"], "shop");
    assert_eq!((&bucket["policy"], &bucket["key"]), (&json!("per-client"), &json!("a/b c")));
    assert_eq!(bucket["limit"], json!({ "tokens": 10, "period_us": DAY_US, "burst": 10 }));
    assert_eq!((&bucket["tokens"], &bucket["override"]), (&json!(0), &Value::Null));
    assert!(bucket["full_after_us"].as_u64().expect("a time") > DAY_US - 60_000_000, "{bucket}");

    let bucket = sidecar.does("POST", &format!("{path}/refund"), json!({ "tokens": 4 })).await;
    assert_eq!(bucket["tokens"], 4);
    let bucket = sidecar.does("POST", &format!("{path}/refund"), json!({ "tokens": 400 })).await;
    assert_eq!(
        (&bucket["tokens"], &bucket["full_after_us"]),
        (&json!(10), &json!(0)),
        "never more than full"
    );
    // A debt is paid by a reset, too.
    let charge =
        Take { buckets: vec![ask("per-client", "a/b c", 500)], kind: Kind::Charge, ..Take::default() };
    sidecar.decide("shop", vec![charge]).await;
    assert!(!only(&sidecar.take(&[ask("per-client", "a/b c", 1)]).await).0);
    let bucket = sidecar.does("POST", &format!("{path}/reset"), Value::Null).await;
    assert_eq!((&bucket["tokens"], &bucket["full_after_us"]), (&json!(10), &json!(0)));
    assert!(only(&sidecar.take(&[ask("per-client", "a/b c", 10)]).await).0);
}

#[tokio::test]
async fn a_reset_leaves_what_is_leased_in_its_place() {
    let sidecar = Sidecar::start();
    let lease = Take {
        buckets: vec![ask("per-client", "a", 4)],
        kind: Kind::Lease,
        lease: Some(LeaseTerms { ttl_us: 60_000_000, share_percent: 50 }),
        ..Take::default()
    };
    let verdicts = sidecar.decide("shop", vec![lease]).await;
    assert!(matches!(verdicts[0], Verdict::Leased { tokens: 4, .. }), "{verdicts:?}");
    let bucket = sidecar.does("POST", "/v1/buckets/per-client/a/reset", Value::Null).await;
    assert_eq!(bucket["tokens"], 6);
}

#[tokio::test]
async fn everybodys_bucket_has_an_empty_key() {
    let sidecar = Sidecar::start();
    sidecar.empty("all", "").await;
    assert_eq!(sidecar.does("GET", "/v1/buckets/all/", Value::Null).await["tokens"], 0);
    sidecar.does("PUT", "/v1/buckets/all//override", json!({ "unlimited": true })).await;
    assert!(only(&sidecar.take(&[ask("all", "", 1)]).await).0);
    sidecar.does("DELETE", "/v1/buckets/all//override", Value::Null).await;
    assert!(!only(&sidecar.take(&[ask("all", "", 1)]).await).0);
    assert_eq!(sidecar.does("POST", "/v1/buckets/all//refund", json!({ "tokens": 1 })).await["tokens"], 1);
    assert_eq!(sidecar.does("POST", "/v1/buckets/all//reset", Value::Null).await["tokens"], 10);
}

#[tokio::test]
async fn a_policy_is_known_once_it_was_asked_for_or_its_limit_is_given() {
    let sidecar = Sidecar::start();
    let path = "/v1/buckets/per-client/a";
    let reason = sidecar.refused("GET", path, Value::Null, (404, "unknown_policy")).await;
    assert!(reason.contains("?domain="), "{reason}");
    let given = format!("{path}?domain=shop&limit=60%20per%20minute");
    let bucket = sidecar.does("GET", &given, Value::Null).await;
    assert_eq!(bucket["limit"], json!({ "tokens": 60, "period_us": 60_000_000, "burst": 60 }));
    assert_eq!(sidecar.does("GET", &format!("{given}&burst=7"), Value::Null).await["tokens"], 7);

    let take = Take { buckets: vec![ask("per-client", "a", 3)], ..Take::default() };
    for domain in ["shop", "bank"] {
        sidecar.decide(domain, vec![take.clone()]).await;
    }
    let reason = sidecar.refused("GET", path, Value::Null, (409, "ambiguous_domain")).await;
    assert!(reason.contains("bank, shop"), "{reason}");
    assert_eq!(sidecar.does("GET", &format!("{path}?domain=bank"), Value::Null).await["tokens"], 7);
    sidecar.refused("GET", &format!("{path}?domain=other"), Value::Null, (404, "unknown_policy")).await;
}

#[tokio::test]
async fn another_limit_is_in_the_place_of_the_first_until_it_is_removed() {
    let sidecar = Sidecar::start();
    sidecar.empty("per-client", "a").await;
    let path = "/v1/buckets/per-client/a/override";
    let wanted =
        json!({ "limit": "100 per hour", "burst": 20, "reason": "a <b>launch</b>", "expires_in": "1h" });
    let bucket = sidecar.does("PUT", path, wanted).await;
    let told = &bucket["override"];
    assert_eq!(told["limit"], json!({ "tokens": 100, "period_us": 3_600_000_000_u64, "burst": 20 }));
    assert_eq!(told["reason"], "a <b>launch</b>");
    let [expires, created] =
        ["expires_at_us", "created_at_us"].map(|time| told[time].as_u64().expect("a time"));
    assert_eq!(expires - created, 3_600_000_000);
    assert_eq!(bucket["limit"]["burst"], 10, "what the policy asks for is told as ever");
    assert_eq!(bucket["tokens"], 0, "a limit that is raised is no free burst");

    sidecar.does("POST", "/v1/buckets/per-client/a/reset", Value::Null).await;
    let verdict = sidecar.take(&[ask("per-client", "a", 15)]).await;
    let (allowed, bucket) = only(&verdict);
    let overridden = Overridden::Limit { tokens: 100, period_us: 3_600_000_000, burst: 20 };
    assert_eq!((allowed, bucket.remaining, bucket.overridden), (true, 5, Some(overridden)));
    assert_eq!(only(&sidecar.take(&[ask("per-client", "b", 15)]).await).1.outcome, Outcome::NeverFits);

    let list = sidecar.does("GET", "/v1/overrides", Value::Null).await;
    assert_eq!(list["age_us"], 0);
    let [listed] = &list["overrides"].as_array().expect("a list")[..] else { panic!("{list}") };
    assert_eq!(
        (&listed["domain"], &listed["policy"], &listed["key"]),
        (&json!("shop"), &json!("per-client"), &json!("a"))
    );
    assert_eq!(listed["limit"], told["limit"]);
    assert!(listed.get("unlimited").is_none() && listed.get("blocked").is_none(), "{listed}");

    let bucket = sidecar.does("DELETE", path, Value::Null).await;
    assert_eq!((&bucket["override"], &bucket["tokens"]), (&Value::Null, &json!(5)));
    sidecar.refused("DELETE", path, Value::Null, (404, "no_override")).await;
    assert_eq!(only(&sidecar.take(&[ask("per-client", "a", 15)]).await).1.overridden, None);
}

#[tokio::test]
async fn a_block_denies_whatever_it_costs_and_takes_from_nobody() {
    let sidecar = Sidecar::start();
    assert!(only(&sidecar.take(&[ask("per-client", "a", 1)]).await).0);
    let path = "/v1/buckets/per-client/a/override";
    sidecar.does("PUT", path, json!({ "blocked": true, "expires_in": "1h" })).await;
    for cost in [0, 1, 10] {
        let verdict = sidecar.take(&[ask("other", "a", 1), ask("per-client", "a", cost)]).await;
        let Verdict::Denied(buckets) = verdict else { panic!("{verdict:?}") };
        assert_eq!((buckets[0].outcome, buckets[0].remaining), (Outcome::Allowed, 10), "all or none");
        assert_eq!((buckets[1].outcome, buckets[1].remaining), (Outcome::Denied, 9));
        assert_eq!(buckets[1].overridden, Some(Overridden::Blocked));
        let wait_us = buckets[1].retry_after_us.expect("an end");
        match cost {
            // One was taken of ten, which is back after the block only.
            10 => assert!(wait_us > 3_600_000_000 && wait_us <= DAY_US / 10, "{wait_us}"),
            _ => assert!((3_540_000_000..=3_600_000_000).contains(&wait_us), "{wait_us}"),
        }
    }
    // What follows it only looks, and what has no end has no retry-after.
    sidecar.does("PUT", path, json!({ "blocked": true })).await;
    let leader = Take { buckets: vec![ask("per-client", "a", 1)], ..Take::default() };
    let shadow = Take { buckets: vec![ask("shadow", "a", 1)], follows: true, ..Take::default() };
    let verdicts = sidecar.decide("shop", vec![leader, shadow.clone(), shadow]).await;
    let (allowed, bucket) = only(&verdicts[0]);
    assert_eq!((allowed, bucket.retry_after_us), (false, None));
    assert_eq!(only(&verdicts[2]).1.remaining, 10, "the first follower took nothing");
    assert_eq!(sidecar.does("GET", "/v1/overrides", Value::Null).await["overrides"][0]["blocked"], true);
}

#[tokio::test]
async fn what_is_unlimited_takes_nothing_and_is_charged_nothing() {
    let sidecar = Sidecar::start();
    sidecar.empty("per-client", "a").await;
    sidecar.does("PUT", "/v1/buckets/per-client/a/override", json!({ "unlimited": true })).await;
    let of = |kind, cost| Take { buckets: vec![ask("per-client", "a", cost)], kind, ..Take::default() };
    for verdict in sidecar
        .decide(
            "shop",
            vec![of(Kind::Take, 1), of(Kind::Take, 500), of(Kind::Charge, 5), of(Kind::Refund, 5)],
        )
        .await
    {
        let (allowed, bucket) = only(&verdict);
        assert_eq!((allowed, bucket.remaining, bucket.full_after_us > 0), (true, 0, true), "{verdict:?}");
        assert_eq!(bucket.overridden, Some(Overridden::Unlimited));
    }
    // Of several limits the others hold.
    let verdict = sidecar.take(&[ask("per-client", "a", 1), ask("daily", "a", 11)]).await;
    let Verdict::Denied(buckets) = verdict else { panic!("{verdict:?}") };
    assert_eq!((buckets[0].outcome, buckets[1].outcome), (Outcome::Allowed, Outcome::NeverFits));
    // But an operator's refund is one.
    let path = "/v1/buckets/per-client/a/refund";
    assert_eq!(sidecar.does("POST", path, json!({ "tokens": 3 })).await["tokens"], 3);
}

#[tokio::test]
async fn nothing_is_leased_of_what_is_overridden() {
    let sidecar = Sidecar::start();
    let lease = |key| Take {
        buckets: vec![ask("per-client", key, 4)],
        kind: Kind::Lease,
        lease: Some(LeaseTerms { ttl_us: 1_000_000, share_percent: 50 }),
        ..Take::default()
    };
    let verdicts = sidecar.decide("shop", vec![lease("a")]).await;
    assert!(matches!(verdicts[0], Verdict::Leased { tokens: 4, .. }), "{verdicts:?}");
    for wanted in
        [json!({ "limit": "100 per day" }), json!({ "unlimited": true }), json!({ "blocked": true })]
    {
        sidecar.does("PUT", "/v1/buckets/per-client/a/override", wanted).await;
        let verdicts = sidecar.decide("shop", vec![lease("a"), lease("b")]).await;
        let Verdict::Leased { tokens: 0, lapses_at_us, buckets } = &verdicts[0] else {
            panic!("{verdicts:?}")
        };
        assert_eq!(buckets[0].outcome, Outcome::Allowed);
        assert!(buckets[0].overridden.is_some());
        let Verdict::Leased { lapses_at_us: others, .. } = &verdicts[1] else { panic!("{verdicts:?}") };
        assert_eq!(lapses_at_us, others);
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_says_why() {
    let sidecar = Sidecar::start();
    assert!(only(&sidecar.take(&[ask("per-client", "a", 1)]).await).0);
    let path = "/v1/buckets/per-client/a/override";
    for (wanted, words) in [
        (json!({}), "one of"),
        (json!({ "unlimited": true, "blocked": true }), "one of"),
        (json!({ "blocked": true, "burst": 5 }), "one of"),
        (json!({ "limit": "sixty a minute" }), "60 per minute"),
        (json!({ "limit": "60 per minute", "burst": 0 }), "at least 1"),
        (json!({ "limit": "0 per minute" }), "at least 1"),
        (json!({ "blocked": true, "reason": "x".repeat(201) }), "200"),
        (json!({ "blocked": true, "expires_in": "soon" }), "30m"),
        (json!({ "blocked": true, "expires_in": "0s" }), "later"),
        (json!({ "blocked": true, "expires_at_us": 5 }), "later"),
        (json!({ "blocked": true, "expires_at_us": 1_u64 << 53 }), "2255"),
        (json!({ "blocked": true, "expires_at_us": 5, "expires_in": "1h" }), "one of them"),
    ] {
        let reason = sidecar.refused("PUT", path, wanted, (400, "invalid_override")).await;
        assert!(reason.contains(words), "{reason}");
    }
    for wrong in [json!({ "blocked": "yes" }), json!({ "bloked": true }), json!([])] {
        sidecar.refused("PUT", path, wrong, (400, "invalid_body")).await;
    }
    let refund = "/v1/buckets/per-client/a/refund";
    for tokens in [0, 1_u64 << 53] {
        sidecar.refused("POST", refund, json!({ "tokens": tokens }), (400, "invalid_refund")).await;
    }
    let long = format!("/v1/buckets/per-client/{}", "k".repeat(1_025));
    for (path, expected) in [
        ("/v1/buckets/per%20client/a", (400, "invalid_name")),
        ("/v1/buckets/per-client/a?domain=%2F", (400, "invalid_name")),
        ("/v1/buckets/per-client/%ff", (400, "not_text")),
        ("/v1/buckets/per-client/a?limt=5", (400, "invalid_query")),
        ("/v1/buckets/per-client/a?burst=5", (400, "invalid_query")),
        ("/v1/buckets/per-client/a?limit=5", (400, "invalid_limit")),
        (long.as_str(), (400, "key_too_long")),
        ("/v1/buckets/per-client/a/b", (404, "unknown_path")),
    ] {
        sidecar.refused("GET", path, Value::Null, expected).await;
    }
    assert_eq!(sidecar.does("GET", "/v1/overrides", Value::Null).await["overrides"], json!([]));
}

#[tokio::test]
async fn there_are_only_so_many() {
    let sidecar = Sidecar::start();
    let put = async |key: u32, wanted: Value| {
        let path = format!("/v1/buckets/p/{key}/override?domain=shop&limit=1%20per%20day");
        sidecar.operate("PUT", &path, wanted).await
    };
    for key in 0..10_000 {
        assert_eq!(put(key, json!({ "blocked": true })).await.0, 200);
    }
    let (status, answer) = put(10_000, json!({ "blocked": true })).await;
    assert_eq!((status, &answer["code"]), (409, &json!("too_many_overrides")));
    assert_eq!(put(5, json!({ "unlimited": true })).await.0, 200, "one is replaced");
}
