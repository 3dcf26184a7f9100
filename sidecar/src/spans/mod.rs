//! Spans of takes that are part of a sampled trace: to an OpenTelemetry receiver, by OTLP over HTTP.
//!
//! A take says in its `traceparent` which trace it belongs to. What is told of it is made once the store has answered, at most
//! so often in a second, and waits in a bounded queue: no take waits for the receiver, and where that is slow or gone, or more
//! is sampled, spans are lost, counted. The key of a bucket, which is what a client sends, is never told.

mod client;
mod export;
mod receiver;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use contract::{BucketVerdict, Outcome, Take, TakeRequest, Verdict};
use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};

use crate::store::Answer;
pub use export::SpanCounts;
use export::{Entrance, Queue};
pub use receiver::{InvalidReceiver, Receiver};

/// The header that a `traceparent` comes in where it is one.
const TRACEPARENT: &str = "traceparent";

/// Tells of takes.
#[derive(Debug)]
pub struct Spans {
    tracer: SdkTracer,
    queue: Arc<Queue>,
    store: &'static str,
}

/// When a request was where: by the wall clock, which is what spans are joined by.
#[derive(Debug)]
pub struct Times<'a> {
    spans: &'a Spans,
    arrived: SystemTime,
    asked: SystemTime,
}

impl Spans {
    /// Begins to tell `receiver` of takes from a store of this kind. It is not asked for anything yet.
    ///
    /// # Errors
    /// What in the environment is wrong.
    pub fn start(receiver: &Receiver, store: &'static str) -> Result<Self, InvalidReceiver> {
        let mut resource = Resource::builder();
        if receiver.names_no_service() {
            resource = resource.with_service_name("sluice");
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = resource.with_attribute(version).build();
        let queue = {
            let (exporter, unsaid) = receiver.exporter(&resource)?;
            Queue::start(exporter, unsaid)
        };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Entrance(Arc::clone(&queue)))
            .with_resource(resource)
            // What is told of was sampled by whoever began its trace, and OTEL_TRACES_SAMPLER is not for that.
            .with_sampler(Sampler::AlwaysOn)
            .build();
        Ok(Self { tracer: provider.tracer("sluice"), queue, store })
    }

    /// That a request has arrived.
    #[must_use]
    pub fn arrived(&self) -> Times<'_> {
        let now = SystemTime::now();
        Times { spans: self, arrived: now, asked: now }
    }

    /// How many were handed on, and how many were lost.
    #[must_use]
    pub fn counts(&self) -> SpanCounts {
        self.queue.counts()
    }

    /// Hands on what waits, for at most so long.
    pub async fn flush(&self, bound: Duration) {
        self.queue.flush(bound).await;
    }
}

/// Why a request was not answered with verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// There was no room for it.
    Overloaded,
    /// Its client left before.
    GivenUp,
}

impl Times<'_> {
    /// That the store is asked now.
    pub fn asks(&mut self) {
        self.asked = SystemTime::now();
    }

    /// That it has answered, or why nobody was answered.
    pub fn tell(&self, request: &TakeRequest, answer: Result<&Answer, Undecided>) {
        let answered = SystemTime::now();
        for (at, take) in request.takes.iter().enumerate() {
            let Some(traceparent) = take.traceparent.as_deref() else { continue };
            let parent = TraceContextPropagator::new().extract(&Header(traceparent));
            if !parent.span().span_context().is_sampled() {
                continue;
            }
            if !self.spans.queue.admits(answered) {
                continue;
            }
            let verdicts = answer.map(|answer| &answer.verdicts[at..]);
            self.span(request, &request.takes[at..], verdicts, &parent, answered);
        }
    }

    /// The take is the first of `takes`; those that follow it are in shadow.
    fn span(
        &self,
        request: &TakeRequest,
        takes: &[Take],
        verdicts: Result<&[Verdict], Undecided>,
        parent: &Context,
        answered: SystemTime,
    ) {
        let (tracer, take) = (&self.spans.tracer, &takes[0]);
        let verdict = verdicts.map(|verdicts| &verdicts[0]);
        // Nobody was denied for it: where nothing is enforced, it is the first of its request's takes.
        let shadows = take.shadow && matches!(verdict, Ok(Verdict::Denied(_)));
        let mut attributes = vec![
            KeyValue::new("sluice.domain", request.domain.to_string()),
            KeyValue::new("sluice.policies", names(take.buckets.iter().map(|bucket| &*bucket.policy))),
            KeyValue::new("sluice.outcome", if shadows { "shadow_denied" } else { outcome(verdict) }),
            KeyValue::new("sluice.batch.takes", number(request.takes.len() as u64)),
            KeyValue::new("sluice.store", self.spans.store),
        ];
        if let Ok(Verdict::Denied(buckets)) = verdict {
            attributes.push(KeyValue::new("sluice.denied_by", names(denied_by(take, buckets))));
            if let Some(retry_after_us) = buckets.iter().filter_map(|bucket| bucket.retry_after_us).max() {
                attributes.push(KeyValue::new("sluice.retry_after_us", number(retry_after_us)));
            }
        }
        let repeats = take.buckets.iter().map(|bucket| bucket.repeats).max().unwrap_or(0);
        if repeats > 0 {
            attributes.push(KeyValue::new("sluice.repeats", number(repeats)));
        }
        let in_shadow: Vec<&str> = takes
            .iter()
            .zip(verdicts.unwrap_or_default())
            .skip(1)
            .take_while(|(take, _)| take.follows)
            .filter_map(|(take, verdict)| match verdict {
                Verdict::Denied(buckets) => Some(denied_by(take, buckets)),
                _ => None,
            })
            .flatten()
            .collect();
        if !in_shadow.is_empty() {
            attributes.push(KeyValue::new("sluice.shadow_denied_by", names(in_shadow.into_iter())));
        }
        let builder = SpanBuilder::from_name("sluice.take")
            .with_kind(SpanKind::Server)
            .with_start_time(self.arrived)
            .with_attributes(attributes);
        let mut span = tracer.build_with_context(builder, parent);
        let within = Context::new().with_remote_span_context(span.span_context().clone());
        let builder = SpanBuilder::from_name("sluice.store")
            .with_kind(if self.spans.store == "memory" { SpanKind::Internal } else { SpanKind::Client })
            .with_start_time(self.asked)
            .with_attributes([KeyValue::new("sluice.store", self.spans.store)]);
        let mut asking = tracer.build_with_context(builder, &within);
        // A denial is what was asked for, and no error.
        if matches!(verdict, Err(_) | Ok(Verdict::Failed(_))) {
            let failed = Status::error(outcome(verdict));
            asking.set_status(failed.clone());
            span.set_status(failed);
        }
        asking.end_with_timestamp(answered);
        span.end_with_timestamp(answered);
    }
}

/// What became of a take, in the words of the contract.
fn outcome(verdict: Result<&Verdict, Undecided>) -> &'static str {
    use contract::FailureReason::{StoreFull, StoreUnavailable};
    match verdict {
        Err(Undecided::Overloaded) => "overloaded",
        Err(Undecided::GivenUp) => "given_up",
        Ok(Verdict::Allowed(_)) => "allowed",
        Ok(Verdict::Denied(_)) => "denied",
        Ok(Verdict::Leased { .. }) => "leased",
        Ok(Verdict::Failed(StoreFull)) => "store_full",
        Ok(Verdict::Failed(StoreUnavailable)) => "store_unavailable",
    }
}

fn denied_by<'a>(take: &'a Take, buckets: &'a [BucketVerdict]) -> impl Iterator<Item = &'a str> {
    let both = take.buckets.iter().zip(buckets);
    both.filter(|(_, verdict)| verdict.outcome != Outcome::Allowed).map(|(bucket, _)| &*bucket.policy)
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    Value::Array(Array::String(names.map(|name| StringValue::from(name.to_owned())).collect()))
}

/// What counts is below 2^53.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A `traceparent` as the only header of a request.
struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}
