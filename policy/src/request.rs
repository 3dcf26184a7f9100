//! What a policy may want to know of a request.

/// A request as the policies see it. Bytes, since a client may send any; `None` where there is no such thing.
///
/// Implementations answer from what they have read already: every method may be called once for each policy.
pub trait Request {
    /// The path without the query; `None` for a CONNECT without one.
    fn path(&self) -> Option<&[u8]>;
    /// The method, such as `GET`.
    fn method(&self) -> Option<&[u8]>;
    /// The first value of a header; `name` is in lower case.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The client's address as Envoy writes it: `192.0.2.1:4711`, `[2001:db8::1]:4711`, or the path of a socket.
    fn client_address(&self) -> Option<&[u8]>;
}
