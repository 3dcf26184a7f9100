//! What a trial asks and finds, at random: takes, costs, limits and buckets, the usual as well as the very edges.

use bucket::{Bucket, EXACT, Kind, Lease, Limit, Slot, Terms};
use sluice::batch::{Ask, Take};

use super::{Random, model::Model};

/// A few takes, of which the first follows none, from some of `keys`; `limits` are what these are held to most of the
/// time, and change now and then. What is leased by now, `model` knows.
pub fn any_takes(random: &mut Random, keys: &[String], limits: &mut [Limit], model: &Model) -> Vec<Take> {
    let count = if random.percent(2) { 64 } else { 1 + random.below(4) };
    let take = |nth| Take { follows: nth > 0 && random.percent(35), ..any_take(random, keys, limits, model) };
    (0..count).map(take).collect()
}

fn any_take(random: &mut Random, keys: &[String], limits: &mut [Limit], model: &Model) -> Take {
    let count = if random.percent(50) { 1 } else { 1 + random.below(4) };
    let first = random.below(keys.len() as u64);
    let leased = model.0.get(&keys[first as usize]).map(|kept| kept.bucket);
    let kind = match random.below(20) {
        0..3 => Kind::Refund,
        3..5 => Kind::Charge,
        5..9 => Kind::Lease(any_terms(random, first)),
        9..12 => Kind::Return(any_lease(random, leased)),
        _ => Kind::Take,
    };
    let buckets = (0..count).map(|nth| {
        let place = ((first + nth) % keys.len() as u64) as usize;
        if random.percent(4) {
            limits[place] = any_limit(random);
        }
        let other = random.percent(5);
        let limit = if other { any_limit(random) } else { limits[place] };
        let cost_tokens = any_cost(random, kind, limit);
        Ask { bucket_key: keys[place].clone(), limit, cost_tokens }
    });
    Take { buckets: buckets.collect(), kind, follows: false }
}

/// The same for a key most of the time, as one policy has one.
fn any_terms(random: &mut Random, first: u64) -> Terms {
    let ttl_us = match random.below(10) {
        0..6 => [1_000_000, 60_000_000, 10_000_000][first as usize % 3],
        6 => 1_000,
        7 => 50_000_000,
        _ => 1_000 + random.below(60_000_000 - 1_000 + 1),
    };
    let share_percent = if random.percent(40) { 100 } else { 1 + random.below(100) };
    Terms { ttl_us, share_percent }
}

/// One that `bucket` has, or has no more, as it was granted or not quite.
fn any_lease(random: &mut Random, bucket: Option<Bucket>) -> Lease {
    let slots = bucket.and_then(|bucket| bucket.leases()).unwrap_or_default();
    let Slot { credits, lapses_at_us } = *random.choose(&slots);
    let tokens = credits / bucket.map_or(1, |bucket| bucket.unit());
    let tokens = match random.below(4) {
        0 => tokens,
        1 => 1 + random.below(tokens.max(1)),
        2 => tokens + random.below(3),
        _ => random.magnitude(53),
    };
    let lapses_at_us = if random.percent(5) { lapses_at_us + 1 } else { lapses_at_us };
    Lease { tokens: tokens.clamp(1, EXACT - 1), lapses_at_us: lapses_at_us.clamp(1, EXACT - 1) }
}

fn any_cost(random: &mut Random, kind: Kind, limit: Limit) -> u64 {
    let burst = limit.burst_tokens();
    if let Kind::Return(Lease { tokens, .. }) = kind {
        return match random.below(4) {
            0 => 0,
            1 => tokens,
            _ => random.below(tokens + 1),
        };
    }
    let cost = match random.below(20) {
        0 | 1 => 0,
        2..=6 => 1,
        7 | 8 => burst - random.below(burst.min(3)),
        9 => burst + 1 + random.below(3),
        // A charge of that size leaves debts that nobody sees the end of: one is enough.
        10 if kind != Kind::Charge || random.percent(20) => random.magnitude(53),
        11 if kind == Kind::Charge => burst.saturating_mul(2 + random.below(4)),
        _ => 1 + random.below(burst / 3 + 1),
    };
    cost.clamp(u64::from(matches!(kind, Kind::Lease(_))), EXACT - 1)
}

/// A bucket of any credits, unit and age before `now_us`, as if under any limit before, where `limit` rules now.
pub fn any_bucket(random: &mut Random, limit: Limit, now_us: u64) -> Bucket {
    let unit = match random.below(4) {
        0 => EXACT - 1 - random.below(3),
        1 => limit.period_us(),
        _ => random.magnitude(53),
    };
    let amount = match random.below(4) {
        // Just short of a token: the sums of a conversion are then at their largest.
        2 => unit - random.magnitude(53).min(unit),
        0 => EXACT - 1 - random.below(3),
        1 => random.below(unit.saturating_mul(limit.burst_tokens()).clamp(1, EXACT)),
        _ => random.magnitude(53),
    };
    let credits = match random.below(6) {
        0 | 1 => -amount.cast_signed(),
        // Around the deepest debt that can be counted.
        2 => limit.capacity_credits().cast_signed() - EXACT.cast_signed() + random.below(4).cast_signed(),
        _ => amount.cast_signed(),
    };
    let at_us = now_us - random.magnitude(40).min(now_us);
    let bucket = Bucket::restore(credits, unit, at_us).expect("in range");
    if random.percent(60) {
        return bucket;
    }
    let mut slot = || Slot {
        credits: match random.below(4) {
            0 => 0,
            1 => random.below(unit.saturating_mul(limit.burst_tokens()).clamp(1, EXACT)),
            2 => EXACT - 1 - random.below(3),
            _ => random.magnitude(53),
        },
        lapses_at_us: match random.below(4) {
            0 => at_us + random.magnitude(36),
            1 => at_us.saturating_sub(random.below(3)),
            2 => EXACT - 1 - random.below(3),
            _ => now_us + random.magnitude(36),
        },
    };
    bucket.with_leases([slot(), slot()]).expect("in range")
}

/// A limit, and a bucket whose conversion to its unit needs all of 53 bits. It was counted in the future, so that no
/// time is credited and what was converted shows.
pub fn any_conversion(random: &mut Random, now_us: u64) -> (Limit, Bucket) {
    let period_us = EXACT / 2 - 1 - random.below(1 << 40);
    let unit = EXACT - 1 - random.below(1 << 40);
    let amount = random.below(unit).cast_signed();
    let credits = if random.percent(50) { amount } else { -amount };
    let mut bucket = Bucket::restore(credits, unit, now_us + 1_000_000_000).expect("in range");
    if random.percent(40) {
        let slot = |credits| Slot { credits, lapses_at_us: now_us + 2_000_000_000 };
        bucket = bucket.with_leases([slot(random.below(unit)), slot(0)]).expect("in range");
    }
    (Limit::new(1, period_us, 1).expect("valid"), bucket)
}

/// Usual limits, primes that share no factor, and the very edges of what is valid.
pub fn any_limit(random: &mut Random) -> Limit {
    const USUAL: [(u64, u64, u64); 8] = [
        (60, 60_000_000, 60),
        (5, 60_000_000, 5),
        (90, 60_000_000, 90),
        (1000, 1_000_000, 2000),
        (1, 86_400_000_000, 3),
        (7_919, 60_000_000, 7_919),
        (1_000_003, 60_000_000, 1_000),
        (3, 1_000, 10),
    ];
    loop {
        let (tokens, period_us, burst) = match random.below(10) {
            0..=3 => *random.choose(&USUAL),
            // The same unit with other tokens, where the elapsed time counts differently and nothing is converted.
            4 | 5 => (1 + random.below(50), 1_000_003, 1 + random.below(100)),
            // The longest periods that are valid.
            6 => (random.magnitude(53), EXACT / 2 - 1 - random.below(3), 1),
            _ => (random.magnitude(53), random.magnitude(52), random.magnitude(53)),
        };
        let Ok(least) = Limit::new(tokens, period_us, 1) else { continue };
        let most = (EXACT - 1) / least.period_us() - 1;
        let burst = if random.percent(10) { most } else { burst.min(most) };
        if let Ok(limit) = Limit::new(tokens, period_us, burst) {
            return limit;
        }
    }
}
