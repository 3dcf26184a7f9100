//! Exactly as many pass as a limit allows, over all Envoys and their workers, whatever questions are spared.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use e2e::{Books, Client, Shortcuts, await_quiet, by_api_key, strict, taken};
use fleet::{Envoy, Store};
use serde_json::{Value, json};

const CLIENTS: usize = 5;
const CONNECTIONS: usize = 24;
/// What each client sends.
const REQUESTS: usize = 120;
const BURST: u64 = 40;

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

/// Asserts that exactly the bursts of all clients pass.
fn assert_exact(shortcuts: &Shortcuts, workers: u32, store: Store) {
    let said = format!("{workers} workers, {store:?}, {shortcuts}");
    let fleet = shortcuts.fleet(&configuration()).envoys(3).concurrency(workers).store(store.clone());
    let sidecars = if store == Store::Memory { 1 } else { 2 };
    let fleet = fleet.sidecars(sidecars).start().expect("a fleet");
    let addrs: Vec<SocketAddr> = fleet.envoys().iter().map(Envoy::addr).collect();
    assert_eq!(fire(&addrs, "/"), [BURST; CLIENTS], "{said}");
    assert_eq!(fire(&addrs, "/twice"), [BURST / 2; CLIENTS], "{said}");
    await_quiet(&fleet);
    let passed = (BURST + BURST / 2) * CLIENTS as u64;
    let (books, sent) = (Books::of(&fleet), 2 * (CLIENTS * REQUESTS) as u64);
    assert_eq!((books.allowed, books.denied), (passed, sent - passed), "{said}: {books:?}");
    assert_eq!((books.failed, books.abandoned, books.requests), (0, 0, sent), "{said}: {books:?}");
    assert_eq!(fleet.upstream().requests(), passed, "{said}");
    if store == Store::Redis {
        let of = |limit: &str, path: &str, number: usize| {
            let bucket = format!("{limit}/{{header:x-api-key={}}}", name(path, number));
            taken(&fleet, "e2e", &bucket, BURST)
        };
        for number in 0..CLIENTS {
            assert_eq!(of("one", "/", number), BURST, "{said}");
            assert_eq!(of("twice", "/twice", number), BURST, "{said}");
            assert_eq!(
                of("one", "/twice", number),
                BURST / 2,
                "{said}: who is denied by one loses nothing of the other"
            );
        }
    }
}

#[test]
fn two_workers_in_each_of_three_envoys_admit_no_more_and_no_less() {
    Shortcuts::all().iter().for_each(|shortcuts| assert_exact(shortcuts, 2, Store::Redis));
}

#[test]
fn four_workers_in_each_of_three_envoys_admit_no_more_and_no_less() {
    Shortcuts::none_and_all().iter().for_each(|shortcuts| assert_exact(shortcuts, 4, Store::Redis));
}

#[test]
fn a_sidecar_that_keeps_the_buckets_itself_admits_no_more_and_no_less() {
    Shortcuts::none_and_all().iter().for_each(|shortcuts| assert_exact(shortcuts, 2, Store::Memory));
}
