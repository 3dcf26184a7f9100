//! What Envoy makes of one scalar of a YAML file.
//!
//! Envoy reads YAML into a `google.protobuf.Value` by rules of its own: only whole numbers that fit in 32 bits are
//! numbers, decimals stay text, and `yes`, `on` and `y` are true. These rules were tried on Envoy 1.40.

use super::Value;

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// In quotes, as a block, or with the tag `!`: it is text.
    AsText,
    /// Plain: it may be anything.
    Plain,
    /// With another tag, which Envoy does not heed; but then it is never null.
    Tagged,
}

pub fn read(text: &str, written: Written) -> Value {
    if written == Written::AsText {
        return Value::Text(text.to_owned());
    }
    if written == Written::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    if let Some(value) = boolean(text) {
        return Value::Bool(value);
    }
    match whole(text).map(|number| (number, i32::try_from(number))) {
        Some((_, Ok(number))) => Value::Number(number.into()),
        Some((number, Err(_))) => Value::Text(number.to_string()),
        None => Value::Text(text.to_owned()),
    }
}

fn boolean(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let value = match lower.as_str() {
        "y" | "yes" | "true" | "on" => true,
        "n" | "no" | "false" | "off" => false,
        _ => return None,
    };
    // All small, all capitals, or the first a capital.
    let (first, rest) = (text.get(..1)?, text.get(1..)?);
    let even = text == lower
        || text == text.to_ascii_uppercase()
        || (first == first.to_ascii_uppercase() && rest == rest.to_ascii_lowercase());
    even.then_some(value)
}

/// Decimal, `0x` hexadecimal, or octal after a `0`, as in C.
fn whole(text: &str) -> Option<i64> {
    let text = text.trim_end();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        (16, hex)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits)
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -number } else { number }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: i32) -> Value {
        Value::Number(number.into())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// Each pair was read by Envoy 1.40 (`node.metadata` of `/server_info`).
    #[test]
    fn plain_words_are_read_as_envoy_reads_them() {
        for (written, read_as) in [
            ("5", number(5)),
            ("+5", number(5)),
            ("-0", number(0)),
            ("00", number(0)),
            ("010", number(8)),
            ("0x10", number(16)),
            ("0X1F", number(31)),
            ("-0x10", number(-16)),
            ("+0x1", number(1)),
            ("2147483647", number(i32::MAX)),
            ("-2147483648", number(i32::MIN)),
            ("2147483648", text("2147483648")),
            ("-2147483649", text("-2147483649")),
            ("0xFFFFFFFF", text("4294967295")),
            ("0x7FFFFFFFFFFFFFFF", text("9223372036854775807")),
            ("-9223372036854775808", text("-9223372036854775808")),
            ("y", Value::Bool(true)),
            ("Y", Value::Bool(true)),
            ("yes", Value::Bool(true)),
            ("Yes", Value::Bool(true)),
            ("YES", Value::Bool(true)),
            ("On", Value::Bool(true)),
            ("TRUE", Value::Bool(true)),
            ("n", Value::Bool(false)),
            ("off", Value::Bool(false)),
            ("False", Value::Bool(false)),
            ("", Value::Null),
            ("~", Value::Null),
            ("null", Value::Null),
            ("Null", Value::Null),
            ("NULL", Value::Null),
        ] {
            assert_eq!(read(written, Written::Plain), read_as, "{written}");
        }
        for stays in [
            "2.5",
            "1e3",
            "1.",
            ".5",
            ".inf",
            ".nan",
            "1_000",
            "08",
            "09",
            "0o10",
            "0b11",
            "0x",
            "0xg",
            "5x",
            "--1",
            "1-1",
            "+",
            "-",
            "0x-1",
            "12:30:00",
            "2001-01-01",
            "yEs",
            "oN",
            "nO",
            "tRUE",
            "t",
            "f",
            "nULL",
            "５",
            "9223372036854775808",
            "0xFFFFFFFFFFFFFFFF",
            "07777777777777777777777",
            "<<",
        ] {
            assert_eq!(read(stays, Written::Plain), text(stays));
        }
    }

    #[test]
    fn quotes_and_tags_are_heeded_as_envoy_heeds_them() {
        for word in ["5", "yes", "null", "~", ""] {
            assert_eq!(read(word, Written::AsText), text(word));
        }
        assert_eq!(read("5", Written::Tagged), number(5), "!!str 5 is a number");
        assert_eq!(read("yes", Written::Tagged), Value::Bool(true), "!!str yes is true");
        assert_eq!(read("~", Written::Tagged), text("~"), "!!null ~ is text");
    }
}
