//! Opening the ports and sockets that Envoys connect to.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::Mode;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::ListenAddress;

/// An open port or socket.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket, and its file, which is removed when the listener is dropped.
    Unix(UnixListener, SocketFile),
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Envoys ask there; the permissions of its file where it is a Unix socket.
    Data(u32),
    /// Operators do. A Unix socket is this user's alone: Envoy's group is to ask for takes and no more.
    Admin,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{flag}: cannot listen on {address}: {source}; {mend} {flag}{off}")]
pub struct ListenError {
    flag: &'static str,
    address: String,
    source: io::Error,
    mend: &'static str,
    off: &'static str,
}

/// A connection that was accepted.
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Whether who connects is on this machine.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()),
            Self::Unix(_) => true,
        }
    }
}

/// The file of a Unix socket; removed on drop.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Listener {
    /// Opens `address`, a Unix socket with these permissions. A file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn open(address: &ListenAddress, purpose: Purpose) -> Result<Self, ListenError> {
        let opened = match address {
            ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            ListenAddress::Unix(path) => open_unix(path, purpose.mode()).await,
        };
        opened.map_err(|source| {
            let (flag, off) = purpose.flag();
            ListenError { flag, address: address.to_string(), mend: mend(&source), source, off }
        })
    }

    /// Where it listens: the port that was given, or for port 0 the one that was found.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |at| at.to_string()),
            Self::Unix(_, file) => format!("unix:{}", file.0.display()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are small and awaited: waiting to fill a packet would only delay them.
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Connection::Unix(listener.accept().await?.0)),
        }
    }
}

impl Purpose {
    fn mode(self) -> u32 {
        match self {
            Self::Data(mode) => mode,
            Self::Admin => 0o600,
        }
    }

    fn flag(self) -> (&'static str, &'static str) {
        match self {
            Self::Data(_) => ("--listen", ""),
            Self::Admin => ("--admin-listen", ", or switch it off by --admin-listen off"),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed or replaced by hand; there is nobody left to tell.
        let _ = fs::remove_file(&self.0);
    }
}

async fn open_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        match UnixStream::connect(path).await {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
        }
    }
    // From the first moment it is this user's alone, whatever the umask is: who connects before the permissions are set stays
    // connected.
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = UnixListener::bind(path);
    rustix::process::umask(umask);
    let listener = bound?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(Listener::Unix(listener, file))
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it, or choose another",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose another",
        io::ErrorKind::PermissionDenied => {
            "choose a port above 1023 or a directory that may be written to for"
        }
        io::ErrorKind::NotFound => "the socket's directory does not exist: create it, or choose another",
        _ => "choose another",
    }
}
