//! The layers of an index: a table of late entries in front of sorted runs, and how one becomes the other.
//!
//! - Order of locks: `spill`, then `change`, then the directory's, then `shared`; `shared` is never held while reading a file.
//! - Runs are replaced by adding the new before removing the old, in memory as on disk.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use crate::{
    Error, Result,
    directory::{Directory, Identity, remove},
    filter::Filter,
    packs::Packs,
    run::{Fault, OpenRun, read_footer, read_tables},
    table::{TABLE_ENTRY_BYTES, Table},
    write::{Opened, RunWriter, Written},
};

/// Part of the memory that filters may take; a merge builds another beside the one it replaces.
const FILTER_SHARE: usize = 4;
/// Part of the memory for the table that is filled; another is there while it is written.
const TABLE_SHARE: usize = 5;

/// How an index uses the machine.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Memory that tables, filters and buffers may take, bytes.
    pub memory_bytes: usize,
}

impl Default for Options {
    /// 64 MiB: full filters for 13 million chunks, about 800 GiB of distinct data.
    fn default() -> Self {
        Self { memory_bytes: 64 << 20 }
    }
}

/// The layers of one index.
pub(crate) struct Layers {
    pub(crate) directory: Directory,
    pub(crate) options: Options,
    pub(crate) shared: RwLock<Shared>,
    /// Held by the thread that writes a table to disk.
    spill: Mutex<()>,
    /// Held while the set of runs changes, in the directory and in `shared`.
    change: Mutex<()>,
    /// Runs that this process found damaged and dropped.
    pub(crate) dropped: AtomicU64,
}

/// What lookups go through.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) packs: Packs,
    pub(crate) table: Table,
    /// The table that is being written to disk.
    pub(crate) frozen: Option<Arc<Table>>,
    /// Largest first.
    pub(crate) runs: Arc<Vec<Filtered>>,
}

/// A run and its filter.
#[derive(Clone)]
pub(crate) struct Filtered {
    pub(crate) run: Arc<OpenRun>,
    pub(crate) filter: Arc<Filter>,
}

impl Layers {
    /// Opens the runs in `dir`; those that are damaged are removed.
    pub(crate) fn open(dir: &Path, options: Options) -> Result<Self> {
        let layers = Self {
            directory: Directory::open(dir)?,
            options,
            shared: RwLock::default(),
            spill: Mutex::new(()),
            change: Mutex::new(()),
            dropped: AtomicU64::new(0),
        };
        layers.refresh()?;
        Ok(layers)
    }

    /// Takes in what other processes have flushed and merged since.
    pub(crate) fn refresh(&self) -> Result<()> {
        let _change = self.change.lock();
        let _lock = self.directory.lock_for_listing()?;
        let held = self.runs();
        let (kept, gone): (Vec<_>, Vec<_>) = held.iter().partition(|held| held.run.identity.is_current());
        let mut footers = Vec::new();
        for path in self.directory.runs()? {
            if kept.iter().any(|held| held.run.identity.path() == path) {
                continue;
            }
            match File::open(&path) {
                Ok(file) => match read_footer(&file) {
                    Ok(footer) => footers.push((path, file, footer)),
                    Err(fault) => self.drop_file(&path, fault)?,
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(path, "open", error)),
            }
        }
        let total: u64 = kept
            .iter()
            .map(|held| held.run.entries)
            .chain(footers.iter().map(|(.., footer)| footer.entries))
            .sum();
        let mut opened = Vec::new();
        for (path, file, footer) in footers {
            match read_tables(&file, &footer, self.filter_bytes(footer.entries, total)) {
                Ok(tables) => opened.push(Opened {
                    identity: Identity::of(&path, &file)?,
                    file,
                    footer,
                    tables,
                }),
                Err(fault) => self.drop_file(&path, fault)?,
            }
        }
        let gone: Vec<Arc<OpenRun>> = gone.into_iter().map(|held| held.run.clone()).collect();
        self.install(opened, &gone, false);
        Ok(())
    }

    fn runs(&self) -> Arc<Vec<Filtered>> {
        self.shared.read().runs.clone()
    }

    /// Entries that the table may have.
    pub(crate) fn table_entries(&self) -> usize {
        self.options.memory_bytes / TABLE_SHARE / TABLE_ENTRY_BYTES
    }

    /// Bytes of filter for so many of all entries.
    pub(crate) fn filter_bytes(&self, entries: u64, total: u64) -> usize {
        let share = (self.options.memory_bytes / FILTER_SHARE) as u128 * u128::from(entries) / u128::from(total.max(1));
        share as usize
    }

    /// Returns true if something is in no run yet.
    pub(crate) fn is_unwritten(&self) -> bool {
        let shared = self.shared.read();
        shared.frozen.is_some() || !shared.table.is_empty()
    }

    /// Writes the table to a run if it is `due` once this thread's turn has come, after one that an earlier failure has left.
    pub(crate) fn spill(&self, due: &dyn Fn(&Table) -> bool) -> Result<()> {
        let _spill = self.spill.lock();
        let frozen = {
            let mut shared = self.shared.write();
            if shared.frozen.is_none() && due(&shared.table) {
                shared.frozen = Some(Arc::new(std::mem::take(&mut shared.table)));
            }
            shared.frozen.clone()
        };
        let Some(frozen) = frozen else { return Ok(()) };
        let written = self.write_table(&frozen)?;
        let _change = self.change.lock();
        let opened = written.map(Written::publish).transpose()?;
        self.install(opened.into_iter().collect(), &[], true);
        Ok(())
    }

    /// A run of the table's known packs, if it has any.
    fn write_table(&self, table: &Table) -> Result<Option<Written>> {
        let (numbers, packs, total) = {
            let shared = self.shared.read();
            let (mut numbers, mut packs) = (vec![u32::MAX; shared.packs.len()], Vec::new());
            for pack in table.packs() {
                if let (Some(info), Some(number)) = (shared.packs.get(*pack), numbers.get_mut(*pack as usize)) {
                    *number = packs.len() as u32;
                    packs.push(*info);
                }
            }
            (
                numbers,
                packs,
                shared.runs.iter().map(|held| held.run.entries).sum::<u64>(),
            )
        };
        if packs.is_empty() {
            return Ok(None);
        }
        let number = |pack: u32| numbers.get(pack as usize).copied().filter(|number| *number != u32::MAX);
        let positions = table.sorted(|pack| number(pack).is_some());
        let entries = positions.len() as u64;
        let mut writer = RunWriter::new(
            self.directory.draft()?,
            entries,
            self.filter_bytes(entries, total + entries),
        );
        for position in positions {
            if let Some(entry) = table.entry(position)
                && let Some(number) = number(entry.pack())
            {
                writer.push(&entry.in_pack(number))?;
            }
        }
        writer.finish(packs).map(Some)
    }

    /// Lets a run appear in the place of others, for all processes.
    pub(crate) fn replace(&self, written: Option<Written>, old: &[Arc<OpenRun>]) -> Result<()> {
        let _change = self.change.lock();
        let _lock = self.directory.lock_for_replacing()?;
        let opened = written.map(Written::publish).transpose()?;
        let removed = old.iter().try_for_each(|run| remove(run.identity.path()));
        self.install(opened.into_iter().collect(), old, false);
        removed
    }

    /// Adds runs and then removes others, and the frozen table if it `was_frozen`, from what this process looks at.
    fn install(&self, opened: Vec<Opened>, gone: &[Arc<OpenRun>], was_frozen: bool) {
        let mut shared = self.shared.write();
        let Shared {
            packs, frozen, runs, ..
        } = &mut *shared;
        let mut now: Vec<Filtered> = Vec::clone(runs);
        for opened in opened {
            let (run, filter) = opened.number(|info| packs.add(info));
            now.push(Filtered {
                run: Arc::new(run),
                filter: Arc::new(filter),
            });
        }
        now.retain(|held| {
            let stays = !gone.iter().any(|run| Arc::ptr_eq(run, &held.run));
            if !stays {
                held.run.packs.iter().for_each(|number| packs.remove(*number));
            }
            stays
        });
        if was_frozen && let Some(table) = frozen.take() {
            table.packs().iter().for_each(|number| packs.remove(*number));
        }
        now.sort_by_key(|held| std::cmp::Reverse(held.run.entries));
        if now.iter().map(|held| held.filter.bytes()).sum::<usize>() > self.options.memory_bytes / FILTER_SHARE {
            let total = now.iter().map(|held| held.run.entries).sum();
            for held in &mut now {
                let limit_bytes = self.filter_bytes(held.run.entries, total);
                Arc::make_mut(&mut held.filter).fit(held.run.entries, limit_bytes);
            }
        }
        *runs = Arc::new(now);
    }

    /// Drops a damaged run, for all processes; fails if it is not damage.
    pub(crate) fn drop_run(&self, run: &Arc<OpenRun>, fault: Fault) -> Result<()> {
        let _change = self.change.lock();
        if run.identity.is_current() {
            self.drop_file(run.identity.path(), fault)?;
        }
        self.install(Vec::new(), std::slice::from_ref(run), false);
        Ok(())
    }

    fn drop_file(&self, path: &Path, fault: Fault) -> Result<()> {
        match fault {
            Fault::Damaged => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                remove(path)
            }
            fault @ Fault::Io(_) => Err(fault.at(path)),
        }
    }
}
