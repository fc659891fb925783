//! The extents that have a block in common with another, or twice: all that a plan is about.
//!
//! - Two streams over the fingerprints; unique data costs a few bits a block, in filters of bounded size.
//! - When what is in common does not fit in memory, the smallest extents are left for a pass of their own: [`Candidates::below_blocks`].

use std::hash::{BuildHasher, Hasher};

use crate::error::Result;
use crate::progress::{Cancel, Progress};
use crate::space::{Extent, NO_PRINT, Print, Space, Which};

/// Bits of a filter for each block of the disk: one block in eight is taken for another at most.
const FILTER_BITS_A_BLOCK: u64 = 8;
/// Shares of the memory: filters (each), extents with their fingerprints.
const FILTER_SHARE: u64 = 16;
const EXTENTS_SHARE: u64 = 3;
/// Memory of an extent beside its fingerprints, bytes: itself, its place in the order, its uses.
const EXTENT_BYTES: u64 = 160;

/// Scatters fingerprints, which may be of any kind, evenly.
pub(crate) fn scatter(print: Print) -> u64 {
    (u64::from(print) ^ 0x9e37_79b9).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Hasher of maps keyed by fingerprints.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PrintHasher(u64);

impl Hasher for PrintHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = scatter(self.0 as u32 ^ u32::from(*byte));
        }
    }

    fn write_u32(&mut self, print: u32) {
        // The map takes its low bits for the place, and its high ones for a tag.
        self.0 = scatter(print).rotate_left(32);
    }
}

impl BuildHasher for PrintHasher {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

/// A set of fingerprints that may hold more than was put in.
struct Filter {
    words: Vec<u64>,
    shift: u32,
}

impl Filter {
    fn new(blocks: u64, memory_bytes: u64) -> Self {
        let bits = (blocks.max(1024) * FILTER_BITS_A_BLOCK).min(memory_bytes.max(1 << 16) * 8);
        let bits = bits.next_power_of_two().min(1 << 40);
        Self {
            words: vec![0; (bits / 64) as usize],
            shift: 64 - bits.trailing_zeros(),
        }
    }

    fn place(&self, print: Print) -> (usize, u64) {
        let bit = scatter(print) >> self.shift;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    /// Whether it was there before.
    fn insert(&mut self, print: Print) -> bool {
        let (at, bit) = self.place(print);
        let Some(word) = self.words.get_mut(at) else {
            return false;
        };
        let was = *word & bit != 0;
        *word |= bit;
        was
    }

    fn has(&self, print: Print) -> bool {
        let (at, bit) = self.place(print);
        self.words.get(at).is_some_and(|word| word & bit != 0)
    }
}

/// Extents that have blocks in common, in the order of the disk.
#[derive(Debug, Default)]
pub struct Candidates {
    extents: Vec<Extent>,
    /// Where each one's fingerprints begin, and where the last one's end.
    starts: Vec<usize>,
    prints: Vec<Print>,
    /// Extents shorter than this did not fit, and are for another pass; 0 if all did.
    pub below_blocks: u32,
    /// Bytes on disk that were looked at.
    pub scanned_bytes: u64,
}

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Extents of a later generation are new; with 0 all are.
    pub since: u64,
    /// Only extents shorter than this.
    pub shorter_than_blocks: u32,
    /// Memory that may be taken, for everything that a run holds.
    pub memory_bytes: u64,
}

impl Candidates {
    /// Looks through the fingerprints of a file system.
    pub fn find(space: &dyn Space, look: Look, progress: &Progress, cancel: &Cancel) -> Result<Self> {
        let blocks = space.used_bytes()? / space.block_bytes();
        let filter = || Filter::new(blocks, look.memory_bytes / FILTER_SHARE);
        let (mut once, mut twice) = (filter(), filter());
        let mut fresh = None;
        let mut found = Self {
            starts: vec![0],
            ..Self::default()
        };
        if look.since > 0 {
            let filter = fresh.insert(filter());
            space.scan(Which::NewSince(look.since), &mut |extent, prints| {
                found.scanned_bytes += u64::from(extent.blocks) * space.block_bytes();
                for print in prints {
                    filter.insert(*print);
                }
                cancel.check()
            })?;
            if found.scanned_bytes == 0 {
                return Ok(found);
            }
        }
        let zero = space.zero_print();
        space.scan(Which::All(look.since), &mut |extent, prints| {
            let bytes = u64::from(extent.blocks) * space.block_bytes();
            Progress::add(&progress.scanned_bytes, bytes);
            if look.since == 0 {
                found.scanned_bytes += bytes;
            }
            let of_interest = prints.iter().filter(|print| **print != NO_PRINT);
            for print in of_interest.filter(|print| fresh.as_ref().is_none_or(|fresh| fresh.has(**print))) {
                if once.insert(*print) || Some(*print) == zero {
                    twice.insert(*print);
                }
            }
            cancel.check()
        })?;
        drop((once, fresh));
        let limit = look.memory_bytes / EXTENTS_SHARE;
        space.scan(Which::All(look.since), &mut |extent, prints| {
            let in_window = extent.blocks < look.shorter_than_blocks && extent.blocks >= found.below_blocks;
            if in_window && prints.iter().any(|print| *print != NO_PRINT && twice.has(*print)) {
                found.push(extent, prints, limit);
            }
            cancel.check()
        })?;
        Ok(found)
    }

    fn push(&mut self, extent: Extent, prints: &[Print], limit_bytes: u64) {
        self.extents.push(extent);
        self.prints.extend(prints);
        self.starts.push(self.prints.len());
        if self.memory_bytes() > limit_bytes {
            self.drop_smaller_half();
        }
    }

    fn memory_bytes(&self) -> u64 {
        self.extents.len() as u64 * EXTENT_BYTES + self.prints.len() as u64 * size_of::<Print>() as u64
    }

    fn drop_smaller_half(&mut self) {
        let mut lengths: Vec<u32> = self.extents.iter().map(|extent| extent.blocks).collect();
        let middle = lengths.len() / 2;
        let (_, median, _) = lengths.select_nth_unstable(middle);
        self.below_blocks = *median + 1;
        let old = std::mem::take(self);
        self.starts.push(0);
        (self.below_blocks, self.scanned_bytes) = (old.below_blocks, old.scanned_bytes);
        for (index, extent) in old
            .extents
            .iter()
            .enumerate()
            .filter(|(_, extent)| extent.blocks >= old.below_blocks)
        {
            self.extents.push(*extent);
            self.prints.extend(old.prints(index));
            self.starts.push(self.prints.len());
        }
    }

    /// The extents, in the order of the disk.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// As [`Candidates::extents`], to correct them.
    pub fn extents_mut(&mut self) -> &mut [Extent] {
        &mut self.extents
    }

    /// The fingerprints of the blocks of one of them.
    pub fn prints(&self, index: usize) -> &[Print] {
        let range = self.starts.get(index..index + 2);
        match range {
            Some([start, end]) => self.prints.get(*start..*end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// As [`Candidates::prints`], to change them.
    pub(crate) fn prints_mut(&mut self, index: usize) -> &mut [Print] {
        match self.starts.get(index..index + 2) {
            Some([start, end]) => self.prints.get_mut(*start..*end).unwrap_or_default(),
            _ => &mut [],
        }
    }
}
