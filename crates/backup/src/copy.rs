//! Copying snapshots into another vault, whose keys, chunk sizes and places are its own.
//!
//! - Roots of other kinds are not copied, since their payloads name chunks in ways that only their doors know; the report counts them.
//! - A snapshot that the target has, or that was copied from it, is not copied again: copies carry where they come from.
//! - A copy is published when everything that it needs is durable in the target; one that is no better than the copy that
//!   is there is not published. Of copies that several runs publish at once one stays.
//! - The snapshots of owners, and of whoever copies, come first; those of other writers may be made up to keep a copy busy.
//! - What was copied before is known from the memo, which can be deleted at the cost of time alone.
//! - Interrupted, it goes on where it ended: what was read until then is stored and known from the memo, and snapshots
//!   that were published are there.

mod destination;
mod flow;
mod memo;
mod there;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drystone_format::RootId;
use drystone_format::codec::Compression;
use drystone_format::keys::Role;
use drystone_format::root::RootKind;
use drystone_format::snapshot::{Origin, Snapshot, Totals};
use drystone_vault::order::{Identity, identity};
use drystone_vault::{Cancel, Finished, FrameSize, IngestOptions, Problems, Progress, Vault};
use parking_lot::Mutex;

use self::destination::Destination;
use self::flow::{Copied, Flow};
use self::memo::Memo;
use self::there::There;
use crate::browse::allowance::Allowance;
use crate::causes::Causes;
use crate::error::{Error, Result};

/// Whether anything is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyMode {
    /// Yes.
    #[default]
    Store,
    /// No: only which snapshots would be.
    DryRun,
}

/// How to copy.
#[derive(Clone)]
pub struct CopyOptions {
    /// How frames are compressed in the target.
    pub compression: Compression,
    /// Whether anything is copied.
    pub mode: CopyMode,
    /// Threads that read files, at least 1. For a slow source more than there are processors pay.
    pub threads: usize,
    /// Counts files and bytes.
    pub progress: Arc<Progress>,
    /// Ends the run with `Error::Vault(Interrupted)`.
    pub cancel: Cancel,
}

/// What was stored in the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Plaintext of chunks that were new to it, bytes.
    pub new_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Their size, bytes.
    pub stored_bytes: u64,
}

/// What was copied.
#[derive(Debug, Default)]
pub struct CopyReport {
    /// Snapshots of the source and their copies, in order; of a dry run those that would be copied.
    pub copied: Vec<(RootId, Option<RootId>)>,
    /// Snapshots that the target has already, as good as they can be had.
    pub skipped: u64,
    /// Files in those that were copied.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of files that were read from the source.
    pub read_bytes: u64,
    /// What was stored in the target.
    pub stored: Stored,
    /// What could not be read in the source; everything else was copied.
    pub problems: Problems,
    /// Roots of other kinds that the source has, by kind: a copy takes snapshots alone.
    pub left_roots: BTreeMap<RootKind, u64>,
}

/// Copies these snapshots, each durable in the target when it is published; all that came before an error are.
///
/// The source's credential must be an owner's; with a writer's of the target, what was copied before is known only to the
/// machine that copied it. Source and target may lie anywhere, but must be two vaults: else [`Error::SameVault`].
pub fn copy(from: &Vault, to: &Vault, snapshots: &[RootId], options: &CopyOptions) -> Result<CopyReport> {
    if from.id() == to.id() {
        return Err(Error::SameVault {
            place: to.place().to_owned(),
        });
    }
    let mut report = CopyReport {
        left_roots: from.count_other_roots()?,
        ..CopyReport::default()
    };
    report.left_roots.retain(|_, count| *count > 0);
    let to = &Destination::open(to)?;
    let mut plan = Plan::new(from, to, snapshots, &mut report)?;
    let totals = |of: fn(&Totals) -> u64| {
        let all = plan.due.iter().map(|due| of(&due.snapshot.totals));
        all.fold(0, u64::saturating_add)
    };
    (report.files, report.bytes) = (totals(|totals| totals.files), totals(|totals| totals.bytes));
    options.progress.total_files.store(report.files, Ordering::Relaxed);
    options.progress.total_bytes.store(report.bytes, Ordering::Relaxed);
    if options.mode == CopyMode::DryRun {
        report.copied = plan.due.iter().map(|due| (due.id, None)).collect();
        return Ok(report);
    }
    let problems = Mutex::new(std::mem::take(&mut report.problems));
    let causes = Mutex::default();
    let (mut files, mut bytes) = (0_u64, 0_u64);
    // One run each: a run publishes one root (vault/gc/protocol.rs).
    for due in &plan.due {
        plan.there.refresh(to, due.identity)?;
        if plan.there.has(&due.identity, due.lost) {
            report.skipped += 1;
        } else {
            copy_one(
                from,
                to,
                due,
                (options, &problems, &causes),
                (&mut plan.there, &mut report),
            )?;
        }
        // What the memo spared counts as done.
        files = files.saturating_add(due.snapshot.totals.files);
        bytes = bytes.saturating_add(due.snapshot.totals.bytes);
        options.progress.files.fetch_max(files, Ordering::Relaxed);
        options.progress.bytes.fetch_max(bytes, Ordering::Relaxed);
    }
    report.problems = problems.into_inner();
    Ok(report)
}

/// The options of a copy, and where it says what cannot be read.
type Told<'a> = (&'a CopyOptions, &'a Mutex<Problems>, &'a Mutex<Causes>);

/// Copies one snapshot.
fn copy_one(
    from: &Vault,
    to: &Destination<'_>,
    due: &Due,
    told: Told<'_>,
    (there, report): (&mut There, &mut CopyReport),
) -> Result<()> {
    let run = copy_tree(from, to, due, told)?;
    report.stored.add(&run.finished);
    report.read_bytes += run.read_bytes;
    if let Some(copied) = run.tree {
        match publish(to, due, copied, there, &run.finished)? {
            Some(copy) => report.copied.push((due.id, Some(copy))),
            None => report.skipped += 1,
        }
    }
    // Best effort: whoever finds nothing in the memo reads what was copied.
    let _ = run.memo.keep();
    match run.outcome {
        Err(error @ Error::MoreThanStated { .. }) => {
            told.1.lock().push(format!("{}:", due.id.short()), error);
            Ok(())
        }
        outcome => outcome,
    }
}

impl Stored {
    fn add(&mut self, run: &Finished) {
        self.new_bytes += run.new_bytes;
        self.packs += run.packs;
        self.stored_bytes += run.stored_bytes;
    }
}

/// A snapshot to be copied.
struct Due {
    id: RootId,
    snapshot: Snapshot,
    identity: Identity,
    /// Lost already in the source.
    lost: u64,
    /// The snapshot that it says it was built on.
    parent: Option<Identity>,
    /// How much it may hold; none for those of owners and of this client.
    allowance: Option<Allowance>,
}

/// What is to be done.
struct Plan {
    due: Vec<Due>,
    there: There,
}

impl Plan {
    fn new(from: &Vault, to: &Destination<'_>, wanted: &[RootId], report: &mut CopyReport) -> Result<Self> {
        let wanted = read_wanted(from, wanted, &mut report.problems)?;
        let identities: HashMap<RootId, Identity> = wanted.iter().map(|one| (one.id, one.identity)).collect();
        let there = There::read(to, identities.values().copied())?;
        let mut due = Vec::new();
        for Wanted {
            id,
            snapshot,
            identity,
            allowance,
        } in wanted
        {
            let lost = snapshot.lost();
            if there.has(&identity, lost) {
                report.skipped += 1;
                continue;
            }
            // One that is not copied now and not a copy itself is known by its id here.
            let of = |parent| identities.get(&parent).copied().unwrap_or((from.id(), parent));
            let parent = snapshot.parent.map(of);
            due.push(Due {
                id,
                snapshot,
                identity,
                lost,
                parent,
                allowance,
            });
        }
        Ok(Self { due, there })
    }
}

/// A snapshot of the source.
struct Wanted {
    id: RootId,
    snapshot: Snapshot,
    /// Of another writer's it is its own: a claim to be a copy must not stand in the way of what it claims to be a copy of.
    identity: Identity,
    allowance: Option<Allowance>,
}

/// These snapshots, each once, in the order in which they are copied: those of owners and of this client by the time they
/// began, of copies of one the best first; then those of other writers by what they state to hold. Damaged ones are problems.
fn read_wanted(from: &Vault, wanted: &[RootId], problems: &mut Problems) -> Result<Vec<Wanted>> {
    let mut snapshots = Vec::new();
    for id in HashSet::<RootId>::from_iter(wanted.iter().copied()) {
        match from.snapshot_of(&id) {
            Ok((snapshot, writer, role)) => {
                let is_trusted = role == Role::Owner || from.is_own(&writer);
                let own = (from.id(), id);
                snapshots.push(Wanted {
                    identity: if is_trusted {
                        identity(own.0, id, &snapshot)
                    } else {
                        own
                    },
                    allowance: (!is_trusted).then(|| Allowance::new(&snapshot.totals)),
                    id,
                    snapshot,
                });
            }
            Err(error) if error.is_damage() => problems.push(format!("{}:", id.short()), error),
            Err(error) => return Err(error.into()),
        }
    }
    snapshots.sort_by_key(|one| {
        let stated = one.allowance.as_ref().map(|_| one.snapshot.totals.bytes);
        (stated, one.snapshot.started, one.snapshot.lost(), one.id)
    });
    Ok(snapshots)
}

/// A tree that was copied, as far as that went.
struct Run<'a> {
    tree: Option<Copied>,
    finished: Finished,
    read_bytes: u64,
    memo: Memo<'a>,
    /// Why there is no tree, if there is none; what was stored is durable all the same.
    outcome: Result<()>,
}

/// Copies the tree of a snapshot.
fn copy_tree<'a>(
    from: &Vault,
    to: &'a Destination<'a>,
    due: &Due,
    (options, problems, causes): Told<'_>,
) -> Result<Run<'a>> {
    let memo = Memo::open(from, to)?;
    let ingest = to.vault.ingest(IngestOptions {
        compression: options.compression,
        frames: FrameSize::default(),
        progress: options.progress.clone(),
        // The flow stops by itself, in good order.
        cancel: Cancel::default(),
    })?;
    let flow = Flow {
        reader: from.reader()?,
        ingest: &ingest,
        memo: &memo,
        threads: options.threads.clamp(1, ingest.lanes()),
        progress: &options.progress,
        cancel: &options.cancel,
        problems,
        causes,
        read_bytes: AtomicU64::new(0),
    };
    let (tree, outcome) = flow.run(due.id, &due.snapshot.tree, due.allowance.clone());
    let read_bytes = flow.read_bytes.into_inner();
    let error = match (outcome, ingest.finish()) {
        (outcome, Ok(finished)) => {
            return Ok(Run {
                tree,
                finished,
                read_bytes,
                memo,
                outcome,
            });
        }
        (Err(Error::Vault(drystone_vault::Error::Stopped)) | Ok(()), Err(error)) => error.into(),
        (Err(error), Err(_)) => error,
    };
    // What was stored need not be read again by the next run; if that cannot be, the first error is what is told.
    let _ = memo.keep_files();
    Err(error)
}

/// Publishes a copy, unless the target has one that is as good, or another run publishes one meanwhile.
fn publish(
    to: &Destination<'_>,
    due: &Due,
    copied: Copied,
    there: &mut There,
    finished: &Finished,
) -> Result<Option<RootId>> {
    let lost = due.lost.saturating_add(copied.lost);
    there.refresh(to, due.identity)?;
    if there.has(&due.identity, lost) {
        return Ok(None);
    }
    let snapshot = Snapshot {
        tree: copied.tree,
        parent: due.parent.and_then(|parent| there.id(&parent)),
        totals: Totals {
            problems: due.snapshot.totals.problems.saturating_add(copied.lost),
            ..due.snapshot.totals
        },
        origin: Some(Origin {
            vault: due.identity.0,
            snapshot: due.identity.1,
            lost,
        }),
        ..due.snapshot.clone()
    };
    let id = to.vault.publish(&snapshot, finished)?;
    there.published(to, due.identity, lost, id);
    // Only an owner can take back what another run was as quick with; elsewhere, and where the place does not take it now, the
    // keep rules count both as one.
    if to.vault.role() == Role::Owner && there.refresh(to, due.identity).is_ok() {
        let is_second = there.id(&due.identity).is_some_and(|best| best != id);
        if is_second && to.vault.forget(&[id]).is_ok() {
            return Ok(None);
        }
        // A run that looked before this copy was there does not know that it is second.
        let others = there.as_good(&due.identity, lost, id);
        if !is_second && !others.is_empty() {
            let _ = to.vault.forget(&others);
        }
    }
    Ok(Some(id))
}
