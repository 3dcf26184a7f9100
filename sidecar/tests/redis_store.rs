//! The Redis store when Redis is well, restarted, flushed, frozen or gone.

mod support;

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use bucket::{Kind, Lease, Limit, Terms};
use contract::{FailureReason, Outcome, Refusal, TakeResponse, Verdict};
use sluice::{
    batch::{Ask, Batch, Take, bucket_key},
    http::{Limits, Service, router},
    store::{
        Store,
        redis::{RedisAddress, RedisStore, Timeouts},
    },
};
use support::{RedisServer, wait_until};
use tokio::time::Instant;
use tower::ServiceExt;

/// Generous, since the tests share a machine; where a timeout is the point, it is named.
const TIMEOUTS: Timeouts = Timeouts { answer: Duration::from_secs(5), connect: Duration::from_secs(5) };
const IMPATIENT: Timeouts =
    Timeouts { answer: Duration::from_millis(100), connect: Duration::from_millis(200) };

/// A machine that is busy with other tests may add this to a timeout.
const SLACK: Duration = Duration::from_secs(2);

async fn store(url: &str, timeouts: Timeouts) -> RedisStore {
    RedisStore::start(RedisAddress::parse(url).expect("the URL is right"), timeouts).await
}

/// A bucket of `burst` tokens that refills once in a thousand days.
fn ask(key: &str, burst: u64) -> Ask {
    let limit = Limit::new(1, 86_400_000_000, burst).expect("valid");
    Ask { bucket_key: bucket_key("test", "slow", key), limit, cost_tokens: 1 }
}

fn one(key: &str, burst: u64) -> Batch {
    Batch { takes: vec![Take { buckets: vec![ask(key, burst)], kind: Kind::Take, follows: false }] }
}

async fn take(store: &RedisStore, key: &str, burst: u64) -> Verdict {
    let mut answer = store.take(one(key, burst)).await.expect("not overloaded");
    assert_eq!(answer.verdicts.len(), 1);
    answer.verdicts.remove(0)
}

async fn remaining(store: &RedisStore, key: &str, burst: u64) -> Option<u64> {
    match take(store, key, burst).await {
        Verdict::Allowed(buckets) => Some(buckets[0].remaining),
        _ => None,
    }
}

const FAILED: Verdict = Verdict::Failed(FailureReason::StoreUnavailable);

#[tokio::test]
async fn two_sidecars_share_one_bucket() {
    let server = RedisServer::start();
    let (first, second) = (store(&server.url(), TIMEOUTS).await, store(&server.url(), TIMEOUTS).await);
    assert_eq!(remaining(&first, "a", 3).await, Some(2));
    assert_eq!(remaining(&second, "a", 3).await, Some(1));
    assert_eq!(remaining(&first, "a", 3).await, Some(0));
    let Verdict::Denied(buckets) = take(&second, "a", 3).await else { panic!("a fourth token of three") };
    assert_eq!(buckets[0].outcome, Outcome::Denied);
}

#[tokio::test]
async fn many_at_once_get_exactly_the_burst_and_share_runs() {
    const BURST: u64 = 500;
    let server = RedisServer::start();
    let store = Arc::new(store(&server.url(), TIMEOUTS).await);
    let tasks = (0..64).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut allowed = 0;
            for _ in 0..16 {
                match take(&store, "hot", BURST).await {
                    Verdict::Allowed(_) => allowed += 1,
                    Verdict::Denied(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            allowed
        })
    });
    let mut allowed = 0;
    for task in tasks.collect::<Vec<_>>() {
        allowed += task.await.expect("no panic");
    }
    assert_eq!(allowed, BURST);
    let runs = server.runs();
    assert!(
        runs < 64 * 16 / 4,
        "1024 takes of 64 tasks were decided in {runs} runs: they did not share them"
    );
}

#[tokio::test]
async fn a_request_of_more_buckets_than_a_run_holds_is_decided_in_order() {
    let server = RedisServer::start();
    let store = store(&server.url(), TIMEOUTS).await;
    let take = |nth: usize| {
        let mut buckets: Vec<Ask> = (0..15).map(|key| ask(&format!("{nth}-{key}"), 9)).collect();
        buckets.push(ask("shared", 500));
        Take { buckets, kind: Kind::Take, follows: false }
    };
    let batch = Batch { takes: (0..1024).map(take).collect() };
    let answer = store.take(batch).await.expect("not overloaded");
    let allowed = |verdict: &Verdict| matches!(verdict, Verdict::Allowed(_));
    assert!(answer.verdicts[..500].iter().all(allowed), "the first 500 takes have room");
    assert!(!answer.verdicts[500..].iter().any(allowed), "and no other");
    assert_eq!(answer.verdicts.len(), 1024);
    assert_eq!(server.runs(), 16);
}

#[tokio::test]
async fn a_take_is_decided_in_one_run_with_those_that_follow_it() {
    let server = RedisServer::start();
    let store = store(&server.url(), TIMEOUTS).await;
    let take = |nth: usize, burst, follows| {
        let buckets = (0..15).map(|key| ask(&format!("{nth}-{key}"), burst)).collect();
        Take { buckets, kind: Kind::Take, follows }
    };
    // A run has room for 68 of them, so that the last of the first run leads the first of the second.
    let mut takes: Vec<Take> = (0..70).map(|nth| take(nth, 9, nth == 68)).collect();
    takes[67].buckets[7].cost_tokens = 10;
    let mut answer = store.take(Batch { takes: takes.clone() }).await.expect("not overloaded");
    assert_eq!(server.runs(), 2);
    let remaining = |verdict: &Verdict| match verdict {
        Verdict::Allowed(buckets) => Some(buckets[14].remaining),
        _ => None,
    };
    let expected = [vec![Some(8); 67], vec![None, Some(9), Some(8)]].concat();
    assert_eq!(
        answer.verdicts.iter().map(remaining).collect::<Vec<_>>(),
        expected,
        "the follower only looked"
    );
    takes[67].buckets[7].cost_tokens = 9;
    answer = store.take(Batch { takes: takes.split_off(67) }).await.expect("not overloaded");
    assert_eq!(answer.verdicts.iter().map(remaining).collect::<Vec<_>>(), [Some(8), Some(8), Some(7)]);
}

#[tokio::test]
async fn two_sidecars_share_one_debt() {
    let server = RedisServer::start();
    let (first, second) = (store(&server.url(), TIMEOUTS).await, store(&server.url(), TIMEOUTS).await);
    let charge = |cost_tokens| {
        let buckets = vec![Ask { cost_tokens, ..ask("a", 3) }];
        Batch { takes: vec![Take { buckets, kind: Kind::Charge, follows: false }] }
    };
    let charged = first.take(charge(5)).await.expect("not overloaded");
    let [Verdict::Allowed(buckets)] = &charged.verdicts[..] else { panic!("{charged:?}") };
    assert_eq!((buckets[0].remaining, buckets[0].retry_after_us), (0, Some(0)));
    let Verdict::Denied(buckets) = take(&second, "a", 3).await else { panic!("taken from a bucket in debt") };
    // Two tokens are owed and one is asked for, at a token a day.
    let wait_us = buckets[0].retry_after_us.expect("it fits");
    assert!((2 * 86_400_000_000..=3 * 86_400_000_000).contains(&wait_us), "{wait_us}");
}

/// A lease of up to `tokens`, or its end with `tokens` unspent, of a bucket of ten that refills within 10 ms.
fn lease_of(key: &str, tokens: u64, kind: Kind) -> Batch {
    let limit = Limit::new(1_000, 1_000_000, 10).expect("valid");
    let ask = Ask { bucket_key: bucket_key("test", "quick", key), limit, cost_tokens: tokens };
    Batch { takes: vec![Take { buckets: vec![ask], kind, follows: false }] }
}

#[tokio::test]
async fn two_sidecars_share_what_is_leased() {
    let server = RedisServer::start();
    let (first, second) = (store(&server.url(), TIMEOUTS).await, store(&server.url(), TIMEOUTS).await);
    let terms = Kind::Lease(Terms { ttl_us: 60_000_000, share_percent: 80 });
    let lease = async |store: &RedisStore, tokens| {
        let answer = store.take(lease_of("a", tokens, terms)).await.expect("not overloaded");
        let [Verdict::Leased { tokens, lapses_at_us, .. }] = &answer.verdicts[..] else {
            panic!("{answer:?}")
        };
        (Lease { tokens: *tokens, lapses_at_us: *lapses_at_us }, answer.now_us)
    };
    let (granted, now_us) = lease(&first, 5).await;
    assert_eq!(granted.tokens, 5);
    let occupies_us = granted.lapses_at_us - now_us;
    assert!((60_000_001..=120_000_000).contains(&occupies_us), "{occupies_us}");
    assert_eq!(lease(&second, 5).await.0.tokens, 3, "eight of ten may be leased together");
    assert_eq!(lease(&first, 5).await.0.tokens, 0);

    // Two tokens are left, and what is leased is not earned: the key lives until the leases have lapsed and it is full.
    let key = bucket_key("test", "quick", "a");
    let time_to_live_ms: u64 =
        redis::cmd("PTTL").arg(&key).query(&mut server.connection()).expect("a time to live");
    assert!((58_000..=120_012).contains(&time_to_live_ms), "{time_to_live_ms}");
    let value: String = redis::cmd("GET").arg(&key).query(&mut server.connection()).expect("a value");
    assert_eq!(value.split(' ').count(), 7, "{value}");

    let ended = Kind::Return(granted);
    let answer = second.take(lease_of("a", 4, ended)).await.expect("not overloaded");
    let [Verdict::Allowed(buckets)] = &answer.verdicts[..] else { panic!("{answer:?}") };
    assert!(buckets[0].remaining >= 6, "four came back: {answer:?}");
    let again = first.take(lease_of("a", 4, ended)).await.expect("not overloaded");
    assert!(matches!(&again.verdicts[..], [Verdict::Allowed(buckets)] if buckets[0].remaining <= 10));
}

#[tokio::test]
async fn a_script_that_redis_forgot_is_sent_again() {
    let server = RedisServer::start();
    let store = store(&server.url(), TIMEOUTS).await;
    assert_eq!(remaining(&store, "a", 9).await, Some(8));
    let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut server.connection()).expect("flushed");
    assert_eq!(remaining(&store, "a", 9).await, Some(7), "decided, and once");
    assert_eq!((server.whole_scripts(), server.runs()), (1, 2));
    assert_eq!(remaining(&store, "a", 9).await, Some(6));
    assert_eq!(server.whole_scripts(), 1, "it is known again by its name");
}

#[tokio::test]
async fn a_restarted_redis_is_used_again() {
    let server = RedisServer::start();
    let store = store(&server.url(), TIMEOUTS).await;
    assert_eq!(remaining(&store, "a", 9).await, Some(8));
    let port = server.kill();
    wait_until("the loss to be noticed without a request", async || store.ready().is_err()).await;
    let server = RedisServer::start_on(port);
    wait_until("the connection to come back without a request", async || store.ready().is_ok()).await;
    assert_eq!(remaining(&store, "a", 9).await, Some(8), "what Redis lost is forgotten, and nothing else");
    drop(server);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_take() {
    let server = RedisServer::start();
    let store = store(&server.url(), TIMEOUTS).await;
    assert_eq!(remaining(&store, "a", 9).await, Some(8));
    for taken in 1..=3 {
        let mut admin = server.connection();
        let () = redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .arg("SKIPME")
            .arg("yes")
            .query(&mut admin)
            .expect("killed");
        let noticed = async {
            while store.ready().is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SLACK, noticed).await.expect("the loss is noticed");
        assert_eq!(remaining(&store, "a", 9).await, Some(8 - taken));
    }
}

#[tokio::test]
async fn a_redis_that_is_gone_fails_takes_at_once() {
    let server = RedisServer::start();
    let store = store(&server.url(), IMPATIENT).await;
    assert_eq!(remaining(&store, "a", 9).await, Some(8));
    server.kill();
    wait_until("the loss to be noticed", async || store.ready().is_err()).await;
    let reason = store.ready().expect_err("down");
    assert!(reason.starts_with("Redis at 127.0.0.1:"), "{reason}");
    let started = Instant::now();
    for _ in 0..200 {
        assert_eq!(take(&store, "a", 9).await, FAILED);
    }
    assert!(started.elapsed() < SLACK, "200 takes waited {:?} for a Redis that is gone", started.elapsed());
}

#[tokio::test]
async fn a_redis_that_is_down_at_the_start_is_used_once_it_is_up() {
    let port = support::free_port();
    let store = store(&format!("redis://127.0.0.1:{port}"), IMPATIENT).await;
    assert!(store.ready().is_err());
    assert_eq!(take(&store, "a", 9).await, FAILED);
    let _server = RedisServer::start_on(port);
    wait_until("the connection", async || store.ready().is_ok()).await;
    assert_eq!(remaining(&store, "a", 9).await, Some(8));
}

#[tokio::test]
async fn a_frozen_redis_fails_takes_in_time_and_hears_none_twice() {
    let server = RedisServer::start();
    let store = store(&server.url(), IMPATIENT).await;
    assert_eq!(remaining(&store, "a", 9).await, Some(8));
    server.freeze();
    let started = Instant::now();
    assert_eq!(take(&store, "a", 9).await, FAILED);
    assert!(started.elapsed() < IMPATIENT.answer + SLACK, "failed after {:?}", started.elapsed());
    wait_until("the link to be given up", async || store.ready().is_err()).await;
    assert_eq!(take(&store, "a", 9).await, FAILED);
    server.thaw();
    wait_until("the connection to come back", async || store.ready().is_ok()).await;
    // The second take may have been executed after all, which is why it was not sent again; the third was not sent.
    let left = remaining(&store, "a", 9).await.expect("allowed");
    assert!((6..=7).contains(&left), "two or three runs took one token each, and {left} of 9 are left");
}

#[tokio::test]
async fn a_take_that_nobody_waits_for_is_not_sent() {
    let server = RedisServer::start();
    let store = store(&server.url(), TIMEOUTS).await;
    // Polled once, so that it waits in the queue, and then given up: the worker has not run in between.
    let mut waiting = Box::pin(store.take(one("a", 9)));
    let polled = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    drop(waiting);
    assert_eq!(remaining(&store, "a", 9).await, Some(8), "only this one took");
}

#[tokio::test]
async fn a_redis_without_memory_fails_takes_and_keeps_the_link() {
    let server = RedisServer::start();
    let store = store(&server.url(), TIMEOUTS).await;
    let mut admin = server.connection();
    let mut limit_memory = |bytes: &str| {
        let set: redis::RedisResult<()> =
            redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query(&mut admin);
        set.expect("set");
    };
    limit_memory("1");
    assert_eq!(take(&store, "a", 9).await, FAILED);
    let reason = store.ready().expect_err("it refuses");
    assert!(reason.contains("its memory is full (OOM)"), "{reason}");
    limit_memory("0");
    wait_until("a probe to tell without a request", async || store.ready().is_ok()).await;
    assert_eq!(remaining(&store, "a", 9).await, Some(8), "what was refused took nothing");
    assert_eq!(server.connections(), 1, "the link is as good as before");
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left() {
    let server = RedisServer::start();
    let store = store(&server.url(), TIMEOUTS).await;
    let mut admin = server.connection();
    let () =
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(support::free_port()).query(&mut admin).expect("told");
    assert_eq!(take(&store, "a", 9).await, FAILED);
    wait_until("the replica to be left", async || store.ready().is_err()).await;
    wait_until("its state to be told", async || {
        store.ready().is_err_and(|reason| reason.contains("it is a replica"))
    })
    .await;
    let () = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query(&mut admin).expect("told");
    wait_until("the primary to be used", async || store.ready().is_ok()).await;
    assert_eq!(remaining(&store, "a", 9).await, Some(8));
}

#[tokio::test]
async fn more_than_may_wait_is_refused_and_takes_nothing() {
    let server = RedisServer::start();
    let store = store(&server.url(), TIMEOUTS).await;
    // All are polled before the worker runs: so all wait, or are refused.
    let mut waiting: Vec<_> = (0..1100).map(|_| Box::pin(store.take(one("a", 2000)))).collect();
    let mut refused = 0;
    poll_fn(|context| {
        waiting.retain_mut(|take| match take.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(answer) => {
                assert!(answer.is_err(), "answered before it was sent");
                refused += 1;
                false
            }
        });
        Poll::Ready(())
    })
    .await;
    assert_eq!(refused, 1100 - 1024);
    for take in waiting {
        let answer = take.await.expect("was accepted");
        assert!(matches!(answer.verdicts[..], [Verdict::Allowed(_)]));
    }
    assert_eq!(remaining(&store, "a", 2000).await, Some(2000 - 1024 - 1));
}

#[tokio::test]
async fn a_redis_that_is_down_is_told_in_readyz_and_in_verdicts() {
    let url = format!("redis://127.0.0.1:{}", support::free_port());
    let app = router(Service::new(Store::Redis(store(&url, IMPATIENT).await), Limits::default()));
    let get = Request::get("/readyz").body(Body::empty()).expect("valid");
    let response = app.clone().oneshot(get).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    let refusal: Refusal = serde_json::from_slice(&body).expect("a refusal");
    assert_eq!(refusal.code, "store_unavailable");
    assert!(refusal.reason.starts_with("Redis at 127.0.0.1:"), "{}", refusal.reason);

    let golden = include_str!("../../contract/golden/take-request.json");
    let post = Request::post("/v1/take").body(Body::from(golden)).expect("valid");
    let response = app.oneshot(post).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    let response: TakeResponse = serde_json::from_slice(&body).expect("a response");
    assert_eq!(response.verdicts, [FAILED, FAILED]);
}
