//! TLS towards Envoy: certificates from files, which are read again when they change.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::pem::{self, PemError};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the certificates are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The sidecar's certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of those who may ask; anybody may without.
    pub client_ca: Option<PathBuf>,
}

/// What is wrong with the certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file holds nothing that can be used.
    #[error(transparent)]
    File(#[from] PemError),
    /// Certificate and key cannot be used together.
    #[error("--tls-cert {} and --tls-key {}: {reason}; give a certificate and the key that it was made for", certificate.display(), key.display())]
    Unfit {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// Why.
        reason: String,
    },
    /// No certificate of a client could be held against the authorities.
    #[error("--tls-client-ca {}: {reason}; give the certificates of authorities", path.display())]
    UnfitAuthority {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Encrypts the connections of a listener, with what the files held when they were last right.
#[derive(Clone)]
pub struct Acceptor {
    configs: watch::Receiver<Configs>,
    of: fn(&Configs) -> &Arc<ServerConfig>,
}

/// What is made of the files.
#[derive(Clone)]
struct Configs {
    /// Asks for a client's certificate where there is an authority for them.
    data: Arc<ServerConfig>,
    /// Never asks for one: operators have a token.
    admin: Arc<ServerConfig>,
}

/// The files' bytes, by which a change is noticed however it is made.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Reads the files, and goes on to do so while the result is used: for the data listeners, and for the admin listener.
///
/// # Errors
/// [`TlsError`] where they are not right to begin with. What is wrong later is logged, and what was right stays.
pub fn start(files: TlsFiles) -> Result<(Acceptor, Acceptor), TlsError> {
    let contents = Contents::read(&files)?;
    let (sender, configs) = watch::channel(contents.configs(&files)?);
    tokio::spawn(keep_reading(files, contents, sender));
    let data = Acceptor { configs: configs.clone(), of: |configs| &configs.data };
    Ok((data, Acceptor { configs, of: |configs| &configs.admin }))
}

/// A client that takes whatever certificate it is shown: for `sluice health`, which sends no secret and believes nothing but a
/// status. It asks by an address that no certificate names, and the files may hold another than is in use.
///
/// # Errors
/// rustls's own.
pub fn client_of_anybody() -> Result<ClientConnection, rustls::Error> {
    let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    ClientConnection::new(Arc::new(client(None)?), name)
}

/// A client that talks to nobody but whom this certificate is of, whatever names it has.
///
/// # Errors
/// rustls's own.
pub fn client_of(certificate: CertificateDer<'static>) -> Result<ClientConfig, rustls::Error> {
    client(Some(certificate))
}

fn client(only: Option<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Holder { only, algorithms: provider.signature_verification_algorithms });
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(builder.with_no_client_auth())
}

/// Takes everybody for right who has the key of what they show, or only who shows one certificate.
#[derive(Debug)]
struct Holder {
    only: Option<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Holder {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.only {
            Some(only) if only != shown => {
                Err(rustls::CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Acceptor {
    /// What the next connection is encrypted with.
    pub(super) fn now(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone((self.of)(&self.configs.borrow())))
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// Certificate and key are replaced one after the other, so what does not fit now may fit at the next look: the same
/// complaint is made once.
async fn keep_reading(files: TlsFiles, mut contents: Contents, configs: watch::Sender<Configs>) {
    let mut complaint = String::new();
    loop {
        tokio::select! {
            () = configs.closed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let read = Contents::read(&files);
        if read.as_ref().is_ok_and(|read| *read == contents) {
            if !std::mem::take(&mut complaint).is_empty() {
                info!("the certificates in use are in their files again: all is right again");
            }
            continue;
        }
        match read.and_then(|read| Ok((read.configs(&files)?, read))) {
            Ok((fresh, read)) => {
                contents = read;
                complaint.clear();
                configs.send_replace(fresh);
                info!("the certificates were read anew, and hold for new connections");
            }
            Err(error) => {
                let said = error.to_string();
                if complaint != said {
                    warn!(%error, "the changed certificates are not used, and those from before stay");
                    complaint = said;
                }
            }
        }
    }
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: pem::read("--tls-cert", &files.certificate)?,
            key: pem::read("--tls-key", &files.key)?,
            client_ca: files
                .client_ca
                .as_deref()
                .map(|path| pem::read("--tls-client-ca", path))
                .transpose()?,
        })
    }

    fn configs(&self, files: &TlsFiles) -> Result<Configs, TlsError> {
        let chain = pem::certificates("--tls-cert", &files.certificate, &self.certificate)?;
        let key = pem::private_key("--tls-key", &files.key, &self.key)?;
        let provider = Arc::new(ring::default_provider());
        let unfit = |error: rustls::Error| {
            let (certificate, key) = (files.certificate.clone(), files.key.clone());
            TlsError::Unfit { certificate, key, reason: error.to_string() }
        };
        let make = |verifier| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
            let builder = builder.with_safe_default_protocol_versions().map_err(unfit)?;
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(unfit)?;
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Ok::<_, TlsError>(Arc::new(config))
        };
        let admin = make(None)?;
        let data = match (&files.client_ca, &self.client_ca) {
            (Some(path), Some(pem)) => make(Some(verifier(path, pem, &provider)?))?,
            _ => Arc::clone(&admin),
        };
        Ok(Configs { data, admin })
    }
}

fn verifier(
    path: &Path,
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let roots = Arc::new(pem::authorities("--tls-client-ca", path, pem)?);
    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| TlsError::UnfitAuthority { path: path.to_owned(), reason: error.to_string() })
}
