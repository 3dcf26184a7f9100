//! One slot of the table: a few buckets, each under its exact name, as bytes that all workers read and write.

use bucket::{Bucket, Keep};

/// The most buckets of one slot. All limits of a policy have room in it.
pub const MAX_ENTRIES: usize = 16;

/// What a slot keeps. A bucket that is full is not kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Slot(Vec<Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    bucket: Bucket,
    /// How long after it was counted it is full.
    full_after_us: u64,
    /// Whether it was kept by who has the slot open.
    is_new: bool,
}

impl Slot {
    /// As it was written. Anything else counts as empty: nobody but us writes there.
    pub fn read(mut bytes: &[u8]) -> Self {
        let mut entries = Vec::new();
        while let Some((entry, rest)) = Entry::read(bytes) {
            entries.push(entry);
            bytes = rest;
        }
        Self(entries)
    }

    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.iter().for_each(|entry| entry.write(&mut bytes));
        bytes
    }

    /// The bucket of that name; `None` where it is full.
    pub fn get(&self, name: &[u8]) -> Option<Bucket> {
        self.0.iter().find(|entry| entry.name == name).map(|entry| entry.bucket)
    }

    /// Keeps a bucket as it is to be kept.
    pub fn put(&mut self, name: &[u8], keep: Keep) {
        if keep == Keep::AsItIs {
            return;
        }
        self.0.retain(|entry| entry.name != name);
        if let Keep::Bucket(bucket, full_after_us) = keep {
            self.0.push(Entry { name: name.to_vec(), bucket, full_after_us, is_new: true });
        }
    }

    /// Forgets the buckets that are full at `now_us`, and of those beyond what a slot holds the ones that are full soonest;
    /// how many of the latter, which were not full yet. What was just kept stays.
    pub fn make_room(&mut self, now_us: u64) -> u32 {
        self.0.retain(|entry| entry.is_new || entry.full_in_us(now_us) > 0);
        let mut forgotten: u32 = 0;
        while self.0.len() > MAX_ENTRIES {
            let old = self.0.iter().enumerate().filter(|(_, entry)| !entry.is_new);
            let Some((soonest, _)) = old.min_by_key(|(_, entry)| entry.full_in_us(now_us)) else { break };
            self.0.swap_remove(soonest);
            forgotten = forgotten.saturating_add(1);
        }
        forgotten
    }
}

impl Entry {
    /// By a clock that went back it is as long as when it was counted.
    fn full_in_us(&self, now_us: u64) -> u64 {
        self.full_after_us.saturating_sub(now_us.saturating_sub(self.bucket.at_us()))
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let (credits, rest) = rest.split_first_chunk()?;
        let (unit, rest) = rest.split_first_chunk()?;
        let (at_us, rest) = rest.split_first_chunk()?;
        let (full_after_us, rest) = rest.split_first_chunk()?;
        let bucket = Bucket::restore(
            i64::from_le_bytes(*credits),
            u64::from_le_bytes(*unit),
            u64::from_le_bytes(*at_us),
        )?;
        let full_after_us = u64::from_le_bytes(*full_after_us);
        Some((Self { name: name.to_vec(), bucket, full_after_us, is_new: false }, rest))
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        // Names are bounded far below this: of a limit 64 bytes, of a key 1,024.
        let Ok(length) = u16::try_from(self.name.len()) else { return };
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.name);
        bytes.extend_from_slice(&self.bucket.credits().to_le_bytes());
        bytes.extend_from_slice(&self.bucket.unit().to_le_bytes());
        bytes.extend_from_slice(&self.bucket.at_us().to_le_bytes());
        bytes.extend_from_slice(&self.full_after_us.to_le_bytes());
    }
}
