//! Arrays of integers as MessagePack, in which the script is asked and answers.
//!
//! A packed array costs Redis one argument, and the sidecar one string to read, however many numbers it holds.

use rmp::{decode, encode};

/// One array of `integers`.
#[must_use]
pub fn pack(integers: &[i64]) -> Vec<u8> {
    // Most are indices and costs of one byte; the few that are long are limits, which come once.
    let mut packed = Vec::with_capacity(5 + integers.len() * 2);
    let length = u32::try_from(integers.len()).unwrap_or(u32::MAX);
    // Writing to a Vec never fails.
    let _ = encode::write_array_len(&mut packed, length);
    for &integer in integers {
        let _ = encode::write_sint(&mut packed, integer);
    }
    packed
}

/// Reads one array of integers, each in turn.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Reader<'a> {
    /// `None` where `packed` does not begin with an array.
    #[must_use]
    pub fn open(packed: &'a [u8]) -> Option<Self> {
        let mut rest = packed;
        let left = decode::read_array_len(&mut rest).ok()?;
        Some(Self { rest, left })
    }

    /// Whether the array is read to its end, and nothing follows it.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.left == 0 && self.rest.is_empty()
    }
}

/// Ends at the array's end, and before what is no integer or none that an `i64` holds.
impl Iterator for Reader<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        self.left = self.left.checked_sub(1)?;
        decode::read_int(&mut self.rest).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_back() {
        let mut integers = vec![i64::MIN, i64::MAX];
        for bits in 0..54 {
            let edge = 1_i64 << bits;
            integers.extend([edge - 1, edge, edge + 1, -edge, -edge - 1]);
        }
        let packed = pack(&integers);
        let mut reader = Reader::open(&packed).expect("an array");
        assert_eq!(reader.by_ref().collect::<Vec<_>>(), integers);
        assert!(reader.is_at_end());
    }

    #[test]
    fn each_form_of_an_array_and_an_integer_is_read() {
        let forms: [(&[u8], &[i64]); 6] = [
            (&[0x90], &[]),
            (&[0x92, 0x7f, 0xff], &[127, -1]),
            (&[0xdc, 0, 2, 0xcc, 0xff, 0xd0, 0x80], &[255, -128]),
            (&[0xdd, 0, 0, 0, 2, 0xcd, 0xff, 0xff, 0xd1, 0x80, 0], &[65_535, -32_768]),
            (&[0x92, 0xce, 255, 255, 255, 255, 0xd2, 0x80, 0, 0, 0], &[4_294_967_295, -2_147_483_648]),
            (&[0x91, 0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0], &[1 << 53]),
        ];
        for (packed, integers) in forms {
            let reader = Reader::open(packed).expect("an array");
            assert_eq!(reader.collect::<Vec<_>>(), integers, "{packed:x?}");
        }
    }

    #[test]
    fn what_is_cut_or_foreign_ends_early() {
        assert!(Reader::open(&[]).is_none());
        assert!(Reader::open(&[0x01]).is_none(), "a number is no array");
        assert!(Reader::open(&[0xdd, 0, 0]).is_none(), "a length that is cut");
        let foreign: [&[u8]; 4] = [&[0x92, 1], &[0x92, 1, 0xcd, 0], &[0x92, 1, 0xc0], &[0x92, 1, 0xcf, 255]];
        for packed in foreign {
            let mut reader = Reader::open(packed).expect("an array");
            assert_eq!(reader.by_ref().collect::<Vec<_>>(), [1], "{packed:x?}");
        }
        let mut reader = Reader::open(&[0x91, 1, 2]).expect("an array");
        assert_eq!(reader.next(), Some(1));
        assert!(!reader.is_at_end(), "something follows");
    }
}
