//! Something at the sidecar's address that does not behave like one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// A listener that answers every connection's first request with fixed bytes, and closes.
#[derive(Debug)]
pub struct Impostor {
    addr: SocketAddr,
}

impl Impostor {
    /// Answers with `bytes`. The thread ends with the process.
    ///
    /// # Panics
    /// Where no port is to be had.
    #[must_use]
    pub fn answering(bytes: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(stream, bytes));
            }
        });
        Self { addr }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn answer(mut stream: TcpStream, bytes: &[u8]) {
    let mut request = [0; 65_536];
    // Whether the rest of the request comes does not matter: the answer is the same, and then the end.
    if stream.read(&mut request).is_ok() {
        let _hung_up = stream.write_all(bytes);
    }
}
