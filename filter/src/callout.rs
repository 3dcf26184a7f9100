//! Takes as bytes, and the bytes that come back as verdicts.

use std::borrow::Cow;
use std::time::Duration;

use contract::{MARKER_HEADER, TAKE_PATH, Take, TakeRequest, TakeResponse, VERSION, Verdict};
use policy::{Failure, Policies};

use crate::host::{self, Buffer, HeaderMap};

/// The largest answer that is read, in bytes: more than any answer to a batch of ours has.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The longest that a probe is waited for, since no other is sent meanwhile.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The body of a callout.
pub fn encode<'a>(policies: &'a Policies, takes: Vec<Take<'a>>) -> Option<Vec<u8>> {
    serde_json::to_vec(&TakeRequest { domain: Cow::Borrowed(policies.domain()), takes }).ok()
}

/// Sends `body` to the sidecar; the token of the callout, or why it could not be sent.
pub fn send(policies: &Policies, body: &[u8]) -> Result<u32, host::Refused> {
    let sidecar = policies.sidecar();
    let headers = [
        (":method", "POST"),
        (":path", TAKE_PATH),
        // A fixed name: a cluster may be named in ways that HTTP/2 refuses here.
        (":authority", "sluice"),
        ("content-type", "application/json"),
    ];
    host::http_call(&sidecar.cluster, &headers, body, sidecar.timeout)
}

/// Sends a callout that asks for nothing; its token, or why it could not be sent.
pub fn probe(policies: &Policies) -> Result<u32, host::Refused> {
    let sidecar = policies.sidecar();
    let headers = [(":method", "GET"), (":path", "/healthz"), (":authority", "sluice")];
    host::http_call(&sidecar.cluster, &headers, &[], sidecar.timeout.min(PROBE_TIMEOUT))
}

/// Whether a sidecar wrote the answer to the callout that has just come back.
pub fn is_ours(num_headers: usize) -> bool {
    num_headers > 0
        && host::header(HeaderMap::CallResponse, MARKER_HEADER).as_deref() == Some(VERSION.as_bytes())
}

/// The verdicts of the callout that has just come back, one for each of `takes`.
///
/// Without headers the answer broke off, and no header may be read. Without the marker it is Envoy's own: a
/// timeout, or a sidecar that could not be reached.
pub fn verdicts(takes: usize, num_headers: usize, body_size: usize) -> Result<Vec<Verdict>, Failure> {
    if num_headers == 0 {
        return Err(Failure::Reset);
    }
    let status = host::header(HeaderMap::CallResponse, ":status");
    if !is_ours(num_headers) {
        let timeout = status.as_deref() == Some(b"504");
        return Err(if timeout { Failure::Timeout } else { Failure::NoAnswer });
    }
    if status.as_deref() != Some(b"200") {
        return Err(Failure::Refused);
    }
    let body = host::buffer(Buffer::CallResponseBody, body_size.min(MAX_ANSWER_BYTES))
        .map_err(|_| Failure::Unreadable)?;
    let response: TakeResponse = serde_json::from_slice(&body).map_err(|_| Failure::Unreadable)?;
    if response.verdicts.len() == takes { Ok(response.verdicts) } else { Err(Failure::Unreadable) }
}
