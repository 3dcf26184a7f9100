//! What a fleet has counted: the filter in Envoy's stats, the buckets in Redis.

use std::collections::BTreeMap;

use fleet::{Envoy, Fleet, eventually};

use crate::PATIENCE;

/// The filter's counters, over all Envoys of a fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Requests that Envoy has taken in, governed or not.
    pub requests: u64,
    /// Requests that may pass.
    pub allowed: u64,
    /// Requests that were answered with 429.
    pub denied: u64,
    /// Requests that the shared limits could not decide, whatever became of them.
    pub failed: u64,
    /// Requests whose clients left before they were sent.
    pub abandoned: u64,
    /// Requests whose clients left while they were asked for.
    pub left: u64,
    /// Of those denied, those that were denied by what the filter remembered.
    pub remembered: u64,
    /// Of those allowed, those that were paid by a lease.
    pub leased: u64,
    /// Callouts.
    pub callouts: u64,
    /// Callouts that failed.
    pub callout_failures: u64,
}

impl Books {
    /// As they stand.
    ///
    /// # Panics
    /// Where an Envoy does not answer.
    #[must_use]
    pub fn of(fleet: &Fleet) -> Self {
        let mut books = Self::default();
        for envoy in fleet.envoys() {
            let stats = envoy.stats("").expect("stats");
            let of = |name: &str| stats.get(name).copied().unwrap_or_default();
            let sluice = |name: &str| of(&format!("wasmcustom.sluice.{name}"));
            books.requests += of("http.ingress.downstream_rq_total");
            books.allowed += sluice("allowed");
            books.denied += sluice("denied");
            books.failed += sluice("failed_allowed") + sluice("failed_denied");
            books.failed += sluice("local_allowed") + sluice("local_denied");
            books.abandoned += sluice("abandoned");
            books.left += sluice("left");
            books.remembered += sluice("deny_cache_hits");
            books.leased += sluice("lease_hits");
            books.callouts += sluice("callouts");
            books.callout_failures += sluice("callout_failures");
        }
        books
    }

    /// Requests that got an answer of the filter's, or that it let pass.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.allowed + self.denied + self.failed
    }
}

/// What is under way in an Envoy, by the gauge.
fn active(envoy: &Envoy) -> Option<BTreeMap<String, u64>> {
    let mut stats = envoy.stats("").ok()?;
    let of_requests =
        |name: &str| name.starts_with("http.ingress.") && name.ends_with(".downstream_rq_active");
    let of_callouts = |name: &str| name.starts_with("cluster.") && name.ends_with(".upstream_rq_active");
    stats.retain(|name, value| (of_requests(name) || of_callouts(name)) && *value > 0);
    Some(stats)
}

/// Waits until no Envoy has a request of a client's or of its own under way.
///
/// # Panics
/// Where some stay.
pub fn await_quiet(fleet: &Fleet) {
    let mut last = BTreeMap::new();
    let quiet = eventually(PATIENCE, "all requests are over", || {
        fleet.envoys().iter().try_for_each(|envoy| {
            last = active(envoy)?;
            last.is_empty().then_some(())
        })
    });
    quiet.unwrap_or_else(|error| panic!("{error}; under way: {last:?}"));
}

/// Waits until the first Envoy has exactly so many requests of clients under way.
///
/// # Panics
/// Where it has not.
pub fn await_requests(fleet: &Fleet, count: u64) {
    let mut last = 0;
    let reached = eventually(PATIENCE, &format!("{count} requests are under way"), || {
        last = fleet.envoy(0).stat("http.ingress.downstream_rq_active").ok()?;
        (last == count).then_some(())
    });
    reached.unwrap_or_else(|error| panic!("{error}; {last} are"));
}

/// Whole tokens that were taken of a bucket with this burst, as Redis keeps it: `bucket` is its limit and its key, such as
/// `one/{header:x-api-key=alice}`. Nothing is given back meanwhile where a token takes a day.
///
/// # Panics
/// Where Redis keeps something else.
#[must_use]
pub fn taken(fleet: &Fleet, domain: &str, bucket: &str, burst: u64) -> u64 {
    let key = format!("sluice:1:{domain}/{bucket}");
    let kept = fleet.redis().command(&["GET", &key]).expect("Redis answers").to_string();
    if kept.is_empty() {
        return 0;
    }
    let numbers: Vec<i64> = kept.split(' ').map_while(|number| number.parse().ok()).collect();
    let [credits, unit, ..] = numbers[..] else { panic!("{key} is {kept:?}") };
    let level = credits.div_euclid(unit);
    u64::try_from(i64::try_from(burst).expect("a burst") - level).expect("no more than the burst is left")
}
