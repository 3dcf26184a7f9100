//! Accepting connections, and leaving without losing a request.
//!
//! An end has two stages. First the sidecar is *leaving*: `/readyz` answers 503, so that Envoys' health checks take it
//! out, and requests are decided as before. Then it is *ending*: nothing new is accepted, and what is under way finishes.

use std::{sync::Arc, time::Duration};

use axum::Router;
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use super::{
    Listener, Service,
    connection::{self, Serving},
    listen::Connection,
    progress::{ADMIN_IDLE_TIMEOUT, IDLE_TIMEOUT},
    room::Room,
    tls::Acceptor,
};

/// The pause after a failed accept, such as for want of file descriptors, that some may be freed meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not begun.
    Serving,
    /// Others are to be asked from now on.
    Leaving,
    /// What is under way may finish.
    Ending,
}

/// A listener, and what is behind it.
pub struct Door {
    /// Where connections come from.
    pub listener: Listener,
    /// What answers them.
    pub router: Router,
    /// What they are encrypted with; a Unix socket's never are.
    pub tls: Option<Acceptor>,
    /// How many there may be at a time.
    pub connections: Arc<Room>,
    /// Who asks there.
    pub clients: Clients,
}

/// Who asks at a door.
#[derive(Clone, Debug)]
pub enum Clients {
    /// Envoys, which keep their connections.
    Envoys,
    /// Operators, who do not; and how many more of them there may be that are on this machine, so that nobody elsewhere keeps
    /// `sluice health` out.
    Operators(Arc<Room>),
}

/// Serves `service` at `doors` until `shutdown`, and for as long after it as that says, while it tells everybody that it is
/// leaving. Then requests under way may finish for up to `grace`. Whether all of them did.
pub async fn serve(
    doors: Vec<Door>,
    service: Arc<Service>,
    shutdown: impl Future<Output = Duration>,
    grace: Duration,
) -> bool {
    let (stage, watched) = watch::channel(Stage::Serving);
    // Its tasks end with it, and with the listeners their ports and socket files.
    let mut accepting = JoinSet::new();
    for door in doors {
        let tls = door.tls.filter(|_| matches!(door.listener, Listener::Tcp(_)));
        let (router, bodies, stage) = (door.router, service.bodies(), watched.clone());
        let idle = match door.clients {
            Clients::Envoys => IDLE_TIMEOUT,
            Clients::Operators(_) => ADMIN_IDLE_TIMEOUT,
        };
        let serving = Serving { router, tls, bodies, stage, idle };
        accepting.spawn(async move {
            accept(&door.listener, &door.connections, &door.clients, &serving).await;
        });
    }
    drop(watched);
    let delay = shutdown.await;
    service.stop();
    if !delay.is_zero() {
        info!(delay = ?delay, "leaving: /readyz answers 503, and requests are decided until Envoys have noticed");
        stage.send_replace(Stage::Leaving);
        tokio::time::sleep(delay).await;
    }
    accepting.shutdown().await;
    stage.send_replace(Stage::Ending);
    service.end_streams();
    info!(grace = ?grace, "stopping: requests under way may finish");
    // Each connection holds a receiver.
    tokio::time::timeout(grace, stage.closed()).await.is_ok()
}

/// Serves each connection in a task of its own, for ever. Between a connection's acceptance and its task there is no
/// await, so none is lost when this is dropped.
async fn accept(listener: &Listener, connections: &Arc<Room>, clients: &Clients, serving: &Serving) {
    let mut full = false;
    loop {
        let connection = next(listener).await;
        let kept = || match clients {
            Clients::Operators(local) if connection.is_local() => local.enter(1),
            _ => None,
        };
        match connections.enter(1).or_else(kept) {
            Some(place) => {
                full = false;
                tokio::spawn(connection::serve(connection, serving.clone(), place));
            }
            // It is closed at once: whoever waited would not know why. Told where it begins, and not while it lasts.
            None if !std::mem::replace(&mut full, true) => {
                let (listen, max) = (listener.address(), connections.max());
                let mend = match clients {
                    Clients::Envoys => "allow more by --max-connections, or look who holds them",
                    Clients::Operators(_) => "look who holds them",
                };
                warn!(listen, max, "no more connections are accepted: {mend}");
            }
            None => {}
        }
    }
}

/// The next connection; a failure is logged where it begins and not while it lasts.
async fn next(listener: &Listener) -> Connection {
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
