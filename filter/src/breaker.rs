//! Whether the sidecar is asked at all: after some callouts in a row that were waited for in vain it is not, until it has
//! answered a probe, and then a take. There is no clock and no Envoy here; times are those of the worker's clock.

use std::time::Duration;

/// So many callouts in a row, waited for in vain, open it.
pub const MOST_IN_VAIN: u32 = 3;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What fails sooner than this was not waited for, however short the timeout is.
const LEAST_WAIT: Duration = Duration::from_millis(10);

/// The breaker of one worker.
#[derive(Debug, Default)]
pub struct Breaker {
    in_vain: u32,
    /// When the last was heard that counts; those that were on the way by then tell of the same time as it does.
    counted_at_us: u64,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        /// How long until the next probe.
        wait: Duration,
        /// The probe that is on the way.
        probe: Option<u32>,
    },
    /// A probe was answered, and callouts leave: the next that is answered closes it, the next in vain opens it again.
    HalfOpen {
        /// How long until the next probe, should it open again.
        wait: Duration,
    },
}

/// What came of a callout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The sidecar answered, whatever it said.
    Sidecar,
    /// It answered a probe, which says nothing of how it does with takes.
    Probe,
    /// Nothing did, at once: that costs nobody anything.
    NobodyAtOnce,
    /// Nothing did, and it was waited for.
    NobodyInVain,
}

/// How the breaker turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    Open,
    HalfOpen,
    /// It was half open.
    OpenAgain,
    /// From open, or from half open.
    Closed,
}

impl Heard {
    /// What a callout says that failed after `waited` of its `timeout`: a connection that is not made in time fails like one
    /// that is refused.
    pub fn nobody_after(waited: Duration, timeout: Duration) -> Self {
        let half = timeout.checked_div(2).unwrap_or_default();
        if waited >= half.max(LEAST_WAIT) { Self::NobodyInVain } else { Self::NobodyAtOnce }
    }
}

impl Breaker {
    /// Whether no request is asked for.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// A callout came back that had been sent at `sent_at_us`, or a probe; how that turned the breaker, if it did.
    pub fn heard(&mut self, heard: Heard, sent_at_us: u64, now_us: u64) -> Option<Turned> {
        match (heard, &self.state) {
            (Heard::Sidecar, state) => {
                let was_closed = matches!(state, State::Closed);
                *self = Self::default();
                (!was_closed).then_some(Turned::Closed)
            }
            (Heard::Probe, State::Open { wait, .. }) => {
                self.state = State::HalfOpen { wait: *wait };
                // Those that were on the way when it opened are not the ones that it waits for.
                self.counted_at_us = now_us;
                Some(Turned::HalfOpen)
            }
            (Heard::NobodyInVain, State::Closed | State::HalfOpen { .. })
                if sent_at_us >= self.counted_at_us =>
            {
                self.counted_at_us = now_us;
                self.in_vain = self.in_vain.saturating_add(1);
                self.open()
            }
            (Heard::Probe | Heard::NobodyAtOnce | Heard::NobodyInVain, _) => None,
        }
    }

    /// Opens it, where as many were in vain as that takes.
    fn open(&mut self) -> Option<Turned> {
        let (wait, turned) = match self.state {
            State::HalfOpen { wait } => (wait, Turned::OpenAgain),
            State::Closed if self.in_vain >= MOST_IN_VAIN => (FIRST_WAIT, Turned::Open),
            State::Closed | State::Open { .. } => return None,
        };
        self.state = State::Open { wait, probe: None };
        Some(turned)
    }

    /// Closes it without an answer.
    pub fn give_up(&mut self) {
        *self = Self::default();
    }

    /// How long until the next probe; `None` where it is not open.
    pub fn wait(&self) -> Option<Duration> {
        if let State::Open { wait, .. } = self.state { Some(wait) } else { None }
    }

    /// Whether a probe is to be sent now that the wait is over: not where one is on the way.
    pub fn may_probe(&self) -> bool {
        matches!(self.state, State::Open { probe: None, .. })
    }

    /// A probe was sent, or could not be. The next waits for longer.
    pub fn probed(&mut self, sent: Option<u32>) {
        if let State::Open { wait, probe } = &mut self.state {
            *probe = sent;
            *wait = wait.saturating_mul(2).min(LONGEST_WAIT);
        }
    }

    /// Whether that callout is the probe, which has come back.
    pub fn is_back(&mut self, token: u32) -> bool {
        match &mut self.state {
            State::Open { probe, .. } => probe.take_if(|probe| *probe == token).is_some(),
            State::Closed | State::HalfOpen { .. } => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]
mod tests {
    use super::*;

    /// Hears of a callout that was sent when the last had come back.
    fn hear(breaker: &mut Breaker, heard: Heard) -> Option<Turned> {
        let sent_at_us = breaker.counted_at_us;
        breaker.heard(heard, sent_at_us, sent_at_us.saturating_add(50_000))
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 1..MOST_IN_VAIN {
            assert_eq!(hear(&mut breaker, Heard::NobodyInVain), None);
        }
        assert_eq!(hear(&mut breaker, Heard::NobodyInVain), Some(Turned::Open));
        breaker
    }

    fn probe_answered(breaker: &mut Breaker) {
        breaker.probed(Some(7));
        assert!(breaker.is_back(7));
        assert_eq!(hear(breaker, Heard::Probe), Some(Turned::HalfOpen));
        assert!(!breaker.is_open() && breaker.wait().is_none() && !breaker.may_probe());
    }

    #[test]
    fn only_waits_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            for heard in [Heard::NobodyInVain, Heard::NobodyInVain, Heard::Sidecar, Heard::NobodyAtOnce] {
                assert_eq!(hear(&mut breaker, heard), None);
            }
        }
        hear(&mut breaker, Heard::NobodyInVain);
        hear(&mut breaker, Heard::NobodyInVain);
        let at_once = hear(&mut breaker, Heard::NobodyAtOnce);
        assert_eq!(at_once, None, "it says nothing of those that are waited for");
        assert_eq!(hear(&mut breaker, Heard::NobodyInVain), Some(Turned::Open));
        assert_eq!(hear(&mut breaker, Heard::NobodyInVain), None, "it is open already");
    }

    #[test]
    fn those_that_were_on_the_way_together_count_once() {
        let mut breaker = Breaker::default();
        for (sent_at_us, heard_at_us) in [(0, 50), (10, 51), (20, 52), (49, 99), (50, 100), (60, 101)] {
            assert_eq!(breaker.heard(Heard::NobodyInVain, sent_at_us, heard_at_us), None, "{sent_at_us}");
        }
        assert_eq!(breaker.heard(Heard::NobodyInVain, 100, 150), Some(Turned::Open));
        breaker.probed(Some(7));
        assert_eq!(breaker.heard(Heard::Probe, 160, 170), Some(Turned::HalfOpen));
        assert_eq!(breaker.heard(Heard::NobodyInVain, 160, 171), None, "it was sent before the answer");
        assert_eq!(breaker.heard(Heard::NobodyInVain, 171, 221), Some(Turned::OpenAgain));
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
        }
        assert_eq!(waits_ms, [100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn an_answered_take_closes_it_and_all_begins_anew() {
        let mut breaker = opened();
        probe_answered(&mut breaker);
        assert_eq!(hear(&mut breaker, Heard::NobodyAtOnce), None);
        assert_eq!(hear(&mut breaker, Heard::Sidecar), Some(Turned::Closed));
        assert_eq!(hear(&mut breaker, Heard::NobodyInVain), None);
        assert!(!breaker.is_back(7));
        assert_eq!(opened().wait(), Some(FIRST_WAIT));
    }

    #[test]
    fn answered_probes_alone_shorten_no_wait() {
        let mut breaker = opened();
        let mut waits_ms = Vec::new();
        for _ in 0..6 {
            waits_ms.push(breaker.wait().unwrap().as_millis());
            probe_answered(&mut breaker);
            assert_eq!(hear(&mut breaker, Heard::NobodyInVain), Some(Turned::OpenAgain), "one is enough");
        }
        assert_eq!(waits_ms, [100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn a_late_answer_to_an_earlier_callout_closes_it_too() {
        assert_eq!(hear(&mut opened(), Heard::Sidecar), Some(Turned::Closed));
    }

    #[test]
    fn what_fails_within_half_its_timeout_or_ten_milliseconds_is_no_wait() {
        for (waited_us, timeout_ms, heard) in [
            (24_999, 50, Heard::NobodyAtOnce),
            (25_000, 50, Heard::NobodyInVain),
            (9_999, 1, Heard::NobodyAtOnce),
            (10_000, 1, Heard::NobodyInVain),
        ] {
            let (waited, timeout) = (Duration::from_micros(waited_us), Duration::from_millis(timeout_ms));
            assert_eq!(Heard::nobody_after(waited, timeout), heard, "{waited:?} of {timeout:?}");
        }
    }
}
