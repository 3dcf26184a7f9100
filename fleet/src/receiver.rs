//! A receiver of spans, by OTLP over HTTP: it keeps what it is sent, or refuses it.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
};
use prost::Message;

use crate::{
    Result,
    head::Head,
    listening::{self, Serving},
};

/// A span as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedSpan {
    /// In hexadecimal, as all ids here.
    pub trace_id: String,
    /// Its own.
    pub span_id: String,
    /// That of the span within which it is.
    pub parent_id: String,
    /// What it is of.
    pub name: String,
    /// What is said of it, those of its resource among them: lists with commas between.
    pub attributes: BTreeMap<String, String>,
    /// What went wrong, where something did.
    pub error: Option<String>,
    /// When it began and ended, in nanoseconds since 1970.
    pub times_ns: [u64; 2],
}

/// A server in threads of this process, ended when this is dropped.
#[derive(Debug)]
pub struct SpanReceiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    spans: Mutex<Vec<ReceivedSpan>>,
    requests: AtomicU64,
    refuses: AtomicBool,
    rejects: AtomicBool,
    ended: AtomicBool,
}

impl SpanReceiver {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        Ok(Self { addr: listening::start("the receiver of spans", &shared)?, shared })
    }

    /// What sidecars are to be told: `http://IP:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.shared.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests have reached it.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Answers 503 to all that comes from now on, or takes it again.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Takes what comes from now on and says that it has rejected one of its spans, or takes all again.
    pub fn reject_one(&self, rejects: bool) {
        self.shared.rejects.store(rejects, Ordering::SeqCst);
    }

    /// Answers what comes over a connection of another kind, such as one by TLS, to its end.
    pub fn answer(&self, stream: impl Read + Write) -> io::Result<()> {
        self.shared.answer(stream)
    }
}

impl Shared {
    fn answer(&self, stream: impl Read + Write) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(head) = Head::read(&mut stream)? {
            let mut body = Vec::new();
            head.copy_body(&mut stream, &mut body)?;
            self.requests.fetch_add(1, Ordering::SeqCst);
            let status = match (self.refuses.load(Ordering::SeqCst), self.take(&head, &body)) {
                (true, _) => "503 Service Unavailable",
                (false, true) => "200 OK",
                (false, false) => "400 Bad Request",
            };
            let partially =
                ExportTracePartialSuccess { rejected_spans: 1, error_message: "too old".to_owned() };
            let rejects = status == "200 OK" && self.rejects.load(Ordering::SeqCst);
            let said =
                ExportTraceServiceResponse { partial_success: rejects.then_some(partially) }.encode_to_vec();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", said.len());
            stream.get_mut().write_all(&[answer.as_bytes(), &said].concat())?;
            stream.get_mut().flush()?;
        }
        Ok(())
    }

    /// Whether it is what a receiver takes.
    fn take(&self, head: &Head, body: &[u8]) -> bool {
        let is_otlp = head.method == "POST"
            && head.target == "/v1/traces"
            && head.get("content-type") == Some("application/x-protobuf");
        let Some(request) = ExportTraceServiceRequest::decode(body).ok().filter(|_| is_otlp) else {
            return false;
        };
        if self.refuses.load(Ordering::SeqCst) {
            return true;
        }
        let mut kept = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let status = span.status.unwrap_or_default();
                kept.push(ReceivedSpan {
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent_id: hex(&span.parent_span_id),
                    name: span.name,
                    attributes: resource.iter().chain(&span.attributes).map(attribute).collect(),
                    error: (status.code == 2).then_some(status.message),
                    times_ns: [span.start_time_unix_nano, span.end_time_unix_nano],
                });
            }
        }
        true
    }
}

impl Serving for Shared {
    fn ended(&self) -> &AtomicBool {
        &self.ended
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        self.answer(stream)
    }
}

impl Drop for SpanReceiver {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        listening::wake(self.addr);
    }
}

fn attribute(pair: &KeyValue) -> (String, String) {
    (pair.key.clone(), pair.value.as_ref().map(text).unwrap_or_default())
}

fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(text).collect::<Vec<_>>().join(","),
        other => format!("{other:?}"),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
