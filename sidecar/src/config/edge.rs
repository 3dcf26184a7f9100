//! Where the sidecar listens, and who may ask there.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{InvalidConfig, Secret};
use crate::http::{admin::Guard, tls::TlsFiles};

/// The shortest token: what is shorter can be guessed.
const MIN_TOKEN_CHARS: usize = 16;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only processes on this machine reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Those of --listen.
pub(super) fn listen(written: &[String]) -> Result<Vec<ListenAddress>, InvalidConfig> {
    written.iter().map(|written| address("--listen", "SLUICE_LISTEN", written)).collect()
}

/// That of --admin-listen, if it is not switched off.
pub(super) fn admin_address(written: &str) -> Result<Option<ListenAddress>, InvalidConfig> {
    let listens = written != "off";
    listens.then(|| address("--admin-listen", "SLUICE_ADMIN_LISTEN", written)).transpose()
}

/// The listener of operators with who may ask there, if it is not switched off.
pub(super) fn admin(
    address: Option<ListenAddress>,
    token: Option<Secret>,
) -> Result<Option<(ListenAddress, Guard)>, InvalidConfig> {
    let Some(address) = address else { return Ok(None) };
    let short = |token: &Secret| token.expose().chars().count() < MIN_TOKEN_CHARS;
    match token {
        Some(token) if short(&token) => {
            Err(wrong_token("the token is shorter than 16 characters", "Make one by `openssl rand -hex 16`"))
        }
        Some(token) => is_token(&token).map(|()| Some((address, Guard::Token(token)))),
        None if address.is_local() => Ok(Some((address, Guard::Local))),
        None => Err(wrong_token(
            &format!("there is none, and others than this machine reach --admin-listen {address}"),
            "Give a token, or listen on 127.0.0.1 or a Unix socket, or not at all by --admin-listen off",
        )),
    }
}

/// Whether it can be sent in a header.
pub(super) fn is_token(token: &Secret) -> Result<(), InvalidConfig> {
    let mend = "Make one by `openssl rand -hex 16`";
    let is_header = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    is_header
        .then_some(())
        .ok_or_else(|| wrong_token("the token is more than one line of printable ASCII", mend))
}

fn wrong_token(found: &str, mend: &'static str) -> InvalidConfig {
    let (flag, variable) = ("--admin-token-file", "SLUICE_ADMIN_TOKEN");
    InvalidConfig { flag, variable, found: found.to_owned(), mend }
}

/// What --admin-token-file holds.
pub(super) fn token_file(path: &Path) -> Result<Secret, InvalidConfig> {
    let read = std::fs::read_to_string(path);
    read.map(|text| Secret::new(text.trim_end().to_owned())).map_err(|error| InvalidConfig {
        flag: "--admin-token-file",
        variable: "SLUICE_ADMIN_TOKEN_FILE",
        found: format!("{} cannot be read: {error}", path.display()),
        mend: "Give a file that is there, readable for this user, and holds the token and nothing else",
    })
}

/// What TCP listeners are encrypted with: certificate and key together, or nothing.
pub(super) fn tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<TlsFiles>, InvalidConfig> {
    let (flag, variable, found) = match (certificate, key, client_ca) {
        (None, None, None) => return Ok(None),
        (Some(certificate), Some(key), client_ca) => {
            return Ok(Some(TlsFiles { certificate, key, client_ca }));
        }
        (None, Some(_), _) => ("--tls-cert", "SLUICE_TLS_CERT", "there is a --tls-key, and no certificate"),
        (Some(_), None, _) => ("--tls-key", "SLUICE_TLS_KEY", "there is a --tls-cert, and no key"),
        (None, None, Some(_)) => {
            ("--tls-cert", "SLUICE_TLS_CERT", "there is a --tls-client-ca, and no certificate of our own")
        }
    };
    let mend = "Give --tls-cert and --tls-key together, and --tls-client-ca only with them";
    Err(InvalidConfig { flag, variable, found: found.to_owned(), mend })
}

/// The permissions of --socket-mode, which leave out all but owner and group.
pub(super) fn socket_mode(written: &str) -> Result<u32, InvalidConfig> {
    let wrong = |found, mend| {
        Err(InvalidConfig { flag: "--socket-mode", variable: "SLUICE_SOCKET_MODE", found, mend })
    };
    match u32::from_str_radix(written, 8) {
        Ok(mode) if mode > 0o777 || mode & 0o600 != 0o600 => wrong(
            format!("{written:?} are not permissions that let the owner read and write"),
            "Write three octal digits, such as 660 or 600",
        ),
        Ok(mode) if mode & 0o002 != 0 => wrong(
            format!("{written:?} would let every user of this machine ask"),
            "Write 660, and put Envoy into the sidecar's group",
        ),
        Ok(mode) => Ok(mode),
        Err(_) => wrong(
            format!("{written:?} is not an octal number"),
            "Write three octal digits, such as 660 or 600",
        ),
    }
}

fn address(
    flag: &'static str,
    variable: &'static str,
    written: &str,
) -> Result<ListenAddress, InvalidConfig> {
    if let Some(path) = written.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(ListenAddress::Unix(path.into()));
    }
    written.parse().map(ListenAddress::Tcp).map_err(|_| InvalidConfig {
        flag,
        variable,
        found: format!("{written:?} is not an address"),
        mend: "Write an IP and a port, such as 127.0.0.1:9090 or [::1]:9090, or unix:/run/sluice.sock",
    })
}
