//! Denials that the worker remembers, so that it answers the same question itself, and the same way.

use std::rc::Rc;

use contract::{BucketVerdict, Outcome};
use denials::{Denials, Looked, aged};
use policy::{Answer, Ask, Count, DenyCache, Policies};

use crate::reply::Reply;
use crate::whose::{Owner, Whose};

/// The largest answer that is kept ready, in bytes: a larger one is made anew each time.
const MAX_READY_BYTES: usize = 2 << 10;

/// What the worker knows of questions that were denied.
pub struct Remembered {
    denials: Denials<Owner, Denied>,
}

/// One question that was denied.
struct Denied {
    heard_at_us: u64,
    /// How its buckets stood then.
    buckets: Vec<BucketVerdict>,
    /// The answer to a request that asks this alone.
    prepared: Option<Rc<Prepared>>,
    /// How many requests it has denied since, of which the sidecar has not been told.
    repeats: u64,
    /// The same of what was remembered before, for each of its buckets; none where that was told.
    former: Vec<u64>,
}

/// What is known of what a request asks.
pub enum Answered {
    /// It is denied for certain.
    Denied(Rc<Prepared>),
    /// It is to be asked for. Where some of it was denied before, there are [repeats](Remembered::repeats) to tell of.
    Ask { repeats: bool },
}

/// An answer that is made once for many.
pub struct Prepared {
    pub report: String,
    pub counts: Vec<(usize, Count)>,
    pub reply: Reply,
    /// From then on it would tell other seconds.
    until_us: u64,
}

impl Remembered {
    pub fn new(terms: DenyCache) -> Self {
        let ceiling_us = u64::try_from(terms.ceiling.as_micros()).unwrap_or(u64::MAX);
        Self { denials: Denials::new(terms.entries, ceiling_us) }
    }

    /// Whether there is anything to be known: else it need not be asked what time it is.
    pub fn is_empty(&self) -> bool {
        self.denials.is_empty()
    }

    /// What a request that asks `asks` is denied with, where that is certain. One that a policy in shadow governs is
    /// never answered from here: what that policy would do is to be counted.
    pub fn answer(&mut self, policies: &Policies, asks: &[Ask], now_us: u64) -> Answered {
        if asks.iter().any(|ask| ask.shadow) {
            return Answered::Ask { repeats: false };
        }
        let mut over = false;
        let prepared = match asks {
            [ask] => self.answer_one(policies, ask, now_us, &mut over),
            _ => self.answer_several(policies, asks, now_us, &mut over),
        };
        prepared.map_or(Answered::Ask { repeats: over }, Answered::Denied)
    }

    fn answer_one(
        &mut self,
        policies: &Policies,
        ask: &Ask,
        now_us: u64,
        over: &mut bool,
    ) -> Option<Rc<Prepared>> {
        let denied = self.look(ask, now_us, over)?;
        denied.repeats = denied.repeats.saturating_add(1);
        if let Some(prepared) = denied.prepared.as_ref().filter(|prepared| now_us < prepared.until_us) {
            return Some(Rc::clone(prepared));
        }
        let asks = std::slice::from_ref(ask);
        let prepared = Rc::new(prepare(policies, asks, &[Some(denied.aged(now_us))], now_us)?);
        // Where chance has a say, everyone is answered for himself.
        let keeps = !policies.has_jitter() && prepared.reply.bytes() <= MAX_READY_BYTES;
        denied.prepared = keeps.then(|| Rc::clone(&prepared));
        Some(prepared)
    }

    fn answer_several(
        &mut self,
        policies: &Policies,
        asks: &[Ask],
        now_us: u64,
        over: &mut bool,
    ) -> Option<Rc<Prepared>> {
        let mut known = |ask: &Ask| {
            let denied = self.look(ask, now_us, over)?;
            denied.repeats = denied.repeats.saturating_add(1);
            Some(denied.aged(now_us))
        };
        let known: Vec<_> = asks.iter().map(&mut known).collect();
        if known.iter().all(Option::is_none) {
            return None;
        }
        prepare(policies, asks, &known, now_us).map(Rc::new)
    }

    /// What denies `ask`, and whether something did that denies it no longer: that is kept until a request is asked for that
    /// can tell how many it has denied, since another of its policies may deny it for longer.
    fn look(&mut self, ask: &Ask, now_us: u64, over: &mut bool) -> Option<&mut Denied> {
        match self.denials.look(ask as &dyn Whose, ask.cost_tokens, now_us) {
            Looked::Denied(denied) => Some(denied),
            Looked::Over => {
                *over = true;
                None
            }
            Looked::Unknown => None,
        }
    }

    /// How many requests each of the buckets of `asks` has denied that denies them no longer, in their order; empty where
    /// none has. It is told once: the callout that tells it may fail, or its request's client leave before that is sent,
    /// and then it is lost. So is what is forgotten to make room.
    pub fn repeats(&mut self, policies: &Policies, asks: &[Ask], now_us: u64) -> Vec<u64> {
        let mut repeats = Vec::new();
        let mut place: usize = 0;
        for ask in asks {
            let of_ask = place;
            place = place.saturating_add(policies.bucket_count(std::slice::from_ref(ask)));
            let mut over = false;
            self.look(ask, now_us, &mut over);
            let over = over.then(|| self.denials.remove(ask as &dyn Whose)).flatten();
            if let Some(denied) = over.filter(Denied::has_repeats) {
                repeats.resize(of_ask, 0);
                repeats.extend(denied.untold());
            }
        }
        repeats
    }

    /// Notes how the buckets of `ask` stood, asked at `asked_at_us` and heard of at `heard_at_us`, where they deny it.
    pub fn note(&mut self, ask: &Ask, buckets: &[BucketVerdict], asked_at_us: u64, heard_at_us: u64) {
        let denying = || buckets.iter().filter(|bucket| bucket.outcome != Outcome::Allowed);
        if denying().next().is_none() {
            return;
        }
        // It is denied for as long as one of its buckets denies it; without a wait, for good.
        let waits: Option<Vec<u64>> = denying().map(|bucket| bucket.retry_after_us).collect();
        let wait_us = waits.and_then(|waits| waits.into_iter().max());
        let buckets = buckets.to_vec();
        let denied = Denied { heard_at_us, buckets, prepared: None, repeats: 0, former: Vec::new() };
        let former = self.denials.insert(ask.into(), ask.cost_tokens, wait_us, asked_at_us, denied);
        // Of which nobody was told, as where another cost was asked for. Rare: else there was nothing known.
        if let Some(former) = former.filter(Denied::has_repeats)
            && let Some(now) = self.denials.get(ask as &dyn Whose, ask.cost_tokens, asked_at_us)
        {
            now.former = former.untold().collect();
        }
    }

    /// Denies no longer by what is known of buckets to which something is returned.
    pub fn forget(&mut self, whose: &dyn Whose) {
        self.denials.end(whose);
    }
}

impl Denied {
    fn has_repeats(&self) -> bool {
        self.repeats > 0 || !self.former.is_empty()
    }

    /// How many requests each of its buckets has denied of which the sidecar has not been told: those that denied as they
    /// were last heard of.
    fn untold(&self) -> impl Iterator<Item = u64> {
        let former = self.former.iter().copied().chain(std::iter::repeat(0));
        self.buckets.iter().zip(former).map(|(bucket, former)| match bucket.outcome {
            Outcome::Allowed => former,
            Outcome::Denied | Outcome::NeverFits => former.saturating_add(self.repeats),
        })
    }

    fn aged(&self, now_us: u64) -> Vec<BucketVerdict> {
        let elapsed_us = now_us.saturating_sub(self.heard_at_us);
        self.buckets.iter().map(|bucket| aged(bucket, elapsed_us)).collect()
    }
}

/// `None` where the buckets that are known deny nothing, which they do.
fn prepare(
    policies: &Policies,
    asks: &[Ask],
    known: &[Option<Vec<BucketVerdict>>],
    now_us: u64,
) -> Option<Prepared> {
    let Answer { denial, report, counts, .. } = policies.denied(asks, known, fastrand::u32(..));
    let told = known.iter().flatten().flatten();
    let told = told.flat_map(|bucket| [bucket.retry_after_us.unwrap_or_default(), bucket.full_after_us]);
    let holds_us = told.map(same_second_us).min().unwrap_or_default();
    Some(Prepared { report, counts, reply: Reply::new(denial?), until_us: now_us.saturating_add(holds_us) })
}

/// For how long `us`, which falls, is the same number of whole seconds, rounded up.
fn same_second_us(us: u64) -> u64 {
    const SECOND_US: u64 = 1_000_000;
    match us.checked_sub(1) {
        None => u64::MAX,
        Some(before) => before.checked_rem(SECOND_US).unwrap_or_default().saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::same_second_us;

    #[test]
    fn seconds_that_are_told_change_when_they_must() {
        assert_eq!(same_second_us(0), u64::MAX);
        for (us, holds_us) in
            [(1, 1), (999_999, 999_999), (1_000_000, 1_000_000), (1_000_001, 1), (2_500_000, 500_000)]
        {
            assert_eq!(same_second_us(us), holds_us, "{us}");
            let told = |elapsed: u64| (us - elapsed).div_ceil(1_000_000);
            assert_eq!(told(holds_us - 1), told(0), "{us}");
            assert_ne!(told(holds_us), told(0), "{us}");
        }
    }
}
