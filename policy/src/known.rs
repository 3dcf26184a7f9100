//! What is known of a request by now: each thing is read at most once and only if asked for, and what is made of it
//! is made once for all policies.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use elsa::FrozenVec;

use crate::Request;
use crate::request::{self, CLIENT_ADDRESS};

/// Bytes that a request lends, or that were read from it.
type Bytes<'a> = Cow<'a, [u8]>;

/// A request while its policies are matched. The names asked for live as long as it, and are not copied.
pub struct Known<'a> {
    request: &'a dyn Request,
    headers: Named<'a>,
    attributes: Named<'a>,
    target: OnceCell<Option<Target<'a>>>,
    host: OnceCell<Option<Bytes<'a>>>,
    cookies: OnceCell<Vec<Bytes<'a>>>,
    client_ip: OnceCell<Option<IpAddr>>,
    draw: OnceCell<u32>,
}

/// The path with its query, and how much of it is the path.
struct Target<'a> {
    text: Bytes<'a>,
    path_bytes: usize,
}

impl<'a> Known<'a> {
    /// Nothing is known of it yet.
    pub fn new(request: &'a dyn Request) -> Self {
        Self {
            request,
            headers: Named::default(),
            attributes: Named::default(),
            target: OnceCell::new(),
            host: OnceCell::new(),
            cookies: OnceCell::new(),
            client_ip: OnceCell::new(),
            draw: OnceCell::new(),
        }
    }

    /// The first value of a header that is none of those below.
    #[inline(never)]
    pub fn header(&self, name: &'a str) -> Option<&[u8]> {
        self.headers.get(name, || self.request.header(name))
    }

    pub fn method(&self) -> Option<&[u8]> {
        self.header(":method")
    }

    /// The path without the query; `None` for a CONNECT without one.
    pub fn path(&self) -> Option<&[u8]> {
        let target = self.target()?;
        target.text.get(..target.path_bytes)
    }

    fn target(&self) -> Option<&Target<'a>> {
        let read = || {
            let text = self.request.header(":path")?;
            let path_bytes = request::path_bytes(&text);
            Some(Target { text, path_bytes })
        };
        self.target.get_or_init(read).as_ref()
    }

    /// The first value of a query parameter, decoded.
    pub fn query(&self, name: &str) -> Option<Bytes<'_>> {
        request::query(&self.target()?.text, name)
    }

    /// The host in lower case, without the port and without a point at its end.
    pub fn host(&self) -> Option<&[u8]> {
        self.host.get_or_init(|| self.request.header(":authority").map(request::host)).as_deref()
    }

    /// The value of the first cookie of a name.
    pub fn cookie(&self, name: &str) -> Option<&[u8]> {
        let lines = self.cookies.get_or_init(|| self.request.cookies());
        request::cookie(lines.iter().map(|line| &**line), name)
    }

    /// An attribute that is there and not empty: Envoy gives an empty text for many a thing that is not there.
    #[inline(never)]
    pub fn attribute(&self, path: &'a str) -> Option<&[u8]> {
        self.attributes.get(path, || self.request.attribute(path)).filter(|value| !value.is_empty())
    }

    /// The client's address without the port; `None` where there is none, as on a Unix socket.
    pub fn client_ip(&self) -> Option<IpAddr> {
        *self.client_ip.get_or_init(|| self.attribute(CLIENT_ADDRESS).and_then(request::ip))
    }

    /// The number that was drawn for this request.
    pub fn draw(&self) -> u32 {
        *self.draw.get_or_init(|| self.request.draw())
    }
}

/// What was read, whether or not it was there, by its name. Grows only, so that it can be lent.
#[derive(Default)]
pub struct Named<'a> {
    /// The first few, which are all for most: they need no memory of their own.
    first: [OnceCell<Entry<'a>>; 4],
    more: FrozenVec<Box<Entry<'a>>>,
}

struct Entry<'a> {
    name: &'a str,
    value: Option<Bytes<'a>>,
}

impl<'a> Named<'a> {
    /// What goes by `name`: as it was read, or else as `read` gives it.
    pub fn get(&self, name: &'a str, read: impl FnOnce() -> Option<Bytes<'a>>) -> Option<&[u8]> {
        for cell in &self.first {
            let Some(entry) = cell.get() else {
                return cell.get_or_init(|| Entry { name, value: read() }).value.as_deref();
            };
            if entry.name == name {
                return entry.value.as_deref();
            }
        }
        let known = self.more.iter().find(|entry| entry.name == name);
        let entry = known.unwrap_or_else(|| self.more.push_get(Box::new(Entry { name, value: read() })));
        entry.value.as_deref()
    }
}
