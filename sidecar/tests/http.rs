//! What Envoy meets: HTTP/1.1, HTTP/2 and Unix sockets, refusals that say why, and a stop that loses nothing.

mod support;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use contract::{
    BucketTake, Kind, LeaseTerms, Leased, MARKER_HEADER, MAX_BUCKETS, MAX_LEASE_TTL_US, MIN_LEASE_TTL_US,
    Refusal, Take, TakeRequest, TakeResponse, Verdict,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sluice::{
    config::ListenAddress,
    http::{
        Limits, Listener, Purpose, Service, router,
        serve::{Clients, Door, serve},
    },
    store::Store,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::oneshot,
    task::JoinHandle,
};
use tower::ServiceExt;

const GOLDEN: &str = include_str!("../../contract/golden/take-request.json");
const KINDS: &str = include_str!("../../contract/golden/take-request-kinds.json");
const LEASES: &str = include_str!("../../contract/golden/take-request-leases.json");
const MAX_BODY_BYTES: usize = 1 << 20;

/// A server in this process, on real sockets.
struct Server {
    address: String,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<bool>,
}

async fn start(listen: ListenAddress) -> Server {
    let listener = Listener::open(&listen, Purpose::Data(0o640)).await.expect("the address is free");
    let address = listener.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
        Duration::ZERO
    };
    let service = Service::new(Store::memory(1_000), Limits::default());
    let (router, connections) = (router(Arc::clone(&service)), service.connections());
    let doors = vec![Door { listener, router, tls: None, connections, clients: Clients::Envoys }];
    let ended = tokio::spawn(serve(doors, service, shutdown, Duration::from_secs(20)));
    Server { address, stop, ended }
}

async fn start_tcp() -> Server {
    start(ListenAddress::Tcp("127.0.0.1:0".parse().expect("valid"))).await
}

fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post("http://sluice/v1/take").body(body.into()).expect("valid")
}

async fn body_of(
    response: Response<impl hyper::body::Body<Data = hyper::body::Bytes, Error: std::fmt::Debug>>,
) -> Vec<u8> {
    use http_body_util::BodyExt;
    response.into_body().collect().await.expect("a whole body").to_bytes().to_vec()
}

/// Answers in process, without a socket.
async fn answer(request: Request<Body>) -> Response<Body> {
    let service = Service::new(Store::memory(1_000), Limits::default());
    router(service).oneshot(request).await.expect("infallible")
}

/// Sends `request` and checks that it is refused as expected, with the marker; the reason.
async fn refused(request: Request<Body>, status: StatusCode, code: &str) -> String {
    let response = answer(request).await;
    assert_eq!(response.headers().get(MARKER_HEADER).expect("the marker"), "1");
    assert_eq!(response.status(), status, "instead of {code}");
    let body = to_bytes(response.into_body(), MAX_BODY_BYTES).await.expect("a whole body");
    let refusal: Refusal = serde_json::from_slice(&body).expect("a refusal");
    assert_eq!(refusal.code, code, "{}", refusal.reason);
    refusal.reason.into_owned()
}

/// The golden request, changed by `edit`, is refused with `code`; the reason.
async fn refused_take(code: &str, edit: impl FnOnce(&mut TakeRequest<'static>)) -> String {
    let mut request: TakeRequest = serde_json::from_str(GOLDEN).expect("golden");
    edit(&mut request);
    let body = serde_json::to_vec(&request).expect("serializable");
    refused(post(body), StatusCode::BAD_REQUEST, code).await
}

fn assert_golden_was_allowed(status: StatusCode, body: &[u8]) {
    assert_eq!(status, StatusCode::OK);
    let response: TakeResponse = serde_json::from_slice(body).expect("a response");
    assert_eq!(response.verdicts.len(), 2);
    let Verdict::Allowed(buckets) = &response.verdicts[0] else { panic!("{response:?}") };
    assert_eq!((buckets[0].remaining, buckets[1].remaining), (59, 4));
}

#[tokio::test]
async fn http_1_is_answered() {
    let server = start_tcp().await;
    let stream = TcpStream::connect(&server.address).await.expect("connected");
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let response = send.send_request(post(GOLDEN)).await.expect("answered");
    assert_eq!(response.headers().get(MARKER_HEADER).expect("the marker"), "1");
    let status = response.status();
    assert_golden_was_allowed(status, &body_of(response).await);
    let response = send.send_request(post(GOLDEN)).await.expect("answered over the same connection");
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn cleartext_http_2_is_answered() {
    let server = start_tcp().await;
    let stream = TcpStream::connect(&server.address).await.expect("connected");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut send, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    let response = send.send_request(post(GOLDEN)).await.expect("answered");
    assert_eq!(response.version(), hyper::Version::HTTP_2);
    assert_eq!(response.headers().get(MARKER_HEADER).expect("the marker"), "1");
    let status = response.status();
    assert_golden_was_allowed(status, &body_of(response).await);
}

fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("sluice-{}-{name}.sock", std::process::id()))
}

#[tokio::test]
async fn a_unix_socket_is_answered_guarded_and_removed() {
    use std::os::unix::fs::PermissionsExt;
    let path = socket_path("life");
    // What a process that was killed leaves behind: a file that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let listen = ListenAddress::Unix(path.clone());
    let server = start(listen.clone()).await;
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
    let stream = UnixStream::connect(&path).await.expect("connected");
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let response = send.send_request(post(GOLDEN)).await.expect("answered");
    assert_golden_was_allowed(response.status(), &body_of(response).await);

    let refused = Listener::open(&listen, Purpose::Data(0o660))
        .await
        .expect_err("a live socket was taken over")
        .to_string();
    assert!(refused.contains("another process listens there"), "{refused}");

    server.stop.send(()).expect("still serving");
    assert!(server.ended.await.expect("no panic"), "an idle connection held the end up");
    assert!(!path.exists(), "the socket's file was left");
}

#[tokio::test]
async fn what_is_no_take_request_is_refused_by_place() {
    let reason = refused(post("{\n  \"domain\": nope"), StatusCode::BAD_REQUEST, "not_json").await;
    assert!(reason.contains("line 2 column 14"), "{reason}");
    let newer = GOLDEN.replacen("\"cost\": 1", "\"cost\": 1, \"lease\": 50", 1);
    let reason = refused(post(newer), StatusCode::BAD_REQUEST, "not_takes").await;
    assert!(reason.contains("unknown field `lease`") && reason.contains("line 12"), "{reason}");
    refused(post("[]"), StatusCode::BAD_REQUEST, "not_takes").await;
    refused(post(""), StatusCode::BAD_REQUEST, "not_json").await;
    refused(post(vec![0xFF_u8, 0xFE]), StatusCode::BAD_REQUEST, "not_json").await;
}

#[tokio::test]
async fn what_cannot_be_decided_is_refused_by_place() {
    let reason = refused_take("invalid_limit", |request| request.takes[0].buckets[1].burst = 0).await;
    let golden: Refusal =
        serde_json::from_str(include_str!("../../contract/golden/refusal.json")).expect("golden");
    assert_eq!(reason, golden.reason);

    let reason = refused_take("invalid_name", |request| request.domain = "shop/eu".into()).await;
    assert!(reason.starts_with("domain: found \"shop/eu\""), "{reason}");
    refused_take("invalid_name", |request| request.domain = "".into()).await;
    refused_take("invalid_name", |request| request.domain = "d".repeat(65).into()).await;
    let reason =
        refused_take("invalid_name", |request| request.takes[1].buckets[0].policy = "a b".into()).await;
    assert!(reason.starts_with("takes[1].buckets[0].policy:"), "{reason}");

    let reason =
        refused_take("key_too_long", |request| request.takes[0].buckets[0].key = "k".repeat(1025).into())
            .await;
    assert!(reason.starts_with("takes[0].buckets[0].key: found 1025 bytes"), "{reason}");
    let reason = refused_take("cost_too_large", |request| request.takes[1].buckets[0].cost = 1 << 53).await;
    assert!(reason.starts_with("takes[1].buckets[0].cost: found 9007199254740992"), "{reason}");

    refused_take("nothing_asked", |request| request.takes.clear()).await;
    refused_take("nothing_asked", |request| request.takes[1].buckets.clear()).await;
    refused_take("too_many_takes", |request| {
        request.takes = vec![request.takes[1].clone(); contract::MAX_TAKES + 1]
    })
    .await;
    refused_take("too_many_buckets", |request| {
        request.takes[1].buckets = (0..=contract::MAX_BUCKETS)
            .map(|key| contract::BucketTake {
                key: key.to_string().into(),
                ..request.takes[1].buckets[0].clone()
            })
            .collect();
    })
    .await;
    let reason = refused_take("duplicate_bucket", |request| {
        let double = request.takes[0].buckets[0].clone();
        request.takes[0].buckets.push(double);
    })
    .await;
    assert!(reason.starts_with("takes[0].buckets[2]: the same policy and key as buckets[0]"), "{reason}");
}

#[tokio::test]
async fn a_take_that_follows_wrongly_is_refused_by_place() {
    let reason = refused_take("follows_nothing", |request| request.takes[0].follows = true).await;
    assert!(reason.starts_with("takes[0].follows: there is no take before it"), "{reason}");

    // The first leads buckets enough for one take, and the second none.
    let take = |first: usize, count: usize, follows| {
        let template: TakeRequest = serde_json::from_str(GOLDEN).expect("golden");
        let bucket =
            |key: usize| BucketTake { key: key.to_string().into(), ..template.takes[0].buckets[0].clone() };
        Take { buckets: (first..first + count).map(bucket).collect(), follows, ..Take::default() }
    };
    let takes = [take(0, 1, false), take(0, 40, false), take(0, 23, true), take(0, 1, true)];
    let whole = TakeRequest { domain: "shop".into(), takes: takes.to_vec() };
    let response = answer(post(serde_json::to_vec(&whole).expect("serializable"))).await;
    assert_eq!(response.status(), StatusCode::OK, "{MAX_BUCKETS} buckets together are decided");
    for (too_many, place) in [(take(0, 1, true), 4), (take(0, 64, true), 4)] {
        let found = MAX_BUCKETS + too_many.buckets.len();
        let reason = refused_take("too_many_buckets", |request| {
            request.takes = [&takes[..], &[too_many, take(0, 64, false)]].concat();
        })
        .await;
        let expected =
            format!("takes[{place}].follows: found {found} buckets from takes[1] to here; a take and");
        assert!(reason.starts_with(&expected), "{reason}");
    }
    let reason = refused_take("too_many_buckets", |request| {
        request.takes = vec![take(0, 1, false), take(0, 65, true)];
    })
    .await;
    assert!(reason.starts_with("takes[1].buckets: found 65 buckets"), "{reason}");
}

#[tokio::test]
async fn what_is_no_kind_of_take_is_refused() {
    for (wrong, why) in [
        (
            "\"kind\": \"borrow\"",
            "unknown variant `borrow`, expected one of `take`, `refund`, `charge`, `lease`, `return`",
        ),
        ("\"kind\": true", "invalid type: boolean `true`, expected a string at line 35"),
        ("\"refund\": true", "unknown field `refund`"),
    ] {
        let body = GOLDEN.replacen("\"kind\": \"refund\"", wrong, 1);
        let reason = refused(post(body), StatusCode::BAD_REQUEST, "not_takes").await;
        assert!(reason.contains(why), "{reason}");
    }
}

#[tokio::test]
async fn takes_of_each_kind_are_answered_and_debts_stay() {
    let app = router(Service::new(Store::memory(1_000), Limits::default()));
    let decide = async |edit: fn(&mut TakeRequest)| {
        let mut request: TakeRequest = serde_json::from_str(KINDS).expect("golden");
        edit(&mut request);
        let body = serde_json::to_vec(&request).expect("serializable");
        let response = app.clone().oneshot(post(body)).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
        let response: TakeResponse = serde_json::from_slice(&body_of(response).await).expect("a response");
        response.verdicts
    };
    let stands = |verdict: &Verdict| match verdict {
        Verdict::Allowed(buckets) => (true, buckets[0].remaining),
        Verdict::Denied(buckets) => (false, buckets[0].remaining),
        Verdict::Leased { .. } | Verdict::Failed(_) => panic!("{verdict:?}"),
    };
    let verdicts = decide(|_| {}).await;
    // The last one returns what the first one took.
    let expected = [(true, 59), (true, 29), (true, 10_354_688), (true, 7_250), (true, 60)];
    assert_eq!(verdicts.iter().map(stands).collect::<Vec<_>>(), expected);
    // The charge is larger than what is left, and what follows a denied take is not made.
    let verdicts = decide(|request| {
        request.takes[0].buckets[1].cost = 6;
        request.takes[3].buckets[0].cost = 20_000;
        request.takes.remove(2);
        request.takes.remove(3);
    })
    .await;
    let expected = [(false, 60), (true, 29), (true, 0)];
    assert_eq!(verdicts.iter().map(stands).collect::<Vec<_>>(), expected);
    let verdicts = decide(|request| {
        request.takes.drain(..3);
        request.takes[0].kind = Kind::Take;
        request.takes[0].buckets[0].cost = 1;
        request.takes[1].buckets[0].cost = 0;
    })
    .await;
    let Verdict::Denied(buckets) = &verdicts[0] else { panic!("taken from a bucket in debt: {verdicts:?}") };
    // At 500 tokens in 3 s, some 12,750 are owed.
    let wait_us = buckets[0].retry_after_us.expect("it fits");
    assert!((60_000_000..=76_506_000).contains(&wait_us), "{wait_us}");
}

/// The golden request with leases, changed by `edit`, is refused with `code`; the reason.
async fn refused_lease(code: &str, edit: impl FnOnce(&mut TakeRequest<'static>)) -> String {
    let mut request: TakeRequest = serde_json::from_str(LEASES).expect("golden");
    edit(&mut request);
    refused(post(serde_json::to_vec(&request).expect("serializable")), StatusCode::BAD_REQUEST, code).await
}

#[tokio::test]
async fn a_lease_that_cannot_be_is_refused_by_place() {
    fn terms<'a>(request: &'a mut TakeRequest<'static>) -> &'a mut LeaseTerms {
        request.takes[1].lease.as_mut().expect("golden")
    }
    let reason = refused_lease("invalid_lease", |request| request.takes[1].lease = None).await;
    assert!(
        reason.starts_with("takes[1].lease: there are no terms; a take of kind \"lease\" names"),
        "{reason}"
    );
    for (take, code) in [(0, "invalid_lease"), (2, "invalid_lease")] {
        let reason = refused_lease(code, |request| request.takes[take].lease = request.takes[1].lease).await;
        assert!(
            reason.starts_with(&format!("takes[{take}].lease: only a take of kind \"lease\"")),
            "{reason}"
        );
    }
    for found in [0, MIN_LEASE_TTL_US - 1, MAX_LEASE_TTL_US + 1] {
        let reason = refused_lease("invalid_lease", |request| terms(request).ttl_us = found).await;
        let expected = format!("takes[1].lease.ttl_us: found {found}; a lease holds from 1000 to 60000000");
        assert!(reason.starts_with(&expected), "{reason}");
    }
    for found in [0, 101] {
        let reason = refused_lease("invalid_lease", |request| terms(request).share_percent = found).await;
        let expected = format!("takes[1].lease.share_percent: found {found}; it must be from 1 to 100");
        assert_eq!(reason, expected);
    }
    let reason = refused_lease("invalid_lease", |request| request.takes[1].buckets[0].cost = 0).await;
    assert_eq!(reason, "takes[1].buckets[0].cost: found 0; a lease asks for at least 1 token");
}

#[tokio::test]
async fn a_return_of_what_was_not_granted_is_refused_by_place() {
    fn returned<'a>(request: &'a mut TakeRequest<'static>) -> &'a mut Leased {
        request.takes[2].returned.as_mut().expect("golden")
    }
    let reason = refused_lease("invalid_return", |request| request.takes[2].returned = None).await;
    assert!(
        reason.starts_with("takes[2].returned: there is no lease; a take of kind \"return\" names"),
        "{reason}"
    );
    for take in [0, 1] {
        let reason = refused_lease("invalid_return", |request| {
            request.takes[take].returned = request.takes[2].returned
        })
        .await;
        let expected = format!("takes[{take}].returned: only a take of kind \"return\" names a lease");
        assert!(reason.starts_with(&expected), "{reason}");
    }
    for found in [0, 1 << 53] {
        let reason = refused_lease("invalid_return", |request| returned(request).tokens = found).await;
        assert!(reason.starts_with(&format!("takes[2].returned.tokens: found {found}; it must")), "{reason}");
        let reason = refused_lease("invalid_return", |request| returned(request).lapses_at_us = found).await;
        assert!(reason.starts_with(&format!("takes[2].returned.lapses_at_us: found {found};")), "{reason}");
    }
    let reason = refused_lease("invalid_return", |request| request.takes[2].buckets[0].cost = 26).await;
    let expected = "takes[2].buckets[0].cost: found 26; at most the 25 tokens that were granted";
    assert!(reason.starts_with(expected), "{reason}");
}

#[tokio::test]
async fn a_lease_is_granted_and_its_rest_comes_back() {
    let app = router(Service::new(Store::memory(1_000), Limits::default()));
    let decide = async |request: &TakeRequest<'_>| {
        let body = serde_json::to_vec(request).expect("serializable");
        let response = app.clone().oneshot(post(body)).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
        let response: TakeResponse = serde_json::from_slice(&body_of(response).await).expect("a response");
        (response.verdicts, response.now_us)
    };
    let mut request: TakeRequest = serde_json::from_str(LEASES).expect("golden");
    // Slow enough that no token is earned meanwhile.
    request.takes.iter_mut().for_each(|take| take.buckets[0].period_us = 86_400_000_000);
    let (verdicts, now_us) = decide(&request).await;
    let Verdict::Leased { tokens: 30, lapses_at_us, buckets } = &verdicts[1] else { panic!("{verdicts:?}") };
    assert_eq!(buckets[0].remaining, 29, "one was taken, and half of sixty may be leased");
    assert_eq!(*lapses_at_us, (now_us / 1_000_000 + 2) * 1_000_000);
    let Verdict::Allowed(buckets) = &verdicts[2] else { panic!("{verdicts:?}") };
    assert_eq!(buckets[0].remaining, 29, "another lease, which this bucket has not");

    request.takes.drain(..2);
    request.takes[0].returned = Some(Leased { tokens: 30, lapses_at_us: *lapses_at_us });
    let (verdicts, _) = decide(&request).await;
    let Verdict::Allowed(buckets) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!((buckets[0].outcome, buckets[0].retry_after_us), (contract::Outcome::Allowed, Some(0)));
    assert_eq!(buckets[0].remaining, 36);
}

#[tokio::test]
async fn a_refused_request_takes_nothing() {
    let app = router(Service::new(Store::memory(1_000), Limits::default()));
    let mut request: TakeRequest = serde_json::from_str(GOLDEN).expect("golden");
    request.takes[1].buckets[0].tokens = 0;
    let wrong = serde_json::to_vec(&request).expect("serializable");
    let response = app.clone().oneshot(post(wrong)).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let response = app.oneshot(post(GOLDEN)).await.expect("infallible");
    assert_golden_was_allowed(response.status(), &body_of(response).await);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let get = |path: &str| Request::get(path).body(Body::empty()).expect("valid");
    refused(get("/"), StatusCode::NOT_FOUND, "unknown_path").await;
    refused(get("/v1/take"), StatusCode::METHOD_NOT_ALLOWED, "wrong_method").await;
    let post = Request::post("/healthz").body(Body::empty()).expect("valid");
    refused(post, StatusCode::METHOD_NOT_ALLOWED, "wrong_method").await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let reason =
        refused(post(vec![b' '; MAX_BODY_BYTES + 1]), StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").await;
    assert!(reason.contains("1048576 bytes"), "{reason}");
    // Without a declared length it is read up to the bound and no further.
    let pieces = undeclared(vec![b' '; 64 * 1024], 17);
    refused(post(pieces), StatusCode::PAYLOAD_TOO_LARGE, "body_too_large").await;
}

/// A body of `count` pieces whose length is not declared.
fn undeclared(piece: Vec<u8>, count: usize) -> Body {
    struct Pieces(Vec<u8>, usize);
    impl hyper::body::Body for Pieces {
        type Data = hyper::body::Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
            self.1 = match self.1.checked_sub(1) {
                Some(left) => left,
                None => return std::task::Poll::Ready(None),
            };
            std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(self.0.clone().into()))))
        }
    }
    Body::new(Pieces(piece, count))
}

/// The clock is paused, and runs on to the next deadline where nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_refused() {
    struct Endless;
    impl hyper::body::Body for Endless {
        type Data = hyper::body::Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
    let reason = refused(post(Body::new(Endless)), StatusCode::REQUEST_TIMEOUT, "body_too_slow").await;
    assert!(reason.contains("10s"), "{reason}");
}

#[tokio::test]
async fn health_and_readiness_are_told_apart() {
    let service = Service::new(Store::memory(1_000), Limits::default());
    let get = |path: &str| {
        let request = Request::get(path).body(Body::empty()).expect("valid");
        router(Arc::clone(&service)).oneshot(request)
    };
    assert_eq!(get("/readyz").await.expect("infallible").status(), StatusCode::OK);
    service.stop();
    assert_eq!(get("/healthz").await.expect("infallible").status(), StatusCode::OK);
    let response = get("/readyz").await.expect("infallible");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers().get(MARKER_HEADER).expect("the marker"), "1");
    assert!(String::from_utf8_lossy(&body_of(response).await).contains("\"code\":\"stopping\""));
}

#[tokio::test]
async fn a_stop_lets_a_request_under_way_finish() {
    let server = start_tcp().await;
    let mut stream = TcpStream::connect(&server.address).await.expect("connected");
    let silent = TcpStream::connect(&server.address).await.expect("connected");
    let (begin, end) = GOLDEN.split_at(GOLDEN.len() / 2);
    let head = format!(
        "POST /v1/take HTTP/1.1\r\nhost: sluice\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        GOLDEN.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    // The server asks for the body: so the request is known to be under way.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.expect("asked for the body");
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(begin.as_bytes()).await.expect("sent");

    server.stop.send(()).expect("still serving");
    support::wait_until("the port to be closed", async || TcpStream::connect(&server.address).await.is_err())
        .await;
    assert!(!server.ended.is_finished(), "the request was not waited for");
    stream.write_all(end.as_bytes()).await.expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("answered, and closed");
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    assert!(response.contains("\"remaining\":59"), "{response}");
    assert!(server.ended.await.expect("no panic"), "every request was answered");
    drop(silent);
}

/// Who connects in between stays connected. The umask is one of the whole process, and no other test here makes a file.
#[test]
fn a_socket_is_nobody_elses_at_any_moment() {
    use std::os::unix::fs::PermissionsExt;
    let _umask = rustix::process::umask(rustix::fs::Mode::empty());
    let path =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("race-{}.sock", std::process::id()));
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut seen = 0_u32;
            while !done.load(order) {
                let Ok(file) = std::fs::metadata(&path) else { continue };
                let mode = file.permissions().mode() & 0o777;
                assert!([0o600, 0o640].contains(&mode), "{mode:o} in between");
                seen += 1;
            }
            seen
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        for _ in 0..2_000 {
            let listen = ListenAddress::Unix(path.clone());
            drop(runtime.block_on(Listener::open(&listen, Purpose::Data(0o640))).expect("opened"));
        }
        let listen = ListenAddress::Unix(path.clone());
        let admin = runtime.block_on(Listener::open(&listen, Purpose::Admin)).expect("opened");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        done.store(true, order);
        drop(admin);
        assert_eq!(mode, 0o600, "operators' is for nobody else");
        assert!(watching.join().expect("no moment for others") > 0);
    });
}
