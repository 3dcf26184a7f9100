//! A Redis that is slower than it may be, slower than the demand, or silent.

use std::{sync::Arc, time::Duration};

use fleet::{Flow, Redis, RunDir, Wire};
use sluice::store::redis::{RedisStore, Timeouts};
use tokio::{task::JoinSet, time::Instant};

use super::{FAILED, SLACK, address, one, redis, remaining, take, until, until_ready, until_said};

const IMPATIENT: Timeouts = Timeouts { answer: Duration::from_millis(100), connect: Duration::from_secs(2) };

async fn behind_a_wire(timeouts: Timeouts) -> (Arc<RedisStore>, Wire, Redis, RunDir) {
    let (redis, run) = redis(&[]);
    let wire = Wire::start(redis.addr()).expect("a wire");
    let store = RedisStore::start(address(&format!("redis://{}", wire.addr())), timeouts).await;
    assert_eq!(remaining(&store, "a").await, Some(999_999));
    (Arc::new(store), wire, redis, run)
}

fn runs(redis: &Redis) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]).expect("INFO").to_string();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap_or("0");
    line.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_redis_that_is_always_late_costs_requests_nothing_and_is_used_once_it_is_not() {
    let (store, wire, redis, _run) = behind_a_wire(IMPATIENT).await;
    wire.set(Flow::Late { there: Duration::ZERO, back: IMPATIENT.answer * 3 / 2 });
    assert_eq!(take(&store, "a").await, FAILED);
    until_said(&store, "answers take longer than --redis-timeout (100ms)").await;
    // A probe may be answered late at any time, so what is told stays the same.
    let patience = tokio::time::sleep(IMPATIENT.answer * 2);
    let mut waited = 0;
    tokio::pin!(patience);
    loop {
        tokio::select! {
            () = &mut patience => break,
            _ = take(&store, "a") => waited += 1,
        }
    }
    assert!(waited > 0);
    let before = runs(&redis);
    let started = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(take(&store, "a").await, FAILED);
    }
    let took = started.elapsed();
    println!("1000 requests while the breaker was open: {took:?}");
    assert!(took < SLACK, "1000 requests waited {took:?}");
    assert!(runs(&redis) - before <= 50, "only probes are sent");
    assert!(store.ready().is_err());
    wire.set(Flow::Passed);
    println!("used again after {:?}", until_ready(&store).await);
    assert!(remaining(&store, "a").await.is_some());
}

#[tokio::test]
async fn a_redis_that_hesitates_once_is_used_again_over_the_same_connection() {
    // Redis may notice the end of a pause a tenth of a second late, and the second request has to wait for that.
    let patient = Timeouts { answer: Duration::from_secs(1), ..IMPATIENT };
    let (store, wire, redis, _run) = behind_a_wire(patient).await;
    redis.command(&["CLIENT", "PAUSE", "1200"]).expect("paused");
    assert_eq!(take(&store, "a").await, FAILED, "its time is over before the pause");
    let again = Instant::now();
    // It waits for the probe, which is answered as soon as Redis goes on.
    let left = remaining(&store, "a").await.expect("allowed");
    println!("a request that arrived while Redis hesitated was answered after {:?}", again.elapsed());
    assert_eq!(left, 999_997, "the late run took its token once");
    assert_eq!(wire.connections(), 1);
}

#[tokio::test]
async fn a_network_that_goes_silent_is_noticed_while_idle_and_a_new_connection_made() {
    let (store, wire, _redis, _run) = behind_a_wire(IMPATIENT).await;
    wire.set(Flow::Lost);
    let noticed = until("the silence to be noticed", || store.ready().is_err()).await;
    println!("noticed after {noticed:?}");
    assert!(noticed < Duration::from_secs(2) + SLACK, "noticed after {noticed:?}");
    // What was lost stays silent; only a new connection carries anything.
    wire.set(Flow::Passed);
    println!("used again after {:?}", until_ready(&store).await);
    assert_eq!(remaining(&store, "a").await, Some(999_998));
}

#[tokio::test]
async fn more_than_redis_can_decide_is_shed_in_time_and_never_sent() {
    // All are to arrive before the first give their places back, however slow the machine is.
    let patient = Timeouts { answer: Duration::from_secs(4), ..IMPATIENT };
    let (store, _wire, redis, _run) = behind_a_wire(patient).await;
    let before = runs(&redis);
    redis.process().freeze();
    let started = Instant::now();
    let mut asked = JoinSet::new();
    // Ten times what may wait. Each of the first two is a run of its own, which is under way before the others arrive.
    for nth in 0..10_240 {
        let store = Arc::clone(&store);
        asked.spawn(async move { store.take(one("b", 1_000_000)).await });
        if nth < 2 {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    }
    let (mut refused, mut failed) = (0, 0);
    while let Some(outcome) = asked.join_next().await {
        match outcome.expect("no panic") {
            Err(_overloaded) => refused += 1,
            Ok(answer) => {
                assert_eq!(answer.verdicts, [FAILED]);
                failed += 1;
            }
        }
    }
    let took = started.elapsed();
    println!("{refused} refused, {failed} failed, all within {took:?}");
    assert!(took < patient.answer + SLACK, "all were answered within {took:?}");
    assert_eq!(failed, 1_024, "so many may wait, and no more");
    until("the silence to be told", || store.ready().is_err()).await;
    redis.process().thaw();
    until_ready(&store).await;
    let left = remaining(&store, "b").await.expect("allowed");
    assert_eq!(999_999 - left, 2, "of what nobody waits for any more only what was under way is executed");
    assert!(runs(&redis) - before <= 12, "besides there are probes");
}
