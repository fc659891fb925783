//! Answers "certainly not here" from memory: a blocked Bloom filter, one cache line per question.
//!
//! - Never says no to an id that was put into it; says yes to about 1 in 80 others at ten bits an id.
//! - Uses the id's own bits, since ids are keyed hashes; crafted ids only cost their askers a read. The first bits choose the
//!   line, so that a run, which is written in the order of its ids, fills its filter from front to back.
//! - Can be halved without its ids, by joining neighbours, so that any number of runs fits the budget.
//! - Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters (2007), section 3.

use drystone_format::ChunkId;

/// Bits per id of a full filter: a false positive costs about a microsecond, ten bits make them rare enough.
const BITS_PER_ID: u64 = 10;
/// Below this many bits per id a filter says yes to most and is not kept.
const BITS_PER_ID_MIN: u64 = 3;
/// Bits set for each id: what is best at ten bits, a little less because lines fill unevenly.
const PROBES: usize = 6;
/// Bits in a cache line.
const LINE_BITS: u64 = 512;
/// Bytes of a line.
pub(crate) const LINE_BYTES: usize = 64;
/// Filters have a multiple of this many lines, so that they can be halved six times.
pub(crate) const LINES_MULTIPLE: usize = 64;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

/// A filter; one without lines says yes to everything.
#[derive(Clone, Default)]
pub(crate) struct Filter {
    lines: Vec<Line>,
}

impl Filter {
    /// An empty filter for this many ids in at most `limit_bytes`.
    pub(crate) fn new(ids: u64, limit_bytes: usize) -> Self {
        let want = (ids * BITS_PER_ID)
            .div_ceil(LINE_BITS)
            .min((limit_bytes / LINE_BYTES) as u64);
        let lines = (want as usize).next_multiple_of(LINES_MULTIPLE);
        Self {
            lines: vec![Line([0; 8]); lines],
        }
    }

    pub(crate) fn line_count(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }

    /// Which line and which bits in it belong to `id`.
    fn place(&self, id: &ChunkId) -> (usize, u64) {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(id.0.as_chunks::<8>().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        let [line, bits, _, _] = words;
        ((((line >> 32) * self.lines.len() as u64) >> 32) as usize, bits)
    }

    /// Puts an id in.
    pub(crate) fn put(&mut self, id: &ChunkId) {
        let (line, mut bits) = self.place(id);
        if let Some(Line(words)) = self.lines.get_mut(line) {
            for _ in 0..PROBES {
                let (word, mask) = bit(bits);
                if let Some(word) = words.get_mut(word) {
                    *word |= mask;
                }
                bits >>= 9;
            }
        }
    }

    /// Whether the id may have been put in.
    pub(crate) fn may_hold(&self, id: &ChunkId) -> bool {
        let (line, mut bits) = self.place(id);
        let Some(Line(words)) = self.lines.get(line) else {
            return true;
        };
        // All bits are looked at, without branches: the processor then loads the lines of several runs at once.
        let mut held = true;
        for _ in 0..PROBES {
            let (word, mask) = bit(bits);
            held &= words.get(word).is_some_and(|word| word & mask != 0);
            bits >>= 9;
        }
        held
    }

    /// Halves the filter until it fits, or drops it where it would no longer tell ids apart.
    pub(crate) fn fit(&mut self, ids: u64, limit_bytes: usize) {
        while self.bytes() > limit_bytes && self.lines.len() > LINES_MULTIPLE && self.lines.len().is_multiple_of(2) {
            let halves = self.lines.as_chunks::<2>().0.iter();
            self.lines = halves.map(|[left, right]| left.joined(right)).collect();
        }
        let too_large = self.bytes() > limit_bytes && self.lines.len() > LINES_MULTIPLE;
        if too_large || (self.lines.len() as u64) * LINE_BITS < ids * BITS_PER_ID_MIN {
            self.lines = Vec::new();
        }
    }

    /// How often a filter of this size has to be halved to fit.
    pub(crate) fn halvings(mut line_count: usize, limit_bytes: usize) -> u32 {
        let mut halvings = 0;
        while line_count * LINE_BYTES > limit_bytes && line_count.is_multiple_of(2) && halvings < LINES_MULTIPLE.ilog2()
        {
            line_count /= 2;
            halvings += 1;
        }
        halvings
    }

    /// Appends lines from their bytes, joining each `1 << halvings` of them into one.
    pub(crate) fn append(&mut self, bytes: &[u8], halvings: u32) {
        for group in bytes.as_chunks::<LINE_BYTES>().0.chunks(1 << halvings) {
            let joined = group
                .iter()
                .fold(Line([0; 8]), |line, bytes| line.joined(&Line::decode(bytes)));
            self.lines.push(joined);
        }
    }

    /// The bytes of the lines, in pieces of `piece_bytes`, a multiple of a line.
    pub(crate) fn pieces(&self, piece_bytes: usize) -> impl Iterator<Item = Vec<u8>> {
        let pieces = self.lines.chunks(piece_bytes / LINE_BYTES);
        pieces.map(|lines| {
            lines
                .iter()
                .flat_map(|line| line.0)
                .flat_map(u64::to_le_bytes)
                .collect()
        })
    }
}

impl Line {
    fn joined(&self, other: &Self) -> Self {
        let mut words = self.0;
        for (word, other) in words.iter_mut().zip(other.0) {
            *word |= other;
        }
        Self(words)
    }

    fn decode(bytes: &[u8; LINE_BYTES]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }
}

/// Word and mask of the bit that the low nine bits name.
fn bit(bits: u64) -> (usize, u64) {
    ((bits >> 6 & 7) as usize, 1 << (bits & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64, in place of a keyed hash.
    fn id(number: u64) -> ChunkId {
        let mut id = [0; 32];
        for (word, place) in id.as_chunks_mut::<8>().0.iter_mut().zip(1..) {
            let mixed = (number * 4 + place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *word = (mixed ^ (mixed >> 31)).to_be_bytes();
        }
        ChunkId(id)
    }

    fn filled(ids: u64) -> Filter {
        let mut filter = Filter::new(ids, usize::MAX);
        (0..ids).for_each(|number| filter.put(&id(number)));
        filter
    }

    /// Of a thousand ids that are not there, how many it says yes to; all that are there must be found.
    fn wrong_of_thousand(filter: &Filter, ids: u64) -> usize {
        assert!((0..ids).all(|number| filter.may_hold(&id(number))));
        (ids..ids + 100_000)
            .filter(|number| filter.may_hold(&id(*number)))
            .count()
            / 100
    }

    #[test]
    fn it_is_seldom_wrong_and_never_says_no_wrongly() {
        let wrong = wrong_of_thousand(&filled(100_000), 100_000);
        assert!(wrong <= 15, "{wrong} of 1000 wrong");
    }

    #[test]
    fn a_smaller_filter_is_wrong_more_often_and_the_smallest_says_yes() {
        let mut filter = filled(100_000);
        let full_bytes = filter.bytes();
        filter.fit(100_000, full_bytes);
        assert_eq!(filter.bytes(), full_bytes);
        filter.fit(100_000, full_bytes / 2);
        assert!(filter.bytes() * 2 == full_bytes);
        let wrong = wrong_of_thousand(&filter, 100_000);
        assert!((50..300).contains(&wrong), "{wrong} of 1000 wrong");
        filter.fit(100_000, full_bytes / 16);
        assert_eq!((filter.bytes(), wrong_of_thousand(&filter, 100_000)), (0, 1000));
    }

    #[test]
    fn bytes_read_back_are_the_filter_whole_or_halved() {
        let mut filter = filled(20_000);
        let mut whole = Filter::default();
        filter.pieces(64 << 10).for_each(|piece| whole.append(&piece, 0));
        assert!(whole.pieces(64 << 10).eq(filter.pieces(64 << 10)));
        let limit_bytes = filter.bytes() / 2;
        let halvings = Filter::halvings(filter.line_count(), limit_bytes);
        assert_eq!(halvings, 1);
        let mut halved = Filter::default();
        filter
            .pieces(64 << 10)
            .for_each(|piece| halved.append(&piece, halvings));
        filter.fit(20_000, limit_bytes);
        assert!(halved.pieces(64 << 10).eq(filter.pieces(64 << 10)));
    }
}
