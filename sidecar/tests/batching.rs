//! Many requests on one connection to Redis: who waits for whom, what is refused, and what a failure takes along.
//!
//! Every take takes one token of a bucket that all share, so what remains tells in which order they were decided.

mod support;

use std::{
    future::poll_fn,
    io::{Read, Write},
    net::TcpStream,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use bucket::{Kind, Limit};
use contract::Verdict;
use sluice::{
    batch::{Ask, Batch, Take, bucket_key},
    store::{
        Answer, Overloaded,
        redis::{RedisAddress, RedisStore, Timeouts},
    },
};
use support::{RedisServer, wait_until};

const TIMEOUTS: Timeouts = Timeouts { answer: Duration::from_secs(10), connect: Duration::from_secs(10) };
const BURST: u64 = 1_000_000;

async fn store(server: &RedisServer) -> RedisStore {
    let address = RedisAddress::parse(&server.url()).expect("the URL is right");
    RedisStore::start(address, TIMEOUTS).await
}

fn ask(key: &str, cost_tokens: u64) -> Ask {
    let limit = Limit::new(1, 86_400_000, BURST).expect("valid");
    Ask { bucket_key: bucket_key("test", "daily", key), limit, cost_tokens }
}

fn takes(count: usize) -> Batch {
    let take = Take { buckets: vec![ask("shared", 1)], kind: Kind::Take, follows: false };
    Batch { takes: vec![take; count] }
}

/// How many tokens had been taken when each take was decided; nothing for one that was not.
fn order(answer: &Answer) -> Vec<Option<u64>> {
    let place = |verdict: &Verdict| match verdict {
        Verdict::Allowed(buckets) => Some(BURST - buckets[0].remaining),
        _ => None,
    };
    answer.verdicts.iter().map(place).collect()
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Answer, Overloaded>> + 'a>>;

/// Lets each request arrive, in order, before any is sent; nothing where one is refused.
async fn arrive(store: &RedisStore, batches: Vec<Batch>) -> Vec<Option<Waiting<'_>>> {
    let mut waiting: Vec<Option<Waiting<'_>>> =
        batches.into_iter().map(|batch| Some(Box::pin(store.take(batch)) as Waiting<'_>)).collect();
    poll_fn(|context| {
        for place in &mut waiting {
            if let Some(Poll::Ready(answer)) = place.as_mut().map(|take| take.as_mut().poll(context)) {
                assert!(answer.is_err(), "answered before it was sent");
                *place = None;
            }
        }
        Poll::Ready(())
    })
    .await;
    waiting
}

/// Lets what has arrived be sent: everything runs in turn on this one thread.
async fn send() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Lets time pass for the store, and not for Redis.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

async fn answered(waiting: Option<Waiting<'_>>) -> Answer {
    waiting.expect("accepted").await.expect("not overloaded")
}

/// Lets each batch arrive and be sent by itself, as far as runs may be under way.
async fn arrive_one_by_one(store: &RedisStore, batches: Vec<Batch>) -> Vec<Option<Waiting<'_>>> {
    let mut waiting = Vec::new();
    for batch in batches {
        waiting.extend(arrive(store, vec![batch]).await);
        send().await;
    }
    waiting
}

#[tokio::test]
async fn a_large_request_waits_for_itself_and_others_do_not_wait_for_it() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let sizes = [4096, 4096, 4096].into_iter().chain([1; 20]);
    let mut waiting = arrive(&store, sizes.map(takes).collect()).await;
    for small in waiting.split_off(3) {
        let place = order(&answered(small).await)[0].expect("allowed");
        assert!(place <= 1024, "it was decided in place {place}, behind the first run");
    }
    for large in waiting {
        let places = order(&answered(large).await);
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "out of order: {places:?}");
    }
    assert_eq!(server.runs(), (3 * 4096_u64 + 20).div_ceil(1024), "and every run was full");
}

#[tokio::test]
async fn what_arrives_between_the_runs_of_a_large_request_has_its_turn_in_the_next() {
    let server = RedisServer::start();
    let store = store(&server).await;
    server.freeze();
    let mut waiting = arrive(&store, vec![takes(4096)]).await;
    send().await;
    waiting.extend(arrive(&store, vec![takes(1)]).await);
    server.thaw();
    let place = order(&answered(waiting.pop().flatten()).await)[0].expect("allowed");
    assert!((1025..=2048).contains(&place), "the run under way, and not one more: {place}");
    let places = order(&answered(waiting.pop().flatten()).await);
    assert_eq!(places.last(), Some(&Some(4097)));
}

#[tokio::test]
async fn the_rest_of_a_large_request_that_nobody_waits_for_is_not_sent() {
    let server = RedisServer::start();
    let store = store(&server).await;
    server.freeze();
    let mut waiting = arrive(&store, vec![takes(4096), takes(1), takes(1)]).await;
    send().await;
    waiting[0] = None;
    waiting[1] = None;
    waiting.extend(arrive(&store, vec![takes(7), takes(1)]).await);
    waiting[3] = None;
    server.thaw();
    answered(waiting[2].take()).await;
    answered(waiting[4].take()).await;
    let taken = order(&store.take(takes(1)).await.expect("not overloaded"))[0];
    assert_eq!(taken, Some(1024 + 1 + 1), "the first run was under way already, and these two");
}

#[tokio::test]
async fn more_buckets_than_may_wait_are_refused_and_take_nothing() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut waiting = arrive(&store, vec![takes(4096); 17]).await;
    assert!(waiting.pop().flatten().is_none(), "16 × 4096 buckets may wait");
    for accepted in waiting {
        assert!(order(&answered(accepted).await).iter().all(Option::is_some));
    }
    let large =
        Take { buckets: (0..60).map(|key| ask(&key.to_string(), 1)).collect(), ..takes(1).takes.remove(0) };
    let large = Batch { takes: vec![large; 1100] };
    let mut waiting = arrive(&store, vec![large, takes(1)]).await;
    assert!(waiting.pop().flatten().is_none(), "there is no place besides it");
    let decided = order(&answered(waiting.pop().flatten()).await);
    assert!(decided.iter().all(Option::is_some), "more than all places waits alone");
    let taken = order(&store.take(takes(1)).await.expect("every place is given back"))[0];
    assert_eq!(taken, Some(16 * 4096 + 1), "what was refused took nothing");
}

#[tokio::test]
async fn a_run_that_fails_takes_only_its_own_requests_along() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let () =
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).query(&mut server.connection()).expect("set");
    server.freeze();
    let mut waiting = arrive(&store, vec![takes(2000), takes(1)]).await;
    send().await;
    // It only looks, which needs no memory.
    let look = Take { buckets: vec![ask("shared", 0)], kind: Kind::Take, follows: false };
    waiting.extend(arrive(&store, vec![Batch { takes: vec![look] }]).await);
    server.thaw();
    let mut decided = Vec::new();
    for waiting in waiting {
        decided.push(order(&answered(waiting).await).iter().flatten().count());
    }
    assert_eq!(decided, [0, 0, 1]);
    assert_eq!(server.connections(), 1, "the link is as good as before");
    assert_eq!(server.runs(), 2, "the rest of a request that failed is not sent");
}

#[tokio::test]
async fn a_second_run_is_sent_before_the_first_is_answered_and_no_third() {
    let server = RedisServer::start();
    let store = store(&server).await;
    server.freeze();
    let waiting = arrive_one_by_one(&store, vec![takes(1); 4]).await;
    server.thaw();
    for (place, waiting) in (1..).zip(waiting) {
        assert_eq!(order(&answered(waiting).await), [Some(place)]);
    }
    assert_eq!(server.runs(), 3, "the first, the second, and one that the others share");
}

#[tokio::test]
async fn two_runs_of_a_script_that_redis_forgot_are_each_decided_once() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut server.connection()).expect("flushed");
    server.freeze();
    let waiting = arrive_one_by_one(&store, vec![takes(1); 2]).await;
    server.thaw();
    for (place, waiting) in (1..).zip(waiting) {
        assert_eq!(order(&answered(waiting).await), [Some(place)]);
    }
    assert_eq!((server.runs(), server.whole_scripts()), (2, 2), "neither knew of the other");
    assert_eq!(order(&store.take(takes(1)).await.expect("not overloaded")), [Some(3)]);
}

#[tokio::test]
async fn two_runs_whose_connection_breaks_fail_and_are_not_sent_again() {
    for killed_first in [true, false] {
        let server = RedisServer::start();
        let store = store(&server).await;
        let mut admin = TcpStream::connect(("127.0.0.1", server.port())).expect("Redis listens");
        // Redis knows of this connection, and so hears it in the order of what was sent.
        admin.write_all(b"PING\r\n").expect("sent");
        admin.read_exact(&mut [0; b"+PONG\r\n".len()]).expect("answered");
        let mut kill = || admin.write_all(b"CLIENT KILL TYPE normal SKIPME yes\r\n").expect("sent");
        server.freeze();
        if killed_first {
            kill();
        }
        let waiting = arrive_one_by_one(&store, vec![takes(1); 2]).await;
        if !killed_first {
            kill();
        }
        server.thaw();
        for (place, waiting) in (1..).zip(waiting) {
            let order = order(&answered(waiting).await)[0];
            // Redis may have answered what came before it heard that it is to break the connection.
            let answered_in_time = !killed_first && order == Some(place);
            assert!(order.is_none() || answered_in_time, "run {place} was decided in place {order:?}");
        }
        wait_until("the connection to come back", async || store.ready().is_ok()).await;
        let heard = server.runs();
        assert!(heard <= 2, "two runs were sent, and {heard} were heard");
        let taken = order(&store.take(takes(1)).await.expect("not overloaded"))[0];
        assert_eq!(taken, Some(heard + 1), "every run that was heard took one token");
        assert_eq!(server.runs(), heard + 1, "and none was sent again");
    }
}

#[tokio::test]
async fn a_run_that_is_late_takes_none_along_that_was_sent_behind_it() {
    const HOUR: Duration = Duration::from_secs(3600);
    let server = RedisServer::start();
    let address = RedisAddress::parse(&server.url()).expect("the URL is right");
    let store = RedisStore::start(address, Timeouts { answer: HOUR, connect: HOUR }).await;
    server.freeze();
    let mut waiting = arrive_one_by_one(&store, vec![takes(1)]).await;
    pass(HOUR * 2 / 3).await;
    waiting.extend(arrive_one_by_one(&store, vec![takes(2)]).await);
    pass(HOUR * 2 / 3).await;
    assert_eq!(order(&answered(waiting[0].take()).await), [None], "its time is over");
    send().await;
    waiting.extend(arrive_one_by_one(&store, vec![takes(3)]).await);
    server.thaw();
    assert_eq!(order(&answered(waiting[1].take()).await), [Some(2), Some(3)], "it had time left");
    assert_eq!(order(&answered(waiting[2].take()).await), [Some(4), Some(5), Some(6)]);
    assert_eq!(server.runs(), 3 + 1, "each was sent once, and a probe behind the late one");
    assert_eq!(server.connections(), 1, "which found the connection fit again");
}
