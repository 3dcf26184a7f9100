//! Who may ask on the admin listener.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header},
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
    /// Whoever is on this machine, by its name or an IP address, and no web page but the sidecar's own.
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
        self.admits(request.headers(), request.uri().authority().map(|authority| authority.as_str()))?;
        // A form of any web page can post, but never this type; only scripts can, and those ask across origins first.
        if matches!(*request.method(), Method::POST | Method::PUT) && !is_json(request.headers()) {
            return Err(RequestError::NotJsonContent);
        }
        Ok(())
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
            // here, or across origins. The page that we serve asks from the very host that it was loaded from, and a
            // browser lets no page say so of itself.
            Self::Local => {
                let host = headers.get(header::HOST).map_or(authority, |host| host.to_str().ok());
                let Some(host) = host.filter(|host| is_local(host)) else {
                    return Err(RequestError::ForeignHost);
                };
                let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
                let ours = match headers.get(header::ORIGIN) {
                    None => matches!(site, None | Some(b"none" | b"same-origin")),
                    Some(origin) => site == Some(b"same-origin") && is_origin(origin.as_bytes(), host),
                };
                if ours { Ok(()) } else { Err(RequestError::ForeignOrigin) }
            }
        }
    }
}

/// The token in `Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether the body is said to be JSON, with or without a charset.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = value.and_then(|value| value.split(';').next());
    media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether this is the origin of what is served at `host`.
fn is_origin(origin: &[u8], host: &str) -> bool {
    let bare = [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
    bare == Some(host.as_bytes())
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
    fn only_the_page_that_is_served_here_may_ask() {
        let admits = |host, origin, site: Option<&'static str>| {
            let mut pairs = vec![("host", host), ("origin", origin)];
            pairs.extend(site.map(|site| ("sec-fetch-site", site)));
            Guard::Local.admits(&headers(&pairs), None)
        };
        for (host, origin) in [
            ("127.0.0.1:9091", "http://127.0.0.1:9091"),
            ("localhost:9091", "https://localhost:9091"),
            ("[::1]:9091", "http://[::1]:9091"),
            ("localhost", "http://localhost"),
        ] {
            assert!(admits(host, origin, Some("same-origin")).is_ok(), "{origin}");
            for site in [None, Some("none"), Some("same-site"), Some("cross-site")] {
                let refused = admits(host, origin, site);
                assert!(matches!(refused, Err(RequestError::ForeignOrigin)), "{origin} {site:?}");
            }
        }
        for origin in [
            "null",
            "",
            "http://localhost:9091",
            "http://127.0.0.1:9092",
            "http://127.0.0.1",
            "http://127.0.0.1:9091.evil.example",
            "http://evil.example/127.0.0.1:9091",
            "file://127.0.0.1:9091",
            "127.0.0.1:9091",
        ] {
            let refused = admits("127.0.0.1:9091", origin, Some("same-origin"));
            assert!(matches!(refused, Err(RequestError::ForeignOrigin)), "{origin}");
        }
        // A name of the attacker's own that leads here is of the same origin, and no host of ours.
        let rebound = admits("evil.example:9091", "http://evil.example:9091", Some("same-origin"));
        assert!(matches!(rebound, Err(RequestError::ForeignHost)));
    }

    #[test]
    fn no_form_can_change_anything() {
        let admits = |method: Method, content_type: Option<&str>| {
            let mut request = Request::builder().method(method).uri("/").header("host", "localhost");
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            Guard::Local.admits_request(&request.body(axum::body::Body::empty()).expect("a request"))
        };
        for method in [Method::POST, Method::PUT] {
            for json in ["application/json", "Application/JSON; charset=utf-8"] {
                assert!(admits(method.clone(), Some(json)).is_ok(), "{method} {json}");
            }
            for other in [
                None,
                Some("text/plain"),
                Some("application/x-www-form-urlencoded"),
                Some("multipart/form-data; boundary=application/json"),
                Some("text/plain; application/json"),
            ] {
                let refused = admits(method.clone(), other);
                assert!(matches!(refused, Err(RequestError::NotJsonContent)), "{method} {other:?}");
            }
        }
        for method in [Method::GET, Method::DELETE] {
            assert!(admits(method, None).is_ok(), "no form sends DELETE");
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
