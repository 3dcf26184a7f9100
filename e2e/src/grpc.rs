//! gRPC as it is on the wire: a client and an upstream on HTTP/2, with trailers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// What a call got.
#[derive(Debug)]
pub struct GrpcAnswer {
    /// The HTTP status, which is 200 for whatever gRPC itself has to say.
    pub http_status: u16,
    /// The headers, or where there is nothing else, the trailers.
    pub headers: HeaderMap,
    /// What followed the body; empty where there was none.
    pub trailers: HeaderMap,
    /// Whether the headers were all there was.
    pub trailers_only: bool,
}

impl GrpcAnswer {
    /// `grpc-status`, wherever it stands.
    #[must_use]
    pub fn status(&self) -> Option<i32> {
        self.text("grpc-status")?.parse().ok()
    }

    /// `grpc-message`, wherever it stands.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.text("grpc-message")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name).or_else(|| self.trailers.get(name))?.to_str().ok()
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_io().build().expect("a runtime")
}

/// Calls a method with an empty message, on a connection of its own.
///
/// # Panics
/// Where no answer comes.
#[must_use]
pub fn call(to: SocketAddr, method: &str, headers: &[(&str, &str)]) -> GrpcAnswer {
    runtime().block_on(async {
        let stream = TcpStream::connect(to).await.expect("a connection");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        // It ends with the runtime, and with it when the call is over.
        tokio::spawn(connection);
        let request = Request::builder().method(Method::POST).uri(format!("http://{to}{method}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let mut client = client.ready().await.expect("ready");
        let (answer, mut body) =
            client.send_request(request.body(()).expect("a request"), false).expect("sent");
        // One message of no bytes, not compressed. Whoever answers at once may not read it.
        let _unread = body.send_data(vec![0; 5].into(), true);
        let (head, mut body) = answer.await.expect("an answer").into_parts();
        let trailers_only = body.is_end_stream();
        while let Some(data) = body.data().await {
            let length = data.expect("a whole answer").len();
            body.flow_control().release_capacity(length).expect("released");
        }
        let trailers = body.trailers().await.expect("trailers").unwrap_or_default();
        GrpcAnswer { http_status: head.status.as_u16(), headers: head.headers, trailers, trailers_only }
    })
}

/// An upstream that answers each call with an empty message and status 0, or without a message and with the status that
/// the request wants in `x-echo-grpc-status`. Its thread ends with the process.
///
/// # Panics
/// Where no port is to be had.
#[must_use]
pub fn upstream() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the other side's affair.
            thread::spawn(move || runtime().block_on(serve(stream)).ok());
        }
    });
    addr
}

async fn serve(stream: std::net::TcpStream) -> Result<(), h2::Error> {
    stream.set_nonblocking(true).expect("a socket");
    let mut connection = h2::server::handshake(TcpStream::from_std(stream).expect("a socket")).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut answer) = request?;
        let head = Response::builder().header("content-type", "application/grpc");
        if let Some(status) = request.headers().get("x-echo-grpc-status") {
            let head = head.header("grpc-status", status).body(()).expect("a head");
            answer.send_response(head, true)?;
            continue;
        }
        let mut body = answer.send_response(head.body(()).expect("a head"), false)?;
        body.send_data(vec![0; 5].into(), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        body.send_trailers(trailers)?;
    }
    Ok(())
}
