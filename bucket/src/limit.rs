//! A rate and a burst that are known to be computable without rounding.

use core::fmt;

use crate::EXACT;

/// What a share is in parts of.
const MILLION: u64 = 1_000_000;

/// How fast a bucket refills, and how many tokens it holds when full.
///
/// The rate is kept in lowest terms: `60 per 60 s` and `1 per 1 s` are the same limit. One token costs
/// [`period_us`](Limit::period_us) credits and every elapsed microsecond earns [`tokens`](Limit::tokens)
/// credits, so the refill is exact at any rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    tokens: u64,
    period_us: u64,
    burst_tokens: u64,
}

/// Why a rate and a burst do not make a [`Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidLimit {
    /// The rate has no tokens: nothing would ever be allowed again.
    ZeroTokens,
    /// The rate has no period.
    ZeroPeriod,
    /// The bucket holds nothing: no request could ever pass.
    ZeroBurst,
    /// The number of tokens per period is 2^53 or more.
    TooManyTokens,
    /// A full bucket would not fit the 53 bits in which every store counts exactly.
    TooLarge {
        /// The largest burst that this rate allows, in tokens; 0 where the period alone is too long.
        max_burst_tokens: u64,
    },
}

impl Limit {
    /// A limit of `tokens` per `period_us` microseconds with room for `burst_tokens` tokens.
    ///
    /// # Errors
    /// [`InvalidLimit`] where a number is zero, or where `(burst_tokens + 1) × period_us` in lowest terms
    /// reaches 2^53.
    pub const fn new(tokens: u64, period_us: u64, burst_tokens: u64) -> Result<Self, InvalidLimit> {
        if tokens == 0 {
            return Err(InvalidLimit::ZeroTokens);
        }
        if period_us == 0 {
            return Err(InvalidLimit::ZeroPeriod);
        }
        if burst_tokens == 0 {
            return Err(InvalidLimit::ZeroBurst);
        }
        let divisor = gcd(tokens, period_us);
        let (tokens, period_us) = (tokens / divisor, period_us / divisor);
        if tokens >= EXACT {
            return Err(InvalidLimit::TooManyTokens);
        }
        // The largest n with n × period_us < 2^53; one token of it is headroom: so any bucket can owe at least one.
        let max_burst_tokens = ((EXACT - 1) / period_us).saturating_sub(1);
        if burst_tokens > max_burst_tokens {
            return Err(InvalidLimit::TooLarge { max_burst_tokens });
        }
        Ok(Self { tokens, period_us, burst_tokens })
    }

    /// A share of this limit, in parts of a million: of its rate exactly, of its burst rounded down, one token at least.
    ///
    /// # Errors
    /// As [`Limit::new`]: a rate that is not round may become too odd to be counted exactly.
    pub const fn share(&self, ppm: u32) -> Result<Self, InvalidLimit> {
        // Each factor is divided before it is multiplied, so what overflows has no room in lowest terms either.
        let divisor = gcd(ppm as u64, MILLION);
        let (share, whole) = (ppm as u64 / divisor, MILLION / divisor);
        let (by_tokens, by_period) = (gcd(self.tokens, whole), gcd(share, self.period_us));
        if share == 0 {
            return Err(InvalidLimit::ZeroTokens);
        }
        let Some(tokens) = (self.tokens / by_tokens).checked_mul(share / by_period) else {
            return Err(InvalidLimit::TooManyTokens);
        };
        let Some(period_us) = (self.period_us / by_period).checked_mul(whole / by_tokens) else {
            return Err(InvalidLimit::TooLarge { max_burst_tokens: 0 });
        };
        let burst_tokens = self.burst_tokens as u128 * ppm as u128 / MILLION as u128;
        // A share of more than the whole may be of any size: then it is refused.
        let burst_tokens = if burst_tokens > EXACT as u128 { EXACT } else { burst_tokens as u64 };
        Self::new(tokens, period_us, if burst_tokens == 0 { 1 } else { burst_tokens })
    }

    /// Tokens earned per [`period_us`](Limit::period_us), in lowest terms: also the credits earned each
    /// microsecond.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Microseconds in which [`tokens`](Limit::tokens) tokens are earned, in lowest terms: also the credits that
    /// one token costs.
    #[must_use]
    pub const fn period_us(&self) -> u64 {
        self.period_us
    }

    /// Tokens in a full bucket.
    #[must_use]
    pub const fn burst_tokens(&self) -> u64 {
        self.burst_tokens
    }

    /// Credits in a full bucket; below 2^53.
    #[must_use]
    pub const fn capacity_credits(&self) -> u64 {
        self.burst_tokens * self.period_us
    }
}

impl fmt::Display for InvalidLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroTokens => f.write_str("the limit allows 0 tokens; it must allow at least 1"),
            Self::ZeroPeriod => f.write_str("the period is 0; it must be at least 1 microsecond"),
            Self::ZeroBurst => f.write_str("the burst is 0; it must be at least 1"),
            Self::TooManyTokens => f.write_str("the limit allows 2^53 tokens or more; it must allow fewer"),
            Self::TooLarge { max_burst_tokens: 0 } => {
                f.write_str("the period is too long to be counted exactly; choose a shorter one")
            }
            Self::TooLarge { max_burst_tokens } => write!(
                f,
                "the burst is too large to be counted exactly at this rate; it may be at most {max_burst_tokens} \
                 (a rounder number of tokens per period allows more)"
            ),
        }
    }
}

impl core::error::Error for InvalidLimit {}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_kept_in_lowest_terms() {
        assert_eq!(Limit::new(60, 60_000_000, 5), Limit::new(1, 1_000_000, 5));
    }

    #[test]
    fn zero_is_refused_by_name() {
        assert_eq!(Limit::new(0, 1, 1), Err(InvalidLimit::ZeroTokens));
        assert_eq!(Limit::new(1, 0, 1), Err(InvalidLimit::ZeroPeriod));
        assert_eq!(Limit::new(1, 1, 0), Err(InvalidLimit::ZeroBurst));
    }

    #[test]
    fn a_share_is_exact_in_its_rate_and_rounded_down_in_its_burst() {
        let limit = |tokens, period_us, burst| Limit::new(tokens, period_us, burst).expect("a limit");
        let minutely = limit(60, 60_000_000, 60);
        assert_eq!(minutely.share(1_000_000), Ok(minutely));
        assert_eq!(minutely.share(340_000), Ok(limit(60 * 34, 6_000_000_000, 20)));
        assert_eq!(minutely.share(5_000), Ok(limit(60 * 5, 60_000_000_000, 1)));
        assert_eq!(limit(1_000, 86_400_000_000, 4).share(1), Ok(limit(1, 86_400_000_000_000, 1)));
        assert_eq!(minutely.share(0), Err(InvalidLimit::ZeroTokens));
        let odd = limit(1_000_003, 86_400_000_000, 100_000);
        assert!(matches!(odd.share(330_000), Err(InvalidLimit::TooLarge { .. })));
        let long = limit(1, EXACT / 3, 1);
        assert_eq!(long.share(1), Err(InvalidLimit::TooLarge { max_burst_tokens: 0 }));
    }

    #[test]
    fn the_bound_is_two_to_the_53_and_is_told() {
        // 1 token per µs: credits are tokens, so the bound is easy to see.
        assert!(Limit::new(1, 1, EXACT - 2).is_ok());
        let refused = Limit::new(1, 1, EXACT - 1);
        assert_eq!(refused, Err(InvalidLimit::TooLarge { max_burst_tokens: EXACT - 2 }));
        // 1,000,003 is prime: a day stays 86.4e9 credits a token, and few fit.
        let Err(InvalidLimit::TooLarge { max_burst_tokens }) =
            Limit::new(1_000_003, 86_400_000_000, 1_000_003)
        else {
            panic!("a burst beyond 2^53 credits was accepted");
        };
        assert!(Limit::new(1_000_003, 86_400_000_000, max_burst_tokens).is_ok());
        assert!(Limit::new(1_000_003, 86_400_000_000, max_burst_tokens + 1).is_err());
        assert_eq!(Limit::new(1, u64::MAX, 1), Err(InvalidLimit::TooLarge { max_burst_tokens: 0 }));
        assert_eq!(Limit::new(u64::MAX, 2, 1), Err(InvalidLimit::TooManyTokens));
    }
}
