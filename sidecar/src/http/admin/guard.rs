//! Who may ask on the admin listener.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use crate::{config::Secret, http::refusal::RequestError};

/// Who may ask.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Whoever has the token, which is sent as `Authorization: Bearer`.
    Token(Secret),
    /// Whoever is on this machine, by its name or an IP address, and no web page.
    Local,
}

/// Answers only whom the guard admits.
pub(super) async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.admits_request(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

impl Guard {
    pub(super) fn admits_request(&self, request: &Request) -> Result<(), RequestError> {
        self.admits(request.headers(), request.uri().authority().map(|authority| authority.as_str()))
    }

    /// `authority` is that of HTTP/2, which has no `Host`.
    fn admits(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), RequestError> {
        match self {
            Self::Token(token) => {
                let shown = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
                let right = shown.is_some_and(|shown| token.expose().as_bytes().ct_eq(shown).into());
                if right { Ok(()) } else { Err(RequestError::NoToken) }
            }
            // A page that a browser on this machine shows may have it ask, under a name of the page's own that leads
            // here, or across origins.
            Self::Local => {
                let host = headers.get(header::HOST).map_or(authority, |host| host.to_str().ok());
                if !host.is_some_and(is_local) {
                    return Err(RequestError::ForeignHost);
                }
                let foreign = headers
                    .get("sec-fetch-site")
                    .is_some_and(|site| !matches!(site.as_bytes(), b"none" | b"same-origin"));
                if foreign || headers.contains_key(header::ORIGIN) {
                    return Err(RequestError::ForeignOrigin);
                }
                Ok(())
            }
        }
    }
}

/// The token in `Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// `localhost` or an IP address, with or without a port: no name that somebody else may lead elsewhere.
fn is_local(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_static(value))
        };
        pairs.iter().map(header).collect()
    }

    #[test]
    fn no_web_page_can_ask() {
        for host in ["localhost", "LocalHost:9091", "127.0.0.1:9091", "[::1]:9091", "[::1]", "10.0.0.7"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9091",
            "127.0.0.1.evil.example",
            "localhost.evil",
            ":9091",
            "[::1",
            "127.0.0.1:x",
        ] {
            assert!(!is_local(host), "{host}");
        }
        let admits = |pairs: &[(&'static str, &'static str)], authority| {
            Guard::Local.admits(&headers(pairs), authority)
        };
        assert!(admits(&[("host", "127.0.0.1:9091")], None).is_ok());
        assert!(admits(&[], Some("127.0.0.1:9091")).is_ok(), "HTTP/2");
        assert!(admits(&[("host", "127.0.0.1"), ("sec-fetch-site", "none")], None).is_ok());
        assert!(matches!(admits(&[], None), Err(RequestError::ForeignHost)));
        for foreign in [("origin", "null"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site")]
        {
            let refused = admits(&[("host", "127.0.0.1:9091"), foreign], None);
            assert!(matches!(refused, Err(RequestError::ForeignOrigin)), "{foreign:?}");
        }
    }

    #[test]
    fn only_the_whole_token_opens() {
        let guard = Guard::Token(Secret::new("a-token-of-some-length".to_owned()));
        let admits =
            |value| guard.admits(&headers(&[("authorization", value), ("host", "evil.example")]), None);
        assert!(admits("Bearer a-token-of-some-length").is_ok());
        assert!(admits("bearer a-token-of-some-length").is_ok());
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a-token-of-some-lengt",
            "Bearer a-token-of-some-length2",
            "a-token-of-some-length",
            "Basic a-token-of-some-length",
        ] {
            assert!(admits(wrong).is_err(), "{wrong}");
        }
        assert!(guard.admits(&headers(&[]), None).is_err());
    }
}
