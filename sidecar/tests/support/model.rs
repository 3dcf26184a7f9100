//! What a store has to do, in the plainest form: the `bucket` crate over a map, with `now` as an argument.

use std::collections::HashMap;

use bucket::{Ask, Bucket, Keep, Level, look_at_all, take_all};
use contract::Verdict;
use sluice::{batch::Take, store::script::verdict};

/// A bucket and the instant from which it is full, in microseconds; `u64::MAX` where it is kept forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub bucket: Bucket,
    pub full_at_us: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Model(pub HashMap<String, Kept>);

impl Model {
    pub fn take(&mut self, takes: &[&Take], now_us: u64) -> Vec<Verdict> {
        // Whether the last take that follows none was allowed.
        let mut led = true;
        let decide = |take: &&Take| {
            let verdict = self.decide(take, take.follows && !led, now_us);
            if !take.follows {
                led = !matches!(verdict, Verdict::Denied(_));
            }
            verdict
        };
        takes.iter().map(decide).collect()
    }

    fn decide(&mut self, take: &Take, only_look: bool, now_us: u64) -> Verdict {
        let mut asks: Vec<Ask> = take
            .buckets
            .iter()
            .map(|asked| {
                let bucket = self.0.get(&asked.bucket_key).map(|kept| kept.bucket);
                Ask::new(Level::count(asked.limit, bucket, now_us), take.kind, asked.cost_tokens)
            })
            .collect();
        let allowed = if only_look { look_at_all(&asks) } else { take_all(&mut asks) };
        for (asked, ask) in take.buckets.iter().zip(&asks) {
            match ask.keep() {
                Keep::AsItIs => {}
                Keep::Nothing => {
                    self.0.remove(&asked.bucket_key);
                }
                Keep::Bucket(bucket, full_after_us) => {
                    let kept = Kept { bucket, full_at_us: now_us + full_after_us };
                    self.0.insert(asked.bucket_key.clone(), kept);
                }
            }
        }
        verdict(&asks, allowed)
    }

    /// Forgets the buckets that are full at `now_us`.
    pub fn forget_full(&mut self, now_us: u64) {
        self.0.retain(|_, kept| kept.full_at_us > now_us);
    }
}
