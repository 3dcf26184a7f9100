//! Whether runs are sent, and what is to be done so that they can be again: a state machine without a clock.
//!
//! - *Closed*: the Redis answers in time, and runs are sent. A probe is sent where none has been for a second.
//! - *Probing*: a run was late, or the link is new. No run is sent, and requests fail at once, until a probe is answered
//!   in time. A probe is a run of the script that takes one token of a bucket of nobody's. It is answered behind what
//!   was sent before it, so a Redis that hesitated once is used again at the moment it goes on where that is within one
//!   more timeout; after that by a later probe, over the same connection where nothing was silent for four timeouts,
//!   and over a new one otherwise. One that answers late each time is asked ever more rarely, while requests cost nothing.
//! - *Refusing*: the Redis answers in time that it will not write. Runs are sent, since what is denied needs no write;
//!   probes tell when it will again.
//! - *Unlinked*: there is no connection, and attempts to make one follow each other ever more rarely.
//!
//! One late run opens the breaker: a second would cost as much time again, and closing costs one probe.

use std::time::Duration;

/// The pause after the first attempt that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause, and how long the breaker must have been closed for the next attempt to come without one.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Unlinked,
    Probing,
    Closed,
    Refusing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// There is a connection.
    Connected,
    /// An attempt to connect failed.
    NotConnected,
    /// The connection is of no more use, or has been silent for too long.
    Lost,
    /// A run was decided in time.
    Answered,
    /// A run was answered in time: it is refused.
    Refused,
    /// A run was not answered in time.
    Late,
    /// A probe was decided in time.
    ProbeAnswered,
    /// A probe was answered in time: it is refused.
    ProbeRefused,
    /// A probe was answered, and late.
    ProbeSlow,
    /// It has been closed for [`LONGEST_PAUSE`].
    Held,
}

/// What is to be done, after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect(Duration),
    Probe(Duration),
}

#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Attempts since the Redis was well.
    attempts: u32,
    /// A run was late: a few answers are no sign yet that it is well.
    nervous: bool,
}

impl Breaker {
    /// It begins with an attempt to connect.
    pub(super) fn new() -> Self {
        Self { state: State::Unlinked, attempts: 0, nervous: false }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether runs are sent.
    pub(super) fn sends(&self) -> bool {
        matches!(self.state, State::Closed | State::Refusing)
    }

    /// The pause before the first or next attempt to connect; it counts as made.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = pause_before(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        pause
    }

    pub(super) fn on(&mut self, event: Event) -> Option<Step> {
        use Event::{
            Answered, Connected, Held, Late, Lost, NotConnected, ProbeAnswered, ProbeRefused, ProbeSlow,
            Refused,
        };
        use State::{Closed, Probing, Refusing, Unlinked};
        match (self.state, event) {
            (Unlinked, Connected) => {
                self.state = Probing;
                Some(Step::Probe(Duration::ZERO))
            }
            (Unlinked, NotConnected) => Some(Step::Connect(self.next_pause())),
            (Probing | Closed | Refusing, Lost) => {
                self.state = Unlinked;
                Some(Step::Connect(self.next_pause()))
            }
            (Closed | Refusing, Late | ProbeSlow) => {
                self.state = Probing;
                self.nervous = true;
                Some(Step::Probe(self.next_pause()))
            }
            (Probing, ProbeSlow) => Some(Step::Probe(self.next_pause())),
            (Closed, Refused | ProbeRefused) | (Probing, ProbeRefused) => {
                self.state = Refusing;
                self.nervous = true;
                self.attempts = self.attempts.max(1);
                Some(Step::Probe(self.next_pause()))
            }
            (Refusing, ProbeRefused) => Some(Step::Probe(self.next_pause())),
            (Probing | Refusing, ProbeAnswered) => {
                self.state = Closed;
                None
            }
            (Closed, Answered | ProbeAnswered) => {
                if !self.nervous {
                    self.attempts = 0;
                }
                None
            }
            (Closed, Held) => {
                (self.attempts, self.nervous) = (0, false);
                None
            }
            // What was sent before is still being answered.
            (Probing, Answered | Refused | Late) | (Refusing, Answered | Refused) => None,
            // Nothing of a link is heard where there is none, and no second link is made.
            (Unlinked, _) | (Probing | Closed | Refusing, Connected | NotConnected) => None,
            (Probing | Refusing, Held) => None,
        }
    }
}

fn pause_before(attempt: u32) -> Duration {
    match attempt {
        0 => Duration::ZERO,
        _ => FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(10)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 10] = [
        Event::Connected,
        Event::NotConnected,
        Event::Lost,
        Event::Answered,
        Event::Refused,
        Event::Late,
        Event::ProbeAnswered,
        Event::ProbeRefused,
        Event::ProbeSlow,
        Event::Held,
    ];

    /// What becomes of each state by each event, after one attempt, and what is to be done.
    #[test]
    fn every_state_meets_every_event() {
        use State::{Closed, Probing, Refusing, Unlinked};
        let connect = Some(Step::Connect(Duration::from_millis(50)));
        let probe = Some(Step::Probe(Duration::from_millis(50)));
        let at_once = Some(Step::Probe(Duration::ZERO));
        let table = [
            (
                Unlinked,
                [
                    (Probing, at_once),
                    (Unlinked, connect),
                    (Unlinked, None),
                    (Unlinked, None),
                    (Unlinked, None),
                    (Unlinked, None),
                    (Unlinked, None),
                    (Unlinked, None),
                    (Unlinked, None),
                    (Unlinked, None),
                ],
            ),
            (
                Probing,
                [
                    (Probing, None),
                    (Probing, None),
                    (Unlinked, connect),
                    (Probing, None),
                    (Probing, None),
                    (Probing, None),
                    (Closed, None),
                    (Refusing, probe),
                    (Probing, probe),
                    (Probing, None),
                ],
            ),
            (
                Closed,
                [
                    (Closed, None),
                    (Closed, None),
                    (Unlinked, connect),
                    (Closed, None),
                    (Refusing, probe),
                    (Probing, probe),
                    (Closed, None),
                    (Refusing, probe),
                    (Probing, probe),
                    (Closed, None),
                ],
            ),
            (
                Refusing,
                [
                    (Refusing, None),
                    (Refusing, None),
                    (Unlinked, connect),
                    (Refusing, None),
                    (Refusing, None),
                    (Probing, probe),
                    (Closed, None),
                    (Refusing, probe),
                    (Probing, probe),
                    (Refusing, None),
                ],
            ),
        ];
        for (state, row) in table {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                let mut breaker = Breaker { state, attempts: 1, nervous: false };
                let step = breaker.on(event);
                assert_eq!((breaker.state, step), expected, "{state:?} on {event:?}");
            }
        }
    }

    #[test]
    fn attempts_are_made_at_once_and_then_ever_more_rarely() {
        let mut breaker = Breaker::new();
        let mut pauses = vec![breaker.next_pause()];
        for _ in 0..7 {
            let Some(Step::Connect(pause)) = breaker.on(Event::NotConnected) else { panic!("{breaker:?}") };
            pauses.push(pause);
        }
        let pauses: Vec<u128> = pauses.iter().map(Duration::as_millis).collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pause_before(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn a_redis_that_hesitates_once_is_probed_at_once_and_one_that_does_each_time_is_not() {
        let mut breaker = Breaker { state: State::Closed, attempts: 0, nervous: false };
        let mut pauses = Vec::new();
        for _ in 0..4 {
            breaker.on(Event::Answered);
            let Some(Step::Probe(pause)) = breaker.on(Event::Late) else { panic!("{breaker:?}") };
            pauses.push(pause.as_millis());
            breaker.on(Event::ProbeAnswered);
            assert!(breaker.sends());
        }
        assert_eq!(pauses, [0, 50, 100, 200]);
        breaker.on(Event::Held);
        assert_eq!(breaker.on(Event::Late), Some(Step::Probe(Duration::ZERO)));
    }

    #[test]
    fn a_link_that_is_lost_and_decided_something_is_made_anew_at_once() {
        let mut breaker = Breaker { state: State::Closed, attempts: 5, nervous: false };
        breaker.on(Event::Answered);
        assert_eq!(breaker.on(Event::Lost), Some(Step::Connect(Duration::ZERO)));
        breaker.on(Event::Connected);
        breaker.on(Event::ProbeAnswered);
        let idle = Some(Step::Connect(Duration::from_millis(50)));
        assert_eq!(breaker.on(Event::Lost), idle, "and one that did nothing is not");
    }
}
