//! What the script is asked and what it answers: the arguments and the reply of `lua/take.lua`, as pure functions.

use std::collections::HashMap;

use bucket::{Bucket, Decision, Kind, Lease, Limit, Outcome, Slot, Terms};
use contract::{BucketVerdict, MAX_BUCKETS, Verdict};
use foldhash::fast::RandomState;

use super::{
    Answer,
    packed::{self, Reader},
};
use crate::batch::Take;

/// The script that Redis runs.
pub const SCRIPT: &str = include_str!("../../../lua/take.lua");

/// The most keys of one run: the script unpacks them onto a Lua stack that holds 8,000 values.
pub const MAX_KEYS: usize = 4096;

/// What the head of a take adds to its number of buckets, times its kind.
const KIND: i64 = 128;
const _: () = assert!((MAX_BUCKETS as i64) < KIND);

/// The keys and arguments of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run<'a> {
    /// The distinct keys.
    pub keys: Vec<&'a str>,
    /// Everything else, in the order that the script's header gives, packed.
    pub argument: Vec<u8>,
}

/// A reply that is not of the form that the script gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the script's reply has not the form that lua/take.lua gives")]
pub struct UnknownReply;

/// Asks the script for `takes`, in order.
#[must_use]
pub fn encode<'a>(takes: &[&'a Take]) -> Run<'a> {
    let mut keys: Vec<&str> = Vec::with_capacity(takes.len());
    // Keys are what clients make them, so the hash is seeded; a run has too few of them to need a stronger one.
    let mut places: HashMap<&str, i64, RandomState> =
        HashMap::with_capacity_and_hasher(takes.len(), RandomState::default());
    let mut limits: Vec<Limit> = Vec::new();
    let mut asked: Vec<i64> = Vec::with_capacity(takes.len() * 4);
    for take in takes {
        asked.push(head(take));
        for ask in &take.buckets {
            let key = *places.entry(&ask.bucket_key).or_insert_with_key(|key| {
                keys.push(key);
                integer(keys.len() as u64)
            });
            // Policies are few: looking through their limits is quicker than hashing each.
            let limit = limits.iter().position(|limit| *limit == ask.limit).unwrap_or_else(|| {
                limits.push(ask.limit);
                limits.len() - 1
            });
            asked.extend([key, integer(limit as u64 + 1), integer(ask.cost_tokens)]);
        }
        match take.kind {
            Kind::Take | Kind::Refund | Kind::Charge => {}
            Kind::Lease(Terms { ttl_us, share_percent }) => {
                asked.extend([ttl_us, share_percent].map(integer));
            }
            Kind::Return(Lease { tokens, lapses_at_us }) => {
                asked.extend([tokens, lapses_at_us].map(integer));
            }
        }
    }
    let mut arguments = Vec::with_capacity(1 + limits.len() * 3 + asked.len());
    arguments.push(integer(limits.len() as u64));
    for limit in limits {
        arguments.extend([limit.tokens(), limit.period_us(), limit.burst_tokens()].map(integer));
    }
    arguments.append(&mut asked);
    Run { keys, argument: packed::pack(&arguments) }
}

/// A take that takes and follows none, as most do, is its number of buckets, which packs into one byte.
fn head(take: &Take) -> i64 {
    let kind = match take.kind {
        Kind::Take => 0,
        Kind::Refund => 1,
        Kind::Charge => 2,
        Kind::Lease(_) => 3,
        Kind::Return(_) => 4,
    };
    let head = integer(take.buckets.len() as u64) + kind * KIND;
    if take.follows { -head } else { head }
}

/// Reads what the script answered to `takes`.
///
/// # Errors
/// [`UnknownReply`] where it has another form.
pub fn decode(takes: &[&Take], reply: &[u8]) -> Result<Answer, UnknownReply> {
    let mut reply = Reader::open(reply).ok_or(UnknownReply)?;
    let now_us = number(reply.next())?;
    let mut verdicts = Vec::with_capacity(takes.len());
    for take in takes {
        let mut made = true;
        let mut buckets = Vec::with_capacity(take.buckets.len());
        for _ in &take.buckets {
            let decision = decision(&mut reply)?;
            made &= decision.outcome == Outcome::Allowed;
            buckets.push(bucket_verdict(decision));
        }
        verdicts.push(match take.kind {
            Kind::Lease(_) => {
                let (tokens, lapses_at_us) = (number(reply.next())?, number(reply.next())?);
                Verdict::Leased { tokens, lapses_at_us, buckets }
            }
            _ if made => Verdict::Allowed(buckets),
            _ => Verdict::Denied(buckets),
        });
    }
    if !reply.is_at_end() {
        return Err(UnknownReply);
    }
    Ok(Answer { now_us, verdicts })
}

/// What one bucket answered: that it allows is the shortest answer.
fn decision(reply: &mut Reader<'_>) -> Result<Decision, UnknownReply> {
    let remaining = reply.next().ok_or(UnknownReply)?;
    let full_after_us = number(reply.next())?;
    if let Ok(remaining_tokens) = u64::try_from(remaining) {
        return Ok(Decision { outcome: Outcome::Allowed, remaining_tokens, full_after_us });
    }
    let outcome = match reply.next() {
        Some(-1) => Outcome::NeverFits,
        Some(wait_us @ 1..) => Outcome::Denied { retry_after_us: number(Some(wait_us))? },
        _ => return Err(UnknownReply),
    };
    // -1 - remaining, which no number overflows.
    Ok(Decision { outcome, remaining_tokens: (!remaining).cast_unsigned(), full_after_us })
}

/// A bucket as the script writes it, `<credits> <unit> <at_us>`, and where tokens are leased also
/// ` <credits> <lapses_at_us> <credits> <lapses_at_us>`; `None` where it is none and counts as missing.
#[must_use]
pub fn parse_value(value: &[u8]) -> Option<Bucket> {
    let mut parts = str::from_utf8(value).ok()?.split(' ');
    let credits = parts.next()?;
    let credits = match credits.strip_prefix('-') {
        Some(owed) => -digits(owed)?,
        None => digits(credits)?,
    };
    let mut next = || digits(parts.next()?).map(i64::cast_unsigned);
    let bucket = Bucket::restore(credits, next()?, next()?)?;
    let Some(first) = parts.next() else { return Some(bucket) };
    let mut next = || digits(parts.next()?).map(i64::cast_unsigned);
    let first = Slot { credits: digits(first)?.cast_unsigned(), lapses_at_us: next()? };
    let last = Slot { credits: next()?, lapses_at_us: next()? };
    if parts.next().is_some() { None } else { bucket.with_leases([first, last]) }
}

/// A number of digits alone.
fn digits(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// What the contract says of a take that was decided, or only looked.
#[must_use]
pub fn verdict(asks: &[bucket::Ask], allowed: bool) -> Verdict {
    let buckets = asks.iter().map(|ask| bucket_verdict(ask.decision())).collect();
    match asks.first().and_then(bucket::Ask::leased) {
        Some(Lease { tokens, lapses_at_us }) => Verdict::Leased { tokens, lapses_at_us, buckets },
        None if allowed => Verdict::Allowed(buckets),
        None => Verdict::Denied(buckets),
    }
}

/// What the contract says of a decision.
#[must_use]
pub const fn bucket_verdict(decision: Decision) -> BucketVerdict {
    let (outcome, retry_after_us) = match decision.outcome {
        Outcome::Allowed => (contract::Outcome::Allowed, Some(0)),
        Outcome::Denied { retry_after_us } => (contract::Outcome::Denied, Some(retry_after_us)),
        Outcome::NeverFits => (contract::Outcome::NeverFits, None),
    };
    BucketVerdict {
        outcome,
        remaining: decision.remaining_tokens,
        retry_after_us,
        full_after_us: decision.full_after_us,
        overridden: None,
    }
}

/// Every number that is asked was checked to be below 2^53.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(reply: Option<i64>) -> Result<u64, UnknownReply> {
    reply.and_then(|number| u64::try_from(number).ok()).ok_or(UnknownReply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Ask;

    fn take(keys: &[&str], limit: Limit) -> Take {
        let ask = |key: &&str| Ask { bucket_key: (*key).to_owned(), limit, cost_tokens: 7 };
        Take { buckets: keys.iter().map(ask).collect(), kind: Kind::Take, follows: false }
    }

    #[test]
    fn keys_and_limits_are_named_once() {
        let minute = Limit::new(60, 60_000_000, 60).expect("valid");
        let second = Limit::new(3, 1_000_000, 9).expect("valid");
        let (first, last) = (take(&["a", "b"], minute), take(&["b"], second));
        let run = encode(&[&first, &last]);
        assert_eq!(run.keys, ["a", "b"]);
        let limits = [2, 1, 1_000_000, 60, 3, 1_000_000, 9];
        let takes = [2, 1, 1, 7, 2, 1, 7, 1, 2, 2, 7];
        let asked: Vec<i64> = Reader::open(&run.argument).expect("an array").collect();
        assert_eq!(asked, [&limits[..], &takes[..]].concat());
    }

    #[test]
    fn a_head_tells_the_buckets_the_kind_and_whether_it_follows() {
        let minute = Limit::new(60, 60_000_000, 60).expect("valid");
        let keys: Vec<String> = (0..MAX_BUCKETS).map(|key| key.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (one, most) = (take(&["a"], minute), take(&keys, minute));
        let heads = |kind, follows| [&one, &most].map(|take| head(&Take { kind, follows, ..take.clone() }));
        assert_eq!(heads(Kind::Take, false), [1, 64]);
        assert_eq!(heads(Kind::Take, true), [-1, -64]);
        let lease = Kind::Lease(Terms { ttl_us: 1_000, share_percent: 50 });
        let ended = Kind::Return(Lease { tokens: 5, lapses_at_us: 2_000 });
        for (kind, first, last) in
            [(Kind::Refund, 129, 192), (Kind::Charge, 257, 320), (lease, 385, 448), (ended, 513, 576)]
        {
            assert_eq!((heads(kind, false), heads(kind, true)), ([first, last], [-first, -last]));
        }
    }

    #[test]
    fn a_lease_and_a_return_have_two_numbers_after_their_buckets() {
        let minute = Limit::new(60, 60_000_000, 60).expect("valid");
        let of_kind = |kind| Take { kind, ..take(&["a", "b"], minute) };
        let lease = of_kind(Kind::Lease(Terms { ttl_us: 1_000, share_percent: 50 }));
        let ended = of_kind(Kind::Return(Lease { tokens: 9, lapses_at_us: 2_000 }));
        let run = encode(&[&lease, &ended]);
        let asked: Vec<i64> = Reader::open(&run.argument).expect("an array").skip(4).collect();
        assert_eq!(asked, [386, 1, 1, 7, 2, 1, 7, 1_000, 50, 514, 1, 1, 7, 2, 1, 7, 9, 2_000]);
        let reply = [5, 53, 7, 52, 8, 7, 2_000, 60, 0, 59, 1];
        let answer = decode(&[&lease, &ended], &packed::pack(&reply)).expect("known");
        let [Verdict::Leased { tokens: 7, lapses_at_us: 2_000, buckets }, Verdict::Allowed(ended)] =
            &answer.verdicts[..]
        else {
            panic!("{answer:?}")
        };
        assert_eq!((buckets[0].remaining, buckets[1].remaining, ended[0].remaining), (53, 52, 60));
        assert_eq!(decode(&[&lease], &packed::pack(&reply[..6])), Err(UnknownReply), "cut in the lease");
    }

    #[test]
    fn a_reply_of_another_form_is_no_answer() {
        let minute = Limit::new(60, 60_000_000, 60).expect("valid");
        let take = take(&["a"], minute);
        let decode = |reply: &[i64]| decode(&[&take], &packed::pack(reply));
        for good in [&[5, 53, 7_000_000][..], &[5, -54, 7_000_000, 1], &[5, -1, 7_000_000, -1]] {
            assert!(decode(good).is_ok(), "{good:?}");
            for cut in 0..good.len() {
                assert_eq!(decode(&good[..cut]), Err(UnknownReply), "cut at {cut}");
            }
            assert_eq!(decode(&[good, &[0]].concat()), Err(UnknownReply), "one too many");
        }
        for wrong in [&[-1, 53, 7][..], &[5, 53, -1], &[5, -54, -1, 1], &[5, -54, 7, 0], &[5, -54, 7, -2]] {
            assert_eq!(decode(wrong), Err(UnknownReply), "{wrong:?}");
        }
    }

    #[test]
    fn a_take_was_made_where_each_of_its_buckets_allowed_it() {
        let minute = Limit::new(60, 60_000_000, 60).expect("valid");
        let take = take(&["a", "b"], minute);
        let allows = |wait: i64| if wait == 0 { vec![53, 7] } else { vec![-54, 7, wait] };
        let made = |waits: [i64; 2]| {
            let reply = [vec![5], allows(waits[0]), allows(waits[1])].concat();
            let answer = decode(&[&take], &packed::pack(&reply)).expect("known");
            let (Verdict::Allowed(buckets) | Verdict::Denied(buckets)) = &answer.verdicts[0] else {
                panic!("{answer:?}")
            };
            assert!(buckets.iter().all(|bucket| bucket.remaining == 53 && bucket.full_after_us == 7));
            matches!(answer.verdicts[0], Verdict::Allowed(_))
        };
        assert!(made([0, 0]));
        for denied in [[1, 0], [0, 1], [-1, 0], [0, -1]] {
            assert!(!made(denied), "{denied:?}");
        }
    }

    #[test]
    fn a_value_is_three_integers_or_seven_or_nothing() {
        assert_eq!(parse_value(b"5 1000000 17"), Bucket::restore(5, 1_000_000, 17));
        assert_eq!(parse_value(b"-5 1000000 17"), Bucket::restore(-5, 1_000_000, 17));
        assert_eq!(parse_value(b"-9007199254740991 1 2"), Bucket::restore(-9_007_199_254_740_991, 1, 2));
        let leased = Bucket::restore(5, 1_000_000, 17).and_then(|bucket| {
            let slot = |credits, lapses_at_us| Slot { credits, lapses_at_us };
            bucket.with_leases([slot(7, 8), slot(9, 10)])
        });
        assert!(leased.is_some());
        assert_eq!(parse_value(b"5 1000000 17 7 8 9 10"), leased);
        assert_eq!(parse_value(b"5 1000000 17 0 0 0 0"), Bucket::restore(5, 1_000_000, 17));
        let wrong = [
            "5 1 2 3 4",
            "5 1 2 3 4 5",
            "5 1 2 3 4 5 ",
            "5 1 2 3 4 5 6 ",
            "5 1 2 3 4 5 6 7",
            "5 1 2 -3 4 5 6",
            "5 1 2 3 -4 5 6",
            "5 1 2 9007199254740992 4 5 6",
            "5 1 2 3 9007199254740992 5 6",
            "5 1 2 3 4 9007199254740992 6",
            "5 1 2 3 4 5 9007199254740992",
            "",
            "5",
            "5 1",
            "5 1 2 3",
            "5 0 2",
            " 5 1 2",
            "5 1 2 ",
            "+5 1 2",
            "5.0 1 2",
            "9007199254740992 1 2",
            "-9007199254740992 1 2",
            "-99999999999999999999 1 2",
            "-",
            "- 1 2",
            "--5 1 2",
            "5 -1 2",
            "5 1 -2",
        ];
        for value in wrong {
            assert_eq!(parse_value(value.as_bytes()), None, "{value:?}");
        }
    }
}
