//! The door between directories and snapshots: takes backups, restores them, looks into them.
//!
//! - Everything is opened relative to directory descriptors, so neither long paths nor swapped symlinks lead astray.
//! - Explicit stacks and bounded queues: memory does not grow with depth, file size or the number of files.
//! - What concerns one file is a problem in the report; the others are done.
//!
//! Its rooms, each standing on those above it:
//!
//! - `local`: what this machine knows of directories, attributes, owners and limits.
//! - `cache`: what the last run saw. `scope`: what belongs to a backup.
//! - `tracked`: what Btrfs says has changed.
//! - `scan`: looking at directories ahead of the walk, the walk, and what it tells the others.
//! - `read`: files go into the vault. `tree`: what was walked and read becomes a tree.
//! - `backup`, `stream`: a run. `browse`: looking into a snapshot.
//! - `restore`, `dump`, `drill`, `copy`: what is done with one.

mod apply;
mod backup;
mod browse;
mod cache;
mod causes;
mod copy;
mod drill;
mod dump;
mod error;
mod local;
mod options;
mod read;
mod report;
mod restore;
mod scan;
mod scope;
mod stream;
mod tracked;
mod tree;

pub use backup::backup;
pub use browse::diff::{Change, Diff, Difference};
pub use browse::find::{FileKind, Find, FindOptions, find};
pub use browse::{Depth, List, Listed, Selection};
pub use copy::{CopyMode, CopyOptions, CopyReport, Stored, copy};
pub use drill::{DrillOptions, DrillReport, Drilled, Keep, LastDrills, Share, drill, last_drills, record_drill};
pub use dump::{DumpReport, Watch, cat, dump_tar};
pub use error::{Error, Result};
pub use local::names::Names;
pub use options::{BackupOptions, Look, Mode, OneFileSystem, Parent};
pub use report::{BackupReport, Counts, Distrust, Spared};
pub use restore::{NotSet, Overwrite, Owner, RestoreMode, RestoreOptions, RestoreReport, Sparse, Special, restore};
pub use scan::count::Counting;
pub use scope::filters::{Filters, FiltersBuilder, Marker, parse_list};
pub use scope::own::OwnDirs;
pub use scope::patterns::Patterns;
pub use stream::backup_stream;
