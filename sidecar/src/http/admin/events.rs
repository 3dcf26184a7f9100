//! `GET /v1/events`: what happens, told as it happens, for the page at `/`.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderName, HeaderValue},
    response::{IntoResponse, Response, Sse, sse::Event},
};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use utoipa::{IntoParams, ToSchema};

use super::{named::Named, openapi::Problem, stats::Stats};
use crate::{
    http::{
        Service,
        connection::Endless,
        refusal::RequestError,
        room::{Place, Room},
    },
    telemetry::{TopBy, TopKey, TopQuestion},
};

/// The most streams at a time: pages that somebody looks at.
const MAX_STREAMS: usize = 16;

/// How often the whole is told, and how the one bucket stands that is watched.
const EVERY: Duration = Duration::from_secs(1);
const BUCKET_EVERY: Duration = Duration::from_millis(200);

/// For how long what was written for one stream does for others, too.
const FRESH: Duration = Duration::from_millis(500);

/// Of how many keys is told, and over how many of the last seconds.
const KEYS: usize = 20;
const WINDOW_S: u64 = 10;

/// The streams that are open.
#[derive(Debug)]
pub struct Streams {
    room: Arc<Room>,
    ended: watch::Sender<bool>,
    /// What was told last, and when: it is the same for all who watch, and long where there are many policies.
    last: Mutex<Option<(Instant, [Event; 2])>>,
}

/// Which bucket to watch.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The policy of a bucket that is told of five times a second.
    bucket: Option<String>,
    /// Its key.
    #[serde(default)]
    key: String,
    /// Its domain. May be left out where only one domain has this policy.
    domain: Option<String>,
}

/// The data of the event `top`. Approximate, as is what `/v1/top` tells.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tops {
    /// The window.
    window_s: u64,
    /// How far back was counted in fact, in microseconds. A rate is a count divided by this.
    covers_us: u64,
    /// The keys with the most requests.
    requests: Vec<TopKey>,
    /// The keys that were denied most.
    denied: Vec<TopKey>,
}

/// Hear what happens
///
/// Server-sent events, until somebody hangs up: each second `stats`, with what `/v1/stats` tells, and `top`, with the hottest
/// and the most denied keys of the last ten seconds. Of a bucket that is watched five times a second `bucket`, with what
/// `/v1/buckets/{policy}/{key}` tells, or `bucket_refused`, with a code and a reason.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "watching",
    params(Wanted),
    responses(
        (status = 200, body = Tops, content_type = "text/event-stream"),
        (status = "4XX", body = Problem),
        (status = 503, body = Problem),
    ),
)]
pub(super) async fn events(
    State(service): State<Arc<Service>>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, RequestError> {
    let Query(wanted) = query.map_err(|error| RequestError::InvalidQuery(error.body_text()))?;
    let place = service.streams.enter()?;
    let mut response = Sse::new(Telling::begin(service, wanted, place)).into_response();
    // A proxy between would wait until it has enough to be worth sending.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(unbuffered, HeaderValue::from_static("no"));
    response.extensions_mut().insert(Endless);
    Ok(response)
}

impl Default for Streams {
    fn default() -> Self {
        Self { room: Room::new(MAX_STREAMS), ended: watch::Sender::new(false), last: Mutex::default() }
    }
}

impl Streams {
    /// Ends them all, and those that are asked for from now on.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    fn enter(&self) -> Result<Place, RequestError> {
        self.room.enter(1).ok_or(RequestError::TooManyStreams { max: MAX_STREAMS })
    }

    /// What is told each second.
    fn now(&self, service: &Service) -> [Event; 2] {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, events)) = &*last
            && at.elapsed() < FRESH
        {
            return events.clone();
        }
        let told = [event("stats", &Stats::of(service)), event("top", &Tops::of(service))];
        *last = Some((Instant::now(), told.clone()));
        told
    }
}

impl Tops {
    fn of(service: &Service) -> Self {
        let most = |by| {
            let window_us = WINDOW_S * 1_000_000;
            service.telemetry.top(&TopQuestion { by, limit: KEYS, window_us, domain: None, policy: None })
        };
        let (requests, denied) = (most(TopBy::Requests), most(TopBy::Denied));
        Self {
            window_s: WINDOW_S,
            covers_us: requests.covers_us,
            requests: requests.keys,
            denied: denied.keys,
        }
    }
}

/// One stream.
struct Telling {
    service: Arc<Service>,
    wanted: Wanted,
    ended: watch::Receiver<bool>,
    ticks: Interval,
    /// When the whole is to be told again.
    whole_at: Instant,
    /// What was not handed on yet.
    ready: VecDeque<Event>,
    _place: Place,
}

impl Telling {
    fn begin(
        service: Arc<Service>,
        wanted: Wanted,
        place: Place,
    ) -> impl Stream<Item = Result<Event, Infallible>> {
        let whole_at = Instant::now();
        let mut ticks = interval(if wanted.bucket.is_some() { BUCKET_EVERY } else { EVERY });
        // Whoever reads slowly is told of what is, and not of all that was.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = service.streams.ended.subscribe();
        let telling = Self { service, wanted, ended, ticks, whole_at, ready: VecDeque::new(), _place: place };
        stream::unfold(telling, async |mut telling| {
            let event = telling.next().await?;
            Some((Ok(event), telling))
        })
    }

    /// The next event; nothing once all streams end.
    async fn next(&mut self) -> Option<Event> {
        let mut ended = self.ended.clone();
        tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => None,
            event = self.event() => Some(event),
        }
    }

    async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let now = self.ticks.tick().await;
            if now >= self.whole_at {
                self.whole_at = now + EVERY;
                self.ready.extend(self.service.streams.now(&self.service));
            }
            if let Some(policy) = &self.wanted.bucket {
                let Wanted { key, domain, .. } = &self.wanted;
                let bucket = bucket(&self.service, policy.clone(), key.clone(), domain.clone()).await;
                self.ready.push_front(bucket);
            }
        }
    }
}

/// How a bucket stands, or why that is not told. What is wrong may become right: a policy may be asked for.
async fn bucket(service: &Service, policy: String, key: String, domain: Option<String>) -> Event {
    let stands = async {
        let named = Named::watched(service, policy, key, domain)?;
        Ok::<_, RequestError>(event("bucket", &named.status(service).await?))
    };
    stands.await.unwrap_or_else(|error| event("bucket_refused", &error.refusal()))
}

fn event(name: &str, data: &impl Serialize) -> Event {
    // No type that is written here can fail to be, and JSON has no line breaks of its own.
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}
