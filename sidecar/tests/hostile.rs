//! Clients that mean harm, or are stuck: what they hold is bounded in number, in size and in time.
//!
//! Where a test waits for a time to run out, the clock is paused: it runs on to the next deadline where nothing else is left
//! to do.

mod support;

use std::{io::Read, net::TcpStream as PlainStream, time::Duration};

use http_body_util::BodyExt;
use hyper::{Request, body::Body as _, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sluice::{
    config::ListenAddress,
    http::{
        Limits, Listener, Purpose, Service, router,
        serve::{Clients, Door, serve},
    },
    store::Store,
};
use support::running::{Running, ask, exchange, get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

const GOLDEN: &str = include_str!("../../contract/golden/take-request.json");
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame, with which every client begins.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A server in this process, as long as the test's runtime lives; its address.
async fn start() -> String {
    let listen = ListenAddress::Tcp("127.0.0.1:0".parse().expect("valid"));
    let listener = Listener::open(&listen, Purpose::Data(0o660)).await.expect("a free port");
    let address = listener.address();
    let service = Service::new(Store::memory(1_000), Limits::default());
    let (router, connections) = (router(service.clone()), service.connections());
    let doors = vec![Door { listener, router, tls: None, connections, clients: Clients::Envoys }];
    tokio::spawn(serve(doors, service, std::future::pending(), Duration::from_secs(1)));
    address
}

/// How many seconds a connection stays open on which `bytes` were sent and nothing more; what it was answered.
async fn seconds_open(bytes: &[u8]) -> (u64, Vec<u8>) {
    let mut stream = TcpStream::connect(start().await).await.expect("connected");
    let begun = Instant::now();
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    // It may be closed with what we sent unread, which is a reset.
    let _ = stream.read_to_end(&mut answer).await;
    (begun.elapsed().as_secs(), answer)
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_let_go() {
    assert!((75..=80).contains(&seconds_open(b"").await.0));
}

#[tokio::test(start_paused = true)]
async fn who_begins_and_does_not_go_on_is_let_go_sooner() {
    let unfinished: [&[u8]; 5] = [
        b"P",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: slu",
        PREFACE,
        &[PREFACE, &SETTINGS].concat(),
    ];
    for bytes in unfinished {
        let (seconds, _) = seconds_open(bytes).await;
        assert!((10..=15).contains(&seconds), "{seconds} s after {:?}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test(start_paused = true)]
async fn headers_by_the_byte_take_no_longer() {
    let mut stream = TcpStream::connect(start().await).await.expect("connected");
    let begun = Instant::now();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.expect("sent");
    while stream.write_all(b"x").await.is_ok() {
        assert!(begun.elapsed().as_secs() <= 20, "still open");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_no_more_is_let_go() {
    let (seconds, answer) = seconds_open(b"GET /healthz HTTP/1.1\r\nhost: sluice\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 200") && (75..=80).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_go_on_is_answered_and_let_go() {
    let head = b"POST /v1/take HTTP/1.1\r\nhost: sluice\r\ncontent-length: 9\r\n\r\n{";
    let (seconds, answer) = seconds_open(head).await;
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
    assert!((10..=25).contains(&seconds), "{seconds}");
}

/// A peer that keeps the connection alive, and asks nothing.
#[tokio::test(start_paused = true)]
async fn an_http_2_connection_that_asks_nothing_is_told_to_go() {
    let stream = TcpStream::connect(start().await).await.expect("connected");
    let (mut send, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let ended = tokio::spawn(connection);
    let begun = Instant::now();
    let request = Request::get("http://sluice/healthz").body(axum::body::Body::empty()).expect("valid");
    assert_eq!(send.send_request(request).await.expect("answered").status(), 200);
    ended.await.expect("no panic").expect("told by GOAWAY, and not cut");
    assert!((75..=80).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    drop(send);
}

/// A client whose windows let so many bytes of each answer through at a time.
async fn narrow(address: &str, bytes: u32) -> http2::SendRequest<axum::body::Body> {
    let stream = TcpStream::connect(address).await.expect("connected");
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let handshake = builder.initial_stream_window_size(bytes).handshake(TokioIo::new(stream));
    let (send, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    send
}

/// Whoever leaves one answer unread, and goes on to ask and to read others.
#[tokio::test(start_paused = true)]
async fn an_answer_that_http_2_holds_back_ends_the_connection_whatever_else_it_asks() {
    let mut send = narrow(&start().await, 64).await;
    let begun = Instant::now();
    let take = Request::post("http://sluice/v1/take").body(axum::body::Body::from(GOLDEN)).expect("valid");
    let unread = send.send_request(take).await.expect("answered");
    assert!(unread.body().size_hint().lower() > 64, "its window is too small for it");
    let request = || Request::get("http://sluice/healthz").body(axum::body::Body::empty()).expect("valid");
    while let Ok(answer) = send.send_request(request()).await {
        // Cut off by the end, which may come in between.
        let _ = answer.into_body().collect().await;
        assert!(begun.elapsed().as_secs() <= 85, "still open");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!((70..=85).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    drop(unread);
}

/// Each of four leaves answers of a megabyte unread, of which HTTP/2's windows let a byte through.
#[tokio::test]
async fn answers_that_http_2_holds_back_hold_no_more_than_they_may() {
    let bucket =
        |key| format!(r#"{{"policy":"p","key":"{key}","tokens":1,"period_us":1,"burst":1,"cost":0}}"#);
    let buckets: Vec<_> = (0..64).map(bucket).collect();
    let take = format!(r#"{{"buckets":[{}]}}"#, buckets.join(","));
    let takes = vec![take.as_str(); 220].join(",");
    let body = axum::body::Bytes::from(format!(r#"{{"domain":"d","takes":[{takes}]}}"#));
    let sluice = Running::start();
    let mut unread = Vec::new();
    let mut clients = Vec::new();
    'full: for _ in 0..4 {
        let mut send = narrow(&sluice.address, 1).await;
        for _ in 0..30 {
            let request = Request::post("http://sluice/v1/take");
            let request = request.body(axum::body::Body::from(body.clone())).expect("valid");
            let answer = send.send_request(request).await.expect("answered");
            if answer.status() == 503 {
                break 'full;
            }
            assert_eq!(answer.status(), 200);
            unread.push(answer);
        }
        clients.push(send);
    }
    assert!((20..80).contains(&unread.len()), "{} answers wait to be read", unread.len());
    let peak = sluice.peak_memory_bytes();
    assert!(peak < 200 << 20, "{peak} bytes");
    // Who takes its own back makes room for others.
    drop((unread, clients));
    let head = format!("POST /v1/take HTTP/1.1\r\nhost: sluice\r\ncontent-length: {}\r\n\r\n", GOLDEN.len());
    support::wait_for("room for bodies", || {
        let mut stream = PlainStream::connect(&sluice.address).expect("accepted");
        exchange(&mut stream, (head.clone() + GOLDEN).as_bytes()).starts_with("HTTP/1.1 200").then_some(())
    });
}

/// Sends for as long as it can, and never reads; the seconds until the connection is closed.
async fn seconds_flooded(begin: &[u8], flood: &[u8]) -> u64 {
    let mut stream = TcpStream::connect(start().await).await.expect("connected");
    let begun = Instant::now();
    stream.write_all(begin).await.expect("sent");
    let flood = flood.repeat(1_000);
    while stream.write_all(&flood).await.is_ok() {
        assert!(begun.elapsed().as_secs() < 120, "still open");
    }
    begun.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_let_go() {
    let request = b"GET /healthz HTTP/1.1\r\nhost: sluice\r\n\r\n";
    assert!((10..=20).contains(&seconds_flooded(b"", request).await), "answers");
    let begin = [PREFACE, &SETTINGS].concat();
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    assert!(seconds_flooded(&begin, &ping).await <= 20, "PINGs, which are to be answered");
    assert!(seconds_flooded(&begin, &SETTINGS).await <= 20, "SETTINGS, which are to be acknowledged");
}

/// The frames that the server sends until it closes the connection, or has sent one of this type.
async fn frames_until(stream: &mut TcpStream, wanted: u8) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return frames;
        }
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.expect("a whole frame");
        frames.push((head[3], payload));
        if head[3] == wanted {
            return frames;
        }
    }
}

#[tokio::test]
async fn requests_that_are_taken_back_end_the_connection() {
    let mut stream = TcpStream::connect(start().await).await.expect("connected");
    let mut bytes = [PREFACE, &SETTINGS].concat();
    for stream in (1..4_001_u32).step_by(2) {
        let id = stream.to_be_bytes();
        // POST http /, with the headers ended; and its RST_STREAM, CANCEL.
        bytes.extend([&[0, 0, 6, 1, 4][..], &id, &[0x83, 0x86, 0x84, 0x41, 1, b'a']].concat());
        bytes.extend([&[0, 0, 4, 3, 0][..], &id, &[0, 0, 0, 8]].concat());
    }
    // It may be closed before all is sent.
    let _ = stream.write_all(&bytes).await;
    let frames = frames_until(&mut stream, 7).await;
    let settings = &frames.iter().find(|(kind, _)| *kind == 4).expect("SETTINGS").1;
    let told = |id: u8| {
        let setting = settings.chunks(6).find(|setting| setting[1] == id).expect("it is told");
        u32::from_be_bytes(setting[2..].try_into().expect("four bytes"))
    };
    assert_eq!((told(3), told(6)), (100, 16 * 1024), "streams at a time, and bytes of headers");
    let goaway = &frames.last().expect("frames").1;
    assert_eq!((frames.last().expect("frames").0, goaway[7]), (7, 11), "GOAWAY, ENHANCE_YOUR_CALM");
}

#[test]
fn headers_that_are_too_many_or_too_large_are_refused() {
    let sluice = Running::start();
    let with = |headers: &str| {
        ask(
            &sluice.address,
            &format!("GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n"),
        )
    };
    assert!(with(&"x: y\r\n".repeat(98)).starts_with("HTTP/1.1 200"));
    assert!(with(&"x: y\r\n".repeat(99)).starts_with("HTTP/1.1 431"));
    assert!(with(&format!("x: {}\r\n", "y".repeat(15 * 1024))).starts_with("HTTP/1.1 200"));
    assert!(with(&format!("x: {}\r\n", "y".repeat(17 * 1024))).starts_with("HTTP/1.1 431"));
}

fn status(sluice: &Running) -> serde_json::Value {
    let answer = get(&sluice.admin, "/v1/status");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

/// Connects, and asks over the connection, which stays open; nothing where it is closed instead.
fn admitted(sluice: &Running) -> Option<PlainStream> {
    let mut stream = PlainStream::connect(&sluice.address).expect("accepted");
    use std::io::Write;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: sluice\r\n\r\n").ok()?;
    let mut first = [0; 12];
    let answered = stream.read_exact(&mut first).is_ok() && &first == b"HTTP/1.1 200";
    answered.then_some(stream)
}

#[test]
fn more_connections_than_may_be_are_closed_and_counted() {
    let mut sluice = Running::start_with(&["--max-connections", "3", "--shutdown-delay", "0s"]);
    let mut held: Vec<_> = (0..3).map(|_| admitted(&sluice).expect("room")).collect();
    assert!(admitted(&sluice).is_none() && admitted(&sluice).is_none());
    sluice.wait_for_line("no more connections are accepted");
    let connections = &status(&sluice)["connections"];
    assert_eq!(*connections, serde_json::json!({"open": 3, "max": 3, "refused": 2}), "an operator is let in");
    held.pop();
    let again = support::wait_for("a place to be free", || admitted(&sluice));
    drop((again, held));
}

#[test]
fn a_thousand_slow_clients_keep_nobody_from_being_served() {
    use std::io::Write;
    let sluice = Running::start();
    let slow = |place: usize| {
        let mut stream = PlainStream::connect(&sluice.address).expect("accepted");
        let begin: &[u8] = match place % 4 {
            0 => b"",
            1 => b"P",
            2 => b"POST /v1/take HTTP/1.1\r\nhost: sl",
            _ => b"POST /v1/take HTTP/1.1\r\nhost: sluice\r\ncontent-length: 1000000\r\n\r\n{",
        };
        stream.write_all(begin).expect("sent");
        stream
    };
    let slow: Vec<_> = (0..990).map(slow).collect();
    let head = format!("POST /v1/take HTTP/1.1\r\nhost: sluice\r\ncontent-length: {}\r\n\r\n", GOLDEN.len());
    let mut stream = PlainStream::connect(&sluice.address).expect("accepted");
    for _ in 0..100 {
        assert!(exchange(&mut stream, (head.clone() + GOLDEN).as_bytes()).starts_with("HTTP/1.1 200"));
    }
    let connections = status(&sluice)["connections"].clone();
    assert_eq!((&connections["open"], &connections["refused"]), (&991.into(), &0.into()));
    drop(slow);
}

/// Each sends all but the last byte of a body that is as large as it may be.
#[test]
fn bodies_together_hold_no_more_than_they_may() {
    use std::io::Write;
    let sluice = Running::start();
    let body = vec![b' '; (1 << 20) - 1];
    let open = || {
        let mut stream = PlainStream::connect(&sluice.address).expect("accepted");
        stream
            .write_all(b"POST /v1/take HTTP/1.1\r\nhost: sluice\r\ncontent-length: 1048576\r\n\r\n")
            .ok()?;
        stream.write_all(&body).ok()?;
        Some(stream)
    };
    let held: Vec<_> = (0..90).filter_map(|_| open()).collect();
    // Some of the others are closed before they have sent all.
    let refused = |stream: &PlainStream| {
        let mut answer = [0; 12];
        stream.set_nonblocking(true).expect("set");
        match stream.peek(&mut answer) {
            Ok(_) => &answer == b"HTTP/1.1 503",
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    support::wait_for("some to be refused", || {
        (90 - held.len() + held.iter().filter(|stream| refused(stream)).count() >= 26).then_some(())
    });
    assert!(get(&sluice.address, "/healthz").starts_with("HTTP/1.1 200"), "others are served");
    let peak = sluice.peak_memory_bytes();
    assert!(peak < 200 << 20, "{peak} bytes");
    drop(held);
    let head = format!("POST /v1/take HTTP/1.1\r\nhost: sluice\r\ncontent-length: {}\r\n\r\n", GOLDEN.len());
    support::wait_for("room for bodies", || {
        let mut stream = PlainStream::connect(&sluice.address).expect("accepted");
        exchange(&mut stream, (head.clone() + GOLDEN).as_bytes()).starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn thousands_of_broken_connections_leave_nothing_behind() {
    use std::io::Write;
    let sluice = Running::start();
    let garbage: [&[u8]; 4] =
        [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", PREFACE, b"POST /v1/take HTTP/1.1\r\n"];
    let round = |count: usize| {
        for place in 0..count {
            let mut stream = PlainStream::connect(&sluice.address).expect("accepted");
            let _ = stream.write_all(garbage[place % garbage.len()]);
        }
        support::wait_for("all to be gone", || (status(&sluice)["connections"]["open"] == 0).then_some(()));
        sluice.peak_memory_bytes()
    };
    let before = round(500);
    let after = round(2_500);
    assert!(after < before + (8 << 20), "{before} bytes at the peak, and then {after}");
}

/// Whoever reaches the admin listener from elsewhere keeps `sluice health` on this machine out for nothing.
#[test]
fn who_fills_the_admin_listener_keeps_nobody_on_this_machine_out() {
    let mut held = Vec::new();
    let mut sluice = Running::start();
    held.extend((0..64).map(|_| PlainStream::connect(&sluice.admin).expect("accepted")));
    assert!(get(&sluice.admin, "/readyz").starts_with("HTTP/1.1 200"), "there is a place more");
    held.extend((0..8).map(|_| PlainStream::connect(&sluice.admin).expect("accepted")));
    let mut over = PlainStream::connect(&sluice.admin).expect("accepted");
    assert_eq!(over.read(&mut [0]).expect("closed"), 0);
    sluice.wait_for_line("look who holds them");
    // Within 10 s of silence they are let go, while Envoys may be silent for longer.
    support::wait_for("places to be free", || {
        let mut stream = PlainStream::connect(&sluice.admin).expect("accepted");
        use std::io::Write;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").ok()?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).ok().filter(|()| &first == b"HTTP/1.1 200")
    });
}
