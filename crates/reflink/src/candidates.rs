//! The extents that have a block in common with another, or twice: all that a plan is about.
//!
//! - Two streams over the fingerprints; unique data costs a few bits a block, in filters of bounded size. Where these are too small
//!   for all blocks, those of long extents are sampled by content, so that equal data is sampled equally.
//! - When what is in common does not fit in memory, a part of it is left for passes of their own: [`Candidates::next`]. Long extents
//!   come first, and those of one length in the order of their least fingerprint, so that what is alike stays together.

use std::hash::{BuildHasher, Hasher};

use crate::error::Result;
use crate::progress::{Cancel, Progress};
use crate::space::{Extent, NO_PRINT, Print, Space, Which};

/// Bits of a filter for each block of the disk: one block in eight is taken for another at most.
const FILTER_BITS_A_BLOCK: u64 = 8;
/// At least so many: with fewer, blocks are sampled, one in so many at most.
const FILTER_BITS_LEAST: u64 = 4;
const SAMPLE_MAX: u64 = 64;
/// Extents with fewer blocks than so many samples' worth are not sampled.
const SAMPLES_LEAST: u64 = 4;
/// Shares of the memory: filters (each), extents with their fingerprints.
const FILTER_SHARE: u64 = 16;
const EXTENTS_SHARE: u64 = 3;
/// Memory of an extent beside its fingerprints, bytes: itself, its rank, its place in the order, its uses.
const EXTENT_BYTES: u64 = 168;

/// How often all fingerprints are looked at.
const SCANS: u64 = 2;

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
    /// One block in so many is put in, of long extents.
    rate: u64,
}

impl Filter {
    fn new(blocks: u64, memory_bytes: u64) -> Self {
        let bits = (blocks.max(1024) * FILTER_BITS_A_BLOCK).min(memory_bytes.max(1 << 16) * 8);
        let bits = bits.next_power_of_two().min(1 << 40);
        let rate = (blocks * FILTER_BITS_LEAST).div_ceil(bits).next_power_of_two();
        Self {
            words: vec![0; (bits / 64) as usize],
            shift: 64 - bits.trailing_zeros(),
            rate: rate.min(SAMPLE_MAX),
        }
    }

    /// The fingerprints of an extent that count.
    fn sample<'p>(&self, prints: &'p [Print]) -> impl Iterator<Item = Print> + use<'p> {
        let is_long = prints.len() as u64 >= SAMPLES_LEAST * self.rate;
        let rate = if is_long { self.rate } else { 1 };
        let known = prints.iter().copied().filter(|print| *print != NO_PRINT);
        known.filter(move |print| scatter(*print).is_multiple_of(rate))
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
    ranks: Vec<Rank>,
    /// Those from this on did not fit, and are for another pass; `None` if all did.
    pub next: Option<Rank>,
    /// Bytes on disk that were looked at.
    pub scanned_bytes: u64,
}

/// The place of an extent in the order of passes: the longest first, then by what is in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u64);

impl Rank {
    /// `met_again` are fingerprints of blocks that others have.
    fn new(extent: &Extent, met_again: impl Iterator<Item = Print>) -> Self {
        let least = met_again.map(|print| scatter(print) >> 32).min().unwrap_or(0);
        Self(u64::from(u32::MAX - extent.blocks) << 32 | least)
    }
}

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Nothing is looked at unless there are extents of a later generation; then all are, since what is new, and what lost a use, may
    /// make any other worth while.
    pub since: u64,
    /// Only extents from this on.
    pub from: Rank,
    /// Memory that may be taken, for everything that a run holds.
    pub memory_bytes: u64,
}

impl Candidates {
    /// Looks through the fingerprints of a file system.
    pub fn find(space: &dyn Space, look: Look, progress: &Progress, cancel: &Cancel) -> Result<Self> {
        let blocks = space.used_bytes()? / space.block_bytes();
        let filter = || Filter::new(blocks, look.memory_bytes / FILTER_SHARE);
        let used_bytes = blocks * space.block_bytes();
        let (mut once, mut twice) = (filter(), filter());
        let mut found = Self {
            starts: vec![0],
            ..Self::default()
        };
        if look.since > 0 {
            space.scan(Which::NewSince(look.since), &mut |extent, _| {
                found.scanned_bytes += u64::from(extent.blocks) * space.block_bytes();
                cancel.check()
            })?;
            if found.scanned_bytes == 0 {
                return Ok(found);
            }
        }
        Progress::add(&progress.to_scan_bytes, used_bytes * SCANS);
        let zero = space.zero_print();
        space.scan(Which::All, &mut |extent, prints| {
            let bytes = u64::from(extent.blocks) * space.block_bytes();
            Progress::add(&progress.scanned_bytes, bytes);
            if look.since == 0 {
                found.scanned_bytes += bytes;
            }
            for print in once.sample(prints) {
                if once.insert(print) || Some(print) == zero {
                    twice.insert(print);
                }
            }
            cancel.check()
        })?;
        drop(once);
        let limit = look.memory_bytes / EXTENTS_SHARE;
        space.scan(Which::All, &mut |extent, prints| {
            Progress::add(&progress.scanned_bytes, u64::from(extent.blocks) * space.block_bytes());
            let mut met_again = twice.sample(prints).filter(|print| twice.has(*print)).peekable();
            if met_again.peek().is_some() {
                let rank = Rank::new(&extent, met_again);
                if rank >= look.from && found.next.is_none_or(|next| rank < next) {
                    found.push(extent, prints, rank);
                    found.fit(limit);
                }
            }
            cancel.check()
        })?;
        Ok(found)
    }

    fn push(&mut self, extent: Extent, prints: &[Print], rank: Rank) {
        self.extents.push(extent);
        self.prints.extend(prints);
        self.starts.push(self.prints.len());
        self.ranks.push(rank);
    }

    fn memory_bytes(&self) -> u64 {
        self.extents.len() as u64 * EXTENT_BYTES + self.prints.len() as u64 * size_of::<Print>() as u64
    }

    /// Drops the later half of what is held if that is too much; of those that are alike, all but the first.
    fn fit(&mut self, limit_bytes: u64) {
        if self.memory_bytes() <= limit_bytes {
            return;
        }
        let mut ranks = self.ranks.clone();
        let middle = ranks.len() / 2;
        let first = ranks.iter().min().copied().unwrap_or_default();
        let (_, median, _) = ranks.select_nth_unstable(middle);
        // More of the first rank than fit: the rest is found when these are shared.
        let next = (*median).max(Rank(first.0 + 1));
        let old = std::mem::take(self);
        self.starts.push(0);
        (self.next, self.scanned_bytes) = (Some(next), old.scanned_bytes);
        for (index, (extent, rank)) in old.extents.iter().zip(&old.ranks).enumerate() {
            if *rank < next && self.extents.len() < middle {
                self.push(*extent, old.prints(index), *rank);
            }
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
