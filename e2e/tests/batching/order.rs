//! The order of arrival is the order of being asked for, and of being answered.

use std::collections::VecDeque;

use e2e::{Books, Caller, Waiting, await_quiet, await_requests};
use fastrand::Rng;
use fleet::{Fate, eventually};

use crate::{PATIENCE, await_callouts, clients, gated, patient, policies, send, taken_of_all};

/// A slow sidecar, and arrivals of any number between its answers.
#[test]
fn nobody_is_overtaken() {
    let mut rng = Rng::with_seed(7);
    let fleet = gated(patient(&policies(1))).start().expect("a fleet");
    let (gate, caller) = (fleet.gate(), Caller::http2(fleet.envoy(0).addr()));
    gate.close();
    let (mut waiting, mut sent) = (VecDeque::<Waiting>::new(), 0);
    let mut arrive = |count: usize, waiting: &mut VecDeque<Waiting>| {
        waiting.extend((sent..sent + count).map(|client| send(&caller, client)));
        sent += count;
    };
    arrive(1, &mut waiting);
    for round in 0..12 {
        let callouts = await_callouts(&fleet, round + 1);
        arrive(rng.usize(1..180), &mut waiting);
        await_requests(&fleet, waiting.len() as u64);
        // The oldest callout comes back: exactly those whom it carried are answered, and they are the oldest.
        gate.let_go(round, Fate::Decided);
        let carried = clients(&callouts[round]);
        for client in &carried {
            let answer = waiting.pop_front().expect("it was sent").answer();
            assert_eq!(answer.status, 200, "client {client}");
        }
        await_requests(&fleet, waiting.len() as u64);
    }
    gate.open();
    waiting.into_iter().for_each(|request| assert_eq!(request.answer().status, 200));
    await_quiet(&fleet);
    let asked: Vec<usize> = gate.callouts().iter().flat_map(clients).collect();
    assert_eq!(asked, (0..sent).collect::<Vec<_>>(), "oldest first, and each once");
    let books = Books::of(&fleet);
    assert_eq!((books.allowed, books.answered()), (sent as u64, books.requests));
    assert_eq!(taken_of_all(&fleet), books.allowed);
}

/// Envoy sends the replies to a batch from within each other, the last first, but whole batches come in their order.
#[test]
fn batches_that_are_denied_are_answered_in_their_order() {
    let fleet = gated(patient(&policies(1))).start().expect("a fleet");
    let (gate, caller) = (fleet.gate(), Caller::http2(fleet.envoy(0).addr()));
    assert_eq!(send(&caller, 0).answer().status, 200);
    gate.close();
    let request = |number: usize| caller.get(&format!("/{number}"), &[("x-client", "0")]);
    let mut waiting = vec![request(0)];
    await_callouts(&fleet, 2);
    waiting.extend((1..=250).map(request));
    await_requests(&fleet, 251);
    let batches = [0..=0, 1..=100, 101..=200, 201..=250];
    for (place, batch) in batches.iter().enumerate() {
        assert_eq!(await_callouts(&fleet, place + 2)[place + 1].takes.len(), batch.clone().count());
        gate.let_go(place + 1, Fate::Decided);
        await_requests(&fleet, 250 - *batch.end() as u64);
    }
    waiting.into_iter().for_each(|request| assert_eq!(request.answer().status, 429));
    let log = eventually(PATIENCE, "the access log has them all", || {
        let log = fleet.envoy(0).access_log();
        (log.lines().count() == 252).then_some(log)
    });
    let number = |line: &str| line.split("\"GET /").nth(1)?.split('"').next()?.parse::<usize>().ok();
    let log = log.expect("all are logged");
    let mut order = log.lines().skip(1).filter_map(number);
    for batch in batches {
        let mut answered: Vec<usize> = order.by_ref().take(batch.clone().count()).collect();
        answered.sort_unstable();
        assert_eq!(answered, batch.collect::<Vec<_>>());
    }
}
