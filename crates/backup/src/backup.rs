//! Taking a backup: the threads, and what is published in the end.
//!
//! - Nothing is published before everything that it needs is durable; the file cache follows the snapshot.
//! - The first error stops the run; problems with single files do not.

use std::sync::atomic::Ordering;

use crossbeam_channel::bounded;
use drystone_format::RootId;
use drystone_format::recipe::Recipe;
use drystone_format::snapshot::{Snapshot, Totals};
use drystone_format::tree::Time;
use drystone_index::State;
use drystone_vault::{Finished, FrameSize, Ingest, IngestOptions, Problems, Vault};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, statat};
use rustix::process::geteuid;

use crate::cache::file;
use crate::cache::journal::Journal;
use crate::cache::last::{Last, SourceSeen, remembered};
use crate::cache::slots::Slots;
use crate::error::{Error, FirstError, Result, spawn, stopped};
use crate::local::attributes::XattrReader;
use crate::local::descriptors::Allowed;
use crate::local::system::Systems;
use crate::options::{BackupOptions, Mode, Parent};
use crate::read::Reader;
use crate::report::{BackupReport, Counts, Spared};
use crate::scan::prefetch::Prefetch;
use crate::scan::rules::Rules;
use crate::scan::walk::{Outlets, Walk};
use crate::scope::Scope;
use crate::scope::sources::Sources;
use crate::tracked::Tracker;
use crate::tree::assemble::{Assembled, Assembler};
use crate::tree::levels::Target;

/// Batches of steps that the walk may be ahead of the tree that is put together.
const EVENTS_AHEAD: usize = 32;

/// Backs directories and files up into a snapshot, durable on return.
///
/// [`Error::Source`] if none of the sources is there; one that is missing beside others is a problem.
pub fn backup(vault: &Vault, options: &BackupOptions) -> Result<BackupReport> {
    let started = vault.context().clock.now();
    let sources = Sources::new(&options.sources)?;
    require_one(&sources)?;
    let run = random_id(vault);
    // Before the loss epoch is asked for: a run that registers learns what gc has condemned.
    let ingest = match options.mode {
        Mode::Store => Some(start_ingest(vault, options)?),
        Mode::DryRun => None,
    };
    let loss_epoch = vault.loss_epoch()?;
    let last_key = Last::key(&options.host, &sources.paths);
    let tracked_key = Tracker::key(vault, options, &sources);
    let state = file::open(vault, &[&last_key, &tracked_key])?;
    let rules = rules((vault, &state), options, &sources, loss_epoch)?;
    let last = Last::get(&state, &last_key)?;
    if let Some(last) = &last {
        options.progress.total_files.store(last.files, Ordering::Relaxed);
        options.progress.total_bytes.store(last.bytes, Ordering::Relaxed);
    }
    let cache_dir = &vault.context().cache_dir;
    let journal = |what| Journal::new(cache_dir.join(format!("{what}-{}-{run:08x}", vault.id())));
    let assembled = Run {
        rules: &rules,
        options,
        ingest: ingest.as_ref(),
        started,
    }
    .all(&sources, (journal("journal"), journal("rows")))?;
    let emptied = last
        .as_ref()
        .map(|last| last.emptied(&assembled.sources))
        .unwrap_or_default();
    say_emptied(&emptied, &sources, &rules);
    let Some(ingest) = ingest else {
        let none = Spared::default();
        return Ok(report(None, assembled.totals, (assembled.counts, none), rules));
    };
    let finished = ingest.finish()?;
    let parent = last
        .filter(|_| assembled.counts.unchanged > 0)
        .map(|last| last.snapshot);
    let totals = totals(assembled.totals, &finished, &rules.problems.lock());
    let snapshot = snapshot(
        options,
        started,
        (assembled.tree.clone(), totals, parent),
        sources.shown(),
        vault,
    );
    let id = vault.publish(&snapshot, &finished)?;
    // From here on the snapshot is there: what fails now costs the next run time, nothing else.
    let epoch = loss_epoch << 32 | u64::from(run);
    let (counts, spared) = (assembled.counts, assembled.spared);
    let now = Last {
        snapshot: id,
        files: totals.files,
        bytes: totals.bytes,
        sources: remembered(&assembled.sources, &emptied),
    };
    let kept = keep(assembled, &rules, epoch, totals.dirs).and_then(|()| now.set(&state, &last_key));
    if let Err(error) = kept {
        rules.problem(
            vault.place(),
            format_args!("the file cache was not updated, the next run reads more: {error}"),
        );
    }
    Ok(report(Some(id), totals, (counts, spared), rules))
}

/// Says of which sources no file is left. They may be the places of disks that are away.
fn say_emptied(emptied: &[SourceSeen], sources: &Sources, rules: &Rules<'_>) {
    for before in emptied {
        let path = sources.paths.get(before.number as usize);
        let files = before.files;
        let files = if files == 1 {
            "1 file".to_owned()
        } else {
            format!("{files} files")
        };
        let what = format_args!("holds no file any more, but {files} at an earlier backup; is its disk mounted?");
        rules.problem(path.cloned().unwrap_or_default(), what);
    }
}

/// Keeps for the next run what this one has seen; `dirs` directories in all.
fn keep(assembled: Assembled, rules: &Rules<'_>, epoch: u64, dirs: u64) -> Result<()> {
    let state = rules.state;
    if assembled.spared.dirs == 0 {
        assembled.journal.commit(state, epoch, &assembled.seen)?;
    } else {
        // What was spared was not seen, and stays.
        let slots: Vec<_> = assembled.seen.iter().map(|(slot, _)| *slot).collect();
        assembled.journal.add_all(state, epoch, &slots)?;
    }
    rules.tracker.keep(state, assembled.rows, epoch, dirs)
}

fn rules<'a>(
    (vault, state): (&'a Vault, &'a State),
    options: &'a BackupOptions,
    sources: &Sources,
    loss_epoch: u64,
) -> Result<Rules<'a>> {
    Ok(Rules {
        vault,
        state,
        filters: &options.filters,
        own: &options.own,
        names: &options.names,
        one_file_system: options.one_file_system,
        slots: Slots::new(&options.host, &sources.paths),
        systems: Systems::default(),
        loss_epoch,
        reads_cache: options.parent == Parent::Cached,
        problems: Mutex::default(),
        unsettled: Mutex::default(),
        tracker: Tracker::new((vault, state), options, sources, loss_epoch as u32)?,
        progress: options.progress.clone(),
    })
}

fn report(
    snapshot: Option<RootId>,
    totals: Totals,
    (counts, spared): (Counts, Spared),
    rules: Rules<'_>,
) -> BackupReport {
    let distrust = rules.tracker.told();
    let (problems, left_out) = (rules.problems.into_inner(), rules.systems.left_out());
    BackupReport {
        snapshot,
        totals: Totals {
            problems: problems.count(),
            ..totals
        },
        counts,
        spared,
        distrust,
        left_out,
        problems,
    }
}

pub(crate) fn start_ingest(vault: &Vault, options: &BackupOptions) -> Result<Ingest> {
    Ok(vault.ingest(IngestOptions {
        compression: options.compression,
        frames: FrameSize::default(),
        progress: options.progress.clone(),
        cancel: options.cancel.clone(),
    })?)
}

pub(crate) fn totals(seen: Totals, finished: &Finished, problems: &Problems) -> Totals {
    Totals {
        new_bytes: finished.new_bytes,
        stored_bytes: finished.stored_bytes,
        problems: problems.count(),
        ..seen
    }
}

pub(crate) fn snapshot(
    options: &BackupOptions,
    started: Time,
    (tree, totals, parent): (Recipe, Totals, Option<RootId>),
    paths: Vec<Vec<u8>>,
    vault: &Vault,
) -> Snapshot {
    Snapshot {
        started,
        finished: vault.context().clock.now(),
        host: options.host.clone(),
        user: options.user.clone(),
        paths,
        tags: options.tags.clone(),
        tree,
        parent,
        totals,
        program: options.program.clone(),
        origin: None,
        unknown: Vec::new(),
    }
}

/// An error if nothing of what was named is there.
fn require_one(sources: &Sources) -> Result<()> {
    let mut missing = None;
    for path in &sources.paths {
        let shown: &[u8] = if path.is_empty() { b"/" } else { path };
        match statat(CWD, shown, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Ok(()),
            Err(error) => missing = missing.or(Some((shown, error))),
        }
    }
    missing.map_or(Ok(()), |(path, error)| {
        Err(Error::Source {
            path: path.to_vec(),
            why: std::io::Error::from(error).to_string(),
        })
    })
}

fn random_id(vault: &Vault) -> u32 {
    let mut bytes = [0; 4];
    vault.context().entropy.fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

/// One run's threads.
struct Run<'a> {
    rules: &'a Rules<'a>,
    options: &'a BackupOptions,
    ingest: Option<&'a Ingest>,
    started: Time,
}

impl Run<'_> {
    fn all(&self, sources: &Sources, journals: (Journal, Journal)) -> Result<Assembled> {
        let threads = self.options.threads.max(1);
        let readers = self.ingest.map_or(0, |ingest| threads.min(ingest.lanes()));
        let allowed = Allowed::now();
        let (prefetch, failure) = (Prefetch::new(allowed), FirstError::default());
        let (job_sender, jobs) = bounded(readers.max(1));
        let (event_sender, events) = bounded(EVENTS_AHEAD);
        let outlets = Outlets {
            jobs: job_sender,
            events: event_sender,
            cancel: self.options.cancel.clone(),
            mode: self.options.mode,
            threads: readers,
            allowed,
        };
        let assembled = std::thread::scope(|scope| {
            let (prefetch, failure) = (&prefetch, &failure);
            for _ in 0..threads.min(allowed.scanners) {
                // Where there may be no more threads, the walk looks at everything itself.
                let _ = spawn(scope, || failure.note(prefetch.run(self.rules)));
            }
            let mut reading = Ok(());
            for _ in 0..readers {
                let (Some(ingest), jobs) = (self.ingest, jobs.clone()) else {
                    continue;
                };
                let Some(reader) = failure.note(self.reader(ingest)) else {
                    continue;
                };
                reading = reading.and(spawn(scope, move || failure.note(reader.run(&jobs))).map(drop));
            }
            failure.note(reading);
            drop(jobs);
            let assembler = failure.note(spawn(scope, move || failure.note(self.assemble(journals, &events))));
            let walk = Walk::new(self.rules, prefetch, outlets);
            failure.note(walk.and_then(|walk| walk.run(root_scope(self.rules, sources))));
            prefetch.stop();
            assembler?.join().ok().flatten().flatten()
        });
        match (failure.into_error(), assembled) {
            (Some(error), _) => Err(error),
            (None, assembled) => assembled.ok_or_else(stopped),
        }
    }

    fn reader(&self, ingest: &Ingest) -> Result<Reader<'_>> {
        let reads = self.rules.reads_cache && self.rules.tracker.is_on();
        let state = self.rules.state;
        Ok(Reader {
            lane: ingest.lane(),
            names: &self.options.names,
            started: self.started,
            progress: self.options.progress.clone(),
            cancel: self.options.cancel.clone(),
            xattrs: XattrReader::new(),
            uid: geteuid().as_raw(),
            tracker: &self.rules.tracker,
            state: if reads { Some(state.reader()?) } else { None },
            loss_epoch: self.rules.loss_epoch,
        })
    }

    fn assemble(
        &self,
        journals: (Journal, Journal),
        events: &crossbeam_channel::Receiver<Vec<crate::scan::job::Event>>,
    ) -> Result<Option<Assembled>> {
        let target = self.ingest.map(|ingest| Target {
            ingest,
            lane: ingest.lane(),
        });
        Assembler::new(self.rules, target, self.options.progress.clone(), journals)?.run(events)
    }
}

fn root_scope(rules: &Rules<'_>, sources: &Sources) -> Scope {
    match sources.root.source {
        Some(source) => rules.whole_root(source, sources.root.clone()),
        None => Scope::Listed(sources.root.clone()),
    }
}
