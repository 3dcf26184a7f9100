//! Ports that nobody listens on.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, TcpListener},
    sync::Mutex,
    time::SystemTime,
};

use crate::{Error, Result};

/// Ports given out by this process, so that two children which start at once never get the same one.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

const LOWEST: u16 = 16_000;
const TRIES: u32 = 1_000;

/// A port of 127.0.0.1 that nobody listens on.
///
/// It lies below the range from which the kernel takes the ports of outgoing connections. Otherwise such a
/// connection could have the port by the time a child wants it, and a client that knocks at a child which is
/// just restarting could even be connected to itself.
pub fn free_port() -> Result<u16> {
    free_port_and(&[])
}

/// A port of 127.0.0.1 that nobody listens on, and neither on those that lie so much above it.
pub(crate) fn free_port_and(above: &[u16]) -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let highest = first_outgoing_port().saturating_sub(above.iter().copied().max().unwrap_or(0));
    let span = u64::from(highest.saturating_sub(LOWEST).max(1));
    let mut seed = now_ns() ^ u64::from(std::process::id()) << 32;
    for _ in 0..TRIES {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let port = LOWEST + u16::try_from((seed >> 33) % span).unwrap_or_default();
        let ports = || std::iter::once(0).chain(above.iter().copied()).map(|above| port + above);
        if ports().all(|port| is_free(port) && !given.contains(&port)) {
            given.extend(ports());
            return Ok(port);
        }
    }
    Err(Error::Late {
        what: format!("a free port between {LOWEST} and {}", LOWEST as u64 + span),
        waited: Default::default(),
    })
}

/// Whether nobody listens on a port, at any address of this machine. Envoys may share a port without noticing
/// (`SO_REUSEPORT`), so this has to be asked before one is started.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

fn first_outgoing_port() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) | since.as_secs() << 30
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_never_given_twice() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);

        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_free(taken.local_addr().unwrap().port()));
    }
}
