//! TLS to a Redis: which authorities are trusted, and who we are. The files are read anew at each connection, so that they
//! may be replaced while the sidecar runs; the system's authorities, which are hundreds, once a minute.

use std::{
    error::Error,
    fmt::Display,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, InvalidMessage, RootCertStore, crypto::ring,
    sign::CertifiedKey,
};
use tokio_rustls::TlsConnector;

use crate::pem::{self, PemError};

/// How long the system's authorities are taken to be the same.
const SYSTEM_ROOTS_KEEP: Duration = Duration::from_secs(60);

/// Whom to trust, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may have signed the server's certificate, in PEM; those of the system where there are none.
    pub ca: Option<PathBuf>,
    /// Our certificate, with those between it and its authority, and its key; both in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why there can be no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTls {
    /// A file holds nothing that can be used.
    #[error(transparent)]
    File(#[from] PemError),
    /// A file holds PEM, and what is in it cannot be used.
    #[error("{file} {path} cannot be used: {reason}")]
    Unusable {
        /// Which flag names it.
        file: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The key is another certificate's.
    #[error(
        "--redis-key {key} is not the key of --redis-cert {certificate}; name the two that were made together"
    )]
    Mismatch {
        /// Where the certificate is.
        certificate: PathBuf,
        /// Where the key is.
        key: PathBuf,
    },
    /// There is nobody to trust.
    #[error("this system has no certificates of authorities; name the Redis's own by --redis-ca")]
    NoSystemRoots,
    /// The library cannot.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsFiles {
    /// Reads the files where nothing else waits for it: requests are decided on the one thread there is.
    pub(super) async fn read_aside(&self) -> Result<TlsConnector, InvalidTls> {
        let files = self.clone();
        match tokio::task::spawn_blocking(move || files.connector()).await {
            Ok(read) => read,
            // It panics nowhere, and is only given up where the sidecar ends.
            Err(error) => Err(InvalidTls::Library(rustls::Error::General(error.to_string()))),
        }
    }

    /// Reads the files.
    pub(super) fn connector(&self) -> Result<TlsConnector, InvalidTls> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let written = pem::read("--redis-cert", certificate)?;
                let chain = pem::certificates("--redis-cert", certificate, &written)?;
                let written = pem::read("--redis-key", key)?;
                let private = pem::private_key("--redis-key", key, &written)?;
                let unusable = |reason: &dyn Display| InvalidTls::Unusable {
                    file: "--redis-cert",
                    path: certificate.clone(),
                    reason: reason.to_string(),
                };
                match CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider) {
                    Err(rustls::Error::InconsistentKeys(_)) => {
                        return Err(InvalidTls::Mismatch {
                            certificate: certificate.clone(),
                            key: key.clone(),
                        });
                    }
                    Err(error) => return Err(unusable(&error)),
                    Ok(_) => {}
                }
                config.with_client_auth_cert(chain, private).map_err(|error| unusable(&error))?
            }
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, InvalidTls> {
        let Some(path) = &self.ca else { return system_roots() };
        Ok(Arc::new(pem::authorities("--redis-ca", path, &pem::read("--redis-ca", path)?)?))
    }
}

fn system_roots() -> Result<Arc<RootCertStore>, InvalidTls> {
    static READ: Mutex<Option<(Instant, Arc<RootCertStore>)>> = Mutex::new(None);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, roots)) = &*read
        && at.elapsed() < SYSTEM_ROOTS_KEEP
    {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(InvalidTls::NoSystemRoots);
    }
    let roots = Arc::new(roots);
    *read = Some((Instant::now(), Arc::clone(&roots)));
    Ok(roots)
}

/// What is wrong where TLS with `host` fails, and the mend; nothing where the failure is not one of TLS.
///
/// With TLS 1.3 the server looks at our certificate after we have found the handshake done: so this may come with the
/// first answer.
pub(super) fn explain(error: &(dyn Error + 'static), host: &str) -> Option<String> {
    let error = rustls_error(error)?;
    Some(match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer => {
                "its certificate was signed by an authority that is not trusted; name that authority's \
                 certificate by --redis-ca"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "its certificate is not for {host:?}; name the Redis as its certificate does, or give it one \
                     for this name"
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired, or this machine's clock is wrong; renew it".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet, or this machine's clock is wrong".to_owned()
            }
            wrong => format!("its certificate is not accepted: {wrong}"),
        },
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a client certificate; name one by --redis-cert and --redis-key".to_owned()
        }
        // OpenSSL says so in TLS 1.2 where there is no certificate.
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "it ended the handshake; perhaps it wants a client certificate: name one by --redis-cert and --redis-key"
                .to_owned()
        }
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied),
        ) => {
            format!("it does not accept our certificate ({alert:?}); see --redis-cert and its tls-ca-cert-file")
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "it speaks neither TLS 1.2 nor 1.3; see its tls-protocols".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            format!("it has no certificate for {host:?}; name the Redis as its certificate does")
        }
        rustls::Error::AlertReceived(alert) => format!("it ended TLS by an alert ({alert:?}); see its log"),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS at this port; name its TLS port, or use redis://".to_owned()
        }
        other => format!("TLS failed: {other}"),
    })
}

fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = within.and_then(|within| rustls_error(within)) {
            return Some(found);
        }
        // The redis crate shares the errors that it wraps.
        let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>();
        if let Some(found) = shared.and_then(|shared| rustls_error(&**shared)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorities_of_the_system_are_not_read_at_each_connection() {
        let read = || system_roots().expect("this system has authorities (Debian: ca-certificates)");
        assert!(Arc::ptr_eq(&read(), &read()));
    }

    #[test]
    fn an_alert_is_told_as_what_it_is() {
        for (alert, said) in [
            (AlertDescription::UnknownCA, "does not accept our certificate (UnknownCA)"),
            (AlertDescription::CertificateRequired, "wants a client certificate"),
            (AlertDescription::ProtocolVersion, "neither TLS 1.2 nor 1.3"),
            (AlertDescription::UnrecognisedName, "no certificate for \"redis.internal\""),
            (AlertDescription::InternalError, "by an alert (InternalError)"),
        ] {
            let told = explain(&rustls::Error::AlertReceived(alert), "redis.internal").expect("one of TLS");
            assert!(told.contains(said), "{told}");
        }
    }
}
