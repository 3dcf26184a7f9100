//! How long things take: the percentiles of the last minute, and what a scrape sums up over months.

use std::time::Duration;

use hdrhistogram::Histogram;
use prometheus_client::metrics::histogram;
use serde::Serialize;
use utoipa::ToSchema;

use super::recent::{Recent, Renew};

/// How long percentiles look back.
const MINUTE_US: u64 = 60_000_000;

/// How exact percentiles are: one digit is a sixteenth.
const DIGITS: u8 = 1;

/// What takes longer counts as that: nothing that is answered does.
const LONGEST_US: u64 = 3_600_000_000;

/// The bounds of what is exposed, in seconds: each the double of the one before, from 32 µs to 1 s.
const FIRST_BOUND_S: f64 = 0.000_032;
const BOUNDS: u16 = 16;

/// How long it took in the last minute, in microseconds; 0 where nothing did. Percentiles are up to a sixteenth above the
/// truth, and never above `max`, which is as exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Percentiles {
    /// How often.
    pub count: u64,
    /// Half were as quick or quicker.
    pub p50: u64,
    /// Nine of ten were.
    pub p90: u64,
    /// Ninety-nine of a hundred were.
    pub p99: u64,
    /// All were.
    pub max: u64,
}

/// How long things of one kind took in the last minute.
#[derive(Debug, Default)]
pub(super) struct Latency(Recent<Slice, 10_000_000, 6>);

impl Latency {
    pub(super) fn record(&mut self, took_us: u64, now_us: u64) {
        self.0.at(now_us).record(took_us.min(LONGEST_US));
    }

    pub(super) fn percentiles(&self, now_us: u64) -> Percentiles {
        let Ok(mut minute) = Histogram::<u32>::new(DIGITS) else { return Percentiles::default() };
        for slice in self.0.within(now_us, MINUTE_US).filter_map(|slice| slice.0.as_ref()) {
            // Likewise.
            let _ = minute.add(slice);
        }
        let at = |quantile| minute.value_at_quantile(quantile).min(minute.max());
        Percentiles { count: minute.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), max: minute.max() }
    }
}

/// The same, with a histogram since the start, to be scraped.
#[derive(Debug)]
pub(crate) struct Exposed {
    latency: Latency,
    seconds: histogram::Histogram,
}

impl Default for Exposed {
    fn default() -> Self {
        let bounds = histogram::exponential_buckets(FIRST_BOUND_S, 2.0, BOUNDS);
        Self { latency: Latency::default(), seconds: histogram::Histogram::new(bounds) }
    }
}

impl Exposed {
    pub(crate) fn record(&mut self, took: Duration, now_us: u64) {
        self.latency.record(micros(took), now_us);
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn percentiles(&self, now_us: u64) -> Percentiles {
        self.latency.percentiles(now_us)
    }

    /// It shares its counts with the one that is recorded in.
    pub(crate) fn seconds(&self) -> histogram::Histogram {
        self.seconds.clone()
    }
}

/// In whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Of one slice of time; nothing at first. As large as what was recorded needs: some hundred bytes where nothing takes longer
/// than milliseconds.
#[derive(Debug, Default)]
struct Slice(Option<Histogram<u32>>);

impl Slice {
    fn record(&mut self, took_us: u64) {
        if self.0.is_none() {
            self.0 = Histogram::new(DIGITS).ok();
        }
        if let Some(histogram) = &mut self.0 {
            // It grows as it needs to, and so what is recorded always fits.
            let _ = histogram.record(took_us);
        }
    }
}

impl Renew for Slice {
    fn renew(&mut self) {
        if let Some(histogram) = &mut self.0 {
            histogram.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_near_the_truth_and_pass_with_the_minute() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentiles(0), Percentiles::default());
        for took_us in 1..=10_000 {
            latency.record(took_us, took_us);
        }
        let found = latency.percentiles(59_000_000);
        let near = |found: u64, truth: u64| (truth..=truth + truth / 16).contains(&found);
        assert_eq!(found.count, 10_000);
        assert!(near(found.p50, 5_000) && near(found.p90, 9_000) && near(found.p99, 9_900), "{found:?}");
        assert!(near(found.max, 10_000), "{found:?}");
        assert_eq!(latency.percentiles(60_000_000), Percentiles::default());
    }

    #[test]
    fn what_takes_for_ever_is_counted_like_all_else() {
        let mut exposed = Exposed::default();
        exposed.record(Duration::MAX, 5);
        exposed.record(Duration::ZERO, 5);
        let found = exposed.percentiles(5);
        assert_eq!((found.count, found.p50), (2, 0));
    }
}
