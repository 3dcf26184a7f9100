//! The edge towards Envoy and towards operators: the only module that knows of HTTP.
//!
//! [`router`] answers Envoys' requests and [`admin`] those of operators; [`serve`](serve::serve) listens, leaves and drains.
//! Every answer carries the contract's marker header, so that a client can tell it from one that something between has
//! made up.

pub mod admin;
mod body;
mod connection;
mod deciding;
mod listen;
mod progress;
mod refusal;
pub mod room;
pub mod serve;
pub mod tls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use contract::{MARKER_HEADER, TAKE_PATH, TakeRequest, TakeResponse, VERSION};
use serde_json::json;

use deciding::Deciding;
pub use listen::{ListenError, Listener, Purpose};
use refusal::RequestError;
use room::Room;

use crate::{
    batch::Batch, logging::LogLevels, overrides::Overrides, published::Published, spans::Spans, store::Store,
    telemetry::Telemetry,
};

/// The length of most verdicts of one bucket in JSON.
const VERDICT_BYTES: usize = 112;

/// What is refused before it can do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest body of a request.
    pub max_body_bytes: usize,
    /// The most connections of Envoys at a time, over all data listeners.
    pub max_connections: usize,
}

/// As the program does where nothing else is said.
impl Default for Limits {
    fn default() -> Self {
        Self { max_body_bytes: 1 << 20, max_connections: 1_000 }
    }
}

/// What every request is answered from.
#[derive(Debug)]
pub struct Service {
    store: Store,
    overrides: Overrides,
    telemetry: Arc<Telemetry>,
    /// Nothing where nobody shares the store.
    published: Option<Published>,
    logging: Arc<LogLevels>,
    spans: Option<Spans>,
    max_body_bytes: usize,
    bodies: Arc<Room>,
    connections: Arc<Room>,
    stopping: AtomicBool,
    streams: admin::Streams,
    started: Instant,
    answered: Count,
    refused: Count,
    /// Requests for takes whose clients left before the answer.
    given_up: Count,
}

/// What happened so often.
type Count = AtomicU64;

impl Service {
    /// A service that decides takes in `store`, writes no log and tells of no spans.
    #[must_use]
    pub fn new(store: Store, limits: Limits) -> Arc<Self> {
        Self::told(store, limits, LogLevels::unwritten(), None)
    }

    /// The same, which tells of what it does.
    #[must_use]
    pub fn told(store: Store, limits: Limits, logging: Arc<LogLevels>, spans: Option<Spans>) -> Arc<Self> {
        let Limits { max_body_bytes, max_connections } = limits;
        let telemetry = Arc::<Telemetry>::default();
        let published = store.control().map(|control| Published::start(control, Arc::clone(&telemetry)));
        Arc::new(Self {
            overrides: Overrides::of(&store),
            store,
            telemetry,
            published,
            logging,
            spans,
            max_body_bytes,
            bodies: Room::new(body::BODIES_BYTES.max(max_body_bytes)),
            connections: Room::new(max_connections),
            stopping: AtomicBool::new(false),
            streams: admin::Streams::default(),
            started: Instant::now(),
            answered: Count::new(0),
            refused: Count::new(0),
            given_up: Count::new(0),
        })
    }

    /// Waits until what operators put in the place of limits was looked for once.
    pub async fn tried(&self) {
        self.overrides.tried().await;
    }

    /// Makes `/readyz` answer 503 from now on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether Envoys should ask: what `/readyz` answers.
    fn ready(&self) -> Result<(), RequestError> {
        if self.is_stopping() {
            return Err(RequestError::Stopping);
        }
        self.store.ready().map_err(RequestError::NotReady)?;
        self.overrides.ready().map_err(RequestError::NotReady)
    }

    /// Ends the answers that would go on by themselves.
    fn end_streams(&self) {
        self.streams.end();
    }

    /// The connections of Envoys.
    #[must_use]
    pub fn connections(&self) -> Arc<Room> {
        Arc::clone(&self.connections)
    }

    /// Hands on the spans that wait, for at most so long.
    pub async fn flush_spans(&self, bound: Duration) {
        if let Some(spans) = &self.spans {
            spans.flush(bound).await;
        }
    }

    /// What bodies and answers hold.
    pub(crate) fn bodies(&self) -> Arc<Room> {
        Arc::clone(&self.bodies)
    }
}

/// What is answered to Envoys.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route(TAKE_PATH, post(take))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(async || RequestError::UnknownPath)
        .method_not_allowed_fallback(async || RequestError::WrongMethod)
        .with_state(Arc::clone(&service))
        .layer(axum::middleware::map_response_with_state(service, count))
        .layer(axum::middleware::map_response(mark))
}

async fn count(State(service): State<Arc<Service>>, response: Response) -> Response {
    let status = response.status();
    service.answered.fetch_add(1, Ordering::Relaxed);
    if status.is_client_error() || status.is_server_error() {
        service.refused.fetch_add(1, Ordering::Relaxed);
    }
    response
}

async fn mark(mut response: Response) -> Response {
    let name = HeaderName::from_static(MARKER_HEADER);
    response.headers_mut().insert(name, HeaderValue::from_static(VERSION));
    response
}

/// Everything is read and checked before anything is taken, so a request that is refused took nothing.
async fn take(State(service): State<Arc<Service>>, body: Body) -> Result<Response, RequestError> {
    let (body, _place) = body::read(body, service.max_body_bytes, &service.bodies).await?;
    let arrived = Instant::now();
    let times = service.spans.as_ref().map(Spans::arrived);
    let request: TakeRequest = from_json(&body).map_err(RequestError::from_json)?;
    let mut batch = Batch::try_from(&request)?;
    let changed = service.overrides.apply(&mut batch);
    let deciding = Deciding::asks(&service, &request, arrived, times);
    let mut answer = match service.store.take(batch).await {
        Ok(answer) => answer,
        Err(overloaded) => {
            deciding.refused();
            return Err(overloaded.into());
        }
    };
    changed.tell(&mut answer);
    deciding.answered(&answer);
    let expected_bytes = (answer.verdicts.len() + 1) * VERDICT_BYTES;
    let response = TakeResponse { now_us: answer.now_us, verdicts: answer.verdicts };
    Ok(json_response(StatusCode::OK, &response, expected_bytes))
}

/// Text that is known to be UTF-8 is read without looking at each string again. What is not has an error that
/// names the place.
fn from_json<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    str::from_utf8(body).map_or_else(|_| serde_json::from_slice(body), serde_json::from_str)
}

async fn healthz() -> Response {
    json_response(StatusCode::OK, &json!({ "status": "alive" }), 0)
}

async fn readyz(State(service): State<Arc<Service>>) -> Result<Response, RequestError> {
    service.ready()?;
    Ok(json_response(StatusCode::OK, &json!({ "status": "ready" }), 0))
}

/// `expected_bytes` only spares the growing.
fn json_response(status: StatusCode, body: &impl serde::Serialize, expected_bytes: usize) -> Response {
    let mut json = Vec::with_capacity(expected_bytes);
    match serde_json::to_writer(&mut json, body) {
        Ok(()) => {
            let content_type = HeaderValue::from_static("application/json");
            (status, [(CONTENT_TYPE, content_type)], json).into_response()
        }
        // No type that is written here can fail to be; a client that gets no JSON takes it for a failure.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
