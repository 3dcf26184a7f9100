//! Where spans go: by our own flag, or by the variables that every program with OpenTelemetry obeys.

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc};

use axum::http::Uri;
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SpanExporter as _};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::client::{Client, Unsaid};
use crate::pem::{self, PemError};

/// The path of spans below an endpoint.
const PATH: &str = "/v1/traces";

const FLAG: &str = "";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const TRACES_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE";
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSIONS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    url: Uri,
    authorities: Option<(&'static str, PathBuf)>,
    service_named: bool,
    asked_for: bool,
}

/// Why spans cannot go there.
#[derive(Debug, thiserror::Error)]
pub enum InvalidReceiver {
    /// It is no URL for this. What was found is not told, since it may hold a password.
    #[error("{place}{problem}")]
    Url {
        /// Where it was written, where that was not the flag.
        place: Place,
        /// What is wrong.
        problem: &'static str,
    },
    /// Another protocol or compression is asked for.
    #[error("{place}found {found:?}, and {right} is what there is")]
    Unspoken {
        /// Where it was written.
        place: Place,
        /// What.
        found: String,
        /// What would be right.
        right: &'static str,
    },
    /// A file of authorities is no such file.
    #[error(transparent)]
    File(#[from] PemError),
    /// There is nobody to trust.
    #[error("this system has no certificates of authorities; name the receiver's own by {CERTIFICATE}")]
    NoSystemRoots,
    /// The library cannot.
    #[error("spans cannot be handed on: {0}")]
    Library(String),
}

impl InvalidReceiver {
    /// What would be right.
    pub const MEND: &str = "Write http://HOST:4318, or https:// with TLS: the receiver's port for OTLP over HTTP, whose protocol is \
         http/protobuf, without compression";
}

/// A variable of the environment, or nothing for our own flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(&'static str);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

impl Receiver {
    /// What the flag says, or else the environment; nothing where neither does.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn find(
        flag: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, InvalidReceiver> {
        // An empty variable is none, as its specification says and Compose needs.
        let of = |name| environment(name).filter(|value| !value.trim().is_empty());
        let flag = flag.filter(|flag| !flag.is_empty());
        let url = match flag {
            Some(written) => url(FLAG, written, true)?,
            // These are there for every program of a machine, and may be switched off for all.
            None if of("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) => {
                return Ok(None);
            }
            None if of("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none") => return Ok(None),
            None => match (of(TRACES_ENDPOINT), of(ENDPOINT)) {
                (Some(written), _) => url(TRACES_ENDPOINT, &written, false)?,
                (None, Some(written)) => url(ENDPOINT, &written, true)?,
                (None, None) => return Ok(None),
            },
        };
        let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, of(name)?)));
        for (names, right) in [(PROTOCOLS, "http/protobuf"), (COMPRESSIONS, "none")] {
            if let Some((place, found)) = first(names)
                && found != right
            {
                return Err(InvalidReceiver::Unspoken { place: Place(place), found, right });
            }
        }
        let authorities = first([TRACES_CERTIFICATE, CERTIFICATE]).map(|(place, file)| (place, file.into()));
        let in_attributes = of("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| {
            attributes.split(',').any(|attribute| attribute.trim().starts_with("service.name="))
        });
        let service_named = in_attributes || of("OTEL_SERVICE_NAME").is_some();
        Ok(Some(Self { url, authorities, service_named, asked_for: flag.is_some() }))
    }

    /// Whether our own flag names it, and not only the environment of every program.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.asked_for
    }

    /// Where, without what could be secret: with some receivers the path is.
    #[must_use]
    pub fn origin(&self) -> String {
        let (scheme, authority) = (self.url.scheme_str(), self.url.authority());
        let authority = authority.map_or("", |authority| authority.as_str());
        format!("{}://{authority}", scheme.unwrap_or_default())
    }

    pub(super) fn names_no_service(&self) -> bool {
        !self.service_named
    }

    pub(super) fn exporter(&self, resource: &Resource) -> Result<(SpanExporter, Unsaid), InvalidReceiver> {
        let is_tls = self.url.scheme_str() == Some("https");
        let tls = is_tls.then(|| self.tls()).transpose()?;
        let problem = "its host is neither a name nor an address";
        let client =
            Client::to(&self.url, tls).ok_or(InvalidReceiver::Url { place: Place(FLAG), problem })?;
        let unsaid = client.unsaid();
        let agent = concat!("sluice/", env!("CARGO_PKG_VERSION")).to_owned();
        let built = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(self.url.to_string())
            .with_protocol(Protocol::HttpBinary)
            .with_headers(HashMap::from([("user-agent".to_owned(), agent)]))
            // The library would sleep on the thread that decides takes; the next batch is the next attempt.
            .with_retry_policy(RetryPolicy::default().with_max_retries(0))
            .build();
        let mut exporter = built.map_err(|error| InvalidReceiver::Library(error.to_string()))?;
        exporter.set_resource(resource);
        Ok((exporter, unsaid))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, InvalidReceiver> {
        let roots = match &self.authorities {
            Some((place, path)) => pem::authorities(place, path, &pem::read(place, path)?)?,
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        if roots.is_empty() {
            return Err(InvalidReceiver::NoSystemRoots);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| InvalidReceiver::Library(error.to_string()))?;
        Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

/// The whole URL; `is_base` where the path of spans comes behind it.
fn url(place: &'static str, written: &str, is_base: bool) -> Result<Uri, InvalidReceiver> {
    let wrong = |problem| InvalidReceiver::Url { place: Place(place), problem };
    let base: Uri = written.trim().parse().map_err(|_| wrong("this is no URL"))?;
    if !matches!(base.scheme_str(), Some("http" | "https")) {
        return Err(wrong("a URL begins with http:// or https://"));
    }
    let authority = base.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err(wrong(
            "a password has no place in it; give it as a header by OTEL_EXPORTER_OTLP_HEADERS",
        ));
    }
    if base.query().is_some() {
        return Err(wrong("it has a query, which no receiver needs"));
    }
    if !is_base || base.path().ends_with(PATH) {
        return Ok(base);
    }
    let whole = format!("{}{PATH}", base.to_string().trim_end_matches('/'));
    whole.parse().map_err(|_| wrong("this is no URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(flag: Option<&str>, environment: &[(&str, &str)]) -> Result<Option<String>, String> {
        let of = |name: &str| {
            environment.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        };
        let found = Receiver::find(flag, of).map_err(|error| error.to_string())?;
        Ok(found.map(|receiver| receiver.url.to_string()))
    }

    fn to(url: &str) -> Result<Option<String>, String> {
        Ok(Some(url.to_owned()))
    }

    #[test]
    fn the_path_of_spans_comes_behind_an_endpoint() {
        assert_eq!(find(None, &[]), Ok(None));
        assert_eq!(find(Some(""), &[(ENDPOINT, " ")]), Ok(None));
        let whole = to("http://otel:4318/v1/traces");
        for written in ["http://otel:4318", "http://otel:4318/", "http://otel:4318/v1/traces"] {
            assert_eq!(find(Some(written), &[(ENDPOINT, "http://other")]), whole);
            assert_eq!(find(None, &[(ENDPOINT, written)]), whole);
        }
        let both = [(ENDPOINT, "http://other"), (TRACES_ENDPOINT, "https://otel/mine")];
        assert_eq!(find(None, &both), to("https://otel/mine"), "as it is written");
    }

    #[test]
    fn what_is_switched_off_for_all_is_off() {
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(find(None, &[(ENDPOINT, "http://otel:4318"), off]), Ok(None));
            assert_eq!(
                find(Some("http://otel"), &[off]),
                to("http://otel/v1/traces"),
                "but our own flag is not"
            );
        }
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_and_tells_no_password() {
        let grpc = [(ENDPOINT, "http://otel:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        let said = find(None, &grpc).expect_err("refused");
        assert!(said.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: found \"grpc\", and http/protobuf"), "{said}");
        let zipped = [(ENDPOINT, "http://otel"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")];
        assert!(find(None, &zipped).expect_err("refused").contains("\"gzip\", and none"));
        for wrong in
            ["otel:4318", "grpc://otel", "http://shop:hunter2@otel", "http://otel/?key=hunter2", "http://"]
        {
            let said = find(Some(wrong), &[]).expect_err(wrong);
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
