//! A connection to the admin listener: TCP, TLS or a Unix socket, and HTTP/1.1 over it.

use std::{io, path::Path, sync::Arc};

use http_body_util::Full;
use hyper::{
    body::Bytes,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::AskError;
use crate::{
    config::{AdminTarget, Place, Trust},
    http::tls,
    pem,
};

pub(super) async fn open(target: &AdminTarget) -> Result<SendRequest<Full<Bytes>>, AskError> {
    let at = || target.place.to_string();
    let unreachable = |source: io::Error| AskError::Unreachable { at: at(), source };
    match &target.place {
        Place::Unix(path) => {
            speak(UnixStream::connect(path).await.map_err(unreachable)?).await.map_err(unreachable)
        }
        Place::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
            let Some(trust) = &target.trust else { return speak(stream).await.map_err(unreachable) };
            let mend = match trust {
                Trust::Itself(_) => {
                    "another than the one in --tls-cert is shown: name the sidecar by --admin"
                }
                Trust::Authorities(_) => {
                    "name the authority of its certificate by --admin-ca, and the sidecar as its certificate does"
                }
            };
            let untrusted = |reason: &dyn std::fmt::Display| AskError::Untrusted {
                at: at(),
                reason: reason.to_string(),
                mend,
            };
            let name = ServerName::try_from(host.clone()).map_err(|error| untrusted(&error))?;
            let config = config(trust, &untrusted)?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
            let refused = |error: io::Error| match error.get_ref().and_then(|error| error.downcast_ref()) {
                Some(rustls::Error::InvalidMessage(_)) => AskError::NotSluice { at: at() },
                Some(error) => untrusted(error),
                None => unreachable(error),
            };
            speak(stream.map_err(refused)?).await.map_err(unreachable)
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<SendRequest<Full<Bytes>>> {
    let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // What fails in it fails the request, too.
    tokio::spawn(connection);
    Ok(requests)
}

fn config(
    trust: &Trust,
    untrusted: &dyn Fn(&dyn std::fmt::Display) -> AskError,
) -> Result<ClientConfig, AskError> {
    let roots = match trust {
        Trust::Itself(path) => {
            let mut chain = pem::certificates("--tls-cert", path, &pem::read("--tls-cert", path)?)?;
            return tls::client_of(chain.swap_remove(0)).map_err(|error| untrusted(&error));
        }
        Trust::Authorities(Some(path)) => authorities(path)?,
        Trust::Authorities(None) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| untrusted(&error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn authorities(path: &Path) -> Result<RootCertStore, AskError> {
    Ok(pem::authorities("--admin-ca", path, &pem::read("--admin-ca", path)?)?)
}
