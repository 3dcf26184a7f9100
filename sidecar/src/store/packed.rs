//! Integers as MessagePack, in which the script is asked and answers: what little of the format that takes.
//!
//! A packed array costs Redis one argument, and the sidecar one string to read, however many numbers it holds.

/// The opening of an array whose length follows in 4 bytes.
const ARRAY_32: u8 = 0xdd;
const ARRAY_16: u8 = 0xdc;
/// An array of up to 15, whose length is in the lower bits.
const FIX_ARRAY: u8 = 0x90;
const UNSIGNED_8: u8 = 0xcc;
const UNSIGNED_16: u8 = 0xcd;
const UNSIGNED_32: u8 = 0xce;
const UNSIGNED_64: u8 = 0xcf;
const SIGNED_8: u8 = 0xd0;
const SIGNED_16: u8 = 0xd1;
const SIGNED_32: u8 = 0xd2;
const SIGNED_64: u8 = 0xd3;
/// From here on, a byte is a negative number by itself.
const NEGATIVE: u8 = 0xe0;

/// One array of `integers`.
#[must_use]
pub fn pack(integers: &[i64]) -> Vec<u8> {
    // Most are indices and costs of one byte; the few that are long are limits, which come once.
    let mut packed = Vec::with_capacity(5 + integers.len() * 2);
    packed.push(ARRAY_32);
    packed.extend(u32::try_from(integers.len()).unwrap_or(u32::MAX).to_be_bytes());
    for &integer in integers {
        if let Ok(small) = u8::try_from(integer) {
            match small {
                0x00..0x80 => packed.push(small),
                _ => packed.extend([UNSIGNED_8, small]),
            }
        } else if let Ok(small) = u16::try_from(integer) {
            packed.push(UNSIGNED_16);
            packed.extend(small.to_be_bytes());
        } else if let Ok(small) = u32::try_from(integer) {
            packed.push(UNSIGNED_32);
            packed.extend(small.to_be_bytes());
        } else {
            packed.push(SIGNED_64);
            packed.extend(integer.to_be_bytes());
        }
    }
    packed
}

/// Reads one array of integers, each in turn.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Reader<'a> {
    /// `None` where `packed` does not begin with an array.
    #[must_use]
    pub fn open(packed: &'a [u8]) -> Option<Self> {
        let mut reader = Self { rest: packed, left: 0 };
        let [first] = reader.bytes()?;
        reader.left = match first {
            FIX_ARRAY..0xa0 => usize::from(first - FIX_ARRAY),
            ARRAY_16 => u16::from_be_bytes(reader.bytes()?).into(),
            ARRAY_32 => usize::try_from(u32::from_be_bytes(reader.bytes()?)).ok()?,
            _ => return None,
        };
        Some(reader)
    }

    /// Whether the array is read to its end, and nothing follows it.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.left == 0 && self.rest.is_empty()
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }
}

/// Ends at the array's end, and before what is no integer or none that an `i64` holds.
impl Iterator for Reader<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        self.left = self.left.checked_sub(1)?;
        let [first] = self.bytes()?;
        match first {
            0x00..0x80 => Some(first.into()),
            NEGATIVE.. => Some(i8::from_be_bytes([first]).into()),
            UNSIGNED_8 => self.bytes().map(|bytes| u8::from_be_bytes(bytes).into()),
            UNSIGNED_16 => self.bytes().map(|bytes| u16::from_be_bytes(bytes).into()),
            UNSIGNED_32 => self.bytes().map(|bytes| u32::from_be_bytes(bytes).into()),
            UNSIGNED_64 => i64::try_from(u64::from_be_bytes(self.bytes()?)).ok(),
            SIGNED_8 => self.bytes().map(|bytes| i8::from_be_bytes(bytes).into()),
            SIGNED_16 => self.bytes().map(|bytes| i16::from_be_bytes(bytes).into()),
            SIGNED_32 => self.bytes().map(|bytes| i32::from_be_bytes(bytes).into()),
            SIGNED_64 => self.bytes().map(i64::from_be_bytes),
            _ => None,
        }
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
