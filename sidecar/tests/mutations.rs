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
        "wait = (short - rest) / rate + (rest > 0 and 1 or 0)",
        "wait = (short - rest) / rate",
    ),
    (
        "the time to full is rounded down",
        "(lacks - rest) / rate + (rest > 0 and 1 or 0)",
        "(lacks - rest) / rate",
    ),
    (
        "a whole quotient is rounded up",
        "(short - rest) / rate + (rest > 0 and 1 or 0)",
        "(short - rest) / rate + 1",
    ),
    (
        "a quotient is left to rounding",
        "wait = (short - rest) / rate + (rest > 0 and 1 or 0)",
        "wait = math.ceil(short / rate + 1e-9)",
    ),
    ("what is short is summed beyond 2^53", "cost * price - full + lacks", "cost * price + lacks - full"),
    ("the burst does not cap", "if lacks < 0 then", "if false then"),
    ("elapsed time is ignored", "        if earned > 0 then", "        if false then"),
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
        "    if made and kind <= CHARGE and cost > 0 then\n      change = true\n",
        "    change = change or cost > 0\n    if made and kind <= CHARGE and cost > 0 then\n",
    ),
    ("a look writes", "made and kind <= CHARGE and cost > 0", "made and kind <= CHARGE"),
    (
        "a key expires too early",
        "local expire_ms = now_ms + (full_after - rest) / 1000 + (rest > 0 and 1 or 0)",
        "local expire_ms = now_ms + (full_after - rest) / 1000 - 1",
    ),
    ("a key expires too late", "local expire_ms = now_ms +", "local expire_ms = now_ms + 3 +"),
    ("a bucket of the future stays there", "local change = counted > now", "local change = false"),
    ("time that goes back is taken off", "        if earned > 0 then", "        if true then"),
    ("a full bucket is kept", "elseif full_after then", "elseif false then"),
    (
        "a bucket's second change is lost",
        "    if change and lacks > 0 then\n",
        "    if change and lacks > 0 and not changed[key] then\n",
    ),
    (
        "what is out of range in another unit counts",
        "counts = c < EXACT and c > -EXACT and u > 0 and u < EXACT and a < EXACT",
        "counts = u > 0",
    ),
    (
        "a debt in another unit that is out of range counts",
        "counts = c < EXACT and c > -EXACT and",
        "counts = c < EXACT and",
    ),
    ("what is out of range counts", "if c < EXACT and c > -EXACT and a < EXACT then", "if true then"),
    (
        "a debt that is out of range counts",
        "if c < EXACT and c > -EXACT and a < EXACT then",
        "if c < EXACT and a < EXACT then",
    ),
    ("what is malformed counts", "'^(%-?%d+) (%d+) (%d+)$'", "'(%-?%d+) (%d+) (%d+)'"),
    ("what is malformed in the usual unit counts", "'^(%%-?%%d+) %d (%%d+)$'", "'(%%-?%%d+) %d (%%d+)'"),
    ("anything may be below 0", "'^(%-?%d+) (%d+) (%d+)$'", "'^(%-?%d+) (%-?%d+) (%-?%d+)$'"),
    ("an instant may be below 0", "'^(%%-?%%d+) %d (%%d+)$'", "'^(%%-?%%d+) %d (%%-?%%d+)$'"),
    ("a debt in another unit is malformed", "'^(%-?%d+) (%d+) (%d+)$'", "'^(%d+) (%d+) (%d+)$'"),
    // A debt in the usual unit is then read as one in any unit, which is slower and right.
    ("a bucket in the usual unit is full", "            unit[key] = price\n", "            c = false\n"),
    ("any kind may be denied", "    if kind == TAKE then", "    if kind ~= LEASE then"),
    ("a refund is a charge", "if kind == REFUND then", "if false then"),
    ("a charge is a refund", "if kind == REFUND then", "if kind == REFUND or kind == CHARGE then"),
    ("a charge is denied", "    if kind == TAKE then", "    if kind == TAKE or kind == CHARGE then"),
    (
        "a charge leaves no debt",
        "lacks = lacks + cost * price\n",
        "lacks = math.min(lacks + cost * price, full)\n",
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
    ("a look at a debt is denied", "if short > 0 and cost > 0 then", "if short > 0 then"),
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
        "    if made and kind <= CHARGE and cost > 0 then\n      change = true\n",
        "    if allowed and kind <= CHARGE and cost > 0 then\n      change = change or made\n",
    ),
    (
        "a refund that follows is a take",
        "kind = (count - count % 128) / 128",
        "kind = follows and TAKE or (count - count % 128) / 128",
    ),
    (
        "a take from two buckets is made from the last one alone",
        "    if count > 1 then\n      local place",
        "    if count > 2 then\n      local place",
    ),
    ("leased tokens are earned while they are out", "still(all, first, rate), still(rest, last, rate)", "0"),
    (
        "the last lease ends with the first",
        "still(all, first, rate), still(rest, last, rate)",
        "still(all, first, rate)",
    ),
    (
        "a lease is earned at once when it lapses",
        "still(all, first, rate), still(rest, last, rate)",
        "first > now and all or 0, last > now and rest or 0",
    ),
    (
        "the leases lapse in the other order",
        "if leases[2] <= leases[4] then",
        "if leases[2] > leases[4] then",
    ),
    (
        "leases that lapse apart lapse together",
        "return leases[2], held(leases), leases[4], leases[3]",
        "return leases[4], held(leases), leases[4], leases[3]",
    ),
    ("a lease lapses too late", "if live[slot + 1] <= now then", "if live[slot + 1] <= now - 1000000 then"),
    ("a lease never lapses", "if live[slot + 1] <= now then", "if false then"),
    (
        "what had lapsed before it was counted holds",
        "if amount > 0 and lapse > counted then",
        "if amount > 0 then",
    ),
    ("leases are not converted", "if from ~= to then", "if false then"),
    (
        "leases are converted rounded down",
        "amount = -convert(-amount, from, to)",
        "amount = convert(amount, from, to)",
    ),
    (
        "leases are converted beyond what is exact",
        "          if amount >= EXACT then",
        "          if false then",
    ),
    ("leases hold more than is exact", "return sum < EXACT and sum or EXACT - 1", "return sum"),
    ("leases stay where the clock was", "(counted > now and counted - now or 0)", "0"),
    (
        "what is out of range is leased",
        "or l1 >= EXACT or t1 >= EXACT or l2 >= EXACT or t2 >= EXACT then",
        "then",
    ),
    (
        "what is malformed is leased",
        "(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$'",
        "(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)'",
    ),
    ("a denial forgets the leases", "        elseif live then\n", "        elseif false then\n"),
    ("a denial waits for the bucket to be full", "live, rate, full - cost * price)", "live, rate, 0)"),
    ("a wait ends with the first lapse", "    if rest > spare then", "    if false then"),
    ("a wait forgets the first lapse", "    if all > spare then", "    if false then"),
    (
        "nothing is earned after a lapse",
        "first - now or 0) + quotient_up(all - spare, rate)",
        "first - now or 0)",
    ),
    (
        "a wait forgets that the bucket earns",
        "local wait = lacks > spare and quotient_up(lacks - spare, rate) or 0",
        "local wait = 0",
    ),
    ("a wait is longer than is exact", "return wait < EXACT and wait or EXACT - 1", "return wait"),
    (
        "a bucket is full though tokens are out",
        "    if live then\n      full_after",
        "    if false then\n      full_after",
    ),
    ("more is leased than the bucket holds", "left = left < level and left or level", "left = left"),
    ("more is leased than the share", "left = left < level and left or level", "left = level"),
    ("each lease has the share to itself", "share * price - (leases and held(leases) or 0)", "share * price"),
    (
        "a share is rounded up",
        "(over * percent - over * percent % 100) / 100",
        "math.ceil(over * percent / 100)",
    ),
    ("a share forgets what is over a hundred", " + (over * percent - over * percent % 100) / 100", ""),
    (
        "a part of a token is leased",
        "return left > 0 and (left - left % price) / price or 0",
        "return left > 0 and left / price or 0",
    ),
    ("a debt is leased", "return left > 0 and", "return left ~= 0 and"),
    (
        "a third lapse takes a place that is taken",
        "leases[1] > 0 and leases[3] > 0 and leases[2] ~= lapse and leases[4] ~= lapse",
        "false",
    ),
    (
        "leases that lapse together have two places",
        "(leases[2] == lapse or leases[1] == 0 and leases[4] ~= lapse)",
        "leases[1] == 0",
    ),
    (
        "the second place is never used",
        "and 1 or 3\n    leases[slot], leases",
        "and 1 or 1\n    leases[slot], leases",
    ),
    ("a lease replaces another", "leases[slot] + amount, lapse", "amount, lapse"),
    ("a lease lapses too early", "now - now % ttl + 2 * ttl", "now - now % ttl + ttl"),
    ("a lease lapses at its own time", "now - now % ttl + 2 * ttl", "now + 2 * ttl"),
    (
        "a lease is as large as the first bucket lets it be",
        "math.min(granted, cost, most)",
        "b == 1 and math.min(cost, most) or granted",
    ),
    ("a lease is larger than was asked for", "math.min(granted, cost, most)", "math.min(granted, most)"),
    (
        "a lease that follows a denied take is granted",
        "  if not made then\n    granted = 0\n  end\n",
        "  if not made and kind ~= LEASE then\n    granted = 0\n  end\n",
    ),
    ("leased tokens stay in the bucket", "      lacks = lacks + granted * price\n", ""),
    ("leased tokens are not held", "      live = rare.add(live, granted * price, lapse)\n", ""),
    ("a refund takes the room of a lease", "if live and lacks < rare.held(live) then", "if false then"),
    (
        "what has lapsed is returned",
        "if leases[slot] == 0 or leases[slot + 1] ~= lapse then",
        "if leases[slot] == 0 then",
    ),
    ("only the first place is returned", "local slot = leases[2] == lapse and 1 or 3", "local slot = 1"),
    (
        "more is returned than was leased",
        "amount = amount < leases[slot] and amount or leases[slot]",
        "amount = amount",
    ),
    ("more is unspent than ended", "cost * price < ended and cost * price or ended", "cost * price"),
    ("what was spent comes back", "cost * price < ended and cost * price or ended", "ended"),
    (
        "what was not spent is lost",
        "lacks = lacks - (cost * price < ended and cost * price or ended)",
        "lacks = lacks",
    ),
    ("a lease that ended still holds", "    leases[slot] = leases[slot] - amount\n", ""),
    (
        "a place that is empty keeps its time",
        "    if leases[slot] == 0 then\n      leases[slot + 1] = 0\n",
        "    if false then\n",
    ),
    (
        "a return that follows a denied take is made",
        "elseif made and kind == RETURN and live then",
        "elseif kind == RETURN and live then",
    ),
    (
        "a return that changes nothing writes",
        "      if ended > 0 then\n        change = true\n",
        "      change = true\n      if ended > 0 then\n",
    ),
    (
        "a bucket's second lease in a run is lost",
        "leases[key] = live or nil",
        "leases[key] = leases[key] or live or nil",
    ),
    ("leases are not written", "    if live then\n      value", "    if false then\n      value"),
];

/// Most are found within a hundred, the rarest within a few thousand.
const STEPS: usize = 60_000;

/// So many that a mistake which breaks at most starts before it is found, as some do, is found for certain.
const TRIALS: usize = 200;

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
