//! Opening the ports and sockets that Envoys connect to.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::ListenAddress;

/// Owner and group may connect: run Envoy in the sidecar's group.
const SOCKET_MODE: u32 = 0o660;

/// An open port or socket.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket, and its file, which is removed when the listener is dropped.
    Unix(UnixListener, SocketFile),
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{mend}")]
pub struct ListenError {
    address: String,
    source: io::Error,
    mend: &'static str,
}

/// A connection that was accepted.
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The file of a Unix socket; removed on drop.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Listener {
    /// Opens `address`. A Unix socket's file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn open(address: &ListenAddress) -> Result<Self, ListenError> {
        let opened = match address {
            ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            ListenAddress::Unix(path) => open_unix(path).await,
        };
        opened.map_err(|source| ListenError { address: describe(address), mend: mend(&source), source })
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

impl Connection {
    /// Waits for the first byte, or the end.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed or replaced by hand; there is nobody left to tell.
        let _ = fs::remove_file(&self.0);
    }
}

async fn open_unix(path: &Path) -> io::Result<Listener> {
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        match UnixStream::connect(path).await {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
        }
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(Listener::Unix(listener, file))
}

fn describe(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there: stop it, or choose another --listen",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address: choose another --listen",
        io::ErrorKind::PermissionDenied => "; choose a port above 1023 or a directory that may be written to",
        io::ErrorKind::NotFound => "; the socket's directory does not exist: create it",
        _ => "; choose another --listen",
    }
}
