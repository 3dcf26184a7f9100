//! What a request takes from its buckets: when it arrives, and once its response has ended.

use crate::Response;
use crate::known::{Known, Named};

/// What a request takes when it arrives, in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    Fixed(u64),
    /// What this request header says, within bounds.
    Header {
        name: String,
        default: u64,
        min: u64,
        max: u64,
    },
}

/// How it is known at the end of the response what a request really cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    pub source: SettleSource,
    /// The most that a request may cost, in tokens.
    pub max: u64,
}

/// What says what a request really cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleSource {
    /// A response header, by its name in lower case.
    Header(String),
    /// The response's body: a token for so many bytes.
    BytesPerToken(u64),
}

/// Statuses of responses: one such as `404`, or a class such as `5xx`. From the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    pub first: u16,
    pub last: u16,
}

/// What a request really cost, as far as the headers of its response tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actual {
    /// So many tokens.
    Tokens(u64),
    /// A token for so many bytes of the body, at most `max`.
    Bytes { per_token: u64, max: u64 },
}

impl Statuses {
    pub fn has(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl Cost {
    pub fn of<'a>(&'a self, request: &Known<'a>) -> u64 {
        match self {
            Self::Fixed(tokens) => *tokens,
            Self::Header { name, default, min, max } => request
                .header(name)
                .and_then(|value| number(value, *max))
                .unwrap_or(*default)
                .clamp(*min, *max),
        }
    }

    /// The least and the most that a request takes.
    pub fn bounds(&self) -> (u64, u64) {
        match self {
            Self::Fixed(tokens) => (*tokens, *tokens),
            Self::Header { min, max, .. } => (*min, *max),
        }
    }
}

impl Settle {
    /// What the request really cost; `None` where the response does not say. `read` are the headers that were read.
    pub fn actual<'a>(&'a self, response: &'a impl Response, read: &Named<'a>) -> Option<Actual> {
        match &self.source {
            SettleSource::Header(name) => {
                let tokens = number(read.get(name, || response.header(name))?, self.max)?;
                Some(Actual::Tokens(tokens.min(self.max)))
            }
            SettleSource::BytesPerToken(bytes) => Some(Actual::Bytes { per_token: *bytes, max: self.max }),
        }
    }
}

impl Actual {
    /// In tokens, once the size of the body is known.
    pub fn tokens(self, body_bytes: u64) -> u64 {
        match self {
            Self::Tokens(tokens) => tokens,
            // It is validated to be at least 1.
            Self::Bytes { per_token, max } => body_bytes.div_ceil(per_token.max(1)).min(max),
        }
    }
}

/// A whole number in digits; one too large to be read is `max`.
fn number(text: &[u8], max: u64) -> Option<u64> {
    let digits = text.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(std::str::from_utf8(digits).ok()?.parse().unwrap_or(max))
}
