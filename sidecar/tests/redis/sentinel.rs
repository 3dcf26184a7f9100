//! A real primary, its replicas and three Sentinels: whoever is the primary is found, and nobody else is asked.

use std::time::{Duration, Instant};

use contract::Verdict;
use fleet::{Redis, RunDir, Sentinels};
use sluice::store::redis::{RedisStore, Timeouts};

use super::{address, program, remaining, take, until, until_said};

/// As the program has them where nothing else is said, with room for a machine that is busy.
const TIMEOUTS: Timeouts = Timeouts { answer: Duration::from_millis(200), connect: Duration::from_secs(1) };

async fn start() -> (Sentinels, RedisStore, RunDir) {
    start_with(1).await
}

async fn start_with(replicas: usize) -> (Sentinels, RedisStore, RunDir) {
    let run = RunDir::new().expect("a directory");
    let sentinels = Sentinels::start_with(&program(), &run, replicas).expect("started");
    let store = RedisStore::start(address(&sentinels.url()), TIMEOUTS).await;
    assert_eq!(store.ready(), Ok(()));
    assert_eq!(remaining(&store, "before").await, Some(999_999));
    (sentinels, store, run)
}

/// How often somebody ran the script on it; nothing where it does not answer.
fn runs(redis: &Redis) -> Option<u64> {
    let stats = redis.command(&["INFO", "commandstats"]).ok()?.to_string();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="))?;
    line.split(',').next()?.parse().ok()
}

/// Takes until one is decided by the second Redis; how long that took since `started`.
async fn until_moved(sentinels: &Sentinels, store: &RedisStore, started: Instant) -> Duration {
    let mut longest = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let verdict = take(store, "moving").await;
        longest = longest.max(asked.elapsed());
        if matches!(verdict, Verdict::Allowed(_))
            && runs(&sentinels.redises()[1]).is_some_and(|runs| runs > 0)
        {
            println!(
                "decided by the new primary {:?} after the old one ended, no request waited longer than {longest:?}",
                started.elapsed()
            );
            return longest;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "waited 60 s for the new primary: {:?}",
            store.ready()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_primary_that_dies_is_replaced_by_the_one_that_is_promoted() {
    let (sentinels, store, _run) = start().await;
    sentinels.redises()[0].process().kill();
    until_moved(&sentinels, &store, Instant::now()).await;
    until("the Sentinels to name it", || sentinels.primary() == Some(1)).await;
    assert_eq!(store.ready(), Ok(()));
}

#[tokio::test]
async fn a_primary_that_is_demoted_is_left() {
    let (sentinels, store, _run) = start().await;
    let started = Instant::now();
    sentinels.fail_over().expect("promoted");
    until_moved(&sentinels, &store, started).await;
    until("the store to be ready", || store.ready().is_ok()).await;
    assert!(remaining(&store, "after").await.is_some());
}

/// Until each replica follows the new primary, or the failover takes too long, the Sentinel that leads it has the old
/// address in its `SENTINEL MASTER`, and the old primary takes writes.
#[tokio::test]
async fn a_primary_that_was_left_is_not_gone_back_to_while_its_replicas_are_moved() {
    let (sentinels, store, _run) = start_with(2).await;
    sentinels.command(&["SENTINEL", "SET", "main", "failover-timeout", "8000"]).expect("set");
    // It never follows the new one, which knows no password.
    sentinels.redises()[2].command(&["CONFIG", "SET", "masterauth", "wrong"]).expect("set");
    let old = &sentinels.redises()[0];
    sentinels.fail_over().expect("promoted");
    until_moved(&sentinels, &store, Instant::now()).await;
    let (before, moved) = (runs(old).expect("it answers"), Instant::now());
    let mut left = remaining(&store, "once").await.expect("allowed");
    let is_primary = || old.command(&["ROLE"]).is_ok_and(|role| role.to_string().starts_with("master"));
    while is_primary() {
        let now = remaining(&store, "once").await;
        assert_eq!(now, Some(left - 1), "each take is decided, by one Redis: {:?}", store.ready());
        left -= 1;
        assert!(moved.elapsed() < Duration::from_secs(30), "the failover does not end");
    }
    println!("the old primary took writes for {:?} more", moved.elapsed());
    assert!(moved.elapsed() > Duration::from_secs(3), "it lasts for several looks at the Sentinels");
    assert_eq!(runs(old), Some(before), "the old primary is not asked again");
    assert!(remaining(&store, "once").await.is_some());
}

#[tokio::test]
async fn an_old_primary_that_was_frozen_is_not_asked_again() {
    let (sentinels, store, _run) = start().await;
    let old = &sentinels.redises()[0];
    let before = runs(old).expect("it answers");
    old.process().freeze();
    until_moved(&sentinels, &store, Instant::now()).await;
    old.process().thaw();
    // Until the Sentinels have made a replica of it, it takes itself for the primary and would take writes.
    let mut asked = 0;
    until("it to be made a replica", || {
        asked += 1;
        old.command(&["ROLE"]).is_ok_and(|role| role.to_string().starts_with("slave"))
    })
    .await;
    for _ in 0..100 {
        assert!(remaining(&store, "after").await.is_some());
    }
    // What had been sent before it was frozen may be heard by it when it goes on: a run that was late, and one probe.
    let heard = runs(old).expect("it answers") - before;
    assert!(heard <= 4, "the old primary was asked {heard} times");
    assert_eq!(store.ready(), Ok(()));
}

#[tokio::test]
async fn no_sentinel_and_one_that_answers() {
    let (sentinels, store, _run) = start().await;
    sentinels.sentinel(0).kill();
    sentinels.sentinel(1).kill();
    let other = RedisStore::start(address(&sentinels.url()), TIMEOUTS).await;
    assert_eq!(other.ready(), Ok(()), "one is enough to find the primary");
    sentinels.sentinel(2).kill();
    assert!(remaining(&store, "a").await.is_some(), "a link that works needs no Sentinel");
    let late = RedisStore::start(address(&sentinels.url()), TIMEOUTS).await;
    until_said(&late, "no Sentinel tells where the primary \"main\" is").await;
    let unknown = sentinels.url().replace("/main", "/other");
    assert!(RedisStore::start(address(&unknown), TIMEOUTS).await.ready().is_err());
}

#[tokio::test]
async fn of_the_sentinels_a_user_needs_two_rights_and_what_it_lacks_is_told() {
    let (sentinels, _store, _run) = start().await;
    let set_user = |rights: &[&str]| {
        let user = ["ACL", "SETUSER", "sluice", "reset", "on", ">s3cret"];
        sentinels.command(&[&user[..], rights].concat()).expect("set");
    };
    // What lua/SPEC.md says.
    let rights = ["+sentinel|master", "+sentinel|get-master-addr-by-name"];
    let specification = include_str!("../../../lua/SPEC.md");
    assert!(specification.contains(&format!("Of Sentinels a user needs `{}`", rights.join(" "))));
    set_user(&rights[..1]);
    let asked = |auth: &str| address(&sentinels.url()).with_sentinel_auth(auth);
    let store = RedisStore::start(asked("sluice:s3cret"), TIMEOUTS).await;
    let reason = store.ready().expect_err("one right is missing");
    assert!(reason.contains("(NOPERM)") && reason.contains(rights[1]), "{reason}");
    assert!(!reason.contains("+evalsha"), "it is not the Redis's user: {reason}");
    set_user(&rights);
    until("the Sentinels to be asked again", || store.ready().is_ok()).await;
    assert!(remaining(&store, "a").await.is_some());
    let wrong = RedisStore::start(asked("sluice:hunter2"), TIMEOUTS).await;
    let reason = wrong.ready().expect_err("a wrong password");
    assert!(reason.contains("SLUICE_REDIS_SENTINEL_AUTH") && !reason.contains("hunter2"), "{reason}");
}
