//! How long a connection may take for what it does: a state machine without a clock. Times are milliseconds since it
//! was accepted.

use std::time::Duration;

/// How long a connection may be without a request that begins or ends. Envoy closes its own idle connections well
/// before, so that no request meets a connection that is being closed.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The same where operators ask, who come seldom and from anywhere: whoever holds a place there without asking keeps others out.
pub(super) const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request may take, from its headers to the last byte of its answer: more than all that it waits for.
const REQUEST_TIMEOUT: Duration = IDLE_TIMEOUT;

/// How long a TLS handshake may take, and the headers of a request from their first byte. A filter sends them at once.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may leave an answer unread, once nothing more of it can be sent.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection is at.
#[derive(Debug)]
pub(super) struct Progress {
    /// How long it may be without a request that begins or ends.
    idle: Duration,
    /// When a request last began or ended.
    changed_at_ms: u64,
    /// When those requests began whose answers are not wholly written: as many as HTTP/2 is granted at a time.
    requests: Vec<u64>,
    /// When the first byte came that belongs to no request yet.
    begun_at_ms: Option<u64>,
    /// Since when nothing can be written.
    stuck_at_ms: Option<u64>,
    /// HTTP/2 has frames that belong to no request, such as those that keep a connection open.
    http2: bool,
}

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing before this time.
    At(u64),
    /// It is to be ended, once what is under way has ended.
    End,
    /// Nobody reads: it is to be dropped.
    Drop,
}

impl Progress {
    /// A connection that was accepted now.
    pub(super) fn new(idle: Duration) -> Self {
        Self {
            idle,
            changed_at_ms: 0,
            requests: Vec::new(),
            begun_at_ms: None,
            stuck_at_ms: None,
            http2: false,
        }
    }

    /// Whether [`read`](Self::read) would change anything, so that most reads need not ask for the time.
    pub(super) fn minds_reads(&self) -> bool {
        self.requests.is_empty() && self.begun_at_ms.is_none() && !self.http2
    }

    /// Bytes came.
    pub(super) fn read(&mut self, now_ms: u64) {
        if self.minds_reads() {
            self.begun_at_ms = Some(now_ms);
        }
    }

    /// Bytes could be written, or could not.
    pub(super) fn wrote(&mut self, could: bool, now_ms: u64) {
        self.stuck_at_ms = if could { None } else { self.stuck_at_ms.or(Some(now_ms)) };
    }

    /// What came belonged to a handshake, which has ended.
    pub(super) fn shook_hands(&mut self, now_ms: u64) {
        (self.begun_at_ms, self.changed_at_ms) = (None, now_ms);
    }

    /// The headers of a request are complete.
    pub(super) fn request_begins(&mut self, http2: bool, now_ms: u64) {
        self.requests.push(now_ms);
        self.http2 |= http2;
        (self.begun_at_ms, self.changed_at_ms) = (None, now_ms);
    }

    /// A piece of an answer without an end was taken, of a request that began then: its time begins anew, so that what
    /// bounds it is how long nothing of it is taken.
    pub(super) fn request_goes_on(&mut self, begun_at_ms: u64, now_ms: u64) {
        if let Some(at_ms) = self.requests.iter_mut().find(|at_ms| **at_ms == begun_at_ms) {
            *at_ms = now_ms;
        }
        self.changed_at_ms = now_ms;
    }

    /// The answer of a request that began then was written wholly, or the request was given up.
    pub(super) fn request_ends(&mut self, begun_at_ms: u64, now_ms: u64) {
        if let Some(place) = self.requests.iter().position(|&at_ms| at_ms == begun_at_ms) {
            self.requests.swap_remove(place);
        }
        self.changed_at_ms = now_ms;
    }

    /// What is to be done now.
    pub(super) fn due(&self, now_ms: u64) -> Due {
        let after = |at_ms: u64, timeout: Duration| at_ms.saturating_add(timeout.as_millis() as u64);
        let stuck = self.stuck_at_ms.map(|at_ms| after(at_ms, WRITE_TIMEOUT));
        if stuck.is_some_and(|at_ms| at_ms <= now_ms) {
            return Due::Drop;
        }
        let slow = self.begun_at_ms.map(|at_ms| after(at_ms, HEADER_TIMEOUT));
        let idle =
            after(self.changed_at_ms, if self.requests.is_empty() { self.idle } else { REQUEST_TIMEOUT });
        // Of the oldest: other requests may begin and end meanwhile.
        let late = self.requests.iter().min().map(|&at_ms| after(at_ms, REQUEST_TIMEOUT));
        let first = [stuck, slow, late].into_iter().flatten().fold(idle, u64::min);
        if first <= now_ms { Due::End } else { Due::At(first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_its_time() {
        let silent = Progress::new(IDLE_TIMEOUT);
        assert_eq!((silent.due(0), silent.due(75_000)), (Due::At(75_000), Due::End));
        let mut operator = Progress::new(ADMIN_IDLE_TIMEOUT);
        assert_eq!((operator.due(0), operator.due(10_000)), (Due::At(10_000), Due::End));
        operator.request_begins(false, 9_000);
        assert_eq!(operator.due(20_000), Due::At(84_000), "its answer may take longer");
        operator.request_ends(9_000, 20_000);
        assert_eq!(operator.due(20_000), Due::At(30_000));

        let mut slow = Progress::new(IDLE_TIMEOUT);
        slow.read(3_000);
        slow.read(9_000);
        assert_eq!((slow.due(9_000), slow.due(13_000)), (Due::At(13_000), Due::End), "from the first byte");
        slow.request_begins(false, 12_000);
        slow.read(12_500);
        assert_eq!(
            slow.due(13_000),
            Due::At(87_000),
            "what follows is its body, which has a time of its own"
        );
        slow.request_ends(12_000, 14_000);
        assert_eq!(slow.due(14_000), Due::At(89_000));
        slow.read(20_000);
        assert_eq!(slow.due(20_000), Due::At(30_000), "the next request is as quick as the first");
    }

    #[test]
    fn frames_that_belong_to_no_request_keep_nothing_open_and_close_nothing() {
        let mut pinging = Progress::new(IDLE_TIMEOUT);
        pinging.read(0);
        assert_eq!(pinging.due(10_000), Due::End, "no request came after the preface");
        pinging.request_begins(true, 1_000);
        pinging.request_ends(1_000, 1_000);
        pinging.read(30_000);
        assert_eq!((pinging.due(60_000), pinging.due(76_000)), (Due::At(76_000), Due::End));
    }

    #[test]
    fn who_does_not_read_is_dropped() {
        let mut stuck = Progress::new(IDLE_TIMEOUT);
        stuck.request_begins(false, 0);
        stuck.wrote(false, 1_000);
        stuck.wrote(false, 5_000);
        assert_eq!((stuck.due(5_000), stuck.due(11_000)), (Due::At(11_000), Due::Drop));
        stuck.wrote(true, 10_000);
        assert_eq!(stuck.due(11_000), Due::At(75_000));
        let mut answered = Progress::new(IDLE_TIMEOUT);
        answered.request_begins(true, 0);
        assert_eq!(answered.due(75_000), Due::End, "an answer that HTTP/2's windows hold back");
    }

    #[test]
    fn an_answer_without_an_end_goes_on_for_as_long_as_it_is_read() {
        let mut watching = Progress::new(ADMIN_IDLE_TIMEOUT);
        watching.request_begins(true, 0);
        watching.request_begins(true, 500);
        for now_ms in (1_000..600_000).step_by(1_000) {
            watching.request_goes_on(now_ms - 1_000, now_ms);
            if now_ms < 75_000 {
                assert_eq!(watching.due(now_ms), Due::At(75_500), "others have their own time");
            }
        }
        assert_eq!(watching.due(600_000), Due::End, "that other one never ended");
        watching.request_ends(500, 600_000);
        assert_eq!(watching.due(600_000), Due::At(674_000));
        assert_eq!(watching.due(674_000), Due::End, "nothing of it was taken since");
        watching.wrote(false, 601_000);
        assert_eq!(
            watching.due(611_000),
            Due::Drop,
            "a connection that nobody reads has no more time than any"
        );
    }

    #[test]
    fn a_request_that_does_not_end_is_not_forgotten_over_others() {
        let mut held = Progress::new(IDLE_TIMEOUT);
        held.request_begins(true, 1_000);
        held.request_begins(true, 2_000);
        for now_ms in [30_000, 60_000] {
            held.request_begins(true, now_ms);
            held.request_ends(now_ms, now_ms);
        }
        assert_eq!((held.due(60_000), held.due(76_000)), (Due::At(76_000), Due::End));
        held.request_ends(1_000, 76_000);
        assert_eq!(held.due(76_000), Due::At(77_000));
        held.request_ends(2_000, 76_000);
        assert_eq!(held.due(76_000), Due::At(151_000));
    }

    #[test]
    fn a_handshake_is_no_request() {
        let mut tls = Progress::new(IDLE_TIMEOUT);
        tls.read(0);
        tls.shook_hands(2_000);
        assert_eq!(tls.due(12_000), Due::At(77_000));
    }
}
