//! One direction of one connection: bytes are read as they come, and written as the wire's state says.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{Flow, Shared, reset};

/// What may be read ahead of what is written: then who writes is slowed, as by a real wire.
const AHEAD: usize = 256;

/// The longest that a thread waits before it looks whether the wire has changed.
const LOOK: Duration = Duration::from_millis(20);

/// Where bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    There,
    Back,
}

/// What was read, and when. Nothing where the connection's end was read.
type Piece = (Instant, Vec<u8>);

/// Carries the bytes of one direction to their end. `lost` tells that the connection has lost bytes.
pub(super) fn carry(shared: &Shared, from: &TcpStream, to: &TcpStream, way: Way, lost: &AtomicBool) {
    thread::scope(|scope| {
        let (pieces, waiting) = mpsc::sync_channel(AHEAD);
        scope.spawn(move || read(from, &pieces));
        let mut writer = Writer { shared, from, to, way, lost, epoch: 0, since: 0 };
        while let Ok((at, bytes)) = waiting.recv() {
            if !writer.write(at, &bytes) {
                break;
            }
        }
        // Whoever reads for us must find nobody to give it to.
        drop(waiting);
        if shared.is_ended() {
            reset(from);
        }
    });
}

/// Reads until the end of the connection, or until nobody takes the pieces.
fn read(mut from: &TcpStream, pieces: &mpsc::SyncSender<Piece>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // A reset ends it like an end: what the other side is told is up to the wire.
            Err(_) => 0,
        };
        if pieces.send((Instant::now(), buffer[..count].to_vec())).is_err() || count == 0 {
            return;
        }
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    from: &'a TcpStream,
    to: &'a TcpStream,
    way: Way,
    lost: &'a AtomicBool,
    epoch: u64,
    /// Bytes that were written since the wire was told what becomes of them.
    since: u64,
}

impl Writer<'_> {
    /// Writes a piece when it is time; false where the connection is over.
    fn write(&mut self, at: Instant, bytes: &[u8]) -> bool {
        let Some(flow) = self.await_flow(at) else { return false };
        if flow == Flow::Lost || self.lost.load(Ordering::SeqCst) {
            self.lost.store(true, Ordering::SeqCst);
            return !bytes.is_empty() || self.await_end();
        }
        if bytes.is_empty() {
            // It fails where the other side has ended already.
            let _ended = self.to.shutdown(Shutdown::Write);
            return false;
        }
        match flow {
            Flow::Narrow { bytes_per_s } => {
                for part in bytes.chunks(1_024) {
                    thread::sleep(Duration::from_micros(part.len() as u64 * 1_000_000 / bytes_per_s.max(1)));
                    if !self.put(part) {
                        return false;
                    }
                }
                true
            }
            Flow::BrokenOff { after_bytes } if self.way == Way::Back => {
                let room = usize::try_from(after_bytes.saturating_sub(self.since)).unwrap_or(usize::MAX);
                let put = self.put(&bytes[..room.min(bytes.len())]);
                if bytes.len() <= room {
                    return put;
                }
                for end in [self.to, self.from] {
                    // It fails where that side has ended already.
                    let _ended = end.shutdown(Shutdown::Both);
                }
                false
            }
            _ => self.put(bytes),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> bool {
        let mut to = self.to;
        let put = to.write_all(bytes).is_ok();
        if put {
            self.since += bytes.len() as u64;
            self.shared.carried.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        }
        put
    }

    /// Waits until what was read at `at` may be written, or is lost; nothing where the wire has ended.
    fn await_flow(&mut self, at: Instant) -> Option<Flow> {
        let mut state = self.shared.lock();
        loop {
            if self.shared.is_ended() {
                return None;
            }
            if self.epoch != state.epoch {
                (self.epoch, self.since) = (state.epoch, 0);
            }
            let wait = match (state.flow, self.way) {
                (Flow::Silent, _) => LOOK,
                (Flow::Late { there, .. }, Way::There) => there.saturating_sub(at.elapsed()),
                (Flow::Late { back, .. }, Way::Back) => back.saturating_sub(at.elapsed()),
                _ => Duration::ZERO,
            };
            if wait.is_zero() {
                return Some(state.flow);
            }
            let waited = self.shared.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The end of a connection that is lost reaches nobody: it stays until the wire ends. False, since it is over then.
    fn await_end(&self) -> bool {
        let mut state = self.shared.lock();
        while !self.shared.is_ended() {
            let waited = self.shared.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            // Who is reset, or has hung up on both sides, has ended as well.
            if state.flow == Flow::Reset || self.to.peer_addr().is_err() {
                break;
            }
        }
        false
    }
}
