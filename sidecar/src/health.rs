//! `sluice health`: asks a running sidecar whether it can decide takes. For images, such as ours, that have
//! neither a shell nor curl.

use std::{
    io::{Error, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
    time::Duration,
};

use contract::MARKER_HEADER;

use crate::{
    config::{Asked, ListenAddress, reachable},
    http::tls,
};

/// Long enough for a busy machine, and shorter than what container engines wait for such a command.
const WITHIN: Duration = Duration::from_secs(2);
/// Far more than `/readyz` answers.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Why a sidecar is not known to be ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// It does not listen, or it does not answer in time.
    #[error("no answer: {0}")]
    NoAnswer(#[from] Error),
    /// Something else listens there.
    #[error("what answers there is no sluice: it sent no {MARKER_HEADER}")]
    NotSluice,
    /// It says itself that it cannot decide takes, and why.
    #[error("not ready: {0}")]
    NotReady(String),
    /// Only clients with a certificate are answered, and no operator.
    #[error(
        "with --tls-client-ca a Unix socket or the admin listener is asked: give --admin-listen an address"
    )]
    NobodyToAsk,
}

/// Asks `/readyz` of the sidecar that runs with this configuration, at the first listener that wants no client's certificate: all
/// are served by the same store. Where each does, the admin listener is asked. The wildcard address is reached by the loopback.
///
/// # Errors
///
/// Whatever is not a 200 of a sidecar within two seconds.
pub fn ask(asked: &Asked) -> Result<(), HealthError> {
    let (tell, told) = mpsc::channel();
    let asked = asked.clone();
    // Apart, since connecting to a Unix socket waits for as long as it likes, and an answer may come byte by byte.
    thread::spawn(move || tell.send(ask_in_time(&asked)));
    told.recv_timeout(WITHIN).unwrap_or_else(|_| Err(Error::other(format!("not within {WITHIN:?}")).into()))
}

fn ask_in_time(asked: &Asked) -> Result<(), HealthError> {
    let answers =
        |address: &&ListenAddress| !asked.wants_certificate || matches!(address, ListenAddress::Unix(_));
    let (address, encrypted) = match (asked.listen.iter().find(answers), &asked.admin) {
        (Some(address), _) => (address, asked.encrypted),
        (None, Some(admin)) => (admin, asked.encrypted && !admin.is_local()),
        (None, None) => return Err(HealthError::NobodyToAsk),
    };
    let answer = match address {
        ListenAddress::Tcp(address) => {
            let mut stream = TcpStream::connect_timeout(&reachable(*address), WITHIN)?;
            stream.set_read_timeout(Some(WITHIN))?;
            if encrypted {
                let mut client = tls::client_of_anybody().map_err(Error::other)?;
                exchange(rustls::Stream::new(&mut client, &mut stream))?
            } else {
                exchange(stream)?
            }
        }
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(WITHIN))?;
            exchange(stream)?
        }
    };
    verdict(&answer)
}

fn exchange(mut stream: impl Read + Write) -> Result<String, Error> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

fn verdict(answer: &str) -> Result<(), HealthError> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(HealthError::NotSluice)?;
    let is_marker =
        |line: &str| line.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case(MARKER_HEADER));
    if !head.lines().any(is_marker) {
        return Err(HealthError::NotSluice);
    }
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(HealthError::NotReady(body.trim().to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_200_of_a_sidecar_is_ready() {
        let ready = "HTTP/1.1 200 OK\r\nX-Sluice-Contract: 1\r\n\r\n{}";
        assert!(verdict(ready).is_ok());
        let stopping = "HTTP/1.1 503 Service Unavailable\r\nx-sluice-contract: 1\r\n\r\nstopping\n";
        assert_eq!(verdict(stopping).unwrap_err().to_string(), "not ready: stopping");
        for other in ["HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.1 200 OK", ""] {
            assert!(matches!(verdict(other), Err(HealthError::NotSluice)), "{other:?}");
        }
    }

    #[test]
    fn the_wildcard_is_reached_by_the_loopback() {
        for (listened, asked) in
            [("0.0.0.0:9090", "127.0.0.1:9090"), ("[::]:9090", "[::1]:9090"), ("10.0.0.7:80", "10.0.0.7:80")]
        {
            assert_eq!(reachable(listened.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
