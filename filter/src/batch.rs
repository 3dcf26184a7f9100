//! Who waits for the next callout, and who is on the way: natural batching, without a clock and without Envoy.
//!
//! While fewer than [`MAX_IN_FLIGHT`] callouts are on the way a batch leaves at once, with everything that waits.
//! What arrives meanwhile waits for the next. So a lone request never waits, and under load the batches grow.

use std::collections::{HashMap, VecDeque};

/// How many callouts may be on the way at once.
pub const MAX_IN_FLIGHT: usize = 1;

/// How many may wait; more than that has no hope of an answer in time.
pub const MAX_WAITING: usize = 8_192;

/// The most buckets that one callout asks, unless a single request asks more.
pub const MAX_BUCKETS: usize = 1_024;

/// Something that waits for a decision.
pub trait Waiting {
    /// Whether nobody waits for it any more.
    fn is_gone(&self) -> bool;
    /// How many buckets it asks.
    fn buckets(&self) -> usize;
}

/// The queue of one worker. `T` is what waits; callouts are known by the token that Envoy gave them.
#[derive(Debug)]
pub struct Batcher<T> {
    waiting: VecDeque<T>,
    in_flight: HashMap<u32, Vec<T>>,
}

impl<T> Default for Batcher<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), in_flight: HashMap::new() }
    }
}

impl<T: Waiting> Batcher<T> {
    /// Lets `item` wait for the next callout.
    ///
    /// # Errors
    /// Gives the item back where too many wait.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(item);
        }
        self.waiting.push_back(item);
        Ok(())
    }

    /// Whether a batch may leave now, if anything waits.
    fn may_send(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT
    }

    /// The batch that may leave now, oldest first, and how many were dropped because nobody waits for them any
    /// more; an empty batch where nothing may leave.
    pub fn next(&mut self) -> (Vec<T>, usize) {
        let mut batch = Vec::new();
        let (mut buckets, mut dropped) = (0_usize, 0_usize);
        if !self.may_send() {
            return (batch, dropped);
        }
        while let Some(item) = self.waiting.pop_front() {
            if item.is_gone() {
                dropped = dropped.saturating_add(1);
                continue;
            }
            buckets = buckets.saturating_add(item.buckets());
            let full = buckets > MAX_BUCKETS || batch.len() >= contract::MAX_TAKES;
            if full && !batch.is_empty() {
                self.waiting.push_front(item);
                break;
            }
            batch.push(item);
        }
        (batch, dropped)
    }

    /// Notes that `batch` is on the way as the callout `token`.
    pub fn sent(&mut self, token: u32, batch: Vec<T>) {
        self.in_flight.insert(token, batch);
    }

    /// The batch of the callout that has come back; empty for one that is not known.
    pub fn arrived(&mut self, token: u32) -> Vec<T> {
        self.in_flight.remove(&token).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic: that is how it fails")]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Item {
        name: u32,
        gone: bool,
        buckets: usize,
    }

    impl Waiting for Item {
        fn is_gone(&self) -> bool {
            self.gone
        }

        fn buckets(&self) -> usize {
            self.buckets
        }
    }

    fn item(name: u32) -> Item {
        Item { name, gone: false, buckets: 1 }
    }

    fn names(batch: &[Item]) -> Vec<u32> {
        batch.iter().map(|item| item.name).collect()
    }

    #[test]
    fn the_first_leaves_at_once_and_what_arrives_meanwhile_shares_the_next() {
        let mut batcher = Batcher::default();
        batcher.push(item(1)).unwrap();
        let (batch, _) = batcher.next();
        assert_eq!(names(&batch), [1]);
        batcher.sent(7, batch);
        for name in 2..5 {
            batcher.push(item(name)).unwrap();
            assert_eq!(batcher.next(), (vec![], 0), "one is on the way");
        }
        assert_eq!(names(&batcher.arrived(7)), [1]);
        assert_eq!(names(&batcher.next().0), [2, 3, 4], "oldest first");
    }

    #[test]
    fn who_has_gone_before_it_was_sent_is_dropped_and_counted() {
        let mut batcher = Batcher::default();
        batcher.push(Item { gone: true, ..item(1) }).unwrap();
        batcher.push(item(2)).unwrap();
        batcher.push(Item { gone: true, ..item(3) }).unwrap();
        let (batch, dropped) = batcher.next();
        assert_eq!((names(&batch), dropped), (vec![2], 2));
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let mut batcher = Batcher::default();
        batcher.push(Item { buckets: MAX_BUCKETS + 1, ..item(1) }).unwrap();
        batcher.push(Item { buckets: MAX_BUCKETS, ..item(2) }).unwrap();
        batcher.push(item(3)).unwrap();
        for expected in 1..4 {
            let (batch, _) = batcher.next();
            assert_eq!(names(&batch), [expected]);
            batcher.sent(expected, batch);
            assert_eq!(batcher.arrived(expected).len(), 1);
        }
    }

    #[test]
    fn too_many_are_given_back() {
        let mut batcher = Batcher::default();
        for name in 0..u32::try_from(MAX_WAITING).unwrap() {
            batcher.push(item(name)).unwrap();
        }
        assert_eq!(batcher.push(item(9)), Err(item(9)));
    }

    #[test]
    fn an_unknown_token_is_nobodys() {
        assert_eq!(Batcher::<Item>::default().arrived(3), vec![]);
    }
}
