//! A client that keeps its connections, and never sends a request twice.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::Outcome;
use crate::http::find;

/// What the filter tells of a request, where `headers.debug` is set.
const REPORT: &str = "x-sluice-decision: ";

/// A connection to one proxy, made when it is needed.
pub(super) struct Client {
    to: SocketAddr,
    patience: Duration,
    stream: Option<TcpStream>,
    answer: Vec<u8>,
}

impl Client {
    pub(super) fn new(to: SocketAddr, patience: Duration) -> Self {
        Self { to, patience, stream: None, answer: Vec::new() }
    }

    /// Sends a request and reads the whole answer.
    pub(super) fn ask(&mut self, request: &[u8]) -> Outcome {
        match self.ask_io(request) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.stream = None;
                match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Hung,
                    _ => Outcome::Broken,
                }
            }
        }
    }

    fn ask_io(&mut self, request: &[u8]) -> io::Result<Outcome> {
        let mut stream = match self.stream.take().filter(is_open) {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.write_all(request)?;
        self.answer.clear();
        let end = loop {
            if let Some(end) = find(&self.answer, b"\r\n\r\n") {
                break end + 4;
            }
            more(&mut stream, &mut self.answer)?;
        };
        let head = String::from_utf8_lossy(&self.answer[..end]).into_owned();
        let length = value(&head, "content-length: ").and_then(|text| text.parse::<usize>().ok());
        let length = length.ok_or_else(|| io::Error::other("an answer without its length"))?;
        while self.answer.len() < end + length {
            more(&mut stream, &mut self.answer)?;
        }
        if value(&head, "connection: ") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(outcome(&head))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.to, self.patience)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn more(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4_096];
    let count = stream.read(&mut chunk)?;
    if count == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    answer.extend_from_slice(&chunk[..count]);
    Ok(())
}

/// Whether a connection that nothing is expected from can be used again: a proxy may have closed it meanwhile.
fn is_open(stream: &TcpStream) -> bool {
    let nothing =
        |stream: &TcpStream| stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(true).is_ok() && nothing(stream) && stream.set_nonblocking(false).is_ok()
}

/// A header's value; Envoy sends names in lower case.
fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn outcome(head: &str) -> Outcome {
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let report = value(head, REPORT).unwrap_or_default();
    // An Envoy that decides by itself knows nothing of the limit that is shared.
    let local = report.split(' ').any(|word| word == "source=local");
    match (report.split(' ').next(), status) {
        (Some("decision=allowed"), 200) if local => Outcome::Local { passed: true },
        (Some("decision=denied"), 429) if local => Outcome::Local { passed: false },
        (Some("decision=allowed"), 200) => Outcome::Allowed,
        (Some("decision=denied"), 429) => Outcome::Denied,
        (Some("decision=failed"), _) => Outcome::Failed { status },
        _ => Outcome::Strange { status },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_their_report() {
        let head =
            |status: u16, report: &str| format!("HTTP/1.1 {status} X\r\n{REPORT}{report}\r\nvia: x\r\n");
        assert_eq!(outcome(&head(200, "decision=allowed policy=a remaining=1")), Outcome::Allowed);
        assert_eq!(outcome(&head(429, "decision=denied policy=a")), Outcome::Denied);
        let failed = head(200, "decision=failed answer=allow reason=timeout");
        assert_eq!(outcome(&failed), Outcome::Failed { status: 200 });
        let local = head(200, "decision=allowed policy=a remaining=3 source=local failure=timeout");
        assert_eq!(outcome(&local), Outcome::Local { passed: true });
        assert_eq!(outcome("HTTP/1.1 503 X\r\n"), Outcome::Strange { status: 503 });
        assert_eq!(outcome(&head(503, "decision=allowed")), Outcome::Strange { status: 503 });
    }
}
