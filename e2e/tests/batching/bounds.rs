//! More wait than may: who is beyond gets `on_error` at once, and nobody else does.

use e2e::{Books, Caller, Waiting, await_quiet, await_requests};

use crate::{await_callouts, gated, patient, policies, send, taken_by, taken_of_all};

/// The one that left alone, 31 full batches on the way, and one that may not leave.
const MAY_WAIT: usize = 1 + 31 * 100 + 100;

/// Requests beyond.
const BEYOND: usize = 150;

#[test]
fn who_is_beyond_the_bound_fails_at_once_and_all_others_are_decided() {
    let fleet = gated(patient(&policies(1)))
        // No upstream bounds how many are answered at once.
        .adjust(|config| config.answer_directly().map(drop))
        .start()
        .expect("a fleet");
    let (gate, addr) = (fleet.gate(), fleet.envoy(0).addr());
    let callers: Vec<Caller> = (0..8).map(|_| Caller::http2(addr)).collect();
    let send = |client: usize| send(&callers[client % callers.len()], client);
    gate.close();
    let first = send(0);
    await_callouts(&fleet, 1);
    let waiting: Vec<Waiting> = (1..MAY_WAIT).map(send).collect();
    await_requests(&fleet, MAY_WAIT as u64);
    let callouts = await_callouts(&fleet, 32);
    assert_eq!(
        (callouts.len(), Books::of(&fleet).failed),
        (32, 0),
        "as many as may be on the way, and one waits"
    );

    for client in MAY_WAIT..MAY_WAIT + BEYOND {
        let answer = send(client).answer();
        assert_eq!(answer.status, 503, "client {client} need not wait: {answer}");
    }
    let books = Books::of(&fleet);
    assert_eq!((books.failed, books.answered()), (BEYOND as u64, BEYOND as u64), "{books:?}");

    // One callout comes back, and makes room for as many as it carried.
    gate.let_go(1, fleet::Fate::Decided);
    await_requests(&fleet, (MAY_WAIT - 100) as u64);
    await_callouts(&fleet, 33);
    let more: Vec<Waiting> = (0..100).map(|number| send(MAY_WAIT + BEYOND + number)).collect();
    await_requests(&fleet, MAY_WAIT as u64);
    assert_eq!(Books::of(&fleet).failed, BEYOND as u64, "there was room");

    gate.open();
    for request in [first].into_iter().chain(waiting).chain(more) {
        assert_eq!(request.answer().status, 200);
    }
    await_quiet(&fleet);
    let (books, decided) = (Books::of(&fleet), (MAY_WAIT + 100) as u64);
    assert_eq!((books.allowed, books.denied, books.failed), (decided, 0, BEYOND as u64), "{books:?}");
    assert_eq!(books.requests, books.answered());
    assert_eq!(taken_of_all(&fleet), decided);
    for client in MAY_WAIT..MAY_WAIT + BEYOND {
        assert_eq!(taken_by(&fleet, client, 1), 0, "who was refused was not charged");
    }
    assert_eq!(send(0).answer().status, 429, "and the filter decides as before");
}
