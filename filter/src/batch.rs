//! Who waits for the next callout, and who is on the way: natural batching, without a clock and without Envoy.
//!
//! While fewer callouts are on the way than is configured, one by default, a batch leaves at once, with everything that
//! waits. What arrives meanwhile waits for the next; once that is full it leaves, too. So a lone request never waits,
//! under load the batches grow, and nobody waits for more than one callout and its own.

use std::collections::HashMap;

/// The most requests that wait for the answer of one callout. Envoy sends the replies to a batch from within each other,
/// each deeper on the stack that it shares with the filter: 300 at once were well, 400 were a trap.
pub const MAX_REPLIES: usize = 100;

/// The most buckets that one callout asks: what a store decides at once.
pub const MAX_BUCKETS: usize = 1_024;

/// The most bytes of keys in one callout: what a hundred long ones have. Longer ones fill a batch earlier.
pub const MAX_KEY_BYTES: usize = 16 << 10;

/// The most callouts on the way. Those beyond the first are full, so there are more than one only under load.
pub const MAX_CALLOUTS: usize = 32;

/// Something that waits for a callout.
pub trait Waiting {
    /// Whether it is not to be sent any more.
    fn is_gone(&self) -> bool;
    /// What it adds to a callout.
    fn load(&self) -> Load;
}

/// What a callout carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait for the answer.
    pub replies: usize,
    /// Takes, of which a sidecar accepts no more than the contract says.
    pub takes: usize,
    /// Buckets that are asked.
    pub buckets: usize,
    /// Bytes of their keys.
    pub key_bytes: usize,
}

/// The queue of one worker. `T` is what waits; callouts are known by the token that Envoy gave them.
#[derive(Debug)]
pub struct Batcher<T> {
    waiting: Vec<T>,
    load: Load,
    /// Whether what waits leaves though a callout is on the way.
    full: bool,
    /// How many callouts are on the way before what is not full waits.
    most_in_flight: usize,
    in_flight: HashMap<u32, Sent<T>>,
    /// Those that were dropped and not yet told of.
    dropped: usize,
}

/// A callout on the way.
#[derive(Debug, PartialEq)]
pub struct Sent<T> {
    /// What it carries, oldest first.
    pub batch: Vec<T>,
    /// When it was sent, by the worker's clock.
    pub at_us: u64,
}

impl Load {
    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            replies: self.replies.saturating_add(other.replies),
            takes: self.takes.saturating_add(other.takes),
            buckets: self.buckets.saturating_add(other.buckets),
            key_bytes: self.key_bytes.saturating_add(other.key_bytes),
        }
    }
}

impl<T: Waiting> Batcher<T> {
    /// An empty queue. With so many callouts on the way, at least one, what arrives waits for the next.
    pub fn new(most_in_flight: usize) -> Self {
        Self {
            waiting: Vec::new(),
            load: Load::default(),
            full: false,
            most_in_flight: most_in_flight.max(1),
            in_flight: HashMap::new(),
            dropped: 0,
        }
    }

    /// Lets `item` wait for the next callout.
    ///
    /// # Errors
    /// Gives the item back where the next callout can carry no more: it may leave now, see [`Batcher::next`].
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let load = item.load();
        if !self.has_room_for(load) {
            self.drop_gone();
            if !self.has_room_for(load) {
                self.full = true;
                return Err(item);
            }
        }
        self.load = self.load.with(load);
        self.waiting.push(item);
        self.full |= self.load.replies >= MAX_REPLIES;
        Ok(())
    }

    /// The batch that may leave now, oldest first; empty where nothing waits or none may leave.
    pub fn next(&mut self) -> Vec<T> {
        let on_the_way = self.in_flight.len();
        if on_the_way >= MAX_CALLOUTS || (on_the_way >= self.most_in_flight && !self.full) {
            return Vec::new();
        }
        self.take_waiting()
    }

    /// All that waits, oldest first, whatever is on the way: it is not to be sent.
    pub fn take_waiting(&mut self) -> Vec<T> {
        self.drop_gone();
        (self.load, self.full) = (Load::default(), false);
        std::mem::take(&mut self.waiting)
    }

    /// Whether what nobody waits for may be added, too: little is on the way, and the next callout is not half full.
    pub fn has_room_to_spare(&self) -> bool {
        self.in_flight.len() <= self.most_in_flight
            && self.load.takes < MAX_REPLIES
            && self.load.buckets < MAX_BUCKETS >> 1
            && self.load.key_bytes < MAX_KEY_BYTES >> 1
    }

    /// How many were dropped since this was last asked, because they were not to be sent any more.
    pub fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    /// Notes that `batch` is on the way as the callout `token`, sent at `at_us`.
    pub fn sent(&mut self, token: u32, batch: Vec<T>, at_us: u64) {
        self.in_flight.insert(token, Sent { batch, at_us });
    }

    /// The callout that has come back; `None` for one that is not known.
    pub fn arrived(&mut self, token: u32) -> Option<Sent<T>> {
        self.in_flight.remove(&token)
    }

    /// A lone item always has room.
    fn has_room_for(&self, more: Load) -> bool {
        let load = self.load.with(more);
        let fits = load.replies <= MAX_REPLIES
            && load.takes <= contract::MAX_TAKES
            && load.buckets <= MAX_BUCKETS
            && load.key_bytes <= MAX_KEY_BYTES;
        self.waiting.is_empty() || fits
    }

    fn drop_gone(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|item| !item.is_gone());
        self.dropped = self.dropped.saturating_add(before.saturating_sub(self.waiting.len()));
        self.load = self.waiting.iter().fold(Load::default(), |load, item| load.with(item.load()));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Item {
        name: usize,
        gone: bool,
        load: Load,
    }

    impl Waiting for Item {
        fn is_gone(&self) -> bool {
            self.gone
        }

        fn load(&self) -> Load {
            self.load
        }
    }

    fn item(name: usize) -> Item {
        Item { name, gone: false, load: Load { replies: 1, takes: 1, buckets: 1, key_bytes: 30 } }
    }

    fn gone(name: usize) -> Item {
        Item { gone: true, ..item(name) }
    }

    fn names(batch: &[Item]) -> Vec<usize> {
        batch.iter().map(|item| item.name).collect()
    }

    #[test]
    fn the_first_leaves_at_once_and_what_arrives_meanwhile_shares_the_next() {
        let mut batcher = Batcher::new(1);
        batcher.push(item(1)).unwrap();
        let batch = batcher.next();
        assert_eq!(names(&batch), [1]);
        batcher.sent(7, batch, 0);
        for name in 2..5 {
            batcher.push(item(name)).unwrap();
            assert_eq!(batcher.next(), [], "one is on the way");
        }
        assert_eq!(names(&batcher.arrived(7).unwrap().batch), [1]);
        assert_eq!(names(&batcher.next()), [2, 3, 4], "oldest first");
    }

    #[test]
    fn more_may_be_on_the_way_before_others_wait() {
        let mut batcher = Batcher::new(2);
        for token in 1..=2 {
            batcher.push(item(1)).unwrap();
            let batch = batcher.next();
            assert_eq!(batch.len(), 1, "it leaves at once");
            batcher.sent(token, batch, u64::from(token));
        }
        batcher.push(item(3)).unwrap();
        assert_eq!(batcher.next(), [], "two are on the way");
        assert_eq!(batcher.arrived(2).unwrap().at_us, 2);
        assert_eq!(names(&batcher.next()), [3]);
    }

    #[test]
    fn who_has_gone_before_it_was_sent_is_dropped_and_counted() {
        let mut batcher = Batcher::new(1);
        for item in [gone(1), item(2), gone(3)] {
            batcher.push(item).unwrap();
        }
        assert_eq!((names(&batcher.next()), batcher.take_dropped()), (vec![2], 2));
        assert_eq!(batcher.take_dropped(), 0, "told once");
    }

    #[test]
    fn a_batch_that_can_carry_no_more_leaves_though_others_are_on_the_way() {
        let heavy =
            |buckets, key_bytes| Item { load: Load { buckets, key_bytes, ..item(9).load }, ..item(9) };
        for (first, second) in [
            (heavy(MAX_BUCKETS, 0), heavy(1, 0)),
            (heavy(1, MAX_KEY_BYTES), heavy(1, 1)),
            (heavy(MAX_BUCKETS + 1, MAX_KEY_BYTES + 1), heavy(1, 1)),
        ] {
            let mut batcher = Batcher::new(1);
            batcher.sent(1, vec![item(1)], 0);
            batcher.push(first.clone()).unwrap();
            assert_eq!(batcher.next(), [], "it has room");
            assert_eq!(batcher.push(second.clone()), Err(second.clone()), "after {first:?}");
            assert_eq!(batcher.next(), [first]);
            batcher.push(second).unwrap();
            assert_eq!(batcher.next(), [], "it has room again");
        }
    }

    #[test]
    fn full_batches_leave_at_once_until_too_many_are_on_the_way() {
        let mut batcher = Batcher::new(1);
        batcher.sent(0, vec![item(1)], 0);
        for token in 1..=MAX_CALLOUTS {
            for name in 0..MAX_REPLIES {
                assert_eq!(batcher.next(), [], "a batch of {name} is not full");
                batcher.push(item(name)).unwrap();
            }
            let batch = batcher.next();
            if token < MAX_CALLOUTS {
                assert_eq!(batch.len(), MAX_REPLIES);
                batcher.sent(u32::try_from(token).unwrap(), batch, 0);
            } else {
                assert_eq!(batch, [], "as many are on the way as may be");
            }
        }
        assert_eq!(batcher.push(item(9)), Err(item(9)));
        assert_eq!(batcher.arrived(3).unwrap().batch.len(), MAX_REPLIES);
        assert_eq!(batcher.next().len(), MAX_REPLIES);
    }

    #[test]
    fn what_nobody_waits_for_fills_a_batch_by_its_buckets_only() {
        let settlement = Item { load: Load { replies: 0, key_bytes: 10, ..item(1).load }, ..item(1) };
        let mut batcher = Batcher::new(1);
        batcher.sent(1, vec![item(1)], 0);
        for _ in 0..MAX_BUCKETS {
            assert_eq!(batcher.next(), []);
            batcher.push(settlement.clone()).unwrap();
        }
        assert_eq!(batcher.push(settlement.clone()), Err(settlement));
        assert_eq!(batcher.next().len(), MAX_BUCKETS);
    }

    #[test]
    fn what_is_not_to_be_sent_is_taken_whatever_is_on_the_way() {
        let mut batcher = Batcher::new(1);
        batcher.sent(1, vec![item(1)], 0);
        batcher.push(item(2)).unwrap();
        batcher.push(gone(3)).unwrap();
        assert_eq!((names(&batcher.next()), names(&batcher.take_waiting())), (vec![], vec![2]));
        assert_eq!((batcher.take_dropped(), batcher.take_waiting()), (1, vec![]));
    }

    #[test]
    fn who_has_gone_makes_room() {
        let mut batcher = Batcher::new(1);
        for name in 0..MAX_REPLIES {
            batcher.push(gone(name)).unwrap();
        }
        batcher.push(item(1)).unwrap();
        assert_eq!((names(&batcher.next()), batcher.take_dropped()), (vec![1], MAX_REPLIES));
    }

    #[test]
    fn an_unknown_token_is_nobodys() {
        assert_eq!(Batcher::<Item>::new(1).arrived(3), None);
    }
}
