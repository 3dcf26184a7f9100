//! Clients that hang up, at every moment: nobody else loses an answer, and who was not sent is not charged.

use std::collections::BTreeMap;

use e2e::{Books, Caller, Waiting, await_quiet, await_requests};
use fastrand::Rng;
use fleet::{Fate, Fleet};

use crate::{await_callouts, clients, gated, patient, policies, send, taken_by, taken_of_all};

/// Takes a random half out of `waiting`, hangs up, and returns who they were.
fn half_hang_up(rng: &mut Rng, waiting: &mut Vec<(usize, Waiting)>) -> Vec<usize> {
    let (leaving, staying): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|_| rng.bool());
    *waiting = staying;
    let names = leaving.iter().map(|(client, _)| *client).collect();
    leaving.into_iter().for_each(|(_, request)| request.hang_up());
    names
}

fn names(waiting: &[(usize, Waiting)]) -> Vec<usize> {
    waiting.iter().map(|(client, _)| *client).collect()
}

/// Before they were sent, while they are on the way, and when they have their answers.
fn leave_at_every_moment(caller_of: fn(&Fleet) -> Caller) {
    let mut rng = Rng::with_seed(1);
    let fleet = gated(patient(&policies(1))).start().expect("a fleet");
    let (gate, caller) = (fleet.gate(), caller_of(&fleet));
    gate.close();

    // One is on its way alone, and behind it sixty wait. It leaves, and of the others about a half.
    let first = send(&caller, 0);
    assert_eq!(clients(&await_callouts(&fleet, 1)[0]), [0]);
    let mut waiting: Vec<_> = (1..=60).map(|client| (client, send(&caller, client))).collect();
    await_requests(&fleet, 61);
    first.hang_up();
    let unsent = half_hang_up(&mut rng, &mut waiting);
    await_requests(&fleet, waiting.len() as u64);
    assert_eq!(gate.callouts().len(), 1, "the others wait for it, though its client has left");

    // Who stayed shares the next callout, in the order of arrival; of these, too, some leave.
    gate.let_go(0, Fate::Decided);
    assert_eq!(clients(&await_callouts(&fleet, 2)[1]), names(&waiting));
    let sent = half_hang_up(&mut rng, &mut waiting);
    await_requests(&fleet, waiting.len() as u64);
    let late: Vec<_> = (61..=80).map(|client| (client, send(&caller, client))).collect();
    await_requests(&fleet, (waiting.len() + late.len()) as u64);
    gate.open();
    assert!(!unsent.is_empty() && !sent.is_empty() && !waiting.is_empty());
    for (client, request) in waiting.into_iter().chain(late) {
        assert_eq!(request.answer().status, 200, "client {client} stayed");
    }

    // And some leave in the midst of their answers.
    let large = [("x-echo-body-bytes", "50000000")];
    for client in 81..=84 {
        let name = client.to_string();
        let request = caller.get("/", &[("x-client", name.as_str()), large[0]]);
        assert_eq!(request.hang_up_after_head(), 200);
    }
    await_quiet(&fleet);

    let on_the_way = 1 + sent.len() as u64;
    let books = Books::of(&fleet);
    assert_eq!((books.requests, books.abandoned, books.left), (85, unsent.len() as u64, on_the_way));
    assert_eq!((books.denied, books.failed, books.callout_failures), (0, 0, 0));
    assert_eq!(books.answered() + books.abandoned + books.left, books.requests, "{books:?}");
    assert_eq!(fleet.upstream().requests(), books.allowed, "what was let pass arrived");
    let charged = taken_of_all(&fleet);
    assert_eq!(charged, books.allowed + on_the_way, "and who left on the way was charged");
    for client in 0..=84 {
        let expected = u64::from(!unsent.contains(&client));
        assert_eq!(taken_by(&fleet, client, 1), expected, "client {client}");
    }
}

#[test]
fn clients_that_close_their_connections_charge_nothing_unless_they_were_sent() {
    leave_at_every_moment(|fleet| Caller::http1(fleet.envoy(0).addr()));
}

#[test]
fn clients_that_reset_their_streams_charge_nothing_unless_they_were_sent() {
    leave_at_every_moment(|fleet| Caller::http2(fleet.envoy(0).addr()));
}

/// A few clients with room for three requests each, arrivals, departures and answers of the sidecar's in random order,
/// and nothing waits for anything.
fn leave_at_random(seed: u64, caller_of: fn(&Fleet) -> Caller) {
    const BURST: u64 = 3;
    let mut rng = Rng::with_seed(seed);
    let fleet = gated(patient(&policies(BURST))).start().expect("a fleet");
    let (gate, mut caller) = (fleet.gate(), caller_of(&fleet));
    gate.close();
    let (mut waiting, mut total) = (Vec::new(), 0);
    for step in 1..=200 {
        if step % 50 == 0 {
            // Envoy ends a connection of HTTP/2 most of whose 500 streams were reset.
            caller = caller_of(&fleet);
        }
        match rng.u32(..10) {
            0..5 => {
                for _ in 0..rng.u32(1..12) {
                    let client = rng.usize(..100);
                    waiting.push((client, send(&caller, client)));
                    total += 1;
                }
            }
            5..8 => {
                for _ in 0..rng.usize(..=waiting.len().min(8)) {
                    waiting.swap_remove(rng.usize(..waiting.len())).1.hang_up();
                }
            }
            _ => {
                if let Some(place) = rng.choice(gate.waiting()) {
                    gate.let_go(place, Fate::Decided);
                }
            }
        }
    }
    gate.open();
    let mut stayed = 0;
    for (client, request) in waiting {
        let answer = request.answer();
        assert!(matches!(answer.status, 200 | 429), "seed {seed}, client {client}: {answer}");
        stayed += u64::from(answer.status == 200);
    }
    await_quiet(&fleet);

    let callouts = gate.callouts();
    let mut asked = BTreeMap::new();
    for client in callouts.iter().flat_map(clients) {
        *asked.entry(client).or_insert(0_u64) += 1;
    }
    let taken_by_each: Vec<u64> = (0..100).map(|client| taken_by(&fleet, client, BURST)).collect();
    for (client, taken) in taken_by_each.iter().enumerate() {
        let asked = asked.get(&client).copied().unwrap_or_default();
        assert_eq!(*taken, asked.min(BURST), "seed {seed}, client {client}");
    }
    let charged = taken_of_all(&fleet);
    assert_eq!(charged, taken_by_each.iter().sum::<u64>(), "seed {seed}: from both limits or from none");

    let (books, asked) = (Books::of(&fleet), asked.values().sum::<u64>());
    let said =
        format!("seed {seed}: {books:?}, {asked} asked, {charged} charged, {stayed} passed and stayed");
    assert_eq!(books.requests, total, "{said}");
    assert_eq!(books.abandoned + asked, books.requests, "{said}: asked for or given up, one of both");
    assert_eq!(books.answered() + books.left, asked, "{said}: answered or left, one of both");
    assert_eq!((books.failed, books.callout_failures), (0, 0), "{said}");
    assert_eq!(books.callouts, callouts.len() as u64, "{said}");
    let upstream = fleet.upstream().requests();
    // Between being let pass and being sent on a client may leave, too.
    assert!(
        stayed <= upstream && upstream <= books.allowed && books.allowed <= charged,
        "{said}, {upstream}"
    );
    assert!(books.abandoned > 0 && books.left > 0, "{said}: some left in time, and some too late");
}

#[test]
fn whenever_clients_close_their_connections_the_accounts_agree() {
    for seed in [1, 2] {
        leave_at_random(seed, |fleet| Caller::http1(fleet.envoy(0).addr()));
    }
}

#[test]
fn whenever_clients_reset_their_streams_the_accounts_agree() {
    for seed in [3, 4] {
        leave_at_random(seed, |fleet| Caller::http2(fleet.envoy(0).addr()));
    }
}
