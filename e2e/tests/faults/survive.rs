//! A fault under steady load: what it did to requests, and whether the promise was kept in every window.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{PATIENCE, by_api_key};
use fleet::traffic::{Caller, Outcome, Records, Span, Traffic};
use fleet::windows::{Allowance, Promise};
use fleet::{Envoy, Fleet, FleetBuilder, Store, eventually};
use serde_json::{Value, json};

pub const CALLERS: usize = 8;
pub const BURST: u64 = 20;
pub const PROMISE: Promise = Promise { tokens: 40, period_us: 1_000_000, burst_tokens: BURST };

/// The callout's timeout; that of a run in Redis is shorter.
pub const TIMEOUT: Duration = Duration::from_millis(250);
pub const REDIS_TIMEOUT: Duration = Duration::from_millis(150);

/// Where every request is to be decided, so that no slow machine has one fail by accident.
pub const PATIENT_TIMEOUT: Duration = Duration::from_secs(2);
pub const PATIENT_REDIS_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Beyond its timeouts a request may wait this long on a machine that has other work.
const SLACK: Duration = Duration::from_secs(1);

/// Decisions in a row that tell that requests are decided again: every connection has had several.
const WELL: u64 = 200;

/// A denial is a decision, too. So for so long each key is looked at for being admitted at its rate again, and must get
/// half of it at least: a second's tokens are twice its burst, which a fault can leave full or spent.
const AFTERWARDS: Duration = Duration::from_secs(1);
const PART: u64 = 2;

/// What a fault may do.
pub struct Row {
    /// The name of its test, and of its row in docs/reliability.md.
    pub name: &'static str,
    /// How many tokens of each key may be admitted beyond the promise in windows that touch the fault.
    pub allowed_over: u64,
    /// Whether requests may be left undecided.
    pub undecided: Undecided,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// None: it wants a [`patient`] fleet.
    None,
    /// Some are for certain: otherwise there was no fault.
    Some,
    May,
}

/// Several clients with a limit each, far below what they ask for.
pub fn configuration(timeout: Duration) -> Value {
    json!({
        "sidecar": {"cluster": "sluice", "timeout": format!("{}ms", timeout.as_millis())},
        "domain": "e2e",
        "on_error": "allow",
        "headers": {"debug": true},
        "policies": [by_api_key("all", "40 per second", BURST)],
    })
}

/// Two Envoys with two workers each, two sidecars, one Redis, and wires between all of them.
pub fn fleet() -> FleetBuilder {
    builder(TIMEOUT, REDIS_TIMEOUT).store(Store::Redis).wired()
}

/// The same, for faults that leave no request undecided.
pub fn patient() -> FleetBuilder {
    builder(PATIENT_TIMEOUT, PATIENT_REDIS_TIMEOUT).store(Store::Redis).wired()
}

/// The same without a store.
pub fn builder(timeout: Duration, redis_timeout: Duration) -> FleetBuilder {
    let fleet = Fleet::builder().filter_configuration(configuration(timeout)).envoys(2).concurrency(2);
    fleet.sidecars(2).sidecar_args(["--redis-timeout".into(), format!("{}ms", redis_timeout.as_millis())])
}

pub fn addrs(fleet: &Fleet) -> Vec<SocketAddr> {
    fleet.envoys().iter().map(Envoy::addr).collect()
}

/// Lets a fault last for a while: its length is a part of it, and nothing is waited for.
pub fn lasting(traffic: &Traffic, length: Duration) {
    let until_us = traffic.now_us() + length.as_micros() as u64;
    let over = || (traffic.now_us() >= until_us).then_some(());
    eventually(length + PATIENCE, "the fault has lasted", over).expect("time goes on");
}

/// Puts the proxies under load, has the fault happen and mended by `fault`, and holds what came of it to the row.
/// Prints one line for docs/reliability.md.
pub fn survive(row: &Row, proxies: &[SocketAddr], fault: impl FnOnce(&Traffic)) -> Records {
    let caller = |number| Caller::new("/", "x-api-key", &key(number));
    let callers: Vec<Caller> = (0..CALLERS).map(caller).collect();
    let connections = 16 / proxies.len();
    let traffic = Traffic::start(proxies, &callers, connections, Duration::from_millis(15));
    traffic.await_decided(WELL, PATIENCE).expect("all is well before");
    let from_us = traffic.now_us();
    fault(&traffic);
    let mended_us = traffic.now_us();
    traffic.await_decided(WELL, PATIENCE).expect("all is well again");
    let span = Span { from_us, until_us: traffic.now_us() };
    lasting(&traffic, AFTERWARDS);
    let afterwards = Span { from_us: span.until_us, until_us: traffic.now_us() };
    let records = traffic.stop();
    hold(row, &records, span, mended_us);
    admits_again(row, &records, afterwards);
    records
}

/// What a caller sends as its key.
pub fn key(caller: usize) -> String {
    format!("caller-{caller}")
}

/// That nobody is locked out by what the fault left behind.
fn admits_again(row: &Row, records: &Records, span: Span) {
    for caller in 0..CALLERS {
        let locked_out = records.locked_out(|other| other == caller, PROMISE, 1, span, PART);
        assert_eq!(locked_out, None, "{}: caller {caller} was due so many and got so many", row.name);
    }
    // Where nobody asked, nobody can be locked out.
    let (asked, _) = records.passed(|_| true, span);
    assert!(asked > 2 * CALLERS as u64, "{}: {asked} requests afterwards tell nothing", row.name);
}

fn hold(row: &Row, records: &Records, span: Span, mended_us: u64) {
    let over = |allowed: &[Allowance]| {
        let worst = (0..CALLERS).filter_map(|caller| records.worst_window(caller, PROMISE, allowed));
        worst.max_by_key(|window| window.over_tokens)
    };
    // What a store forgets, or a clock skips, happens while the fault lasts.
    let allowance = Allowance { from_us: span.from_us, until_us: span.until_us, tokens: row.allowed_over };
    let (admitted_over, beyond) = (over(&[]).map_or(0, |window| window.over_tokens), over(&[allowance]));

    let during = records.latencies_us(|record| span.touches(record));
    let longest_us = during.last().copied().expect("requests were sent during the fault");
    let recovery_us = records.last_undecided_us().unwrap_or(0).saturating_sub(mended_us);
    let undecided = records.count(|outcome| !outcome.is_decided());
    println!(
        "FAULT name={} answered={} failed={undecided} max_latency_ms={} recovery_ms={} admitted_over={admitted_over} \
         allowed_over={}",
        row.name,
        during.len(),
        longest_us.div_ceil(1_000),
        recovery_us.div_ceil(1_000),
        row.allowed_over,
    );

    assert_eq!(beyond, None, "{}: more than promised was admitted", row.name);
    let strange = records
        .iter()
        .find(|record| !record.outcome.is_decided() && record.outcome != Outcome::Failed { status: 200 });
    assert!(strange.is_none(), "{}: only on_error answers for a decision: {strange:?}", row.name);
    // One timeout behind the callout that is on its way, and one for its own.
    let timeout = if row.undecided == Undecided::None { PATIENT_TIMEOUT } else { TIMEOUT };
    let bound = 2 * timeout + SLACK;
    assert!(longest_us < bound.as_micros() as u64, "{}: a request took {longest_us} µs", row.name);
    match row.undecided {
        Undecided::None => assert_eq!(undecided, 0, "{}: every request is decided", row.name),
        Undecided::Some => assert!(undecided > 0, "{}: the fault was felt", row.name),
        Undecided::May => {}
    }
}
