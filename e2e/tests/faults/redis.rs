//! A Redis that ends, stands still, refuses, or forgets.

use std::time::Duration;

use fleet::{Fleet, Redis, Store};

use crate::survive::{
    BURST, REDIS_TIMEOUT, Row, TIMEOUT, Undecided, addrs, builder, fleet, lasting, patient, survive,
};

const SECOND: Duration = Duration::from_secs(1);

/// A fault of Redis after which nothing is forgotten.
fn row(name: &'static str) -> Row {
    Row { name, allowed_over: 0, undecided: Undecided::Some }
}

fn command(fleet: &Fleet, words: &[&str]) {
    fleet.redis().command(words).expect("Redis does as it is told");
}

#[test]
fn redis_is_killed_and_restarted_empty() {
    let mut fleet = fleet().start().expect("a fleet");
    let row = Row { allowed_over: BURST, ..row("redis_is_killed_and_restarted_empty") };
    survive(&row, &addrs(&fleet), |traffic| {
        fleet.redis().process().kill();
        // Not for long: by the time a bucket is full again by itself, there is nothing to forget.
        lasting(traffic, SECOND / 10);
        fleet.redis_mut().restart().expect("restarted");
    });
}

#[test]
fn redis_is_killed_and_restarted_with_its_data() {
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut fleet = fleet().redis_args(durable).start().expect("a fleet");
    survive(&row("redis_is_killed_and_restarted_with_its_data"), &addrs(&fleet), |traffic| {
        fleet.redis().process().kill();
        lasting(traffic, SECOND / 10);
        fleet.redis_mut().restart().expect("restarted");
    });
}

#[test]
fn redis_is_stopped_and_goes_on() {
    let fleet = fleet().start().expect("a fleet");
    survive(&row("redis_is_stopped_and_goes_on"), &addrs(&fleet), |traffic| {
        fleet.redis().process().freeze();
        lasting(traffic, 2 * SECOND);
        fleet.redis().process().thaw();
    });
}

#[test]
fn redis_is_out_of_memory() {
    let fleet = fleet().start().expect("a fleet");
    survive(&row("redis_is_out_of_memory"), &addrs(&fleet), |traffic| {
        command(&fleet, &["CONFIG", "SET", "maxmemory", "1"]);
        lasting(traffic, SECOND);
        command(&fleet, &["CONFIG", "SET", "maxmemory", "0"]);
    });
}

#[test]
fn redis_becomes_a_replica_and_a_primary_again() {
    let fleet = fleet().start().expect("a fleet");
    survive(&row("redis_becomes_a_replica_and_a_primary_again"), &addrs(&fleet), |traffic| {
        // Of a primary that nobody hears of, so it keeps what it has.
        command(&fleet, &["REPLICAOF", "127.0.0.1", "1"]);
        lasting(traffic, SECOND);
        command(&fleet, &["REPLICAOF", "NO", "ONE"]);
    });
}

#[test]
fn redis_misses_its_replicas() {
    let fleet = fleet().start().expect("a fleet");
    survive(&row("redis_misses_its_replicas"), &addrs(&fleet), |traffic| {
        command(&fleet, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
        lasting(traffic, SECOND);
        command(&fleet, &["CONFIG", "SET", "min-replicas-to-write", "0"]);
    });
}

#[test]
fn redis_changes_its_password() {
    let run = fleet::RunDir::new().expect("a directory");
    let programs = fleet::Programs::from_env();
    let redis = Redis::start(programs.redis_server().expect("Redis"), &run, &[]).expect("Redis");
    let set = |password: &str| {
        let password = format!(">{password}");
        redis
            .command(&["ACL", "SETUSER", "sluice", "on", "resetpass", &password, "~*", "+@all"])
            .expect("set");
    };
    set("before");
    let url = format!("redis://sluice:before@{}", redis.addr());
    let fleet = builder(TIMEOUT, REDIS_TIMEOUT).store(Store::External(url)).start().expect("a fleet");
    survive(&row("redis_changes_its_password"), &addrs(&fleet), |traffic| {
        set("after");
        redis.command(&["CLIENT", "KILL", "USER", "sluice"]).expect("killed");
        lasting(traffic, SECOND);
        set("before");
    });
    for sidecar in fleet.sidecars() {
        assert!(
            !sidecar.log().contains("before@"),
            "the log keeps the password to itself: {}",
            sidecar.log()
        );
    }
}

#[test]
fn redis_is_flushed() {
    let fleet = patient().start().expect("a fleet");
    let row = Row { allowed_over: 3 * BURST, undecided: Undecided::None, name: "redis_is_flushed" };
    survive(&row, &addrs(&fleet), |traffic| {
        for _ in 0..3 {
            command(&fleet, &["FLUSHALL"]);
            lasting(traffic, SECOND / 4);
        }
    });
}
