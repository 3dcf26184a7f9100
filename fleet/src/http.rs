//! An HTTP/1.1 client, just large enough for tests: any bytes in a header, one connection a request.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{Error, Result};

/// How long connecting, and each read and write, may take unless a request says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    patience: Duration,
}

/// A `GET` of a path.
#[must_use]
pub fn get(target: &str) -> Request {
    request("GET", target)
}

/// A `POST` to a path.
#[must_use]
pub fn post(target: &str) -> Request {
    request("POST", target)
}

/// Any method, and any target, which for `CONNECT` is `host:port`.
#[must_use]
pub fn request(method: &str, target: &str) -> Request {
    let (method, target) = (method.to_owned(), target.to_owned());
    Request { method, target, headers: Vec::new(), body: Vec::new(), patience: PATIENCE }
}

impl Request {
    /// Adds a header; its value may be any bytes. Without a `host`, one is added.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The body, sent with its `content-length`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// How long connecting, and each read and write, may take; 10 s unless set.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it with `connection: close` and reads the whole answer.
    pub fn send(self, to: SocketAddr) -> Result<Answer> {
        let what = format!("ask http://{to}{}", self.target);
        let close = self.header("connection", "close");
        let outcome = close.open_io(to).and_then(|(mut answer, mut stream)| {
            answer.read_rest(&mut stream)?;
            Ok(answer)
        });
        outcome.map_err(Error::io(what))
    }

    /// Sends it and reads the answer's head; what follows is the caller's, as after `CONNECT` or `Upgrade`.
    /// The beginning of that may already be in [`Answer::body`].
    pub fn open(self, to: SocketAddr) -> Result<(Answer, TcpStream)> {
        let what = format!("ask http://{to}{}", self.target);
        self.open_io(to).map_err(Error::io(what))
    }

    /// Sends it and returns the connection with nothing read, for tests that hang up.
    pub fn send_only(self, to: SocketAddr) -> Result<TcpStream> {
        let what = format!("send to http://{to}{}", self.target);
        self.send_io(to).map_err(Error::io(what))
    }

    fn send_io(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&to, self.patience)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.head(to))?;
        match stream.write_all(&self.body) {
            // A server may answer and close before it has read a long body: the answer counts.
            Err(error) if is_closed(&error) => Ok(stream),
            outcome => outcome.map(|()| stream),
        }
    }

    fn open_io(&self, to: SocketAddr) -> io::Result<(Answer, TcpStream)> {
        let mut stream = self.send_io(to)?;
        let answer = Answer::read_head(&mut stream)?;
        Ok((answer, stream))
    }

    fn head(&self, to: SocketAddr) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        };
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            line("host", to.to_string().as_bytes());
        }
        for (name, value) in &self.headers {
            line(name, value);
        }
        if !self.body.is_empty() || self.method == "POST" {
            line("content-length", self.body.len().to_string().as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status, such as 200.
    pub status: u16,
    /// The first line, such as `HTTP/1.1 200 OK`.
    pub status_line: String,
    /// The headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without the chunks' framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Answer {
            from: "a server".into(),
            detail: format!("{error} in:\n{self}"),
        })
    }

    /// The whole answer to what [`Request::send_only`] sent.
    pub fn of(stream: &mut TcpStream) -> Result<Self> {
        let outcome = Self::read_head(stream).and_then(|mut answer| {
            answer.read_rest(stream)?;
            Ok(answer)
        });
        outcome.map_err(Error::io("read an answer"))
    }

    /// The head of it, with what came of its body in the same breath.
    pub fn head_of(stream: &mut TcpStream) -> Result<Self> {
        Self::read_head(stream).map_err(Error::io("read the head of an answer"))
    }

    fn read_head(stream: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = find(&bytes, b"\r\n\r\n") {
                break end;
            }
            if !read_more(stream, &mut bytes)? {
                let seen = String::from_utf8_lossy(&bytes).into_owned();
                let why = format!("the connection was closed after {seen:?}, within the answer's head");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
        };
        let body = bytes.split_off(end + 4);
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.lines();
        let status_line = lines.next().unwrap_or_default().to_owned();
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| malformed(&format!("the status line {status_line:?}")))?;
        let pairs = lines.filter_map(|line| line.split_once(':'));
        let headers =
            pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Ok(Self { status, status_line, headers, body })
    }

    fn read_rest(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        if self.status == 204 || self.status == 304 {
            return Ok(());
        }
        if self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            while read_more(stream, &mut self.body)? {}
            self.body = unchunk(&self.body).ok_or_else(|| malformed("the chunks of the body"))?;
        } else if let Some(length) = self.header("content-length").and_then(|text| text.parse().ok()) {
            while self.body.len() < length && read_more(stream, &mut self.body)? {}
            if self.body.len() < length {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body ended early"));
            }
        } else {
            while read_more(stream, &mut self.body)? {}
        }
        Ok(())
    }
}

/// As it came, for messages: status line, headers, body.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status_line)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        write!(f, "\n{}", self.text())
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not understood"))
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Reads once; false at the end.
fn read_more(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; 16 * 1024];
    let count = stream.read(&mut chunk)?;
    into.extend_from_slice(&chunk[..count]);
    Ok(count > 0)
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = find(bytes, b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunk(b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n").unwrap(), b"abc0123456789");
        assert_eq!(unchunk(b"3\r\nab"), None);
    }

    #[test]
    fn a_head_carries_any_bytes() {
        let to = "127.0.0.1:80".parse().unwrap();
        let head = get("/x").header("x-key", b"\xff\xfe").head(to);
        assert_eq!(head, b"GET /x HTTP/1.1\r\nhost: 127.0.0.1:80\r\nx-key: \xff\xfe\r\n\r\n");
    }
}
