//! In which of a Cluster's slots a key lives: the CRC16 of its hash tag.

/// How many slots a Cluster has.
pub const SLOTS: u16 = 16_384;

/// The slot of a key. What stands between the first `{` and the next `}` decides, where it is not empty.
#[must_use]
pub fn slot_of(key: &str) -> u16 {
    crc16(tag_of(key).as_bytes()) % SLOTS
}

fn tag_of(key: &str) -> &str {
    let tag = key.split_once('{').and_then(|(_, rest)| Some(rest.split_once('}')?.0));
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// CRC-16/XMODEM, as Redis computes it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// What each byte adds.
const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_the_slot_of_its_tag() {
        // The first two are of the Cluster's own specification.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of("sluice:1:shop/per-client/{foo}"), slot_of("foo"));
        assert_eq!(slot_of("sluice:1:shop/other/{foo}"), slot_of("foo"));
        assert_eq!(slot_of("sluice:1:shop/p/{a}b}"), slot_of("a"));
        assert_eq!(slot_of("sluice:1:shop/p/{{a}"), slot_of("{a"));
        for whole in ["sluice:1:shop/p/{}", "sluice:1:shop/p/{}a}", "a{b", "a}b{"] {
            assert_eq!(tag_of(whole), whole);
        }
    }
}
