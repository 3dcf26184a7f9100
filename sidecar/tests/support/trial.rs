//! A script on a real Redis against the model: random steps, compared after each in every number and every key.

use std::collections::HashMap;

use bucket::{Bucket, EXACT, Limit, Slot};
use redis::Connection;
use sluice::{batch::Take, store::script};

use super::{
    Random, RedisServer,
    arbitrary::{any_bucket, any_conversion, any_limit, any_takes},
    model::{Kept, Model},
};

/// Few keys, so that takes meet buckets that others have left.
const KEYS: usize = 12;

/// What a trial has come to.
#[derive(Debug)]
pub enum Difference {
    /// The script decided or kept something else than the model.
    Found(String),
    /// The script has an error.
    Broken(String),
}

pub struct Trial {
    redis: Connection,
    script_sha: String,
    random: Random,
    keys: Vec<String>,
    /// The limit that a key is held to most of the time.
    limits: Vec<Limit>,
    model: Model,
    /// When Redis lets go of each key, in milliseconds.
    expires_ms: HashMap<String, u64>,
    /// Runs between whose begin and end a key expired: which of both the script saw cannot be known.
    pub uncertain: usize,
    pub allowed: usize,
    pub denied: usize,
    /// Leases that were granted at least one token.
    pub leased: usize,
}

/// A key as it is in Redis.
struct Stored {
    value: Value,
    expires_ms: i64,
}

/// What is kept under a key.
type Value = Option<Vec<u8>>;

/// When each key expires, in milliseconds since 1970; negative where it does not. Redis has a command for that only
/// since version 7: before, it is the time and what is left of it, if both fell into one millisecond.
const EXPIRIES: &str = "
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local expiries = {}
for index, key in ipairs(KEYS) do
  local at = redis.pcall('PEXPIRETIME', key)
  while type(at) == 'table' do
    local before = now_ms()
    local left = redis.call('PTTL', key)
    if now_ms() == before then
      at = left < 0 and left or before + left
    end
  end
  expiries[index] = at
end
return expiries";

impl Trial {
    /// Loads `script` into an emptied `server`.
    pub fn new(server: &RedisServer, script: &str, mut random: Random) -> Self {
        let mut redis = server.connection();
        let () = redis::cmd("FLUSHALL").query(&mut redis).expect("Redis is emptied");
        let load = redis::cmd("SCRIPT").arg("LOAD").arg(script).query(&mut redis);
        let script_sha = load.expect("the script compiles");
        let keys = (0..KEYS).map(|key| format!("sluice:1:trial/p{}/{{{key}}}", key % 3)).collect();
        let limits = (0..KEYS).map(|_| any_limit(&mut random)).collect();
        let (model, expires_ms) = (Model::default(), HashMap::new());
        Self {
            redis,
            script_sha,
            random,
            keys,
            limits,
            model,
            expires_ms,
            uncertain: 0,
            allowed: 0,
            denied: 0,
            leased: 0,
        }
    }

    /// Takes one random step and compares.
    pub fn step(&mut self) -> Result<(), Difference> {
        match self.random.below(100) {
            0..70 => self.run_and_compare(),
            70..88 => self.age(),
            88..92 => self.corrupt(),
            92..95 => self.plant(),
            95..97 => self.plant_for_conversion(),
            _ => self.forget(),
        }
    }

    fn run_and_compare(&mut self) -> Result<(), Difference> {
        let takes = any_takes(&mut self.random, &self.keys, &mut self.limits, &self.model);
        let takes: Vec<&Take> = takes.iter().collect();
        let run = script::encode(&takes);
        let before = self.model.clone();
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.script_sha).arg(run.keys.len()).arg(&run.keys).arg(&run.argument);
        let reply: Vec<u8> =
            command.query(&mut self.redis).map_err(|error| Difference::Broken(error.to_string()))?;
        let answer = script::decode(&takes, &reply)
            .map_err(|error| Difference::Found(format!("{error}: {reply:?} to {takes:?}")))?;
        let now_us = answer.now_us;
        let expired = |key: &&str| self.expires_ms.get(*key).is_some_and(|at_ms| now_us / 1000 >= *at_ms);
        if run.keys.iter().any(expired) {
            self.uncertain += 1;
            return self.resync();
        }
        let expected = self.model.take(&takes, now_us);
        for (verdict, expected) in answer.verdicts.iter().zip(&expected) {
            match expected {
                contract::Verdict::Allowed(_) => self.allowed += 1,
                contract::Verdict::Leased { tokens, .. } => self.leased += usize::from(*tokens > 0),
                _ => self.denied += 1,
            }
            if verdict != expected {
                let found =
                    format!("{verdict:?} instead of {expected:?} at {now_us} in {takes:?} on {before:?}");
                return Err(Difference::Found(found));
            }
        }
        self.compare(&before, now_us).map_err(|found| {
            let key = found.split(": ").next().unwrap_or_default();
            let touches = |take: &&&Take| take.buckets.iter().any(|ask| ask.bucket_key == key);
            let (kept, takes) = (before.0.get(key), takes.iter().filter(touches).collect::<Vec<_>>());
            Difference::Found(format!("{found} after {takes:?} on {kept:?}"))
        })
    }

    /// Compares every key with the model; those that the last run changed must live until they are full.
    fn compare(&mut self, before: &Model, now_us: u64) -> Result<(), String> {
        let (stored, read_us) = self.stored();
        for (key, stored) in self.keys.iter().zip(stored) {
            let found = stored.value.as_deref().and_then(script::parse_value);
            let Some(kept) = self.model.0.get(key).copied() else {
                self.expires_ms.remove(key);
                match found {
                    None => continue,
                    Some(found) => return Err(format!("{key}: kept {found:?} of a full bucket")),
                }
            };
            let Some(found) = found else {
                // Missing must mean full. Where the last run has not written it anew, its expiry is known too.
                let unchanged = before.0.get(key) == Some(&kept);
                let early = unchanged && self.expires_ms.get(key).is_none_or(|at_ms| read_us / 1000 < *at_ms);
                if early || read_us < kept.full_at_us && !unchanged {
                    return Err(format!("{key}: {kept:?} was lost before {read_us}"));
                }
                self.model.0.remove(key);
                self.expires_ms.remove(key);
                continue;
            };
            if found != kept.bucket {
                return Err(format!("{key}: kept {found:?} instead of {:?}", kept.bucket));
            }
            if before.0.get(key) != Some(&kept) {
                if stored.value.as_deref() != Some(written(found).as_bytes()) {
                    return Err(format!("{key}: {found:?} is written as {:?}", stored.value));
                }
                let expires_us = u64::try_from(stored.expires_ms).unwrap_or(0) * 1000;
                if expires_us < kept.full_at_us || expires_us > kept.full_at_us + 2000 {
                    return Err(format!("{key}: {kept:?}, written at {now_us}, expires at {expires_us} µs"));
                }
                self.expires_ms.insert(key.clone(), expires_us / 1000);
            } else if u64::try_from(stored.expires_ms).ok() != self.expires_ms.get(key).copied() {
                return Err(format!("{key}: unchanged, but expires at {} ms", stored.expires_ms));
            }
        }
        Ok(())
    }

    /// Takes over what Redis has.
    fn resync(&mut self) -> Result<(), Difference> {
        let (stored, _) = self.stored();
        for (key, stored) in self.keys.iter().zip(stored) {
            self.model.0.remove(key);
            self.expires_ms.remove(key);
            if let Some(bucket) = stored.value.as_deref().and_then(script::parse_value) {
                let expires_ms = u64::try_from(stored.expires_ms).ok();
                let full_at_us = expires_ms.map_or(u64::MAX, |ms| ms * 1000);
                self.model.0.insert(key.clone(), Kept { bucket, full_at_us });
                self.expires_ms.extend(expires_ms.map(|ms| (key.clone(), ms)));
            }
        }
        Ok(())
    }

    fn stored(&mut self) -> (Vec<Stored>, u64) {
        let mut pipe = redis::pipe();
        // The values come last: what expires in between is then seen as missing, not as kept without an expiry.
        pipe.cmd("EVAL").arg(EXPIRIES).arg(self.keys.len()).arg(&self.keys);
        // MGET, unlike GET, has nothing against keys of another type.
        pipe.cmd("MGET").arg(&self.keys).cmd("TIME");
        let (expiries, values, time): (Vec<i64>, Vec<Value>, (u64, u64)) =
            pipe.query(&mut self.redis).expect("Redis answers");
        let stored = values.into_iter().zip(expiries).map(|(value, expires_ms)| Stored { value, expires_ms });
        (stored.collect(), time.0 * 1_000_000 + time.1)
    }

    /// Lets time pass for one bucket, or makes the clock go back for it.
    fn age(&mut self) -> Result<(), Difference> {
        let key = self.random.choose(&self.keys).clone();
        let Some(kept) = self.model.0.get(&key).copied() else { return Ok(()) };
        let bucket = kept.bucket;
        let aged = if self.random.percent(25) {
            put_forward(bucket, self.random.magnitude(45))
        } else if bucket.leases().is_some() && self.random.percent(70) {
            // Around the time that a lease takes to lapse.
            bucket.aged(self.random.magnitude(27))
        } else {
            // Around the time that a token takes, and up to far beyond the one that the bucket takes.
            bucket.aged(self.random.magnitude(50))
        };
        let value = written(aged);
        // XX: should it have expired meanwhile, it must not come back without its expiry.
        let set: Option<String> = redis::cmd("SET")
            .arg(&key)
            .arg(value)
            .arg("XX")
            .arg("KEEPTTL")
            .query(&mut self.redis)
            .expect("Redis sets");
        if set.is_none() {
            return self.resync();
        }
        self.model.0.insert(key, Kept { bucket: aged, ..kept });
        Ok(())
    }

    /// Puts what no store of ours writes in a bucket's place: it counts as missing.
    fn corrupt(&mut self) -> Result<(), Difference> {
        let wrong = [
            "",
            " ",
            "1",
            "1 2",
            "1 2 3 4",
            "1 2 3 4 5",
            "1 2 3 4 5 6",
            "1 2 3 4 5 6 7 ",
            "1 2 3 4 5 6 7 8",
            "1 2 3  4 5 6 7",
            "1 2 3 -4 5 6 7",
            "1 2 3 4 5.0 6 7",
            "1 0 3 4 5 6 7",
            "1 2 9007199254740992 4 5 6 7",
            "1 2 3 9007199254740992 9007199254740991 6 7",
            "1 2 3 4 9007199254740992 6 7",
            "1 2 3 4 5 9007199254740992 9007199254740991",
            "1 2 3 4 5 6 9007199254740992",
            "-9007199254740992 2 3 4 5 6 7",
            "-1 -1 1",
            "-1 1 -1",
            "- 1 1",
            "--1 1 1",
            "-+1 1 1",
            "-9007199254740992 1 1",
            "1 0 1",
            "1.5 1 1",
            "1e3 1 1",
            " 1 1 1",
            "1 1 1 ",
            "nan 1 1",
            "9007199254740992 1 1",
            "1 9007199254740992 1",
            "1 1 9007199254740993",
            "0x10 1 1",
            "1\n1 1",
            "1 1 1\n",
            "99999999999999999999999999 1 1",
            "1  1 1",
            "inf 1 1",
            "+1 1 1",
        ];
        // In the unit of the limit that the key is held to, in the place of U.
        let usual = [
            " 1 U 9007199254740000",
            "1 U 9007199254740000 ",
            "x1 U 9007199254740000",
            "1 U 9007199254740000\n",
            "1 U 9007199254740000 2",
            "1.5 U 9007199254740000",
            "1 U -1",
            "1 U 1.5",
            "9007199254740992 U 9007199254740000",
            "-9007199254740992 U 9007199254740000",
            "1 U 9007199254740992",
        ];
        let place = self.random.below(KEYS as u64) as usize;
        let key = self.keys[place].clone();
        let () = redis::cmd("DEL").arg(&key).query(&mut self.redis).expect("Redis deletes");
        let wrong = if self.random.percent(50) { &wrong[..] } else { &usual };
        let wrong = self.random.choose(wrong).replace('U', &self.limits[place].period_us().to_string());
        let mut command = redis::cmd(if self.random.percent(30) { "RPUSH" } else { "SET" });
        let () = command.arg(&key).arg(wrong).query(&mut self.redis).expect("Redis writes");
        self.model.0.remove(&key);
        self.expires_ms.remove(&key);
        Ok(())
    }

    /// Puts any bucket in place, as if under any limit before.
    fn plant(&mut self) -> Result<(), Difference> {
        let place = self.random.below(KEYS as u64) as usize;
        let (_, now_us) = self.stored();
        let bucket = any_bucket(&mut self.random, self.limits[place], now_us);
        self.put(self.keys[place].clone(), bucket);
        Ok(())
    }

    fn plant_for_conversion(&mut self) -> Result<(), Difference> {
        let place = self.random.below(KEYS as u64) as usize;
        let (_, now_us) = self.stored();
        let (limit, bucket) = any_conversion(&mut self.random, now_us);
        self.limits[place] = limit;
        self.put(self.keys[place].clone(), bucket);
        Ok(())
    }

    /// Keeps `bucket` forever, as if another limit had left it.
    fn put(&mut self, key: String, bucket: Bucket) {
        let () = redis::cmd("SET").arg(&key).arg(written(bucket)).query(&mut self.redis).expect("Redis sets");
        self.expires_ms.remove(&key);
        self.model.0.insert(key, Kept { bucket, full_at_us: u64::MAX });
    }

    fn forget(&mut self) -> Result<(), Difference> {
        let key = self.random.choose(&self.keys).clone();
        let () = redis::cmd("DEL").arg(&key).query(&mut self.redis).expect("Redis deletes");
        self.model.0.remove(&key);
        self.expires_ms.remove(&key);
        Ok(())
    }
}

/// As the script writes a bucket.
fn written(bucket: Bucket) -> String {
    let plain = format!("{} {} {}", bucket.credits(), bucket.unit(), bucket.at_us());
    let Some([first, last]) = bucket.leases() else { return plain };
    let slot = |Slot { credits, lapses_at_us }: Slot| format!("{credits} {lapses_at_us}");
    format!("{plain} {} {}", slot(first), slot(last))
}

/// The same bucket, counted later and its leases granted as much later: as if the clock had gone back since.
fn put_forward(bucket: Bucket, by_us: u64) -> Bucket {
    let later = |us: u64| (us + by_us).min(EXACT - 1);
    let plain = Bucket::restore(bucket.credits(), bucket.unit(), later(bucket.at_us())).expect("in range");
    let slots = bucket.leases().unwrap_or_default();
    let slots = slots.map(|slot| Slot { lapses_at_us: later(slot.lapses_at_us), ..slot });
    plain.with_leases(slots).expect("in range")
}
