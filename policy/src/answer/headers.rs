//! Headers that tell a client of its limits.

use std::borrow::Cow;

use contract::{BucketVerdict, Outcome, Overridden};

use crate::Policy;
use crate::config::limit_text;
use crate::policies::NamedLimit;
use crate::share::Share;

/// A limit that was asked, and how its bucket answered.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    pub policy: &'a Policy,
    pub limit: &'a NamedLimit,
    pub bucket: &'a BucketVerdict,
    /// What was asked for, in tokens.
    pub cost_tokens: u64,
}

/// Which headers tell clients of their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`.
    pub x_ratelimit: bool,
    /// `RateLimit-Policy` and `RateLimit`.
    pub ratelimit: bool,
    /// `Retry-After`, and how many seconds are added to it at most.
    pub retry_after: Option<u32>,
    pub upstream: UpstreamHeaders,
    /// `x-sluice-decision`.
    pub debug: bool,
}

/// What becomes of the upstream's own headers of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamHeaders {
    /// They stay, and ours of the same name is not added.
    Keep,
    /// Ours take their place.
    Replace,
    /// Ours are added to them.
    Append,
}

/// A header, its name in lower case.
pub type Header = (Cow<'static, str>, String);

impl Heard<'_> {
    /// What an operator has put in place of the limit.
    pub const fn overridden(&self) -> Option<Overridden> {
        self.bucket.overridden
    }

    /// Whether nothing limits it: then there is nothing by which a client could pace itself.
    pub const fn is_unlimited(&self) -> bool {
        matches!(self.overridden(), Some(Overridden::Unlimited))
    }

    /// Whether it is denied because an operator said so, whatever is in the bucket.
    pub fn is_blocked(&self) -> bool {
        self.bucket.outcome != Outcome::Allowed && self.overridden() == Some(Overridden::Blocked)
    }

    /// Whole tokens that may be taken.
    pub fn remaining(&self) -> u64 {
        if self.is_blocked() { 0 } else { self.bucket.remaining }
    }

    /// The limit that it was held to, as people write it.
    pub fn limit_text(&self) -> Cow<'_, str> {
        match self.overridden() {
            Some(Overridden::Limit { tokens, period_us, .. }) => Cow::Owned(limit_text(tokens, period_us)),
            _ => Cow::Borrowed(&self.limit.text),
        }
    }

    /// Tokens in a full bucket, of the limit that it was held to.
    fn burst_tokens(&self) -> u64 {
        match self.overridden() {
            Some(Overridden::Limit { burst, .. }) => burst,
            _ => self.limit.limit.burst_tokens(),
        }
    }

    fn write_policy_item(&self, to: &mut String) {
        match self.overridden() {
            Some(Overridden::Limit { tokens, period_us, .. }) => {
                to.push_str(&policy_item(&self.limit.name, tokens, period_us, Share::WHOLE));
            }
            _ => to.push_str(&self.limit.item),
        }
    }
}

impl Headers {
    /// Those for a decision: `all` limits and how their buckets stand, of which `speaking` is nearest to denying.
    pub fn of(&self, all: &[Heard<'_>], speaking: &Heard<'_>, report: &str) -> Vec<Header> {
        let mut headers = self.of_shadow(report);
        let mut add = |name: &'static str, value: String| headers.push((Cow::Borrowed(name), value));
        if speaking.is_unlimited() {
            // It is nearest to denying, so no other is limited either.
            return headers;
        }
        if self.x_ratelimit {
            add("x-ratelimit-limit", speaking.burst_tokens().to_string());
            add("x-ratelimit-remaining", speaking.remaining().to_string());
            add("x-ratelimit-reset", seconds_up(speaking.bucket.full_after_us).to_string());
        }
        if self.ratelimit {
            add("ratelimit-policy", list(all, |to, heard| heard.write_policy_item(to)));
            add("ratelimit", list(all, write_state_item));
        }
        headers
    }

    /// Those for a request of which no enforced policy has decided anything.
    pub fn of_shadow(&self, report: &str) -> Vec<Header> {
        self.debug.then(|| (Cow::Borrowed("x-sluice-decision"), report.to_owned())).into_iter().collect()
    }
}

/// A structured field's integer has at most 15 digits.
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// A share of a limit as an item of `RateLimit-Policy`: the tokens that are refilled in a window of whole seconds.
///
/// Source: draft-ietf-httpapi-ratelimit-headers-10, section 3.
pub fn policy_item(name: &str, tokens: u64, period_us: u64, share: Share) -> String {
    let window_seconds = seconds_up(period_us);
    let period_us = u128::from(period_us.max(1));
    // A share is in parts of a million, and so is a second.
    let a_second = u128::from(tokens).saturating_mul(u128::from(share.ppm())).max(1);
    // A limit below a second, or not of whole seconds, is told for the next whole second.
    let (quota, window_seconds) = match a_second.saturating_mul(u128::from(window_seconds)) / period_us {
        // Less than a token: the window is as long as one takes.
        0 => (1, period_us.div_ceil(a_second)),
        quota => (quota, u128::from(window_seconds)),
    };
    let integer = |number: u128| number.min(u128::from(MAX_INTEGER));
    format!("\"{name}\";q={};w={}", integer(quota), integer(window_seconds))
}

/// A list of items, one for each limit that there is.
fn list(all: &[Heard<'_>], write_item: impl Fn(&mut String, &Heard<'_>)) -> String {
    // Enough for most, so that it is allocated once.
    let mut list = String::with_capacity(all.len() * 40);
    for heard in all.iter().filter(|heard| !heard.is_unlimited()) {
        if !list.is_empty() {
            list.push_str(", ");
        }
        write_item(&mut list, heard);
    }
    list
}

/// How a bucket stands as an item of `RateLimit`: what is left, and the seconds until it is full again.
fn write_state_item(to: &mut String, heard: &Heard<'_>) {
    let remaining = heard.remaining().min(MAX_INTEGER);
    let full_after_seconds = seconds_up(heard.bucket.full_after_us).min(MAX_INTEGER);
    // Every response has one: written piece by piece it takes half the time that it takes to format it.
    to.push('"');
    to.push_str(&heard.limit.name);
    to.push_str("\";r=");
    to.push_str(itoa::Buffer::new().format(remaining));
    to.push_str(";t=");
    to.push_str(itoa::Buffer::new().format(full_after_seconds));
}

/// Whole seconds, rounded up: never earlier than the truth.
pub const fn seconds_up(us: u64) -> u64 {
    us.div_ceil(1_000_000)
}
