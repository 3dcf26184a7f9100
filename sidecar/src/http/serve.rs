//! Accepting connections, and ending without losing a request.

use std::{error::Error, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulConnection, GracefulShutdown},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinSet,
};
use tracing::{debug, info, warn};

use super::{Listener, Service, listen::Connection, router};

/// How long a connection may stay silent, within its headers or between requests. Envoy closes its own idle
/// connections well before, so that no request meets a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The most bytes of one request's headers. The filter sends a few hundred.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The pause after a failed accept, such as for want of file descriptors, that some may be freed meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Changes once, when the end begins.
type Stopping = watch::Receiver<()>;

/// Serves `service` on `listeners` until `shutdown`, then lets requests under way finish for up to `grace`.
/// Whether all of them did.
pub async fn serve(
    listeners: Vec<Listener>,
    service: Arc<Service>,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) -> bool {
    let graceful = GracefulShutdown::new();
    // Its own tasks end with it, and with the listeners their ports and socket files.
    let mut accepting = JoinSet::new();
    // A place for each listener, which it holds while it waits for a connection.
    let (accepted, mut connections) = tokio::sync::mpsc::channel(listeners.len().max(1));
    for listener in listeners {
        let accepted = accepted.clone();
        accepting.spawn(async move {
            // A place is taken before a connection is accepted, so that none is lost between.
            while let Ok(place) = accepted.reserve().await {
                place.send(accept(&listener).await);
            }
        });
    }
    let router = router(Arc::clone(&service));
    let (stop, stopping) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(connection) = connections.recv() => spawn(connection, router.clone(), &graceful, stopping.clone()),
        }
    }
    service.stop();
    accepting.shutdown().await;
    // What was accepted already and not yet served holds a client's request.
    connections.close();
    while let Some(connection) = connections.recv().await {
        spawn(connection, router.clone(), &graceful, stopping.clone());
    }
    stop.send_replace(());
    info!(grace = ?grace, "stopping: requests under way may finish");
    tokio::time::timeout(grace, graceful.shutdown()).await.is_ok()
}

/// The next connection; a failure is logged where it begins and not while it lasts.
async fn accept(listener: &Listener) -> Connection {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok(connection) => return connection,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(listen = listener.address(), %error, "cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection in a task of its own.
fn spawn(connection: Connection, router: Router, graceful: &GracefulShutdown, stopping: Stopping) {
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        if is_silent(&connection, stopping).await {
            return;
        }
        let outcome = match connection {
            Connection::Tcp(stream) => watcher.watch(http(stream, router)).await,
            Connection::Unix(stream) => watcher.watch(http(stream, router)).await,
        };
        // A client that hangs up in the middle is its own business.
        if let Err(error) = outcome {
            debug!(%error, "a connection ended early");
        }
    });
}

/// Whether nothing was sent before the idle timeout or the end. HTTP's own timeout begins with the first byte,
/// which tells HTTP/1.1 from HTTP/2.
async fn is_silent(connection: &Connection, mut stopping: Stopping) -> bool {
    tokio::select! {
        biased;
        readable = connection.readable() => readable.is_err(),
        () = tokio::time::sleep(IDLE_TIMEOUT) => true,
        _ = stopping.changed() => true,
    }
}

/// HTTP/1.1, or HTTP/2 where the client begins with it.
fn http<S>(stream: S, router: Router) -> impl GracefulConnection<Error = Box<dyn Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(IDLE_TIMEOUT)
        .max_header_list_size(MAX_HEADER_BYTES as u32);
    builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned()
}
