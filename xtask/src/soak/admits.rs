//! Whether everybody is admitted again after each fault: a denial is a decision, too.

use std::collections::HashMap;

use fleet::traffic::{Outcome, Records, Span};

use super::{
    Happened,
    mix::{Kind, Mix},
};

/// Of what comes to it while nothing is wrong, each key must get one in so many at least: leases that were lost, and
/// what a fault left spent, take from the rest.
const PART: u64 = 4;

/// In less time than this little comes.
const LEAST_US: u64 = 1_000_000;

/// What a key asked for while nothing was wrong, what it got, and what came to it.
#[derive(Clone, Copy, Default)]
struct Share {
    asked: u64,
    passed: u64,
    due: u64,
}

/// The times after each fault, each key in each of them, and in all of them together: so is found who is locked out for
/// a while and is let in by a later fault, and whose limits are too slow to be seen between two.
pub fn locked_out(mix: &Mix, records: &Records, happened: &[Happened]) -> Vec<String> {
    let calms = calms(records, happened);
    let mut shares: HashMap<(usize, usize, usize), Share> = HashMap::new();
    for record in records.iter() {
        let after = calms.partition_point(|calm| calm.from_us <= record.sent_us);
        let Some(calm) = after.checked_sub(1).filter(|calm| record.sent_us <= calms[*calm].until_us) else {
            continue;
        };
        let (kind, key) = mix.of(record.caller);
        let share = shares.entry((kind, key, calm)).or_default();
        share.asked += 1;
        share.passed += u64::from(record.outcome == Outcome::Allowed);
    }
    let mut wrong = Vec::new();
    let mut sums: HashMap<(usize, usize), Share> = HashMap::new();
    for (&(number, key, calm), share) in &mut shares {
        let kind = &mix.kinds()[number];
        let length_us = calms[calm].until_us - calms[calm].from_us;
        share.due = due(kind, length_us).min(share.asked);
        // Who owes is denied for a while, and rightly.
        if !kind.owes() && length_us >= LEAST_US && share.passed < share.due / PART {
            let Share { passed, due, .. } = share;
            let doing = happened[calm].doing;
            wrong.push(format!("{} key-{key} got {passed} of {due} after {doing:?}", kind.name));
        }
        let sum = sums.entry((number, key)).or_default();
        sum.asked += share.asked;
        sum.passed += share.passed;
    }
    let all_us = calms.iter().map(|calm| calm.until_us - calm.from_us).sum();
    for ((number, key), sum) in sums {
        let kind = &mix.kinds()[number];
        let due = due(kind, all_us).min(sum.asked);
        if sum.passed < due / PART {
            wrong.push(format!("{} key-{key} got {} of {due} after all faults", kind.name, sum.passed));
        }
    }
    wrong
}

/// From the end of each fault, when requests were decided again, to the next.
fn calms(records: &Records, happened: &[Happened]) -> Vec<Span> {
    let end_us = records.iter().map(|record| record.sent_us).max().unwrap_or_default();
    let next_us = happened.iter().skip(1).map(|one| one.span.from_us).chain([end_us]);
    let calm = |(one, until_us): (&Happened, u64)| Span {
        from_us: one.span.until_us,
        until_us: until_us.max(one.span.until_us),
    };
    happened.iter().zip(next_us).map(calm).collect()
}

/// How many requests of a key all its limits have tokens for in a time, if none was left before.
fn due(kind: &Kind, length_us: u64) -> u64 {
    let tokens = kind.promises.iter().map(|promise| promise.came_tokens(length_us)).min().unwrap_or_default();
    tokens / kind.dearest()
}

#[cfg(test)]
mod tests {
    use fleet::traffic::Record;

    use super::*;
    use crate::soak::faults::Doing;

    /// All ask 1,000 times a second for ten seconds, with a fault from the third to the fourth.
    fn found(passes: impl Fn(&str, u64) -> bool) -> Vec<String> {
        let mix = Mix::new();
        let record = |number: u64| {
            let caller = usize::try_from(number).unwrap() % mix.callers().len();
            let sent_us = number * 1_000;
            let allowed = passes(mix.kinds()[mix.of(caller).0].name, sent_us);
            let outcome = if allowed { Outcome::Allowed } else { Outcome::Denied };
            Record { caller, sent_us, answered_us: sent_us + 500, outcome }
        };
        let records: Records = (0..10_000).map(record).collect();
        let span = Span { from_us: 3_000_000, until_us: 4_000_000 };
        locked_out(&mix, &records, &[Happened { doing: Doing::StopRedis, span }])
    }

    #[test]
    fn who_is_denied_for_ever_after_a_fault_is_found() {
        assert_eq!(found(|_, _| true), Vec::<String>::new());
        let locked = found(|kind, sent_us| kind != "plain" || sent_us < 3_500_000);
        assert_eq!(locked.iter().filter(|wrong| wrong.contains("after StopRedis")).count(), 6, "{locked:?}");
        assert!(locked.iter().all(|wrong| wrong.starts_with("plain ")), "{locked:?}");
        // Who owes has longer, and not for ever.
        assert_eq!(found(|kind, sent_us| kind != "charged" || sent_us >= 7_000_000), Vec::<String>::new());
        let locked = found(|kind, _| kind != "charged");
        assert!(locked.len() == 2 && locked[0].ends_with("after all faults"), "{locked:?}");
    }
}
