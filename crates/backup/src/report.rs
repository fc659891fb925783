//! What a backup reports.

use drystone_format::RootId;
use drystone_format::snapshot::Totals;
use drystone_vault::Problems;

/// How files compare with the run before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not in the cache.
    pub new: u64,
    /// Looked different from what the cache said.
    pub changed: u64,
    /// Looked the same, and were not opened.
    pub unchanged: u64,
}

/// What was taken over as it was, by what the file system says, without being looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spared {
    /// Directories, with those in them.
    pub dirs: u64,
    /// Files in them.
    pub files: u64,
    /// Bytes of files in them.
    pub bytes: u64,
    /// Bytes of other files that were not read since only parts of them had changed.
    pub unread_bytes: u64,
}

/// Why every file was looked at although there was a last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distrust {
    /// Where.
    pub path: Vec<u8>,
    /// Why.
    pub why: String,
}

/// What a run did.
#[derive(Debug)]
pub struct BackupReport {
    /// The snapshot; none of a dry run.
    pub snapshot: Option<RootId>,
    /// What was seen and stored. Of a dry run: what would be read.
    pub totals: Totals,
    /// How files compare with the run before.
    pub counts: Counts,
    /// What was taken over without being looked at.
    pub spared: Spared,
    /// Why Btrfs was not asked what changed, where there was a last run.
    pub distrust: Vec<Distrust>,
    /// Where file systems are mounted that the kernel makes up, of which nothing was taken.
    pub left_out: Vec<Vec<u8>>,
    /// What could not be read, or changed meanwhile; everything else is in the snapshot.
    pub problems: Problems,
}
