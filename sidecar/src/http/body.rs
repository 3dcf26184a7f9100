//! Reading a request's body, bounded in size and in time, and by what all requests together may hold.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

use super::{
    refusal::RequestError,
    room::{Place, Room},
};

/// A filter sends its body at once; what takes longer than this is stuck.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the bodies of all requests and the answers that wait to be read may hold together, unless a single body may
/// hold more. A filter's batch has a few kilobytes.
pub(super) const BODIES_BYTES: usize = 64 << 20;

/// The body, and its place among all, to be kept for as long as what was made of it.
pub(super) async fn read(
    body: Body,
    max_bytes: usize,
    room: &Arc<Room>,
) -> Result<(Bytes, Place), RequestError> {
    // A length that was declared is refused before a byte of it is read.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(RequestError::BodyTooLarge { max_bytes });
    }
    let outcome = tokio::time::timeout(BODY_TIMEOUT, collect(body, max_bytes, room)).await;
    outcome.unwrap_or(Err(RequestError::BodyTooSlow(BODY_TIMEOUT)))
}

async fn collect(mut body: Body, max_bytes: usize, room: &Arc<Room>) -> Result<(Bytes, Place), RequestError> {
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
    Ok((if whole.is_empty() { first } else { whole.into() }, place))
}

/// What is told of each piece of a body that was handed on.
pub(super) trait Notes {
    fn piece(&mut self);
}

/// A body with something that is dropped once the last of it was written, or given up: it goes along with the bytes.
///
/// A body is done as soon as it was handed on, and the bytes may wait long after: in the buffers of HTTP/2 for as long as its
/// windows are too small.
pub(super) struct Kept<B, T> {
    body: B,
    kept: Option<T>,
}

/// Bytes, and what they take along.
struct Along<T> {
    bytes: Bytes,
    _kept: T,
}

impl<T> AsRef<[u8]> for Along<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<B, T> Kept<B, T> {
    pub(super) fn new(body: B, kept: T) -> Self {
        Self { body, kept: Some(kept) }
    }
}

impl<B, T> HttpBody for Kept<B, T>
where
    B: HttpBody<Data = Bytes> + Unpin,
    T: Notes + Unpin + Send + 'static,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let last = self.body.is_end_stream();
        if let Some(kept) = &mut self.kept {
            kept.piece();
        }
        let take_along = |bytes| match self.kept.take_if(|_| last) {
            Some(kept) => Bytes::from_owner(Along { bytes, _kept: kept }),
            None => bytes,
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(take_along))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
