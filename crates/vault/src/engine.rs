//! The narrow waist: what a door needs of a vault that stays open, wherever the vault lies.
//!
//! - [`Handle`](crate::Handle) is the local engine (`engine/local.rs`): over the places of the vault, its index, and other sources of chunks.
//!   One that reaches a vault through a service will stand beside it.
//! - Everything here blocks. Who must not block asks through a [`Face`](crate::Face) (`engine/face.rs`).
//! - Visibility: what [`EngineCommit::publish`] has acknowledged, every process finds that opens the vault or looks for it later. An open engine
//!   looks by itself: it lists the packs anew for a chunk that it misses. Where lists lag (Swift's may by an hour), only processes that share
//!   a [`ChunkMap`](crate::ChunkMap) find it at once.

pub(crate) mod face;
mod local;

use std::io::Read;
use std::sync::Arc;

use drystone_format::id::ChunkHasher;
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, RootName};
use drystone_format::{ChunkId, RootId, VaultId};

use crate::error::Result;
use crate::problem::Problems;
use crate::reading::frames::ChunkBytes;
use crate::reading::reader::{Reader, Whereabouts};
use crate::reading::sources::ChunkSource;
use crate::roots::kinds::FoundRoot;
use crate::writing::edit::{EditOptions, EditReport, Edited, OldParts};
use crate::writing::flights::Ticket;
use crate::writing::lane::FillError;

/// Receives one chunk of many: its position among those that were asked for, and the chunk or why it cannot be read. Called from several
/// threads, in no order.
pub type EachChunk<'a> = dyn Fn(usize, Result<ChunkBytes>) + Sync + 'a;

/// A vault that stays open.
pub trait Engine: Send + Sync {
    /// Returns the identity of the vault.
    fn id(&self) -> VaultId;

    /// Returns what names the chunks of this vault.
    fn hasher(&self) -> ChunkHasher;

    /// Returns for each of these chunks whether a new root may rely on it: whether it lies in a pack that is trusted and not about to go.
    /// What others stored a moment ago may be missed, which costs storing it again.
    fn has(&self, ids: &[ChunkId]) -> Result<Vec<bool>>;

    /// Returns for each of these chunks, which the root `of` names, where it is.
    fn whereabouts(&self, of: &RootName, ids: &[ChunkId]) -> Result<Vec<Whereabouts>>;

    /// Reads many chunks, with few requests. Returns an error only if nothing can be asked; what happens to single chunks is told to `each`.
    fn get(&self, ids: &[ChunkId], each: &EachChunk<'_>) -> Result<()>;

    /// Returns a reader of chunks, files by offset, and trees; clones share their caches. A chunk that anybody has kept before it is asked
    /// for is found, except where lists lag.
    fn reader(&self) -> Result<Reader>;

    /// Begins a commit: chunks, files and trees that one root will name.
    fn begin(&self) -> Result<Box<dyn EngineCommit>>;

    /// Reads all roots of a kind that count, and reports those that are damaged or missing.
    fn roots(&self, kind: RootKind) -> Result<(Vec<FoundRoot>, Problems)>;

    /// Drops roots; durable on return. Needs an owner's key. Nothing is freed before the next gc.
    fn forget(&self, ids: &[RootId]) -> Result<()>;

    /// Learns of what others have put and changed. Happens by itself every few minutes.
    fn refresh(&self) -> Result<()>;

    /// From now on asks this source for chunks that the places of the vault do not have. It stands in for one of the same name.
    fn add_source(&self, source: Arc<dyn ChunkSource>);

    /// Asks the source of this name no more.
    fn remove_source(&self, name: &str);

    /// Returns which sources gave wrong bytes since this was asked last.
    fn take_liars(&self) -> Problems;
}

/// A commit under way. May be used from many threads; dropping it gives its work up.
pub trait EngineCommit: Send + Sync {
    /// Stores chunks as they are, unless the vault has them or another commit is storing them. Returns their ids, and when each is durable.
    fn put(&self, chunks: &[&[u8]]) -> Result<Vec<(ChunkId, Ticket)>>;

    /// Cuts and stores a file.
    fn store(&self, content: &mut dyn Read) -> Result<Recipe, FillError>;

    /// Stores a file that was `old` and is `new` now, reading only around its edits.
    fn edit(&self, old: &mut dyn OldParts, new: &mut dyn Edited, options: EditOptions)
    -> Result<EditReport, FillError>;

    /// Stores a directory: encoded entries in order of their names, each as [`Entry::encode`](drystone_format::tree::Entry::encode) gives it.
    fn tree(&self, entries: &mut dyn Iterator<Item = Vec<u8>>) -> Result<Recipe>;

    /// Relies on all that a recipe leads to, which some root names by now.
    fn rely_on(&self, recipe: &Recipe);

    /// Waits until the chunks of these tickets are durable.
    fn wait(&self, tickets: &[Ticket]) -> Result<()>;

    /// Makes everything durable, publishes a root that names it, and makes sure that the root counts: what it keeps alive is kept when this
    /// returns. After an error nothing was acknowledged, and the root may be there all the same.
    fn publish(self: Box<Self>, kind: RootKind, payload: &[u8]) -> Result<RootId>;
}
