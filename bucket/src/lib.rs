//! The token bucket, in exact integers.
//!
//! A [`Limit`] says how fast a bucket refills and how much it holds. A [`Bucket`] is what a store keeps of one
//! client: how many credits it had, and when they were counted. [`take`] computes what a request gets from it. A
//! [`Lease`] gives out tokens in advance, which occupy the bucket until they are returned or lapse.
//! There is no clock and no I/O here: `now_us` is an argument, and stores only keep what comes back.
//!
//! The rules are specified in `lua/SPEC.md`; the script that Redis runs follows the same page, and a
//! differential test holds the two together.

#![no_std]
#![forbid(unsafe_code)]

mod lease;
mod level;
mod limit;
mod take;

pub use lease::{Lease, Slot, Terms};
pub use level::{Bucket, Keep, Level};
pub use limit::{InvalidLimit, Limit};
pub use take::{Ask, Decision, Kind, Outcome, charge, end_lease, lease, look_at_all, refund, take, take_all};

/// Integers below this bound are exact in a 64-bit float, which is the only number that a Redis script has.
pub const EXACT: u64 = 1 << 53;
