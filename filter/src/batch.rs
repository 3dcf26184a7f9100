//! Who waits for the next callout, and who is on the way: natural batching, without a clock and without Envoy.
//!
//! While fewer than [`MAX_IN_FLIGHT`] callouts are on the way a batch leaves at once, with everything that waits.
//! What arrives meanwhile waits for the next. So a lone request never waits, and under load the batches grow. No more
//! may wait than the next callout can carry: so nobody waits longer than for two.

use std::collections::HashMap;

/// How many callouts may be on the way at once. With two, batches are half as large and cost more than they save.
pub const MAX_IN_FLIGHT: usize = 1;

/// The most buckets that one callout asks.
pub const MAX_BUCKETS: usize = contract::MAX_TAKES;

/// The most bytes of keys in one callout. With them a body of that many buckets stays below 1 MiB, which is what a sidecar
/// reads, however long the keys are that clients make.
pub const MAX_KEY_BYTES: usize = 128 << 10;

/// Something that waits for a decision.
pub trait Waiting {
    /// Whether nobody waits for it any more.
    fn is_gone(&self) -> bool;
    /// What it adds to a callout.
    fn load(&self) -> Load;
}

/// What a callout carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
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
    in_flight: HashMap<u32, Vec<T>>,
    /// Those that were dropped and not yet told of.
    dropped: usize,
}

impl<T> Default for Batcher<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), load: Load::default(), in_flight: HashMap::new(), dropped: 0 }
    }
}

impl Load {
    fn with(self, other: Self) -> Self {
        Self {
            buckets: self.buckets.saturating_add(other.buckets),
            key_bytes: self.key_bytes.saturating_add(other.key_bytes),
        }
    }
}

impl<T: Waiting> Batcher<T> {
    /// Lets `item` wait for the next callout.
    ///
    /// # Errors
    /// Gives the item back where the next callout can carry no more.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let load = item.load();
        if !self.has_room_for(load) {
            self.drop_gone();
            if !self.has_room_for(load) {
                return Err(item);
            }
        }
        self.load = self.load.with(load);
        self.waiting.push(item);
        Ok(())
    }

    /// The batch that may leave now, oldest first; empty where nothing waits or none may leave.
    pub fn next(&mut self) -> Vec<T> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return Vec::new();
        }
        self.drop_gone();
        self.load = Load::default();
        std::mem::take(&mut self.waiting)
    }

    /// How many were dropped since this was last asked, because nobody waited for them any more.
    pub fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    /// Notes that `batch` is on the way as the callout `token`.
    pub fn sent(&mut self, token: u32, batch: Vec<T>) {
        self.in_flight.insert(token, batch);
    }

    /// The batch of the callout that has come back; empty for one that is not known.
    pub fn arrived(&mut self, token: u32) -> Vec<T> {
        self.in_flight.remove(&token).unwrap_or_default()
    }

    /// A lone item always has room.
    fn has_room_for(&self, more: Load) -> bool {
        let load = self.load.with(more);
        let fits = load.buckets <= MAX_BUCKETS && load.key_bytes <= MAX_KEY_BYTES;
        self.waiting.is_empty() || (fits && self.waiting.len() < contract::MAX_TAKES)
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
        Item { name, gone: false, load: Load { buckets: 1, key_bytes: 30 } }
    }

    fn gone(name: usize) -> Item {
        Item { gone: true, ..item(name) }
    }

    fn names(batch: &[Item]) -> Vec<usize> {
        batch.iter().map(|item| item.name).collect()
    }

    #[test]
    fn the_first_leaves_at_once_and_what_arrives_meanwhile_shares_the_next() {
        let mut batcher = Batcher::default();
        batcher.push(item(1)).unwrap();
        let batch = batcher.next();
        assert_eq!(names(&batch), [1]);
        batcher.sent(7, batch);
        for name in 2..5 {
            batcher.push(item(name)).unwrap();
            assert_eq!(batcher.next(), [], "one is on the way");
        }
        assert_eq!(names(&batcher.arrived(7)), [1]);
        assert_eq!(names(&batcher.next()), [2, 3, 4], "oldest first");
    }

    #[test]
    fn who_has_gone_before_it_was_sent_is_dropped_and_counted() {
        let mut batcher = Batcher::default();
        for item in [gone(1), item(2), gone(3)] {
            batcher.push(item).unwrap();
        }
        assert_eq!((names(&batcher.next()), batcher.take_dropped()), (vec![2], 2));
        assert_eq!(batcher.take_dropped(), 0, "told once");
    }

    #[test]
    fn no_more_wait_than_the_next_callout_can_carry() {
        let heavy = |buckets, key_bytes| Item { load: Load { buckets, key_bytes }, ..item(9) };
        for (first, second) in [
            (heavy(MAX_BUCKETS, 0), heavy(1, 0)),
            (heavy(1, MAX_KEY_BYTES), heavy(1, 1)),
            (heavy(MAX_BUCKETS + 1, MAX_KEY_BYTES + 1), heavy(1, 1)),
        ] {
            let mut batcher = Batcher::default();
            batcher.push(first.clone()).unwrap();
            assert_eq!(batcher.push(second.clone()), Err(second.clone()), "after {first:?}");
            assert_eq!(batcher.next(), [first]);
            batcher.push(second).unwrap();
        }
        let mut batcher = Batcher::default();
        for name in 0..contract::MAX_TAKES {
            batcher.push(item(name)).unwrap();
        }
        assert_eq!(batcher.push(item(9)), Err(item(9)));
    }

    #[test]
    fn who_has_gone_makes_room() {
        let mut batcher = Batcher::default();
        for name in 0..contract::MAX_TAKES {
            batcher.push(gone(name)).unwrap();
        }
        batcher.push(item(1)).unwrap();
        assert_eq!((names(&batcher.next()), batcher.take_dropped()), (vec![1], contract::MAX_TAKES));
    }

    #[test]
    fn an_unknown_token_is_nobodys() {
        assert_eq!(Batcher::<Item>::default().arrived(3), []);
    }
}
