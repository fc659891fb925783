//! The index: a table of late entries in front of sorted runs.
//!
//! - What was inserted is found at once by this process, and by others once it is in a run.
//! - Order of locks: `spill`, then `change`, then the directory's, then `shared`; `shared` is never held while reading a file.
//! - Runs are replaced by adding the new before removing the old, in memory as on disk.

use std::{
    fs::File,
    io,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use drystone_format::{ChunkId, PackId};
use parking_lot::{Mutex, RwLock};

use crate::{
    Error, Result,
    directory::{Directory, Identity, remove},
    entry::{Entry, Location, PackEntries, PackInfo, check},
    filter::Filter,
    packs::Packs,
    run::{Fault, Run, read_footer, read_tables},
    table::{TABLE_ENTRY_BYTES, Table},
    union::Union,
    write::{Opened, RunWriter, Written},
};

mod merge;

use merge::Effort;

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

/// Size of an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Chunks in known packs; one that lies in several packs counts several times.
    pub chunks: u64,
    /// Known packs.
    pub packs: u64,
    /// Runs.
    pub runs: u64,
    /// Bytes of all runs on disk.
    pub disk_bytes: u64,
    /// Runs that this process found damaged and dropped. Whoever sees it grow reads the packs anew that are no longer known.
    pub dropped_runs: u64,
}

/// Chunk id -> location, for one vault, in one directory. Shared by all threads of a process, and the directory by processes.
pub struct Index {
    directory: Directory,
    options: Options,
    shared: RwLock<Shared>,
    /// Held by the thread that writes a table to disk.
    spill: Mutex<()>,
    /// Held while the set of runs changes, in the directory and in `shared`.
    change: Mutex<()>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Shared {
    packs: Packs,
    table: Table,
    /// The table that is being written to disk.
    frozen: Option<Arc<Table>>,
    /// Largest first.
    runs: Arc<Vec<Filtered>>,
}

#[derive(Clone)]
struct Filtered {
    run: Arc<Run>,
    filter: Arc<Filter>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("options", &self.options)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index in `dir`, which is created if it does not exist.
    ///
    /// Runs that are torn or damaged are removed; their packs are unknown. Fails only where the file system does.
    pub fn open(dir: &Path, options: Options) -> Result<Self> {
        let index = Self {
            directory: Directory::open(dir)?,
            options,
            shared: RwLock::default(),
            spill: Mutex::new(()),
            change: Mutex::new(()),
            dropped: AtomicU64::new(0),
        };
        index.refresh()?;
        Ok(index)
    }

    /// Removes all runs in `dir`. Processes that have them open keep what they know until they refresh.
    pub fn clear(dir: &Path) -> Result<()> {
        let directory = Directory::open(dir)?;
        let _lock = directory.lock_for_replacing()?;
        directory.runs()?.iter().try_for_each(|path| remove(path))
    }

    /// Takes in what other processes have flushed and merged since.
    pub fn refresh(&self) -> Result<()> {
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
        let gone: Vec<Arc<Run>> = gone.into_iter().map(|held| held.run.clone()).collect();
        self.install(opened, &gone, false);
        Ok(())
    }

    /// Adds a pack. On return its chunks are found by this process; nothing is on disk before [`Index::flush`].
    ///
    /// A pack that is known already is left as it is. When the table is full, it is written to a run first, in this
    /// thread; if that fails, the pack is not added.
    pub fn insert(&self, entries: PackEntries) -> Result<()> {
        entries
            .chunks
            .iter()
            .try_for_each(|(_, span)| check(&entries.pack, span))?;
        let full = |table: &Table| !table.is_empty() && table.len() + entries.chunks.len() > self.table_entries();
        while full(&self.shared.read().table) {
            self.spill(&full)?;
            self.merge_runs(Effort::WhenMany)?;
        }
        let mut shared = self.shared.write();
        let Shared { packs, table, .. } = &mut *shared;
        if packs.find(&entries.pack).is_some() {
            return Ok(());
        }
        let (info, chunks) = entries.into_info();
        let number = packs.add(&info);
        packs.set_forgotten(number, false);
        if table.packs().contains(&number) {
            // Forgotten a moment ago, before it came to disk: its entries are here still.
            packs.remove(number);
        } else {
            let chunk_count = table.insert(number, &chunks);
            packs.set_chunk_count(number, chunk_count);
        }
        Ok(())
    }

    /// Where the chunk lies, in any known pack.
    pub fn get(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.get_where(id, &|_| true)
    }

    /// Whether the chunk lies in any known pack.
    pub fn contains(&self, id: &ChunkId) -> Result<bool> {
        Ok(self.get(id)?.is_some())
    }

    /// Where the chunk lies, in a known pack that is `wanted`; which must not call the index.
    pub fn get_where(&self, id: &ChunkId, wanted: &dyn Fn(&PackInfo) -> bool) -> Result<Option<Location>> {
        let located = |packs: &Packs, entry: &Entry| {
            let info = packs.get(entry.pack()).filter(|info| wanted(info))?;
            Some(entry.span().at(info.pack))
        };
        let runs = {
            let shared = self.shared.read();
            for table in [Some(&shared.table), shared.frozen.as_deref()].into_iter().flatten() {
                let mut found = None;
                table.find(id, |entry| {
                    found = located(&shared.packs, entry);
                    found.is_some()
                });
                if found.is_some() {
                    return Ok(found);
                }
            }
            if !shared.runs.iter().any(|held| held.filter.may_hold(id)) {
                return Ok(None);
            }
            shared.runs.clone()
        };
        for Filtered { run, filter } in runs.iter() {
            if !filter.may_hold(id) {
                continue;
            }
            let mut found = None;
            let outcome = run.find(id, &mut |entry| {
                if let Some(number) = run.packs.get(entry.pack() as usize) {
                    found = located(&self.shared.read().packs, &entry.in_pack(*number));
                }
                found.is_some()
            });
            match outcome {
                Ok(_) if found.is_some() => return Ok(found),
                Ok(_) => {}
                Err(fault) => self.drop_run(run, fault)?,
            }
        }
        Ok(None)
    }

    /// All known packs, in no order.
    pub fn packs(&self) -> Vec<PackInfo> {
        self.shared.read().packs.iter().map(|(_, info)| *info).collect()
    }

    /// What is known of this pack.
    pub fn has_pack(&self, pack: &PackId) -> Option<PackInfo> {
        self.shared.read().packs.find(pack).copied()
    }

    /// Forgets the packs that are not `live` and returns how many they were. Their chunks are no longer found by this
    /// process; they leave the disk when their runs are merged, so this is to be repeated after every open.
    ///
    /// List the vault's packs after opening or refreshing the index: what another process inserts in between is read again
    /// later, no more.
    pub fn retain(&self, live: &dyn Fn(&PackId) -> bool) -> Result<usize> {
        let known: Vec<(u32, PackId)> = {
            let shared = self.shared.read();
            shared.packs.iter().map(|(number, info)| (number, info.pack)).collect()
        };
        let gone: Vec<u32> = known
            .into_iter()
            .filter(|(_, pack)| !live(pack))
            .map(|(number, _)| number)
            .collect();
        let mut shared = self.shared.write();
        for number in &gone {
            shared.packs.set_forgotten(*number, true);
        }
        Ok(gone.len())
    }

    /// Writes what was inserted to a run, and merges runs if there are too many.
    ///
    /// Other processes see the run at once and it survives the end of this one. It is not synced: a power cut may lose
    /// or tear it, which is noticed and costs reading its packs again.
    pub fn flush(&self) -> Result<()> {
        while self.is_unwritten() {
            self.spill(&|table| !table.is_empty())?;
        }
        self.merge_runs(Effort::WhenMany)
    }

    /// Merges runs until they grow geometrically, and drops what belongs to forgotten packs from those it rewrites.
    /// Does nothing while another thread or process merges.
    pub fn merge(&self) -> Result<()> {
        self.merge_runs(Effort::Geometric)
    }

    /// Current size.
    pub fn stats(&self) -> Stats {
        let shared = self.shared.read();
        Stats {
            chunks: shared.packs.iter().map(|(_, info)| u64::from(info.chunk_count)).sum(),
            packs: shared.packs.iter().count() as u64,
            runs: shared.runs.len() as u64,
            disk_bytes: shared.runs.iter().map(|held| held.run.disk_bytes).sum(),
            dropped_runs: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// Runs that this process found damaged and dropped, as in [`Index::stats`], but cheap enough to ask after every miss.
    pub fn dropped_runs(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Calls `each` for every location of every chunk in known packs, ordered by chunk id, after a flush.
    ///
    /// Memory: 64 KiB a run and 80 bytes a pack. [`Error::Damaged`] means that a run was dropped on the way.
    pub fn scan(&self, each: &mut dyn FnMut(&ChunkId, &Location) -> ControlFlow<()>) -> Result<()> {
        self.flush()?;
        let mut union = {
            let shared = self.shared.read();
            Union::new(shared.runs.iter().map(|held| held.run.clone()).collect(), &shared.packs)
        };
        let damaged = |(run, fault): (Arc<Run>, Fault)| {
            let error = Fault::Damaged.at(run.identity.path());
            self.drop_run(&run, fault).err().unwrap_or(error)
        };
        union.start().map_err(damaged)?;
        while let Some(entry) = union.next().map_err(damaged)? {
            if let Some(info) = union.packs.get(entry.pack() as usize)
                && each(&entry.id(), &entry.span().at(info.pack)).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn runs(&self) -> Arc<Vec<Filtered>> {
        self.shared.read().runs.clone()
    }

    fn table_entries(&self) -> usize {
        self.options.memory_bytes / TABLE_SHARE / TABLE_ENTRY_BYTES
    }

    /// Bytes of filter for so many of all entries.
    fn filter_bytes(&self, entries: u64, total: u64) -> usize {
        let share = (self.options.memory_bytes / FILTER_SHARE) as u128 * u128::from(entries) / u128::from(total.max(1));
        share as usize
    }

    fn is_unwritten(&self) -> bool {
        let shared = self.shared.read();
        shared.frozen.is_some() || !shared.table.is_empty()
    }

    /// Writes the table to a run if it is `due` once this thread's turn has come, after one that an earlier failure has left.
    fn spill(&self, due: &dyn Fn(&Table) -> bool) -> Result<()> {
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
    fn replace(&self, written: Option<Written>, old: &[Arc<Run>]) -> Result<()> {
        let _change = self.change.lock();
        let _lock = self.directory.lock_for_replacing()?;
        let opened = written.map(Written::publish).transpose()?;
        let removed = old.iter().try_for_each(|run| remove(run.identity.path()));
        self.install(opened.into_iter().collect(), old, false);
        removed
    }

    /// Adds runs and then removes others, and the frozen table if it `was_frozen`, from what this process looks at.
    fn install(&self, opened: Vec<Opened>, gone: &[Arc<Run>], was_frozen: bool) {
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
    fn drop_run(&self, run: &Arc<Run>, fault: Fault) -> Result<()> {
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
