//! Reading a request's body, bounded in size and in time.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use http_body_util::LengthLimitError;

use super::refusal::RequestError;

/// A filter sends its body at once; what takes longer than this is stuck.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn read(body: Body, max_bytes: usize) -> Result<Bytes, RequestError> {
    // A length that was declared is refused before a byte of it is read.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(RequestError::BodyTooLarge { max_bytes });
    }
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, max_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let too_large =
                std::error::Error::source(&error).is_some_and(|source| source.is::<LengthLimitError>());
            Err(if too_large { RequestError::BodyTooLarge { max_bytes } } else { RequestError::BodyLost })
        }
        Err(_) => Err(RequestError::BodyTooSlow(BODY_TIMEOUT)),
    }
}
