//! Leases, from written to valid.

use std::time::Duration;

use super::limit::tokens;
use super::time_between;
use crate::Lease;
use crate::config::scalar::{Span, Whole};
use crate::config::spot::Spot;
use crate::config::written::{WrittenLease, WrittenLeaseFields, WrittenLeaseTokens};

const DEFAULT_TTL: Duration = Duration::from_secs(1);
/// Shorter ones would lapse before they are spent.
const MIN_TTL: Duration = Duration::from_millis(10);
const MAX_TTL: Duration = Duration::from_micros(contract::MAX_LEASE_TTL_US);

const DEFAULT_SHARE_PERCENT: u64 = 50;

/// The lease at `spot`.
pub fn lease(written: WrittenLease, spot: &Spot<'_>) -> Lease {
    let WrittenLeaseFields { tokens: most, ttl, share_percent } = match written {
        WrittenLease::Auto => WrittenLeaseFields::default(),
        WrittenLease::Fields(fields) => fields,
    };
    let most_tokens = match most {
        None | Some(WrittenLeaseTokens::Auto) => None,
        Some(WrittenLeaseTokens::Most(most)) => {
            if most == 0 {
                spot.field("tokens").problem("found 0; lease at least 1, or leave out `lease`");
            }
            Some(tokens(Whole(most), &spot.field("tokens")))
        }
    };
    let Span(ttl) = ttl.unwrap_or(Span(DEFAULT_TTL));
    time_between(MIN_TTL, ttl, MAX_TTL, &spot.field("ttl"));
    let Whole(share_percent) = share_percent.unwrap_or(Whole(DEFAULT_SHARE_PERCENT));
    if !(1..=100).contains(&share_percent) {
        spot.field("share_percent").problem(format!("found {share_percent}; it must be between 1 and 100"));
    }
    Lease { most_tokens, ttl, share_percent }
}
