//! The current request, as the policies see it: each thing is read from Envoy at most once, and only if asked for.

use std::cell::OnceCell;

use elsa::FrozenVec;
use policy::Request;

use crate::host::{self, HeaderMap};

/// The request whose headers have just arrived; valid within that callback only.
#[derive(Default)]
pub struct View {
    path: OnceCell<Option<Vec<u8>>>,
    method: OnceCell<Option<Vec<u8>>>,
    client_address: OnceCell<Option<Vec<u8>>>,
    /// Grows only, so that what was read can be lent for as long as the view lives.
    headers: FrozenVec<Box<Header>>,
}

/// A header that was asked for, whether or not it is there.
struct Header {
    name: String,
    value: Option<Vec<u8>>,
}

impl Request for View {
    fn path(&self) -> Option<&[u8]> {
        let whole = self.path.get_or_init(|| host::header(HeaderMap::Request, ":path")).as_deref()?;
        whole.split(|&byte| byte == b'?' || byte == b'#').next()
    }

    fn method(&self) -> Option<&[u8]> {
        self.method.get_or_init(|| host::header(HeaderMap::Request, ":method")).as_deref()
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let known = self.headers.iter().find(|header| header.name == name);
        let header = known.unwrap_or_else(|| {
            let value = host::header(HeaderMap::Request, name);
            self.headers.push_get(Box::new(Header { name: name.to_owned(), value }))
        });
        header.value.as_deref()
    }

    fn client_address(&self) -> Option<&[u8]> {
        self.client_address.get_or_init(|| host::property("source\0address")).as_deref()
    }
}
