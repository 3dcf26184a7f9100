//! Answers, from written to valid.

use std::collections::{BTreeMap, HashSet};

use super::name::is_token;
use crate::answer::{BadTemplate, Denied, Headers, TOO_MANY_REQUESTS, Template, UpstreamHeaders, WORDS};
use crate::config::scalar::{Span, Whole};
use crate::config::spot::{Spot, did_you_mean};
use crate::config::written::{
    Later, WrittenDenied, WrittenHeaders, WrittenJitter, WrittenRetryAfter, WrittenUpstream,
};

/// The longest that is added to `Retry-After`, in seconds.
const MAX_JITTER_SECONDS: u64 = 3_600;

/// The longest body that a user may write, in bytes.
const MAX_BODY_BYTES: usize = 16 << 10;

/// The most headers that a user may add, and the longest value of one, in bytes.
const MAX_HEADERS: usize = 16;
const MAX_HEADER_BYTES: usize = 1_024;

/// Headers that belong to the message or to the connection.
const NOT_OURS: [&str; 9] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "grpc-status",
    "grpc-message",
];

pub fn headers(written: WrittenHeaders, spot: &Spot<'_>) -> Headers {
    let switch = |later: Later<bool>, name: &str, default| later.read(&spot.field(name)).unwrap_or(default);
    let retry_after = spot.field("retry_after");
    let upstream = written.upstream.read(&spot.field("upstream")).unwrap_or_default();
    Headers {
        x_ratelimit: switch(written.x_ratelimit, "x_ratelimit", true),
        ratelimit: switch(written.ratelimit, "ratelimit", true),
        retry_after: match written.retry_after.read(&retry_after).unwrap_or(WrittenRetryAfter::Sent(true)) {
            WrittenRetryAfter::Sent(sent) => sent.then_some(0),
            WrittenRetryAfter::Jitter(found) => Some(jitter_seconds(found, &retry_after.field("jitter"))),
        },
        upstream: match upstream {
            WrittenUpstream::Keep => UpstreamHeaders::Keep,
            WrittenUpstream::Replace => UpstreamHeaders::Replace,
            WrittenUpstream::Append => UpstreamHeaders::Append,
        },
        debug: switch(written.debug, "debug", false),
    }
}

fn jitter_seconds(WrittenJitter { jitter: Span(jitter) }: WrittenJitter, spot: &Spot<'_>) -> u32 {
    let seconds = jitter.as_secs();
    if jitter.subsec_nanos() > 0 || !(1..=MAX_JITTER_SECONDS).contains(&seconds) {
        let found = humantime::format_duration(jitter);
        spot.problem(format!("found {found}; it must be whole seconds between 1s and 1h, as Retry-After is"));
    }
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

pub fn denied(written: WrittenDenied, spot: &Spot<'_>) -> Denied {
    let status = written.status.read(&spot.field("status")).map(|Whole(status)| {
        let valid = u16::try_from(status).ok().filter(|status| (400..=599).contains(status));
        valid.unwrap_or_else(|| {
            spot.field("status")
                .problem(format!("found {status}; a denied request is answered with 400 to 599"));
            TOO_MANY_REQUESTS
        })
    });
    let body = spot.field("body");
    let text = written.body.read(&body);
    if let Some(found) = text.as_ref().map(String::len).filter(|&found| found > MAX_BODY_BYTES) {
        body.problem(format!("found {found} bytes; a body has at most {MAX_BODY_BYTES}"));
    }
    Denied {
        status: status.unwrap_or(TOO_MANY_REQUESTS),
        headers: own_headers(written.headers, &spot.field("headers")),
        body: text.and_then(|text| template(&text, &body)),
    }
}

fn own_headers(written: Later<BTreeMap<String, Later<String>>>, spot: &Spot<'_>) -> Vec<(String, Template)> {
    let found = written.read(spot).unwrap_or_default();
    if found.len() > MAX_HEADERS {
        spot.problem(format!("found {} headers; there may be at most {MAX_HEADERS}", found.len()));
    }
    let mut names = HashSet::new();
    let headers = found.into_iter().filter_map(|(name, written)| {
        let spot = spot.field(&name);
        let lower = name.to_ascii_lowercase();
        if !names.insert(lower.clone()) {
            spot.problem(format!("found {lower:?} twice, in capitals and not; write it once"));
        } else if !is_token(&name) {
            spot.problem(format!("found {name:?}; write the name of a header, such as \"x-reason\""));
        } else if NOT_OURS.contains(&lower.as_str()) {
            spot.problem(format!("found {name:?}, which Envoy itself sets; leave it out"));
        }
        let text = written.read(&spot)?;
        if text.len() > MAX_HEADER_BYTES || text.bytes().any(|byte| byte.is_ascii_control()) {
            spot.problem(format!(
                "found {} bytes; a value has at most {MAX_HEADER_BYTES}, and neither line breaks nor control characters",
                text.len()
            ));
        }
        Some((lower, template(&text, &spot)?))
    });
    headers.collect()
}

fn template(text: &str, spot: &Spot<'_>) -> Option<Template> {
    let bad = match Template::parse(text) {
        Ok(template) => return Some(template),
        Err(bad) => bad,
    };
    let places = WORDS.map(|word| format!("%{word}%")).join(", ");
    spot.problem(match bad {
        BadTemplate::Unknown(word) => {
            let near = did_you_mean(&word, WORDS.into_iter()).replace('`', "%");
            format!("found %{word}%; what is filled in is {places}{near}")
        }
        BadTemplate::Unfinished => {
            format!("found a percent sign that begins none of {places}; write %% for a percent sign")
        }
    });
    None
}
