//! What the kernel's file systems know about data: which bytes of the disk a file is, since when, with what checksum, shared by
//! whom; and the one call that lets two files share what is equal.
//!
//! - The only ioctls of the project; unsafe code is in `ioctl.rs` alone.
//! - Reads metadata; changes nothing but by [`dedupe`], [`defragment`], snapshots and [`Btrfs::commit`].
//! - What the kernel says is decoded by pure functions with limits ([`items`]).

mod btrfs;
mod changes;
mod compare;
mod error;
mod ioctl;
pub mod items;
mod mounts;
mod paths;
mod physical;
mod share;
mod subvolume;
mod touched;

pub use btrfs::{Btrfs, Flow, Info, Range, subvolume_of};
pub use changes::Change;
pub use compare::{Layout, changed_ranges, shared_starts};
pub use error::{Error, Result};
pub use mounts::{Kind, Mount, fs_id, kind_of, mount_of, mounts};
pub use physical::{Piece, physical_map};
pub use share::{CALL_MAX_BYTES, DESTINATIONS_MAX, Shared, dedupe, defragment, is_cold, set_idle_io};
pub use subvolume::{Snapshot, Subvolume, create_subvolume, subvolume};
pub use touched::Touched;
