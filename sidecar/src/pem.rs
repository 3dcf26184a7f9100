//! Certificates and keys from files in PEM: for TLS with Envoys, and with Redis.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// What is wrong with a file that a flag names.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// It cannot be read.
    #[error(
        "{flag} {path} cannot be read ({source}); name a file in PEM that is there and readable for this user"
    )]
    Unreadable {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{flag} {path} holds no {what} in PEM; it should have a line -----BEGIN {label}-----")]
    NotPem {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// How that begins.
        label: &'static str,
    },
    /// It holds a certificate that cannot be an authority's.
    #[error("{flag} {path} cannot be used: {reason}; give the certificates of authorities")]
    UnfitAuthority {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: rustls::Error,
    },
}

/// The file's bytes.
pub(crate) fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, PemError> {
    fs::read(path).map_err(|source| PemError::Unreadable { flag, path: path.to_owned(), source })
}

/// The certificates in the file's bytes, at least one.
pub(crate) fn certificates(
    flag: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| PemError::NotPem {
        flag,
        path: path.to_owned(),
        what: "certificate",
        label: "CERTIFICATE",
    })
}

/// The first key in the file's bytes.
pub(crate) fn private_key(
    flag: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| PemError::NotPem {
        flag,
        path: path.to_owned(),
        what: "private key",
        label: "PRIVATE KEY",
    })
}

/// Whom to trust, by the certificates in the file's bytes.
pub(crate) fn authorities(flag: &'static str, path: &Path, pem: &[u8]) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(flag, path, pem)? {
        let unfit = |reason| PemError::UnfitAuthority { flag, path: path.to_owned(), reason };
        roots.add(authority).map_err(unfit)?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_flag_and_its_place() {
        let path = Path::new("/ca.pem");
        let said = |pem: &str| {
            authorities("--redis-ca", path, pem.as_bytes()).expect_err("there is no authority").to_string()
        };
        let none = "--redis-ca /ca.pem holds no certificate in PEM";
        assert!(said("").starts_with(none), "{}", said(""));
        let unfit = said("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(unfit.starts_with("--redis-ca /ca.pem cannot be used: "), "{unfit}");
        assert!(unfit.ends_with("give the certificates of authorities"), "{unfit}");
    }
}
