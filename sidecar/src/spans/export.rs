//! From a span that has ended to the receiver: a queue, and a task that hands on what is in it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{info, warn};

use super::client::{Heard, Unsaid};

/// The most spans that wait: some two megabytes.
const QUEUED: usize = 2_048;

/// The most that are told of in one second. Which takes are sampled any client may say, and each costs the thread that decides.
const PER_SECOND: u64 = 1_000;

/// A take's, and that of its store.
pub(super) const PER_TAKE: u64 = 2;

/// The most that are handed on at once.
const BATCH: usize = 512;

/// How long the first of a batch waits for others.
const GATHERING: Duration = Duration::from_secs(1);

/// What became of spans since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct SpanCounts {
    /// Taken by the receiver.
    pub exported: u64,
    /// Lost, because it did not take them, or not as fast as they came, or since there were more than 1,000 in a second.
    pub lost: u64,
}

/// Spans on their way.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    told: Arc<Told>,
    second: Mutex<Second>,
    task: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

/// How many were told of in the second that is under way.
#[derive(Debug, Default)]
struct Second {
    since_1970_s: u64,
    spans: u64,
}

#[derive(Debug, Default)]
struct Told {
    exported: AtomicU64,
    lost: AtomicU64,
}

impl Queue {
    pub(super) fn start(exporter: SpanExporter, unsaid: Unsaid) -> Arc<Self> {
        let (spans, queued) = mpsc::channel(QUEUED);
        let (end, ending) = oneshot::channel();
        let told = Arc::new(Told::default());
        let task = tokio::spawn(hand_on(queued, ending, (exporter, unsaid), Arc::clone(&told)));
        Arc::new(Self { spans, told, second: Mutex::default(), task: Mutex::new(Some((end, task))) })
    }

    /// Whether a take's spans may be told of now; where not, they are lost.
    pub(super) fn admits(&self, now: SystemTime) -> bool {
        let has_room = self.spans.capacity() as u64 >= PER_TAKE && {
            let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.second.lock().unwrap_or_else(PoisonError::into_inner).admits(now_s)
        };
        if !has_room {
            self.lose(PER_TAKE);
        }
        has_room
    }

    fn lose(&self, spans: u64) {
        self.told.lost.fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> SpanCounts {
        let Told { exported, lost } = &*self.told;
        SpanCounts { exported: exported.load(Ordering::Relaxed), lost: lost.load(Ordering::Relaxed) }
    }

    pub(super) async fn flush(&self, bound: Duration) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((end, task)) = task else { return };
        let _ = end.send(());
        if tokio::time::timeout(bound, task).await.is_err() {
            warn!("stopped before all spans were handed on");
        }
    }
}

impl Second {
    fn admits(&mut self, now_s: u64) -> bool {
        if self.since_1970_s != now_s {
            *self = Self { since_1970_s: now_s, spans: 0 };
        }
        let admits = self.spans + PER_TAKE <= PER_SECOND;
        self.spans += if admits { PER_TAKE } else { 0 };
        admits
    }
}

async fn hand_on(
    mut queued: mpsc::Receiver<SpanData>,
    mut ending: oneshot::Receiver<()>,
    (exporter, unsaid): (SpanExporter, Unsaid),
    told: Arc<Told>,
) {
    let mut refused = false;
    let mut ended = false;
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            count = queued.recv_many(&mut batch, BATCH) => if count == 0 { return },
            _ = &mut ending, if !ended => {
                ended = true;
                queued.close();
                continue;
            }
        }
        let until = tokio::time::sleep(GATHERING);
        tokio::pin!(until);
        while batch.len() < BATCH && !ended {
            let room = BATCH - batch.len();
            tokio::select! {
                count = queued.recv_many(&mut batch, room) => if count == 0 { break },
                () = &mut until => break,
                _ = &mut ending => {
                    ended = true;
                    queued.close();
                }
            }
        }
        let count = batch.len() as u64;
        let outcome = exporter.export(batch).await;
        let Heard { rejected, reason } = unsaid.take();
        let lost = if outcome.is_ok() { rejected.min(count) } else { count };
        told.exported.fetch_add(count - lost, Ordering::Relaxed);
        told.lost.fetch_add(lost, Ordering::Relaxed);
        if lost == 0 {
            if std::mem::take(&mut refused) {
                info!("the receiver of spans takes them again");
            }
        } else if !std::mem::replace(&mut refused, true) {
            // Once, and not with each batch.
            let otherwise = || match outcome {
                Ok(()) => format!("it rejects {lost} of {count}, and does not say why"),
                Err(error) => error.to_string(),
            };
            let reason = reason.unwrap_or_else(otherwise);
            warn!(reason, "spans are lost until their receiver takes them; takes are decided as before");
        }
    }
}

/// What the tracer does with a span.
#[derive(Debug)]
pub(super) struct Entrance(pub(super) Arc<Queue>);

impl SpanProcessor for Entrance {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.spans.try_send(span).is_err() {
            self.0.lose(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// [`Queue::flush`] does that, which waits for the task as the task's own thread cannot.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
