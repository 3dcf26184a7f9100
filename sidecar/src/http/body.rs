//! Reading a request's body, bounded in size and in time, and by what all requests together may hold.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

use super::{refusal::RequestError, room::Room};

/// A filter sends its body at once; what takes longer than this is stuck.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the bodies of all requests and the answers that wait to be read may hold together, unless a single body may
/// hold more. A filter's batch has a few kilobytes.
pub(super) const BODIES_BYTES: usize = 64 << 20;

pub(super) async fn read(body: Body, max_bytes: usize, room: &Arc<Room>) -> Result<Bytes, RequestError> {
    // A length that was declared is refused before a byte of it is read.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(RequestError::BodyTooLarge { max_bytes });
    }
    let outcome = tokio::time::timeout(BODY_TIMEOUT, collect(body, max_bytes, room)).await;
    outcome.unwrap_or(Err(RequestError::BodyTooSlow(BODY_TIMEOUT)))
}

async fn collect(mut body: Body, max_bytes: usize, room: &Arc<Room>) -> Result<Bytes, RequestError> {
    let mut place = room.enter(0).ok_or(RequestError::NoRoom)?;
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| RequestError::BodyLost)?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > max_bytes {
            return Err(RequestError::BodyTooLarge { max_bytes });
        }
        if !place.grow(data.len()) {
            return Err(RequestError::NoRoom);
        }
        if first.is_empty() {
            first = data;
        } else {
            whole.extend_from_slice(if whole.is_empty() { &first } else { &[] });
            whole.extend_from_slice(&data);
        }
    }
    // Most bodies come in one piece, which need not be copied.
    Ok(if whole.is_empty() { first } else { whole.into() })
}

/// A body with something that is dropped once it was handed on wholly, or given up.
pub(super) struct Kept<B, T> {
    body: B,
    kept: Option<T>,
}

impl<B, T> Kept<B, T> {
    pub(super) fn new(body: B, kept: T) -> Self {
        Self { body, kept: Some(kept) }
    }
}

impl<B: HttpBody + Unpin, T: Unpin> HttpBody for Kept<B, T> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if self.body.is_end_stream() {
            self.kept = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
