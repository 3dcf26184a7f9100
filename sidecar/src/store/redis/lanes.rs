//! Who may share a run with whom: in one Redis all, in a Redis Cluster those whose keys are in one slot.
//!
//! Each lane batches by itself: few of its runs are under way at a time, and what arrives meanwhile shares the next.
//! Requests take turns, and at each a request has one of its lanes run, with whatever else waits in that lane: on a
//! Cluster a large request is in thousands of lanes, and nobody waits for all of them.

use std::collections::{HashMap, VecDeque};

use super::queue::{Job, Part, Queue, RequestId};

/// Jobs of one lane may be in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// One Redis has every key.
    Any,
    /// A slot of a Redis Cluster.
    Slot(u16),
    /// Those of a slot that only look, by a question that nobody else asks.
    Looks(u16),
    /// A run of its own: what is special about it is nobody else's.
    Alone {
        /// The node is only about to have the slot, and decides what says that it knows that.
        asking: bool,
    },
}

impl Lane {
    /// Whether what is answered tells what another would be.
    pub(super) fn teaches(self) -> bool {
        !matches!(self, Self::Looks(_))
    }
}

/// The jobs that wait, by their lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The most runs of a lane that are under way at a time.
    in_flight: usize,
    lines: HashMap<Lane, Line>,
    /// Of each request those with a run of their own.
    alone: HashMap<RequestId, Queue>,
    /// Of each request the lanes that it has turns for, one for each job at most.
    turns: HashMap<RequestId, VecDeque<Lane>>,
    /// The requests that have any, each once.
    order: VecDeque<RequestId>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: Queue,
    /// Runs that are under way.
    flying: usize,
    /// How many requests have a turn for it. Each line has one that has something waiting and may have it run.
    turns: usize,
}

impl Lanes {
    pub(super) fn new(in_flight: usize) -> Self {
        let (lines, alone, turns) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { in_flight: in_flight.max(1), lines, alone, turns, order: VecDeque::new() }
    }

    pub(super) fn push(&mut self, job: Job) {
        let (lane, request) = (job.lane(), job.request());
        if matches!(lane, Lane::Alone { .. }) {
            self.alone.entry(request).or_default().push(job);
        } else {
            let line = self.lines.entry(lane).or_default();
            line.waiting.push(job);
            // Otherwise it has one when a run of it lands.
            if line.flying >= self.in_flight {
                return;
            }
            line.turns += 1;
        }
        self.turns_of(request).push_back(lane);
    }

    /// Drops what nobody waits for any more.
    pub(super) fn forget_given_up(&mut self) {
        self.alone.values_mut().for_each(Queue::forget_given_up);
        self.lines.values_mut().for_each(|line| line.waiting.forget_given_up());
    }

    /// Any job that waits.
    pub(super) fn pop(&mut self) -> Option<Job> {
        while let Some((request, lane)) = self.next_turn() {
            let job = match self.lines.get_mut(&lane) {
                Some(line) => line.waiting.pop(),
                None => self.alone.get_mut(&request).and_then(Queue::pop),
            };
            self.tidy(request, lane);
            if job.is_some() {
                return job;
            }
        }
        // What is left are the few lanes of which as much as may is under way.
        let lane = *self.lines.iter().find(|(_, line)| !line.waiting.is_empty())?.0;
        self.lines.get_mut(&lane)?.waiting.pop()
    }

    /// What the next run decides. Empty where nothing may be sent now.
    pub(super) fn next_run(&mut self) -> Vec<Part> {
        while let Some((request, lane)) = self.next_turn() {
            let parts = match self.lines.get_mut(&lane) {
                Some(line) if line.flying >= self.in_flight => Vec::new(),
                Some(line) => line.next_run(),
                None => self.alone.get_mut(&request).map_or_else(Vec::new, Queue::next_alone),
            };
            self.tidy(request, lane);
            if !parts.is_empty() {
                return parts;
            }
            // That was none: its job was in the run of another's turn.
            if self.order.back() == Some(&request) {
                self.order.rotate_right(1);
            }
        }
        Vec::new()
    }

    /// A run of the lane is no longer under way.
    pub(super) fn land(&mut self, lane: Lane) {
        let Some(line) = self.lines.get_mut(&lane) else { return };
        line.flying = line.flying.saturating_sub(1);
        match line.waiting.first_request() {
            // Its turn may have passed meanwhile.
            Some(request) if line.turns <= line.waiting.len() => {
                line.turns += 1;
                self.turns_of(request).push_front(lane);
            }
            Some(_) => {}
            None if line.is_idle() => drop(self.lines.remove(&lane)),
            None => {}
        }
    }

    /// No run is under way any more.
    pub(super) fn ground(&mut self) {
        let lanes: Vec<Lane> = self.lines.keys().copied().collect();
        for lane in lanes {
            while self.lines.get(&lane).is_some_and(|line| line.flying > 0) {
                self.land(lane);
            }
        }
    }

    fn turns_of(&mut self, request: RequestId) -> &mut VecDeque<Lane> {
        self.turns.entry(request).or_insert_with(|| {
            self.order.push_back(request);
            VecDeque::new()
        })
    }

    /// Whose turn it is, and for which of its lanes.
    fn next_turn(&mut self) -> Option<(RequestId, Lane)> {
        let request = self.order.pop_front()?;
        let lanes = self.turns.get_mut(&request)?;
        let lane = lanes.pop_front()?;
        if lanes.is_empty() {
            self.turns.remove(&request);
        } else {
            self.order.push_back(request);
        }
        if let Some(line) = self.lines.get_mut(&lane) {
            line.turns = line.turns.saturating_sub(1);
        }
        Some((request, lane))
    }

    /// Forgets a lane that has nothing, and lets what waits in it have a turn, after one of it was taken.
    fn tidy(&mut self, request: RequestId, lane: Lane) {
        if let Some(line) = self.lines.get_mut(&lane) {
            match line.waiting.first_request() {
                Some(first) if line.turns == 0 && line.flying < self.in_flight => {
                    line.turns += 1;
                    self.turns_of(first).push_back(lane);
                }
                None if line.is_idle() => drop(self.lines.remove(&lane)),
                _ => {}
            }
        } else if self.alone.get(&request).is_some_and(Queue::is_empty) {
            self.alone.remove(&request);
        }
    }
}

impl Line {
    fn next_run(&mut self) -> Vec<Part> {
        let parts = self.waiting.next_run();
        self.flying += usize::from(!parts.is_empty());
        parts
    }

    /// Whether nothing is known of it.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flying == 0 && self.turns == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bucket::{Kind, Limit};
    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::{
        batch::{Ask, Batch, Take},
        store::redis::queue::{Outcome, Place},
    };

    fn push(lanes: &mut Lanes, lane: Lane) -> oneshot::Receiver<Outcome> {
        let place = Arc::new(Semaphore::new(1)).try_acquire_many_owned(1).expect("a place");
        push_of(lanes, lane, &Arc::new(place))
    }

    fn push_of(lanes: &mut Lanes, lane: Lane, request: &Place) -> oneshot::Receiver<Outcome> {
        let limit = Limit::new(1, 1, 1).expect("valid");
        let buckets = vec![Ask { bucket_key: "k".to_owned(), limit, cost_tokens: 1 }];
        let batch = Batch { takes: vec![Take { buckets, kind: Kind::Take, follows: false }] };
        let (answer, answered) = oneshot::channel();
        lanes.push(Job::new(lane, batch, answer, Arc::clone(request)));
        answered
    }

    fn next(lanes: &mut Lanes) -> Option<(Lane, usize)> {
        let parts = lanes.next_run();
        parts.first().map(|part| (part.lane(), parts.len()))
    }

    #[test]
    fn lanes_take_turns_and_share_runs_only_with_themselves() {
        let mut lanes = Lanes::new(1);
        let [a, b, asked] = [Lane::Slot(1), Lane::Slot(2), Lane::Alone { asking: true }];
        let _answers: Vec<_> =
            [a, b, a, asked, b, a, asked].into_iter().map(|lane| push(&mut lanes, lane)).collect();
        let runs: Vec<_> = std::iter::from_fn(|| next(&mut lanes)).collect();
        assert_eq!(runs, [(a, 3), (b, 2), (asked, 1), (asked, 1)]);
    }

    #[test]
    fn what_arrives_while_its_lane_is_under_way_shares_the_next_run() {
        let mut lanes = Lanes::new(1);
        let (a, b) = (Lane::Slot(1), Lane::Slot(2));
        let _first = push(&mut lanes, a);
        assert_eq!(next(&mut lanes), Some((a, 1)));
        let _later = [a, a, b].map(|lane| push(&mut lanes, lane));
        assert_eq!(next(&mut lanes), Some((b, 1)), "another lane does not wait");
        assert_eq!(next(&mut lanes), None);
        lanes.land(a);
        assert_eq!(next(&mut lanes), Some((a, 2)));
        let _last = push(&mut lanes, a);
        assert_eq!(next(&mut lanes), None);
        lanes.ground();
        assert_eq!(next(&mut lanes), Some((a, 1)), "nothing is under way any more");
        lanes.land(a);
        lanes.land(b);
        assert!(lanes.lines.is_empty(), "a lane that has nothing is forgotten");
    }

    fn places<const N: usize>() -> [Place; N] {
        std::array::from_fn(|_| {
            Arc::new(Arc::new(Semaphore::new(1)).try_acquire_many_owned(1).expect("a place"))
        })
    }

    #[test]
    fn a_small_request_waits_for_one_run_of_each_large_one() {
        let mut lanes = Lanes::new(1);
        let [one, two, small] = places();
        let mut answers = Vec::new();
        for slot in 0..2_000 {
            answers.push(push_of(&mut lanes, Lane::Slot(2 * slot), &one));
            answers.push(push_of(&mut lanes, Lane::Slot(2 * slot + 1), &two));
            answers.push(push_of(&mut lanes, Lane::Alone { asking: true }, &two));
        }
        answers.push(push_of(&mut lanes, Lane::Slot(3_999), &small));
        answers.push(push_of(&mut lanes, Lane::Slot(9_999), &small));
        answers.push(push_of(&mut lanes, Lane::Alone { asking: false }, &small));
        let runs: Vec<_> = std::iter::from_fn(|| next(&mut lanes)).collect();
        let place = |wanted| runs.iter().position(|run| *run == wanted).expect("it ran");
        assert_eq!(place((Lane::Slot(3_999), 2)), 2, "with what else waits there");
        assert_eq!(place((Lane::Slot(9_999), 1)), 5);
        assert_eq!(place((Lane::Alone { asking: false }, 1)), 8);
        assert_eq!(runs.len(), 6_002);
        // What arrives in a lane that is under way is next once that has landed.
        let _more = [(); 3].map(|()| push_of(&mut lanes, Lane::Slot(9_998), &one));
        assert_eq!(next(&mut lanes), Some((Lane::Slot(9_998), 3)));
        let _behind: Vec<_> =
            (10_000..11_000).map(|slot| push_of(&mut lanes, Lane::Slot(slot), &one)).collect();
        let _hot =
            [push_of(&mut lanes, Lane::Slot(9_998), &one), push_of(&mut lanes, Lane::Slot(9_998), &small)];
        lanes.land(Lane::Slot(9_998));
        assert_eq!(next(&mut lanes), Some((Lane::Slot(9_998), 2)));
    }

    #[test]
    fn what_only_comes_and_goes_leaves_nothing() {
        let mut lanes = Lanes::new(1);
        let _waits = push(&mut lanes, Lane::Any);
        for lane in [Lane::Any, Lane::Slot(7), Lane::Alone { asking: true }] {
            for _ in 0..1_000 {
                let _answer = push(&mut lanes, lane);
                assert!(lanes.pop().is_some());
                assert!(lanes.order.len() <= 2 && lanes.turns.len() <= 2, "{lanes:?}");
            }
        }
        assert!(lanes.pop().is_some() && lanes.pop().is_none());
        // Likewise where runs are under way, and where nobody waits.
        for _ in 0..1_000 {
            let _answers = [(); 3].map(|()| push(&mut lanes, Lane::Any));
            assert!(!lanes.next_run().is_empty());
            drop(push(&mut lanes, Lane::Any));
            lanes.forget_given_up();
            lanes.land(Lane::Any);
        }
        assert!(lanes.next_run().is_empty());
        assert!(lanes.lines.is_empty() && lanes.order.is_empty() && lanes.turns.is_empty(), "{lanes:?}");
    }

    #[test]
    fn what_nobody_waits_for_is_passed_over() {
        let mut lanes = Lanes::new(1);
        for lane in [Lane::Slot(1), Lane::Alone { asking: false }] {
            drop(push(&mut lanes, lane));
        }
        let _waits = push(&mut lanes, Lane::Slot(2));
        assert_eq!(next(&mut lanes), Some((Lane::Slot(2), 1)));
        assert_eq!(next(&mut lanes), None);
        assert!(lanes.pop().is_none());
    }
}
