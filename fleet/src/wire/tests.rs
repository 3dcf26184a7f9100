//! Each flow, between a client and the echo upstream, which returns plain bytes as they come.

use std::{
    io::{self, ErrorKind, Read, Write},
    time::Instant,
};

use super::*;
use crate::{EchoUpstream, eventually};

const BOUND: Duration = Duration::from_secs(10);
/// Long against what arrives at once; nothing is asserted to be quicker than that.
const SHORT: Duration = Duration::from_millis(200);

fn wired() -> (EchoUpstream, Wire) {
    let upstream = EchoUpstream::start().unwrap();
    let wire = Wire::start(upstream.addr()).unwrap();
    (upstream, wire)
}

fn connect(wire: &Wire) -> TcpStream {
    let stream = TcpStream::connect(wire.addr()).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

fn ping(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"ping")?;
    pong(stream)
}

fn pong(stream: &mut TcpStream) -> io::Result<()> {
    let mut back = [0; 4];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"ping");
    Ok(())
}

/// Asserts that nothing comes, for a while.
fn assert_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(Some(BOUND)).unwrap();
}

#[test]
fn passes_and_ends_with_who_ends() {
    let (_upstream, wire) = wired();
    let mut stream = connect(&wire);
    ping(&mut stream).unwrap();
    assert_eq!((wire.connections(), wire.carried_bytes()), (1, 8));
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    eventually(BOUND, "it is over", || (wire.connections() == 0).then_some(())).unwrap();
}

#[test]
fn late_bytes_are_late_in_their_direction_and_do_not_wait_for_each_other() {
    let (_upstream, wire) = wired();
    let mut stream = connect(&wire);
    for (there, back) in [(SHORT, Duration::ZERO), (Duration::ZERO, SHORT)] {
        wire.set(Flow::Late { there, back });
        let start = Instant::now();
        for _ in 0..10 {
            stream.write_all(b"ping").unwrap();
            std::thread::yield_now();
        }
        (0..10).for_each(|_| pong(&mut stream).unwrap());
        assert!(start.elapsed() >= SHORT);
        assert!(start.elapsed() < SHORT * 9, "one after the other: {:?}", start.elapsed());
    }
}

#[test]
fn a_narrow_wire_takes_its_time() {
    let (_upstream, wire) = wired();
    wire.set(Flow::Narrow { bytes_per_s: 40_000 });
    let mut stream = connect(&wire);
    let start = Instant::now();
    stream.write_all(&[b'x'; 8_000]).unwrap();
    stream.read_exact(&mut [0; 8_000]).unwrap();
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
}

#[test]
fn what_is_silent_arrives_when_the_wire_is_better() {
    let (_upstream, wire) = wired();
    let (mut old, silent) = (connect(&wire), Flow::Silent);
    ping(&mut old).unwrap();
    wire.set(silent);
    let mut new = connect(&wire);
    for stream in [&mut old, &mut new] {
        stream.write_all(b"ping").unwrap();
        assert_silent(stream);
    }
    wire.set(Flow::Passed);
    for mut stream in [old, new] {
        pong(&mut stream).unwrap();
        ping(&mut stream).unwrap();
    }
}

#[test]
fn what_is_lost_never_arrives_and_neither_does_the_end() {
    let (_upstream, wire) = wired();
    let (mut talking, mut quiet) = (connect(&wire), connect(&wire));
    ping(&mut talking).unwrap();
    ping(&mut quiet).unwrap();
    wire.set(Flow::Lost);
    talking.write_all(b"ping").unwrap();
    assert_silent(&mut talking);
    wire.set(Flow::Passed);
    talking.write_all(b"ping").unwrap();
    assert_silent(&mut talking);
    ping(&mut quiet).unwrap();
    ping(&mut connect(&wire)).unwrap();
}

#[test]
fn connections_are_reset() {
    let (_upstream, wire) = wired();
    let mut stream = connect(&wire);
    ping(&mut stream).unwrap();
    wire.reset();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    ping(&mut connect(&wire)).unwrap();
    wire.set(Flow::Reset);
    assert!(ping(&mut connect(&wire)).is_err());
    wire.set(Flow::Passed);
    ping(&mut connect(&wire)).unwrap();
    eventually(BOUND, "they are forgotten", || (wire.connections() == 0).then_some(())).unwrap();
}

#[test]
fn an_answer_breaks_off_after_so_many_bytes() {
    let (_upstream, wire) = wired();
    let mut stream = connect(&wire);
    ping(&mut stream).unwrap();
    wire.set(Flow::BrokenOff { after_bytes: 6 });
    ping(&mut stream).unwrap();
    stream.write_all(b"ping").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"pi");
}
