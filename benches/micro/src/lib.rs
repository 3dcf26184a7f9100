//! What the micro-benchmarks are run on: requests as clients send them, and as filters ask the sidecar.
//!
//! `cargo xtask bench --micro` runs them all and gathers the figures; `cargo bench --package sluice-micro` runs them for
//! those who want criterion's own report.

#![forbid(unsafe_code)]

use std::borrow::Cow;

use contract::{BucketTake, Take, TakeRequest};
use policy::{CLIENT_ADDRESS, Request};
use sluice::batch::{Batch, InvalidBatch};

/// The `GET` of a browser, with a key and a dozen headers.
pub struct Get {
    path: &'static str,
}

impl Get {
    /// Of this path.
    #[must_use]
    pub fn new(path: &'static str) -> Self {
        Self { path }
    }
}

impl Request for Get {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(match name {
            ":path" => self.path.as_bytes(),
            ":method" => b"GET",
            ":authority" => b"shop.example.com",
            "x-api-key" => b"0b8f3c1e-5a7d-4f0e-9d58-3f1a2b4c5d6e",
            "user-agent" => b"Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
            _ => return None,
        }))
    }

    fn cookies(&self) -> Vec<Cow<'_, [u8]>> {
        vec![Cow::Borrowed(b"session=6f1e2d3c; theme=dark")]
    }

    fn attribute(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        (path == CLIENT_ADDRESS).then_some(Cow::Borrowed(b"192.0.2.17:41822"))
    }

    fn draw(&self) -> u32 {
        1 << 31
    }
}

/// A request for one token of each of these keys' buckets, of a limit that is never reached but slow to refill.
#[must_use]
pub fn request(keys: impl IntoIterator<Item = u64>) -> TakeRequest<'static> {
    let bucket = |key| BucketTake {
        policy: Cow::Borrowed("per-client"),
        key: Cow::Owned(format!("header:x-api-key=key-{key}")),
        tokens: 1,
        period_us: 60_000_000,
        burst: 100_000_000,
        cost: 1,
        repeats: 0,
    };
    let takes = keys.into_iter().map(|key| Take { buckets: vec![bucket(key)], ..Take::default() });
    TakeRequest { domain: Cow::Borrowed("bench"), takes: takes.collect() }
}

/// The same as the sidecar hands it to a store.
///
/// # Errors
/// Where there is no key, or more than a request may carry.
pub fn batch(keys: impl IntoIterator<Item = u64>) -> Result<Batch, InvalidBatch> {
    Batch::try_from(&request(keys))
}

/// A number with commas, as people read it.
#[must_use]
pub fn thousands(number: u64) -> String {
    match number / 1_000 {
        0 => number.to_string(),
        thousand => format!("{},{:03}", thousands(thousand), number % 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        let written = [0, 999, 1_000, 1_000_007].map(thousands);
        assert_eq!(written, ["0", "999", "1,000", "1,000,007"]);
    }

    #[test]
    fn every_request_is_one_that_the_sidecar_accepts() {
        assert_eq!(batch(0..1_000).map(|batch| batch.takes.len()), Ok(1_000));
        assert!(batch(0..0).is_err());
    }
}
