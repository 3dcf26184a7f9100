//! A configuration takes over from another under load, while takes of the old one are on their way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use e2e::{
    Books, Caller, Client, PATIENCE, PATIENT, Waiting, Watched, await_quiet, by_api_key, strict, taken,
};
use fastrand::Rng;
use fleet::{Fate, Fleet, FleetBuilder, Store, eventually};
use serde_json::{Value, json};

/// An old listener's connections are told at once that it goes, and it goes soon.
const SOON: [&str; 4] = ["--drain-time-s", "1", "--drain-strategy", "immediate"];

/// Long against any test: nothing goes before the end.
const LATE: [&str; 2] = ["--drain-time-s", "600"];

/// The same limit in every version, which is told by the burst, and by a field that changes no decision.
fn version(number: u64, burst: u64) -> Value {
    let mut configuration = strict(&json!([by_api_key("one", "1 per day", burst)]));
    configuration["sidecar"]["timeout"] = json!(format!("{}ms", 60_000 - number));
    configuration
}

fn builder(configuration: Value) -> FleetBuilder {
    Fleet::builder().filter_configuration(configuration).sidecar_args(PATIENT).store(Store::Redis)
}

fn taken_by(watched: &Watched, client: &str, burst: u64) -> u64 {
    taken(watched.fleet(), "e2e", &format!("one/{{header:x-api-key={client}}}"), burst)
}

/// Waits until nothing is left of old listeners.
fn await_drained(watched: &Watched) {
    let envoy = watched.fleet().envoy(0);
    let drained = eventually(PATIENCE, "old listeners are gone", || {
        let stats = envoy.stats("listener_manager.total_").ok()?;
        stats.iter().all(|(name, count)| !name.ends_with("_draining") || *count == 0).then_some(())
    });
    drained.unwrap_or_else(|error| panic!("{error}: {:?}", envoy.stats("listener_manager.")));
}

/// Virtual machines that run the filter.
fn machines(watched: &Watched) -> u64 {
    let stats = watched.fleet().envoy(0).stats("wasm.").expect("stats");
    stats.iter().filter(|(name, _)| name.ends_with(".active")).map(|(_, count)| count).sum()
}

/// Each version sends and hands out its own, whichever answer comes first.
#[test]
fn takes_of_an_old_configuration_are_answered_after_a_new_one_took_over() {
    const BURST: u64 = 10_000;
    let mut rng = Rng::with_seed(5);
    let watched = Watched::start(builder(version(0, BURST)).gated().envoy_args(LATE));
    let (fleet, caller) = (watched.fleet(), Caller::http1(watched.addr()));
    let gate = fleet.gate();
    let machines_before = machines(&watched);
    assert!(machines_before > 0, "they are counted");
    // Later versions raise the burst, which adds nothing to a bucket that is not full.
    assert_eq!(caller.get("/", &[("x-api-key", "alice")]).answer().status, 200);
    let mut callouts = 1;
    let mut books_before = Books::of(fleet);
    for round in 0..4 {
        gate.close();
        // Of every version one callout is on its way, and more requests wait behind it.
        let mut waiting: Vec<(u64, Waiting)> = Vec::new();
        for step in 0..3 {
            let number = round * 3 + step;
            if number > 0 {
                watched.update(&version(number, BURST + number));
                watched.await_updates(number + 1);
            }
            let mut send = |count: u64| {
                waiting.extend((0..count).map(|_| (number, caller.get("/", &[("x-api-key", "alice")]))));
            };
            send(1);
            callouts += 1;
            gate.await_callouts(callouts, PATIENCE).expect("the new version sends, though the old one waits");
            send(12);
        }
        e2e::await_requests(fleet, 39);
        let (leaving, staying): (Vec<_>, Vec<_>) =
            waiting.into_iter().enumerate().partition(|(index, _)| index % 13 != 0 && rng.u8(..3) == 0);
        let left = leaving.len() as u64;
        leaving.into_iter().for_each(|(_, (_, request))| request.hang_up());
        e2e::await_requests(fleet, 39 - left);
        let mut held = gate.waiting();
        rng.shuffle(&mut held);
        held.into_iter().for_each(|place| gate.let_go(place, Fate::Decided));
        callouts += 3;
        gate.await_callouts(callouts, PATIENCE).expect("what waited leaves");
        gate.open();
        let stayed = staying.len() as u64;
        for (_, (number, request)) in staying {
            let answer = request.answer();
            let limit = answer.header("x-ratelimit-limit").map(str::to_owned);
            assert_eq!(
                (answer.status, limit),
                (200, Some((BURST + number).to_string())),
                "its own version's answer"
            );
        }
        await_quiet(fleet);
        let books = Books::of(fleet);
        assert_eq!((books.allowed - books_before.allowed, books.failed, books.denied), (stayed, 0, 0));
        assert_eq!(books.abandoned - books_before.abandoned, left);
        books_before = books;
    }
    assert_eq!(fleet.upstream().requests(), books_before.allowed);
    assert_eq!(taken_by(&watched, "alice", BURST), books_before.allowed, "one bucket for all versions");
    assert_eq!(machines(&watched), machines_before, "one machine for all versions");
}

/// The old listener goes while its takes are on their way: its clients are cut off by Envoy, nobody else is.
#[test]
fn an_old_configuration_may_end_while_its_takes_are_on_their_way() {
    const BURST: u64 = 10_000;
    let watched = Watched::start(builder(version(0, BURST)).gated().envoy_args(SOON));
    let (fleet, caller) = (watched.fleet(), Caller::http1(watched.addr()));
    let gate = fleet.gate();
    for number in 1..=3 {
        gate.close();
        let send = || caller.get("/", &[("x-api-key", "alice")]);
        let mut waiting = vec![send()];
        let before = gate.await_callouts(2 * number as usize - 1, PATIENCE).expect("sent").len();
        waiting.extend((0..10).map(|_| send()));
        e2e::await_requests(fleet, 11);
        watched.update(&version(number, BURST));
        watched.await_updates(number + 1);
        await_drained(&watched);
        e2e::await_requests(fleet, 0);
        // What the old one had on its way comes back to nobody, and the new one decides.
        let next = send();
        gate.await_callouts(before + 1, PATIENCE).expect("the new version sends");
        gate.open();
        assert_eq!(next.answer().status, 200);
        drop(waiting);
    }
    await_quiet(fleet);
    fleet.check_running().expect("all run");
    let books = Books::of(fleet);
    assert_eq!((books.allowed, books.denied, books.failed), (3, 0, 0), "{books:?}");
    let asked: usize = gate.callouts().iter().map(|callout| callout.takes.len()).sum();
    assert_eq!(taken_by(&watched, "alice", BURST), asked as u64, "what was asked is charged");
    assert_eq!(asked, 6, "and what waited was never asked for");
    assert!(!fleet.envoy(0).log().contains("wasm_fail"), "{}", fleet.envoy(0).log());
}

#[test]
fn a_limit_is_exact_across_updates_under_load() {
    const BURST: u64 = 700;
    let watched = Watched::start(builder(version(0, BURST)).concurrency(2).envoy_args(SOON));
    let machines_before = machines(&watched);
    let (ended, passed, denied) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let client = Client::new("everybody");
                while !ended.load(Ordering::Relaxed) {
                    match client.get(watched.addr(), "/") {
                        200 => passed.fetch_add(1, Ordering::Relaxed),
                        429 => denied.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            });
        }
        // There and back again: Envoy may find the configuration before last still in use.
        for update in 1..=8 {
            watched.update(&version(update % 3, BURST));
            watched.await_updates(update + 1);
        }
        let denies = || (denied.load(Ordering::Relaxed) > 0).then_some(());
        let all_is_taken = eventually(PATIENCE, "the limit is used up", denies);
        ended.store(true, Ordering::Relaxed);
        all_is_taken.expect("denied");
    });
    await_drained(&watched);
    await_quiet(watched.fleet());
    let (books, denied) = (Books::of(watched.fleet()), denied.into_inner());
    assert_eq!(passed.into_inner(), BURST);
    assert_eq!((books.allowed, books.denied, books.failed, books.abandoned), (BURST, denied, 0, 0));
    assert_eq!(watched.fleet().upstream().requests(), BURST);
    assert_eq!(taken_by(&watched, "everybody", BURST), BURST);
    assert_eq!(machines(&watched), machines_before, "no machine is left over");
}
