//! What a restore is told.

use std::path::PathBuf;
use std::sync::Arc;

use drystone_vault::{Cancel, Progress};

use crate::apply::{Owner, Special};
use crate::scope::patterns::Patterns;

/// Whether anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestoreMode {
    /// Yes.
    #[default]
    Write,
    /// No: the tree is read and counted.
    DryRun,
}

/// What happens to what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// It becomes what was stored; of files only the stretches that differ are written.
    #[default]
    Always,
    /// It stays as it is; only what is missing is restored.
    Never,
}

/// What becomes of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sparse {
    /// Holes become holes, zeros that were written are written.
    #[default]
    AsStored,
    /// Both become holes.
    Always,
}

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The directory to restore into; made if it is missing. A file that is restored by itself gets its name in it.
    pub target: PathBuf,
    /// If there are any, only what matches and what lies in directories that match; paths relative to the target.
    pub include: Patterns,
    /// What is left out, with all that is in it.
    pub exclude: Patterns,
    /// Whether to write.
    pub mode: RestoreMode,
    /// What to do with what is there.
    pub overwrite: Overwrite,
    /// What to do with zeros.
    pub sparse: Sparse,
    /// How to find owners.
    pub owner: Owner,
    /// Whether set-id bits, file capabilities and devices are restored.
    pub special: Special,
    /// Threads that write, at least 1. For a slow place more than there are processors pay.
    pub threads: usize,
    /// Counts files and bytes.
    pub progress: Arc<Progress>,
    /// Ends the run with `Error::Vault(Interrupted)`.
    pub cancel: Cancel,
}
