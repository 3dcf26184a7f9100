//! Requests that a test holds in its hands: to read their answers later, or to hang up.

use std::net::{SocketAddr, TcpStream};
use std::thread;

use bytes::Bytes;
use fleet::http::{Answer, Request};
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use tokio::runtime::{Builder, Handle};

use crate::PATIENCE;

/// A client that sends many requests and waits for none.
pub enum Caller {
    /// HTTP/1.1, with a connection for each request.
    Http1(SocketAddr),
    /// HTTP/2, with one connection for all, so that they arrive in their order.
    Http2(Http2),
}

/// A connection, driven by a thread that ends with it.
pub struct Http2 {
    addr: SocketAddr,
    runtime: Handle,
    client: SendRequest<Bytes>,
}

/// A request that was sent.
pub enum Waiting {
    /// Its connection.
    Http1(TcpStream),
    /// Its stream.
    Http2(Stream),
}

/// A stream whose answer has not been read.
pub struct Stream {
    runtime: Handle,
    answer: ResponseFuture,
    request: SendStream<Bytes>,
}

impl Caller {
    /// One that sends with HTTP/1.1.
    #[must_use]
    pub fn http1(addr: SocketAddr) -> Self {
        Self::Http1(addr)
    }

    /// One that sends with HTTP/2.
    ///
    /// # Panics
    /// Where there is no connection to be had.
    #[must_use]
    pub fn http2(addr: SocketAddr) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (client, connection) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(addr).await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let mut builder = client::Builder::new();
            // It remembers the streams that it gave up, since answers to them may still be on their way, and answers
            // that nobody reads yet leave room for others.
            builder.max_concurrent_reset_streams(10_000).initial_max_send_streams(1_000);
            builder.initial_connection_window_size(1 << 30);
            builder.handshake::<_, Bytes>(stream).await.expect("HTTP/2")
        });
        // How a connection ends is told by the streams that it carried.
        thread::spawn(move || runtime.block_on(connection).ok());
        Self::Http2(Http2 { addr, runtime: handle, client })
    }

    /// Sends a `GET` of a path with headers.
    ///
    /// # Panics
    /// Where it cannot be sent.
    #[must_use]
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Waiting {
        match self {
            Self::Http1(addr) => {
                let request =
                    headers.iter().fold(fleet::http::get(path), |request: Request, (name, value)| {
                        request.header(name, value)
                    });
                Waiting::Http1(request.patience(PATIENCE).send_only(*addr).expect("sent"))
            }
            Self::Http2(connection) => Waiting::Http2(connection.get(path, headers)),
        }
    }
}

impl Http2 {
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let request = http::Request::get(format!("http://{}{path}", self.addr));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(()).expect("a request");
        let mut client = self.runtime.block_on(self.client.clone().ready()).expect("a connection");
        let (answer, request) = client.send_request(request, true).expect("sent");
        Stream { runtime: self.runtime.clone(), answer, request }
    }
}

impl Waiting {
    /// Hangs up: closes the connection, or resets the stream.
    pub fn hang_up(self) {
        match self {
            Self::Http1(stream) => drop(stream),
            Self::Http2(mut stream) => stream.request.send_reset(Reason::CANCEL),
        }
    }

    /// Waits for the head of the answer, and hangs up with its body unread. The status.
    ///
    /// # Panics
    /// Where no answer comes.
    pub fn hang_up_after_head(self) -> u16 {
        match self {
            Self::Http1(mut stream) => Answer::head_of(&mut stream).expect("the head of an answer").status,
            Self::Http2(mut stream) => {
                let answer = stream.runtime.block_on(stream.answer).expect("the head of an answer");
                stream.request.send_reset(Reason::CANCEL);
                answer.status().as_u16()
            }
        }
    }

    /// Waits for the whole answer.
    ///
    /// # Panics
    /// Where none comes.
    #[must_use]
    pub fn answer(self) -> Answer {
        match self {
            Self::Http1(mut stream) => Answer::of(&mut stream).expect("an answer"),
            Self::Http2(stream) => {
                let answer = async {
                    let (head, body) = stream.answer.await.expect("an answer").into_parts();
                    (head, whole(body).await)
                };
                let within = async { tokio::time::timeout(PATIENCE, answer).await };
                let (head, body) = stream.runtime.block_on(within).expect("an answer in time");
                let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
                let status_line = format!("HTTP/2 {}", head.status);
                Answer { status: head.status.as_u16(), status_line, headers: headers.collect(), body }
            }
        }
    }
}

async fn whole(mut body: RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("a whole answer");
        body.flow_control().release_capacity(data.len()).expect("released");
        bytes.extend_from_slice(&data);
    }
    bytes
}
