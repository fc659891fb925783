//! Reclaiming, in place, of the duplicates that lie on Btrfs and XFS: files come to share what is equal, and nothing else changes.
//!
//! - Only FIDEDUPERANGE touches user data: the kernel compares before it shares, so that no mistake here can lose a byte.
//! - Memory is bounded by what the caller allows, whatever the size of the file system.
//! - What is reported as freed is counted on the physical map, before and after.

mod btrfs;
mod cache;
mod candidates;
mod cover;
mod devices;
mod error;
mod execute;
mod files;
mod lookup;
mod map;
mod outcome;
mod plan;
mod progress;
mod read;
mod requests;
mod run;
mod scope;
mod share;
mod space;
mod state;
mod swap;
mod target;
mod threads;
mod unsummed;
mod walk;
mod walked;

pub use btrfs::BtrfsSpace;
pub use candidates::{Candidates, Look, Rank};
pub use cover::{Run, Source};
pub use error::{Error, Result};
pub use execute::{Limits, execute};
pub use files::{Fate, join_extents, share_file};
pub use lookup::files_of_size;
pub use outcome::{Outcome, Problem};
pub use plan::{Job, Plan, Policy, plan};
pub use progress::{Cancel, Progress};
pub use run::{Note, Options, Report, run};
pub use scope::Scope;
pub use space::{Extent, FileId, NO_PRINT, Print, Space, Unread, Use, Uses, Which};
pub use state::{KnownFs, PastRun, State};
pub use target::find::{Found, IsRoot, find_targets, is_there};
pub use target::{Known, PRIVATE_MIN_BYTES, Reads, Target};
pub use walked::{Walk, WalkedSpace};
