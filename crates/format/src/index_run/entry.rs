//! What an index run says of packs and chunks. Layout of the rows: docs/format.md, "Index run".
//!
//! - Of a pack it has all that opens frames, so that its tail need not be read.

use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::keys::{Role, Secrets, VerifyKey};
use crate::pack::{LockedFrames, Preamble, Tail};
use crate::seal::{PackKind, Sealer, Suite};

/// What it is called in errors.
pub(super) const OBJECT: &str = "index run";

/// A pack of a run: whose it is, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPack {
    /// The pack.
    pub id: PackId,
    /// Its length, bytes.
    pub bytes: u64,
    /// Format version of the pack.
    pub version: u8,
    /// What it holds.
    pub kind: PackKind,
    /// How it is sealed.
    pub suite: Suite,
    /// Which epoch's keys sealed it.
    pub epoch: u64,
    /// Its salt.
    pub salt: [u8; 32],
    /// Its key, sealed to the seal key of the epoch.
    pub wrapped_key: Vec<u8>,
    /// Who signed it.
    pub signer: VerifyKey,
    /// What the signer's credential might do.
    pub role: Role,
    /// Whether an owner has verified that it holds what its trailer claims.
    pub verified: Verified,
}

/// Whether an owner has verified a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Nobody has yet.
    No = 0,
    /// An owner has read it.
    Yes = 1,
}

impl RunPack {
    /// What a run says of the pack with this tail.
    pub fn new(id: PackId, bytes: u64, tail: &Tail, verified: Verified) -> Self {
        Self::of_preamble(id, bytes, &tail.preamble, verified)
    }

    /// The same of the pack with this preamble. If it is not authenticated, the caller has compared what it says of the signer.
    pub fn of_preamble(id: PackId, bytes: u64, preamble: &Preamble, verified: Verified) -> Self {
        Self {
            id,
            bytes,
            version: preamble.version,
            kind: preamble.kind,
            suite: preamble.suite,
            epoch: preamble.epoch,
            salt: *preamble.salt(),
            wrapped_key: preamble.wrapped_key().to_vec(),
            signer: preamble.certificate.writer,
            role: preamble.certificate.role,
            verified,
        }
    }

    /// What opens the frames of the pack; a writer's credential gets [`crate::Error::WriterKey`].
    pub fn frame_sealer(&self, secrets: &Secrets) -> Result<Sealer> {
        let locked = LockedFrames {
            version: self.version,
            vault: &secrets.vault,
            kind: self.kind,
            suite: self.suite,
            epoch: self.epoch,
            salt: &self.salt,
            wrapped_key: &self.wrapped_key,
        };
        locked.open(secrets)
    }
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Place of its pack in the list of packs.
    pub pack: u32,
    /// Number of its frame in the pack.
    pub frame: u16,
    /// First byte of the frame in the pack.
    pub frame_offset: u32,
    /// Sealed length of the frame, bytes, below 2^24.
    pub frame_bytes: u32,
    /// First byte of the chunk in the plaintext of the frame, below 2^24.
    pub chunk_offset: u32,
    /// Length of the chunk, bytes, below 2^24.
    pub chunk_bytes: u32,
}
