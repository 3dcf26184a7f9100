//! How much there is room for: connections, and bytes of requests and answers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// What is counted up to a limit, without a lock.
#[derive(Debug)]
pub struct Room {
    max: usize,
    taken: AtomicUsize,
    refused: AtomicU64,
}

/// A part of a [`Room`], which is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    size: usize,
}

impl Room {
    /// Room for `max`.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: AtomicUsize::new(0), refused: AtomicU64::new(0) })
    }

    /// How much there is room for in all.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// How much is taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How often there was too little left.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A place of this size, which may be zero, where there is room.
    pub fn enter(self: &Arc<Self>, size: usize) -> Option<Place> {
        let mut place = Place { room: Arc::clone(self), size: 0 };
        place.grow(size).then_some(place)
    }

    /// A place of this size, whether or not there is room: for what cannot be refused any more.
    pub fn insist(self: &Arc<Self>, size: usize) -> Place {
        self.taken.fetch_add(size, Ordering::Relaxed);
        Place { room: Arc::clone(self), size }
    }
}

impl Place {
    /// Takes more; whether there was room.
    pub fn grow(&mut self, by: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(by).filter(|&sum| sum <= self.room.max);
        let grown = self.room.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if grown {
            self.size += by;
        } else {
            self.room.refused.fetch_add(1, Ordering::Relaxed);
        }
        grown
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_it_comes_back() {
        let room = Room::new(3);
        let mut first = room.enter(2).expect("room");
        assert!(room.enter(2).is_none());
        assert!(first.grow(1) && !first.grow(1));
        assert_eq!((room.taken(), room.refused()), (3, 2));
        drop(first);
        assert_eq!(room.taken(), 0);
        assert!(room.enter(usize::MAX).is_none() && room.enter(3).is_some());
        let insisting = room.insist(9);
        assert!(room.enter(0).is_none(), "until there is room again");
        drop(insisting);
        assert_eq!(room.taken(), 0);
    }
}
