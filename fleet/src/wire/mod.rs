//! A wire between two programs that goes bad when a test wants: late, narrow, silent, cut, or broken off.
//!
//! Bytes go through threads of this process, in order and unread. What becomes of them is told for all
//! connections at once, at run time.

mod pump;

use std::{
    fmt, io,
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    Result,
    listening::{self, Serving},
};

/// What becomes of the bytes on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They arrive.
    #[default]
    Passed,
    /// They arrive later: those of who connected by `there`, those that come back by `back`. Nothing is slower,
    /// all is later.
    Late {
        /// On the way to the program behind the wire.
        there: Duration,
        /// On the way back.
        back: Duration,
    },
    /// So many arrive in a second, in each direction of each connection.
    Narrow {
        /// How many.
        bytes_per_s: u64,
    },
    /// None arrive, nor does the end of a connection, until the wire is better: then those that waited arrive, as
    /// packets do that were lost and are sent again.
    Silent,
    /// None arrive, ever: a connection that has lost one stays silent, as behind a firewall that forgot it.
    Lost,
    /// Connections are reset, those that there are and those that come.
    Reset,
    /// Of what comes back on a connection from now on, so many bytes arrive; then the connection ends.
    BrokenOff {
        /// How many.
        after_bytes: u64,
    },
}

/// A server in threads of this process, ended with all its connections when this is dropped.
pub struct Wire {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
    carried: AtomicU64,
}

#[derive(Default)]
struct State {
    flow: Flow,
    /// How often it was told what becomes of bytes, so that what counts from then on begins anew.
    epoch: u64,
    /// Both ends of each connection, by a number of its own.
    ends: Vec<(u64, [TcpStream; 2])>,
    connections: u64,
}

impl Wire {
    /// Listens on a free port of 127.0.0.1, and connects to `to` for each who connects.
    pub fn start(to: SocketAddr) -> Result<Self> {
        let shared = Arc::new(Shared {
            to,
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
            carried: AtomicU64::new(0),
        });
        let addr = listening::start("a wire", &shared)?;
        Ok(Self { addr, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on this becomes of all bytes.
    pub fn set(&self, flow: Flow) {
        let mut state = self.shared.lock();
        state.flow = flow;
        state.epoch += 1;
        if flow == Flow::Reset {
            state.ends.iter().flat_map(|(_, ends)| ends).for_each(reset);
        }
        self.shared.changed.notify_all();
    }

    /// Resets the connections that there are; others may come.
    pub fn reset(&self) {
        self.shared.lock().ends.iter().flat_map(|(_, ends)| ends).for_each(reset);
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lock().ends.len()
    }

    /// How many bytes have arrived so far, in either direction.
    #[must_use]
    pub fn carried_bytes(&self) -> u64 {
        self.shared.carried.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("addr", &self.addr).field("to", &self.shared.to).finish_non_exhaustive()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.reset();
        self.shared.changed.notify_all();
        listening::wake(self.addr);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Serving for Shared {
    fn ended(&self) -> &AtomicBool {
        &self.ended
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let behind = TcpStream::connect(self.to)?;
        behind.set_nodelay(true)?;
        let number = {
            let ends = [stream.try_clone()?, behind.try_clone()?];
            let mut state = self.lock();
            if state.flow == Flow::Reset || self.is_ended() {
                ends.iter().for_each(reset);
                return Ok(());
            }
            state.connections += 1;
            let number = state.connections;
            state.ends.push((number, ends));
            number
        };
        let lost = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| pump::carry(self, stream, &behind, pump::Way::There, &lost));
            pump::carry(self, &behind, stream, pump::Way::Back, &lost);
        });
        self.lock().ends.retain(|(other, _)| *other != number);
        Ok(())
    }
}

/// Ends a connection with a reset at once, whoever else holds it. One that has ended already is left.
fn reset(stream: &TcpStream) {
    // SAFETY: an all-zero `sockaddr` is valid, and is of the family AF_UNSPEC, which is 0.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).unwrap_or_default();
    // SAFETY: connect(2) reads the address during the call; AF_UNSPEC dissolves the connection, with a reset.
    unsafe { libc::connect(stream.as_raw_fd(), &raw const nowhere, length) };
}

#[cfg(test)]
mod tests;
