//! What is remembered against what is true: many askers with a memory each, and one store that decides.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use bucket::{Bucket, Decision, Limit};
use contract::{BucketVerdict, Outcome};
use denials::{Denials, aged};
use proptest::prelude::*;

const NOW_US: u64 = 1_763_650_000_000_000;

/// What is remembered with a denial: what the store answered, when that was heard, and when it was decided.
struct Heard {
    verdict: BucketVerdict,
    heard_at_us: u64,
    decided_at_us: u64,
}

/// One step of an asker. Times are in parts of what a token takes.
#[derive(Clone, Debug)]
struct Step {
    pause: f64,
    asker: usize,
    key: u8,
    cost_tokens: u64,
    to_decide: f64,
    to_hear: f64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Take,
    Refund,
    /// From now on the store holds everybody to another burst.
    Burst,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Decide { asked_at_us: u64, asker: usize, key: u8, cost_tokens: u64, heard_at_us: u64 },
    Hear { asked_at_us: u64, asker: usize, key: u8, cost_tokens: u64, decided_at_us: u64, verdict: Told },
}

/// A verdict that can be sorted, as events of one instant are.
type Told = (bool, u64, Option<u64>, u64);

/// The askers and the store.
struct World {
    limit: Limit,
    ceiling_us: u64,
    askers: Vec<Denials<u8, Heard>>,
    buckets: HashMap<u8, Bucket>,
    /// When something was returned to a bucket or its limit changed last.
    loosened_at_us: HashMap<u8, u64>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    answered_from_memory: u64,
}

impl World {
    fn new(limit: Limit, askers: usize, entries: usize, ceiling_us: u64) -> Self {
        Self {
            limit,
            ceiling_us,
            askers: (0..askers).map(|_| Denials::new(entries, ceiling_us)).collect(),
            buckets: HashMap::new(),
            loosened_at_us: HashMap::new(),
            events: BinaryHeap::new(),
            answered_from_memory: 0,
        }
    }

    fn play(&mut self, steps: &[Step]) -> Result<(), TestCaseError> {
        let token_us = self.limit.period_us() as f64 / self.limit.tokens() as f64;
        let mut now_us = NOW_US;
        for step in steps {
            now_us += (step.pause * token_us) as u64;
            while self.events.peek().is_some_and(|Reverse((at_us, _))| *at_us <= now_us) {
                let Reverse((at_us, event)) = self.events.pop().expect("peeked");
                self.happens(at_us, event);
            }
            match step.what {
                What::Take => self.ask(step, now_us, token_us)?,
                What::Refund => {
                    let kept = self.buckets.get(&step.key).copied();
                    let (kept, _) = bucket::refund(self.limit, kept, step.cost_tokens, now_us);
                    self.keep(step.key, kept);
                    self.loosened_at_us.insert(step.key, now_us);
                }
                What::Burst => {
                    let (tokens, period_us) = (self.limit.tokens(), self.limit.period_us());
                    self.limit = Limit::new(tokens, period_us, 1 + step.cost_tokens).expect("valid");
                    self.loosened_at_us.extend((0..4).map(|key| (key, now_us)));
                }
            }
        }
        Ok(())
    }

    /// Answered from memory, it must be what the store would decide at this instant.
    fn ask(&mut self, step: &Step, now_us: u64, token_us: f64) -> Result<(), TestCaseError> {
        let &Step { asker, key, cost_tokens, .. } = step;
        let Some(heard) = self.askers[asker].get(&key, cost_tokens, now_us) else {
            let decide_at_us = now_us + (step.to_decide * token_us) as u64;
            let heard_at_us = decide_at_us + (step.to_hear * token_us) as u64;
            let asked = Event::Decide { asked_at_us: now_us, asker, key, cost_tokens, heard_at_us };
            self.events.push(Reverse((decide_at_us, asked)));
            return Ok(());
        };
        self.answered_from_memory += 1;
        let elapsed_us = now_us - heard.heard_at_us;
        let told = aged(&heard.verdict, elapsed_us);
        prop_assert_eq!(told.outcome, heard.verdict.outcome);
        if let Some(wait_us) = heard.verdict.retry_after_us {
            let told_us = told.retry_after_us.expect("a wait stays one");
            let (true_us, heard_us) = (heard.decided_at_us + wait_us, heard.heard_at_us + wait_us);
            prop_assert!(
                now_us + told_us >= true_us,
                "told to come {} µs too early",
                true_us - now_us - told_us
            );
            prop_assert!(
                now_us + told_us <= heard_us.max(now_us + 1),
                "told to come later than it was heard"
            );
        }
        let (_, truth) = bucket::take(self.limit, self.buckets.get(&key).copied(), cost_tokens, now_us);
        if truth.outcome == bucket::Outcome::Allowed {
            let since_us = self.loosened_at_us.get(&key).map(|at_us| now_us - at_us);
            prop_assert!(
                since_us.is_some_and(|since_us| since_us < self.ceiling_us),
                "denied what is allowed, {:?} µs after something was returned; the ceiling is {}",
                since_us,
                self.ceiling_us
            );
        }
        Ok(())
    }

    fn happens(&mut self, at_us: u64, event: Event) {
        match event {
            Event::Decide { asked_at_us, asker, key, cost_tokens, heard_at_us } => {
                let kept = self.buckets.get(&key).copied();
                let (kept, decision) = bucket::take(self.limit, kept, cost_tokens, at_us);
                self.keep(key, kept);
                let verdict = told(decision);
                let heard =
                    Event::Hear { asked_at_us, asker, key, cost_tokens, decided_at_us: at_us, verdict };
                self.events.push(Reverse((heard_at_us, heard)));
            }
            Event::Hear { asked_at_us, asker, key, cost_tokens, decided_at_us, verdict } => {
                let (allowed, remaining, retry_after_us, full_after_us) = verdict;
                if !allowed {
                    let outcome = if retry_after_us.is_some() { Outcome::Denied } else { Outcome::NeverFits };
                    let verdict =
                        BucketVerdict { outcome, remaining, retry_after_us, full_after_us, overridden: None };
                    let heard = Heard { verdict, heard_at_us: at_us, decided_at_us };
                    self.askers[asker].insert(key, cost_tokens, retry_after_us, asked_at_us, heard);
                }
            }
        }
    }

    fn keep(&mut self, key: u8, kept: Option<Bucket>) {
        self.buckets.remove(&key);
        self.buckets.extend(kept.map(|kept| (key, kept)));
    }
}

fn told(decision: Decision) -> Told {
    let Decision { outcome, remaining_tokens, full_after_us } = decision;
    match outcome {
        bucket::Outcome::Allowed => (true, remaining_tokens, Some(0), full_after_us),
        bucket::Outcome::Denied { retry_after_us } => {
            (false, remaining_tokens, Some(retry_after_us), full_after_us)
        }
        bucket::Outcome::NeverFits => (false, remaining_tokens, None, full_after_us),
    }
}

fn limits() -> impl Strategy<Value = Limit> {
    (1..50_u64, 1..120_000_000_u64, 1..6_u64)
        .prop_map(|(tokens, period_us, burst)| Limit::new(tokens, period_us, burst).expect("valid"))
}

/// Pauses and delays around what a token takes, shorter for the most part.
fn steps(what: impl Strategy<Value = What>) -> impl Strategy<Value = Vec<Step>> {
    let share = || prop_oneof![3 => 0.0..0.3_f64, 1 => 0.0..2.0_f64];
    let step = (share(), 0..3_usize, 0..4_u8, 0..8_u64, share(), share(), what).prop_map(
        |(pause, asker, key, cost_tokens, to_decide, to_hear, what)| Step {
            pause,
            asker,
            key: key / 2,
            cost_tokens,
            to_decide,
            to_hear,
            what,
        },
    );
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whoever takes what and whenever it is heard: what is denied from memory would be denied by the store.
    #[test]
    fn what_is_answered_from_memory_is_what_the_store_would_answer(
        limit in limits(), entries in 1..5_usize, ceiling in 0.0..4.0_f64, steps in steps(Just(What::Take)),
    ) {
        let ceiling_us = (ceiling * limit.period_us() as f64 / limit.tokens() as f64) as u64;
        World::new(limit, 3, entries, ceiling_us).play(&steps)?;
    }

    /// What is returned and a limit that changes are seen once the ceiling is over, and not later.
    #[test]
    fn what_is_returned_is_seen_within_the_ceiling(
        limit in limits(), entries in 1..5_usize, ceiling in 0.0..4.0_f64,
        steps in steps(prop_oneof![8 => Just(What::Take), 2 => Just(What::Refund), 1 => Just(What::Burst)]),
    ) {
        let ceiling_us = (ceiling * limit.period_us() as f64 / limit.tokens() as f64) as u64;
        World::new(limit, 3, entries, ceiling_us).play(&steps)?;
    }
}

/// The properties would hold where nothing is ever remembered: it is, for as long as it may be.
#[test]
fn a_repeat_is_answered_from_memory_until_the_last_microsecond() {
    let limit = Limit::new(1, 1_000, 1).expect("valid");
    let mut world = World::new(limit, 1, 4, u64::MAX);
    let step = |pause| Step {
        pause,
        asker: 0,
        key: 0,
        cost_tokens: 1,
        to_decide: 0.0,
        to_hear: 0.0,
        what: What::Take,
    };
    // Taken at 0, denied at 1 (decided at the next step), and again from memory up to 999; asked again at 1000.
    world.play(&[step(0.0), step(0.001), step(0.001), step(0.997), step(0.001)]).expect("holds");
    assert_eq!(world.answered_from_memory, 2);
}
