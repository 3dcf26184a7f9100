//! What `sluice health` is told of a sidecar: where it listens, and no more. Whatever else is wrong just now, such as a file that
//! is being replaced, is not what it asks about.

use super::{Args, InvalidConfig, ListenAddress, edge};

/// Where a sidecar can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its data listeners, at least one.
    pub listen: Vec<ListenAddress>,
    /// That of operators, if it is not switched off.
    pub admin: Option<ListenAddress>,
    /// Whether it speaks TLS where it is not asked from this machine alone.
    pub encrypted: bool,
    /// Whether its data listeners want a client's certificate.
    pub wants_certificate: bool,
}

impl TryFrom<&Args> for Asked {
    type Error = InvalidConfig;

    fn try_from(args: &Args) -> Result<Self, InvalidConfig> {
        Ok(Self {
            listen: edge::listen(&args.listen)?,
            admin: edge::admin_address(&args.admin_listen)?,
            encrypted: args.tls_cert.is_some(),
            wants_certificate: args.tls_client_ca.is_some(),
        })
    }
}
