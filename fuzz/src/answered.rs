//! Answers that no sidecar would give.

use arbitrary::{Result, Unstructured};
use contract::{BucketVerdict, FailureReason, Outcome, Take, Verdict};

/// Verdicts on these takes, or on others, or on none.
///
/// # Errors
/// Where there are too few bytes.
pub fn verdicts(bytes: &mut Unstructured<'_>, takes: &[Take<'_>]) -> Result<Vec<Verdict>> {
    let mut counts: Vec<usize> = takes.iter().map(|take| take.buckets.len()).collect();
    if bytes.ratio(1, 5)? {
        counts = bytes.arbitrary::<Vec<u8>>()?.into_iter().map(usize::from).collect();
    }
    counts.into_iter().map(|count| verdict(bytes, count)).collect()
}

/// A take of so many buckets that each of them allows.
#[must_use]
pub fn allowed(count: usize) -> Verdict {
    Verdict::Allowed(vec![alike(Outcome::Allowed); count])
}

/// A take of so many buckets that each of them denies.
#[must_use]
pub fn denied(count: usize) -> Verdict {
    Verdict::Denied(vec![alike(Outcome::Denied); count])
}

fn alike(outcome: Outcome) -> BucketVerdict {
    BucketVerdict {
        outcome,
        remaining: u64::MAX,
        retry_after_us: Some(u64::MAX),
        full_after_us: u64::MAX,
        overridden: None,
    }
}

fn verdict(bytes: &mut Unstructured<'_>, count: usize) -> Result<Verdict> {
    let kind = bytes.int_in_range(0..=10)?;
    // What the contract says: in a take that is allowed, every bucket is.
    let outcomes: &[Outcome] = match kind {
        0..=3 => &[Outcome::Allowed],
        _ => &[Outcome::Denied, Outcome::Allowed, Outcome::NeverFits],
    };
    let buckets = (0..count).map(|_| bucket(bytes, outcomes)).collect::<Result<_>>()?;
    Ok(match kind {
        0..=4 => Verdict::Allowed(buckets),
        5..=7 => Verdict::Denied(buckets),
        8 => Verdict::Leased { tokens: number(bytes)?, lapses_at_us: number(bytes)?, buckets },
        9 => Verdict::Failed(FailureReason::StoreFull),
        _ => Verdict::Failed(FailureReason::StoreUnavailable),
    })
}

fn bucket(bytes: &mut Unstructured<'_>, outcomes: &[Outcome]) -> Result<BucketVerdict> {
    Ok(BucketVerdict {
        outcome: *bytes.choose(outcomes)?,
        remaining: number(bytes)?,
        retry_after_us: if bytes.ratio(1, 4)? { None } else { Some(number(bytes)?) },
        full_after_us: number(bytes)?,
        overridden: None,
    })
}

fn number(bytes: &mut Unstructured<'_>) -> Result<u64> {
    let known =
        [0, 1, 999_999, 1_000_000, 1_000_001, 60_000_000, (1 << 53) - 1, 1 << 53, u64::MAX - 1, u64::MAX];
    if bytes.ratio(3, 4)? { Ok(*bytes.choose(&known)?) } else { bytes.arbitrary() }
}
