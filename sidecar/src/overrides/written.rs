//! What an operator puts in the place of a bucket's limit, as it is kept and as it is told.

use std::fmt;

use bucket::{EXACT, InvalidLimit, Limit};
use contract::Overridden;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A limit, as it was written: not in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct WrittenLimit {
    /// Tokens refilled per `period_us`.
    pub tokens: u64,
    /// Microseconds in which `tokens` are refilled.
    pub period_us: u64,
    /// Tokens in a full bucket.
    pub burst: u64,
}

impl WrittenLimit {
    /// The limit that it is.
    ///
    /// # Errors
    /// [`InvalidLimit`] where it is none.
    pub const fn limit(self) -> Result<Limit, InvalidLimit> {
        Limit::new(self.tokens, self.period_us, self.burst)
    }
}

/// What is put in the place of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Another limit.
    Limit(Limit, WrittenLimit),
    /// None.
    Unlimited,
    /// Nothing passes.
    Blocked,
}

impl Instead {
    /// As filters are told.
    #[must_use]
    pub const fn overridden(&self) -> Overridden {
        match *self {
            Self::Limit(_, WrittenLimit { tokens, period_us, burst }) => {
                Overridden::Limit { tokens, period_us, burst }
            }
            Self::Unlimited => Overridden::Unlimited,
            Self::Blocked => Overridden::Blocked,
        }
    }
}

/// As the log tells it.
impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(_, WrittenLimit { tokens, period_us, burst }) => {
                write!(f, "{tokens} per {period_us} us, burst {burst}")
            }
            Self::Unlimited => f.write_str("unlimited"),
            Self::Blocked => f.write_str("blocked"),
        }
    }
}

/// One bucket's override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// What is in the limit's place.
    pub instead: Instead,
    /// Why, in an operator's words.
    pub reason: Option<String>,
    /// When it was put there, by the store's clock.
    pub created_at_us: u64,
    /// From when on it holds no longer, by the store's clock, below 2^53; nothing where it holds until it is removed.
    pub expires_at_us: Option<u64>,
}

impl Override {
    /// Whether it holds at `now_us`.
    #[must_use]
    pub fn holds(&self, now_us: u64) -> bool {
        self.expires_at_us.is_none_or(|expires_at_us| now_us < expires_at_us)
    }

    /// As it is kept: a JSON object that begins with its expiry, which `lua/override.lua` reads, and 0 is none.
    #[must_use]
    pub fn to_value(&self) -> String {
        let kept = Kept { expires_at_us: self.expires_at_us.unwrap_or(0), told: Told::from(self) };
        // Nothing in it can fail to be JSON; what could would be read as nothing.
        serde_json::to_string(&kept).unwrap_or_default()
    }

    /// Reads what is kept; nothing where it is none, as another version may have written.
    #[must_use]
    pub fn from_value(value: &[u8]) -> Option<Self> {
        let Kept { expires_at_us, told } = serde_json::from_slice(value).ok()?;
        let instead = match (told.limit, told.unlimited, told.blocked) {
            (Some(written), false, false) => Instead::Limit(written.limit().ok()?, written),
            (None, true, false) => Instead::Unlimited,
            (None, false, true) => Instead::Blocked,
            _ => return None,
        };
        (expires_at_us < EXACT).then_some(Self {
            instead,
            reason: told.reason,
            created_at_us: told.created_at_us,
            expires_at_us: Some(expires_at_us).filter(|&expires_at_us| expires_at_us > 0),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    expires_at_us: u64,
    #[serde(flatten)]
    told: Told,
}

/// What is told and kept of an override, but for its expiry: one of `limit`, `unlimited` and `blocked`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Told {
    /// The limit that the bucket is held to instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<WrittenLimit>,
    /// True where nothing is denied.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unlimited: bool,
    /// True where everything is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub blocked: bool,
    /// Why, as the operator said.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was put, in microseconds since 1970 by the store's clock.
    pub created_at_us: u64,
}

impl From<&Override> for Told {
    fn from(of: &Override) -> Self {
        let limit = match of.instead {
            Instead::Limit(_, written) => Some(written),
            Instead::Unlimited | Instead::Blocked => None,
        };
        Self {
            limit,
            unlimited: of.instead == Instead::Unlimited,
            blocked: of.instead == Instead::Blocked,
            reason: of.reason.clone(),
            created_at_us: of.created_at_us,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_begins_with_its_expiry() {
        let written = WrittenLimit { tokens: 100, period_us: 60_000_000, burst: 200 };
        for instead in
            [Instead::Limit(written.limit().expect("valid"), written), Instead::Unlimited, Instead::Blocked]
        {
            for (expires_at_us, reason) in
                [(None, None), (Some(7), Some("\"expires_at_us\":9 ü\n".to_owned()))]
            {
                let kept = Override { instead, reason, created_at_us: 5, expires_at_us };
                let value = kept.to_value();
                let begin = format!("{{\"expires_at_us\":{},", expires_at_us.unwrap_or(0));
                assert!(value.starts_with(&begin), "{value}");
                assert_eq!(Override::from_value(value.as_bytes()), Some(kept));
            }
        }
    }

    #[test]
    fn what_is_none_is_not_read() {
        let good = r#"{"expires_at_us":0,"blocked":true,"reason":null,"created_at_us":5}"#;
        assert!(Override::from_value(good.as_bytes()).is_some());
        for wrong in [
            "",
            "{}",
            r#"{"expires_at_us":0,"created_at_us":5}"#,
            r#"{"expires_at_us":0,"blocked":true,"unlimited":true,"created_at_us":5}"#,
            r#"{"expires_at_us":9007199254740992,"blocked":true,"created_at_us":5}"#,
            r#"{"expires_at_us":0,"limit":{"tokens":0,"period_us":1,"burst":1},"created_at_us":5}"#,
        ] {
            assert_eq!(Override::from_value(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
