//! Limits, times and numbers as people read them.

use std::time::Duration;

use crate::admin_client::answers::{Limit, Override};

/// Such as `60 per minute, burst 60`.
pub fn limit(limit: &Limit) -> String {
    let Limit { tokens, period_us, burst } = limit;
    let per = match period_us {
        1_000_000 => "second".to_owned(),
        60_000_000 => "minute".to_owned(),
        3_600_000_000 => "hour".to_owned(),
        86_400_000_000 => "day".to_owned(),
        other => exact(*other),
    };
    format!("{tokens} per {per}, burst {burst}")
}

/// What is in a limit's place, without why and until when.
pub fn instead(of: &Override) -> String {
    match &of.limit {
        Some(other) => limit(other),
        None if of.unlimited => "unlimited".to_owned(),
        None if of.blocked => "blocked".to_owned(),
        None => "something that this program does not know".to_owned(),
    }
}

/// When it ends, from `now_us` on.
pub fn ends(of: &Override, now_us: u64) -> String {
    match of.expires_at_us {
        None => "until it is removed".to_owned(),
        Some(at_us) => format!("for {} more", about(at_us.saturating_sub(now_us))),
    }
}

/// A time to the microsecond, such as `12s` or `1m 30s`.
pub fn exact(us: u64) -> String {
    humantime::format_duration(Duration::from_micros(us)).to_string()
}

/// A time as exactly as somebody wants to know it: the two largest units of it, rounded up.
pub fn about(us: u64) -> String {
    let step_us = match us {
        0..1_000 => 1,
        1_000..1_000_000 => 1_000,
        1_000_000..3_600_000_000 => 1_000_000,
        3_600_000_000..86_400_000_000 => 60_000_000,
        _ => 3_600_000_000,
    };
    exact(us.div_ceil(step_us).saturating_mul(step_us))
}

/// How many a second, of so many over a time: with one decimal below ten, and more than nothing where there is one.
pub fn per_second(count: u64, over_us: u64) -> String {
    let tenths = (u128::from(count) * 10_000_000).div_ceil(u128::from(over_us.max(1)));
    match u64::try_from(tenths).unwrap_or(u64::MAX) {
        tenths @ 0..100 => format!("{}.{}", tenths / 10, tenths % 10),
        tenths => grouped(tenths / 10),
    }
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, rest) = digits.split_at(first);
    let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let groups: Vec<String> = (!head.is_empty()).then(|| head.to_owned()).into_iter().chain(groups).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_as_they_are_written() {
        let told = |tokens, period_us, burst| limit(&Limit { tokens, period_us, burst });
        assert_eq!(told(60, 60_000_000, 90), "60 per minute, burst 90");
        assert_eq!(told(1, 3_600_000_000, 1), "1 per hour, burst 1");
        assert_eq!(told(5, 12_000_000, 5), "5 per 12s, burst 5");
        assert_eq!(told(1, 90_000_000, 1), "1 per 1m 30s, burst 1");
    }

    #[test]
    fn times_are_told_as_exactly_as_somebody_wants_to_know() {
        for (us, told) in [
            (0, "0s"),
            (999, "999us"),
            (1_001, "2ms"),
            (999_001, "1s"),
            (59_000_001, "1m"),
            (3_599_000_000, "59m 59s"),
            (3_601_000_000, "1h 1m"),
            (90_000_000_000, "1day 1h"),
        ] {
            assert_eq!(about(us), told, "{us}");
        }
        assert!(about(u64::MAX).contains("years"), "as a foreign server may send it");
    }

    #[test]
    fn rates_and_numbers_are_easy_to_read() {
        for (count, told) in
            [(0, "0.0"), (1, "0.1"), (25, "2.5"), (99, "9.9"), (100, "10"), (12_345_670, "1,234,567")]
        {
            assert_eq!(per_second(count, 10_000_000), told, "{count}");
        }
        for (number, told) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), told);
        }
    }
}
