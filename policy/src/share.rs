//! A share of all requests, or of all keys.

/// All of them, in parts of a million.
pub const WHOLE_PPM: u32 = 1_000_000;

/// A share, in parts of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    pub const WHOLE: Self = Self(WHOLE_PPM);

    /// At most the whole.
    pub fn new(ppm: u32) -> Self {
        Self(ppm.min(WHOLE_PPM))
    }

    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// Whether it has what was drawn, where every 32-bit number is as likely as the others. What a share has, every
    /// larger one has, too.
    pub fn has(self, draw: u32) -> bool {
        // Compared in 64 bits, so that the whole has all.
        u64::from(draw) * u64::from(WHOLE_PPM) < u64::from(self.0) << 32
    }
}
