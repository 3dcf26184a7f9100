//! What is told in the end: each kind's promise, latencies, and what must not have been.

use std::collections::{BTreeMap, HashMap};

use fleet::{
    Fleet,
    traffic::{Outcome, Record, Records},
    windows::{Admission, Allowance, worst_window},
};

use super::{
    Happened, TIMEOUT_MS,
    admits::locked_out,
    mix::{Kind, LOCAL, Mix},
};
use crate::Failure;

/// What the filters counted, that the traffic was as mixed as it should be.
pub struct Counted(BTreeMap<&'static str, u64>);

const COUNTERS: [&str; 8] = [
    "allowed",
    "denied",
    "failed_allowed",
    "deny_cache_hits",
    "leases",
    "lease_hits",
    "settled",
    "callout_failures",
];

/// A settlement goes with the next callout: it waits for one that is on its way, and for its own.
const SETTLED_WITHIN_US: u64 = 2 * TIMEOUT_MS * 1_000;
/// And on a wire for as long as a fault lasts.
const SETTLED_AFTER_FAULT_US: u64 = 5_000_000;
/// What is out when a store forgets may be spent until its lease lapses.
const LAPSED_WITHIN_US: u64 = 4_000_000;

impl Counted {
    pub fn of(fleet: &Fleet) -> Result<Self, Failure> {
        let mut counted = BTreeMap::new();
        for envoy in fleet.envoys() {
            for name in COUNTERS {
                *counted.entry(name).or_default() += envoy.stat(&format!("wasmcustom.sluice.{name}"))?;
            }
        }
        Ok(Self(counted))
    }
}

/// Prints all, and returns what must not be.
pub fn tell(mix: &Mix, records: &Records, happened: &[Happened], counted: &Counted) -> Vec<String> {
    let mut wrong = Vec::new();
    println!("\n{} faults; counted: {:?}", happened.len(), counted.0);
    let unused = counted.0.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name);
    wrong.extend(
        unused.map(|name| {
            format!("the filters counted no {name}: the traffic is not as mixed as it should be")
        }),
    );
    wrong.extend(promises(mix, records, happened));
    wrong.extend(locked_out(mix, records, happened));
    wrong.extend(latencies(records, happened));
    wrong
}

/// Each kind's requests, and the window that went furthest.
fn promises(mix: &Mix, records: &Records, happened: &[Happened]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut admitted: HashMap<(usize, usize), Vec<&Record>> = HashMap::new();
    let mut local: HashMap<(usize, usize), Vec<&Record>> = HashMap::new();
    let mut counts = vec![[0_u64; 4]; mix.kinds().len()];
    for record in records.iter() {
        let of = mix.of(record.caller);
        let column = match record.outcome {
            Outcome::Allowed => 0,
            Outcome::Denied => 1,
            Outcome::Local { .. } => 2,
            _ => 3,
        };
        counts[of.0][column] += 1;
        if record.outcome == Outcome::Allowed {
            admitted.entry(of).or_default().push(record);
        } else if record.outcome == (Outcome::Local { passed: true }) {
            local.entry(of).or_default().push(record);
        }
    }
    println!(
        "\nkind          allowed    denied     local undecided   beyond the promise, without and with what was forgotten"
    );
    for (number, kind) in mix.kinds().iter().enumerate() {
        let keys = admitted.iter().filter(|((of, _), _)| *of == number);
        let (mut without, mut with) = (0, 0);
        for ((_, key), passed) in keys {
            let (raw, held) = beyond(kind, passed, happened);
            without = without.max(raw);
            with = with.max(held);
            if held > 0 {
                wrong.push(format!("{} key-{key} was admitted {held} tokens more than promised", kind.name));
            }
        }
        // The Envoys together keep the whole promise by themselves, whatever was forgotten elsewhere.
        for ((_, key), passed) in local.iter().filter(|((of, _), _)| *of == number) {
            let (_, over) = beyond(kind, passed, &[]);
            if over > 0 {
                wrong.push(format!(
                    "{} key-{key} was admitted {over} tokens more by the Envoys themselves",
                    kind.name
                ));
            }
        }
        let [allowed, denied, locally, undecided] = counts[number];
        if (kind.name == LOCAL) != (locally > 0) {
            wrong.push(format!("{}: {locally} were decided by an Envoy itself", kind.name));
        }
        println!(
            "{:<11} {allowed:>9} {denied:>9} {locally:>9} {undecided:>9}   {without} and {with} tokens",
            kind.name
        );
        if allowed == 0 || denied == 0 {
            wrong.push(format!(
                "{}: {allowed} allowed and {denied} denied tell nothing of its limits",
                kind.name
            ));
        }
    }
    wrong
}

/// How far the worst window of any of its limits goes beyond, without and with allowances for what was forgotten.
fn beyond(kind: &Kind, passed: &[&Record], happened: &[Happened]) -> (u64, u64) {
    let admission = |record: &&Record| Admission {
        from_us: record.sent_us,
        until_us: record.answered_us,
        tokens: kind.cost,
    };
    let admissions: Vec<Admission> = passed.iter().map(admission).collect();
    let refund = |record: &&Record| {
        let soon_us = record.answered_us + SETTLED_WITHIN_US;
        let faulty = touched(happened, record.sent_us, soon_us);
        let until_us = if faulty { record.answered_us + SETTLED_AFTER_FAULT_US } else { soon_us };
        Allowance { from_us: record.sent_us, until_us, tokens: kind.refunded }
    };
    let refunds: Vec<Allowance> =
        if kind.refunded > 0 { passed.iter().map(refund).collect() } else { Vec::new() };
    let over = |promise, allowed: &[Allowance]| {
        worst_window(promise, &admissions, allowed).map_or(0, |window| window.over_tokens)
    };
    let worst = kind.promises.iter().map(|promise| {
        let forgot = happened.iter().filter(|one| one.doing.forgets()).map(|one| Allowance {
            from_us: one.span.from_us,
            until_us: one.span.until_us + LAPSED_WITHIN_US,
            tokens: promise.burst_tokens,
        });
        let all: Vec<Allowance> = refunds.iter().copied().chain(forgot).collect();
        (over(*promise, &refunds), over(*promise, &all))
    });
    worst.fold((0, 0), |most, one| (most.0.max(one.0), most.1.max(one.1)))
}

/// Whether a fault lasted at some time between two. They follow each other, so of those that began before the second,
/// the last one or none.
fn touched(happened: &[Happened], from_us: u64, until_us: u64) -> bool {
    let before = happened.partition_point(|one| one.span.from_us <= until_us);
    happened[..before].last().is_some_and(|one| one.span.until_us >= from_us)
}

/// Latencies inside and outside of faults, and requests that got no proper answer.
fn latencies(records: &Records, happened: &[Happened]) -> Vec<String> {
    let inside = |record: &Record| touched(happened, record.sent_us, record.answered_us);
    println!("\nlatency, ms       p50      p99    p99.9  longest   requests");
    let mut longest_us = 0;
    for (name, within) in [("outside", false), ("in faults", true)] {
        let sorted = records.latencies_us(|record| inside(record) == within);
        let at = |permille: usize| sorted.get((sorted.len() * permille / 1_000).min(sorted.len().max(1) - 1));
        let ms = |us: Option<&u64>| us.map_or(0.0, |us| *us as f64 / 1_000.0);
        let [p50, p99, p999, longest] = [at(500), at(990), at(999), sorted.last()].map(ms);
        println!("{name:<11} {p50:>9.1} {p99:>8.1} {p999:>8.1} {longest:>8.1} {:>10}", sorted.len());
        longest_us = longest_us.max(sorted.last().copied().unwrap_or(0));
    }
    let mut wrong = Vec::new();
    let bound_ms = 2 * TIMEOUT_MS + 1_000;
    if longest_us > bound_ms * 1_000 {
        wrong.push(format!("a request took {} ms, and {bound_ms} are the bound", longest_us / 1_000));
    }
    let hung = records.count(|outcome| outcome == Outcome::Hung);
    println!("hung: {hung}");
    if hung > 0 {
        wrong.push(format!("{hung} requests hung"));
    }
    let strange =
        records.iter().filter(|record| matches!(record.outcome, Outcome::Strange { .. } | Outcome::Broken));
    let strange: Vec<&Record> = strange.collect();
    if let Some(first) = strange.first() {
        wrong.push(format!("{} requests got no answer of the filter's, such as {first:?}", strange.len()));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use fleet::traffic::Span;

    use super::*;
    use crate::soak::faults::Doing;

    #[test]
    fn what_is_refunded_excuses_little_but_near_a_fault() {
        let mix = Mix::new();
        let kind = mix.kinds().iter().find(|kind| kind.refunded > 0).unwrap();
        let record =
            |sent_us| Record { caller: 0, sent_us, answered_us: sent_us + 1_000, outcome: Outcome::Allowed };
        // Half of what its rate and what comes back let pass.
        let steady: Vec<Record> = (0..100).map(|number| record(number * 100_000)).collect();
        let with = |more: u64, happened: &[Happened]| {
            let all: Vec<Record> =
                steady.iter().copied().chain((0..more).map(|_| record(10_000_000))).collect();
            beyond(kind, &all.iter().collect::<Vec<_>>(), happened).1
        };
        assert_eq!(with(0, &[]), 0);
        // Six times its burst at once.
        assert!(with(60, &[]) > 0);
        // Unless what came back in five seconds was held up.
        let span = Span { from_us: 0, until_us: 9_990_000 };
        let stopped = Happened { doing: Doing::StopRedis, span };
        assert_eq!(with(60, &[stopped]), 0);
    }
}
