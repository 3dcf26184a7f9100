//! What is read from the records of traffic.

use super::{Outcome, Record};
use crate::windows::{Admission, Allowance, Promise, Window, worst_window};

/// All requests of some traffic, in the order in which they were answered.
#[derive(Clone, Debug)]
pub struct Records(Vec<Record>);

/// From one instant to another, since the traffic began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from_us: u64,
    /// The last.
    pub until_us: u64,
}

impl Span {
    /// Whether a request was under way in it.
    #[must_use]
    pub fn touches(self, record: &Record) -> bool {
        record.sent_us <= self.until_us && record.answered_us >= self.from_us
    }
}

impl FromIterator<Record> for Records {
    fn from_iter<T: IntoIterator<Item = Record>>(records: T) -> Self {
        Self::new(records.into_iter().collect())
    }
}

impl Records {
    pub(super) fn new(mut records: Vec<Record>) -> Self {
        records.sort_by_key(|record| record.answered_us);
        Self(records)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.0.iter()
    }

    /// How many ended in a way.
    #[must_use]
    pub fn count(&self, is: impl Fn(Outcome) -> bool) -> usize {
        self.0.iter().filter(|record| is(record.outcome)).count()
    }

    /// When the last request was over that no shared limit decided; nothing where there was none.
    #[must_use]
    pub fn last_undecided_us(&self) -> Option<u64> {
        let undecided = self.0.iter().filter(|record| !record.outcome.is_decided());
        undecided.map(|record| record.answered_us).max()
    }

    /// The latencies of the requests that `counts`, from the shortest on.
    #[must_use]
    pub fn latencies_us(&self, counts: impl Fn(&Record) -> bool) -> Vec<u64> {
        let counted = self.0.iter().filter(|record| counts(record));
        let mut latencies: Vec<u64> = counted.map(|record| record.answered_us - record.sent_us).collect();
        latencies.sort_unstable();
        latencies
    }

    /// Of the requests of a caller that were sent in a span: how many there were, and how many the limits let pass.
    #[must_use]
    pub fn passed(&self, caller: impl Fn(usize) -> bool, span: Span) -> (u64, u64) {
        let within = |record: &&Record| (span.from_us..=span.until_us).contains(&record.sent_us);
        let sent = self.0.iter().filter(within).filter(|record| caller(record.caller));
        sent.fold((0, 0), |(asked, passed), record| {
            (asked + 1, passed + u64::from(record.outcome == Outcome::Allowed))
        })
    }

    /// Whether a caller was locked out of what is its own: in this span it got less than one in `part` of what came to
    /// its bucket, or of what it asked for where that was less. Then that, and what it got. Each of its requests takes
    /// `cost_tokens` at most, and nothing is owed for what was before.
    #[must_use]
    pub fn locked_out(
        &self,
        caller: impl Fn(usize) -> bool,
        promise: Promise,
        cost_tokens: u64,
        span: Span,
        part: u64,
    ) -> Option<(u64, u64)> {
        let (asked, passed) = self.passed(caller, span);
        let due = (promise.came_tokens(span.until_us - span.from_us) / cost_tokens).min(asked);
        (passed < due / part).then_some((due, passed))
    }

    /// What the limits let pass of these callers, each request at its cost.
    #[must_use]
    pub fn admitted(&self, caller: impl Fn(usize) -> bool, tokens: u64) -> Vec<Admission> {
        let passed =
            self.0.iter().filter(|record| record.outcome == Outcome::Allowed && caller(record.caller));
        passed
            .map(|record| Admission { from_us: record.sent_us, until_us: record.answered_us, tokens })
            .collect()
    }

    /// The window that went furthest beyond what is promised to a caller whose requests cost one token each.
    #[must_use]
    pub fn worst_window(&self, caller: usize, promise: Promise, allowed: &[Allowance]) -> Option<Window> {
        worst_window(promise, &self.admitted(|other| other == caller, 1), allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_undecided_is_not_admitted() {
        let record = |sent_us, outcome| Record { caller: 0, sent_us, answered_us: sent_us + 10, outcome };
        let records = Records::new(vec![
            record(500, Outcome::Failed { status: 200 }),
            record(0, Outcome::Allowed),
            record(30, Outcome::Denied),
        ]);
        assert_eq!(
            records.admitted(|caller| caller == 0, 3),
            [Admission { from_us: 0, until_us: 10, tokens: 3 }]
        );
        assert_eq!(records.last_undecided_us(), Some(510));
        let span = Span { from_us: 5, until_us: 35 };
        assert_eq!(records.latencies_us(|record| span.touches(record)), [10, 10]);
        assert_eq!(records.count(Outcome::is_decided), 2);
    }

    #[test]
    fn who_is_denied_for_ever_is_locked_out_though_all_is_decided() {
        const PROMISE: Promise = Promise { tokens: 40, period_us: 1_000_000, burst_tokens: 20 };
        // A request each 10 ms for two seconds; from the second on all are denied, or one in three is let pass.
        let locked_out = |after: fn(u64) -> bool, from_us| {
            let record = |number| Record {
                caller: 0,
                sent_us: number * 10_000,
                answered_us: number * 10_000 + 500,
                outcome: if number < 100 || after(number) { Outcome::Allowed } else { Outcome::Denied },
            };
            let records = Records::new((0..200).map(record).collect());
            let span = Span { from_us, until_us: 2_000_000 };
            records.locked_out(|caller| caller == 0, PROMISE, 1, span, 2)
        };
        assert_eq!(locked_out(|_| false, 1_000_000), Some((40, 0)));
        assert_eq!(locked_out(|number| number % 10 == 0, 1_000_000), Some((40, 10)));
        assert_eq!(locked_out(|number| number % 3 == 0, 1_000_000), None);
        // Over the whole run it would not be noticed.
        assert_eq!(locked_out(|_| false, 0), None);
        // Nobody is due what he did not ask for.
        let silent = Span { from_us: 5_000_000, until_us: 6_000_000 };
        assert_eq!(Records::new(Vec::new()).locked_out(|_| true, PROMISE, 1, silent, 2), None);
    }
}
