//! The current request and its response, as the policies see them: each thing is read from Envoy at most once, and only
//! if asked for.

use std::cell::OnceCell;

use elsa::FrozenVec;
use policy::{Request, Response};

use crate::host::{self, HeaderMap};

/// The request whose headers have just arrived; valid within that callback only.
#[derive(Default)]
pub struct RequestView {
    headers: Seen,
    attributes: Seen,
    cookies: OnceCell<Vec<Vec<u8>>>,
    draw: OnceCell<u32>,
}

/// The response whose headers have just arrived; valid within that callback only.
#[derive(Default)]
pub struct ResponseView {
    headers: Seen,
}

/// What was asked for, whether or not it is there. Grows only, so that it can be lent for as long as the view lives.
#[derive(Default)]
struct Seen(FrozenVec<Box<(String, Option<Vec<u8>>)>>);

impl Seen {
    /// What goes by `name`: as it was seen, or else as `read` gives it.
    fn get(&self, name: &str, read: impl FnOnce() -> Option<Vec<u8>>) -> Option<&[u8]> {
        let known = self.0.iter().find(|(seen, _)| seen == name);
        let (_, value) = known.unwrap_or_else(|| self.0.push_get(Box::new((name.to_owned(), read()))));
        value.as_deref()
    }
}

impl Request for RequestView {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name, || host::header(HeaderMap::Request, name))
    }

    fn cookies(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.cookies.get_or_init(|| host::header_lines(HeaderMap::Request, "cookie"));
        lines.iter().map(Vec::as_slice)
    }

    fn attribute(&self, path: &str) -> Option<&[u8]> {
        self.attributes.get(path, || host::property(path))
    }

    fn draw(&self) -> u32 {
        *self.draw.get_or_init(|| fastrand::u32(..))
    }
}

impl Response for ResponseView {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name, || host::header(HeaderMap::Response, name))
    }
}
