//! An upstream for tests: it tells what reached it.
//!
//! To a request it answers 200 with JSON: `{"method", "target", "headers": [[name, value], …], "body_bytes"}`,
//! where a header value that is not UTF-8 has replacement characters. It answers `Upgrade` with 101 and
//! `CONNECT` with 200, and from then on returns every byte; so it does from the start on a connection that does
//! not begin with a request, which is what a `CONNECT` that Envoy terminates looks like.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;

use crate::{Error, Result};

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
}

impl EchoUpstream {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let what = || Error::io("listen for the echo upstream on 127.0.0.1");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(what())?;
        let addr = listener.local_addr().map_err(what())?;
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &ours));
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
}

impl Drop for EchoUpstream {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; where nobody accepts any more, nobody needs to be woken.
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A connection that breaks is the other side's affair, and often what a test is about.
        thread::spawn(move || serve(&stream, &shared).ok());
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream);
    let mut output = stream;
    if !begins_with_request(input.fill_buf()?) {
        return return_bytes(&mut input, output);
    }
    while let Some(head) = Head::read(&mut input)? {
        shared.requests.fetch_add(1, Ordering::SeqCst);
        if head.method == "CONNECT" {
            output.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            return return_bytes(&mut input, output);
        }
        if let Some(protocol) = head.get("upgrade") {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ";
            output.write_all(format!("{switch}{protocol}\r\n\r\n").as_bytes())?;
            return return_bytes(&mut input, output);
        }
        let body_bytes = head.skip_body(&mut input)?;
        let pairs: Vec<_> = head.headers.iter().map(|(name, value)| json!([name, value])).collect();
        let said = json!({
            "method": head.method, "target": head.target, "headers": pairs, "body_bytes": body_bytes,
        });
        let body = said.to_string();
        let line = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        let body = if head.method == "HEAD" { (body.len(), String::new()) } else { (body.len(), body) };
        output.write_all(format!("{line}{}\r\n\r\n{}", body.0, body.1).as_bytes())?;
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

struct Head {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let first = line(input)?;
        let mut words = first.split(' ').map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let mut headers = Vec::new();
        loop {
            let line = line(input)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Self { method, target, headers }))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Reads the body away and returns its length.
    fn skip_body(&self, input: &mut impl BufRead) -> io::Result<u64> {
        if self.get("transfer-encoding").is_some() {
            let mut total = 0;
            loop {
                let size = line(input)?;
                let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                total += io::copy(&mut input.take(size), &mut io::sink())?;
                line(input)?;
                if size == 0 {
                    return Ok(total);
                }
            }
        }
        let length = self.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        io::copy(&mut input.take(length), &mut io::sink())
    }
}

/// A line without its end, lossily; empty at the end of the input.
fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    input.read_until(b'\n', &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
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
