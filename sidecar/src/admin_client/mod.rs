//! A client of the admin API, for the commands of operators: over TCP, TLS or a Unix socket, one connection a request.

pub mod answers;
mod connect;

use std::{fmt, io, str, time::Duration};

use contract::{MARKER_HEADER, Refusal};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Bytes, header};
use serde::{Deserialize, de::IgnoredAny};
use tokio::{runtime::Runtime, time::timeout};

use crate::{config::AdminTarget, pem::PemError};

/// Far longer than any answer takes, and still short for a person.
const WITHIN: Duration = Duration::from_secs(10);
/// Ten thousand overrides take that much only where all of them are of the longest keys, and these of nothing but control signs.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens, or not in time, or they hung up.
    #[error(
        "no sidecar answers at {at} ({source}); name its admin listener by --admin or SLUICE_ADMIN, or give the \
         --admin-listen that it runs with"
    )]
    Unreachable {
        /// Where.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// A file for TLS is not right.
    #[error(transparent)]
    File(#[from] PemError),
    /// Who answers is not who is meant.
    #[error("{at} is not trusted: {reason}; {mend}")]
    Untrusted {
        /// Where.
        at: String,
        /// Why.
        reason: String,
        /// What would be right.
        mend: &'static str,
    },
    /// Something else listens there.
    #[error(
        "what answers at {at} is no sluice, or speaks TLS where it is asked without, or the other way around; name the \
         sidecar's admin listener by --admin"
    )]
    NotSluice {
        /// Where.
        at: String,
    },
    /// The token is missing or wrong.
    #[error(
        "{at} wants a token, and {shown}; give the sidecar's by --admin-token-file or SLUICE_ADMIN_TOKEN"
    )]
    NoToken {
        /// Where.
        at: String,
        /// What it was shown.
        shown: &'static str,
    },
    /// It says why it does not do it.
    #[error("{reason} ({code}){}", mend(code))]
    Refused {
        /// What stays the same when words change.
        code: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// It answers something that this program does not know.
    #[error(
        "what {at} answers is not understood ({reason}); is it its admin listener, and of this program's version?"
    )]
    Unknown {
        /// Where.
        at: String,
        /// What is not.
        reason: String,
    },
}

/// What would be right, where the API tells it in its own words and not in those of a command line.
fn mend(code: &str) -> &'static str {
    match code {
        "unknown_policy" => ": by --domain and --policy-limit",
        "ambiguous_domain" => ": by --domain",
        _ => "",
    }
}

/// Asks one sidecar.
#[derive(Debug)]
pub struct Client {
    target: AdminTarget,
    /// It is never dropped: that would wait for the system to look up a name, however long that takes.
    runtime: &'static Runtime,
}

/// What is asked: the path is percent-encoded, and a body is JSON.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    path: String,
    body: Option<serde_json::Value>,
}

impl Ask {
    /// To be told something.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None }
    }

    /// To have something done.
    pub fn post(path: impl Into<String>, body: Option<serde_json::Value>) -> Self {
        Self { method: Method::POST, path: path.into(), body }
    }

    /// To put something in a place.
    pub fn put(path: impl Into<String>, body: serde_json::Value) -> Self {
        Self { method: Method::PUT, path: path.into(), body: Some(body) }
    }

    /// To remove something.
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, path: path.into(), body: None }
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    at: String,
    json: Bytes,
}

impl Answer {
    /// As it came, which is JSON.
    ///
    /// # Errors
    /// [`AskError::Unknown`] where it is none.
    pub fn json(&self) -> Result<&str, AskError> {
        self.read::<IgnoredAny>()?;
        // What is in texts was not looked at.
        str::from_utf8(&self.json).map_err(|error| self.unknown(&error))
    }

    /// What it means.
    ///
    /// # Errors
    /// [`AskError::Unknown`] where it is something else.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, AskError> {
        serde_json::from_slice(&self.json).map_err(|error| self.unknown(&error))
    }

    fn unknown(&self, reason: &dyn fmt::Display) -> AskError {
        AskError::Unknown { at: self.at.clone(), reason: reason.to_string() }
    }
}

impl Client {
    /// For the sidecar there. Nothing is asked yet.
    ///
    /// # Errors
    /// The system's own.
    pub fn new(target: AdminTarget) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { target, runtime: Box::leak(Box::new(runtime)) })
    }

    /// Where it asks.
    #[must_use]
    pub fn at(&self) -> String {
        self.target.place.to_string()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`AskError`], for whatever is no answer with a status below 400.
    pub fn ask(&self, ask: &Ask) -> Result<Answer, AskError> {
        self.runtime.block_on(async {
            timeout(WITHIN, self.exchange(ask)).await.unwrap_or_else(|_| {
                Err(self.unreachable(io::Error::other(format!("there was no answer within {WITHIN:?}"))))
            })
        })
    }

    fn unreachable(&self, source: io::Error) -> AskError {
        AskError::Unreachable { at: self.at(), source }
    }

    async fn exchange(&self, ask: &Ask) -> Result<Answer, AskError> {
        let mut requests = connect::open(&self.target).await?;
        let request = self.request(ask)?;
        let lost = |error: hyper::Error| match error.is_parse() {
            true => AskError::NotSluice { at: self.at() },
            false => self.unreachable(io::Error::other(error)),
        };
        let answer = requests.send_request(request).await.map_err(lost)?;
        if !answer.headers().contains_key(MARKER_HEADER) {
            return Err(AskError::NotSluice { at: self.at() });
        }
        let status = answer.status();
        let json = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let json = json.map_err(|error| self.unreachable(io::Error::other(error)))?.to_bytes();
        let answer = Answer { at: self.at(), json };
        if status.is_success() { Ok(answer) } else { Err(self.refused(&answer)) }
    }

    fn request(&self, ask: &Ask) -> Result<Request<Full<Bytes>>, AskError> {
        let host = match &self.target.place {
            crate::config::Place::Unix(_) => "localhost".to_owned(),
            tcp => tcp.to_string(),
        };
        let mut request = Request::builder().method(&ask.method).uri(&ask.path).header(header::HOST, host);
        if let Some(authorization) = &self.target.authorization {
            request = request.header(header::AUTHORIZATION, authorization.expose());
        }
        // What changes something is taken as JSON only, whether or not it has a body.
        if ask.method != Method::GET {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = ask.body.as_ref().map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        // Only a host or a path that cannot be in a request fails.
        let unfit = |error: hyper::http::Error| self.unreachable(io::Error::other(error));
        request.body(Full::new(body)).map_err(unfit)
    }

    fn refused(&self, answer: &Answer) -> AskError {
        let refusal = match answer.read::<Refusal>() {
            Ok(refusal) => refusal,
            Err(error) => return error,
        };
        let shown = if self.target.authorization.is_some() { "this one is not it" } else { "none was given" };
        match refusal.code.as_ref() {
            "no_token" => AskError::NoToken { at: self.at(), shown },
            "unknown_path" => AskError::Unknown { at: self.at(), reason: refusal.reason.into_owned() },
            _ => AskError::Refused { code: refusal.code.into_owned(), reason: refusal.reason.into_owned() },
        }
    }
}

/// The path of a bucket: policies and keys are any text.
#[must_use]
pub fn bucket_path(policy: &str, key: &str) -> String {
    format!("/v1/buckets/{}/{}", encoded(policy), encoded(key))
}

/// Text as one segment of a path, or one value of a query.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => encoded.push(char::from(byte)),
            // A segment of dots would be taken for a way through directories.
            b'.' if !text.bytes().all(|byte| byte == b'.') => encoded.push('.'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_key_is_it_stays_one_segment() {
        assert_eq!(bucket_path("per-client", ""), "/v1/buckets/per-client/");
        assert_eq!(bucket_path("a.b", "header:x=1/2?#%"), "/v1/buckets/a.b/header%3Ax%3D1%2F2%3F%23%25");
        assert_eq!(encoded("..") + &encoded("."), "%2E%2E%2E");
        assert_eq!(encoded("ü\n\0"), "%C3%BC%0A%00");
    }
}
