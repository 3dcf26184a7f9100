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
        "wait = (short - rest) / tokens[limit] + (rest > 0 and 1 or 0)",
        "wait = (short - rest) / tokens[limit]",
    ),
    (
        "the time to full is rounded down",
        "(lacks - rest) / rate + (rest > 0 and 1 or 0)",
        "(lacks - rest) / rate",
    ),
    (
        "a whole quotient is rounded up",
        "(short - rest) / tokens[limit] + (rest > 0 and 1 or 0)",
        "(short - rest) / tokens[limit] + 1",
    ),
    (
        "a quotient is left to rounding",
        "wait = (short - rest) / tokens[limit] + (rest > 0 and 1 or 0)",
        "wait = math.ceil(short / tokens[limit] + 1e-9)",
    ),
    ("what is short is summed beyond 2^53", "cost * price - full + lacks", "cost * price + lacks - full"),
    ("the burst does not cap", "if lacks < 0 then", "if false then"),
    ("elapsed time is ignored", "if earned > 0 then", "if false then"),
    ("a refund overfills", "cost * price < lacks and lacks - cost * price or 0", "lacks - cost * price"),
    ("one denial does not deny all", "      allowed = false\n", "      allowed = b < count\n"),
    ("a cost beyond the burst is only denied", "if cost * price > full then", "if false then"),
    ("the whole burst never fits", "if cost * price > full then", "if cost * price >= full then"),
    ("numbers keep 14 digits", "format('%%d %d %d', ", "format('%%.14g %.14g %.14g', "),
    (
        "numbers are written as Lua writes them",
        "format('%%d %d %d', period[limit], now)",
        "'%s ' .. period[limit] .. ' ' .. now",
    ),
    ("a changed unit is not converted", "if unit[key] ~= price then", "if false then"),
    ("an inexact product is divided", "if product < EXACT then", "if true then"),
    (
        "a conversion loses its fraction",
        "(amount - part) / from * to + quotient",
        "(amount - part) / from * to",
    ),
    ("a conversion loses a bit", "if to % (bit * 2) >= bit then", "if to % (bit * 2) > bit then"),
    (
        "a conversion adds beyond 2^53",
        "quotient, rest = quotient + 1, rest - (from - part)",
        "quotient, rest = quotient + 1, rest + part - from",
    ),
    (
        "a denied take writes",
        "    if made and cost > 0 then\n      change = true\n",
        "    change = change or cost > 0\n    if made and cost > 0 then\n",
    ),
    ("a look writes", "    if made and cost > 0 then\n", "    if made then\n"),
    (
        "a key expires too early",
        "local expire_ms = now_ms + (full_after - rest) / 1000 + (rest > 0 and 1 or 0)",
        "local expire_ms = now_ms + (full_after - rest) / 1000 - 1",
    ),
    ("a key expires too late", "local expire_ms = now_ms +", "local expire_ms = now_ms + 3 +"),
    ("a bucket of the future stays there", "local change = at[key] > now", "local change = false"),
    ("time that goes back is taken off", "if earned > 0 then", "if true then"),
    ("a full bucket is kept", "elseif full_after then", "elseif false then"),
    (
        "a bucket's second change is lost",
        "    if change and lacks > 0 then\n",
        "    if change and lacks > 0 and not changed[key] then\n",
    ),
    (
        "what is out of range counts",
        "counts = c < EXACT and c > -EXACT and u > 0 and u < EXACT and a < EXACT",
        "counts = u > 0",
    ),
    ("a debt that is out of range counts", "and c > -EXACT ", ""),
    ("what is malformed counts", "'^(%-?%d+) (%d+) (%d+)$'", "'(%-?%d+) (%d+) (%d+)'"),
    ("anything may be below 0", "'^(%-?%d+) (%d+) (%d+)$'", "'^(%-?%d+) (%-?%d+) (%-?%d+)$'"),
    ("a debt is malformed", "'^(%-?%d+) (%d+) (%d+)$'", "'^(%d+) (%d+) (%d+)$'"),
    ("a refund and a charge are denied", "and not always then", "then"),
    ("a refund is a charge", "if refund then", "if false then"),
    ("a charge is a refund", "if refund then", "if always then"),
    ("a charge is denied", "not always then", "not refund then"),
    (
        "a charge leaves no debt",
        "lacks = lacks + cost * price\n",
        "lacks = math.min(lacks + cost * price, capacity[limit])\n",
    ),
    (
        "a charge goes below the floor",
        "        lacks = lacks + cost * price\n        if lacks >= EXACT then",
        "        lacks = lacks + cost * price\n        if false then",
    ),
    (
        "a charge's floor is the first number that is not exact",
        "lacks + cost * price\n        if lacks >= EXACT then\n          lacks = EXACT - 1",
        "lacks + cost * price\n        if lacks >= EXACT then\n          lacks = EXACT",
    ),
    (
        "a debt is below the floor of another limit",
        "      if lacks >= EXACT then\n        lacks = EXACT - 1\n      end\n",
        "",
    ),
    (
        "the floor is one higher",
        "      if lacks >= EXACT then\n        lacks = EXACT - 1\n",
        "      if lacks >= EXACT - 1 then\n        lacks = EXACT - 2\n",
    ),
    (
        "a debt is forgiven when it is counted",
        "lacks = full - before",
        "lacks = math.min(full - before, full)",
    ),
    ("a conversion forgives a fraction of a debt", "rest > 0 and -quotient - 1 or -quotient", "-quotient"),
    ("a whole debt grows when it is converted", "rest > 0 and -quotient - 1 or -quotient", "-quotient - 1"),
    ("a debt is converted into credit", "return rest > 0 and -quotient - 1 or -quotient", "return quotient"),
    ("a debt is divided", "local amount = credits < 0 and -credits or credits", "local amount = credits"),
    (
        "fewer than no tokens remain",
        "level > 0 and (level - level % price) / price or 0",
        "(level - level % price) / price",
    ),
    ("a look at a debt is denied", "short > 0 and cost > 0 and not always", "short > 0 and not always"),
    ("a take follows whatever the other was", "allowed and (led or not follows)", "allowed"),
    ("a take that follows is never made", "allowed and (led or not follows)", "allowed and not follows"),
    ("a take that follows nothing follows", "allowed and (led or not follows)", "allowed and led"),
    (
        "a take follows one that follows",
        "  if not follows then\n    led = allowed\n  end\n",
        "  led = allowed\n",
    ),
    ("a take follows a denied one for ever", "    led = allowed\n", "    led = led and allowed\n"),
    (
        "a take that follows a denied one answers as if it were made",
        "    if made and cost > 0 then\n      change = true\n",
        "    if allowed and cost > 0 then\n      change = change or made\n",
    ),
    (
        "a refund that follows is a take",
        "local refund = always and count < 256",
        "local refund = always and count < 256 and not follows",
    ),
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
