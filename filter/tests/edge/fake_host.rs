//! An Envoy in a few functions: the other side of every import of the filter, native, so that the real exports
//! and the real filter run under a test. Strict where Envoy would crash or misbehave: it panics there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

const OK: u32 = 0;
const CAS_MISMATCH: u32 = 8;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const INTERNAL_FAILURE: u32 = 10;

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const CALL_RESPONSE_HEADERS: u32 = 6;
const CALL_RESPONSE_BODY: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;

pub type Headers = Vec<(&'static str, Vec<u8>)>;

/// What became of a request, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Resumed,
    Replied(Reply),
}

/// An answer in the upstream's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u32,
    pub grpc_status: i32,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub details: String,
}

/// A callout that waits for its answer.
#[derive(Clone, Debug)]
pub struct Callout {
    pub token: u32,
    pub owner: u32,
    pub path: String,
    pub timeout_ms: u32,
    pub body: Vec<u8>,
}

/// All that the fake Envoy knows.
#[derive(Default)]
pub struct Host {
    pub configuration: Vec<u8>,
    /// The contexts that are alive, with the headers of their requests.
    pub requests: BTreeMap<u32, Headers>,
    /// The responses whose headers have just arrived, as they are by now; at other times nobody may look at them.
    pub responses: BTreeMap<u32, Vec<(String, String)>>,
    /// What is known of every request, by the paths of the attributes.
    pub attributes: BTreeMap<&'static str, Vec<u8>>,
    pub events: Vec<(u32, Event)>,
    /// What the access log is told of each request.
    pub reports: BTreeMap<u32, String>,
    /// How often each context is to be called; 0 is never.
    pub tick_periods_ms: BTreeMap<u32, u32>,
    pub callouts: Vec<Callout>,
    /// The answer that is being delivered; `None` for one that broke off, of which nothing may be read.
    pub answer: Option<(Headers, Vec<u8>)>,
    /// Whether callouts are refused at once, as they are without an endpoint.
    pub no_endpoints: bool,
    /// Whether shared data cannot be written.
    pub no_shared: bool,
    pub log: Vec<String>,
    /// How often each import was called.
    pub calls: BTreeMap<&'static str, usize>,
    /// The counters, by name. Two of the same name count together.
    pub counters: BTreeMap<String, i64>,
    /// The data that all workers share, with versions.
    pub shared: BTreeMap<String, (Vec<u8>, u32)>,
    versions: u32,
    /// The gauges, by name.
    pub gauges: BTreeMap<String, i64>,
    /// The values of the histograms, by name.
    pub histograms: BTreeMap<String, Vec<u64>>,
    counter_names: BTreeMap<u32, String>,
    gauge_names: BTreeMap<u32, String>,
    histogram_names: BTreeMap<u32, String>,
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

    fn response(&mut self) -> &mut Vec<(String, String)> {
        let id = self.acting();
        self.responses.get_mut(&id).expect("headers of a response that is not there were touched")
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

unsafe fn text(data: *const u8, size: usize) -> String {
    // SAFETY: as above.
    String::from_utf8(unsafe { taken(data, size) }.to_vec()).expect("the filter writes UTF-8")
}

/// The pairs that the filter encoded.
fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut at = 4 + number(0) * 8;
    let mut next = |size: usize| {
        let text = String::from_utf8(bytes[at..at + size].to_vec()).expect("the filter writes UTF-8");
        at += size + 1;
        text
    };
    (0..number(0)).map(|index| (next(number(4 + index * 8)), next(number(8 + index * 8)))).collect()
}

unsafe extern "C" {
    safe fn proxy_on_memory_allocate(size: usize) -> *mut u8;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_log(_level: u32, message: *const u8, size: usize) -> u32 {
    let line = unsafe { text(message, size) };
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
    let first = |headers: &Headers| {
        headers.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, value)| value.clone())
    };
    let value = called("get_header_map_value", |host| match map {
        REQUEST_HEADERS => {
            first(host.requests.get(&host.acting()).expect("headers of a request that is gone were read"))
        }
        RESPONSE_HEADERS => {
            let mut headers = host.response().iter();
            headers.find(|(name, _)| name.as_bytes() == key).map(|(_, value)| value.clone().into_bytes())
        }
        CALL_RESPONSE_HEADERS => {
            first(&host.answer.as_ref().expect("headers of an answer that broke off were read").0)
        }
        other => panic!("the header map {other} was read"),
    });
    match value {
        Some(value) => unsafe { give(&value, data, size) },
        None => NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32 {
    assert_eq!(map, REQUEST_HEADERS);
    let headers = called("get_header_map_pairs", |host| {
        host.requests.get(&host.acting()).expect("headers of a request that is gone were read").clone()
    });
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut bytes = u32::try_from(headers.len()).unwrap().to_le_bytes().to_vec();
    for (name, value) in &headers {
        bytes.extend(length(name.as_bytes()));
        bytes.extend(length(value));
    }
    for (name, value) in &headers {
        for text in [name.as_bytes(), value] {
            bytes.extend(text);
            bytes.push(0);
        }
    }
    unsafe { give(&bytes, data, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_add_header_map_value(
    map: u32,
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    let header = unsafe { (text(key, key_size), text(value, value_size)) };
    assert_eq!(map, RESPONSE_HEADERS);
    called("add_header_map_value", |host| host.response().push(header));
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_replace_header_map_value(
    map: u32,
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    let header = unsafe { (text(key, key_size), text(value, value_size)) };
    assert_eq!(map, RESPONSE_HEADERS);
    called("replace_header_map_value", |host| {
        host.response().retain(|(name, _)| *name != header.0);
        host.response().push(header);
    });
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_property(
    path: *const u8,
    path_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    let path = unsafe { text(path, path_size) };
    let value = called("get_property", |host| {
        assert!(host.requests.contains_key(&host.acting()), "{path:?} was read of no live request");
        host.attributes.get(path.as_str()).cloned()
    });
    match value {
        Some(value) => unsafe { give(&value, data, size) },
        None => NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_property(
    path: *const u8,
    path_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    let (path, value) = unsafe { (text(path, path_size), text(value, value_size)) };
    assert_eq!(path, "sluice");
    called("set_property", |host| {
        let id = host.acting();
        if !host.is_alive(id) {
            return BAD_ARGUMENT;
        }
        host.reports.insert(id, value);
        OK
    })
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
    details: *const u8,
    details_size: usize,
    body: *const u8,
    body_size: usize,
    headers: *const u8,
    headers_size: usize,
    grpc_status: i32,
) -> u32 {
    let (headers, body) = unsafe { (pairs(taken(headers, headers_size)), text(body, body_size)) };
    let details = unsafe { text(details, details_size) };
    let reply = Reply { status, grpc_status, headers, body, details };
    called("send_local_response", |host| act(host, Event::Replied(reply)))
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
    headers: *const u8,
    headers_size: usize,
    body: *const u8,
    body_size: usize,
    _trailers: *const u8,
    _trailers_size: usize,
    timeout_ms: u32,
    token: *mut u32,
) -> u32 {
    let (headers, body) = unsafe { (pairs(taken(headers, headers_size)), taken(body, body_size).to_vec()) };
    let path = headers.into_iter().find(|(name, _)| name == ":path").expect("a path").1;
    called("http_call", |host| {
        if host.no_endpoints {
            return INTERNAL_FAILURE;
        }
        host.next_id += 1;
        unsafe { *token = host.next_id };
        host.callouts.push(Callout { token: host.next_id, owner: host.acting(), path, timeout_ms, body });
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_shared_data(
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
    version: *mut u32,
) -> u32 {
    let key = unsafe { text(key, key_size) };
    match called("get_shared_data", |host| host.shared.get(&key).cloned()) {
        Some((value, current)) => unsafe {
            *version = current;
            give(&value, data, size)
        },
        None => NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_shared_data(
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
    version: u32,
) -> u32 {
    let (key, value) = unsafe { (text(key, key_size), taken(value, value_size).to_vec()) };
    called("set_shared_data", |host| {
        if host.no_shared {
            return INTERNAL_FAILURE;
        }
        if version != 0 && host.shared.get(&key).is_some_and(|(_, current)| *current != version) {
            return CAS_MISMATCH;
        }
        host.versions += 1;
        host.shared.insert(key, (value, host.versions));
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_tick_period_milliseconds(period: u32) -> u32 {
    called("set_tick_period_milliseconds", |host| {
        host.tick_periods_ms.insert(host.acting(), period);
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32 {
    let name = unsafe { text(name, size) };
    called("define_metric", |host| {
        host.next_id += 1;
        unsafe { *id = host.next_id };
        let names = match kind {
            0 => &mut host.counter_names,
            1 => &mut host.gauge_names,
            _ => &mut host.histogram_names,
        };
        names.insert(host.next_id, name);
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_record_metric(id: u32, value: u64) -> u32 {
    called("record_metric", |host| {
        let name = host.histogram_names.get(&id).expect("a histogram that was never defined").clone();
        host.histograms.entry(name).or_default().push(value);
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_increment_metric(id: u32, offset: i64) -> u32 {
    called("increment_metric", |host| {
        if let Some(name) = host.gauge_names.get(&id) {
            *host.gauges.entry(name.clone()).or_default() += offset;
            return OK;
        }
        assert!(offset > 0, "Envoy refuses to add {offset}");
        let name = host.counter_names.get(&id).expect("a counter that was never defined").clone();
        *host.counters.entry(name).or_default() += offset;
        OK
    })
}
