//! The clock of Redis is set, as the buckets see it: all that they say of time moves the other way, at once.
//!
//! That is what a clock that is set back or forward does to them, and needs no way of lying to Redis.
//! `sidecar/tests/differential.rs` holds the script to the same rules over random steps of the clock.

use std::time::Duration;

use fleet::Fleet;

use crate::survive::{BURST, Row, Undecided, addrs, lasting, patient, survive};

/// Moves when each bucket was counted, and when its key expires, by so many milliseconds.
const MOVE: &str = "
for _, key in ipairs(redis.call('KEYS', 'sluice:*')) do
  local credits, unit, at_us = string.match(redis.call('GET', key), '^(%-?%d+) (%d+) (%d+)$')
  local expires_ms = redis.call('PTTL', key) + ARGV[1]
  if expires_ms > 0 then
    redis.call('SET', key, string.format('%s %s %.0f', credits, unit, at_us + ARGV[1] * 1000), 'PX', expires_ms)
  else
    redis.call('DEL', key)
  end
end
return 'moved'";

fn step(fleet: &Fleet, by_ms: i64) {
    let moved = fleet.redis().command(&["EVAL", MOVE, "0", &(-by_ms).to_string()]).expect("Redis does it");
    assert_eq!(moved.to_string(), "moved");
}

#[test]
fn the_clock_of_redis_goes_back_by_an_hour() {
    let fleet = patient().start().expect("a fleet");
    let name = "the_clock_of_redis_goes_back_by_an_hour";
    // Nothing is minted. That nobody is locked out is seen by what each is admitted afterwards.
    let row = Row { name, allowed_over: 0, undecided: Undecided::None };
    survive(&row, &addrs(&fleet), |traffic| {
        step(&fleet, -3_600_000);
        lasting(traffic, Duration::from_secs(1));
    });
}

#[test]
fn the_clock_of_redis_goes_forward_by_an_hour() {
    let fleet = patient().start().expect("a fleet");
    let name = "the_clock_of_redis_goes_forward_by_an_hour";
    // An hour fills any bucket here: its burst is what it gains at most.
    let row = Row { name, allowed_over: BURST, undecided: Undecided::None };
    survive(&row, &addrs(&fleet), |traffic| {
        step(&fleet, 3_600_000);
        lasting(traffic, Duration::from_secs(1));
    });
}
