//! Where chunks end: content-defined boundaries (MinCDC) with constants derived from the vault's dedup key.
//!
//! - Same bytes, same key, same sizes: same boundaries, whatever the sizes of the reads that delivered them.
//! - Every chunk but the last of a stream has between `min_bytes` and `max_bytes`; the last has at most `max_bytes`.
//! - A boundary is the position of the smallest keyed hash of four bytes between the two sizes (crate `mincdc`).

use mincdc::{Cdc, MinCdcHash4};

use crate::error::{Error, Result, within};
use crate::keys::DedupKey;
use crate::limits::{
    CHUNK_MAX_BYTES, DATA_CHUNK_MAX_BYTES, DATA_CHUNK_MIN_BYTES, META_CHUNK_MAX_BYTES, META_CHUNK_MIN_BYTES,
};

/// Smallest and largest chunk of a stream, bytes; the average is half of their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    min_bytes: u32,
    max_bytes: u32,
}

impl Sizes {
    /// Of file data, unless an owner has chosen others.
    pub const DATA: Self = Self {
        min_bytes: DATA_CHUNK_MIN_BYTES,
        max_bytes: DATA_CHUNK_MAX_BYTES,
    };
    /// Of trees and recipes.
    pub const META: Self = Self {
        min_bytes: META_CHUNK_MIN_BYTES,
        max_bytes: META_CHUNK_MAX_BYTES,
    };

    /// Sizes with `64 <= min < max <=` [`CHUNK_MAX_BYTES`].
    pub fn new(min_bytes: u32, max_bytes: u32) -> Result<Self> {
        within("chunk sizes", "largest chunk", max_bytes.into(), CHUNK_MAX_BYTES.into())?;
        if min_bytes < 64 || min_bytes >= max_bytes {
            return Err(Error::malformed(
                "chunk sizes",
                0,
                format!("{min_bytes} to {max_bytes} bytes is no range"),
            ));
        }
        Ok(Self { min_bytes, max_bytes })
    }

    /// Smallest chunk but the last, bytes.
    pub fn min_bytes(self) -> u32 {
        self.min_bytes
    }

    /// Largest chunk, bytes.
    pub fn max_bytes(self) -> u32 {
        self.max_bytes
    }
}

/// Cuts streams into chunks; stateless between chunks, so one serves any number of streams and threads.
#[derive(Clone, Copy)]
pub struct Chunker {
    cdc: MinCdcHash4,
    min: usize,
    max: usize,
}

impl Chunker {
    /// The chunker of the vault that `key` belongs to.
    pub fn new(key: &DedupKey, sizes: Sizes) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = key.derive(b"drystone chunk boundaries v1");
        let multiplier = u32::from_le_bytes([a, b, c, d]) | 1;
        // The hash of four zeros is the addend: with its top bit clear, boundaries in data full of zeros would cling to them.
        let addend = u32::from_le_bytes([e, f, g, h]) | 1 << 31;
        let (min, max) = (sizes.min_bytes as usize, sizes.max_bytes as usize);
        Self {
            cdc: MinCdcHash4::with_params(multiplier, addend),
            min,
            max,
        }
    }

    /// Bytes that [`next`](Self::next) must see ahead before it decides, unless the stream ends earlier.
    pub fn lookahead_bytes(&self) -> usize {
        self.max
    }

    /// Length of the first chunk of `ahead`, which is the rest of the stream or at least
    /// [`lookahead_bytes`](Self::lookahead_bytes) of it; zero only for an empty rest.
    pub fn next(&self, ahead: &[u8]) -> usize {
        if ahead.len() <= self.min {
            return ahead.len();
        }
        let start = self.min.saturating_sub(self.cdc.window_size());
        let window = ahead.get(start..ahead.len().min(self.max)).unwrap_or_default();
        start + self.cdc.best_splitpoint(window)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunker(key: u8) -> Chunker {
        Chunker::new(&DedupKey::from_bytes([key; 32]), Sizes::new(64, 448).unwrap())
    }

    fn cut(chunker: &Chunker, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let length = chunker.next(data);
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    proptest! {
        #[test]
        fn chunks_cover_the_stream_within_the_sizes(data in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let lengths = cut(&chunker(1), &data);
            prop_assert_eq!(lengths.iter().sum::<usize>(), data.len());
            for (at, length) in lengths.iter().enumerate() {
                prop_assert!(*length <= 448 && (*length >= 64 || at + 1 == lengths.len()));
            }
        }

        #[test]
        fn the_view_ahead_does_not_matter(data in proptest::collection::vec(any::<u8>(), 449..2000)) {
            prop_assert_eq!(chunker(1).next(&data), chunker(1).next(&data[..448]));
        }
    }

    #[test]
    fn boundaries_depend_on_the_key() {
        let data: Vec<u8> = (0..20_000u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        assert_ne!(cut(&chunker(1), &data), cut(&chunker(2), &data));
    }

    /// Boundaries must never change for an existing vault: chunks would no longer deduplicate.
    #[test]
    fn boundaries_are_frozen() {
        let data: Vec<u8> = (0..600u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        assert_eq!(cut(&chunker(1), &data), FROZEN);
    }

    const FROZEN: [usize; 10] = [395, 349, 69, 331, 190, 292, 354, 166, 234, 20];

    /// The boundaries as docs/format.md defines them, one position after the other: what the crate must give for ever.
    fn reference(key: &DedupKey, sizes: Sizes, mut rest: &[u8]) -> Vec<usize> {
        let constants = key.derive(b"drystone chunk boundaries v1");
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let a = word(&constants[0..4]) | 1;
        let b = word(&constants[4..8]) | 1 << 31;
        let (min, max) = (sizes.min_bytes as usize, sizes.max_bytes as usize);
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            let length = if rest.len() <= min {
                rest.len()
            } else {
                let hash = |i: &usize| word(&rest[i - 4..*i]).wrapping_mul(a).wrapping_add(b);
                // The least of several with the smallest hash.
                (min..=max.min(rest.len())).min_by_key(hash).unwrap()
            };
            lengths.push(length);
            rest = &rest[length..];
        }
        lengths
    }

    /// The boundaries of a stream that arrives in pieces of the given lengths, over and over.
    fn cut_in_pieces(chunker: &Chunker, mut coming: &[u8], pieces: &[usize]) -> Vec<usize> {
        let (mut ahead, mut lengths) = (Vec::new(), Vec::new());
        let mut pieces = pieces.iter().cycle();
        loop {
            while ahead.len() < chunker.lookahead_bytes() && !coming.is_empty() {
                let (piece, later) = coming.split_at(coming.len().min(*pieces.next().unwrap()));
                ahead.extend_from_slice(piece);
                coming = later;
            }
            if ahead.is_empty() {
                return lengths;
            }
            let length = chunker.next(&ahead);
            lengths.push(length);
            ahead.drain(..length);
        }
    }

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Data as it occurs: noise, one byte repeated, a period, few letters, and numbers that grow.
    fn stretch(longest: usize) -> impl Strategy<Value = Vec<u8>> {
        let length = 0..longest;
        prop_oneof![
            (any::<u8>(), length.clone()).prop_map(|(seed, length)| noise(seed, length)),
            (any::<u8>(), length.clone()).prop_map(|(seed, length)| {
                let letters = noise(seed, length).into_iter();
                letters.map(|byte| b"ab\n"[usize::from(byte % 3)]).collect()
            }),
            (prop_oneof![Just(0), any::<u8>()], length.clone()).prop_map(|(byte, length)| vec![byte; length]),
            (proptest::collection::vec(any::<u8>(), 2..70), length.clone()).prop_map(|(period, length)| period
                .into_iter()
                .cycle()
                .take(length)
                .collect()),
            (any::<u32>(), length).prop_map(|(first, length)| {
                let numbers = (0..).map(|number| first.wrapping_add(number));
                numbers.flat_map(u32::to_le_bytes).take(length).collect()
            }),
        ]
    }

    fn data(longest: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(stretch(longest), 1..6).prop_map(|stretches| stretches.concat())
    }

    fn sizes() -> impl Strategy<Value = Sizes> {
        prop_oneof![
            Just((64, 65)),
            Just((64, 448)),
            (64u32..200, 1u32..700).prop_map(|(min, more)| (min, min + more))
        ]
        .prop_map(|(min, max)| Sizes::new(min, max).unwrap())
    }

    proptest! {
        #[test]
        fn boundaries_are_those_of_the_description(
            key: u8,
            sizes in sizes(),
            data in data(2000),
            pieces in proptest::collection::vec(1usize..1500, 1..5),
        ) {
            let key = DedupKey::from_bytes([key; 32]);
            let chunker = Chunker::new(&key, sizes);
            let expected = reference(&key, sizes, &data);
            prop_assert_eq!(&cut(&chunker, &data), &expected);
            prop_assert_eq!(&cut_in_pieces(&chunker, &data, &pieces), &expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// With windows that are long enough for the widest instructions.
        #[test]
        fn boundaries_of_full_size_are_those_of_the_description(key: u8, data in data(150_000)) {
            let key = DedupKey::from_bytes([key; 32]);
            for sizes in [Sizes::DATA, Sizes::META] {
                let chunker = Chunker::new(&key, sizes);
                let expected = reference(&key, sizes, &data);
                prop_assert_eq!(&cut(&chunker, &data), &expected);
                prop_assert_eq!(&cut_in_pieces(&chunker, &data, &[4097, 65_536, 1]), &expected);
            }
        }
    }

    #[test]
    fn boundaries_at_the_ends_of_the_range_are_those_of_the_description() {
        let key = DedupKey::from_bytes([9; 32]);
        for data in [vec![0; 2400], vec![255; 2400], noise(1, 2400)] {
            for (min, max) in [(64, 65), (64, 448), (67, 301), (100, 2400)] {
                let sizes = Sizes::new(min, max).unwrap();
                let chunker = Chunker::new(&key, sizes);
                let (min, max) = (min as usize, max as usize);
                let edges = [
                    0,
                    1,
                    3,
                    4,
                    5,
                    min - 1,
                    min,
                    min + 1,
                    max - 1,
                    max,
                    max + 1,
                    max + min,
                    2400,
                ];
                for length in edges.into_iter().filter(|length| *length <= data.len()) {
                    let data = &data[..length];
                    assert_eq!(
                        cut(&chunker, data),
                        reference(&key, sizes, data),
                        "{length} bytes, {min} to {max}"
                    );
                }
            }
        }
    }
}
