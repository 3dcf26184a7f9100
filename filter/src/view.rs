//! The current request and its response, as the policies see them: each thing is read from Envoy when it is asked for.

use std::borrow::Cow;

use policy::{Request, Response};

use crate::host::{self, HeaderMap};

/// The request whose headers have just arrived; valid within that callback only.
pub struct RequestView;

/// The response whose headers have just arrived; valid within that callback only.
pub struct ResponseView;

impl Request for RequestView {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        host::header(HeaderMap::Request, name).map(Cow::Owned)
    }

    fn cookies(&self) -> Vec<Cow<'_, [u8]>> {
        host::header_lines(HeaderMap::Request, "cookie").into_iter().map(Cow::Owned).collect()
    }

    fn attribute(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        host::property(path).map(Cow::Owned)
    }

    fn draw(&self) -> u32 {
        fastrand::u32(..)
    }
}

impl Response for ResponseView {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        host::header(HeaderMap::Response, name).map(Cow::Owned)
    }
}
