//! Exactly as many pass as a limit allows, over all Envoys and their workers, whatever questions are spared.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use e2e::{Books, Client, PATIENCE, Shortcuts, await_quiet, by_api_key, strict, taken};
use fleet::{Envoy, Store, eventually};
use serde_json::{Value, json};

const CLIENTS: usize = 3;
const CONNECTIONS: usize = 24;
/// What each client sends.
const REQUESTS: usize = 400;
const BURST: u64 = 240;

/// One limit for each client, and one for each with half the room, of which requests below `/twice` take two at once.
fn configuration() -> Value {
    let mut twice = by_api_key("twice", "1 per day", BURST);
    twice["match"] = json!({"path": {"prefix": "/twice"}});
    twice["cost"] = json!(2);
    strict(&json!([by_api_key("one", "1 per day", BURST), twice]))
}

/// How many passed of each client's requests, which go to all proxies in turn and all at once.
fn fire(addrs: &[SocketAddr], path: &str) -> Vec<u64> {
    let (next, total) = (AtomicUsize::new(0), CLIENTS * REQUESTS);
    let passed: Vec<Vec<u64>> = thread::scope(|scope| {
        let connection = || {
            let clients: Vec<Client> = (0..CLIENTS).map(|number| Client::new(&name(path, number))).collect();
            let mut passed = vec![0; CLIENTS];
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return passed;
                }
                let client = number % CLIENTS;
                match clients[client].get(addrs[number / CLIENTS % addrs.len()], path) {
                    200 => passed[client] += 1,
                    429 => {}
                    other => panic!("request {number} got {other}"),
                }
            }
        };
        let connections: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(connection)).collect();
        connections.into_iter().map(|thread| thread.join().expect("every request is decided")).collect()
    });
    (0..CLIENTS).map(|client| passed.iter().map(|passed| passed[client]).sum()).collect()
}

/// A client of one path only.
fn name(path: &str, number: usize) -> String {
    format!("{}{number}", path.trim_start_matches('/'))
}

/// Asserts that exactly so many of each client's requests pass: at once, or where tokens are leased, in the end, when
/// those that nobody has spent are returned, or asked for where they are. Returns how many were sent.
fn assert_pass(addrs: &[SocketAddr], path: &str, expected: u64, shortcuts: &Shortcuts, said: &str) -> u64 {
    let (mut passed, mut sent) = (fire(addrs, path), (CLIENTS * REQUESTS) as u64);
    assert!(passed.iter().all(|passed| *passed <= expected), "{said}: {passed:?}");
    if shortcuts.leases() {
        let all_is_spent = eventually(PATIENCE, "all tokens are spent", || {
            for (number, passed) in passed.iter_mut().enumerate().filter(|(_, passed)| **passed < expected) {
                let again = addrs.iter().map(|addr| Client::new(&name(path, number)).get(*addr, path));
                *passed += again.filter(|status| *status == 200).count() as u64;
                sent += addrs.len() as u64;
            }
            passed.iter().all(|passed| *passed >= expected).then_some(())
        });
        all_is_spent.unwrap_or_else(|error| panic!("{said}: {error}; {passed:?} of {expected}"));
    }
    assert_eq!(passed, [expected; CLIENTS], "{said}");
    sent
}

/// Asserts that exactly the bursts of all clients pass.
fn assert_exact(shortcuts: &Shortcuts, workers: u32, store: Store) {
    let said = format!("{workers} workers, {store:?}, {shortcuts}");
    let fleet = shortcuts.fleet(&configuration()).envoys(3).concurrency(workers).store(store.clone());
    let sidecars = if store == Store::Memory { 1 } else { 2 };
    let fleet = fleet.sidecars(sidecars).start().expect("a fleet");
    let addrs: Vec<SocketAddr> = fleet.envoys().iter().map(Envoy::addr).collect();
    let sent = assert_pass(&addrs, "/", BURST, shortcuts, &said)
        + assert_pass(&addrs, "/twice", BURST / 2, shortcuts, &said);
    await_quiet(&fleet);
    let (books, passed) = (Books::of(&fleet), (BURST + BURST / 2) * CLIENTS as u64);
    assert_eq!((books.allowed, books.denied), (passed, sent - passed), "{said}: {books:?}");
    assert_eq!((books.failed, books.abandoned, books.requests), (0, 0, sent), "{said}: {books:?}");
    assert_eq!(fleet.upstream().requests(), passed, "{said}");
    let (remembered, leased) = (books.remembered > 0, books.leased > 0);
    assert_eq!(
        (remembered, leased),
        (shortcuts.remembers(), shortcuts.leases()),
        "{said}: used where on: {books:?}"
    );
    if store == Store::Redis {
        let assert_taken = |limit: &str, path: &str, number: usize, expected: u64| {
            let bucket = format!("{limit}/{{header:x-api-key={}}}", name(path, number));
            let mut last = 0;
            // What was leased and not spent is on its way back.
            let agrees = eventually(PATIENCE, &format!("{expected} are taken of {bucket}"), || {
                last = taken(&fleet, "e2e", &bucket, BURST);
                (last == expected).then_some(())
            });
            agrees.unwrap_or_else(|error| panic!("{said}: {error}; {last} are"));
        };
        for number in 0..CLIENTS {
            assert_taken("one", "/", number, BURST);
            assert_taken("twice", "/twice", number, BURST);
            // Who is denied by one loses nothing of the other.
            assert_taken("one", "/twice", number, BURST / 2);
        }
    }
}

#[test]
fn two_workers_in_each_of_three_envoys_admit_no_more_and_no_less() {
    Shortcuts::in_pairs().iter().for_each(|shortcuts| assert_exact(shortcuts, 2, Store::Redis));
}

#[test]
fn four_workers_in_each_of_three_envoys_admit_no_more_and_no_less() {
    Shortcuts::none_and_all().iter().for_each(|shortcuts| assert_exact(shortcuts, 4, Store::Redis));
}

#[test]
fn a_sidecar_that_keeps_the_buckets_itself_admits_no_more_and_no_less() {
    Shortcuts::none_and_all().iter().for_each(|shortcuts| assert_exact(shortcuts, 2, Store::Memory));
}
