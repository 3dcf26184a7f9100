//! A server in threads of this process: one accepts, and one serves each connection.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{Error, Result};

/// What the connections of a server share.
pub trait Serving: Send + Sync + 'static {
    /// Whether the server has ended: set before it is [woken](wake).
    fn ended(&self) -> &AtomicBool;
    /// Serves one connection to its end.
    fn serve(&self, stream: &TcpStream) -> io::Result<()>;
}

/// Listens on a free port of 127.0.0.1 until it has ended and is woken; `name` tells in an error what for.
pub fn start(name: &str, shared: &Arc<impl Serving>) -> Result<SocketAddr> {
    let what = || Error::io(format!("listen for {name} on 127.0.0.1"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(what())?;
    let addr = listener.local_addr().map_err(what())?;
    let ours = Arc::clone(shared);
    thread::spawn(move || accept(&listener, &ours));
    Ok(addr)
}

/// Wakes the thread that accepts; where nobody accepts any more, nobody needs to be woken.
pub fn wake(addr: SocketAddr) {
    let _ = TcpStream::connect_timeout(&addr, Duration::from_secs(1));
}

fn accept(listener: &TcpListener, shared: &Arc<impl Serving>) {
    for stream in listener.incoming() {
        if shared.ended().load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A connection that breaks is the other side's affair, and often what a test is about.
        thread::spawn(move || stream.set_nodelay(true).and_then(|()| shared.serve(&stream)).ok());
    }
}
