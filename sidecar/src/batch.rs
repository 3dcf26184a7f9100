//! A request that is known to be answerable: every limit computable, every name in its charset, every number
//! exact. What is wrong with one that is not is named by its place.

use bucket::{EXACT, InvalidLimit, Kind, Lease, Limit, Terms};
use contract::{
    BucketTake, LeaseTerms, Leased, MAX_BUCKETS, MAX_KEY_BYTES, MAX_LEASE_TTL_US, MAX_NAME_BYTES, MAX_TAKES,
    MIN_LEASE_TTL_US, TakeRequest,
};

use crate::code::Code;

/// Takes to be decided in order, each from all of its buckets or from none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// At least one; the first follows none.
    pub takes: Vec<Take>,
}

/// One take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// At least one, each at most once.
    pub buckets: Vec<Ask>,
    /// What is done with the costs.
    pub kind: Kind,
    /// Whether it follows the last take before it that does not: made only where that one was allowed, and failed
    /// where it failed. A store decides a take and those that follow it at once.
    pub follows: bool,
}

/// What is asked of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The bucket's name in every store: `sluice:1:<domain>/<policy>/{<key>}`.
    ///
    /// Domain and policy have no `/`, so different buckets have different names. The braces are a Redis Cluster
    /// hash tag: one client's buckets of several policies live in one slot.
    pub bucket_key: String,
    /// The limit that the bucket is held to.
    pub limit: Limit,
    /// Tokens asked for, below 2^53; 0 only looks.
    pub cost_tokens: u64,
}

/// Why a request cannot be decided. Nothing of it was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// There is nothing to decide.
    #[error("takes: the list is empty; it must hold at least 1 take")]
    NoTakes,
    /// There are more takes than one request may carry.
    #[error(
        "takes: found {found} takes; a request carries at most {MAX_TAKES}, send the others in a next one"
    )]
    TooManyTakes {
        /// How many there are.
        found: usize,
    },
    /// A take lists no bucket.
    #[error("takes[{take}].buckets: the list is empty; it must hold at least 1 bucket")]
    NoBuckets {
        /// Its place in the request.
        take: usize,
    },
    /// A take lists more buckets than it may.
    #[error("takes[{take}].buckets: found {found} buckets; a take has at most {MAX_BUCKETS}")]
    TooManyBuckets {
        /// Its place in the request.
        take: usize,
        /// How many there are.
        found: usize,
    },
    /// The first take is to follow another.
    #[error(
        "takes[0].follows: there is no take before it; a take follows one that comes earlier in the request"
    )]
    FollowsNothing,
    /// A take and those that follow it have more buckets than can be decided at once.
    #[error(
        "takes[{take}].follows: found {found} buckets from takes[{leader}] to here; a take and those that follow it \
         have at most {MAX_BUCKETS} together, let some follow another take or none"
    )]
    TooManyBucketsFollow {
        /// The place of the first take that is too many.
        take: usize,
        /// The place of the take that it follows.
        leader: usize,
        /// How many buckets they have together with those between them.
        found: usize,
    },
    /// A take lists the same bucket twice, so that "all or none" would have no meaning.
    #[error(
        "takes[{take}].buckets[{bucket}]: the same policy and key as buckets[{first}]; name each bucket once and \
         add the costs"
    )]
    DuplicateBucket {
        /// The take's place in the request.
        take: usize,
        /// The bucket's place in the take.
        bucket: usize,
        /// The place of its double.
        first: usize,
    },
    /// A domain or policy name is too long, empty, or has other characters.
    #[error(
        "{place}: found {found:?}; a name is 1 to {MAX_NAME_BYTES} ASCII letters, digits, '-', '_' and '.'"
    )]
    InvalidName {
        /// Where it stands.
        place: String,
        /// Its beginning.
        found: String,
    },
    /// A key is too long.
    #[error(
        "takes[{take}].buckets[{bucket}].key: found {found_bytes} bytes; a key has at most {MAX_KEY_BYTES}, \
         hash a longer one"
    )]
    KeyTooLong {
        /// The take's place in the request.
        take: usize,
        /// The bucket's place in the take.
        bucket: usize,
        /// How long it is.
        found_bytes: usize,
    },
    /// A rate and a burst do not make a limit.
    #[error("takes[{take}].buckets[{bucket}]: {source}")]
    InvalidLimit {
        /// The take's place in the request.
        take: usize,
        /// The bucket's place in the take.
        bucket: usize,
        /// What is wrong with it.
        source: InvalidLimit,
    },
    /// A cost cannot be counted exactly.
    #[error("takes[{take}].buckets[{bucket}].cost: found {found}; it must be below 2^53")]
    CostTooLarge {
        /// The take's place in the request.
        take: usize,
        /// The bucket's place in the take.
        bucket: usize,
        /// The cost.
        found: u64,
    },
    /// A lease has no terms.
    #[error(
        "takes[{take}].lease: there are no terms; a take of kind \"lease\" names its \"ttl_us\" and its \
         \"share_percent\""
    )]
    NoTerms {
        /// The take's place in the request.
        take: usize,
    },
    /// A take of another kind has the terms of a lease.
    #[error("takes[{take}].lease: only a take of kind \"lease\" has terms; leave them out, or make it one")]
    NeedlessTerms {
        /// The take's place in the request.
        take: usize,
    },
    /// A lease is too short or too long.
    #[error(
        "takes[{take}].lease.ttl_us: found {found}; a lease holds from {MIN_LEASE_TTL_US} to {MAX_LEASE_TTL_US} \
         microseconds"
    )]
    InvalidTtl {
        /// The take's place in the request.
        take: usize,
        /// The time.
        found: u64,
    },
    /// A share is none of a whole.
    #[error("takes[{take}].lease.share_percent: found {found}; it must be from 1 to 100")]
    InvalidShare {
        /// The take's place in the request.
        take: usize,
        /// The share.
        found: u64,
    },
    /// A lease asks for nothing.
    #[error("takes[{take}].buckets[{bucket}].cost: found 0; a lease asks for at least 1 token")]
    NothingLeased {
        /// The take's place in the request.
        take: usize,
        /// The bucket's place in the take.
        bucket: usize,
    },
    /// A return does not say of what.
    #[error(
        "takes[{take}].returned: there is no lease; a take of kind \"return\" names the \"tokens\" and \
         \"lapses_at_us\" that it was granted"
    )]
    NoLease {
        /// The take's place in the request.
        take: usize,
    },
    /// A take of another kind names a lease.
    #[error(
        "takes[{take}].returned: only a take of kind \"return\" names a lease; leave it out, or make it one"
    )]
    NeedlessLease {
        /// The take's place in the request.
        take: usize,
    },
    /// A lease that is returned is none that was granted.
    #[error(
        "takes[{take}].returned.{member}: found {found}; it must be as it was granted, from 1 and below 2^53"
    )]
    InvalidLease {
        /// The take's place in the request.
        take: usize,
        /// Which of its numbers.
        member: &'static str,
        /// That number.
        found: u64,
    },
    /// More tokens are left of a lease than were granted.
    #[error(
        "takes[{take}].buckets[{bucket}].cost: found {found}; at most the {granted} tokens that were granted can be \
         left of a lease"
    )]
    TooMuchReturned {
        /// The take's place in the request.
        take: usize,
        /// The bucket's place in the take.
        bucket: usize,
        /// The tokens that are said to be left.
        found: u64,
        /// The tokens that were granted.
        granted: u64,
    },
}

impl InvalidBatch {
    /// The stable code that clients see.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::NoTakes | Self::NoBuckets { .. } => Code::NothingAsked,
            Self::TooManyTakes { .. } => Code::TooManyTakes,
            Self::TooManyBuckets { .. } | Self::TooManyBucketsFollow { .. } => Code::TooManyBuckets,
            Self::FollowsNothing => Code::FollowsNothing,
            Self::DuplicateBucket { .. } => Code::DuplicateBucket,
            Self::InvalidName { .. } => Code::InvalidName,
            Self::KeyTooLong { .. } => Code::KeyTooLong,
            Self::InvalidLimit { .. } => Code::InvalidLimit,
            Self::CostTooLarge { .. } => Code::CostTooLarge,
            Self::NoTerms { .. }
            | Self::NeedlessTerms { .. }
            | Self::InvalidTtl { .. }
            | Self::InvalidShare { .. }
            | Self::NothingLeased { .. } => Code::InvalidLease,
            Self::NoLease { .. }
            | Self::NeedlessLease { .. }
            | Self::InvalidLease { .. }
            | Self::TooMuchReturned { .. } => Code::InvalidReturn,
        }
    }
}

impl Batch {
    /// The number of buckets in all takes.
    #[must_use]
    pub fn bucket_count(&self) -> usize {
        self.takes.iter().map(|take| take.buckets.len()).sum()
    }
}

impl TryFrom<&TakeRequest<'_>> for Batch {
    type Error = InvalidBatch;

    fn try_from(request: &TakeRequest<'_>) -> Result<Self, InvalidBatch> {
        check_name(&request.domain, || "domain".to_owned())?;
        if request.takes.is_empty() {
            return Err(InvalidBatch::NoTakes);
        }
        if request.takes.len() > MAX_TAKES {
            return Err(InvalidBatch::TooManyTakes { found: request.takes.len() });
        }
        let mut takes = Vec::with_capacity(request.takes.len());
        let mut leader = None;
        for (place, asked) in request.takes.iter().enumerate() {
            let take = valid_take(&request.domain, place, asked)?;
            leader = Some(valid_leader(place, &take, leader)?);
            takes.push(take);
        }
        Ok(Self { takes })
    }
}

/// The take that `take` follows, or itself, and how many buckets there are from there to here.
fn valid_leader(
    place: usize,
    take: &Take,
    before: Option<(usize, usize)>,
) -> Result<(usize, usize), InvalidBatch> {
    if !take.follows {
        return Ok((place, take.buckets.len()));
    }
    let (leader, found) = before.ok_or(InvalidBatch::FollowsNothing)?;
    let found = found + take.buckets.len();
    if found > MAX_BUCKETS {
        return Err(InvalidBatch::TooManyBucketsFollow { take: place, leader, found });
    }
    Ok((leader, found))
}

fn valid_take(domain: &str, take: usize, asked: &contract::Take<'_>) -> Result<Take, InvalidBatch> {
    let found = asked.buckets.len();
    if found == 0 {
        return Err(InvalidBatch::NoBuckets { take });
    }
    if found > MAX_BUCKETS {
        return Err(InvalidBatch::TooManyBuckets { take, found });
    }
    let mut buckets: Vec<Ask> = Vec::with_capacity(found);
    for (bucket, asked) in asked.buckets.iter().enumerate() {
        let ask = valid_ask(domain, take, bucket, asked)?;
        // Few buckets as a rule, and 64 at most: looking at each pair is quicker than a set.
        if let Some(first) = buckets.iter().position(|other| other.bucket_key == ask.bucket_key) {
            return Err(InvalidBatch::DuplicateBucket { take, bucket, first });
        }
        buckets.push(ask);
    }
    Ok(Take { buckets, kind: valid_kind(take, asked)?, follows: asked.follows })
}

fn valid_kind(take: usize, asked: &contract::Take<'_>) -> Result<Kind, InvalidBatch> {
    match (asked.kind, asked.lease, asked.returned) {
        (contract::Kind::Lease, None, _) => Err(InvalidBatch::NoTerms { take }),
        (contract::Kind::Return, _, None) => Err(InvalidBatch::NoLease { take }),
        (contract::Kind::Lease, Some(terms), None) => valid_lease(take, asked, terms),
        (contract::Kind::Return, None, Some(lease)) => valid_return(take, asked, lease),
        (_, Some(_), None) | (contract::Kind::Return, Some(_), _) => {
            Err(InvalidBatch::NeedlessTerms { take })
        }
        (_, _, Some(_)) => Err(InvalidBatch::NeedlessLease { take }),
        (contract::Kind::Take, None, None) => Ok(Kind::Take),
        (contract::Kind::Refund, None, None) => Ok(Kind::Refund),
        (contract::Kind::Charge, None, None) => Ok(Kind::Charge),
    }
}

fn valid_lease(take: usize, asked: &contract::Take<'_>, terms: LeaseTerms) -> Result<Kind, InvalidBatch> {
    let LeaseTerms { ttl_us, share_percent } = terms;
    if !(MIN_LEASE_TTL_US..=MAX_LEASE_TTL_US).contains(&ttl_us) {
        return Err(InvalidBatch::InvalidTtl { take, found: ttl_us });
    }
    if !(1..=100).contains(&share_percent) {
        return Err(InvalidBatch::InvalidShare { take, found: share_percent });
    }
    match asked.buckets.iter().position(|bucket| bucket.cost == 0) {
        Some(bucket) => Err(InvalidBatch::NothingLeased { take, bucket }),
        None => Ok(Kind::Lease(Terms { ttl_us, share_percent })),
    }
}

fn valid_return(take: usize, asked: &contract::Take<'_>, lease: Leased) -> Result<Kind, InvalidBatch> {
    let Leased { tokens, lapses_at_us } = lease;
    for (member, found) in [("tokens", tokens), ("lapses_at_us", lapses_at_us)] {
        if !(1..EXACT).contains(&found) {
            return Err(InvalidBatch::InvalidLease { take, member, found });
        }
    }
    match asked.buckets.iter().enumerate().find(|(_, bucket)| bucket.cost > tokens) {
        Some((bucket, asked)) => {
            Err(InvalidBatch::TooMuchReturned { take, bucket, found: asked.cost, granted: tokens })
        }
        None => Ok(Kind::Return(Lease { tokens, lapses_at_us })),
    }
}

fn valid_ask(domain: &str, take: usize, bucket: usize, asked: &BucketTake<'_>) -> Result<Ask, InvalidBatch> {
    check_name(&asked.policy, || format!("takes[{take}].buckets[{bucket}].policy"))?;
    if asked.key.len() > MAX_KEY_BYTES {
        return Err(InvalidBatch::KeyTooLong { take, bucket, found_bytes: asked.key.len() });
    }
    let limit = Limit::new(asked.tokens, asked.period_us, asked.burst)
        .map_err(|source| InvalidBatch::InvalidLimit { take, bucket, source })?;
    if asked.cost >= EXACT {
        return Err(InvalidBatch::CostTooLarge { take, bucket, found: asked.cost });
    }
    let bucket_key = bucket_key(domain, &asked.policy, &asked.key);
    Ok(Ask { bucket_key, limit, cost_tokens: asked.cost })
}

/// The name under which every store keeps a bucket: see [`Ask::bucket_key`].
#[must_use]
pub fn bucket_key(domain: &str, policy: &str, key: &str) -> String {
    ["sluice:1:", domain, "/", policy, "/{", key, "}"].concat()
}

/// Domain, policy and key of a bucket, by its name in every store; nothing where it is none of a bucket.
#[must_use]
pub fn parts_of_key(bucket_key: &str) -> Option<(&str, &str, &str)> {
    let (domain, rest) = bucket_key.strip_prefix("sluice:1:")?.split_once('/')?;
    let (policy, key) = rest.split_once("/{")?;
    Some((domain, policy, key.strip_suffix('}')?))
}

fn check_name(name: &str, place: impl FnOnce() -> String) -> Result<(), InvalidBatch> {
    if contract::is_name(name) {
        return Ok(());
    }
    Err(InvalidBatch::InvalidName { place: place(), found: name.chars().take(MAX_NAME_BYTES).collect() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Names and keys of the characters that mean something in a bucket's name, so that what could be confused is.
    fn parts() -> impl Strategy<Value = [String; 3]> {
        let name = "[a-c._-]{1,3}";
        (name, name, "[a-c/{}:.\\n\\x00é]{0,6}").prop_map(|(domain, policy, key)| [domain, policy, key])
    }

    proptest! {
        #[test]
        fn one_name_is_one_bucket(one in parts(), other in parts()) {
            prop_assert!(one[..2].iter().all(|name| contract::is_name(name)));
            let name = |[domain, policy, key]: &[String; 3]| bucket_key(domain, policy, key);
            prop_assert_eq!(name(&one) == name(&other), one == other);
            // And what follows the prefix says all three again, whatever the key holds.
            let [domain, policy, key] = one.each_ref().map(String::as_str);
            let name = name(&one);
            prop_assert_eq!(parts_of_key(&name), Some((domain, policy, key)));
        }
    }

    #[test]
    fn different_buckets_have_different_names() {
        assert_eq!(bucket_key("shop", "per-client", "a"), "sluice:1:shop/per-client/{a}");
        assert_eq!(bucket_key("shop", "everybody", ""), "sluice:1:shop/everybody/{}");
        // A key may hold any character: what comes before it cannot.
        assert_ne!(bucket_key("a", "b", "c}/{d"), bucket_key("a", "b", "c"));
    }

    #[test]
    fn an_error_names_its_place_and_the_mend() {
        let golden =
            include_str!("../../contract/golden/take-request.json").replace("\"burst\": 5,", "\"burst\": 0,");
        let request: TakeRequest = serde_json::from_str(&golden).expect("well formed");
        let refused = Batch::try_from(&request).expect_err("a burst of 0");
        assert_eq!(refused.to_string(), "takes[0].buckets[1]: the burst is 0; it must be at least 1");
        assert_eq!(refused.code(), Code::InvalidLimit);
    }
}
