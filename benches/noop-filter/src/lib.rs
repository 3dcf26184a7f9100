//! A proxy-wasm filter that lets every request pass without looking at it.
//!
//! `cargo xtask bench` measures it, so that what any filter costs can be told from what Sluice's costs. It has
//! the callbacks that Envoy makes for each request of a filter that reads headers, and none of them does a thing.

/// Tells Envoy the version of the ABI.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for what Envoy hands over, which is only ever a configuration: it is never freed.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Box::into_raw(vec![0_u8; size].into_boxed_slice()).cast()
}

/// A new request, or the filter itself.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(_id: u32, _root_id: u32) {}

/// Any configuration is right.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_root_id: u32, _size: usize) -> u32 {
    1
}

/// Lets the request pass: 0 is "continue".
#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(_id: u32, _num_headers: usize, _end_of_stream: u32) -> u32 {
    0
}

/// Lets the response pass.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(_id: u32, _num_headers: usize, _end_of_stream: u32) -> u32 {
    0
}

/// Has nothing left to do for a request.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(_id: u32) -> u32 {
    1
}

/// Forgets a request.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(_id: u32) {}
