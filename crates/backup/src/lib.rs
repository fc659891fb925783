//! The door between directories and snapshots: takes backups, restores them, looks into them.
//!
//! - Everything is opened relative to directory descriptors, so neither long paths nor swapped symlinks lead astray.
//! - Explicit stacks and bounded queues: memory does not grow with depth, file size or the number of files.
//! - What concerns one file is a problem in the report; the others are done.

mod accounts;
mod acl;
mod allowance;
mod apply;
mod assemble;
mod attributes;
mod backup;
mod browse;
mod browse_walk;
mod cache;
mod causes;
mod copy;
mod count;
mod descriptors;
mod diff;
mod dir;
mod drill;
mod dump;
mod dump_header;
mod error;
mod filters;
mod find;
mod found;
mod job;
mod journal;
mod last;
mod levels;
mod listing;
mod names;
mod options;
mod own;
mod partial;
mod patterns;
mod place;
mod prefetch;
mod read;
mod report;
mod restore;
mod rules;
mod scan;
mod scope;
mod slots;
mod sources;
mod stream;
mod system;
mod tracked;
mod walk;

pub use backup::backup;
pub use browse::{Depth, List, Listed, Selection};
pub use copy::{CopyMode, CopyOptions, CopyReport, Stored, copy};
pub use count::Counting;
pub use diff::{Change, Diff, Difference};
pub use drill::{DrillOptions, DrillReport, Drilled, Keep, LastDrills, Share, drill, last_drills, record_drill};
pub use dump::{DumpReport, Watch, cat, dump_tar};
pub use error::{Error, Result};
pub use filters::{Filters, FiltersBuilder, Marker, parse_list};
pub use find::{FileKind, Find, FindOptions, find};
pub use names::Names;
pub use options::{BackupOptions, Look, Mode, OneFileSystem, Parent};
pub use own::OwnDirs;
pub use patterns::Patterns;
pub use report::{BackupReport, Counts, Distrust, Spared};
pub use restore::{NotSet, Overwrite, Owner, RestoreMode, RestoreOptions, RestoreReport, Sparse, Special, restore};
pub use stream::backup_stream;
