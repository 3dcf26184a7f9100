//! What operators put in the place of limits, as Redis keeps it, and the limits that sidecars publish: see "Overrides" in
//! `lua/SPEC.md`.

use std::collections::HashMap;

use redis::{Cmd, Value, cmd, from_redis_value};

use super::control::{Control, ControlError};

/// The script by which it is changed.
const SCRIPT: &str = include_str!("../../../../lua/override.lua");

/// The hash that has all of them.
const OVERRIDES: &str = "sluice:1:{overrides}";

/// The hash of the limits that sidecars are asked for.
const POLICIES: &str = "sluice:1:{policies}";

/// The field of the first that tells of each change.
const VERSION: &str = "version";

/// The field that tells of what else others are to know of.
const TOLD: &str = "told";

/// The fields that are no override.
const NO_OVERRIDES: [&[u8]; 3] = [VERSION.as_bytes(), TOLD.as_bytes(), b"changes"];

/// How many fields are asked for at a time: with the longest keys and reasons less than 100 KB, which neither Redis nor the
/// connection, which takes share, is held up by.
const PIECE: u32 = 48;

/// How often reading begins anew because too much was changed meanwhile.
const READINGS: usize = 5;

/// What tells whether anything is new.
#[derive(Debug)]
pub struct Seen {
    /// When that was, by Redis's clock, in microseconds since 1970.
    pub now_us: u64,
    /// Which version of the overrides there is; empty before the first change.
    pub version: Vec<u8>,
    /// What else was told last.
    pub told: Vec<u8>,
}

/// All of them, as they were at one instant.
#[derive(Debug)]
pub struct Kept {
    /// Which of their versions it is; empty before the first change.
    pub version: Vec<u8>,
    /// The names of buckets, and what is kept of each.
    pub values: HashMap<Vec<u8>, Vec<u8>>,
}

/// What was changed since a version.
#[derive(Debug)]
pub struct Since {
    /// Which version there is now.
    pub version: Vec<u8>,
    /// The names of buckets, and what is kept of each now; an empty value is none.
    pub values: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The versions before and after a change.
#[derive(Debug)]
pub struct Made {
    /// Empty before the first change.
    pub before: Vec<u8>,
    /// The present one.
    pub after: Vec<u8>,
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
    /// The time, and what tells whether anything is new.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn look(&self) -> Result<Seen, ControlError> {
        let replies =
            self.ask(OVERRIDES, &[cmd("TIME"), get(OVERRIDES, VERSION), get(OVERRIDES, TOLD)]).await?;
        let [time, version, told] = replies.try_into().map_err(|_| ControlError::Strange)?;
        Ok(Seen { now_us: micros(time)?, version: text(version)?, told: text(told)? })
    }

    /// What was changed since a version; nothing where that is known no longer.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn since(&self, version: &[u8]) -> Result<Option<Since>, ControlError> {
        changed(self.ask(OVERRIDES, &[since(version)]).await?)
    }

    /// All that is kept now. It is read in pieces from one Redis, and then brought to one instant by what was changed
    /// meanwhile.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn read(&self) -> Result<Kept, ControlError> {
        for _ in 0..READINGS {
            let (mut replies, place) = self.ask_somewhere(OVERRIDES, &[get(OVERRIDES, VERSION)]).await?;
            let version = text(replies.pop().ok_or(ControlError::Strange)?)?;
            let mut values = HashMap::new();
            let mut cursor = 0;
            loop {
                let piece = self.ask_there(&place, &[scan(OVERRIDES, cursor)]).await?;
                cursor = add_piece(piece, &mut values)?;
                if cursor == 0 {
                    break;
                }
            }
            values.retain(|name, _| !NO_OVERRIDES.contains(&name.as_slice()));
            let Some(Since { version, values: changed }) =
                changed(self.ask_there(&place, &[since(&version)]).await?)?
            else {
                continue;
            };
            for (name, value) in changed {
                if value.is_empty() {
                    values.remove(&name)
                } else {
                    values.insert(name, value)
                };
            }
            return Ok(Kept { version, values });
        }
        Err(ControlError::Restless)
    }

    /// Changes what is kept, and drops those of `expired` that have expired; nothing where there was no room for it, or nothing
    /// that could be removed.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn change(&self, change: Change<'_>, expired: &[String]) -> Result<Option<Made>, ControlError> {
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
        let made = self.ask(OVERRIDES, &[eval]).await?.pop().ok_or(ControlError::Strange)?;
        let made: Option<(Vec<u8>, Vec<u8>)> = from_redis_value(made).map_err(|_| ControlError::Strange)?;
        Ok(made.map(|(before, after)| Made { before, after }))
    }

    /// Publishes limits, by the names of their policies, those of which there was none only while there are fewer than `most`
    /// or so. Which were published, by their places.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn publish_policies(
        &self,
        fields: &[(&str, String)],
        most: u64,
    ) -> Result<Vec<usize>, ControlError> {
        let mut published = Vec::new();
        let places: Vec<usize> = (0..fields.len()).collect();
        for piece in places.chunks(PIECE as usize) {
            let mut count = cmd("HLEN");
            count.arg(POLICIES);
            let mut ask = vec![count];
            ask.extend(piece.iter().map(|&place| get(POLICIES, fields[place].0)));
            let mut replies = self.ask(POLICIES, &ask).await?.into_iter();
            let Some(Value::Int(count)) = replies.next() else { return Err(ControlError::Strange) };
            let mut room = most.saturating_sub(u64::try_from(count).unwrap_or(0));
            let mut set = cmd("HSET");
            set.arg(POLICIES);
            let before = published.len();
            for (&place, known) in piece.iter().zip(replies) {
                if known == Value::Nil && room == 0 {
                    continue;
                }
                room -= u64::from(known == Value::Nil);
                set.arg(fields[place].0).arg(&fields[place].1);
                published.push(place);
            }
            if published.len() > before {
                self.ask(POLICIES, &[set]).await?;
            }
        }
        Ok(published)
    }

    /// Of how many policies limits are published.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn policies_count(&self) -> Result<u64, ControlError> {
        let mut count = cmd("HLEN");
        count.arg(POLICIES);
        let count = self.ask(POLICIES, &[count]).await?.pop().ok_or(ControlError::Strange)?;
        from_redis_value(count).map_err(|_| ControlError::Strange)
    }

    /// The limits that were published, by the names of their policies.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn policies(&self) -> Result<HashMap<Vec<u8>, Vec<u8>>, ControlError> {
        let (mut piece, place) = self.ask_somewhere(POLICIES, &[scan(POLICIES, 0)]).await?;
        let mut values = HashMap::new();
        loop {
            match add_piece(piece, &mut values)? {
                0 => return Ok(values),
                cursor => piece = self.ask_there(&place, &[scan(POLICIES, cursor)]).await?,
            }
        }
    }

    /// Drops what was published of policies of these names.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drop_policies(&self, names: &[Vec<u8>]) -> Result<(), ControlError> {
        for piece in names.chunks(PIECE as usize) {
            let mut drop = cmd("HDEL");
            drop.arg(POLICIES).arg(piece);
            self.ask(POLICIES, &[drop]).await?;
        }
        Ok(())
    }
}

fn get(hash: &str, field: &str) -> Cmd {
    let mut get = cmd("HGET");
    get.arg(hash).arg(field);
    get
}

fn scan(hash: &str, cursor: u64) -> Cmd {
    let mut scan = cmd("HSCAN");
    scan.arg(hash).arg(cursor).arg("COUNT").arg(PIECE);
    scan
}

fn since(version: &[u8]) -> Cmd {
    let mut eval = cmd("EVAL");
    eval.arg(SCRIPT).arg(1).arg(OVERRIDES).arg("since").arg(version).arg("").arg(0);
    eval
}

/// Adds what a piece of a hash has; where the next one begins, and 0 where it was the last.
fn add_piece(mut replies: Vec<Value>, to: &mut HashMap<Vec<u8>, Vec<u8>>) -> Result<u64, ControlError> {
    let piece = replies.pop().ok_or(ControlError::Strange)?;
    let (cursor, values): (u64, HashMap<Vec<u8>, Vec<u8>>) =
        from_redis_value(piece).map_err(|_| ControlError::Strange)?;
    to.extend(values);
    Ok(cursor)
}

fn changed(mut replies: Vec<Value>) -> Result<Option<Since>, ControlError> {
    let texts: Option<Vec<Vec<u8>>> =
        from_redis_value(replies.pop().ok_or(ControlError::Strange)?).map_err(|_| ControlError::Strange)?;
    let Some(texts) = texts else { return Ok(None) };
    let mut texts = texts.into_iter();
    let version = texts.next().ok_or(ControlError::Strange)?;
    let mut values = Vec::new();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        values.push((name, value));
    }
    Ok(Some(Since { version, values }))
}

/// One that is not there is empty.
fn text(value: Value) -> Result<Vec<u8>, ControlError> {
    let text: Option<Vec<u8>> = from_redis_value(value).map_err(|_| ControlError::Strange)?;
    Ok(text.unwrap_or_default())
}

fn micros(time: Value) -> Result<u64, ControlError> {
    let (seconds, micros): (u64, u64) = from_redis_value(time).map_err(|_| ControlError::Strange)?;
    Ok(seconds.saturating_mul(1_000_000).saturating_add(micros))
}
