//! What an operator does at one sidecar, as another sees it that shares its Redis.

use std::{sync::Arc, time::Duration};

use contract::{Outcome, Overridden, Take, Verdict};
use fleet::{Redis, Reply};
use serde_json::{Value, json};

use super::{SOON, Sidecar, ask, redis, redis_with, within};

const HASH: &str = "sluice:1:{overrides}";
const PATH: &str = "/v1/buckets/per-client/a/override";
const LONG: Duration = Duration::from_secs(20);

/// Two sidecars, of which both know that `a` is empty.
async fn two(url: &str) -> [Sidecar; 2] {
    let two = [Sidecar::at(url).await, Sidecar::at(url).await];
    two[0].empty("per-client", "a").await;
    for sidecar in &two {
        for _ in 0..3 {
            assert_eq!(sidecar.lets_in("a").await, (false, None));
        }
    }
    two
}

fn told(redis: &Redis, words: &[&str]) -> Reply {
    redis.command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

#[tokio::test]
async fn what_is_changed_at_one_is_seen_at_another_within_a_second() {
    let (redis, _run) = redis();
    let [here, there] = two(&redis.url()).await;
    let mut waits = Vec::new();
    let mut seen = async |what: &str, expected: (bool, Option<Overridden>)| {
        assert_eq!(here.lets_in("a").await, expected, "{what}, here at once");
        waits.push(within(SOON, what, async || there.lets_in("a").await == expected).await);
    };
    here.does("PUT", PATH, json!({ "unlimited": true })).await;
    seen("none in its place", (true, Some(Overridden::Unlimited))).await;
    here.does("PUT", PATH, json!({ "blocked": true })).await;
    seen("a block", (false, Some(Overridden::Blocked))).await;
    here.does("PUT", PATH, json!({ "limit": "1000 per minute" })).await;
    here.does("POST", "/v1/buckets/per-client/a/reset", Value::Null).await;
    let limit = Overridden::Limit { tokens: 1_000, period_us: 60_000_000, burst: 1_000 };
    seen("another limit", (true, Some(limit))).await;
    here.does("DELETE", PATH, Value::Null).await;
    assert_eq!(here.lets_in("a").await.1, None);
    waits.push(within(SOON, "no override", async || there.lets_in("a").await.1.is_none()).await);
    println!("seen after {waits:?}");
}

#[tokio::test]
async fn a_bucket_that_is_filled_at_one_is_not_known_to_be_empty_at_another() {
    let (redis, _run) = redis();
    let [here, there] = two(&redis.url()).await;
    for change in ["reset", "refund"] {
        let body = if change == "refund" { json!({ "tokens": 5 }) } else { Value::Null };
        here.does("POST", &format!("/v1/buckets/per-client/a/{change}"), body).await;
        let waited = within(SOON, change, async || there.lets_in("a").await.0).await;
        println!("a {change} is seen after {waited:?}");
        while there.lets_in("a").await.0 {}
        assert!(!here.lets_in("a").await.0);
    }
}

/// What is written there by the program.
const SCRIPT: &str = include_str!("../../../lua/override.lua");

/// Puts so many overrides with the longest reasons there, as if they had always been there.
fn fill(redis: &Redis, count: u32) {
    let script =
        "for i = 1, ARGV[1] do redis.call('HSET', KEYS[1], 'sluice:1:shop/p/{' .. i .. '}', ARGV[2]) end
         redis.call('HSET', KEYS[1], 'version', '5')";
    let reason = "r".repeat(200);
    let value = json!({ "unlimited": true, "reason": reason, "created_at_us": 1 }).to_string();
    let value = format!("{{\"expires_at_us\":0,{}", &value[1..]);
    told(redis, &["EVAL", script, "1", HASH, &count.to_string(), &value]);
}

/// What Redis has sent so far.
fn sent_bytes(redis: &Redis) -> u64 {
    let info = told(redis, &["INFO", "stats"]).to_string();
    let sent = info.lines().find_map(|line| line.trim().strip_prefix("total_net_output_bytes:"));
    sent.expect("a number").parse().expect("a number")
}

#[tokio::test]
async fn what_an_operator_does_to_one_bucket_costs_little_however_many_overrides_there_are() {
    let (redis, _run) = redis();
    fill(&redis, 10_000 - 1);
    let [here, there] = two(&redis.url()).await;
    assert_eq!(there.overrides().await.len(), 10_000 - 1);
    let before = sent_bytes(&redis);
    for _ in 0..4 {
        here.does("POST", "/v1/buckets/per-client/a/reset", Value::Null).await;
        within(LONG, "the reset", async || there.lets_in("a").await.0).await;
        while there.lets_in("a").await.0 {}
    }
    here.does("PUT", PATH, json!({ "blocked": true })).await;
    within(LONG, "the block", async || there.lets_in("a").await.1.is_some()).await;
    here.does("DELETE", PATH, Value::Null).await;
    within(LONG, "its end", async || there.lets_in("a").await.1.is_none()).await;
    let sent = sent_bytes(&redis) - before;
    assert!(sent < 200_000, "{sent} bytes");
    assert_eq!(there.overrides().await.len(), 10_000 - 1);
}

#[tokio::test]
async fn all_of_them_are_read_in_pieces() {
    let (redis, _run) = redis();
    fill(&redis, 10_000);
    let here = Sidecar::at(&redis.url()).await;
    assert_eq!(here.overrides().await.len(), 10_000);
    let calls = told(&redis, &["INFO", "commandstats"]).to_string();
    let pieces = calls.lines().find_map(|line| line.strip_prefix("cmdstat_hscan:calls="));
    let pieces: u32 = pieces.and_then(|line| line.split(',').next()?.parse().ok()).expect("a number");
    assert!(pieces > 100 && !calls.contains("cmdstat_hgetall"), "{calls}");
}

#[tokio::test]
async fn who_reads_while_much_is_changed_has_all_of_it() {
    let (redis, _run) = redis();
    fill(&redis, 3_000);
    let redis = Arc::new(redis);
    let here = Sidecar::at(&redis.url()).await;
    let changes = tokio::task::spawn_blocking({
        let redis = Arc::clone(&redis);
        move || {
            let blocked = r#"{"expires_at_us":0,"blocked":true,"reason":null,"created_at_us":1}"#;
            for number in 1..=600_u32 {
                let bucket = format!("sluice:1:shop/p/{{{}}}", number * 7 % 4_001);
                let what = if number % 3 == 0 { "remove" } else { "put" };
                told(&redis, &["EVAL", SCRIPT, "1", HASH, what, &bucket, blocked, "10000"]);
            }
        }
    });
    let mut late = Vec::new();
    while !changes.is_finished() {
        late.push(Sidecar::at(&redis.url()).await);
    }
    changes.await.expect("changed");
    late.truncate(8);
    for sidecar in late.iter().chain([&here]) {
        within(LONG, "all of it", async || {
            let Reply::Integer(fields) = told(&redis, &["HLEN", HASH]) else { panic!("a number") };
            sidecar.overrides().await.len() as i64 == fields - 2
        })
        .await;
        for listed in sidecar.overrides().await {
            let key = listed["key"].as_str().expect("a key");
            let kept = told(&redis, &["HGET", HASH, &format!("sluice:1:shop/p/{{{key}}}")]).to_string();
            let expected = if listed["blocked"] == true { "blocked" } else { "unlimited" };
            assert!(kept.contains(expected), "{key}: {kept}");
        }
    }
}

#[tokio::test]
async fn a_sidecar_that_starts_has_them_before_it_is_ready() {
    let (redis, _run) = redis();
    let here = Sidecar::at(&redis.url()).await;
    here.empty("per-client", "a").await;
    here.does("PUT", PATH, json!({ "blocked": true, "reason": "abuse", "expires_in": "1h" })).await;
    drop(here);
    let there = Sidecar::at(&redis.url()).await;
    assert!(there.is_ready().await);
    assert_eq!(there.lets_in("a").await, (false, Some(Overridden::Blocked)));
    let [listed] = &there.overrides().await[..] else { panic!("one") };
    assert_eq!((&listed["reason"], &listed["key"]), (&json!("abuse"), &json!("a")));
}

#[tokio::test]
async fn an_override_ends_by_the_clock_of_redis() {
    let (redis, _run) = redis();
    let [here, there] = two(&redis.url()).await;
    let bucket = here.does("PUT", PATH, json!({ "blocked": true, "expires_in": "700ms" })).await;
    let expires_at_us = bucket["override"]["expires_at_us"].as_u64().expect("a time");
    within(SOON, "the block", async || there.lets_in("a").await.1.is_some()).await;
    within(LONG, "its end here", async || here.lets_in("a").await.1.is_none()).await;
    let now_us = here.does("GET", "/v1/buckets/per-client/a", Value::Null).await["now_us"].as_u64();
    assert!(now_us.expect("a time") >= expires_at_us, "not before");
    within(SOON, "its end there", async || there.lets_in("a").await == (false, None)).await;
    assert_eq!(here.overrides().await, Vec::<Value>::new());
    here.refused("DELETE", PATH, Value::Null, (404, "no_override")).await;
    // Whoever changes something next drops what has expired.
    here.does("PUT", "/v1/buckets/per-client/b/override", json!({ "unlimited": true })).await;
    assert_eq!(told(&redis, &["HLEN", HASH]), Reply::Integer(3), "that of b, the version and the changes");
}

#[tokio::test]
async fn there_is_room_for_so_many_and_what_has_expired_makes_room() {
    let (redis, _run) = redis();
    let fill = |expires_at_us: u64, from: u32| {
        let script = "for i = ARGV[1], ARGV[1] + 4999 do redis.call('HSET', KEYS[1], 'sluice:1:shop/p/{' .. i .. '}', ARGV[2]) end
             redis.call('HINCRBY', KEYS[1], 'version', 1)";
        let value = json!({ "blocked": true, "reason": null, "created_at_us": 1 }).to_string();
        let value = format!("{{\"expires_at_us\":{expires_at_us},{}", &value[1..]);
        told(&redis, &["EVAL", script, "1", HASH, &from.to_string(), &value]);
    };
    fill(0, 0);
    fill(0, 5_000);
    let here = Sidecar::at(&redis.url()).await;
    assert_eq!(here.overrides().await.len(), 10_000);
    here.empty("per-client", "a").await;
    here.refused("PUT", PATH, json!({ "blocked": true }), (409, "too_many_overrides")).await;
    assert_eq!(here.lets_in("a").await, (false, None));
    let known = "/v1/buckets/p/5/override?domain=shop&limit=1%20per%20day";
    here.does("PUT", known, json!({ "unlimited": true })).await;
    fill(7, 5_000);
    let count = async || here.does("GET", "/v1/stats", Value::Null).await["overrides"]["count"].as_u64();
    within(LONG, "the expired", async || count().await == Some(5_000)).await;
    here.does("PUT", PATH, json!({ "blocked": true })).await;
    assert_eq!(here.lets_in("a").await, (false, Some(Overridden::Blocked)));
}

#[tokio::test]
async fn while_redis_is_down_what_is_known_stays_and_nothing_is_changed() {
    let (mut redis, _run) = redis();
    let here = Sidecar::at(&redis.url()).await;
    here.empty("per-client", "a").await;
    here.does("PUT", PATH, json!({ "unlimited": true })).await;
    redis.process().kill();
    within(LONG, "the loss", async || !here.is_ready().await).await;
    let reason = here.refused("PUT", PATH, json!({ "blocked": true }), (503, "store_unavailable")).await;
    assert!(reason.contains("Redis"), "{reason}");
    here.refused("DELETE", PATH, Value::Null, (503, "store_unavailable")).await;
    assert_eq!(here.overrides().await[0]["unlimited"], true);
    assert!(matches!(here.take(&[ask("per-client", "a", 1)]).await, Verdict::Failed(_)), "nobody decides");
    let age = async || here.does("GET", "/v1/overrides", Value::Null).await["age_us"].as_u64();
    within(LONG, "it to age", async || age().await.expect("an age") > 1_000_000).await;
    // This Redis has forgotten all, and so do they.
    redis.restart().expect("restarted");
    within(LONG, "Redis", async || here.is_ready().await).await;
    within(LONG, "what it has", async || here.overrides().await.is_empty()).await;
    here.does("PUT", PATH, json!({ "blocked": true })).await;
    assert_eq!(here.lets_in("a").await, (false, Some(Overridden::Blocked)));
}

#[tokio::test]
async fn a_block_holds_while_redis_is_down() {
    let (redis, _run) = redis();
    let here = Sidecar::at(&redis.url()).await;
    here.empty("per-client", "a").await;
    here.does("PUT", PATH, json!({ "blocked": true, "expires_in": "1h" })).await;
    redis.process().kill();
    within(LONG, "the loss", async || !here.is_ready().await).await;
    let others = [ask("per-client", "b", 1), ask("per-client", "a", 1)];
    let verdict = here.take(&others).await;
    let Verdict::Denied(buckets) = &verdict else { panic!("{verdict:?}") };
    assert_eq!((buckets[0].outcome, buckets[0].overridden), (Outcome::Allowed, None));
    assert_eq!((buckets[1].outcome, buckets[1].overridden), (Outcome::Denied, Some(Overridden::Blocked)));
    let wait_us = buckets[1].retry_after_us.expect("it ends");
    assert!((3_500_000_000..=3_600_000_000).contains(&wait_us), "{wait_us}");
    assert!(matches!(here.take(&others[..1]).await, Verdict::Failed(_)), "and no other");
    // What follows it is only told, and of that nothing is known.
    let lead = Take { buckets: others[1..].to_vec(), ..Take::default() };
    let follow = Take { buckets: others[..1].to_vec(), follows: true, ..Take::default() };
    let verdicts = here.decide("shop", vec![lead, follow]).await;
    assert!(matches!(verdicts[..], [Verdict::Denied(_), Verdict::Failed(_)]), "{verdicts:?}");
}

#[tokio::test]
async fn a_redis_that_is_down_at_first_is_read_before_the_sidecar_is_ready() {
    let (mut redis, _run) = redis_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let here = Sidecar::at(&redis.url()).await;
    here.empty("per-client", "a").await;
    here.does("PUT", PATH, json!({ "unlimited": true })).await;
    redis.process().kill();
    let late = Sidecar::at(&redis.url()).await;
    assert!(!late.is_ready().await);
    assert_eq!(late.does("GET", "/v1/overrides", Value::Null).await["age_us"], Value::Null);
    redis.restart().expect("restarted");
    within(LONG, "the late one to be ready", async || late.is_ready().await).await;
    assert_eq!(late.lets_in("a").await, (true, Some(Overridden::Unlimited)));
    assert!(late.does("GET", "/v1/overrides", Value::Null).await["age_us"].is_u64());
}

#[tokio::test]
async fn what_others_write_there_does_no_harm() {
    let (redis, _run) = redis();
    told(&redis, &["HSET", HASH, "sluice:1:shop/per-client/{a}", "{\"expires_at_us\":0}", "junk", "junk"]);
    let here = Sidecar::at(&redis.url()).await;
    assert!(here.is_ready().await);
    here.empty("per-client", "a").await;
    assert_eq!(here.lets_in("a").await, (false, None));
    here.does("PUT", PATH, json!({ "unlimited": true })).await;
    assert_eq!(here.lets_in("a").await, (true, Some(Overridden::Unlimited)));
    // A version that is none is another one all the same.
    told(&redis, &["HSET", HASH, "version", "none"]);
    told(&redis, &["HDEL", HASH, "sluice:1:shop/per-client/{a}"]);
    within(SOON, "the removal", async || here.lets_in("a").await.1.is_none()).await;
    here.does("PUT", PATH, json!({ "unlimited": true })).await;
    // A key of another type cannot be read: then the last stays, and nothing is changed.
    told(&redis, &["DEL", HASH]);
    told(&redis, &["SET", HASH, "x"]);
    here.refused("PUT", PATH, json!({ "blocked": true }), (503, "store_unavailable")).await;
    assert_eq!(here.lets_in("a").await, (true, Some(Overridden::Unlimited)));
}

#[tokio::test]
async fn a_sidecar_that_was_never_asked_for_a_policy_knows_it_by_the_others() {
    let (redis, _run) = redis();
    let [here, there] = [Sidecar::at(&redis.url()).await, Sidecar::at(&redis.url()).await];
    there.refused("GET", "/v1/buckets/per-client/a", Value::Null, (404, "unknown_policy")).await;
    // What others write there may be anything.
    told(&redis, &["HSET", "sluice:1:{policies}", "b d/per-client", "{}", "bank/per-client", "{}", "x", "y"]);
    here.empty("per-client", "a").await;
    within(LONG, "it there", async || {
        there.operate("GET", "/v1/buckets/per-client/a", Value::Null).await.0 == 200
    })
    .await;
    let bucket = there.does("GET", "/v1/buckets/per-client/a", Value::Null).await;
    assert_eq!((&bucket["domain"], &bucket["tokens"]), (&json!("shop"), &json!(0)));
    assert_eq!(bucket["limit"]["burst"], 10);
    there.does("PUT", PATH, json!({ "unlimited": true })).await;
    within(SOON, "it here", async || here.lets_in("a").await.0).await;
}

#[tokio::test]
async fn what_is_published_of_policies_is_there_again_after_redis_forgot_and_is_dropped_when_old() {
    const POLICIES: &str = "sluice:1:{policies}";
    let (redis, _run) = redis();
    let old = json!({ "tokens": 1, "period_us": 1, "burst": 1, "seen_us": 1_763_650_000_000_000_u64 });
    told(&redis, &["HSET", POLICIES, "bank/per-client", &old.to_string(), "bank/other", "junk"]);
    let here = Sidecar::at(&redis.url()).await;
    here.refused("GET", "/v1/buckets/other/a", Value::Null, (404, "unknown_policy")).await;
    here.empty("per-client", "a").await;
    let published = || told(&redis, &["HKEYS", POLICIES]).to_string();
    within(LONG, "it to be published, and the old to go", async || {
        published().contains("shop/per-client") && !published().contains("bank")
    })
    .await;
    told(&redis, &["FLUSHALL"]);
    within(LONG, "it to be published again", async || published().contains("shop/per-client")).await;
    let there = Sidecar::at(&redis.url()).await;
    there.does("GET", "/v1/buckets/per-client/a", Value::Null).await;
}
