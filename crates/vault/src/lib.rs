//! The engine: dedup, packs, reading, snapshots, check and scrub over one place.
//!
//! - Nothing is acknowledged before it is durable (I1); a published root reaches only durable packs (I2).
//! - The index and all local state can be deleted at any moment at the cost of time alone (I4).
//! - No byte is returned before it is authenticated (I6); memory is bounded by configuration (I7).
//! - Everything here blocks; it is called from threads, never from within the tokio runtime it uses.

mod admit;
mod budget;
mod candidates;
mod catalog;
mod check;
mod config;
mod content;
mod context;
mod create;
mod doctor;
mod error;
mod features;
mod flow;
mod forged;
mod frames;
mod gc;
mod ingest;
mod judge;
mod keys;
mod kinds;
mod known;
mod lane;
pub mod latest;
pub mod ledger;
mod ledgers;
mod left;
mod losses;
mod marks;
mod open;
pub mod order;
mod packer;
mod parallel;
mod place;
mod places;
mod problem;
mod progress;
mod reach;
mod reader;
mod repair;
mod resolve;
pub mod retention;
mod roots;
mod scrub;
mod sightings;
mod slots;
mod snapshots;
mod stating;
mod stats;
mod unreadable;
mod vault;

pub use check::{CheckOptions, CheckReport};
pub use config::{InForce, Signed, differences, in_force};
pub use content::{ContentReader, Parts, Piece, PieceData, TreeReader};
pub use context::{Accept, Clock, Context, Entropy};
pub use create::CreateOptions;
pub use doctor::{Finding, Grade};
pub use error::{Error, Result};
pub use frames::ChunkBytes;
pub use gc::{GcOptions, GcReport, protocol};
pub use ingest::{Finished, Ingest, IngestOptions};
pub use keys::{KeyFile, NewLock, RecoveryCode, Unlock, generate_key_file, named_vaults, vault_line};
pub use kinds::FoundRoot;
pub use known::{Known, KnownVault, Seen, VaultPin};
pub use lane::{Content, FillError, Lane, TreeWriter};
pub use places::{NewPlace, PlaceChange, PlaceUse};
pub use problem::{Problem, Problems};
pub use progress::{Cancel, Progress};
pub use reach::{Connect, Reach};
pub use reader::Reader;
pub use repair::{PlaceWork, Redundancy, RepairOptions, RepairReport, Repaired};
pub use resolve::Resolved;
pub use scrub::{ScrubOptions, ScrubReport};
pub use slots::{NewEpoch, NewSlot, SlotInfo};
pub use stats::Stats;
pub use vault::Vault;
