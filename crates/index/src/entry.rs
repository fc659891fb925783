//! What the index says about one chunk and one pack, and the 52 bytes in which an entry is kept.
//!
//! - Entry: id 32, pack number 4, frame 2, frame offset 4, frame bytes 3, chunk offset 3, chunk bytes 3, zero 1; numbers
//!   little-endian. In a run the pack number counts in the run's pack table, in memory in the process's [`crate::packs`].
//! - Decoding never fails: what is wrong in an entry is found by whoever opens the frame.

use drystone_format::{ChunkId, PackId, RegistrationId};

use crate::{Error, Result};

/// Bytes of an encoded entry.
pub(crate) const ENTRY_BYTES: usize = 52;

/// Largest value of the three-byte fields: above the 4 MiB that a frame may have.
const THREE_BYTES_MAX: u32 = (1 << 24) - 1;

/// Where in a pack a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Number of the frame in its pack.
    pub frame: u16,
    /// Where the sealed frame begins in the pack, bytes.
    pub frame_offset: u32,
    /// Length of the sealed frame, bytes, below 2^24.
    pub frame_bytes: u32,
    /// Where the chunk begins in the frame's plaintext, bytes, below 2^24.
    pub chunk_offset: u32,
    /// Length of the chunk's plaintext, bytes, below 2^24.
    pub chunk_bytes: u32,
}

impl Span {
    /// This span in `pack`.
    pub fn at(self, pack: PackId) -> Location {
        let Self {
            frame,
            frame_offset,
            frame_bytes,
            chunk_offset,
            chunk_bytes,
        } = self;
        Location {
            pack,
            frame,
            frame_offset,
            frame_bytes,
            chunk_offset,
            chunk_bytes,
        }
    }
}

/// Where a chunk lies. Whoever reads it verifies it: the index is a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The pack that holds the chunk.
    pub pack: PackId,
    /// Number of the frame in the pack.
    pub frame: u16,
    /// Where the sealed frame begins in the pack, bytes.
    pub frame_offset: u32,
    /// Length of the sealed frame, bytes.
    pub frame_bytes: u32,
    /// Where the chunk begins in the frame's plaintext, bytes.
    pub chunk_offset: u32,
    /// Length of the chunk's plaintext, bytes.
    pub chunk_bytes: u32,
}

/// All that one pack adds to the index: its trailer, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntries {
    /// The pack.
    pub pack: PackId,
    /// Length of the pack object, bytes.
    pub pack_bytes: u64,
    /// What the pack holds, as the caller numbers kinds.
    pub kind: u8,
    /// Who wrote the pack (the key that verifies its signature), for [`crate::Index::get_where`].
    pub writer: [u8; 32],
    /// The registration that it was written under, and which of its packs it is.
    pub registration: (RegistrationId, u64),
    /// Its chunks. An id that is listed twice counts once, at its first span.
    pub chunks: Vec<(ChunkId, Span)>,
}

/// What the index knows of one pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackInfo {
    /// The pack.
    pub pack: PackId,
    /// Length of the pack object, bytes.
    pub pack_bytes: u64,
    /// What the pack holds, as the caller numbers kinds.
    pub kind: u8,
    /// Who wrote the pack.
    pub writer: [u8; 32],
    /// The registration that it was written under, and which of its packs it is.
    pub registration: (RegistrationId, u64),
    /// Distinct chunks in the pack.
    pub chunk_count: u32,
}

impl PackEntries {
    /// What the index keeps of the pack itself, without its chunks, and these.
    pub fn into_info(self) -> (PackInfo, Vec<(ChunkId, Span)>) {
        let info = PackInfo {
            pack: self.pack,
            pack_bytes: self.pack_bytes,
            kind: self.kind,
            writer: self.writer,
            registration: self.registration,
            chunk_count: 0,
        };
        (info, self.chunks)
    }
}

/// An encoded entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct Entry(pub(crate) [u8; ENTRY_BYTES]);

impl Entry {
    /// Encodes; the span must have passed [`check`].
    pub(crate) fn new(id: &ChunkId, pack: u32, span: &Span) -> Self {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..32].copy_from_slice(&id.0);
        bytes[32..36].copy_from_slice(&pack.to_le_bytes());
        bytes[36..38].copy_from_slice(&span.frame.to_le_bytes());
        bytes[38..42].copy_from_slice(&span.frame_offset.to_le_bytes());
        bytes[42..45].copy_from_slice(&three(span.frame_bytes));
        bytes[45..48].copy_from_slice(&three(span.chunk_offset));
        bytes[48..51].copy_from_slice(&three(span.chunk_bytes));
        Self(bytes)
    }

    pub(crate) fn id(&self) -> ChunkId {
        let mut id = [0; 32];
        id.copy_from_slice(&self.0[..32]);
        ChunkId(id)
    }

    pub(crate) fn has_id(&self, id: &ChunkId) -> bool {
        self.0[..32] == id.0
    }

    pub(crate) fn pack(&self) -> u32 {
        self.number(32, 4)
    }

    /// The same entry under another pack number.
    pub(crate) fn in_pack(mut self, pack: u32) -> Self {
        self.0[32..36].copy_from_slice(&pack.to_le_bytes());
        self
    }

    pub(crate) fn span(&self) -> Span {
        Span {
            frame: self.number(36, 2) as u16,
            frame_offset: self.number(38, 4),
            frame_bytes: self.number(42, 3),
            chunk_offset: self.number(45, 3),
            chunk_bytes: self.number(48, 3),
        }
    }

    /// First eight bytes of the id, ordered as ids are.
    pub(crate) fn prefix(&self) -> u64 {
        prefix(&self.0)
    }

    fn number(&self, at: usize, width: usize) -> u32 {
        let bytes = self.0.get(at..at + width).unwrap_or_default();
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

/// The first eight of `bytes` as a number that orders as they do.
pub(crate) fn prefix(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Refuses spans that do not fit an entry.
pub(crate) fn check(pack: &PackId, span: &Span) -> Result<()> {
    let fields = [
        ("the length of a frame", span.frame_bytes),
        ("the offset of a chunk in its frame", span.chunk_offset),
        ("the length of a chunk", span.chunk_bytes),
    ];
    match fields.into_iter().find(|(_, value)| *value > THREE_BYTES_MAX) {
        Some((what, found)) => Err(Error::TooLarge {
            pack: *pack,
            what,
            found: found.into(),
            limit: THREE_BYTES_MAX.into(),
        }),
        None => Ok(()),
    }
}

fn three(value: u32) -> [u8; 3] {
    let [first, second, third, _] = value.to_le_bytes();
    [first, second, third]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_round_trip(id: [u8; 32], pack: u32, frame: u16, frame_offset: u32, three in [0u32..1 << 24, 0..1 << 24, 0..1 << 24]) {
            let [frame_bytes, chunk_offset, chunk_bytes] = three;
            let span = Span { frame, frame_offset, frame_bytes, chunk_offset, chunk_bytes };
            prop_assert!(check(&PackId([0; 32]), &span).is_ok());
            let entry = Entry::new(&ChunkId(id), pack, &span);
            prop_assert_eq!((entry.id(), entry.pack(), entry.span()), (ChunkId(id), pack, span));
            prop_assert!(entry.has_id(&ChunkId(id)));
            prop_assert_eq!(entry.in_pack(!pack).pack(), !pack);
            prop_assert_eq!(entry.prefix().to_be_bytes().to_vec(), id[..8].to_vec());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let fits = Span {
            frame: 0,
            frame_offset: 0,
            frame_bytes: 1,
            chunk_offset: 1,
            chunk_bytes: 1,
        };
        for span in [
            Span {
                frame_bytes: 1 << 24,
                ..fits
            },
            Span {
                chunk_offset: 1 << 24,
                ..fits
            },
            Span {
                chunk_bytes: 1 << 24,
                ..fits
            },
        ] {
            assert!(matches!(
                check(&PackId([7; 32]), &span),
                Err(Error::TooLarge { found: 0x0100_0000, .. })
            ));
        }
    }
}
