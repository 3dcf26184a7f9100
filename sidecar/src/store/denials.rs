//! What is known to be denied is denied again without asking the store.
//!
//! A take is answered from memory where one of its buckets certainly denies its cost, and where it is known how the
//! others stood, since an answer tells of each. It must be a plain take that follows none and that none follows: its
//! denial changes nothing, so the others of its batch are decided as if it had been asked.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use bucket::{Kind, Limit};
use contract::{BucketVerdict, FailureReason, Outcome, Verdict};
use denials::{Denials, aged};
use tokio::time::Instant;

use super::{Answer, Overloaded};
use crate::batch::{Batch, Take};

/// How much is remembered of what was denied, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenyCache {
    /// Of how many buckets at most.
    pub entries: usize,
    /// For how long at most: so soon a refund by another sidecar and a raised limit are seen. A filter that remembers for
    /// itself what it was told sees them its own ceiling later. Zero switches it off.
    pub ceiling: Duration,
}

impl Default for DenyCache {
    fn default() -> Self {
        Self { entries: 8_192, ceiling: Duration::from_millis(500) }
    }
}

/// What a store denied lately, with the clock by which it is remembered.
#[derive(Debug)]
pub(super) struct Remembered {
    started: Instant,
    /// Nothing where it is switched off.
    known: Option<Mutex<Known>>,
    /// How many takes were denied from it.
    hits: AtomicU64,
}

impl Remembered {
    pub(super) fn new(cache: DenyCache) -> Self {
        let on = cache.entries > 0 && !cache.ceiling.is_zero();
        Self {
            started: Instant::now(),
            known: on.then(|| Mutex::new(Known::new(cache))),
            hits: AtomicU64::new(0),
        }
    }

    /// This process's time, in microseconds, by which questions are sent and answers heard.
    pub(super) fn now_us(&self) -> u64 {
        micros(self.started.elapsed())
    }

    /// Decides a batch: what is known to be denied at once, and what is not by `ask`.
    pub(super) async fn answer_or<F>(
        &self,
        batch: Batch,
        ask: impl FnOnce(Batch) -> F,
    ) -> Result<Answer, Overloaded>
    where
        F: Future<Output = Result<Answer, Overloaded>>,
    {
        let Some(known) = self.answer(&batch.takes) else { return ask(batch).await };
        let unknown = batch.takes.into_iter().zip(&known.verdicts).filter(|(_, known)| known.is_none());
        let unknown = Batch { takes: unknown.map(|(take, _)| take).collect() };
        let asked = if unknown.takes.is_empty() {
            Answer { now_us: known.now_us, verdicts: Vec::new() }
        } else {
            ask(unknown).await?
        };
        let mut asked_verdicts = asked.verdicts.into_iter();
        let verdict = |known: Option<Verdict>| {
            let verdict = known.or_else(|| asked_verdicts.next());
            // There are as many as were asked for.
            verdict.unwrap_or(Verdict::Failed(FailureReason::StoreUnavailable))
        };
        Ok(Answer { now_us: asked.now_us, verdicts: known.verdicts.into_iter().map(verdict).collect() })
    }

    /// Forgets everything, and learns nothing of what was asked before.
    pub(super) fn forget_all(&self) {
        if let Some(known) = &self.known {
            lock(known).forget_all(self.now_us());
        }
    }

    /// Of how many buckets something is remembered.
    pub(super) fn len(&self) -> usize {
        self.known.as_ref().map_or(0, |known| lock(known).buckets.len())
    }

    /// How many takes were denied from it.
    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// What is known of `takes`; nothing where no verdict is. What they return or charge is forgotten before the takes
    /// behind are looked at.
    fn answer(&self, takes: &[Take]) -> Option<KnownAnswer> {
        let known = self.known.as_ref()?;
        let answer = lock(known).answer(takes, self.now_us())?;
        self.hits.fetch_add(answer.verdicts.iter().flatten().count() as u64, Ordering::Relaxed);
        Some(answer)
    }

    /// Remembers what the store answered to `takes`, which were sent at `asked_at_us`.
    pub(super) fn learn(&self, takes: &[&Take], answer: &Answer, asked_at_us: u64) {
        if let Some(known) = &self.known {
            lock(known).learn(takes, answer, asked_at_us, self.now_us());
        }
    }
}

/// What is known of a batch without asking.
#[derive(Debug, PartialEq, Eq)]
struct KnownAnswer {
    /// The store's time, as it goes on since it was last heard.
    now_us: u64,
    /// A verdict for each take that is known to be denied, in the batch's order.
    verdicts: Vec<Option<Verdict>>,
}

/// Nothing that holds it can panic halfway, so what a panic left is as good as before.
fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What is known of buckets, by their names. Times are an argument.
#[derive(Debug)]
struct Known {
    buckets: Denials<String, Standing>,
    /// The store's time of the latest answer, and when that was heard.
    heard: (u64, u64),
    /// When all was forgotten: what was asked before may be true no longer.
    forgotten_at_us: u64,
}

/// How a bucket stood in a take that was denied: it denied it, or it is known only for its answer.
#[derive(Debug)]
struct Standing {
    limit: Limit,
    verdict: BucketVerdict,
    heard_at_us: u64,
}

impl Known {
    fn new(cache: DenyCache) -> Self {
        Self {
            buckets: Denials::new(cache.entries, micros(cache.ceiling)),
            heard: (0, 0),
            forgotten_at_us: 0,
        }
    }

    fn forget_all(&mut self, now_us: u64) {
        self.buckets.clear();
        self.forgotten_at_us = now_us;
    }

    fn answer(&mut self, takes: &[Take], now_us: u64) -> Option<KnownAnswer> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut verdicts = Vec::new();
        let mut place = 0;
        for led in takes.chunk_by(|_, next| next.follows) {
            for take in led.iter().filter(|take| take.kind != Kind::Take) {
                self.forget(take);
            }
            if let [take] = led
                && let Some(verdict) = self.denied(take, now_us)
            {
                verdicts.resize(takes.len(), None);
                verdicts[place] = Some(verdict);
            }
            place += led.len();
        }
        let (store_now_us, heard_at_us) = self.heard;
        let now_us = store_now_us.saturating_add(now_us.saturating_sub(heard_at_us));
        (!verdicts.is_empty()).then_some(KnownAnswer { now_us, verdicts })
    }

    fn denied(&mut self, take: &Take, now_us: u64) -> Option<Verdict> {
        if take.kind != Kind::Take {
            return None;
        }
        let mut verdicts = Vec::new();
        for ask in &take.buckets {
            let standing = self.buckets.get(&ask.bucket_key, ask.cost_tokens, now_us)?;
            if standing.limit != ask.limit {
                return None;
            }
            if verdicts.is_empty() {
                verdicts.reserve_exact(take.buckets.len());
            }
            verdicts.push(aged(&standing.verdict, now_us.saturating_sub(standing.heard_at_us)));
        }
        let denied = verdicts.iter().any(|verdict| verdict.outcome != Outcome::Allowed);
        denied.then_some(Verdict::Denied(verdicts))
    }

    /// In the order of the batch: what is returned to a bucket counts for what was denied before it, not after, and so does
    /// that it allowed a take.
    fn learn(&mut self, takes: &[&Take], answer: &Answer, asked_at_us: u64, heard_at_us: u64) {
        self.heard = (answer.now_us, heard_at_us);
        for (take, verdict) in takes.iter().zip(&answer.verdicts) {
            match verdict {
                _ if take.kind != Kind::Take => self.forget(take),
                // What was known may have been wrong, as after a refund by another sidecar, and is out of date.
                Verdict::Allowed(_) => self.forget(take),
                // A take that follows is always asked.
                Verdict::Denied(buckets) if !take.follows && asked_at_us >= self.forgotten_at_us => {
                    for (ask, verdict) in take.buckets.iter().zip(buckets) {
                        // Of a bucket that had room it is only known how it stood: for the ceiling.
                        let wait_us = match verdict.outcome {
                            Outcome::Denied => verdict.retry_after_us,
                            Outcome::Allowed | Outcome::NeverFits => None,
                        };
                        let standing = Standing { limit: ask.limit, verdict: verdict.clone(), heard_at_us };
                        let key = ask.bucket_key.clone();
                        self.buckets.insert(key, ask.cost_tokens, wait_us, asked_at_us, standing);
                    }
                }
                _ => {}
            }
        }
    }

    fn forget(&mut self, take: &Take) {
        if self.buckets.is_empty() {
            return;
        }
        for ask in &take.buckets {
            self.buckets.remove(&ask.bucket_key);
        }
    }
}

#[cfg(test)]
mod tests {
    use bucket::{Lease, Terms};

    use super::*;
    use crate::batch::Ask;

    const CACHE: DenyCache = DenyCache { entries: 8, ceiling: Duration::from_millis(1) };

    fn limit(burst: u64) -> Limit {
        Limit::new(1, 100, burst).expect("valid")
    }

    fn take(keys: &[&str]) -> Take {
        let ask = |key: &&str| Ask { bucket_key: (*key).to_owned(), limit: limit(5), cost_tokens: 1 };
        Take { buckets: keys.iter().map(ask).collect(), kind: Kind::Take, follows: false }
    }

    fn verdict(wait_us: u64) -> BucketVerdict {
        let outcome = if wait_us > 0 { Outcome::Denied } else { Outcome::Allowed };
        BucketVerdict {
            outcome,
            remaining: 3,
            retry_after_us: Some(wait_us),
            full_after_us: 400,
            overridden: None,
        }
    }

    /// Knows of `take`, asked at 1000 and heard at 1010, that its buckets have so long to wait.
    fn knowing(take: &Take, waits_us: &[u64]) -> Known {
        let mut known = Known::new(CACHE);
        learn(&mut known, take, waits_us);
        known
    }

    fn learn(known: &mut Known, take: &Take, waits_us: &[u64]) {
        let verdicts = waits_us.iter().map(|&wait_us| verdict(wait_us)).collect();
        let answer = Answer { now_us: 7_000, verdicts: vec![Verdict::Denied(verdicts)] };
        known.learn(&[take], &answer, 1_000, 1_010);
    }

    fn is_known(known: &mut Known, take: &Take, now_us: u64) -> bool {
        known.answer(std::slice::from_ref(take), now_us).is_some()
    }

    #[test]
    fn a_repeat_is_denied_until_its_wait_is_over_and_told_the_rest_of_it() {
        let mut known = knowing(&take(&["a", "b"]), &[80, 0]);
        let answer = known.answer(&[take(&["c"]), take(&["b", "a"])], 1_050).expect("known");
        let [None, Some(Verdict::Denied(buckets))] = &answer.verdicts[..] else { panic!("{answer:?}") };
        assert_eq!(buckets[0], BucketVerdict { full_after_us: 360, ..verdict(0) });
        assert_eq!(buckets[1], BucketVerdict { full_after_us: 360, ..verdict(40) });
        assert_eq!(answer.now_us, 7_040, "the store's time goes on");
        assert!(is_known(&mut known, &take(&["a"]), 1_079));
        assert!(!is_known(&mut known, &take(&["a", "b"]), 1_080), "counted from when it was asked");
    }

    #[test]
    fn what_is_not_known_of_each_bucket_is_asked() {
        let denied = take(&["a", "b"]);
        let mut known = knowing(&denied, &[80, 0]);
        assert!(!is_known(&mut known, &take(&["a", "c"]), 1_020), "nothing is known of c");
        assert!(!is_known(&mut known, &take(&["b"]), 1_020), "b had room");
        let mut other = denied.clone();
        other.buckets[0].cost_tokens = 2;
        assert!(!is_known(&mut known, &other, 1_020), "another cost");
        let mut other = denied.clone();
        other.buckets[0].limit = limit(6);
        assert!(!is_known(&mut known, &other, 1_020), "another limit");
        assert!(is_known(&mut known, &denied, 1_020));
    }

    #[test]
    fn only_a_take_that_stands_alone_is_answered_and_learnt() {
        let denied = take(&["a"]);
        let mut known = knowing(&denied, &[80]);
        let follows = Take { follows: true, ..denied.clone() };
        assert_eq!(known.answer(&[denied.clone(), follows.clone()], 1_020), None);
        let answer = known.answer(&[take(&["c"]), follows.clone(), denied.clone()], 1_020).expect("known");
        assert!(matches!(answer.verdicts[..], [None, None, Some(_)]), "{answer:?}");
        assert!(!is_known(&mut knowing(&follows, &[80]), &denied, 1_020));
    }

    #[test]
    fn what_is_returned_or_charged_is_forgotten_before_what_comes_behind_it() {
        let denied = take(&["a"]);
        let lease = Kind::Lease(Terms { ttl_us: 1_000_000, share_percent: 50 });
        let returned = Kind::Return(Lease { tokens: 1, lapses_at_us: 9_000 });
        for kind in [Kind::Refund, Kind::Charge, lease, returned] {
            let change = Take { kind, ..denied.clone() };
            let mut known = knowing(&denied, &[80]);
            let answer = known.answer(&[denied.clone(), change.clone(), denied.clone()], 1_020);
            let answer = answer.expect("the first is known");
            assert!(matches!(answer.verdicts[..], [Some(_), None, None]), "{answer:?}");
            // As a take that follows, too.
            let mut known = knowing(&denied, &[80]);
            let follows = Take { follows: true, ..change.clone() };
            assert_eq!(known.answer(&[take(&["c"]), follows, denied.clone()], 1_020), None);
            // And where it was decided behind a take that was denied, in the same run.
            let buckets = vec![verdict(0)];
            let decided = match kind {
                Kind::Lease(_) => Verdict::Leased { tokens: 1, lapses_at_us: 9_000, buckets },
                _ => Verdict::Allowed(buckets),
            };
            let verdicts = vec![Verdict::Denied(vec![verdict(80)]), decided];
            let mut known = Known::new(CACHE);
            known.learn(&[&denied, &change], &Answer { now_us: 7_000, verdicts }, 1_000, 1_010);
            assert!(!is_known(&mut known, &denied, 1_020));
        }
    }

    #[test]
    fn a_bucket_that_allowed_a_take_is_asked_again() {
        let denied = take(&["a", "b"]);
        let mut known = knowing(&denied, &[80, 80]);
        let verdicts = vec![Verdict::Allowed(vec![verdict(0)])];
        known.learn(&[&take(&["b"])], &Answer { now_us: 7_000, verdicts }, 1_000, 1_020);
        assert!(!is_known(&mut known, &denied, 1_030));
        assert!(is_known(&mut known, &take(&["a"]), 1_030), "and no other");
    }

    #[test]
    fn all_is_forgotten_and_what_was_asked_before_is_not_learnt_after() {
        let denied = take(&["a"]);
        let mut known = knowing(&denied, &[80]);
        known.forget_all(1_020);
        assert!(!is_known(&mut known, &denied, 1_030));
        learn(&mut known, &denied, &[80]);
        assert!(!is_known(&mut known, &denied, 1_030), "it was asked at 1000");
        known.forgotten_at_us = 1_000;
        learn(&mut known, &denied, &[80]);
        assert!(is_known(&mut known, &denied, 1_030));
    }

    #[test]
    fn nothing_is_known_where_it_is_switched_off() {
        for cache in [DenyCache { entries: 0, ..CACHE }, DenyCache { ceiling: Duration::ZERO, ..CACHE }] {
            assert!(Remembered::new(cache).known.is_none());
        }
    }
}
