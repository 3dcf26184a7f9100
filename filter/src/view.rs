//! The current request, as the policies see it: each thing is read from Envoy at most once, and only if asked for.

use std::cell::{OnceCell, RefCell};

use policy::Request;
use proxy_wasm::types::MapType;

use crate::host;

/// The request whose headers have just arrived; valid within that callback only.
#[derive(Default)]
pub struct View {
    path: OnceCell<Option<Vec<u8>>>,
    method: OnceCell<Option<Vec<u8>>>,
    client_address: OnceCell<Option<Vec<u8>>>,
    headers: RefCell<Vec<(String, Option<Vec<u8>>)>>,
}

impl Request for View {
    fn path(&self) -> Option<&[u8]> {
        let whole =
            self.path.get_or_init(|| host::header(MapType::HttpRequestHeaders, ":path")).as_deref()?;
        whole.split(|&byte| byte == b'?' || byte == b'#').next()
    }

    fn method(&self) -> Option<&[u8]> {
        self.method.get_or_init(|| host::header(MapType::HttpRequestHeaders, ":method")).as_deref()
    }

    fn header(&self, name: &str) -> Option<Vec<u8>> {
        let mut read = self.headers.borrow_mut();
        if let Some((_, value)) = read.iter().find(|(known, _)| known == name) {
            return value.clone();
        }
        let value = host::header(MapType::HttpRequestHeaders, name);
        read.push((name.to_owned(), value.clone()));
        value
    }

    fn client_address(&self) -> Option<&[u8]> {
        self.client_address.get_or_init(|| host::property("source\0address")).as_deref()
    }
}
