//! How an override acts: what a batch asks is changed before a store sees it, and its verdicts are told accordingly.
//!
//! The store still decides, by the rules of `lua/SPEC.md` and nothing else: it is asked another question. So a take from
//! several buckets is all or none as ever, and what follows it follows.

use bucket::{Kind, Limit, Terms};
use contract::{BucketVerdict, Outcome, Overridden, Verdict};

use super::{Instead, table::Table};
use crate::{
    batch::{Ask, Batch, Take},
    store::Answer,
};

/// What of a batch was changed, so that its answer can tell.
#[derive(Debug, Default)]
pub struct Changed {
    buckets: Vec<Bucket>,
    /// Takes that were leases.
    leases: Vec<(usize, Terms)>,
}

/// Of a bucket that nobody tells of nothing is promised.
const UNKNOWN: BucketVerdict = BucketVerdict {
    outcome: Outcome::Allowed,
    remaining: 0,
    retry_after_us: Some(0),
    full_after_us: 0,
    overridden: None,
};

#[derive(Debug)]
struct Bucket {
    take: usize,
    bucket: usize,
    overridden: Overridden,
    /// What was asked of a bucket that is blocked.
    blocked: Option<Blocked>,
}

#[derive(Debug)]
struct Blocked {
    limit: Limit,
    cost_tokens: u64,
    expires_at_us: Option<u64>,
    /// How many buckets its take has, where that follows none: it is denied whatever the store says.
    decides: Option<usize>,
}

/// Changes what `batch` asks of buckets whose limits are overridden at `now_us`.
#[must_use]
pub fn apply(table: &Table, batch: &mut Batch, now_us: u64) -> Changed {
    let mut changed = Changed::default();
    if table.is_empty() {
        return changed;
    }
    for (place, take) in batch.takes.iter_mut().enumerate() {
        let first = changed.buckets.len();
        let decides = (!take.follows).then_some(take.buckets.len());
        for (bucket, ask) in take.buckets.iter_mut().enumerate() {
            let Some(found) = table.of(&ask.bucket_key, now_us) else { continue };
            let blocked = replace(ask, take.kind, found.instead, found.expires_at_us)
                .map(|blocked| Blocked { decides, ..blocked });
            let overridden = found.instead.overridden();
            changed.buckets.push(Bucket { take: place, bucket, overridden, blocked });
        }
        if let Kind::Lease(terms) = take.kind
            && changed.buckets.len() > first
        {
            grant_nothing(take);
            changed.leases.push((place, terms));
        }
    }
    changed
}

/// Asks for what the override lets be asked.
fn replace(ask: &mut Ask, kind: Kind, instead: Instead, expires_at_us: Option<u64>) -> Option<Blocked> {
    match (instead, kind) {
        (Instead::Limit(limit, _), _) => ask.limit = limit,
        // It takes nothing, and so nothing of it is charged or returned afterwards. What was taken before, and would be
        // returned now, is lost: that errs to the strict side.
        (Instead::Unlimited, Kind::Take | Kind::Charge | Kind::Refund) => ask.cost_tokens = 0,
        // One that costs nothing is denied, too: it costs more than the burst, which never fits and changes nothing.
        (Instead::Blocked, Kind::Take) => {
            let (limit, cost_tokens) = (ask.limit, ask.cost_tokens);
            let blocked = Blocked { limit, cost_tokens, expires_at_us, decides: None };
            // A limit is valid only where this is exact.
            ask.cost_tokens = ask.limit.burst_tokens() + 1;
            return Some(blocked);
        }
        // What was taken before is settled as ever, and a lease that ends was granted before.
        (Instead::Blocked, _) | (Instead::Unlimited, Kind::Return(_) | Kind::Lease(_)) => {}
    }
    None
}

/// A lease would be spent unasked: with none a change is seen soon.
fn grant_nothing(take: &mut Take) {
    take.kind = Kind::Take;
    take.buckets.iter_mut().for_each(|ask| ask.cost_tokens = 0);
}

impl Changed {
    /// Tells in the verdicts what was in the place of which limit.
    pub fn tell(&self, answer: &mut Answer) {
        for &(take, terms) in &self.leases {
            let Some(verdict) = answer.verdicts.get_mut(take) else { continue };
            if let Verdict::Allowed(buckets) | Verdict::Denied(buckets) = verdict {
                let (tokens, lapses_at_us) = (0, terms.lapses_at_us(answer.now_us));
                *verdict = Verdict::Leased { tokens, lapses_at_us, buckets: std::mem::take(buckets) };
            }
        }
        for bucket in &self.buckets {
            if let Some(Blocked { decides: Some(buckets), .. }) = bucket.blocked
                && let Some(verdict @ Verdict::Failed(_)) = answer.verdicts.get_mut(bucket.take)
            {
                // It took nothing, and how its buckets stand is not known.
                *verdict = Verdict::Denied(vec![UNKNOWN; buckets]);
            }
            let Some(
                Verdict::Allowed(verdicts)
                | Verdict::Denied(verdicts)
                | Verdict::Leased { buckets: verdicts, .. },
            ) = answer.verdicts.get_mut(bucket.take)
            else {
                continue;
            };
            let Some(verdict) = verdicts.get_mut(bucket.bucket) else { continue };
            verdict.overridden = Some(bucket.overridden);
            if let Some(blocked) = &bucket.blocked {
                blocked.tell(verdict, answer.now_us);
            }
        }
    }
}

impl Blocked {
    /// It never fits for the store, and not before the block ends in truth.
    fn tell(&self, verdict: &mut BucketVerdict, now_us: u64) {
        verdict.outcome = Outcome::Denied;
        let room_after_us = room_after_us(self.limit, self.cost_tokens, verdict.full_after_us);
        verdict.retry_after_us = self
            .expires_at_us
            .zip(room_after_us)
            .map(|(expires_at_us, wait_us)| expires_at_us.saturating_sub(now_us).max(wait_us).max(1));
    }
}

/// When a bucket has room for a cost that is full so much later: at the latest, and a microsecond or two early never.
/// Nothing where the cost never fits.
fn room_after_us(limit: Limit, cost_tokens: u64, full_after_us: u64) -> Option<u64> {
    if cost_tokens == 0 {
        return Some(0);
    }
    // By then it is full but for what the cost leaves, which it earns in this time at least.
    let spare_credits = limit.burst_tokens().checked_sub(cost_tokens)? * limit.period_us();
    Some(full_after_us.saturating_sub(spare_credits / limit.tokens()))
}
