//! `GET /`: the page that a person on call looks at. Its files are embedded, and need no token: what they show does.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// Nothing but what is served here is loaded, run, shown or asked, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal $kind:ident $file:literal),* $(,)?) => {
        const FILES: &[File] = &[$(File {
            path: $path,
            kind: $kind,
            content: include_bytes!(concat!("../../../page/", $file)),
        }),*];
    };
}

files! {
    "/" HTML "index.html",
    "/page/page.css" CSS "page.css",
    "/page/icon.svg" IMAGE "icon.svg",
    "/page/page.js" SCRIPT "page.js",
    "/page/bucket.js" SCRIPT "bucket.js",
    "/page/charts.js" SCRIPT "charts.js",
    "/page/element.js" SCRIPT "element.js",
    "/page/find.js" SCRIPT "find.js",
    "/page/overrides.js" SCRIPT "overrides.js",
    "/page/server.js" SCRIPT "server.js",
    "/page/tables.js" SCRIPT "tables.js",
    "/page/words.js" SCRIPT "words.js",
    "/page/vendor/uplot.js" SCRIPT "vendor/uplot.js",
    "/page/vendor/uplot.css" CSS "vendor/uplot.css",
    "/page/vendor/uplot-LICENSE" TEXT "vendor/uplot-LICENSE",
}

struct File {
    path: &'static str,
    kind: &'static str,
    content: &'static [u8],
}

/// A route for each file.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| {
        let tag = file.tag();
        router.route(file.path, get(async move |headers: HeaderMap| file.answer(&headers, &tag)))
    })
}

impl File {
    /// Another content has another tag; the same content need not be sent again.
    fn tag(&self) -> HeaderValue {
        let mut hasher = DefaultHasher::new();
        self.content.hash(&mut hasher);
        HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish()))
            .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }

    fn answer(&self, asked: &HeaderMap, tag: &HeaderValue) -> Response {
        let said = [
            (header::ETAG, tag.clone()),
            // Another version of the sidecar has other files, which belong together: a browser asks each time.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                HeaderValue::from_static("same-origin"),
            ),
        ];
        if asked.get_all(header::IF_NONE_MATCH).iter().any(|known| has(known, tag)) {
            return (StatusCode::NOT_MODIFIED, said).into_response();
        }
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(self.kind))];
        (said, kind, Bytes::from_static(self.content)).into_response()
    }
}

/// Whether a list of tags, weak or not, has this one.
fn has(tags: &HeaderValue, tag: &HeaderValue) -> bool {
    let tags = tags.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tags.map(|known| known.strip_prefix(b"W/").unwrap_or(known)).any(|known| known == tag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_served() {
        for file in FILES.iter().filter(|file| file.kind != TEXT && !file.path.contains("/vendor/")) {
            let content = str::from_utf8(file.content).expect("text");
            let quoted = content.split(['"', '\'']).filter(|word| word.starts_with("/page/"));
            let beside = content.split('"').filter_map(|word| word.strip_prefix("./"));
            for named in quoted.map(str::to_owned).chain(beside.map(|name| format!("/page/{name}"))) {
                assert!(FILES.iter().any(|file| file.path == named), "{} names {named}", file.path);
            }
        }
    }

    #[test]
    fn nothing_in_the_page_needs_what_its_policy_forbids() {
        for file in FILES.iter().filter(|file| file.kind == HTML) {
            let html = str::from_utf8(file.content).expect("text");
            for forbidden in ["style=", " on", "javascript:", "<style", "http:", "https:"] {
                let found = html.match_indices(forbidden).find(|(at, _)| {
                    // An attribute begins with " on"; so do words of the text.
                    forbidden != " on"
                        || html[at + 1..]
                            .split('=')
                            .next()
                            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_lowercase()))
                });
                assert!(found.is_none(), "{}: {forbidden} at {found:?}", file.path);
            }
            assert!(html.split("<script").skip(1).all(|tag| tag.contains("src=\"/page/")), "inline script");
        }
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let file = &FILES[0];
        let tag = file.tag();
        let asked = |known: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(known).expect("a tag"));
            file.answer(&headers, &tag).status()
        };
        let known = tag.to_str().expect("a tag");
        assert_eq!(asked(known), StatusCode::NOT_MODIFIED);
        assert_eq!(asked(&format!("\"other\", W/{known}")), StatusCode::NOT_MODIFIED);
        assert_eq!(asked("\"other\""), StatusCode::OK);
        let tags: std::collections::BTreeSet<_> =
            FILES.iter().map(|file| file.tag().as_bytes().to_vec()).collect();
        assert_eq!(tags.len(), FILES.len());
    }
}
