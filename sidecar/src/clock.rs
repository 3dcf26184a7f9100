//! The clock of the memory store.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970 as they were at the start, plus what has passed since: it agrees with the wall clock
/// closely enough to be read by people, and never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_us: u64,
}

impl Clock {
    /// A clock that starts at the wall's time.
    #[must_use]
    pub fn start() -> Self {
        // A machine whose wall clock stands before 1970 still gets a clock that advances, which is all that counts.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_us = u64::try_from(since_1970.as_micros()).unwrap_or(0);
        Self { started: Instant::now(), started_us }
    }

    /// Now, in microseconds since 1970.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        let elapsed_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.started_us.saturating_add(elapsed_us)
    }
}
