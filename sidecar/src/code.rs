//! The codes of refusals: the one list of them, with what each means. They stay the same when words change.

/// Makes the codes, and the list of all.
macro_rules! codes {
    ($($code:ident $status:literal $name:literal $meaning:literal,)*) => {
        /// Why a request is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each tells its meaning itself")]
        pub enum Code {
            $($code,)*
        }

        impl Code {
            /// All of them, by status and name.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// As clients see it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// The status of HTTP that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$code => $status,)* }
            }

            /// What it means, and what to do.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)* }
            }
        }
    };
}

codes! {
    BodyLost 400 "body_lost" "The connection ended within the body. Send it again.",
    CostTooLarge 400 "cost_too_large" "A take costs more than 2^53 − 1 tokens.",
    DuplicateBucket 400 "duplicate_bucket" "A take names a bucket twice. Add the costs up.",
    FollowsNothing 400 "follows_nothing" "The first take of a request follows another. Only later ones can.",
    InvalidBody 400 "invalid_body" "The body is not the JSON that is described for this path; the reason names line and column.",
    InvalidDuration 400 "invalid_duration" "The time is none with a unit, such as `10m`, or not above zero.",
    InvalidFilter 400 "invalid_filter" "The log filter is neither a level nor levels by module, such as `info,sluice::store=debug`.",
    InvalidLease 400 "invalid_lease" "The terms of a lease are missing, needless or out of range.",
    InvalidLimit 400 "invalid_limit" "The limit is none, or one that cannot be counted exactly.",
    InvalidName 400 "invalid_name" "A domain or a policy has a name that is none: 1 to 64 ASCII letters, digits, `-`, `_` and `.`.",
    InvalidOverride 400 "invalid_override" "Not exactly one of `limit`, `unlimited` and `blocked` is given, the reason is too long, or the expiry is over or too far.",
    InvalidQuery 400 "invalid_query" "The query has a field that is not known, or a value out of range.",
    InvalidRefund 400 "invalid_refund" "The tokens to return are not from 1 to 2^53 − 1.",
    InvalidReturn 400 "invalid_return" "What is returned was not leased like that.",
    KeyTooLong 400 "key_too_long" "The key is longer than 1,024 bytes.",
    NotJson 400 "not_json" "The body is not JSON; the reason names line and column.",
    NotTakes 400 "not_takes" "The body is JSON, and not a request for takes; the reason names line and column.",
    NotText 400 "not_text" "What is percent-encoded in the path is not UTF-8.",
    NothingAsked 400 "nothing_asked" "There is no take in the request, or no bucket in a take.",
    TooManyBuckets 400 "too_many_buckets" "A take names more than 64 buckets, or takes that follow each other do together.",
    TooManyTakes 400 "too_many_takes" "The request has more than 4,096 takes. Send several requests.",
    NoToken 401 "no_token" "The token is missing or wrong. Send `authorization: Bearer TOKEN`.",
    ForeignHost 403 "foreign_host" "Without a token only `localhost` or an IP address is answered, so that no web page can lead a browser here.",
    ForeignOrigin 403 "foreign_origin" "Without a token no other web page than the one at `/` is answered.",
    NoOverride 404 "no_override" "There is no override to remove.",
    UnknownPath 404 "unknown_path" "There is nothing at this path, or not on this listener, or not in this version.",
    UnknownPolicy 404 "unknown_policy" "Nobody asked for a policy of this name yet. See the name, or give `domain` and `limit` in the query.",
    WrongMethod 405 "wrong_method" "The path does not answer this method.",
    BodyTooSlow 408 "body_too_slow" "The body did not arrive in time.",
    AmbiguousDomain 409 "ambiguous_domain" "Several domains have such a policy. Name one by `domain` in the query.",
    TooManyOverrides 409 "too_many_overrides" "There are 10,000 overrides. Remove some.",
    BodyTooLarge 413 "body_too_large" "The body is larger than it may be.",
    NotJsonContent 415 "not_json_content" "What changes something is not sent as `content-type: application/json`.",
    Overloaded 503 "overloaded" "More requests wait, or hold memory, than may. Try again; add a sidecar or a faster Redis.",
    Stopping 503 "stopping" "The sidecar is stopping. Ask another one.",
    StoreFull 503 "store_full" "The store in memory is full, and knows nothing of this bucket.",
    StoreUnavailable 503 "store_unavailable" "The store cannot decide or did not answer. Whether anything was changed is not known; the reason tells more, and so does the log.",
    TooManyStreams 503 "too_many_streams" "As many watch `/v1/events` as may. Close a page.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_that_are_told_are_those_that_hold() {
        use contract::{MAX_BUCKETS, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_TAKES};
        let found =
            (MAX_BUCKETS, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_TAKES, crate::overrides::table::MAX_OVERRIDES);
        assert_eq!(found, (64, 1_024, 64, 4_096, 10_000), "as the meanings have them");
    }

    #[test]
    fn they_are_apart_and_in_order() {
        let keys: Vec<_> = Code::ALL.iter().map(|code| (code.status(), code.name())).collect();
        assert!(keys.is_sorted_by(|one, next| one < next), "{keys:?}");
    }
}
