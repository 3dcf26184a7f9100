//! Numbers, durations and rates as people write them.
//!
//! On the way through Envoy only small whole numbers stay numbers: `2.5`, `1e3` and `3000000000` arrive as
//! strings. So a number may be either, and durations are strings.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// A whole number, written as a number or as a string of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole(pub u64);

/// A length of time, such as `50ms`, `12s` or `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of tokens and the time in which they are refilled, such as `60 per minute` or `5 per 12s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub tokens: u64,
    pub period_us: u64,
}

const RATE: &str = "a limit such as \"60 per minute\", \"5 per 12s\" or \"1000/day\"";
const SPAN: &str = "a duration such as \"50ms\", \"2s\" or \"1m\"";
const WHOLE: &str = "a whole number such as 60";

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

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, RATE, rate)
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

/// A duration without the units whose length nobody agrees on.
fn span(text: &str) -> Option<Duration> {
    let mut units = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|unit| !unit.is_empty());
    let vague = |unit: &str| unit == "M" || unit.starts_with("month") || unit.starts_with('y');
    if units.any(vague) {
        return None;
    }
    humantime::parse_duration(text.trim()).ok()
}

/// `N per UNIT`, `N per DURATION`, `N/UNIT` or `N/DURATION`.
fn rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once(" per ").or_else(|| text.split_once('/'))?;
    let per = per.trim();
    let is_unit = per.bytes().all(|byte| byte.is_ascii_alphabetic());
    let period = if is_unit { span(&format!("1{per}"))? } else { span(per)? };
    let period_us = u64::try_from(period.as_micros()).ok()?;
    // Nothing is counted in less than microseconds: a fraction of one would be cut off unseen.
    if period.subsec_nanos() % 1_000 != 0 {
        return None;
    }
    Some(Rate { tokens: whole(count)?, period_us })
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
}
