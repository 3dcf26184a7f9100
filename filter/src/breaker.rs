//! Whether the sidecar is asked at all: after some callouts in a row that were waited for in vain it is not, until it has
//! answered a probe. There is no clock and no Envoy here.

use std::time::Duration;

/// So many callouts in a row, waited for in vain, open it.
pub const MOST_IN_VAIN: u32 = 3;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The breaker of one worker.
#[derive(Debug, Default)]
pub struct Breaker {
    in_vain: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// How long until the next probe.
    wait: Duration,
    /// The probe that is on the way.
    probe: Option<u32>,
}

/// What came of a callout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The sidecar answered, whatever it said.
    Sidecar,
    /// Nothing did, at once: that costs nobody anything.
    NobodyAtOnce,
    /// Nothing did, and it was waited for.
    NobodyInVain,
}

/// How the breaker turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    Open,
    Closed,
}

impl Breaker {
    /// Whether no request is asked for.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// A callout came back, or a probe; how that turned the breaker, if it did.
    pub fn heard(&mut self, heard: Heard) -> Option<Turned> {
        match heard {
            Heard::Sidecar => {
                self.in_vain = 0;
                self.open.take().map(|_| Turned::Closed)
            }
            Heard::NobodyAtOnce => None,
            Heard::NobodyInVain => {
                self.in_vain = self.in_vain.saturating_add(1);
                if self.is_open() || self.in_vain < MOST_IN_VAIN {
                    return None;
                }
                self.open = Some(Open { wait: FIRST_WAIT, probe: None });
                Some(Turned::Open)
            }
        }
    }

    /// Closes it without an answer.
    pub fn give_up(&mut self) {
        *self = Self::default();
    }

    /// How long until the next probe; `None` where it is closed.
    pub fn wait(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| open.wait)
    }

    /// Whether a probe is to be sent now that the wait is over: not where one is on the way.
    pub fn may_probe(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.probe.is_none())
    }

    /// A probe was sent, or could not be. The next waits for longer.
    pub fn probed(&mut self, probe: Option<u32>) {
        if let Some(open) = &mut self.open {
            open.probe = probe;
            open.wait = open.wait.saturating_mul(2).min(LONGEST_WAIT);
        }
    }

    /// Whether that callout is the probe, which has come back.
    pub fn is_back(&mut self, token: u32) -> bool {
        let probe = self.open.as_mut().map(|open| &mut open.probe);
        probe.is_some_and(|probe| probe.take_if(|probe| *probe == token).is_some())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]
mod tests {
    use super::*;

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 1..MOST_IN_VAIN {
            assert_eq!(breaker.heard(Heard::NobodyInVain), None);
        }
        assert_eq!(breaker.heard(Heard::NobodyInVain), Some(Turned::Open));
        breaker
    }

    #[test]
    fn only_waits_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            for heard in [Heard::NobodyInVain, Heard::NobodyInVain, Heard::Sidecar, Heard::NobodyAtOnce] {
                assert_eq!(breaker.heard(heard), None);
            }
        }
        breaker.heard(Heard::NobodyInVain);
        breaker.heard(Heard::NobodyInVain);
        assert_eq!(breaker.heard(Heard::NobodyAtOnce), None, "it says nothing of those that are waited for");
        assert_eq!(breaker.heard(Heard::NobodyInVain), Some(Turned::Open));
        assert_eq!(breaker.heard(Heard::NobodyInVain), None, "it is open already");
    }

    #[test]
    fn probes_are_sent_one_at_a_time_and_ever_more_seldom() {
        let mut breaker = opened();
        let mut waits_ms = Vec::new();
        for token in 1..=6 {
            waits_ms.push(breaker.wait().unwrap().as_millis());
            assert!(breaker.may_probe());
            breaker.probed(Some(token));
            assert!(!breaker.may_probe(), "one is on the way");
            assert!(!breaker.is_back(token + 100), "that is none of its own");
            assert!(breaker.is_back(token));
            assert_eq!(breaker.heard(Heard::NobodyInVain), None);
        }
        assert_eq!(waits_ms, [100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn an_answer_closes_it_and_all_begins_anew() {
        let mut breaker = opened();
        breaker.probed(Some(7));
        assert!(breaker.is_back(7));
        assert_eq!(breaker.heard(Heard::Sidecar), Some(Turned::Closed));
        assert!(!breaker.is_open() && breaker.wait().is_none() && !breaker.may_probe());
        assert_eq!(breaker.heard(Heard::NobodyInVain), None);
        assert!(!breaker.is_back(7));
    }

    #[test]
    fn a_late_answer_to_an_earlier_callout_closes_it_too() {
        assert_eq!(opened().heard(Heard::Sidecar), Some(Turned::Closed));
    }
}
