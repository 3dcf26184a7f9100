//! A gate before a sidecar: it notes what is asked, and lets callouts through when a test wants, or has them fail.
//!
//! Requests other than callouts, such as health checks, always pass.

use std::{
    fmt,
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Error, Result,
    head::Head,
    http::{self, Answer},
    listening::{self, Serving},
};

/// What sidecars are asked at.
const CALLOUT: &str = "/v1/take";

/// What becomes of a callout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The sidecar decides it, and its answer comes back.
    Decided,
    /// The sidecar decides it, and its answer breaks off in the midst.
    BrokenOff,
    /// The sidecar is not asked, and no answer comes.
    Silent,
    /// The sidecar is not asked, and the connection ends without an answer.
    HungUp,
    /// The sidecar is not asked, and a refusal of a sidecar's comes back.
    Refused,
    /// The sidecar is not asked, and what comes back cannot be read.
    Unreadable,
}

impl Fate {
    /// Whether the sidecar decides.
    #[must_use]
    pub fn is_decided(self) -> bool {
        matches!(self, Self::Decided | Self::BrokenOff)
    }
}

/// A callout that has reached the gate.
#[derive(Clone, Debug)]
pub struct Callout {
    /// Its takes, as they were asked.
    pub takes: Vec<Value>,
    /// What became of it; nothing while it waits.
    pub fate: Option<Fate>,
    /// What the sidecar said to each take; nothing where it was not asked, or has not answered yet.
    pub verdicts: Vec<Value>,
}

impl Callout {
    /// The key of each take's bucket of a policy, in order; of those that have one.
    #[must_use]
    pub fn keys(&self, policy: &str) -> Vec<&str> {
        let buckets = self.takes.iter().flat_map(|take| take["buckets"].as_array().into_iter().flatten());
        buckets
            .filter(|bucket| bucket["policy"] == policy)
            .filter_map(|bucket| bucket["key"].as_str())
            .collect()
    }
}

/// A server in threads of this process, ended when this is dropped. It is open until it is closed.
pub struct Gate {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    sidecar: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    closed: bool,
    callouts: Vec<Callout>,
}

impl Gate {
    /// Listens on a free port of 127.0.0.1.
    pub fn start(sidecar: SocketAddr) -> Result<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { sidecar, state, changed, ended: AtomicBool::new(false) });
        let addr = listening::start("the gate", &shared)?;
        Ok(Self { addr, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on callouts wait.
    pub fn close(&self) {
        self.shared.lock().closed = true;
    }

    /// Has those decided that wait, and all that come.
    pub fn open(&self) {
        let mut state = self.shared.lock();
        state.closed = false;
        for callout in &mut state.callouts {
            callout.fate.get_or_insert(Fate::Decided);
        }
        self.shared.changed.notify_all();
    }

    /// Decides the fate of a callout, by its place in [`callouts`](Self::callouts). The first fate counts.
    ///
    /// # Panics
    /// Where there is none.
    pub fn let_go(&self, place: usize, fate: Fate) {
        self.shared.lock().callouts[place].fate.get_or_insert(fate);
        self.shared.changed.notify_all();
    }

    /// All callouts so far, in the order in which they came.
    #[must_use]
    pub fn callouts(&self) -> Vec<Callout> {
        self.shared.lock().callouts.clone()
    }

    /// The places of those that wait.
    #[must_use]
    pub fn waiting(&self) -> Vec<usize> {
        let state = self.shared.lock();
        let waits = |(place, callout): (usize, &Callout)| callout.fate.is_none().then_some(place);
        state.callouts.iter().enumerate().filter_map(waits).collect()
    }

    /// Waits until so many callouts have come, and returns them all.
    pub fn await_callouts(&self, count: usize, bound: Duration) -> Result<Vec<Callout>> {
        let (start, mut state) = (Instant::now(), self.shared.lock());
        while state.callouts.len() < count {
            let rest = bound.saturating_sub(start.elapsed());
            if rest.is_zero() {
                let what = format!("{count} callouts at the gate; {} came", state.callouts.len());
                return Err(Error::Late { what, waited: start.elapsed() });
            }
            let waited = self.shared.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state.callouts.clone())
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Whoever holds the lock is about to wait, and must hear of it.
        drop(self.shared.lock());
        self.shared.changed.notify_all();
        listening::wake(self.addr);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a callout, and waits for its fate; nothing where the gate has ended.
    fn admit(&self, takes: Vec<Value>) -> Option<(usize, Fate)> {
        let mut state = self.lock();
        let place = state.callouts.len();
        let fate = (!state.closed).then_some(Fate::Decided);
        state.callouts.push(Callout { takes, fate, verdicts: Vec::new() });
        self.changed.notify_all();
        loop {
            if self.ended.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(fate) = state.callouts[place].fate {
                return Some((place, fate));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Serving for Shared {
    fn ended(&self) -> &AtomicBool {
        &self.ended
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        serve(stream, self)
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let (mut input, mut output) = (BufReader::new(stream), stream);
    while let Some(head) = Head::read(&mut input)? {
        let mut body = Vec::new();
        head.copy_body(&mut input, &mut body)?;
        if head.target != CALLOUT {
            output.write_all(&written(&forward(&head, body, shared)?))?;
            continue;
        }
        let asked: Value = serde_json::from_slice(&body)?;
        let takes = asked["takes"].as_array().cloned().unwrap_or_default();
        let Some((place, fate)) = shared.admit(takes) else { return Ok(()) };
        let answer = match fate {
            Fate::Decided | Fate::BrokenOff => {
                let answer = forward(&head, body, shared)?;
                let said = answer.json().unwrap_or_default();
                shared.lock().callouts[place].verdicts =
                    said["verdicts"].as_array().cloned().unwrap_or_default();
                written(&answer)
            }
            Fate::Silent => return input.read_to_end(&mut Vec::new()).map(drop),
            Fate::HungUp => return Ok(()),
            Fate::Refused => own("503 Service Unavailable", "{}"),
            Fate::Unreadable => own("200 OK", "{\"now_us\":1,\"verdicts\":\""),
        };
        if fate == Fate::BrokenOff {
            return output.write_all(&answer[..answer.len() - 1]);
        }
        output.write_all(&answer)?;
    }
    Ok(())
}

fn forward(head: &Head, body: Vec<u8>, shared: &Shared) -> io::Result<Answer> {
    let request = http::request(&head.method, &head.target).header("content-type", "application/json");
    request.body(body).send(shared.sidecar).map_err(io::Error::other)
}

/// An answer's bytes, for a connection that stays open.
fn written(answer: &Answer) -> Vec<u8> {
    let mut bytes = format!("{}\r\n", answer.status_line);
    let framing = ["connection", "transfer-encoding", "content-length"];
    for (name, value) in answer.headers.iter().filter(|(name, _)| !framing.contains(&name.as_str())) {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    bytes.push_str(&format!("content-length: {}\r\n\r\n", answer.body.len()));
    [bytes.into_bytes(), answer.body.clone()].concat()
}

/// An answer as a sidecar marks it.
fn own(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nx-sluice-contract: 1\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::EchoUpstream;

    const BOUND: Duration = Duration::from_secs(10);

    fn ask(gate: &Gate) -> thread::JoinHandle<Result<Answer>> {
        let addr = gate.addr();
        let body =
            r#"{"takes": [{"buckets": [{"policy": "a", "key": "one"}, {"policy": "b", "key": "two"}]}]}"#;
        thread::spawn(move || http::post(CALLOUT).body(body).send(addr))
    }

    #[test]
    fn callouts_wait_for_their_fate_and_others_pass() {
        let sidecar = EchoUpstream::start().unwrap();
        let gate = Gate::start(sidecar.addr()).unwrap();
        gate.close();
        let (first, second) = (ask(&gate), ask(&gate));
        let callouts = gate.await_callouts(2, BOUND).unwrap();
        assert_eq!((callouts[0].keys("a"), callouts[1].keys("b")), (vec!["one"], vec!["two"]));
        assert_eq!(http::get("/readyz").send(gate.addr()).unwrap().status, 200);
        assert_eq!((gate.waiting(), sidecar.requests()), (vec![0, 1], 1));
        gate.open();
        for asked in [first, second] {
            assert_eq!(asked.join().unwrap().unwrap().json().unwrap()["target"], CALLOUT);
        }
        assert_eq!((gate.waiting(), sidecar.requests()), (vec![], 3));
    }

    #[test]
    fn callouts_fail_as_a_test_wants() {
        let sidecar = EchoUpstream::start().unwrap();
        let gate = Gate::start(sidecar.addr()).unwrap();
        gate.close();
        let fates = [Fate::Refused, Fate::Unreadable, Fate::HungUp, Fate::BrokenOff];
        for (place, fate) in fates.into_iter().enumerate() {
            let asked = ask(&gate);
            gate.await_callouts(place + 1, BOUND).unwrap();
            gate.let_go(place, fate);
            let answer = asked.join().unwrap();
            match fate {
                Fate::Refused => assert_eq!(answer.unwrap().status, 503),
                Fate::Unreadable => assert!(answer.unwrap().json().is_err()),
                _ => assert!(answer.is_err()),
            }
            assert_eq!(sidecar.requests(), u64::from(fate.is_decided()));
        }
    }
}
