//! Users, passwords and sockets: what a user needs, and which right it lacks.

use std::{env, fs, path::Path};

use fleet::{Redis, RunDir};
use sluice::store::redis::RedisStore;

use super::{TIMEOUTS, address, redis, remaining, until, until_ready, until_said};

/// What lua/SPEC.md says that a user needs.
const RIGHTS: [&str; 14] = [
    "resetkeys",
    "~sluice:1:*",
    "+evalsha",
    "+eval",
    "+script|load",
    "+mget",
    "+set",
    "+del",
    "+hget",
    "+hscan",
    "+hset",
    "+hdel",
    "+hlen",
    "+time",
];

/// A name that could be taken for what is said of keys.
const USER: &str = "monkey";

fn set_user(redis: &Redis, rights: &[&str]) {
    let user = ["ACL", "SETUSER", USER, "reset", "on", ">s3cret"];
    redis.command(&[&user[..], rights].concat()).expect("the user is set");
}

fn url(redis: &Redis, password: &str) -> String {
    format!("redis://{USER}:{password}@{}", redis.addr())
}

#[tokio::test]
async fn a_user_needs_the_rights_that_are_told_and_no_other() {
    let specification = include_str!("../../../lua/SPEC.md");
    assert!(specification.contains(&format!("{} +info", RIGHTS.join(" "))), "SPEC.md tells the same rights");
    let (redis, _run) = redis(&[]);
    for info in [&["+info"][..], &[]] {
        set_user(&redis, &[&RIGHTS[..], info].concat());
        let store = RedisStore::start(address(&url(&redis, "s3cret")), TIMEOUTS).await;
        assert_eq!(store.ready(), Ok(()));
        assert!(remaining(&store, "a").await.is_some());
        redis.command(&["SCRIPT", "FLUSH"]).expect("flushed");
        assert!(remaining(&store, "a").await.is_some(), "the whole script may be sent");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_and_seen_once_it_is_given() {
    let (redis, _run) = redis(&[]);
    for (missing, name) in [
        ("~sluice:1:*", "the keys sluice:1:*"),
        ("+evalsha", "evalsha"),
        ("+eval", "EVAL"),
        ("+script|load", "script"),
        ("+mget", "MGET"),
        ("+set", "SET"),
        ("+del", "DEL"),
        ("+hget", "HGET"),
        ("+hscan", "HSCAN"),
        ("+hset", "HSET"),
        ("+hdel", "HDEL"),
        ("+hlen", "HLEN"),
        ("+time", "TIME"),
    ] {
        let rights: Vec<&str> = RIGHTS.into_iter().filter(|&right| right != missing).collect();
        set_user(&redis, &rights);
        let store = RedisStore::start(address(&url(&redis, "s3cret")), TIMEOUTS).await;
        let reason = store.ready().expect_err(missing);
        assert!(reason.contains("(NOPERM)") && reason.contains(name), "without {missing}: {reason}");
        assert!(reason.contains("ACL SETUSER"), "{reason}");
        set_user(&redis, &RIGHTS);
        until_ready(&store).await;
        assert!(remaining(&store, "a").await.is_some());
    }
}

#[tokio::test]
async fn a_database_needs_one_right_more_and_has_to_be_there() {
    let (redis, _run) = redis(&["--databases", "4"]);
    set_user(&redis, &RIGHTS);
    let third = url(&redis, "s3cret") + "/3";
    let store = RedisStore::start(address(&third), TIMEOUTS).await;
    let reason = store.ready().expect_err("it may not SELECT");
    assert!(reason.contains("(NOPERM)") && reason.contains("also +select"), "{reason}");
    set_user(&redis, &[&RIGHTS[..], &["+select"]].concat());
    until_ready(&store).await;
    assert_eq!(remaining(&store, "a").await, Some(999_999));
    let fourth = RedisStore::start(address(&third.replace("/3", "/4")), TIMEOUTS).await;
    let reason = fourth.ready().expect_err("there are 0 to 3");
    assert!(reason.contains("no database of this number"), "{reason}");
}

#[tokio::test]
async fn a_redis_without_hello_is_told_and_what_it_quotes_is_not() {
    let (redis, _run) = redis(&["--rename-command", "HELLO", ""]);
    redis.command(&["CONFIG", "SET", "requirepass", "hunter2-s3cret"]).expect("set");
    let url = format!("redis://:hunter2-s3cret@{}", redis.addr());
    let store = RedisStore::start(address(&url), TIMEOUTS).await;
    let reason = store.ready().expect_err("it does not speak RESP3");
    assert!(reason.contains("it does not know HELLO; "), "{reason}");
    assert!(!reason.contains("hunter2") && !reason.contains("AUTH"), "{reason}");
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_told_and_seen_once_it_is_given_back() {
    let (redis, _run) = redis(&[]);
    set_user(&redis, &RIGHTS);
    let store = RedisStore::start(address(&url(&redis, "s3cret")), TIMEOUTS).await;
    redis.command(&["ACL", "SETUSER", USER, "-set"]).expect("set");
    assert_eq!(remaining(&store, "a").await, None);
    until_said(&store, "lacks a right (NOPERM)").await;
    redis.command(&["ACL", "SETUSER", USER, "+set"]).expect("set");
    until_ready(&store).await;
    assert!(remaining(&store, "a").await.is_some());
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_told_without_it_and_a_changed_file_is_read() {
    let (redis, run) = redis(&[]);
    redis.command(&["CONFIG", "SET", "requirepass", "s3cret"]).expect("set");
    let plain = format!("redis://{}", redis.addr());
    let without = RedisStore::start(address(&plain), TIMEOUTS).await;
    let reason = without.ready().expect_err("no password");
    assert!(reason.contains("wants a password (NOAUTH)"), "{reason}");
    let wrong = RedisStore::start(address(&plain.replace("//", "//:hunter2@")), TIMEOUTS).await;
    let reason = wrong.ready().expect_err("a wrong password");
    assert!(reason.contains("(WRONGPASS)") && !reason.contains("hunter2"), "{reason}");

    let file = run.write("password", "hunter2\n").expect("written");
    let store = RedisStore::start(address(&plain).with_password_file(file.clone()), TIMEOUTS).await;
    until_said(&store, "(WRONGPASS)").await;
    fs::write(&file, "s3cret\n").expect("written");
    until_ready(&store).await;
    assert!(remaining(&store, "a").await.is_some());
    let told = RedisStore::start(address(&plain).with_password("s3cret"), TIMEOUTS).await;
    assert_eq!(told.ready(), Ok(()));
}

#[tokio::test]
async fn a_unix_socket_is_used_and_used_again_after_a_restart() {
    let (mut redis, _run) = redis(&[]);
    let store =
        RedisStore::start(address(&format!("redis+unix://{}", redis.unix_socket().display())), TIMEOUTS)
            .await;
    assert_eq!(remaining(&store, "a").await, Some(999_999));
    redis.process().kill();
    until("the loss to be noticed", || store.ready().is_err()).await;
    redis.restart().expect("restarted");
    until_ready(&store).await;
    assert_eq!(remaining(&store, "a").await, Some(999_999), "what Redis lost is forgotten, and nothing else");
}

#[tokio::test]
#[ignore = "VALKEY_SERVER must name a valkey-server, which Debian 12 does not have"]
async fn a_valkey_is_used_by_its_own_scheme() {
    let program = env::var("VALKEY_SERVER").expect("VALKEY_SERVER names a valkey-server");
    let run = RunDir::new().expect("a directory");
    let valkey = Redis::start(Path::new(&program), &run, &[]).expect("Valkey starts");
    let store = RedisStore::start(address(&format!("valkey://{}", valkey.addr())), TIMEOUTS).await;
    assert_eq!(remaining(&store, "a").await, Some(999_999));
    let told = valkey.command(&["INFO", "server"]).expect("INFO").to_string();
    assert!(told.contains("valkey_version"), "it is a Valkey: {told}");
}
