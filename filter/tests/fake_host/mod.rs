//! An Envoy in a few functions: the other side of every import of the filter, native, so that the real exports
//! and the real filter run under a test. Strict where Envoy would crash or misbehave: it panics there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const INTERNAL_FAILURE: u32 = 10;

const REQUEST_HEADERS: u32 = 0;
const CALL_RESPONSE_HEADERS: u32 = 6;
const CALL_RESPONSE_BODY: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;

pub type Headers = Vec<(&'static str, Vec<u8>)>;

/// What became of a request, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Resumed,
    Replied(u32),
}

/// A callout that waits for its answer.
#[derive(Clone, Debug)]
pub struct Callout {
    pub token: u32,
    pub owner: u32,
    pub body: Vec<u8>,
}

/// All that the fake Envoy knows.
#[derive(Default)]
pub struct Host {
    pub configuration: Vec<u8>,
    /// The contexts that are alive, with the headers of their requests.
    pub requests: BTreeMap<u32, Headers>,
    pub events: Vec<(u32, Event)>,
    pub callouts: Vec<Callout>,
    /// The answer that is being delivered; `None` for one that broke off, of which nothing may be read.
    pub answer: Option<(Headers, Vec<u8>)>,
    /// Whether callouts are refused at once, as they are without an endpoint.
    pub no_endpoints: bool,
    pub log: Vec<String>,
    /// How often each import was called.
    pub calls: BTreeMap<&'static str, usize>,
    roots: BTreeSet<u32>,
    current: u32,
    effective: u32,
    next_id: u32,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Looks at the host, or changes it, between two callbacks.
pub fn host<T>(with: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with_borrow_mut(with)
}

/// Runs a callback of `context` as Envoy does.
pub fn callback<T>(context: u32, call: impl FnOnce() -> T) -> T {
    host(|host| (host.current, host.effective) = (context, 0));
    call()
}

/// A context number that was never used before.
pub fn next_id() -> u32 {
    host(|host| {
        host.next_id += 1;
        host.next_id
    })
}

/// Notes a root context.
pub fn root_created(id: u32) {
    host(|host| host.roots.insert(id));
}

impl Host {
    /// The context that a call acts on. It must be alive: Envoy would give a status that the filter must not meet.
    fn acting(&self) -> u32 {
        if self.effective == 0 { self.current } else { self.effective }
    }

    fn is_alive(&self, id: u32) -> bool {
        self.requests.contains_key(&id) || self.roots.contains(&id)
    }
}

fn called<T>(name: &'static str, with: impl FnOnce(&mut Host) -> T) -> T {
    host(|host| {
        *host.calls.entry(name).or_default() += 1;
        with(host)
    })
}

/// Hands bytes over in memory that the filter allocated, as Envoy does.
unsafe fn give(bytes: &[u8], data: *mut *mut u8, size: *mut usize) -> u32 {
    let memory = proxy_on_memory_allocate(bytes.len());
    // SAFETY: the allocation has that many bytes, and the filter passed both pointers.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len());
        *data = memory;
        *size = bytes.len();
    }
    OK
}

unsafe fn taken<'a>(data: *const u8, size: usize) -> &'a [u8] {
    // SAFETY: the filter passed the parts of a live slice.
    if size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, size) } }
}

unsafe extern "C" {
    safe fn proxy_on_memory_allocate(size: usize) -> *mut u8;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_log(_level: u32, message: *const u8, size: usize) -> u32 {
    let line = String::from_utf8_lossy(unsafe { taken(message, size) }).into_owned();
    called("log", |host| host.log.push(line));
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_buffer_bytes(
    kind: u32,
    start: usize,
    max: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    let bytes = called("get_buffer_bytes", |host| match kind {
        PLUGIN_CONFIGURATION => host.configuration.clone(),
        CALL_RESPONSE_BODY => host.answer.as_ref().expect("a body that broke off was read").1.clone(),
        other => panic!("the buffer {other} was read"),
    });
    unsafe { give(&bytes[start..bytes.len().min(start + max)], data, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_header_map_value(
    map: u32,
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    let key = unsafe { taken(key, key_size) };
    let value = called("get_header_map_value", |host| {
        let headers = match map {
            REQUEST_HEADERS => {
                host.requests.get(&host.acting()).expect("headers of a request that is gone were read")
            }
            CALL_RESPONSE_HEADERS => {
                &host.answer.as_ref().expect("headers of an answer that broke off were read").0
            }
            other => panic!("the header map {other} was read"),
        };
        headers.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, value)| value.clone())
    });
    match value {
        Some(value) => unsafe { give(&value, data, size) },
        None => NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_replace_header_map_value(
    _map: u32,
    _key: *const u8,
    _key_size: usize,
    _value: *const u8,
    _value_size: usize,
) -> u32 {
    called("replace_header_map_value", |_| OK)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_property(
    path: *const u8,
    path_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    let path = unsafe { taken(path, path_size) };
    called("get_property", |_| assert_eq!(path, b"source\0address"));
    unsafe { give(b"192.0.2.1:4711", data, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_property(_p: *const u8, _ps: usize, _v: *const u8, _vs: usize) -> u32 {
    called("set_property", |host| if host.is_alive(host.acting()) { OK } else { BAD_ARGUMENT })
}

fn act(host: &mut Host, event: Event) -> u32 {
    let id = host.acting();
    assert!(host.requests.contains_key(&id), "{event:?} on the context {id}, which is no live request");
    host.events.push((id, event));
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_continue_stream(_stream: u32) -> u32 {
    called("continue_stream", |host| act(host, Event::Resumed))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_send_local_response(
    status: u32,
    _details: *const u8,
    _details_size: usize,
    _body: *const u8,
    _body_size: usize,
    _headers: *const u8,
    _headers_size: usize,
    _grpc_status: i32,
) -> u32 {
    called("send_local_response", |host| act(host, Event::Replied(status)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_effective_context(id: u32) -> u32 {
    called("set_effective_context", |host| {
        if !host.is_alive(id) {
            return BAD_ARGUMENT;
        }
        host.effective = id;
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_http_call(
    _upstream: *const u8,
    _upstream_size: usize,
    _headers: *const u8,
    _headers_size: usize,
    body: *const u8,
    body_size: usize,
    _trailers: *const u8,
    _trailers_size: usize,
    _timeout: u32,
    token: *mut u32,
) -> u32 {
    let body = unsafe { taken(body, body_size) }.to_vec();
    called("http_call", |host| {
        if host.no_endpoints {
            return INTERNAL_FAILURE;
        }
        host.next_id += 1;
        unsafe { *token = host.next_id };
        host.callouts.push(Callout { token: host.next_id, owner: host.acting(), body });
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_define_metric(_kind: u32, _name: *const u8, _size: usize, id: *mut u32) -> u32 {
    called("define_metric", |host| {
        host.next_id += 1;
        unsafe { *id = host.next_id };
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_increment_metric(_id: u32, offset: i64) -> u32 {
    called("increment_metric", |_| if offset == 0 { BAD_ARGUMENT } else { OK })
}
