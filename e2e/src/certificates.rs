//! Certificates for mutual TLS, made for the occasion.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fleet::RunDir;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// An authority that client and server trust.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// Where no key can be made.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    /// A certificate with this common name and these subject alternative names, in their order.
    ///
    /// # Panics
    /// Where it cannot be signed.
    #[must_use]
    pub fn sign(&self, common_name: &str, names: Vec<SanType>) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.0).expect("signed");
        Identity { certificate: signed.pem(), key: key.serialize_pem() }
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The transport socket of a listener that is `server` and asks clients for a certificate of ours.
    ///
    /// # Panics
    /// Where the files cannot be written.
    #[must_use]
    pub fn transport_socket(&self, server: &Identity, run: &RunDir) -> Value {
        let write = |name: &str, text: &str| run.write(name, text).expect("written");
        let [chain, key, ca] = [
            write("server.pem", &server.certificate),
            write("server.key", &server.key),
            write("ca.pem", &self.0.pem()),
        ];
        let file = |path: &Path| json!({"filename": path});
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_certificates": [{"certificate_chain": file(&chain), "private_key": file(&key)}],
                    "validation_context": {"trusted_ca": file(&ca)},
                },
            },
        })
    }

    /// The status of a `GET` over TLS from a client that is `identity`, or nobody.
    ///
    /// # Panics
    /// Where no answer comes.
    #[must_use]
    pub fn get(&self, identity: Option<&Identity>, to: SocketAddr, path: &str) -> u16 {
        let pem = |text: &str| Certificate::from_pem(text.as_bytes()).expect("a certificate");
        let client = identity.map(|identity| {
            let key = PrivateKey::from_pem(identity.key.as_bytes()).expect("a key");
            ClientCert::new_with_certs(&[pem(&identity.certificate)], key)
        });
        let roots = RootCerts::new_with_certs(&[pem(&self.0.pem())]);
        let tls = TlsConfig::builder().root_certs(roots).client_cert(client).build();
        let config = Agent::config_builder().http_status_as_error(false).tls_config(tls);
        let agent = config.timeout_global(Some(Duration::from_secs(20))).build().new_agent();
        agent.get(format!("https://{to}{path}")).call().expect("an answer").status().as_u16()
    }
}

impl Identity {
    /// Writes `NAME.pem` and `NAME.key`, each whole at every moment.
    ///
    /// # Panics
    /// Where they cannot be written.
    pub fn write(&self, directory: &Path, name: &str) {
        for (ending, text) in [("pem", &self.certificate), ("key", &self.key)] {
            let fresh = directory.join(format!("{name}.{ending}.new"));
            std::fs::write(&fresh, text).expect("written");
            std::fs::rename(&fresh, directory.join(format!("{name}.{ending}"))).expect("renamed");
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
