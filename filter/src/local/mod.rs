//! Buckets of this Envoy's own, shared by its workers: what decides while the shared ones cannot, where a policy says so.
//!
//! They are kept in a table of fixed size in the data that Envoy shares among its workers, where nothing can be listed or
//! deleted: so many slots, each with room for a few buckets under their exact names. Which slot a key belongs to is
//! hashed with a secret of this Envoy, so that nobody can choose keys that crowd one. A slot is read, decided on and
//! written by compare-and-swap. Of several slots each is taken from in turn, after a look that found room in all; where
//! another worker was quicker in one of them, what was taken is returned: so meanwhile others may find less, never more.

mod slot;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::hash::{BuildHasher as _, RandomState};

use bucket::{Ask as Take, Keep, Kind, Level, Limit, Outcome, look_at_all, take_all};
use contract::BucketVerdict;
use policy::{Ask, Policies};
use sha2::{Digest as _, Sha256};

use self::slot::{MAX_ENTRIES, Slot};

/// How often another worker may be quicker before it is given up. Each time one of them has got on.
const MAX_TRIES: u32 = 64;

/// How often what was found is taken by another worker before it is given up.
const MAX_ROUNDS: u32 = 8;

/// What is compared where there is nothing yet: a number that no value has before four billion were written, so that only
/// one of several workers writes the first.
const NOTHING_YET: u32 = u32::MAX;

/// Data that all workers of an Envoy share: values under names, each with the number of its version.
pub trait Shared {
    /// A value and its version; `Ok(None)` where there is none.
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, Unshared>;
    /// Writes a value where its version is still that; whether it was.
    fn swap(&self, name: &str, value: &[u8], version: u32) -> Result<bool, Unshared>;
}

/// The data cannot be read or written, or others were quicker each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unshared;

/// The table as one worker sees it.
#[derive(Debug)]
pub struct Table {
    /// Of the names of its values: other domains and other sizes are other tables, and so is another format of its slots,
    /// which the data of an Envoy outlives.
    prefix: String,
    slots: u64,
    secret: OnceCell<Vec<u8>>,
}

/// What is asked of the buckets of one key of one policy.
pub struct Question<'a> {
    policy: &'a str,
    key: &'a str,
    cost_tokens: u64,
    /// Each limit's name, the limit that this Envoy holds to, and the burst that all share.
    limits: Vec<(Vec<u8>, Limit, u64)>,
}

/// What came of questions.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    /// For each question how its buckets stand, one for each limit.
    pub verdicts: Vec<Vec<BucketVerdict>>,
    /// How many buckets were forgotten for want of room, though they were not full.
    pub forgotten: u32,
}

/// A slot that was read, and when.
struct Open {
    name: String,
    slot: Slot,
    version: u32,
    now_us: u64,
}

/// What a slot answers to a question, and how its buckets are to be kept.
struct Answer<'a> {
    allowed: bool,
    verdicts: Vec<BucketVerdict>,
    kept: Vec<(&'a [u8], Keep)>,
}

impl<'a> Question<'a> {
    /// `None` for an ask whose policy is not known.
    pub fn new(policies: &'a Policies, ask: &'a Ask) -> Option<Self> {
        let policy = policies.get(ask)?;
        let limits = policy.local_limits().iter().zip(policy.limits()).map(|(local, whole)| {
            // The name of a limit has no NUL, so no two differ only in where it ends.
            let name = [local.name.as_bytes(), b"\0", ask.key.as_bytes()].concat();
            (name, local.limit, whole.limit.burst_tokens())
        });
        Some(Self {
            policy: policy.name(),
            key: &ask.key,
            cost_tokens: ask.cost_tokens,
            limits: limits.collect(),
        })
    }
}

impl Table {
    /// The table of a domain, for at most so many buckets.
    pub fn new(domain: &str, buckets: usize) -> Self {
        let slots =
            u64::try_from(buckets.checked_div(MAX_ENTRIES).unwrap_or_default()).unwrap_or(u64::MAX).max(1);
        Self {
            prefix: format!("sluice.local.{}/{domain}/{slots}", slot::FORMAT),
            slots,
            secret: OnceCell::new(),
        }
    }

    /// Takes what is asked, all or none. `now_us` is asked after a slot was read, so that no other worker has written it
    /// later than that.
    ///
    /// # Errors
    /// [`Unshared`]; nothing is taken then, or what was taken is lost where it could not be returned either.
    pub fn decide(
        &self,
        shared: &impl Shared,
        questions: &[Question<'_>],
        now_us: &impl Fn() -> u64,
    ) -> Result<Decision, Unshared> {
        for _ in 0..MAX_ROUNDS {
            let opened = questions.iter().map(|question| self.open(shared, question, now_us));
            let opened: Vec<Open> = opened.collect::<Result<_, _>>()?;
            let looked =
                opened.iter().zip(questions).map(|(open, question)| question.look(&open.slot, open.now_us));
            let looked: Vec<Answer<'_>> = looked.collect();
            if looked.iter().any(|answer| !answer.allowed) {
                let mut decision = Decision { verdicts: Vec::with_capacity(questions.len()), forgotten: 0 };
                for (open, Answer { verdicts, kept, .. }) in opened.into_iter().zip(looked) {
                    // What was counted in the future, by a clock that went back, is kept anew. Where another worker was
                    // quicker, or nothing can be written, the next does.
                    let forgotten = open.keep(shared, kept, questions).ok().flatten().unwrap_or_default();
                    decision.add(verdicts, forgotten);
                }
                return Ok(decision);
            }
            if let Some(decision) = self.take_all(shared, questions, opened, now_us)? {
                return Ok(decision);
            }
        }
        Err(Unshared)
    }

    /// Takes what each has room for as it was opened; `None` where another worker took that meanwhile: then nothing is taken.
    fn take_all(
        &self,
        shared: &impl Shared,
        questions: &[Question<'_>],
        opened: Vec<Open>,
        now_us: &impl Fn() -> u64,
    ) -> Result<Option<Decision>, Unshared> {
        let mut decision = Decision { verdicts: Vec::with_capacity(questions.len()), forgotten: 0 };
        for (open, question) in opened.into_iter().zip(questions) {
            match self.change(shared, open, (question, questions), now_us, Question::take) {
                Ok(Some((verdicts, forgotten))) => decision.add(verdicts, forgotten),
                lost => {
                    for taken in questions.iter().take(decision.verdicts.len()) {
                        let open = self.open(shared, taken, now_us)?;
                        self.change(shared, open, (taken, questions), now_us, Question::give_back)?;
                    }
                    return lost.map(|_| None);
                }
            }
        }
        Ok(Some(decision))
    }

    /// Changes a slot as `change` says of the first question, one of all in the second place, once no other worker was quicker;
    /// `None` where that denies. Else how the buckets stand, and how many others were forgotten.
    fn change<'a>(
        &self,
        shared: &impl Shared,
        mut open: Open,
        (question, questions): (&'a Question<'a>, &[Question<'_>]),
        now_us: &impl Fn() -> u64,
        change: impl Fn(&'a Question<'a>, &Slot, u64) -> Answer<'a>,
    ) -> Result<Option<(Vec<BucketVerdict>, u32)>, Unshared> {
        for _ in 0..MAX_TRIES {
            let answer = change(question, &open.slot, open.now_us);
            if !answer.allowed {
                return Ok(None);
            }
            match open.keep(shared, answer.kept, questions)? {
                Some(forgotten) => return Ok(Some((answer.verdicts, forgotten))),
                None => open = self.open(shared, question, now_us)?,
            }
        }
        Err(Unshared)
    }

    fn open(
        &self,
        shared: &impl Shared,
        question: &Question<'_>,
        now_us: &impl Fn() -> u64,
    ) -> Result<Open, Unshared> {
        let name = format!("{}/{}", self.prefix, self.slot_of(shared, question)?);
        let (slot, version) = match shared.get(&name)? {
            Some((bytes, version)) => (Slot::read(&bytes), version),
            None => (Slot::default(), NOTHING_YET),
        };
        Ok(Open { name, slot, version, now_us: now_us() })
    }

    /// The same for all limits of a policy, so that they are taken from at once.
    fn slot_of(&self, shared: &impl Shared, question: &Question<'_>) -> Result<u64, Unshared> {
        let digest = Sha256::new().chain_update(self.secret(shared)?).chain_update(question.policy);
        let digest = digest.chain_update(b"\0").chain_update(question.key).finalize();
        let hash = digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(hash.checked_rem(self.slots).unwrap_or_default())
    }

    /// What the first worker that needed it chose at random.
    fn secret(&self, shared: &impl Shared) -> Result<&[u8], Unshared> {
        if let Some(secret) = self.secret.get() {
            return Ok(secret);
        }
        let name = format!("{}/secret", self.prefix);
        let halves = [RandomState::new(), RandomState::new()].map(|state| state.hash_one(0_u8).to_le_bytes());
        let secret = match shared.get(&name)? {
            Some((secret, _)) => secret,
            // Whoever was quicker has chosen.
            None => match shared.swap(&name, &halves.concat(), NOTHING_YET)? {
                true => halves.concat(),
                false => shared.get(&name)?.ok_or(Unshared)?.0,
            },
        };
        Ok(self.secret.get_or_init(|| secret))
    }
}

impl Open {
    /// Keeps buckets in the slot, unless another worker has written it since; how many others were forgotten for that, none of
    /// which is asked by `questions`.
    fn keep(
        mut self,
        shared: &impl Shared,
        kept: Vec<(&[u8], Keep)>,
        questions: &[Question<'_>],
    ) -> Result<Option<u32>, Unshared> {
        if kept.iter().all(|(_, keep)| *keep == Keep::AsItIs) {
            return Ok(Some(0));
        }
        for (name, keep) in kept {
            self.slot.put(name, keep);
        }
        let is_own = |name: &[u8]| questions.iter().flat_map(|own| &own.limits).any(|(own, ..)| own == name);
        let forgotten = self.slot.make_room(self.now_us, is_own);
        let is_written = shared.swap(&self.name, &self.slot.write(), self.version)?;
        Ok(is_written.then_some(forgotten))
    }
}

impl Decision {
    fn add(&mut self, verdicts: Vec<BucketVerdict>, forgotten: u32) {
        self.verdicts.push(verdicts);
        self.forgotten = self.forgotten.saturating_add(forgotten);
    }
}

impl Question<'_> {
    /// How the buckets stand, of which nothing is taken.
    fn look(&self, slot: &Slot, now_us: u64) -> Answer<'_> {
        let asks = self.asks(slot, now_us);
        self.answer(&asks, look_at_all(&asks))
    }

    /// Takes the cost. One that is larger than a bucket, but not than that which all share, takes all of a full one and
    /// leaves it in debt: it is not denied for ever because the sidecar does not answer, and is paid for all the same.
    fn take(&self, slot: &Slot, now_us: u64) -> Answer<'_> {
        let mut asks = self.asks(slot, now_us);
        let allowed = take_all(&mut asks);
        if allowed {
            for (ask, (_, limit, _)) in asks.iter_mut().zip(&self.limits) {
                let rest = self.cost_tokens.saturating_sub(limit.burst_tokens());
                if let (1.., Keep::Bucket(bucket, _)) = (rest, ask.keep()) {
                    let charge = Take::new(Level::count(*limit, Some(bucket), now_us), Kind::Charge, rest);
                    let mut charged = [charge];
                    let _always = take_all(&mut charged);
                    [*ask] = charged;
                }
            }
        }
        self.answer(&asks, allowed)
    }

    /// Returns the cost.
    fn give_back(&self, slot: &Slot, now_us: u64) -> Answer<'_> {
        let limits = self.limits.iter().map(|(name, limit, _)| {
            Take::new(Level::count(*limit, slot.get(name), now_us), Kind::Refund, self.cost_tokens)
        });
        let mut asks: Vec<Take> = limits.collect();
        let always = take_all(&mut asks);
        self.answer(&asks, always)
    }

    fn asks(&self, slot: &Slot, now_us: u64) -> Vec<Take> {
        let ask = |(name, limit, shared_burst_tokens): &(Vec<u8>, Limit, u64)| {
            let fits = self.cost_tokens <= *shared_burst_tokens;
            let cost_tokens =
                if fits { self.cost_tokens.min(limit.burst_tokens()) } else { self.cost_tokens };
            Take::new(Level::count(*limit, slot.get(name), now_us), Kind::Take, cost_tokens)
        };
        self.limits.iter().map(ask).collect()
    }

    fn answer(&self, asks: &[Take], allowed: bool) -> Answer<'_> {
        let names = self.limits.iter().map(|(name, ..)| name.as_slice());
        Answer {
            allowed,
            verdicts: asks.iter().map(told).collect(),
            kept: names.zip(asks.iter().map(Take::keep)).collect(),
        }
    }
}

fn told(ask: &Take) -> BucketVerdict {
    let bucket::Decision { outcome, remaining_tokens: remaining, full_after_us } = ask.decision();
    let (outcome, retry_after_us) = match outcome {
        Outcome::Allowed => (contract::Outcome::Allowed, Some(0)),
        Outcome::Denied { retry_after_us } => (contract::Outcome::Denied, Some(retry_after_us)),
        Outcome::NeverFits => (contract::Outcome::NeverFits, None),
    };
    BucketVerdict { outcome, remaining, retry_after_us, full_after_us, overridden: None }
}
