//! One connection, from the first byte to the end: its handshake, its requests, and the time that each may take.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, HttpBody},
    http::{HeaderValue, Request, Response, Version, header::CONNECTION},
};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use super::{
    body::{Kept, Notes},
    listen::Connection,
    progress::{Due, HEADER_TIMEOUT, IDLE_TIMEOUT, Progress},
    room::{Place, Room},
    serve::Stage,
    tls::Acceptor,
};

/// The most bytes of one request's headers. The filter sends a few hundred.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The most requests at a time on one HTTP/2 connection. A worker of an Envoy has a few callouts under way.
const MAX_STREAMS: u32 = 100;

/// How often a connection's times are looked at, where nothing is due before. Below the shortest of them.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a connection may linger whose end was asked for.
const LINGER: Duration = Duration::from_secs(5);

/// What all connections to one door have in common.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) router: Router,
    pub(super) tls: Option<Acceptor>,
    /// For the answers that wait to be read.
    pub(super) bodies: Arc<Room>,
    pub(super) stage: watch::Receiver<Stage>,
    /// How long a connection may be without a request.
    pub(super) idle: Duration,
}

/// Serves a connection to its end. It is in the place that it was given until then.
pub(super) async fn serve(connection: Connection, serving: Serving, _place: Place) {
    let shared = Shared::new(serving.idle);
    let progress = &shared;
    let outcome = match connection {
        Connection::Unix(stream) => http(Watched::new(stream, progress), progress, serving).await,
        Connection::Tcp(stream) => {
            let stream = Watched::new(stream, progress);
            match serving.tls.as_ref().map(Acceptor::now) {
                None => http(stream, progress, serving).await,
                Some(tls) => {
                    let mut stage = serving.stage.clone();
                    let handshake = tokio::select! {
                        biased;
                        handshake = timeout(HEADER_TIMEOUT, tls.accept(stream)) => handshake,
                        _ = stage.wait_for(|stage| *stage == Stage::Ending) => return,
                    };
                    match handshake {
                        Ok(Ok(stream)) => {
                            progress.change(Progress::shook_hands);
                            http(stream, progress, serving).await
                        }
                        Ok(Err(error)) => Err(error.into()),
                        Err(_) => Err("the TLS handshake took too long".into()),
                    }
                }
            }
        }
    };
    // A client that hangs up in the middle, or is none of ours, is its own business.
    if let Err(error) = outcome {
        debug!(%error, "a connection ended early");
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// HTTP/1.1, or HTTP/2 where the client begins with it.
async fn http<S>(stream: S, progress: &Shared, serving: Serving) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Its own time for headers runs between requests, too: ours tells the two apart.
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(IDLE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32);
    let mut stage = serving.stage.clone();
    let service = Answering {
        inner: TowerToHyperService::new(serving.router),
        progress: progress.clone(),
        bodies: serving.bodies,
        stage: serving.stage,
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut look = pin!(sleep(LOOK_EVERY));
    // Since when its end is asked for: by its own fault, or because all end.
    let (mut ended_at, mut all_end) = (None, false);
    loop {
        tokio::select! {
            biased;
            outcome = connection.as_mut() => return outcome,
            () = look.as_mut() => {
                let (now, due) = progress.due();
                match due {
                    Due::Drop => return Err("the client does not read what it is sent".into()),
                    Due::End if ended_at.is_some_and(|at| now >= at + LINGER) => {
                        return Err("the client was silent, or too slow".into());
                    }
                    Due::End if ended_at.is_none() => {
                        connection.as_mut().graceful_shutdown();
                        ended_at = Some(now);
                    }
                    Due::End | Due::At(_) => {}
                }
                let next = match due {
                    Due::At(at_ms) => (progress.start + Duration::from_millis(at_ms)).min(now + LOOK_EVERY),
                    Due::End | Due::Drop => now + LINGER,
                };
                look.as_mut().reset(next);
            }
            _ = stage.wait_for(|stage| *stage == Stage::Ending), if !all_end => {
                all_end = true;
                // A request whose headers were begun is under way, too.
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A [`Progress`] that a connection shares with its requests.
#[derive(Clone)]
struct Shared {
    start: Instant,
    progress: Arc<Mutex<Progress>>,
}

impl Shared {
    fn new(idle: Duration) -> Self {
        Self { start: Instant::now(), progress: Arc::new(Mutex::new(Progress::new(idle))) }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ms_at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    fn change(&self, change: impl FnOnce(&mut Progress, u64)) {
        let now_ms = self.ms_at(Instant::now());
        change(&mut self.lock(), now_ms);
    }

    fn due(&self) -> (Instant, Due) {
        let now = Instant::now();
        (now, self.lock().due(self.ms_at(now)))
    }
}

/// Marks an answer that goes on for as long as it is read, among the extensions of a response.
#[derive(Clone, Copy)]
pub(super) struct Endless;

/// A request under way: until the last of its answer was written.
struct UnderWay {
    shared: Shared,
    /// Of an answer without an end, when the last piece of it was taken.
    begun_at_ms: u64,
    endless: bool,
}

impl UnderWay {
    fn begin(shared: &Shared, http2: bool) -> Self {
        let begun_at_ms = shared.ms_at(Instant::now());
        shared.lock().request_begins(http2, begun_at_ms);
        Self { shared: shared.clone(), begun_at_ms, endless: false }
    }
}

impl Notes for (UnderWay, Place) {
    fn piece(&mut self) {
        let UnderWay { shared, begun_at_ms, endless } = &mut self.0;
        if *endless {
            let now_ms = shared.ms_at(Instant::now());
            shared.lock().request_goes_on(*begun_at_ms, now_ms);
            *begun_at_ms = now_ms;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.change(|progress, now_ms| progress.request_ends(self.begun_at_ms, now_ms));
    }
}

/// The router, with an eye on how long each request takes and what its answer holds.
struct Answering {
    inner: TowerToHyperService<Router>,
    progress: Shared,
    bodies: Arc<Room>,
    stage: watch::Receiver<Stage>,
}

impl hyper::service::Service<Request<Incoming>> for Answering {
    type Response = Response<Kept<Body, (UnderWay, Place)>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let http2 = request.version() == Version::HTTP_2;
        let mut under_way = UnderWay::begin(&self.progress, http2);
        let (answering, bodies, stage) = (self.inner.call(request), self.bodies.clone(), self.stage.clone());
        Box::pin(async move {
            let mut response = answering.await?;
            // Whoever still sends to a sidecar that leaves is told with an answer, and not by a connection that
            // closes while the next request is on its way. HTTP/2 has GOAWAY for that.
            if !http2 && *stage.borrow() != Stage::Serving {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            under_way.endless = response.extensions().get::<Endless>().is_some();
            let bytes = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
            let place = bodies.insist(bytes);
            Ok(response.map(|body| Kept::new(body, (under_way, place))))
        })
    }
}

/// A stream whose progress is noted.
struct Watched<S> {
    stream: S,
    progress: Shared,
    stuck: bool,
}

impl<S> Watched<S> {
    fn new(stream: S, progress: &Shared) -> Self {
        Self { stream, progress: progress.clone(), stuck: false }
    }

    fn wrote<T>(&mut self, outcome: Poll<T>) -> Poll<T> {
        if outcome.is_pending() || self.stuck {
            self.stuck = outcome.is_pending();
            let could = !self.stuck;
            self.progress.change(|progress, now_ms| progress.wrote(could, now_ms));
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.progress.lock().minds_reads() {
            self.progress.change(Progress::read);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.wrote(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.wrote(outcome)
    }
}
