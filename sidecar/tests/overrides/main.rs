//! An operator's hand on a bucket: how it stands, a reset, a refund, and what is put in the place of its limit.

mod cluster;
mod memory;
mod model;
mod sentinel;
mod shared;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use contract::{BucketTake, BucketVerdict, Overridden, Take, TakeRequest, Verdict};
use fleet::{Redis, RunDir};
use serde_json::Value;
use sluice::{
    http::{Limits, Service, admin, router},
    store::{
        Store,
        denials::DenyCache,
        redis::{Asking, RedisAddress, RedisStore, Timeouts},
    },
};
use tower::ServiceExt;

/// A sidecar without sockets.
struct Sidecar {
    service: Arc<Service>,
    data: Router,
    admin: Router,
}

const DAY_US: u64 = 86_400_000_000;

/// A bucket of ten that earns nothing while a test runs.
fn ask<'a>(policy: &'a str, key: &'a str, cost: u64) -> BucketTake<'a> {
    let (policy, key) = (policy.into(), key.into());
    BucketTake { policy, key, tokens: 10, period_us: DAY_US, burst: 10, cost, repeats: 0 }
}

impl Sidecar {
    /// One of a memory of its own.
    fn start() -> Self {
        Self::of(Store::memory(1_000))
    }

    fn of(store: Store) -> Self {
        let service = Service::new(store, Limits::default());
        let (data, admin) =
            (router(Arc::clone(&service)), admin::router(Arc::clone(&service), admin::Guard::Local));
        Self { service, data, admin }
    }

    /// One that has a Redis with others, as it is once it has started.
    async fn at(url: &str) -> Self {
        let address = RedisAddress::parse(url).expect("the URL is right");
        let sidecar = Self::of(Store::Redis(RedisStore::start(address, asking()).await));
        sidecar.service.tried().await;
        sidecar
    }

    async fn is_ready(&self) -> bool {
        let request = Request::get("http://sluice/readyz").body(Body::empty()).expect("valid");
        answer(&self.data, request).await.0 == 200
    }

    /// Whether a client is let in, and what is told to be in the place of its limit.
    async fn lets_in(&self, key: &str) -> (bool, Option<Overridden>) {
        let verdict = self.take(&[ask("per-client", key, 1)]).await;
        let (allowed, bucket) = only(&verdict);
        (allowed, bucket.overridden)
    }

    async fn overrides(&self) -> Vec<Value> {
        let list = self.does("GET", "/v1/overrides", Value::Null).await;
        list["overrides"].as_array().expect("a list").clone()
    }

    async fn decide(&self, domain: &str, takes: Vec<Take<'_>>) -> Vec<Verdict> {
        let request = TakeRequest { domain: domain.into(), takes };
        let body = serde_json::to_vec(&request).expect("serializable");
        let request = Request::post("http://sluice/v1/take").body(Body::from(body)).expect("valid");
        let (status, answer) = answer(&self.data, request).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_value(answer["verdicts"].clone()).expect("verdicts")
    }

    async fn take(&self, asks: &[BucketTake<'_>]) -> Verdict {
        let take = Take { buckets: asks.to_vec(), ..Take::default() };
        self.decide("shop", vec![take]).await.remove(0)
    }

    /// Empties the bucket of `key`, and so makes its policy known.
    async fn empty(&self, policy: &str, key: &str) {
        assert!(matches!(self.take(&[ask(policy, key, 10)]).await, Verdict::Allowed(_)));
    }

    async fn operate(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .header("content-type", "application/json");
        answer(&self.admin, request.body(body).expect("valid")).await
    }

    async fn refused(&self, method: &str, path: &str, body: Value, expected: (u16, &str)) -> String {
        let (status, answer) = self.operate(method, path, body.clone()).await;
        let code = answer["code"].as_str().expect("a code");
        assert_eq!((status, code), expected, "{method} {path} {body}: {answer}");
        answer["reason"].as_str().expect("a reason").to_owned()
    }

    async fn does(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.operate(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }
}

async fn answer(app: &Router, request: Request<Body>) -> (u16, Value) {
    let response = app.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = to_bytes(response.into_body(), 8 << 20).await.expect("a body");
    assert!(status != StatusCode::INTERNAL_SERVER_ERROR);
    (status.as_u16(), serde_json::from_slice(&body).expect("JSON"))
}

fn only(verdict: &Verdict) -> (bool, &BucketVerdict) {
    match verdict {
        Verdict::Allowed(buckets) => (true, &buckets[0]),
        Verdict::Denied(buckets) => (false, &buckets[0]),
        other => panic!("{other:?}"),
    }
}

/// What is denied is remembered for far longer than a test runs, unless it is forgotten on purpose.
fn asking() -> Asking {
    let timeouts = Timeouts { answer: Duration::from_secs(2), connect: Duration::from_secs(2) };
    let deny_cache = DenyCache { ceiling: Duration::from_secs(600), ..DenyCache::default() };
    Asking { deny_cache, ..timeouts.into() }
}

fn program() -> PathBuf {
    fleet::tools::redis_server().expect("redis-server is there")
}

fn redis() -> (Redis, RunDir) {
    redis_with(&[])
}

fn redis_with(args: &[&str]) -> (Redis, RunDir) {
    let run = RunDir::new().expect("a directory");
    (Redis::start(&program(), &run, args).expect("Redis starts"), run)
}

/// What every sidecar is promised to have seen by then.
const SOON: Duration = Duration::from_secs(1);

/// Polls until it is true; fails the test where it is not in time. How long it took.
async fn within(deadline: Duration, what: &str, mut poll: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !poll().await {
        assert!(started.elapsed() < deadline, "waited {deadline:?} for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    started.elapsed()
}
