//! Limits and costs, from written to valid.

use bucket::{EXACT, InvalidLimit, Limit};

use super::name;
use crate::answer::policy_item;
use crate::config::scalar::{Rate, Whole};
use crate::config::spot::Spot;
use crate::config::written::{Later, WrittenCost, WrittenHeaderCost, WrittenLimit, WrittenSettle};
use crate::cost::{Cost, Settle, SettleSource};
use crate::policies::NamedLimit;
use crate::share::Share;

/// The most limits of one policy.
const MAX_LIMITS: usize = 8;

/// How the limits of a policy are written.
pub struct WrittenLimits {
    pub limit: Later<Rate>,
    pub burst: Later<Whole>,
    pub limits: Later<Vec<Later<WrittenLimit>>>,
}

/// The limits of the policy `name` at `spot`; `None` where they are wrong.
pub fn limits(name: &str, written: WrittenLimits, spot: &Spot<'_>) -> Option<Vec<NamedLimit>> {
    let WrittenLimits { limit, burst, limits } = written;
    match (limit.is_absent(), limits.is_absent()) {
        (false, true) => {
            let rate = limit.read(&spot.field("limit"));
            let burst = burst.read(&spot.field("burst"));
            Some(vec![named(name.to_owned(), rate?, burst, spot)?])
        }
        (true, false) => {
            if !burst.is_absent() {
                spot.field("burst")
                    .problem("found a burst beside `limits`; write it beside the limit that it is for");
            }
            several(name, limits.read(&spot.field("limits"))?, &spot.field("limits"))
        }
        (false, false) => {
            spot.field("limits")
                .problem("found `limit` and `limits`; write `limit` for one, or `limits` for several");
            None
        }
        (true, true) => {
            spot.problem("the field `limit` is missing; write one, such as `limit: 60 per minute`");
            None
        }
    }
}

fn several(policy: &str, written: Vec<Later<WrittenLimit>>, spot: &Spot<'_>) -> Option<Vec<NamedLimit>> {
    if written.is_empty() || written.len() > MAX_LIMITS {
        spot.problem(format!("found {} limits; write 1 to {MAX_LIMITS}", written.len()));
        return None;
    }
    let limits = written.into_iter().enumerate().map(|(index, written)| {
        let spot = spot.item(index);
        let WrittenLimit { limit, burst, name } = written.read(&spot)?;
        let named_here = if name.is_absent() { spot.clone() } else { spot.field("name") };
        let own = name.read(&spot.field("name")).unwrap_or_else(|| short(limit.period_us));
        let full = format!("{policy}.{own}");
        if contract::is_name(policy) {
            name::of_limit(&full, &named_here);
        }
        named(full, limit, burst.read(&spot.field("burst")), &spot)
    });
    limits.collect()
}

fn named(name: String, rate: Rate, burst: Option<Whole>, spot: &Spot<'_>) -> Option<NamedLimit> {
    let burst_tokens = burst.map_or(rate.tokens, |Whole(burst)| burst);
    let limit = Limit::new(rate.tokens, rate.period_us, burst_tokens).map_err(|invalid| {
        let of_burst = matches!(invalid, InvalidLimit::ZeroBurst | InvalidLimit::TooLarge { .. });
        let field = if of_burst && burst.is_some() { "burst" } else { "limit" };
        spot.field(field).problem(invalid.to_string());
    });
    let limit = limit.ok()?;
    // What is shown is what was written, not its lowest terms.
    let text = text(rate.tokens, rate.period_us);
    Some(NamedLimit {
        item: policy_item(&name, rate.tokens, rate.period_us, Share::WHOLE),
        name,
        limit,
        text,
        rate,
    })
}

/// A limit as people write it, such as `60 per minute`.
pub fn text(tokens: u64, period_us: u64) -> String {
    format!("{tokens} per {}", long(period_us))
}

/// Units of time and their names, longest first.
const UNITS: [(u64, &str, &str); 7] = [
    (7 * 86_400_000_000, "week", "w"),
    (86_400_000_000, "day", "d"),
    (3_600_000_000, "hour", "h"),
    (60_000_000, "minute", "m"),
    (1_000_000, "second", "s"),
    (1_000, "millisecond", "ms"),
    (1, "microsecond", "us"),
];

/// The largest unit that measures a time exactly, and how many of it.
fn measure(period_us: u64) -> (u64, &'static str, &'static str) {
    let exact = UNITS.iter().find(|(unit_us, ..)| period_us.is_multiple_of(*unit_us));
    exact
        .map_or((period_us, "microsecond", "us"), |(unit_us, long, short)| (period_us / unit_us, long, short))
}

/// `minute`, `12 seconds`.
fn long(period_us: u64) -> String {
    match measure(period_us) {
        (1, unit, _) => unit.to_owned(),
        (count, unit, _) => format!("{count} {unit}s"),
    }
}

/// `1m`, `12s`.
fn short(period_us: u64) -> String {
    let (count, _, unit) = measure(period_us);
    format!("{count}{unit}")
}

/// A number of tokens that can be counted exactly.
pub fn tokens(Whole(tokens): Whole, spot: &Spot<'_>) -> u64 {
    if tokens >= EXACT {
        spot.problem(format!("found {tokens}; it must be below 2^53 to be counted exactly"));
    }
    tokens
}

pub fn cost(written: WrittenCost, spot: &Spot<'_>) -> Cost {
    match written {
        WrittenCost::Fixed(found) => Cost::Fixed(tokens(found, spot)),
        WrittenCost::Header(WrittenHeaderCost { header, default, min, max }) => {
            let name = name::any_header(&header, &spot.field("header"));
            let max = tokens(max, &spot.field("max"));
            let min = min.map_or(0, |found| tokens(found, &spot.field("min")));
            if min > max {
                spot.field("min").problem(format!("found {min}, which is more than `max`: {max}"));
            }
            let default_tokens =
                default.map_or(1.clamp(min.min(max), max), |found| tokens(found, &spot.field("default")));
            if !(min.min(max)..=max).contains(&default_tokens) {
                let message =
                    format!("found {default_tokens}, which is not between `min`: {min} and `max`: {max}");
                spot.field("default").problem(message);
            }
            // What follows may rely on it.
            Cost::Header { name, default: default_tokens, min: min.min(max), max }
        }
    }
}

pub fn settle(written: WrittenSettle, spot: &Spot<'_>) -> Option<Settle> {
    let max = tokens(written.max, &spot.field("max"));
    let source = match (written.header, written.bytes_per_token) {
        (Some(header), None) => SettleSource::Header(name::any_header(&header, &spot.field("header"))),
        (None, Some(Whole(bytes))) => {
            if bytes == 0 {
                spot.field("bytes_per_token")
                    .problem("found 0; write how many bytes of the body cost a token");
            }
            SettleSource::BytesPerToken(bytes)
        }
        (Some(_), Some(_)) => {
            spot.problem("found `header` and `bytes_per_token`; write the one that tells the cost");
            return None;
        }
        (None, None) => {
            spot.problem("found neither `header` nor `bytes_per_token`; write the one that tells the cost");
            return None;
        }
    };
    Some(Settle { source, max })
}
