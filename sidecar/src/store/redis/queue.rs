//! What waits for Redis, and what of it the next run decides: a large request waits for itself, not others for it.

use std::{collections::VecDeque, sync::Arc};

use contract::{FailureReason, MAX_BUCKETS, Verdict};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{lanes::Lane, redirect::Redirect};
use crate::{
    batch::{Batch, Take},
    store::{Answer, script},
};

/// The most buckets of one run, which Redis decides in about 3 ms while others wait. A request with more is decided
/// in several runs, in order.
const BUCKETS_PER_RUN: usize = 1024;

/// The buckets that each request may have decided before the others have had their turn: the least that holds any take
/// and those that follow it.
const BUCKETS_PER_TURN: usize = MAX_BUCKETS;
const _: () = assert!(BUCKETS_PER_TURN <= BUCKETS_PER_RUN && BUCKETS_PER_RUN <= script::MAX_KEYS);

/// A batch that waits, or of which a part is under way. It is answered when it is dropped, with what was decided by then:
/// the rest has failed.
#[derive(Debug)]
pub(super) struct Job {
    /// With which others it may be in a run.
    lane: Lane,
    takes: Vec<Take>,
    /// Of the first takes, as many as were decided.
    verdicts: Vec<Verdict>,
    /// When the last of them were, by the store's clock.
    now_us: Option<u64>,
    /// Who decides the rest, where a node of a Cluster said that it does not.
    redirect: Option<Redirect>,
    /// Closed once nobody waits any more: what was not sent by then is dropped and takes nothing.
    answer: Option<oneshot::Sender<Outcome>>,
    /// Given back with the last job of a request.
    place: Place,
}

/// Tells requests that wait apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestId(usize);

/// Room among what may wait, for all jobs of a request.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

/// What became of a job.
#[derive(Debug)]
pub(super) struct Outcome {
    /// When the last of what was decided was; nothing where nothing was.
    pub(super) now_us: Option<u64>,
    /// Of the first takes, as many as were decided.
    pub(super) verdicts: Vec<Verdict>,
    /// Who decides the others, and these: they were certainly not executed. Otherwise nothing is known of them.
    pub(super) redirect: Option<(Redirect, Vec<Take>)>,
}

impl Outcome {
    /// What of `takes` takes is not decided has failed; this process's time where nothing was decided.
    pub(super) fn into_answer(mut self, takes: usize, now_us: impl FnOnce() -> u64) -> Answer {
        self.verdicts.resize(takes, Verdict::Failed(FailureReason::StoreUnavailable));
        Answer { now_us: self.now_us.unwrap_or_else(now_us), verdicts: self.verdicts }
    }
}

impl Job {
    pub(super) fn new(lane: Lane, batch: Batch, answer: oneshot::Sender<Outcome>, place: Place) -> Self {
        let verdicts = Vec::with_capacity(batch.takes.len());
        Self { lane, takes: batch.takes, verdicts, now_us: None, redirect: None, answer: Some(answer), place }
    }

    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    /// Of which request it is: the jobs of one have one place, which no other has before they are gone.
    pub(super) fn request(&self) -> RequestId {
        RequestId(Arc::as_ptr(&self.place).addr())
    }

    fn is_given_up(&self) -> bool {
        self.answer.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let verdicts = std::mem::take(&mut self.verdicts);
        let redirect = self.redirect.take().map(|redirect| (redirect, self.takes.split_off(verdicts.len())));
        // Whoever asked may have gone, and then needs no answer.
        let _ = answer.send(Outcome { now_us: self.now_us, verdicts, redirect });
    }
}

/// The next takes of a job, which one run decides.
#[derive(Debug)]
pub(super) struct Part {
    job: Job,
    /// The place behind its last take.
    until: usize,
}

impl Part {
    fn of(job: Job) -> Self {
        let until = job.verdicts.len();
        Self { job, until }
    }

    pub(super) fn takes(&self) -> &[Take] {
        &self.job.takes[self.job.verdicts.len()..self.until]
    }

    pub(super) fn lane(&self) -> Lane {
        self.job.lane
    }

    /// Tells that it was not executed, and who decides it.
    pub(super) fn redirected(mut self, redirect: Redirect) {
        self.job.redirect = Some(redirect);
    }

    /// Adds the takes that come next, each with those that follow it, up to `room` buckets; how many buckets.
    fn extend(&mut self, room: usize) -> usize {
        let mut added = 0;
        for led in self.job.takes[self.until..].chunk_by(|_, next| next.follows) {
            let buckets: usize = led.iter().map(|take| take.buckets.len()).sum();
            if added + buckets > room {
                break;
            }
            added += buckets;
            self.until += led.len();
        }
        added
    }

    /// Takes its verdicts from those of the run, and gives the job back where more of it waits; otherwise it is answered.
    pub(super) fn decided(
        mut self,
        now_us: u64,
        verdicts: &mut impl Iterator<Item = Verdict>,
    ) -> Option<Job> {
        let count = self.until - self.job.verdicts.len();
        self.job.verdicts.extend(verdicts.take(count));
        self.job.now_us = self.job.now_us.max(Some(now_us));
        (self.until < self.job.takes.len()).then_some(self.job)
    }
}

/// The jobs that wait, in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Job>);

impl Queue {
    pub(super) fn push(&mut self, job: Job) {
        self.0.push_back(job);
    }

    pub(super) fn pop(&mut self) -> Option<Job> {
        self.0.pop_front()
    }

    /// Drops what nobody waits for any more, whose places others may have.
    pub(super) fn forget_given_up(&mut self) {
        self.0.retain(|job| !job.is_given_up());
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Of which request the first is.
    pub(super) fn first_request(&self) -> Option<RequestId> {
        self.0.front().map(Job::request)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first job that somebody waits for, by itself; empty where there is none.
    pub(super) fn next_alone(&mut self) -> Vec<Part> {
        while let Some(job) = self.0.pop_front() {
            if job.is_given_up() {
                continue;
            }
            let mut part = Part::of(job);
            part.extend(BUCKETS_PER_RUN);
            return vec![part];
        }
        Vec::new()
    }

    /// What the next run decides: of each job in turn a few takes, and then more of those that have more, up to the
    /// buckets of a run. Empty where nothing waits that somebody waits for.
    ///
    /// Whoever has had no turn stays in front, so that nobody waits for more than one turn of each of the others.
    pub(super) fn next_run(&mut self) -> Vec<Part> {
        let mut room = BUCKETS_PER_RUN;
        let mut parts = Vec::with_capacity(self.0.len());
        while let Some(job) = self.0.pop_front() {
            if job.is_given_up() {
                continue;
            }
            let mut part = Part::of(job);
            let added = part.extend(room.min(BUCKETS_PER_TURN));
            if added == 0 {
                self.0.push_front(part.job);
                return parts;
            }
            room -= added;
            parts.push(part);
        }
        loop {
            let before = room;
            for part in &mut parts {
                room -= part.extend(room.min(BUCKETS_PER_TURN));
            }
            if room == before {
                return parts;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bucket::{Kind, Limit};
    use proptest::prelude::*;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::batch::Ask;

    fn take(buckets: usize, follows: bool) -> Take {
        let limit = Limit::new(1, 1, 1).expect("valid");
        let ask = Ask { bucket_key: "k".to_owned(), limit, cost_tokens: 1 };
        Take { buckets: vec![ask; buckets], kind: Kind::Take, follows }
    }

    fn job(takes: Vec<Take>) -> (Job, oneshot::Receiver<Outcome>) {
        let place = Arc::new(Semaphore::new(1)).try_acquire_many_owned(1).expect("a place");
        let (answer, answered) = oneshot::channel();
        (Job::new(Lane::Any, Batch { takes }, answer, Arc::new(place)), answered)
    }

    fn bucket_count(takes: &[Take]) -> usize {
        takes.iter().map(|take| take.buckets.len()).sum()
    }

    /// Decides a run; what is not finished waits again.
    fn decide(queue: &mut Queue, parts: Vec<Part>, now_us: u64) {
        for part in parts {
            let mut verdicts = vec![Verdict::Allowed(Vec::new()); part.takes().len()].into_iter();
            queue.0.extend(part.decided(now_us, &mut verdicts));
        }
    }

    #[test]
    fn a_large_request_is_decided_in_runs_and_no_take_is_cut() {
        let sizes = |takes: Vec<Take>| {
            let (mut queue, (job, _answered)) = (Queue::default(), job(takes));
            queue.push(job);
            let mut sizes = Vec::new();
            loop {
                let parts = queue.next_run();
                if parts.is_empty() {
                    return sizes;
                }
                sizes.extend(parts.iter().map(|part| part.takes().len()));
                decide(&mut queue, parts, 1);
            }
        };
        let mut takes = vec![take(15, false); 100];
        assert_eq!(
            sizes(takes.clone()),
            [68, 32],
            "68 × 15 = 1020 buckets, and the next take would make 1035"
        );
        takes[68].follows = true;
        assert_eq!(sizes(takes.clone()), [67, 33], "the last one would be cut from the one that follows it");
        takes[67].follows = true;
        assert_eq!(sizes(takes.clone()), [66, 34], "and so would the one that both follow");
        takes[68].follows = false;
        assert_eq!(sizes(takes), [68, 32], "which here are in one run");
    }

    #[test]
    fn what_was_decided_is_told_where_the_rest_fails() {
        let (mut queue, (job, mut answered)) = (Queue::default(), job(vec![take(64, false); 17]));
        queue.push(job);
        let parts = queue.next_run();
        decide(&mut queue, parts, 5);
        drop(queue.next_run());
        let answer = answered.try_recv().expect("answered").into_answer(17, || panic!("it was decided"));
        assert_eq!(answer.now_us, 5);
        assert_eq!(answer.verdicts[15], Verdict::Allowed(Vec::new()));
        assert_eq!(answer.verdicts[16..], [Verdict::Failed(FailureReason::StoreUnavailable)]);
    }

    /// Sizes of a leader and of those that follow it, 64 buckets together at most.
    fn led() -> impl Strategy<Value = Vec<usize>> {
        prop_oneof![
            6 => Just(vec![1]),
            2 => prop::collection::vec(1..16_usize, 1..4),
            1 => Just(vec![64]),
        ]
    }

    fn takes_of(led: &[Vec<usize>]) -> Vec<Take> {
        let takes = led.iter().flat_map(|sizes| sizes.iter().enumerate());
        takes.map(|(place, &size)| take(size, place > 0)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever waits, and whoever gives up: runs are full and not fuller, every take is in one of them, in its
        /// request's order and with those that follow it, and nobody waits for more than a turn of each other request.
        #[test]
        fn everyone_has_a_turn_and_every_take_is_sent_once(
            jobs in prop::collection::vec((prop::collection::vec(led(), 1..300), prop::bool::weighted(0.1)), 1..60),
        ) {
            let mut queue = Queue::default();
            let mut answers = Vec::new();
            for (led, gives_up) in &jobs {
                let (job, answered) = job(takes_of(led));
                queue.push(job);
                answers.push((!gives_up).then_some(answered));
            }
            let turns = jobs.len() * BUCKETS_PER_TURN;
            let mut now_us = 0;
            loop {
                let waited: Vec<(usize, usize)> = queue.0.iter().map(|job| (job.verdicts.len(), job.takes.len())).collect();
                let parts = queue.next_run();
                if parts.is_empty() {
                    break;
                }
                now_us += 1;
                let sent: usize = parts.iter().map(|part| bucket_count(part.takes())).sum();
                prop_assert!(sent <= BUCKETS_PER_RUN);
                for part in &parts {
                    prop_assert!(!part.takes().is_empty());
                    prop_assert!(!part.takes()[0].follows, "cut from the one that it follows");
                    prop_assert!(part.job.takes.get(part.until).is_none_or(|next| !next.follows), "cut from a follower");
                    prop_assert!(!part.job.is_given_up());
                    let alone = waited.len() == 1;
                    let more = bucket_count(part.takes()) > BUCKETS_PER_TURN;
                    prop_assert!(alone || !more || queue.0.is_empty(), "a second turn before others had their first");
                }
                // What is left waits for room that a turn needs.
                prop_assert!(queue.0.is_empty() || sent + BUCKETS_PER_TURN > BUCKETS_PER_RUN, "room was left");
                decide(&mut queue, parts, now_us);
                // Nobody waits for longer than it takes to give each a turn.
                let first_turns = turns.div_ceil(BUCKETS_PER_RUN - BUCKETS_PER_TURN) as u64;
                if now_us == first_turns {
                    prop_assert!(queue.0.iter().all(|job| !job.verdicts.is_empty()), "no turn in {} runs", now_us);
                }
            }
            for (answered, (led, _)) in answers.into_iter().zip(&jobs) {
                let Some(mut answered) = answered else { continue };
                let answer = answered.try_recv().expect("answered");
                prop_assert_eq!(answer.verdicts.len(), led.iter().map(Vec::len).sum::<usize>());
            }
        }
    }
}
