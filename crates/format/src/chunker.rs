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
}
