//! Where Envoy comes in: the exports of the proxy-wasm ABI 0.2.1 that the filter needs, and no others, since each that
//! is exported is called.
//!
//! Contexts are looked up and let go before they are called, so no order of callbacks can find one borrowed; one that is
//! not known is ignored. The usual SDK panics in such cases, calls the filter for bodies, trailers and logs that it
//! does not want, and notes owners of callouts that only Envoy need know.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;

use crate::root::Root;
use crate::stream::{Action, Stream};

#[derive(Clone)]
enum Context {
    Root(Rc<Root>),
    Stream(Rc<Stream>),
}

thread_local! {
    /// The contexts of this VM, by the numbers that Envoy gives them. All that belongs to a configuration is in its
    /// root context.
    static CONTEXTS: RefCell<HashMap<u32, Context>> = RefCell::default();
}

fn context(id: u32) -> Option<Context> {
    CONTEXTS.with_borrow(|contexts| contexts.get(&id).cloned())
}

fn root(id: u32) -> Option<Rc<Root>> {
    context(id).and_then(|context| if let Context::Root(root) = context { Some(root) } else { None })
}

fn stream(id: u32) -> Option<Rc<Stream>> {
    context(id).and_then(|context| if let Context::Stream(stream) = context { Some(stream) } else { None })
}

/// Tells Envoy which version of the ABI this is.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for bytes that Envoy hands over; see `host::owned`.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Box::into_raw(vec![0_u8; size].into_boxed_slice()).cast()
}

/// A root context where `root_id` is 0, otherwise a request under that root.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(id: u32, root_id: u32) {
    let context = if root_id == 0 {
        Context::Root(Rc::new(Root::new(id)))
    } else {
        let worker = root(root_id).and_then(|root| root.worker());
        Context::Stream(Rc::new(Stream::new(id, worker)))
    };
    CONTEXTS.with_borrow_mut(|contexts| contexts.insert(id, context));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root_id: u32, size: usize) -> u32 {
    u32::from(root(root_id).is_some_and(|root| root.configure(size)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(id: u32, _num_headers: usize, _end_of_stream: u32) -> u32 {
    stream(id).map_or(Action::Continue, |stream| stream.request_headers()) as u32
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(id: u32, _num_headers: usize, _end_of_stream: u32) -> u32 {
    if let Some(stream) = stream(id) {
        stream.response_headers();
    }
    Action::Continue as u32
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root_id: u32) {
    if let Some(root) = root(root_id) {
        root.tick();
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    root_id: u32,
    token: u32,
    num_headers: usize,
    body_size: usize,
    _num_trailers: usize,
) {
    if let Some(root) = root(root_id) {
        root.call_response(token, num_headers, body_size);
    }
}

/// Whether the context may be deleted now: always. It is forgotten here, and not when Envoy deletes it, which would be
/// one more call for each request.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(id: u32) -> u32 {
    let done = CONTEXTS.with_borrow_mut(|contexts| contexts.remove(&id));
    match done {
        Some(Context::Stream(stream)) => stream.done(),
        Some(Context::Root(root)) => root.done(),
        None => {}
    }
    1
}

/// Called by Envoy before all others, and must run what the linker gathered to be run first.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    unsafe extern "C" {
        safe fn __wasm_call_ctors();
    }
    __wasm_call_ctors();
}
