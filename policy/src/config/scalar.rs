//! Numbers, durations and rates as people write them.
//!
//! On the way through Envoy only small whole numbers stay numbers: `2.5`, `1e3` and `3000000000` arrive as
//! strings. So a number may be either, and durations are strings.

use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};

use crate::cost::Statuses;
use crate::share::{Share, WHOLE_PPM};

/// A whole number, written as a number or as a string of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole(pub u64);

/// A length of time, such as `50ms`, `12s` or `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A share of all, written in percent, such as `10` or `2.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub Share);

/// A number of tokens and the time in which they are refilled, such as `60 per minute` or `5 per 12s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub tokens: u64,
    /// In how many microseconds.
    pub period_us: u64,
}

const RATE: &str =
    "a limit such as \"60 per minute\", \"5 per 12s\", \"1000/day\" or { tokens: 60, per: minute }";
const PERIOD: &str = "a time such as \"minute\", \"12s\" or \"1h 30m\"";
const SPAN: &str = "a duration such as \"50ms\", \"2s\" or \"1m\"";
const WHOLE: &str = "a whole number such as 60";
const STATUSES: &str = "a status such as 404, or a class such as 5xx";
const PERCENT: &str = "a percentage from 0 to 100, with at most 4 decimals, such as 10 or 2.5";

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Whole;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(WHOLE)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Whole, E> {
                Ok(Whole(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Whole, E> {
                whole(text).map(Whole).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Percent;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(PERCENT)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Percent, E> {
                percent(&value.to_string())
                    .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Percent, E> {
                percent(&value.to_string()).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Percent, E> {
                percent(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Statuses;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(STATUSES)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Statuses, E> {
                let found = statuses(&value.to_string());
                found.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
                statuses(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl Whole {
    /// Digits only, as in a string that was a number once.
    pub fn parse(text: &str) -> Option<Self> {
        whole(text).map(Self)
    }
}

/// Reads a string by `parse`; anything else, and what `parse` refuses, is answered with `expected`.
fn from_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    struct Text<T>(&'static str, fn(&str) -> Option<T>);
    impl<T> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_any(Text(expected, parse))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, SPAN, |text| span(text).map(Span))
    }
}

/// A rate in its long form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LongRate {
    tokens: Whole,
    per: Period,
}

/// The time in a rate, in microseconds: a unit by its name, or a duration.
#[derive(Debug)]
struct Period(u64);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, PERIOD, |text| period_us(text).map(Period))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Rate;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(RATE)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Rate, E> {
                rate(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rate, A::Error> {
                let LongRate { tokens, per } = LongRate::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Rate { tokens: tokens.0, period_us: per.0 })
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

/// Digits only: no sign, no separators, nothing that rounds.
fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Hundredths with up to four decimals: parts of a million.
fn percent(text: &str) -> Option<Percent> {
    let (ones, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    if decimals.is_empty() || decimals.len() > 4 {
        return None;
    }
    let parts = whole(ones)?.checked_mul(10_000)?.checked_add(whole(&format!("{decimals:0<4}"))?)?;
    u32::try_from(parts).ok().filter(|&parts| parts <= WHOLE_PPM).map(|parts| Percent(Share::new(parts)))
}

/// Three digits, or one and `xx`.
fn statuses(text: &str) -> Option<Statuses> {
    let text = text.trim();
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return Some(Statuses { first: class * 100, last: class * 100 + 99 });
    }
    let status = whole(text).and_then(|status| u16::try_from(status).ok())?;
    (100..=599).contains(&status).then_some(Statuses { first: status, last: status })
}

/// A duration without the units whose length nobody agrees on.
fn span(text: &str) -> Option<Duration> {
    let mut units = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|unit| !unit.is_empty());
    let vague = |unit: &str| unit == "M" || unit.starts_with("month") || unit.starts_with('y');
    if units.any(vague) {
        return None;
    }
    humantime::parse_duration(text.trim()).ok()
}

/// A unit such as `minute`, or a duration such as `12s`.
fn period_us(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_unit = text.bytes().all(|byte| byte.is_ascii_alphabetic());
    let period = if is_unit { span(&format!("1{text}"))? } else { span(text)? };
    // Nothing is counted in less than microseconds: a fraction of one would be cut off unseen.
    if period.subsec_nanos() % 1_000 != 0 {
        return None;
    }
    u64::try_from(period.as_micros()).ok()
}

/// `N per UNIT`, `N per DURATION`, `N/UNIT` or `N/DURATION`.
fn rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once(" per ").or_else(|| text.split_once('/'))?;
    Some(Rate { tokens: whole(count)?, period_us: period_us(per)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_people_write_them() {
        let minute_us = 60_000_000;
        for text in ["60 per minute", "60/minute", "60 per 1m", "60/min", " 60  per 60s ", "60 per 60000ms"] {
            assert_eq!(rate(text), Some(Rate { tokens: 60, period_us: minute_us }), "{text}");
        }
        assert_eq!(rate("5 per 12s"), Some(Rate { tokens: 5, period_us: 12_000_000 }));
        assert_eq!(rate("1000/day"), Some(Rate { tokens: 1000, period_us: 86_400_000_000 }));
        assert_eq!(rate("7 per 1h 30m"), Some(Rate { tokens: 7, period_us: 5_400_000_000 }));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "60",
            "per minute",
            "60 per",
            "-1 per minute",
            "1.5 per minute",
            "60 per month",
            "60 per fortnight",
            "60 per 1ns",
            "60 minute",
            "1_000 per day",
            "60 per 2y",
            "60 per yr",
            "60 per 2yrs",
            "60 per minute 30s",
            "60 per /",
            "60 per 1",
            "99999999999999999999 per day",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn percentages_are_exact() {
        let parts = |text| percent(text).map(|Percent(share)| share.ppm());
        assert_eq!([parts("0"), parts("10"), parts("100")], [Some(0), Some(100_000), Some(1_000_000)]);
        assert_eq!(
            [parts("2.5"), parts("0.0001"), parts(" 99.9999 ")],
            [Some(25_000), Some(1), Some(999_999)]
        );
        for text in ["", "-1", "101", "100.0001", "1.23456", "1.", ".5", "10%", "NaN", "1e1"] {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
