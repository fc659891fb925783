//! Drills: restoring for real into a scratch directory, and comparing what comes of it.
//!
//! - The same code restores as for a real loss; what it wrote is read back from the disk and compared with what was
//!   recorded, and with the source where that is still the same.
//! - The scratch directory is gone when the drill ends, however it ends.
//! - The vault is only read.

mod choice;
mod compare;
mod record;
mod scratch;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drystone_format::snapshot::{Snapshot, Totals};
use drystone_format::tree::Entry;
use drystone_vault::{Cancel, Problems, Progress, Vault};
use parking_lot::Mutex;

use self::choice::Choice;
pub use self::choice::Share;
use self::compare::{Attributes, Comparison, open_source};
pub use self::record::{Drilled, LastDrills, last_drills, record_drill};
use self::scratch::Scratch;
use crate::browse::Selection;
use crate::browse::allowance::Allowance;
use crate::error::Result;
use crate::restore::{NotSet, Overwrite, Owner, RestoreMode, RestoreOptions, Sample, Sparse, Special, restore_sample};
use crate::scope::patterns::Patterns;

/// What becomes of what was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// It is removed.
    #[default]
    Remove,
    /// It stays.
    Keep,
}

/// How to drill.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// How much of the snapshot is restored: files are drawn at random, and the largest and some small ones always.
    pub share: Share,
    /// The same seed draws the same files of the same snapshot.
    pub seed: u64,
    /// Where the scratch directory is made; made itself if it is missing.
    pub into: PathBuf,
    /// Whether what was restored stays there.
    pub keep: Keep,
    /// The root directory of the system that was backed up, if it is this one: what is there is compared as well.
    pub source: Option<PathBuf>,
    /// The totals that another writer's snapshot states. It is left if it holds much more: such a tree may have no end.
    pub within: Option<Totals>,
    /// Threads that restore and compare, at least 1.
    pub threads: usize,
    /// Counts files, and bytes twice: restored, and compared.
    pub progress: Arc<Progress>,
    /// Ends the run with `Error::Vault(Interrupted)`.
    pub cancel: Cancel,
}

/// What a drill found.
#[derive(Debug, Default)]
pub struct DrillReport {
    /// Entries that are not directories, restored and found as they were recorded.
    pub files: u64,
    /// Bytes of regular files among them.
    pub bytes: u64,
    /// Chunks that were read back from the scratch directory and match their ids.
    pub chunks: u64,
    /// Entries that are equal to the source, which is still as it was.
    pub same_files: u64,
    /// Their bytes.
    pub same_bytes: u64,
    /// Entries whose source is not there, is not as it was or cannot be read: compared with what was recorded alone.
    pub changed_files: u64,
    /// What could not be restored, or is not as it should be.
    pub problems: Problems,
    /// Entries that are as they were stored, but are marked in the snapshot as not whole.
    pub incomplete: Problems,
    /// Attributes that could not be restored here, and are not compared.
    pub not_set: Vec<NotSet>,
    /// Where what was restored is, if it was to be kept.
    pub kept: Option<PathBuf>,
}

/// Restores a share of a snapshot, compares it, and removes it.
///
/// [`Error::NoRoom`](crate::Error::NoRoom) before anything is written if there is no room for it, and
/// [`Error::MoreThanStated`](crate::Error::MoreThanStated) if it holds more than it may; an error means that the drill did not come to its end.
/// What it found wrong is in the report. Nothing is recorded: see [`record_drill`].
pub fn drill(vault: &Vault, snapshot: &Snapshot, options: &DrillOptions) -> Result<DrillReport> {
    let reader = vault.reader()?;
    let drawn = (options.seed, options.share);
    let allowance = options.within.as_ref().map(Allowance::new);
    let choice = Choice::new(&reader, &snapshot.tree, drawn, (allowance, &options.cancel))?;
    let source = options.source.as_deref().map(open_source).transpose()?;
    let progress = &options.progress;
    Progress::add(&progress.total_files, choice.files);
    Progress::add(&progress.total_bytes, choice.bytes.saturating_mul(2));
    let mut number = [0; 4];
    vault.context().entropy.fill(&mut number);
    let scratch = Scratch::make(&options.into, u32::from_le_bytes(number))?;
    scratch.require(choice.disk_bytes)?;
    let sample = |path: &[u8], _: &Entry| choice.has(path);
    let selection = Selection::whole(snapshot);
    // Of everything also the directories that are empty.
    let of_part: Option<Sample<'_>> = (options.share != Share::ALL).then_some(&sample);
    let restored = restore_sample(vault, &selection, &restoring(options, &scratch), of_part)?;
    let failed: HashSet<Vec<u8>> = restored.problems.iter().map(|problem| problem.path.clone()).collect();
    let comparison = Comparison {
        reader: &reader,
        hasher: vault.hasher(),
        restored: scratch.open()?,
        source,
        attributes: Attributes::restored(&restored.not_set),
        since: snapshot.started,
        progress,
        cancel: &options.cancel,
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        chunks: AtomicU64::new(0),
        same_files: AtomicU64::new(0),
        same_bytes: AtomicU64::new(0),
        changed_files: AtomicU64::new(0),
        problems: Mutex::new(restored.problems),
    };
    comparison.run(&snapshot.tree, &sample, &failed, options.threads)?;
    let mut report = report(comparison);
    (report.not_set, report.incomplete) = (restored.not_set, restored.incomplete);
    let path = scratch.tree().into_os_string().into_encoded_bytes();
    let ended = match options.keep {
        Keep::Keep => scratch.keep().map(|kept| report.kept = Some(kept)),
        Keep::Remove => scratch.remove(),
    };
    if let Err(error) = ended {
        let what = format!("the scratch directory cannot be removed or renamed: {error}; see to it yourself");
        report.problems.push(path, what);
    }
    Ok(report)
}

fn restoring(options: &DrillOptions, scratch: &Scratch) -> RestoreOptions {
    RestoreOptions {
        target: scratch.tree(),
        include: Patterns::NONE,
        exclude: Patterns::NONE,
        mode: RestoreMode::Write,
        overwrite: Overwrite::Always,
        sparse: Sparse::AsStored,
        owner: Owner::Numbers,
        special: Special::AsStored,
        threads: options.threads,
        progress: options.progress.clone(),
        cancel: options.cancel.clone(),
    }
}

fn report(comparison: Comparison<'_>) -> DrillReport {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    DrillReport {
        files: count(&comparison.files),
        bytes: count(&comparison.bytes),
        chunks: count(&comparison.chunks),
        same_files: count(&comparison.same_files),
        same_bytes: count(&comparison.same_bytes),
        changed_files: count(&comparison.changed_files),
        problems: comparison.problems.into_inner(),
        incomplete: Problems::default(),
        not_set: Vec::new(),
        kept: None,
    }
}
