//! Who may share a run with whom: in one Redis all, in a Redis Cluster those whose keys are in one slot.
//!
//! Each lane batches by itself: few of its runs are under way at a time, and what arrives meanwhile shares the next.
//! The lanes take turns.

use std::collections::{HashMap, VecDeque};

use super::queue::{Job, Part, Queue};

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
    /// Each of these has a turn of its own.
    alone: Queue,
    turns: VecDeque<Lane>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: Queue,
    /// Runs that are under way.
    flying: usize,
    has_turn: bool,
}

impl Lanes {
    pub(super) fn new(in_flight: usize) -> Self {
        let (lines, turns) = (HashMap::new(), VecDeque::new());
        Self { in_flight: in_flight.max(1), lines, alone: Queue::default(), turns }
    }

    pub(super) fn push(&mut self, job: Job) {
        let lane = job.lane();
        if matches!(lane, Lane::Alone { .. }) {
            self.alone.push(job);
            self.turns.push_back(lane);
            return;
        }
        let line = self.lines.entry(lane).or_default();
        line.waiting.push(job);
        if !line.has_turn && line.flying < self.in_flight {
            line.has_turn = true;
            self.turns.push_back(lane);
        }
    }

    /// Drops what nobody waits for any more.
    pub(super) fn forget_given_up(&mut self) {
        self.alone.forget_given_up();
        self.lines.values_mut().for_each(|line| line.waiting.forget_given_up());
    }

    /// Any job that waits.
    pub(super) fn pop(&mut self) -> Option<Job> {
        if let Some(job) = self.alone.pop() {
            return Some(job);
        }
        let lane = *self.lines.iter().find(|(_, line)| !line.waiting.is_empty())?.0;
        let line = self.lines.get_mut(&lane)?;
        let job = line.waiting.pop();
        if line.waiting.is_empty() && line.flying == 0 {
            self.lines.remove(&lane);
        }
        job
    }

    /// What the next run decides: of the lane whose turn it is. Empty where nothing may be sent now.
    pub(super) fn next_run(&mut self) -> Vec<Part> {
        while let Some(lane) = self.turns.pop_front() {
            let parts = match self.lines.get_mut(&lane) {
                Some(line) => line.next_run(),
                None => self.alone.next_alone(),
            };
            if let Some(line) = self.lines.get_mut(&lane) {
                line.has_turn = !line.waiting.is_empty() && line.flying < self.in_flight;
                if line.has_turn {
                    self.turns.push_back(lane);
                } else if line.flying == 0 {
                    self.lines.remove(&lane);
                }
            }
            if !parts.is_empty() {
                return parts;
            }
        }
        Vec::new()
    }

    /// A run of the lane is no longer under way.
    pub(super) fn land(&mut self, lane: Lane) {
        let Some(line) = self.lines.get_mut(&lane) else { return };
        line.flying = line.flying.saturating_sub(1);
        if line.waiting.is_empty() {
            if line.flying == 0 {
                self.lines.remove(&lane);
            }
        } else if !line.has_turn {
            line.has_turn = true;
            self.turns.push_back(lane);
        }
    }

    /// No run is under way any more.
    pub(super) fn ground(&mut self) {
        let waiting = std::iter::from_fn(|| self.pop()).collect::<Vec<_>>();
        self.turns.clear();
        self.lines.clear();
        waiting.into_iter().for_each(|job| self.push(job));
    }
}

impl Line {
    fn next_run(&mut self) -> Vec<Part> {
        let parts = self.waiting.next_run();
        self.flying += usize::from(!parts.is_empty());
        parts
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
        store::redis::queue::Outcome,
    };

    fn push(lanes: &mut Lanes, lane: Lane) -> oneshot::Receiver<Outcome> {
        let limit = Limit::new(1, 1, 1).expect("valid");
        let buckets = vec![Ask { bucket_key: "k".to_owned(), limit, cost_tokens: 1 }];
        let batch = Batch { takes: vec![Take { buckets, kind: Kind::Take, follows: false }] };
        let place = Arc::new(Semaphore::new(1)).try_acquire_many_owned(1).expect("a place");
        let (answer, answered) = oneshot::channel();
        lanes.push(Job::new(lane, batch, answer, Arc::new(place)));
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
