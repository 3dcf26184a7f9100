//! Opens connections: to a port or a Unix socket, with TLS where it is asked for, and authenticated.

use std::{fs, io, path::PathBuf, sync::Arc};

use redis::{
    AsyncConnectionConfig, PushInfo, PushKind, RedisConnectionInfo, RedisError, aio::MultiplexedConnection,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::Notify,
    task::AbortHandle,
};
use tokio_rustls::TlsConnector;

use super::{
    Fault, RedisAddress,
    address::{Endpoint, Place},
    tls::{self, InvalidTls},
};

/// An authenticated connection, closed when it is dropped.
pub(super) struct Connection {
    pub(super) redis: MultiplexedConnection,
    /// Told once it is lost.
    pub(super) lost: Arc<Notify>,
    driver: AbortHandle,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("{0}")]
    Tls(String),
    #[error(transparent)]
    Files(#[from] InvalidTls),
    #[error("--redis-password-file {path} cannot be read: {source}")]
    Password { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Fault(Fault),
    #[error("the connection was lost: {0}")]
    Lost(RedisError),
    #[error("its answer does not tell {0}")]
    Strange(String),
}

/// Connects to the Redis itself; one behind Sentinels has to be found first.
pub(super) async fn dial(address: &RedisAddress) -> Result<Connection, DialError> {
    let mut login = address.login().clone();
    if let Some(path) = address.password_file() {
        let text = fs::read_to_string(path)
            .map_err(|source| DialError::Password { path: path.to_owned(), source })?;
        login = login.set_password(text.trim_end_matches(['\r', '\n']));
    }
    match &address.place {
        Place::Tcp(endpoint) => {
            let connector = match address.tls() {
                Some(files) => Some(files.read_aside().await?),
                None => None,
            };
            dial_port(endpoint, connector.as_ref(), &login).await
        }
        Place::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(DialError::Connect)?;
            log_in(stream, &login, "").await
        }
        Place::Sentinel { .. } => {
            Err(DialError::Connect(io::Error::other("the primary has not been found yet")))
        }
    }
}

pub(super) async fn dial_port(
    endpoint: &Endpoint,
    connector: Option<&TlsConnector>,
    login: &RedisConnectionInfo,
) -> Result<Connection, DialError> {
    let host = endpoint.host.as_str();
    let stream = TcpStream::connect((host, endpoint.port)).await.map_err(DialError::Connect)?;
    // Otherwise the end of a run that fills more than one packet, and every run sent behind another, would wait until
    // the server has acknowledged what came before, which it may put off for 40 ms.
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    let Some(connector) = connector else { return log_in(stream, login, host).await };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| DialError::Tls(format!("{host:?} is no name that a certificate could have")))?;
    match connector.connect(name, stream).await {
        Ok(stream) => log_in(stream, login, host).await,
        Err(error) => Err(tls::explain(&error, host).map_or(DialError::Connect(error), DialError::Tls)),
    }
}

async fn log_in<S>(stream: S, login: &RedisConnectionInfo, host: &str) -> Result<Connection, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lost = Arc::new(Notify::new());
    // Every timeout is set around whole calls, so the library's own are off.
    let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    if login.protocol() == redis::ProtocolVersion::RESP3 {
        let teller = Arc::clone(&lost);
        config = config.set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
            if push.kind == PushKind::Disconnection {
                teller.notify_one();
            }
            Ok(())
        });
    }
    let (redis, driver) =
        MultiplexedConnection::new_with_config(login, stream, config).await.map_err(|error| {
            match Fault::at_login(&error) {
                Some(fault) => DialError::Fault(fault),
                None => DialError::of(error, host),
            }
        })?;
    Ok(Connection { redis, lost, driver: tokio::spawn(driver).abort_handle() })
}

impl DialError {
    /// What a server said, or why nothing is heard of it.
    pub(super) fn of(error: RedisError, host: &str) -> Self {
        if let Some(fault) = Fault::of(&error) {
            return Self::Fault(fault);
        }
        tls::explain(&error, host).map_or(Self::Lost(error), Self::Tls)
    }
}

impl Drop for Connection {
    /// A server that has stopped in its tracks would otherwise be waited for until it answers.
    fn drop(&mut self) {
        self.driver.abort();
    }
}
