//! What `envoy/examples/mtls.yaml` needs: certificates in files, and both sides pointed at them.

use std::path::{Path, PathBuf};

use fleet::{Config, FleetBuilder, RunDir, Transport};
use rcgen::SanType;
use serde_json::{Value, json};

use crate::Authority;

/// Where the example has its certificates.
const SHOWN: &str = "/etc/envoy/certs/";

/// An authority, and the certificates that it made for a sidecar and an Envoy, in files of a run directory.
pub struct MutualTls {
    authority: Authority,
    directory: PathBuf,
}

impl MutualTls {
    /// Makes them all.
    ///
    /// # Panics
    /// Where they cannot be made or written.
    #[must_use]
    pub fn new(run: &RunDir) -> Self {
        let made = Self { authority: Authority::new(), directory: run.path().to_owned() };
        run.write("ca.pem", &made.authority.pem()).expect("written");
        made.renew("sluice");
        made.renew("envoy");
        made
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A new certificate, and key, for `sluice` or `envoy`, of the same authority.
    pub fn renew(&self, name: &str) {
        self.sign(name, &self.authority);
    }

    /// One of an authority that nobody trusts.
    pub fn forge(&self, name: &str) {
        self.sign(name, &Authority::new());
    }

    fn sign(&self, name: &str, authority: &Authority) {
        let names = vec![SanType::DnsName(name.try_into().expect("a name"))];
        authority.sign(name, names).write(&self.directory, name);
    }

    /// The arguments of a sidecar.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let files = [("cert", "sluice.pem"), ("key", "sluice.key"), ("client-ca", "ca.pem")];
        files.map(|(flag, name)| format!("--tls-{flag}={}", self.directory.join(name).display())).to_vec()
    }

    /// Points the example at the files, and has it ask for the protocol of the transport.
    #[must_use]
    pub fn wire(&self, builder: FleetBuilder, transport: Transport) -> FleetBuilder {
        let here = format!("{}/", self.directory.display());
        builder.adjust(move |config: &mut Config| {
            point_at(config.tree(), &here);
            if transport == Transport::Http2 {
                let socket = &mut config.cluster("sluice")?["transport_socket"];
                socket["typed_config"]["common_tls_context"]["alpn_protocols"] = json!(["h2"]);
            }
            Ok(())
        })
    }
}

fn point_at(value: &mut Value, here: &str) {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix(SHOWN) {
                *text = format!("{here}{name}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| point_at(item, here)),
        Value::Object(fields) => fields.values_mut().for_each(|field| point_at(field, here)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
