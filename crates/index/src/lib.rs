//! What lies where: chunk id -> pack, frame and offset, kept in sorted runs on local disk; and the small relational state.
//!
//! - Everything here is a cache (I4): it can be deleted, torn or lost at any moment at the cost of time alone. A run that is
//!   damaged is dropped and its packs are unknown again, so that the caller reads their trailers anew.
//! - Memory is bounded by [`Options::memory_bytes`], not by the number of chunks (I7). What grows is 8 bytes per 39 chunks
//!   and about 150 bytes per pack.
//! - A pack is known as a whole or not at all: what [`Index::packs`] lists, [`Index::get`] finds every chunk of.
//! - Several processes may use one directory at once; nobody waits for anybody longer than a few system calls.
//! - A location is a hint from a cache: the reader of the frame authenticates what it finds there (I6).

mod checksum;
mod directory;
mod entry;
mod error;
mod filter;
mod index;
mod layers;
mod map;
mod merge;
mod packs;
mod run;
mod state;
mod table;
mod union;
mod write;

pub use entry::{Location, PackEntries, PackInfo, Span};
pub use error::{Error, Result};
pub use index::{Index, Stats};
pub use layers::Options;
pub use map::ChunkMap;
pub use state::{Seen, State, StateReader, StateWriter, Swept};
