//! What operators put in the place of limits, as Redis keeps it, and the limits that sidecars publish: see "Overrides" in
//! `lua/SPEC.md`.

use std::collections::HashMap;

use redis::{Value, cmd, from_redis_value};

use super::control::{Control, ControlError};

/// The script by which it is changed.
const SCRIPT: &str = include_str!("../../../../lua/override.lua");

/// The hash that has all of them.
const OVERRIDES: &str = "sluice:1:{overrides}";

/// The hash of the limits that sidecars are asked for.
const POLICIES: &str = "sluice:1:{policies}";

/// The field of it that tells of each change.
const VERSION: &str = "version";

/// All of them, as they were at one instant.
#[derive(Debug, Default)]
pub struct Kept {
    /// When that was, by Redis's clock, in microseconds since 1970.
    pub now_us: u64,
    /// Which of their versions it is; nothing before the first change.
    pub version: Option<Vec<u8>>,
    /// The names of buckets, and what is kept of each.
    pub values: HashMap<Vec<u8>, Vec<u8>>,
}

/// What is changed.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A value is put for a bucket, where there is room among so many.
    Put {
        /// The name of the bucket.
        bucket_key: &'a str,
        /// What is kept of it.
        value: &'a str,
        /// The most that are kept.
        most: usize,
    },
    /// That of a bucket is removed.
    Remove {
        /// The name of the bucket.
        bucket_key: &'a str,
    },
    /// None, but something else that others are to know of.
    Tell,
}

impl Control {
    /// The time, and the version of what is kept now.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn look(&self) -> Result<(u64, Option<Vec<u8>>), ControlError> {
        let mut get = cmd("HGET");
        get.arg(OVERRIDES).arg(VERSION);
        let [time, version] = self.two(&[cmd("TIME"), get]).await?;
        Ok((micros(time)?, from_redis_value(version).map_err(|_| ControlError::Strange)?))
    }

    /// All that is kept now.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn read(&self) -> Result<Kept, ControlError> {
        let mut get = cmd("HGETALL");
        get.arg(OVERRIDES);
        let [time, values] = self.two(&[cmd("TIME"), get]).await?;
        let mut values: HashMap<Vec<u8>, Vec<u8>> =
            from_redis_value(values).map_err(|_| ControlError::Strange)?;
        let version = values.remove(VERSION.as_bytes());
        Ok(Kept { now_us: micros(time)?, version, values })
    }

    /// Changes what is kept, and drops those of `expired` that have expired; whether there was room for it, or anything that
    /// could be removed.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn change(&self, change: Change<'_>, expired: &[String]) -> Result<bool, ControlError> {
        let mut eval = cmd("EVAL");
        eval.arg(SCRIPT).arg(1).arg(OVERRIDES);
        match change {
            Change::Put { bucket_key, value, most } => {
                eval.arg("put").arg(bucket_key).arg(value).arg(most);
            }
            Change::Remove { bucket_key } => {
                eval.arg("remove").arg(bucket_key).arg("").arg(0);
            }
            Change::Tell => {
                eval.arg("tell").arg("").arg("").arg(0);
            }
        }
        eval.arg(expired);
        match self.ask(OVERRIDES, &[eval]).await?.pop() {
            Some(Value::Int(done)) => Ok(done == 1),
            _ => Err(ControlError::Strange),
        }
    }

    /// Publishes limits, by the names of their policies, unless there are `most` already.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn publish_policies(&self, fields: &[(&str, String)], most: usize) -> Result<(), ControlError> {
        let mut count = cmd("HLEN");
        count.arg(POLICIES);
        let count = self.ask(POLICIES, &[count]).await?.pop();
        let Some(Value::Int(count)) = count else { return Err(ControlError::Strange) };
        if usize::try_from(count).is_ok_and(|count| count < most) {
            let mut set = cmd("HSET");
            set.arg(POLICIES);
            for (name, value) in fields {
                set.arg(*name).arg(value);
            }
            self.ask(POLICIES, &[set]).await?;
        }
        Ok(())
    }

    /// The limits that were published, by the names of their policies.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn policies(&self) -> Result<HashMap<String, Vec<u8>>, ControlError> {
        let mut get = cmd("HGETALL");
        get.arg(POLICIES);
        let all = self.ask(POLICIES, &[get]).await?.pop().ok_or(ControlError::Strange)?;
        from_redis_value(all).map_err(|_| ControlError::Strange)
    }

    async fn two(&self, commands: &[redis::Cmd; 2]) -> Result<[Value; 2], ControlError> {
        let replies = self.ask(OVERRIDES, commands).await?;
        replies.try_into().map_err(|_| ControlError::Strange)
    }
}

fn micros(time: Value) -> Result<u64, ControlError> {
    let (seconds, micros): (u64, u64) = from_redis_value(time).map_err(|_| ControlError::Strange)?;
    Ok(seconds.saturating_mul(1_000_000).saturating_add(micros))
}
