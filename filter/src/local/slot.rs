//! One slot of the table: a few buckets, each under its exact name, as bytes that all workers read and write.

use std::cmp::Reverse;

use bucket::{Bucket, Keep};

/// The most buckets of one slot, unless more belong to one request. All limits of a policy have room in it.
pub const MAX_ENTRIES: usize = 16;

/// Which bytes a slot is written as: another number for any other.
pub const FORMAT: u32 = 1;

/// What a slot keeps. A bucket that is full is not kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Slot(Vec<Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    bucket: Bucket,
    /// How long after it was counted it is full.
    full_after_us: u64,
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
            self.0.push(Entry { name: name.to_vec(), bucket, full_after_us });
        }
    }

    /// Forgets the buckets that are full at `now_us`, and as many others as are more than a slot holds; how many others.
    ///
    /// It is a bucket of the limit that has most of them here: so new keys of one limit push out none of another that has
    /// fewer. Of those it is one that was counted in the future, by a clock that has gone back, or else the one that is full soonest.
    /// `is_own` are those of the request that takes now: they stay, however many they are.
    pub fn make_room(&mut self, now_us: u64, is_own: impl Fn(&[u8]) -> bool) -> u32 {
        self.0.retain(|entry| entry.full_in_us(now_us) > 0 || is_own(&entry.name));
        let mut forgotten: u32 = 0;
        while self.0.len() > MAX_ENTRIES {
            let limits: Vec<&[u8]> = self.0.iter().map(Entry::limit).collect();
            let others =
                self.0.iter().zip(&limits).enumerate().filter(|(_, (entry, _))| !is_own(&entry.name));
            let first = others.min_by_key(|(_, (entry, limit))| {
                let kin = limits.iter().filter(|other| other == limit).count();
                (Reverse(kin), entry.bucket.at_us() <= now_us, entry.full_in_us(now_us))
            });
            let Some((first, _)) = first else { break };
            self.0.swap_remove(first);
            forgotten = forgotten.saturating_add(1);
        }
        forgotten
    }
}

impl Entry {
    /// The name of its limit: what stands before the NUL.
    fn limit(&self) -> &[u8] {
        self.name.split(|byte| *byte == 0).next().unwrap_or_default()
    }

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
        Some((Self { name: name.to_vec(), bucket, full_after_us }, rest))
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
