//! Makes packs that look like real ones, from numbers.

use drystone_format::{ChunkId, PackId, RegistrationId};
use drystone_index::{PackEntries, Span};

/// The id of chunk `number`: spread evenly, as keyed hashes are.
pub(crate) fn chunk(number: u64) -> ChunkId {
    ChunkId(spread(number))
}

pub(crate) fn pack_id(number: u64) -> PackId {
    PackId(spread(!number))
}

fn spread(number: u64) -> [u8; 32] {
    let mut id = [0; 32];
    let mut state = number;
    for word in id.chunks_exact_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    id
}

/// Where the chunk lies in the pack: derived from both, so that a test can tell a right location from a wrong one.
pub(crate) fn span(pack: u64, chunk: u64) -> Span {
    let mixed = spread(pack.wrapping_mul(31).wrapping_add(chunk));
    Span {
        frame: u16::from(mixed[0]),
        frame_offset: u32::from_be_bytes([mixed[1], mixed[2], mixed[3], mixed[4]]),
        frame_bytes: u32::from_be_bytes([0, mixed[5], mixed[6], mixed[7]]),
        chunk_offset: u32::from_be_bytes([0, mixed[8], mixed[9], mixed[10]]),
        chunk_bytes: u32::from_be_bytes([0, mixed[11], mixed[12], mixed[13]]),
    }
}

pub(crate) fn pack(number: u64, chunks: impl IntoIterator<Item = u64>) -> PackEntries {
    PackEntries {
        pack: pack_id(number),
        pack_bytes: 1000 + number,
        kind: (number % 2) as u8,
        writer: [(number % 3) as u8; 32],
        registration: (RegistrationId([(number % 5) as u8; 16]), number),
        chunks: chunks
            .into_iter()
            .map(|number_in| (chunk(number_in), span(number, number_in)))
            .collect(),
    }
}
