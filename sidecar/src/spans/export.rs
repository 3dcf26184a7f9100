//! From a span that has ended to the receiver: a queue, and a task that hands on what is in it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
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

/// The most that are handed on at once.
const BATCH: usize = 512;

/// How long the first of a batch waits for others.
const GATHERING: Duration = Duration::from_secs(1);

/// What became of spans since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct SpanCounts {
    /// Taken by the receiver.
    pub exported: u64,
    /// Lost, because it did not take them, or not as fast as they came.
    pub lost: u64,
}

/// Spans on their way.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    told: Arc<Told>,
    task: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
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
        Arc::new(Self { spans, told, task: Mutex::new(Some((end, task))) })
    }

    /// Whether there is no room for a take's two spans.
    pub(super) fn is_full(&self) -> bool {
        self.spans.capacity() < 2
    }

    pub(super) fn lose(&self, spans: u64) {
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
