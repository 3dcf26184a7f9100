//! An open loop: requests at random instants of a given rate, whether or not earlier ones have been answered.
//!
//! Latency counts from the instant that a request was due, not from when it could be sent, so that a server that
//! stalls is charged for everything that was due meanwhile. The instants are those of a Poisson process, as of many
//! clients who do not know of each other, and the same in each run. They are kept to a few microseconds: the timers of
//! most runtimes, and so of most programs for load, have steps of a millisecond, which would send requests in bunches
//! and hide what a decision adds.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use polling::{Event, Events, PollMode, Poller};

use crate::Failure;

/// The most requests on their way at a time. A request that finds no free connection waits, and its wait counts.
pub const CONNECTIONS: usize = 128;

const SEED: u64 = 1;

/// What is sent, and how fast.
pub struct OpenLoop {
    /// Whom to.
    pub addr: SocketAddr,
    /// Distinct API keys, in turn.
    pub keys: u32,
    /// Requests per second, on average.
    pub per_second: f64,
    /// For how long.
    pub duration: Duration,
    /// How long after that answers are still waited for.
    pub grace: Duration,
}

/// What came of it.
pub struct Outcome {
    /// From due to answered, in microseconds; of a request without an answer, until it was given up.
    pub latencies_us: Histogram<u64>,
    /// Answers below 400.
    pub passed: u64,
    /// Answers of 429.
    pub denied: u64,
    /// Other answers of 400 or above.
    pub strange: u64,
    /// Requests that had no answer in time.
    pub unanswered: u64,
    /// From the first request to the last answer.
    pub took: Duration,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// When the request on its way was due.
    due: Option<Instant>,
}

impl OpenLoop {
    /// Sends it all, and waits for the answers.
    pub fn run(&self) -> Result<Outcome, Failure> {
        let requests: Vec<String> = (1..=self.keys).map(|key| self.request(key)).collect();
        let mut requests = requests.iter().cycle();
        let mut connections =
            (0..CONNECTIONS).map(|_| Connection::open(self.addr)).collect::<Result<Vec<_>, _>>()?;
        let poller = Poller::new()?;
        for (at, connection) in connections.iter().enumerate() {
            // SAFETY: the connections outlive the poller's use of them: both end with this function, and every way
            // out of it ends them together.
            unsafe { poller.add_with_mode(&connection.stream, Event::readable(at), PollMode::Level)? };
        }
        let mut idle: Vec<usize> = (0..CONNECTIONS).collect();
        let mut waiting = VecDeque::new();
        let mut events = Events::new();
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut outcome = Outcome::empty()?;

        let start = Instant::now();
        let (end, give_up) = (start + self.duration, start + self.duration + self.grace);
        let mut next_due = start + self.gap(&mut random);
        loop {
            let now = Instant::now();
            while next_due <= now && next_due < end {
                waiting.push_back(next_due);
                next_due += self.gap(&mut random);
            }
            while let (Some(&due), Some(&at)) = (waiting.front(), idle.last()) {
                let request = requests.next().ok_or("there are no keys")?;
                connections[at].send(request, due)?;
                waiting.pop_front();
                idle.pop();
            }
            if next_due >= end && idle.len() == CONNECTIONS {
                break;
            }
            if now >= give_up {
                let sent = connections.iter().filter_map(|connection| connection.due);
                sent.chain(waiting).for_each(|due| outcome.give_up(now - due));
                break;
            }
            let until = if next_due < end { next_due } else { give_up };
            events.clear();
            poller.wait(&mut events, Some(until.saturating_duration_since(now)))?;
            for event in events.iter() {
                if let Some((status, due)) = connections[event.key].receive()? {
                    outcome.answered(status, due.elapsed());
                    idle.push(event.key);
                }
            }
        }
        outcome.took = start.elapsed();
        Ok(outcome)
    }

    fn request(&self, key: u32) -> String {
        format!("GET / HTTP/1.1\r\nHost: {}\r\nx-api-key: key-{key}\r\n\r\n", self.addr)
    }

    /// How long until the next request is due.
    fn gap(&self, random: &mut fastrand::Rng) -> Duration {
        Duration::from_secs_f64(-(1.0 - random.f64()).ln() / self.per_second)
    }
}

impl Outcome {
    fn empty() -> Result<Self, Failure> {
        let latencies_us = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        Ok(Self { latencies_us, passed: 0, denied: 0, strange: 0, unanswered: 0, took: Duration::ZERO })
    }

    /// Answers of any kind.
    pub fn answers(&self) -> u64 {
        self.passed + self.denied + self.strange
    }

    fn answered(&mut self, status: u16, latency: Duration) {
        self.count(latency);
        match status {
            ..400 => self.passed += 1,
            429 => self.denied += 1,
            _ => self.strange += 1,
        }
    }

    fn give_up(&mut self, latency: Duration) {
        self.count(latency);
        self.unanswered += 1;
    }

    fn count(&mut self, latency: Duration) {
        self.latencies_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Connection {
    fn open(addr: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: Vec::new(), due: None })
    }

    /// A request is far smaller than the buffer of a socket on which nothing else is on its way.
    fn send(&mut self, request: &str, due: Instant) -> Result<(), Failure> {
        self.stream.write_all(request.as_bytes())?;
        self.due = Some(due);
        Ok(())
    }

    /// The status of an answer that is complete, and when its request was due.
    fn receive(&mut self) -> Result<Option<(u16, Instant)>, Failure> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err("a connection was closed".into()),
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        let Some((status, length)) = complete(&self.received)? else { return Ok(None) };
        self.received.drain(..length);
        let due = self.due.take().ok_or("an answer came that nobody had asked for")?;
        Ok(Some((status, due)))
    }
}

/// The status and the whole length of the answer that `received` begins with, once all of it is there.
fn complete(received: &[u8]) -> Result<Option<(u16, usize)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(received)? else { return Ok(None) };
    let status = answer.code.ok_or("an answer has no status")?;
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.ok_or("an answer has no content-length")?;
    let length = head + str::from_utf8(length.value)?.trim().parse::<usize>()?;
    Ok((received.len() >= length).then_some((status, length)))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// A server that answers each request with `answer`, or that reads on where this is empty.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    let ends = lines.filter(String::is_empty);
                    { ends }.try_for_each(|_| (&stream).write_all(answer.as_bytes()))
                });
            }
        });
        addr
    }

    fn load(addr: SocketAddr) -> OpenLoop {
        let (duration, grace) = (Duration::from_millis(300), Duration::from_millis(100));
        OpenLoop { addr, keys: 3, per_second: 1000.0, duration, grace }
    }

    #[test]
    fn answers_are_counted_by_their_kind() {
        for (answer, kind) in [
            ("HTTP/1.1 200 Yes\r\nContent-Length: 0\r\n\r\n", 0),
            ("HTTP/1.1 429 No\r\nContent-Length: 3\r\n\r\nno\n", 1),
            ("HTTP/1.1 503 Not now\r\nContent-Length: 0\r\n\r\n", 2),
        ] {
            let patient = OpenLoop { grace: Duration::from_secs(30), ..load(server(answer)) };
            let outcome = patient.run().unwrap();
            let counted = [outcome.passed, outcome.denied, outcome.strange];
            // Of a Poisson process with a mean of 300; the seed is fixed.
            assert!((200..400).contains(&counted[kind]), "{answer}: {counted:?}");
            assert_eq!((outcome.answers(), outcome.unanswered), (counted[kind], 0), "{answer}");
            assert_eq!(outcome.latencies_us.len(), counted[kind]);
        }
    }

    #[test]
    fn what_could_not_even_be_sent_counts_from_when_it_was_due() {
        let outcome = load(server("")).run().unwrap();
        assert!(outcome.unanswered > CONNECTIONS as u64, "{}", outcome.unanswered);
        assert_eq!(outcome.latencies_us.len(), outcome.unanswered);
        // The last was due before the end, and all were given up the grace after it.
        assert!(outcome.latencies_us.min() >= 99_000, "{}", outcome.latencies_us.min());
        assert!(outcome.latencies_us.max() >= 350_000, "{}", outcome.latencies_us.max());
    }

    #[test]
    fn answers_may_come_in_pieces() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        for end in 0..whole.len() {
            assert_eq!(complete(&whole[..end]).unwrap(), None);
        }
        assert_eq!(complete(whole).unwrap(), Some((200, whole.len())));
        assert!(complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
