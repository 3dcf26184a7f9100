//! Every call into Envoy: the imports of the proxy-wasm ABI 0.2.1 that the filter needs, and no others.
//!
//! They give bytes, since a client may send any, and a status as a `Result`, since a panic would take the worker down.

use std::time::Duration;

use crate::local::{Shared, Unshared};

/// A level of Envoy's log.
#[derive(Clone, Copy, Debug)]
pub enum LogLevel {
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// Headers, by whose they are.
#[derive(Clone, Copy, Debug)]
pub enum HeaderMap {
    Request = 0,
    Response = 2,
    CallResponse = 6,
}

/// Bytes, by whose they are.
#[derive(Clone, Copy, Debug)]
pub enum Buffer {
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// A status other than Ok that Envoy gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub u32);

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;
const COUNTER: u32 = 0;
const GAUGE: u32 = 1;
const HISTOGRAM: u32 = 2;
const REQUEST: u32 = 0;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        version: u32,
    ) -> u32;
    fn proxy_set_effective_context(context_id: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period_ms: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

fn done(status: u32) -> Result<(), Refused> {
    if status == OK { Ok(()) } else { Err(Refused(status)) }
}

/// Bytes that Envoy allocated in our memory and that are ours now.
///
/// # Safety
/// `data` and `size` must be as Envoy filled them in: null, or one whole allocation by
/// `proxy_on_memory_allocate(size)`.
unsafe fn owned(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: it was allocated by a Vec whose capacity is exactly `size`.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

/// Writes a line to Envoy's log.
pub fn log(level: LogLevel, message: &str) {
    // SAFETY: the pointer and the size are those of a live string. There is nobody to tell of a failure.
    let _status = unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Up to `max` bytes of a buffer.
pub fn buffer(kind: Buffer, max: usize) -> Result<Vec<u8>, Refused> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: Envoy fills in both, or neither.
    unsafe {
        done(proxy_get_buffer_bytes(kind as u32, 0, max, &mut data, &mut size))?;
        Ok(owned(data, size))
    }
}

/// The first value of a header; `None` where it is not there, which is not the same as empty.
pub fn header(map: HeaderMap, name: &str) -> Option<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: as above.
    unsafe {
        let status = proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), &mut data, &mut size);
        (status == OK).then(|| owned(data, size))
    }
}

/// Every value of a header, in order, one for each line in which it was sent.
pub fn header_lines(map: HeaderMap, name: &str) -> Vec<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: as above.
    let all = unsafe {
        let status = proxy_get_header_map_pairs(map as u32, &mut data, &mut size);
        if status == OK { owned(data, size) } else { Vec::new() }
    };
    values_of(&all, name.as_bytes()).unwrap_or_default()
}

/// The values that go by `name` in pairs of the ABI; see [`pairs`]. `None` where they are none.
fn values_of(pairs: &[u8], name: &[u8]) -> Option<Vec<Vec<u8>>> {
    let size = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).ok();
    let (count, rest) = pairs.split_first_chunk()?;
    let (sizes, mut texts) = rest.split_at_checked(size(count)?.checked_mul(8)?)?;
    let mut values = Vec::new();
    for sizes in sizes.chunks_exact(8) {
        let (of_name, of_value) = (size(sizes.first_chunk()?)?, size(sizes.last_chunk()?)?);
        let (found, rest) = texts.split_at_checked(of_name)?;
        let (value, rest) = rest.get(1..)?.split_at_checked(of_value)?;
        texts = rest.get(1..)?;
        if found == name {
            values.push(value.to_vec());
        }
    }
    Some(values)
}

/// Adds a header, beside those of the same name.
pub fn add_header(map: HeaderMap, name: &str, value: &str) -> Result<(), Refused> {
    // SAFETY: the pointers and sizes are those of live strings.
    done(unsafe {
        proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Sets a header to one value, in the place of all of the same name.
pub fn replace_header(map: HeaderMap, name: &str, value: &str) -> Result<(), Refused> {
    // SAFETY: the pointers and sizes are those of live strings.
    done(unsafe {
        proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// A property, by its path with the parts ended by NUL, such as `source\0address`.
pub fn property(path: &str) -> Option<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: as above.
    unsafe {
        let status = proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size);
        (status == OK).then(|| owned(data, size))
    }
}

/// A property that is a number, as Envoy encodes them.
pub fn number(path: &str) -> Option<u64> {
    property(path)?.try_into().map(u64::from_le_bytes).ok()
}

/// Sets the filter state `wasm.NAME`.
pub fn set_filter_state(name: &str, value: &str) -> Result<(), Refused> {
    // SAFETY: the pointers and sizes are those of live strings.
    done(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Makes calls act on another context, until the current callback ends; refused for one that is gone.
pub fn set_effective_context(context_id: u32) -> Result<(), Refused> {
    // SAFETY: takes a number only.
    done(unsafe { proxy_set_effective_context(context_id) })
}

/// Lets the paused request of the effective context go on.
pub fn resume_request() -> Result<(), Refused> {
    // SAFETY: takes a number only.
    done(unsafe { proxy_continue_stream(REQUEST) })
}

/// Has the root context of the effective one called so often; a period of zero ends it.
pub fn set_tick_period(period: Duration) -> Result<(), Refused> {
    let period_ms = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: takes a number only.
    done(unsafe { proxy_set_tick_period_milliseconds(period_ms) })
}

/// Answers the request of the effective context. `details` becomes its response code details, `headers` are [`pairs`].
pub fn reply(
    status: u16,
    grpc_status: i32,
    details: &str,
    headers: &[u8],
    body: &str,
) -> Result<(), Refused> {
    // SAFETY: the pointers and sizes are those of live strings and vectors.
    done(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    })
}

/// Pairs in the form of the ABI: how many, the sizes of each name and value, then each of them ended by NUL.
pub fn pairs(headers: &[(&str, &str)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    let texts = headers.iter().map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(10));
    let mut bytes = Vec::with_capacity(texts.fold(4, usize::saturating_add));
    bytes.extend_from_slice(&u32::try_from(headers.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (name, value) in headers {
        bytes.extend_from_slice(&size(name));
        bytes.extend_from_slice(&size(value));
    }
    for (name, value) in headers {
        for text in [name, value] {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
    }
    bytes
}

/// Sends a callout, and returns its token. The effective context owns it, and gets the answer.
pub fn http_call(
    cluster: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<u32, Refused> {
    let (headers, trailers) = (pairs(headers), pairs(&[]));
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let mut token = 0;
    // SAFETY: the pointers and sizes are those of live strings and vectors; Envoy fills in the token.
    done(unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            timeout_ms,
            &mut token,
        )
    })?;
    Ok(token)
}

/// The data that all workers of this Envoy share, with those of other filters of the same `vm_id`.
pub struct SharedData;

impl Shared for SharedData {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, Unshared> {
        let (mut data, mut size, mut version) = (std::ptr::null_mut(), 0, 0);
        // SAFETY: the name is a live string; Envoy fills in all three, or none.
        unsafe {
            match proxy_get_shared_data(name.as_ptr(), name.len(), &mut data, &mut size, &mut version) {
                OK => Ok(Some((owned(data, size), version))),
                NOT_FOUND => Ok(None),
                _ => Err(Unshared),
            }
        }
    }

    fn swap(&self, name: &str, value: &[u8], version: u32) -> Result<bool, Unshared> {
        // SAFETY: the pointers and sizes are those of a live string and a live slice.
        let status =
            unsafe { proxy_set_shared_data(name.as_ptr(), name.len(), value.as_ptr(), value.len(), version) };
        match status {
            OK => Ok(true),
            CAS_MISMATCH => Ok(false),
            _ => Err(Unshared),
        }
    }
}

/// Defines a counter and returns its number.
pub fn define_counter(name: &str) -> Result<u32, Refused> {
    define(COUNTER, name)
}

/// Defines a gauge, which all workers share, and returns its number.
pub fn define_gauge(name: &str) -> Result<u32, Refused> {
    define(GAUGE, name)
}

/// Defines a histogram, which all workers share, and returns its number.
pub fn define_histogram(name: &str) -> Result<u32, Refused> {
    define(HISTOGRAM, name)
}

fn define(kind: u32, name: &str) -> Result<u32, Refused> {
    let mut id = 0;
    // SAFETY: the pointer and the size are those of a live string; Envoy fills in the number.
    done(unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

/// Adds a value to a histogram.
pub fn record(id: u32, value: u64) {
    // SAFETY: takes numbers only. There is nobody to tell of a failure.
    let _status = unsafe { proxy_record_metric(id, value) };
}

/// Moves a gauge.
pub fn move_gauge(id: u32, by: i64) {
    // SAFETY: takes numbers only. There is nobody to tell of a failure.
    let _status = unsafe { proxy_increment_metric(id, by) };
}

/// Adds to a counter. Envoy refuses to add 0.
pub fn count(id: u32, by: u32) {
    if by > 0 {
        // SAFETY: takes numbers only. There is nobody to tell of a failure.
        let _status = unsafe { proxy_increment_metric(id, i64::from(by)) };
    }
}
