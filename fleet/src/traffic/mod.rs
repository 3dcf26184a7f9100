//! Steady traffic over a fleet, of which each request is recorded: when it was sent, when it was answered, and how.

mod client;
mod records;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::client::Client;
pub use self::records::{Records, Span};
use crate::{Error, Result, eventually};

/// A request that is not answered within this hangs.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How a request was answered, as the filter's report tells it (`headers.debug`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The limits let it pass.
    Allowed,
    /// They did not.
    Denied,
    /// They could not be asked, and the proxy decided by itself, as `on_error: local` says.
    Local {
        /// Whether it let it pass.
        passed: bool,
    },
    /// It could not be decided: `on_error` answered.
    Failed {
        /// With which status.
        status: u16,
    },
    /// An answer that is none of the filter's.
    Strange {
        /// With which status.
        status: u16,
    },
    /// The connection ended before the whole answer had come.
    Broken,
    /// No answer came within [`PATIENCE`].
    Hung,
}

impl Outcome {
    /// Whether the limits decided, as all proxies share them.
    #[must_use]
    pub fn is_decided(self) -> bool {
        matches!(self, Self::Allowed | Self::Denied)
    }
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Whose it was: the place among the callers.
    pub caller: usize,
    /// When it was sent, since the traffic began.
    pub sent_us: u64,
    /// When its answer was read.
    pub answered_us: u64,
    /// What was answered.
    pub outcome: Outcome,
}

/// Who sends the same `GET` again and again.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The path.
    pub path: String,
    /// The headers, such as the key.
    pub headers: Vec<(String, String)>,
}

impl Caller {
    /// One with one header.
    #[must_use]
    pub fn new(path: &str, header: &str, value: &str) -> Self {
        Self { path: path.to_owned(), headers: vec![(header.to_owned(), value.to_owned())] }
    }

    fn request(&self) -> Vec<u8> {
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("GET {} HTTP/1.1\r\nhost: sluice\r\n{}\r\n", self.path, headers.collect::<String>())
            .into_bytes()
    }
}

/// Connections that send, each one request after the other, to all callers and proxies in turn, and no sooner than a
/// pace allows. They end when this is dropped.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Record>>>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    ended: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    decided_in_a_row: AtomicU64,
}

impl Traffic {
    /// Starts so many connections to each proxy's address; each sends a request every `pace` at most.
    #[must_use]
    pub fn start(proxies: &[SocketAddr], callers: &[Caller], connections: usize, pace: Duration) -> Self {
        let zero = || AtomicU64::new(0);
        let shared = Arc::new(Shared {
            start: Instant::now(),
            ended: AtomicBool::new(false),
            sent: zero(),
            answered: zero(),
            decided_in_a_row: zero(),
        });
        let requests: Arc<Vec<Vec<u8>>> = Arc::new(callers.iter().map(Caller::request).collect());
        let run = |number: usize| {
            let (shared, requests, to) =
                (Arc::clone(&shared), Arc::clone(&requests), proxies[number % proxies.len()]);
            thread::spawn(move || send(&shared, &requests, to, pace))
        };
        let threads = (0..connections * proxies.len()).map(run).collect();
        Self { shared, threads }
    }

    /// The time since it began, by which the records count.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.shared.now_us()
    }

    /// Requests that were answered so far, or ended otherwise.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Waits until so many more requests were answered.
    pub fn await_answers(&self, count: u64, bound: Duration) -> Result<()> {
        let before = self.answered();
        let what = format!("{count} more answers");
        eventually(bound, &what, || (self.answered() >= before + count).then_some(()))
    }

    /// Waits until of so many answers in a row, from now on, each was a decision.
    pub fn await_decided(&self, count: u64, bound: Duration) -> Result<()> {
        self.shared.decided_in_a_row.store(0, Ordering::SeqCst);
        let decided = || self.shared.decided_in_a_row.load(Ordering::SeqCst);
        let outcome = eventually(bound, "decisions", || (decided() >= count).then_some(()));
        outcome.map_err(|error| match error {
            Error::Late { waited, .. } => {
                Error::Late { what: format!("{count} decisions in a row; there were {}", decided()), waited }
            }
            other => other,
        })
    }

    /// Ends it, and tells of every request.
    ///
    /// # Panics
    /// Where a connection's thread did.
    #[must_use]
    pub fn stop(mut self) -> Records {
        self.shared.ended.store(true, Ordering::SeqCst);
        let records = self.threads.drain(..).flat_map(|thread| thread.join().expect("it sends to its end"));
        Records::new(records.collect())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn send(shared: &Shared, requests: &[Vec<u8>], to: SocketAddr, pace: Duration) -> Vec<Record> {
    let (mut client, mut records, mut next) = (Client::new(to, PATIENCE), Vec::new(), Instant::now());
    while !shared.ended.load(Ordering::SeqCst) {
        // The pace is the load itself: nothing is waited for.
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next = next.max(Instant::now()) + pace;
        let number = shared.sent.fetch_add(1, Ordering::SeqCst);
        let caller = usize::try_from(number).unwrap_or_default() % requests.len();
        let sent_us = shared.now_us();
        let outcome = client.ask(&requests[caller]);
        records.push(Record { caller, sent_us, answered_us: shared.now_us(), outcome });
        if outcome.is_decided() {
            shared.decided_in_a_row.fetch_add(1, Ordering::SeqCst);
        } else {
            shared.decided_in_a_row.store(0, Ordering::SeqCst);
        }
        shared.answered.fetch_add(1, Ordering::SeqCst);
    }
    records
}
