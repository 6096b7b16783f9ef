//! A Bloom filter of the keys in an open generation. `filling.rs` fills it and keeps it complete.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rusqlite::types::ValueRef;
use uuid::Uuid;

use crate::index::store::keys;

/// Bits for each key: 1.25 MB for a million.
const BITS: usize = 10;

/// Bits that a key sets in its block.
const PROBES: u32 = 6;

/// Bits of a block: one line of the processor's cache.
const BLOCK: usize = 512;

/// Bits of a hash that select one bit of a block.
const PROBE_WIDTH: u32 = BLOCK.ilog2();

/// Lowest bit of a hash that selects a bit: the probes take the highest, which the multiplication mixes best.
const FIRST_PROBE: u32 = u64::BITS - PROBES * PROBE_WIDTH;

/// Least capacity, in keys.
const FEWEST: usize = 1 << 14;

/// Value of [`KeyFilter::settled`] while the filter is incomplete.
const FILLING: u64 = u64::MAX;

/// A Bloom filter in blocks; keys can be added during look-ups, without a lock.
#[derive(Debug)]
pub(crate) struct KeyFilter {
    blocks: Box<[[AtomicU64; BLOCK / 64]]>,
    /// Keys in the filter, except those whose bits were all set before.
    pub(super) count: AtomicUsize,
    /// `data_version` of the writer when the filter was begun.
    pub(super) version: i64,
    /// Value of `Store::noticed` up to which all changes were commits of our writer.
    pub(super) settled: AtomicU64,
}

impl KeyFilter {
    /// An empty filter for so many keys.
    pub(super) fn new(keys: usize, version: i64) -> Self {
        let blocks = (keys.max(FEWEST) * BITS).div_ceil(BLOCK);
        Self {
            blocks: std::iter::repeat_with(Default::default).take(blocks).collect(),
            count: AtomicUsize::new(0),
            version,
            settled: AtomicU64::new(FILLING),
        }
    }

    /// Words and bits of a hash, in the block that its upper bits select: rows in the order of the table fill memory sequentially.
    fn bits(&self, hash: i64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let hash = hash.cast_unsigned();
        let at = (u128::from(hash) * self.blocks.len() as u128) >> 64;
        let block = &self.blocks[usize::try_from(at).unwrap_or(0)];
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..PROBES).map(move |probe| {
            let bit = usize::try_from(mixed >> (FIRST_PROBE + PROBE_WIDTH * probe)).unwrap_or(0) % BLOCK;
            (&block[bit / 64], 1 << (bit % 64))
        })
    }

    pub(super) fn may_have(&self, hash: i64) -> bool {
        self.bits(hash).all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn insert(&self, hash: i64) {
        let is_new =
            |new, (word, bit): (&AtomicU64, u64)| (word.fetch_or(bit, Ordering::Relaxed) & bit == 0) | new;
        if self.bits(hash).fold(false, is_new) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Inserts the key column of a row of `images` or `files`.
    pub(super) fn insert_value(&self, value: ValueRef<'_>) {
        match value {
            ValueRef::Integer(hash) => self.insert(hash),
            ValueRef::Blob(bytes) => {
                if let Ok(uuid) = Uuid::from_slice(bytes) {
                    self.insert(file_hash(uuid));
                }
            }
            _ => {}
        }
    }

    /// Size in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }

    /// True if all rows were read.
    pub(super) fn is_filled(&self) -> bool {
        self.settled.load(Ordering::Acquire) != FILLING
    }

    /// True if the filter holds half as many keys again as its capacity: then too many unknown keys pass.
    pub(super) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) * BITS > self.blocks.len() * BLOCK * 3 / 2
    }
}

/// Hash of a learned file.
pub(super) fn file_hash(uuid: Uuid) -> i64 {
    keys::hash_of(uuid.as_u128())
}
