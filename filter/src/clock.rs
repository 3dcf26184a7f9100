//! The worker's own clock, which never goes back and whose zero does not matter; and the machine's, which may, and is the
//! same for all workers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970 by the clock of the machine, which all workers share, and which may go back. A call into Envoy.
pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Counts from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since the start. A call into Envoy.
    pub fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
