//! An answer in the upstream's place, in the form in which Envoy takes it.

use policy::Denial;

use crate::host::{self, HeaderMap, Refused};

/// Ready to be sent, to one request or to many.
pub struct Reply {
    status: u16,
    grpc_status: i32,
    /// See [`host::pairs`].
    headers: Vec<u8>,
    body: String,
    message: String,
    details: String,
}

impl Reply {
    pub fn new(denial: Denial) -> Self {
        let Denial { status, grpc_status, headers, body, details, message } = denial;
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
        Self { status, grpc_status, headers: host::pairs(&headers), body, message, details }
    }

    /// How many it has.
    pub fn bytes(&self) -> usize {
        let texts = [self.headers.len(), self.body.len(), self.message.len(), self.details.len()];
        texts.into_iter().fold(0, usize::saturating_add)
    }

    /// Answers the request of the effective context.
    pub fn send(&self) -> Result<(), Refused> {
        let body = if is_grpc() { &self.message } else { &self.body };
        host::reply(self.status, self.grpc_status, &self.details, &self.headers, body)
    }
}

/// Whether the request of the effective context is gRPC, by Envoy's own rule: it sends the body of a reply to it as the
/// message of its status.
fn is_grpc() -> bool {
    let content_type = host::header(HeaderMap::Request, "content-type").unwrap_or_default();
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}
