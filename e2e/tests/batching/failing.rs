//! Callouts that fail beside others that do not: each fails only those whom it carried.

use std::collections::BTreeMap;

use e2e::{Books, Caller, Waiting, await_quiet};
use fleet::{Fate, eventually};
use serde_json::json;

use crate::{PATIENCE, await_callouts, clients, gated, policies, send, strict, taken_by, taken_of_all};

/// What may go wrong with a callout, and how the access log calls it.
const FATES: [(Fate, &str); 5] = [
    (Fate::BrokenOff, "reset"),
    (Fate::Silent, "timeout"),
    (Fate::Refused, "refused"),
    (Fate::Unreadable, "unreadable"),
    (Fate::HungUp, "no_answer"),
];

/// Requests in a full batch.
const FULL: usize = 100;

fn one_of_several_fails(on_error: &str) {
    let mut configuration = strict(&policies(1));
    configuration["on_error"] = json!(on_error);
    configuration["sidecar"]["timeout"] = json!("4s");
    let fleet = gated(configuration).start().expect("a fleet");
    let (gate, caller) = (fleet.gate(), Caller::http2(fleet.envoy(0).addr()));
    gate.close();

    // One leaves alone; six batches fill up behind it and leave at once; seven wait for the next.
    let count = 1 + 6 * FULL + 7;
    let mut waiting: BTreeMap<usize, Waiting> =
        (0..1).map(|client| (client, send(&caller, client))).collect();
    await_callouts(&fleet, 1);
    waiting.extend((1..count).map(|client| (client, send(&caller, client))));
    let callouts = await_callouts(&fleet, 7);
    let sizes: Vec<usize> = callouts.iter().map(|callout| callout.takes.len()).collect();
    assert_eq!(sizes, [1, FULL, FULL, FULL, FULL, FULL, FULL]);
    for (place, (fate, _)) in FATES.into_iter().enumerate() {
        gate.let_go(1 + place, fate);
    }
    gate.open();

    let passes = if on_error == "allow" { 200 } else { 503 };
    let batch_of: BTreeMap<usize, usize> = callouts
        .iter()
        .enumerate()
        .flat_map(|(place, callout)| clients(callout).into_iter().map(move |client| (client, place)))
        .collect();
    for (client, request) in waiting {
        let answer = request.answer();
        let failed = batch_of.get(&client).is_some_and(|place| (1..=FATES.len()).contains(place));
        let (status, is_told) = (answer.status, answer.header("x-ratelimit-limit").is_some());
        let expected = if failed { (passes, false) } else { (200, true) };
        assert_eq!((status, is_told), expected, "client {client}: {answer}");
    }
    await_quiet(&fleet);

    let log = eventually(PATIENCE, "the access log has them all", || {
        let log = fleet.envoy(0).access_log();
        (log.lines().count() == count).then_some(log)
    });
    let log = log.expect("all are logged");
    for (fate, reason) in FATES {
        let said = format!("decision=failed answer={on_error} reason={reason}");
        assert_eq!(log.matches(&said).count(), FULL, "{fate:?}");
    }

    let (books, count) = (Books::of(&fleet), count as u64);
    let failed = (FATES.len() * FULL) as u64;
    assert_eq!((books.allowed, books.denied, books.failed), (count - failed, 0, failed), "{books:?}");
    assert_eq!((books.callout_failures, books.abandoned, books.requests), (5, 0, count), "{books:?}");
    let passed = if on_error == "allow" { count } else { count - failed };
    assert_eq!(fleet.upstream().requests(), passed);
    // What was decided is charged, though its answer broke off; what the sidecar was not asked is not.
    for callout in gate.callouts() {
        let is_charged = u64::from(callout.fate.is_some_and(Fate::is_decided));
        for client in clients(&callout) {
            assert_eq!(taken_by(&fleet, client, 1), is_charged, "client {client}");
        }
    }
    assert_eq!(taken_of_all(&fleet), count - failed + FULL as u64);
}

#[test]
fn a_callout_that_fails_denies_only_whom_it_carried() {
    one_of_several_fails("deny");
}

#[test]
fn a_callout_that_fails_lets_only_those_pass_whom_it_carried() {
    one_of_several_fails("allow");
}
