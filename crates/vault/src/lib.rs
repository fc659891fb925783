//! The engine: dedup, packs, reading, snapshots, check and scrub over one place.
//!
//! - Nothing is acknowledged before it is durable (I1); a published root reaches only durable packs (I2).
//! - The index and all local state can be deleted at any moment at the cost of time alone (I4).
//! - No byte is returned before it is authenticated (I6); memory is bounded by configuration (I7).
//! - Everything here blocks; it is called from threads, never from within the tokio runtime it uses.

mod base;
mod catalog;
mod context;
mod engine;
mod error;
mod gc;
mod handle;
mod health;
mod keyring;
mod parallel;
mod places;
mod problem;
mod progress;
mod reading;
mod roots;
mod vault;
mod writing;

pub use drystone_store::spread::{Objects, PlaceTroubles, Troubles};

pub use context::{Accept, Clock, Context, Entropy};
pub use drystone_index::ChunkMap;
pub use engine::face::Face;
pub use engine::{EachChunk, Engine, EngineCommit};
pub use error::{Error, Result};
pub use gc::{GcOptions, GcReport, protocol};
pub use handle::Handle;
pub use health::check::{CheckOptions, CheckReport};
pub use health::doctor::{Finding, Grade};
pub use health::repair::{PlaceWork, Redundancy, RepairOptions, RepairReport, Repaired};
pub use health::scrub::{ScrubOptions, ScrubReport};
pub use health::stats::Stats;
pub use keyring::keys::{KeyFile, NewLock, RecoveryCode, Unlock, generate_key_file, named_vaults, vault_line};
pub use keyring::slots::{NewEpoch, NewSlot, SlotInfo};
pub use places::change::{NewPlace, PlaceChange, PlaceUse};
pub use places::config::{InForce, Signed, differences, in_force};
pub use places::create::CreateOptions;
pub use places::known::{Known, KnownVault, Seen};
pub use places::pin::VaultPin;
pub use places::reach::{Connect, Reach};
pub use places::troubles::PlaceWatch;
pub use problem::{Problem, Problems};
pub use progress::{Cancel, Progress};
pub use reading::ahead::Fetched;
pub use reading::content::{ContentReader, Parts, Piece, PieceData, TreeReader};
pub use reading::file::FileReader;
pub use reading::frames::ChunkBytes;
pub use reading::range::{FrameAt, FrameRange};
pub use reading::reader::{Reader, Whereabouts};
pub use reading::sources::ChunkSource;
pub use roots::kinds::FoundRoot;
pub use roots::resolve::Resolved;
pub use roots::{latest, ledger, order, retention};
pub use vault::Vault;
pub use writing::commit::Commit;
pub use writing::edit::{EditOptions, EditReport, Edited, OldPart, OldParts, OldRecipe, Reliance, Stretch, Whole};
pub use writing::flights::Ticket;
pub use writing::frame_size::FrameSize;
pub use writing::ingest::{Finished, Ingest, IngestOptions};
pub use writing::lane::{Content, FillError, Lane, TreeWriter};
pub use writing::writer::{Writer, WriterOptions};
