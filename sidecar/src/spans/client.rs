//! HTTP to the receiver of spans: one connection, kept for the next batch.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex as Held, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use axum::http::{HeaderValue, Uri, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use prost::Message;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    sync::Mutex,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// How long a batch may take, a new connection included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The answer says how many spans were refused, and why.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// As much of that as is logged.
const MAX_REASON_CHARS: usize = 300;

/// What became of the last batch, as far as the library keeps it to itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsaid(Arc<Held<Heard>>);

#[derive(Debug, Default)]
pub(super) struct Heard {
    /// How many spans of it were rejected, though it was taken.
    pub(super) rejected: u64,
    /// Why.
    pub(super) reason: Option<String>,
}

impl Unsaid {
    pub(super) fn take(&self) -> Heard {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, heard: Heard) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }
}

impl Heard {
    /// That it did not arrive, with all that it came of.
    fn failure(error: &HttpError) -> Self {
        let mut told = error.to_string();
        let mut of = error.source();
        while let Some(source) = of {
            told = format!("{told}: {source}");
            of = source.source();
        }
        Self { rejected: 0, reason: Some(told) }
    }

    /// What is said of a batch that was taken; nothing where that is of no form that is known.
    fn answer(answer: &Response<Bytes>) -> Self {
        let taken = Some(answer.body().clone()).filter(|_| answer.status().is_success());
        let said = taken.and_then(|body| Taken::decode(body).ok()).and_then(|taken| taken.partially);
        let Some(Partially { rejected_spans, error_message }) = said else { return Self::default() };
        let reason: String = error_message.chars().take(MAX_REASON_CHARS).collect();
        Self {
            rejected: u64::try_from(rejected_spans).unwrap_or(0),
            reason: Some(reason).filter(|reason| !reason.is_empty()),
        }
    }
}

/// `ExportTraceServiceResponse` of OTLP.
#[derive(Message)]
struct Taken {
    #[prost(message, optional, tag = "1")]
    partially: Option<Partially>,
}

#[derive(Message)]
struct Partially {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// The receiver's place, and the connection to it.
pub(super) struct Client {
    host: String,
    port: u16,
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
    looking: Mutex<Option<JoinHandle<io::Result<Vec<SocketAddr>>>>>,
    unsaid: Unsaid,
}

impl Client {
    /// Nothing where the URL has no host.
    pub(super) fn to(url: &Uri, tls: Option<Arc<rustls::ClientConfig>>) -> Option<Self> {
        let host = url.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match tls {
            Some(config) => Some((TlsConnector::from(config), ServerName::try_from(host.clone()).ok()?)),
            None => None,
        };
        let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let authority = HeaderValue::from_str(url.authority()?.as_str()).ok()?;
        Some(Self {
            host,
            port,
            authority,
            tls,
            kept: Mutex::new(None),
            looking: Mutex::new(None),
            unsaid: Unsaid::default(),
        })
    }

    pub(super) fn unsaid(&self) -> Unsaid {
        self.unsaid.clone()
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        // HTTP/1.1 names the host apart from the path.
        head.uri = head.uri.path_and_query().map_or_else(|| "/".parse(), |path| path.as_str().parse())?;
        head.headers.insert(HOST, self.authority.clone());
        let mut kept = self.kept.lock().await;
        let mut sender = match kept.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        sender.ready().await?;
        let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
        *kept = Some(sender);
        Ok(Response::from_parts(head, body))
    }

    /// A look-up holds a thread until it ends, so one that outlasts its batch is that of the next, too.
    async fn look_up(&self) -> Result<Vec<SocketAddr>, HttpError> {
        let mut looking = self.looking.lock().await;
        let task = looking.get_or_insert_with(|| {
            let (host, port) = (self.host.clone(), self.port);
            tokio::spawn(async move { Ok(lookup_host((host, port)).await?.collect()) })
        });
        let found = task.await;
        *looking = None;
        Ok(found??)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let stream = TcpStream::connect(&self.look_up().await?[..]).await?;
        match &self.tls {
            None => shake_hands(stream).await,
            Some((tls, name)) => shake_hands(tls.connect(name.clone(), stream).await?).await,
        }
    }
}

async fn shake_hands<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Its end is seen by whoever sends next.
    tokio::spawn(connection);
    Ok(sender)
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let outcome = match timeout(TIMEOUT, self.send(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {TIMEOUT:?}").into()),
        };
        // Of this batch, whatever was said of an earlier one.
        self.unsaid.set(outcome.as_ref().map_or_else(Heard::failure, Heard::answer));
        outcome
    }
}

/// The host alone: nothing else could be of use to whoever reads it.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("host", &self.host).finish_non_exhaustive()
    }
}
