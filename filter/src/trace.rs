//! The trace that a request is part of, as it came: whoever asked this Envoy wrote it. Envoy's own span is not in it, since its
//! router writes that into the request to the upstream alone, after the filters.

/// Version, trace, parent and flags in hexadecimal, with dashes between.
const BYTES: usize = 55;

/// The [`traceparent`](https://www.w3.org/TR/trace-context/#traceparent-header) in the value of that header, where it is
/// valid and its trace is sampled. What a later version adds at its end is left out, as the specification asks.
pub fn sampled(value: &[u8]) -> Option<&str> {
    let (known, added) = value.split_at_checked(BYTES)?;
    let known = std::str::from_utf8(known).ok()?;
    let mut fields = known.split('-');
    let (version, trace) = (hex(fields.next()?, 2)?, hex(fields.next()?, 32)?);
    let (parent, flags) = (hex(fields.next()?, 16)?, hex(fields.next()?, 2)?);
    let ends = match version {
        "ff" => false,
        "00" => added.is_empty(),
        _ => added.is_empty() || added.starts_with(b"-"),
    };
    let is_some = |id: &str| id.bytes().any(|digit| digit != b'0');
    let is_sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    (ends && is_some(trace) && is_some(parent) && is_sampled).then_some(known)
}

fn hex(field: &str, digits: usize) -> Option<&str> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (field.len() == digits && field.bytes().all(is_hex)).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::sampled;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_sampled_trace_is_told() {
        assert_eq!(sampled(VALID.as_bytes()), Some(VALID));
        let other_flags = VALID.replace("-01", "-ff");
        assert_eq!(sampled(other_flags.as_bytes()), Some(other_flags.as_str()));
        let later = VALID.replacen("00-", "01-", 1);
        assert_eq!(sampled(later.as_bytes()), Some(later.as_str()));
        assert_eq!(sampled(format!("{later}-more").as_bytes()), Some(later.as_str()));
    }

    #[test]
    fn what_is_not_sampled_or_not_valid_is_not() {
        let zeros = "00000000000000000000000000000000";
        for wrong in [
            String::new(),
            VALID.replace("-01", "-00"),
            VALID.replace("-01", "-02"),
            VALID.replace("4bf9", "4BF9"),
            VALID.replace("4bf9", "4bg9"),
            VALID.replace("00f067aa0ba902b7", "0000000000000000"),
            VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", zeros),
            VALID.replacen("00-", "ff-", 1),
            VALID.replacen("00-", "01-", 1) + "more",
            format!("{VALID}-more"),
            VALID.replace("-01", "-0"),
            VALID.replacen('-', "_", 1),
            "é".repeat(40),
        ] {
            assert_eq!(sampled(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(sampled(&[0xff; 55]), None);
    }
}
