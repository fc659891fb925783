//! What a backup is told.

use std::path::PathBuf;
use std::sync::Arc;

use drystone_format::codec::Compression;
use drystone_vault::{Cancel, Progress};

use crate::local::names::Names;
use crate::scope::filters::Filters;
use crate::scope::own::OwnDirs;

/// Whether file systems mounted below a source belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OneFileSystem {
    /// They do.
    #[default]
    Cross,
    /// They are left out; the directories that they are mounted on stay, empty. So do Btrfs subvolumes.
    Stay,
}

/// What unchanged files are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parent {
    /// The cache of the last run on this machine.
    #[default]
    Cached,
    /// Nothing: every file is read.
    Rescan,
}

/// How a run finds out what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Look {
    /// It asks Btrfs, which it then reads through a snapshot; everything else is looked at file by file. As root only.
    #[default]
    Changes,
    /// It looks at every file.
    Files,
}

/// Whether a run stores anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It does.
    #[default]
    Store,
    /// It only looks which files it would read.
    DryRun,
}

/// What to back up, and how.
#[derive(Clone)]
pub struct BackupOptions {
    /// Absolute paths, without `..`; overlapping ones unite. A link is stored as what it is, unless its path ends with `/`.
    pub sources: Vec<PathBuf>,
    /// What is left out of them.
    pub filters: Filters,
    /// Directories that are never part of a backup.
    pub own: OwnDirs,
    /// Whether file systems mounted below belong to them.
    pub one_file_system: OneFileSystem,
    /// How frames are compressed.
    pub compression: Compression,
    /// Host, for the snapshot; files are cached by it.
    pub host: String,
    /// User, for the snapshot.
    pub user: String,
    /// Program and version, for the snapshot.
    pub program: String,
    /// Free words, for the snapshot.
    pub tags: Vec<String>,
    /// Names of owners.
    pub names: Arc<Names>,
    /// What unchanged files are taken from.
    pub parent: Parent,
    /// How the run finds out what changed.
    pub look: Look,
    /// Whether anything is stored.
    pub mode: Mode,
    /// Threads that read files, and as many that look at directories; of both only as many as memory allows.
    pub threads: usize,
    /// Where files and bytes are counted.
    pub progress: Arc<Progress>,
    /// Stops the run.
    pub cancel: Cancel,
}
