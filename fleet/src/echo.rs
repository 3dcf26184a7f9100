//! An upstream for tests: it tells what reached it, or answers as a request wants.
//!
//! To a request it answers 200 with JSON: `{"method", "target", "headers": [[name, value], …], "body_bytes"}`,
//! where a header value that is not UTF-8 has replacement characters. It answers `Upgrade` with 101 and
//! `CONNECT` with 200, and from then on returns every byte; so it does from the start on a connection that does
//! not begin with a request, which is what a `CONNECT` that Envoy terminates looks like.
//!
//! | request header | what it changes |
//! |---|---|
//! | `x-echo-status: 503` | the status |
//! | `x-echo-header: name: value` | adds a header; may be sent several times |
//! | `x-echo-body-bytes: 4096` | the body has so many bytes and tells nothing |
//! | `x-echo-hold: here` | it is not answered before [`EchoUpstream::release`] |

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use serde_json::json;

use crate::{
    Result,
    head::Head,
    listening::{self, Serving},
};

/// A server in threads of this process, ended when this is dropped.
#[derive(Debug)]
pub struct EchoUpstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    ended: AtomicBool,
    /// How often held requests were let go.
    releases: Mutex<u64>,
    released: Condvar,
}

impl EchoUpstream {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let addr = listening::start("the echo upstream", &shared)?;
        Ok(Self { addr, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many requests have reached it, `CONNECT` and upgrades included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Answers all requests that are held.
    pub fn release(&self) {
        self.shared.release();
    }
}

impl Shared {
    fn release(&self) {
        *self.releases.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.released.notify_all();
    }

    fn releases(&self) -> u64 {
        *self.releases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there were more releases than `before`, or for the end.
    fn hold(&self, before: u64) {
        let releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        let held = |releases: &mut u64| *releases == before && !self.ended.load(Ordering::SeqCst);
        drop(self.released.wait_while(releases, held));
    }
}

impl Drop for EchoUpstream {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.release();
        listening::wake(self.addr);
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
    let mut input = BufReader::new(stream);
    let mut output = stream;
    if !begins_with_request(input.fill_buf()?) {
        return return_bytes(&mut input, output);
    }
    while let Some(head) = Head::read(&mut input)? {
        if head.method == "CONNECT" {
            shared.requests.fetch_add(1, Ordering::SeqCst);
            output.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            return return_bytes(&mut input, output);
        }
        if let Some(protocol) = head.get("upgrade") {
            shared.requests.fetch_add(1, Ordering::SeqCst);
            let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ";
            output.write_all(format!("{switch}{protocol}\r\n\r\n").as_bytes())?;
            return return_bytes(&mut input, output);
        }
        let body_bytes = head.copy_body(&mut input, &mut io::sink())?;
        // Whoever releases once the request was counted lets it go, though it may not wait yet.
        let releases = shared.releases();
        shared.requests.fetch_add(1, Ordering::SeqCst);
        if head.get("x-echo-hold").is_some() {
            shared.hold(releases);
        }
        output.write_all(&answer(&head, body_bytes))?;
    }
    Ok(())
}

/// Whether bytes look like `METHOD target`. A test that sends plain bytes begins in lower case.
fn begins_with_request(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(u8::is_ascii_uppercase)
}

fn return_bytes(input: &mut impl Read, mut output: &TcpStream) -> io::Result<()> {
    io::copy(input, &mut output)?;
    output.shutdown(Shutdown::Write)
}

/// What a request is answered, having had a body of so many bytes.
fn answer(head: &Head, body_bytes: u64) -> Vec<u8> {
    let length = head.get("x-echo-body-bytes").and_then(|text| text.parse().ok());
    let body = match length {
        Some(length) => vec![b'x'; length],
        None => {
            let pairs: Vec<_> = head.headers.iter().map(|(name, value)| json!([name, value])).collect();
            let (method, target) = (&head.method, &head.target);
            let said =
                json!({"method": method, "target": target, "headers": pairs, "body_bytes": body_bytes});
            said.to_string().into_bytes()
        }
    };
    let status = head.get("x-echo-status").unwrap_or("200");
    let mut answer = format!("HTTP/1.1 {status} Echo\r\ncontent-type: application/json\r\n");
    for (_, header) in head.headers.iter().filter(|(name, _)| name == "x-echo-header") {
        answer.push_str(&format!("{header}\r\n"));
    }
    answer.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut answer = answer.into_bytes();
    if head.method != "HEAD" {
        answer.extend(body);
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http;

    #[test]
    fn tells_what_reached_it() {
        let upstream = EchoUpstream::start().unwrap();
        let body = vec![b'x'; 3_000_000];
        let answer = http::post("/a?b=c").header("X-Key", "one").body(body).send(upstream.addr()).unwrap();
        let said = answer.json().unwrap();
        assert_eq!((&said["method"], &said["target"]), (&json!("POST"), &json!("/a?b=c")));
        assert_eq!(said["body_bytes"], 3_000_000);
        assert!(said["headers"].as_array().unwrap().contains(&json!(["x-key", "one"])));
        assert_eq!(upstream.requests(), 1);
    }

    #[test]
    fn answers_as_the_request_wants() {
        let upstream = EchoUpstream::start().unwrap();
        let asked = http::get("/").header("x-echo-status", "503").header("x-echo-body-bytes", "4096");
        let asked = asked.header("x-echo-header", "x-a: one").header("x-echo-header", "x-a: two: 2");
        let answer = asked.send(upstream.addr()).unwrap();
        assert_eq!((answer.status, answer.body.len()), (503, 4096));
        let values: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "x-a").collect();
        assert_eq!(values, [&("x-a".into(), "one".into()), &("x-a".into(), "two: 2".into())]);
    }

    #[test]
    fn holds_an_answer_until_it_is_released() {
        let upstream = EchoUpstream::start().unwrap();
        let held = http::get("/").header("x-echo-hold", "here");
        let mut stream = held.send_only(upstream.addr()).unwrap();
        let bound = Duration::from_secs(10);
        crate::eventually(bound, "it is there", || (upstream.requests() == 1).then_some(())).unwrap();
        upstream.release();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }

    #[test]
    fn returns_bytes_after_connect_and_upgrade_and_plainly() {
        let upstream = EchoUpstream::start().unwrap();
        let upgrade = http::get("/chat").header("connection", "upgrade").header("upgrade", "websocket");
        for (request, status) in [(http::request("CONNECT", "db:5432"), 200), (upgrade, 101)] {
            let (answer, stream) = request.open(upstream.addr()).unwrap();
            assert_eq!(answer.status, status);
            ping(stream);
        }
        ping(TcpStream::connect(upstream.addr()).unwrap());
    }

    fn ping(mut stream: TcpStream) {
        let mut back = [0; 4];
        stream.write_all(b"ping").unwrap();
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"ping");
    }
}
