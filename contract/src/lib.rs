//! What the filter, or any other client, and the sidecar say to each other: `POST /v1/take`.
//!
//! A [`TakeRequest`] carries a batch of takes, a take one or several buckets. The sidecar decides the takes in
//! order, each from all of its buckets or from none, and answers 200 with one [`Verdict`] a take, whether they
//! allow or deny. What a [`Kind`] and a take that [`follows`](Take::follows) mean is specified in `lua/SPEC.md`.
//! Anything but a 200 with the header [`MARKER_HEADER`] is a failure, and took nothing that is known of; its body is
//! a [`Refusal`] where the sidecar wrote it.
//!
//! Both sides' tests read the files in `contract/golden/`; a change there is a change of the contract.

#![forbid(unsafe_code)]

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, de::IntoDeserializer};

/// Where takes are sent, by `POST` with a JSON body.
pub const TAKE_PATH: &str = "/v1/take";

/// The header that every answer of a sidecar carries. An answer without it came from something between.
pub const MARKER_HEADER: &str = "x-sluice-contract";

/// The value of [`MARKER_HEADER`]: the version of this contract.
pub const VERSION: &str = "1";

/// The most takes in one request.
pub const MAX_TAKES: usize = 4096;

/// The most buckets in one take, together with the takes that follow it.
pub const MAX_BUCKETS: usize = 64;

/// The longest domain or policy name, in bytes. Both are of ASCII letters, digits, `-`, `_` and `.`.
pub const MAX_NAME_BYTES: usize = 64;

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;

/// The shortest lease, in microseconds.
pub const MIN_LEASE_TTL_US: u64 = 1_000;

/// The longest lease, in microseconds.
pub const MAX_LEASE_TTL_US: u64 = 60_000_000;

/// A batch of takes, decided in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeRequest<'a> {
    /// The namespace of every policy in the batch; buckets of different domains never touch.
    #[serde(borrow)]
    pub domain: Cow<'a, str>,
    /// The takes, at most [`MAX_TAKES`].
    #[serde(borrow)]
    pub takes: Vec<Take<'a>>,
}

/// One take: from all of its buckets, or from none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Take<'a> {
    /// The buckets, between 1 and [`MAX_BUCKETS`], each at most once.
    #[serde(borrow)]
    pub buckets: Vec<BucketTake<'a>>,
    /// What is done with the costs; absent where they are taken.
    #[serde(default, deserialize_with = "kind", skip_serializing_if = "Kind::is_take")]
    pub kind: Kind,
    /// Whether it follows the last take before it that does not. One that follows a take that was denied only looks,
    /// and one that follows a take that failed fails likewise. The first take of a request may not follow, and a take
    /// and those that follow it have at most [`MAX_BUCKETS`] buckets together.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follows: bool,
    /// Whether it is asked for a policy in shadow, whose denial denies nobody: it only tells of that, so that what would be
    /// denied is not counted among what is. Changes no decision.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
    /// The terms of a [`Kind::Lease`]; absent with any other kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseTerms>,
    /// The lease that a [`Kind::Return`] ends; absent with any other kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<Leased>,
    /// The trace that the take is part of, as a [`traceparent`](https://www.w3.org/TR/trace-context/); told where it is
    /// sampled. Changes no decision; what is none is ignored.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Cow<'a, str>>,
}

/// What a take does with its costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Takes them, where every bucket has room.
    #[default]
    Take,
    /// Returns them, up to each burst. Always allowed.
    Refund,
    /// Takes them whether or not there is room, and may leave a bucket in debt. Always allowed.
    Charge,
    /// Takes up to as many in advance as the buckets hold and the [terms](Take::lease) let, the same number from each,
    /// to be spent without asking until the lease lapses. Always answered [`Verdict::Leased`], maybe with 0 tokens. Each
    /// cost is the number of tokens wanted, at least 1.
    Lease,
    /// Ends a [lease](Take::returned): each cost is the number of its tokens that were not spent, 0 where all were. What
    /// has lapsed already is not returned. Always allowed.
    Return,
}

/// For how long a lease holds, and how much of a bucket may be leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseTerms {
    /// How long the tokens may be spent at least, in microseconds from the decision: from [`MIN_LEASE_TTL_US`] to
    /// [`MAX_LEASE_TTL_US`]. They occupy the bucket for at most twice as long, unless they are returned before.
    ///
    /// Whoever holds a lease counts this from before it was asked for, by a clock of its own.
    pub ttl_us: u64,
    /// The most that all leases of a bucket may hold together, in hundredths of its burst: from 1 to 100.
    pub share_percent: u64,
}

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leased {
    /// The tokens that were granted of each bucket, whether or not they were spent since; at least 1.
    pub tokens: u64,
    /// When the store ends the lease by itself, in microseconds since 1970 by the store's clock.
    pub lapses_at_us: u64,
}

/// What is asked of one bucket, and the limit that it is held to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketTake<'a> {
    /// The policy's name.
    #[serde(borrow)]
    pub policy: Cow<'a, str>,
    /// Whose bucket of that policy; may be empty where everybody shares one. At most [`MAX_KEY_BYTES`].
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    /// Tokens refilled per [`period_us`](Self::period_us).
    pub tokens: u64,
    /// Microseconds in which [`tokens`](Self::tokens) are refilled.
    pub period_us: u64,
    /// Tokens in a full bucket.
    pub burst: u64,
    /// Tokens asked for; 0 only looks, and is allowed even where the bucket is in debt. What it is of a lease, its
    /// [`Kind`] says.
    pub cost: u64,
    /// How many requests this bucket has denied since it was last asked, by what the asker remembers: a request that several
    /// buckets deny counts for each. It only tells of them, so that who is denied most can be seen. Changes no decision.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeats: u64,
}

/// The answer to a [`TakeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeResponse {
    /// The instant of the decision, in microseconds since 1970 by the store's clock; the latest where the batch
    /// was decided in parts.
    pub now_us: u64,
    /// One verdict a take, in the same order.
    pub verdicts: Vec<Verdict>,
}

/// What became of one take. In JSON, an object with one member named after the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every bucket had room, and the costs were taken (or returned, or charged), unless the take follows one that
    /// was denied. So is a lease that ended, whether it was returned or had lapsed. How each stands now, in the take's order.
    Allowed(Vec<BucketVerdict>),
    /// At least one bucket had no room, and nothing was taken. What each answered, in the take's order.
    Denied(Vec<BucketVerdict>),
    /// What a [`Kind::Lease`] was granted.
    Leased {
        /// Tokens leased from each of its buckets; 0 where one of them had none to lease, and where the take follows one
        /// that was denied.
        tokens: u64,
        /// When the store ends the lease by itself, in microseconds since 1970 by the store's clock: what
        /// [`Take::returned`] names. It is no deadline for spending, since clocks differ: see [`LeaseTerms::ttl_us`].
        lapses_at_us: u64,
        /// How each bucket stands now, in the take's order. Each outcome is `allowed`.
        buckets: Vec<BucketVerdict>,
    },
    /// The store could not decide this take. Nothing was taken that is known of.
    Failed(FailureReason),
}

/// What one bucket answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketVerdict {
    /// Whether this bucket had room: in a denied take, the buckets that are not `allowed` denied it.
    pub outcome: Outcome,
    /// Whole tokens in the bucket, 0 in debt: after the take where it was made, otherwise as they stand.
    pub remaining: u64,
    /// Microseconds until the bucket has room for the cost, a debt paid first: 0 where it has and for any kind but a
    /// take, absent where it never will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_us: Option<u64>,
    /// Microseconds until the bucket is full if nothing more is taken.
    pub full_after_us: u64,
    /// What it was held to in place of the limit that was asked with, where an operator has overridden that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<Overridden>,
}

/// What an operator has put in place of a bucket's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overridden {
    /// Another limit, of the same units as that of a [`BucketTake`].
    Limit {
        /// Tokens refilled per `period_us`.
        tokens: u64,
        /// Microseconds in which `tokens` are refilled.
        period_us: u64,
        /// Tokens in a full bucket.
        burst: u64,
    },
    /// None: nothing is taken, and every cost is allowed.
    Unlimited,
    /// Nothing is allowed, whatever is in the bucket. The retry-after is when that ends, absent where nobody has said.
    Blocked,
}

/// Whether a bucket had room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It had.
    Allowed,
    /// It had not yet.
    Denied,
    /// The cost is larger than the burst: it never will.
    NeverFits,
}

/// Why a store could not decide a take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The store holds as many buckets as it may, none of them is full, and forgetting one would forget a debt.
    StoreFull,
    /// The store could not be reached or did not answer in time.
    StoreUnavailable,
}

/// The body of an answer that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal<'a> {
    /// A stable code in `snake_case`.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// What was wrong, where, and what would be right.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

/// Whether `text` may name a domain or a policy: 1 to [`MAX_NAME_BYTES`] ASCII letters, digits, `-`, `_` and `.`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = (1..=MAX_NAME_BYTES).contains(&text.len());
    fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

impl Kind {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    fn is_take(&self) -> bool {
        *self == Self::Take
    }
}

/// By way of a text: what is none would be called no JSON at all.
fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
    Kind::deserialize(Cow::<str>::deserialize(deserializer)?.into_deserializer())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}
