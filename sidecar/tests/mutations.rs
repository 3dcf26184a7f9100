//! The differential test is only worth what it catches: each deliberate mistake in the script must be found by it.

mod support;

use sluice::store::script::SCRIPT;
use support::{
    Random, RedisServer,
    trial::{Difference, Trial},
};

/// What is wrong, the text that is right, and the text that is not.
const MUTATIONS: &[(&str, &str, &str)] = &[
    (
        "the wait is rounded down",
        "wait = (missing - rest) / tokens[limit] + (rest > 0 and 1 or 0)",
        "wait = (missing - rest) / tokens[limit]",
    ),
    (
        "the time to full is rounded down",
        "(deficit - rest) / tokens[limit] + (rest > 0 and 1 or 0)",
        "(deficit - rest) / tokens[limit]",
    ),
    (
        "a whole quotient is rounded up",
        "(missing - rest) / tokens[limit] + (rest > 0 and 1 or 0)",
        "(missing - rest) / tokens[limit] + 1",
    ),
    (
        "a quotient is left to rounding",
        "wait = (missing - rest) / tokens[limit] + (rest > 0 and 1 or 0)",
        "wait = math.ceil(missing / tokens[limit] + 1e-9)",
    ),
    ("the burst does not cap", "if earned < capacity - before then", "if true then"),
    ("elapsed time is ignored", "(now - at[key]) * tokens[limit] or 0", "0 or 0"),
    (
        "a refund overfills",
        "returned < capacity - level and level + returned or capacity",
        "level + returned",
    ),
    ("one denial does not deny all", "    if wait ~= 0 then\n      allowed = false\n    end\n", ""),
    ("a cost beyond the burst is only denied", "if cost > burst[limit] then", "if false then"),
    ("numbers keep 14 digits", "format('%%d %d %d', ", "format('%%.14g %.14g %.14g', "),
    (
        "numbers are written as Lua writes them",
        "format('%%d %d %d', period[limit], now)",
        "'%s ' .. period[limit] .. ' ' .. now",
    ),
    ("a changed unit is not converted", "if unit[key] ~= price then", "if false then"),
    ("an inexact product is divided", "if product < EXACT then", "if true then"),
    ("a conversion loses its fraction", "return whole * to + quotient", "return whole * to"),
    ("a conversion loses a bit", "if to % (bit * 2) >= bit then", "if to % (bit * 2) > bit then"),
    (
        "a conversion adds beyond 2^53",
        "quotient, rest = quotient + 1, rest - (from - part)",
        "quotient, rest = quotient + 1, rest + part - from",
    ),
    (
        "a denied take writes",
        "      change = change or cost > 0\n    end\n    local deficit",
        "    end\n    change = change or cost > 0\n    local deficit",
    ),
    (
        "a look writes",
        "      level = level - cost * price\n      change = change or cost > 0",
        "      level = level - cost * price\n      change = true",
    ),
    (
        "a key expires too early",
        "local expire_ms = now_ms + (full_after - rest) / 1000 + (rest > 0 and 1 or 0)",
        "local expire_ms = now_ms + (full_after - rest) / 1000 - 1",
    ),
    ("a key expires too late", "local expire_ms = now_ms +", "local expire_ms = now_ms + 3 +"),
    (
        "a bucket of the future stays there",
        "local change = credits[key] and at[key] > now",
        "local change = false",
    ),
    ("time that goes back is taken off", "now > at[key] and (now - at[key])", "(now - at[key])"),
    ("a full bucket is kept", "elseif full_after then", "elseif false then"),
    (
        "a bucket's second change is lost",
        "    if change and deficit > 0 then\n",
        "    if change and deficit > 0 and not changed[key] then\n",
    ),
    (
        "what is out of range counts",
        "counts = c < EXACT and u > 0 and u < EXACT and a < EXACT",
        "counts = u > 0",
    ),
    ("what is malformed counts", "'^(%d+) (%d+) (%d+)$'", "'(%d+) (%d+) (%d+)'"),
    ("a refund is denied", "    if refund then\n      wait = 0\n", "    if refund then\n"),
];

/// Most are found within a hundred, the rarest within a few thousand.
const STEPS: usize = 60_000;

const TRIALS: usize = 10;

#[test]
fn every_mistake_in_the_script_is_found() {
    let server = RedisServer::start();
    let mut random = Random::from_environment();
    let mut missed = Vec::new();
    for (mistake, right, wrong) in MUTATIONS {
        assert_eq!(
            SCRIPT.matches(right).count(),
            1,
            "{mistake}: the script must hold this exactly once: {right}"
        );
        let mutant = SCRIPT.replacen(right, wrong, 1);
        match find(&server, &mutant, &mut random) {
            Ok(step) => println!("{mistake}: found at step {step}"),
            Err(why) => missed.push(format!("{mistake}: {why}")),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// The step at which the mutant was found, or why it was not.
///
/// A mistake may also make a bucket that Redis refuses to keep, which says nothing about the test. So a mutant that breaks
/// has some more chances to be found; one that is no valid script breaks each time.
fn find(server: &RedisServer, mutant: &str, random: &mut Random) -> Result<usize, String> {
    let mut broken = String::new();
    for _ in 0..TRIALS {
        let mut trial = Trial::new(server, mutant, Random::seeded(random.next()));
        match (0..STEPS).find_map(|step| Some((step, trial.step().err()?))) {
            Some((step, Difference::Found(_))) => return Ok(step),
            Some((step, Difference::Broken(error))) => broken = format!("no valid script at {step}: {error}"),
            None => return Err(format!("not found in {STEPS} steps")),
        }
    }
    Err(broken)
}
