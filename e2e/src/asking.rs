//! Asking a fleet, and what its answers tell.

use fleet::http::{Answer, Request};
use fleet::{Fleet, eventually};

use crate::PATIENCE;

/// What the first Envoy answers.
///
/// # Panics
/// Where no answer comes.
#[must_use]
pub fn ask(fleet: &Fleet, request: Request) -> Answer {
    request.send(fleet.envoy(0).addr()).expect("an answer")
}

/// The statuses of the same request, sent so many times.
///
/// # Panics
/// Where no answer comes.
#[must_use]
pub fn statuses(fleet: &Fleet, count: usize, request: &Request) -> Vec<u16> {
    (0..count).map(|_| ask(fleet, request.clone()).status).collect()
}

/// Whole tokens that are left, by what the client is told.
///
/// # Panics
/// Where the header is no number.
#[must_use]
pub fn remaining(answer: &Answer) -> Option<u64> {
    answer.header("x-ratelimit-remaining").map(|text| text.parse().expect("a number"))
}

/// The limits that governed a request, by their names in `RateLimit-Policy`.
#[must_use]
pub fn governed_by(answer: &Answer) -> Vec<String> {
    let items = answer.header("ratelimit-policy").unwrap_or_default().split(", ");
    items.filter_map(|item| Some(item.split('"').nth(1)?.to_owned())).collect()
}

/// Waits until a counter of the first Envoy has reached a value, and no more.
///
/// # Panics
/// Where it does not, or goes beyond it.
pub fn await_counter(fleet: &Fleet, name: &str, value: u64) {
    let full = format!("wasmcustom.sluice.{name}");
    let mut last = 0;
    let reached = eventually(PATIENCE, &format!("{name} is {value}"), || {
        last = fleet.envoy(0).stat(&full).ok()?;
        (last >= value).then_some(())
    });
    reached.unwrap_or_else(|error| panic!("{error}; it is {last}"));
    assert_eq!(last, value, "{name}");
}

/// Waits for a line of the first Envoy's access log that contains a text.
///
/// # Panics
/// Where none comes.
#[must_use]
pub fn await_line(fleet: &Fleet, containing: &str) -> String {
    let line = eventually(PATIENCE, &format!("the access log has {containing}"), || {
        fleet.envoy(0).access_log().lines().find(|line| line.contains(containing)).map(str::to_owned)
    });
    line.unwrap_or_else(|error| panic!("{error}\n{}", fleet.envoy(0).access_log()))
}
