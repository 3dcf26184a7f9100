//! When a request began, as access logs write it.

use std::time::{Duration, UNIX_EPOCH};

/// Microseconds since 1970: of RFC 3339, or of a number of seconds, milliseconds, microseconds or nanoseconds, which are
/// told apart by their size. `None` for anything else.
pub fn parse(written: &str) -> Option<u64> {
    let written = written.trim();
    if written.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return number(written);
    }
    let (utc, ahead_us) = match written.strip_suffix(['Z', 'z']) {
        Some(utc) => (utc, 0),
        None => {
            let at = written.len().checked_sub(6)?;
            let (local, offset) = written.split_at_checked(at)?;
            (local, offset_us(offset)?)
        }
    };
    let since = humantime::parse_rfc3339_weak(utc).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(us(since)?.checked_sub(ahead_us)?).ok()
}

fn us(time: Duration) -> Option<i64> {
    i64::try_from(time.as_micros()).ok()
}

/// `+01:30`.
fn offset_us(written: &str) -> Option<i64> {
    let (hours, minutes) = written.get(1..)?.split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let offset_us = (hours * 60 + minutes) * 60_000_000;
    match written.as_bytes().first()? {
        b'+' => Some(offset_us),
        b'-' => Some(-offset_us),
        _ => None,
    }
}

fn number(written: &str) -> Option<u64> {
    let (whole, fraction) = written.split_once('.').unwrap_or((written, ""));
    let whole: u64 = whole.parse().ok()?;
    // Each unit has a thousand times as many as the one before, and thousands of years lie between.
    let (units_per_s, digits) = match whole {
        0..=99_999_999_999 => (1, 6),
        100_000_000_000..=99_999_999_999_999 => (1_000, 3),
        100_000_000_000_000..=99_999_999_999_999_999 => (1_000_000, 0),
        _ => return Some(whole / 1_000),
    };
    let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(digits).collect();
    let fraction_us: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    whole.checked_mul(1_000_000 / units_per_s)?.checked_add(fraction_us)
}

#[cfg(test)]
mod tests {
    use super::parse;

    const AT_US: u64 = 1_460_751_420_310_000;

    #[test]
    fn times_are_read_as_logs_write_them() {
        for written in [
            "2016-04-15T20:17:00.310Z",
            "2016-04-15T20:17:00.310000Z",
            "2016-04-15T22:17:00.310+02:00",
            "2016-04-15T14:47:00.310-05:30",
            "2016-04-15 20:17:00.310Z",
            "1460751420.310",
            "1460751420.31",
            "1460751420310",
            "1460751420310.0",
            "1460751420310000",
            "1460751420310000000",
        ] {
            assert_eq!(parse(written), Some(AT_US), "{written}");
        }
        assert_eq!(parse("1460751420"), Some(1_460_751_420_000_000));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for written in
            ["", "-", "yesterday", "2016-04-15", "1.2.3", "2016-04-15T20:17:00é", "20:17", ".5", "Z"]
        {
            assert_eq!(parse(written), None, "{written}");
        }
    }
}
