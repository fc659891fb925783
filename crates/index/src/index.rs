//! The index: what is inserted, looked up and forgotten.
//!
//! - What was inserted is found at once by this process, and by others once it is in a run.
//! - Where it lies meanwhile is the layers' business (`layers.rs`); how runs become one, that of `merge.rs`.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use drystone_format::{ChunkId, PackId};

use crate::{
    Result,
    directory::{Directory, remove},
    entry::{Entry, Location, PackEntries, PackInfo, check},
    layers::{Filtered, Layers, Options, Shared},
    merge::Effort,
    packs::Packs,
    run::{Fault, OpenRun},
    table::Table,
    union::Union,
};

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
    layers: Layers,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("options", &self.layers.options)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index in `dir`, which is created if it does not exist.
    ///
    /// Runs that are torn or damaged are removed; their packs are unknown. Fails only where the file system does.
    pub fn open(dir: &Path, options: Options) -> Result<Self> {
        let layers = Layers::open(dir, options)?;
        Ok(Self { layers })
    }

    /// Removes all runs in `dir`. Processes that have them open keep what they know until they refresh.
    pub fn clear(dir: &Path) -> Result<()> {
        let directory = Directory::open(dir)?;
        let _lock = directory.lock_for_replacing()?;
        directory.runs()?.iter().try_for_each(|path| remove(path))
    }

    /// Takes in what other processes have flushed and merged since.
    pub fn refresh(&self) -> Result<()> {
        self.layers.refresh()
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
        let full =
            |table: &Table| !table.is_empty() && table.len() + entries.chunks.len() > self.layers.table_entries();
        while full(&self.layers.shared.read().table) {
            self.layers.spill(&full)?;
            self.layers.merge_runs(Effort::WhenMany)?;
        }
        let mut shared = self.layers.shared.write();
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
            let shared = self.layers.shared.read();
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
                    found = located(&self.layers.shared.read().packs, &entry.in_pack(*number));
                }
                found.is_some()
            });
            match outcome {
                Ok(_) if found.is_some() => return Ok(found),
                Ok(_) => {}
                Err(fault) => self.layers.drop_run(run, fault)?,
            }
        }
        Ok(None)
    }

    /// All known packs, in no order.
    pub fn packs(&self) -> Vec<PackInfo> {
        self.layers.shared.read().packs.iter().map(|(_, info)| *info).collect()
    }

    /// What is known of this pack.
    pub fn has_pack(&self, pack: &PackId) -> Option<PackInfo> {
        self.layers.shared.read().packs.find(pack).copied()
    }

    /// Forgets the packs that are not `live` and returns how many they were. Their chunks are no longer found by this
    /// process; they leave the disk when their runs are merged, so this is to be repeated after every open.
    ///
    /// List the vault's packs after opening or refreshing the index: what another process inserts in between is read again
    /// later, no more.
    pub fn retain(&self, live: &dyn Fn(&PackId) -> bool) -> Result<usize> {
        let known: Vec<(u32, PackId)> = {
            let shared = self.layers.shared.read();
            shared.packs.iter().map(|(number, info)| (number, info.pack)).collect()
        };
        let gone: Vec<u32> = known
            .into_iter()
            .filter(|(_, pack)| !live(pack))
            .map(|(number, _)| number)
            .collect();
        let mut shared = self.layers.shared.write();
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
        while self.layers.is_unwritten() {
            self.layers.spill(&|table| !table.is_empty())?;
        }
        self.layers.merge_runs(Effort::WhenMany)
    }

    /// Merges runs until they grow geometrically, and drops what belongs to forgotten packs from those it rewrites.
    /// Does nothing while another thread or process merges.
    pub fn merge(&self) -> Result<()> {
        self.layers.merge_runs(Effort::Geometric)
    }

    /// Current size.
    pub fn stats(&self) -> Stats {
        let shared = self.layers.shared.read();
        Stats {
            chunks: shared.packs.iter().map(|(_, info)| u64::from(info.chunk_count)).sum(),
            packs: shared.packs.iter().count() as u64,
            runs: shared.runs.len() as u64,
            disk_bytes: shared.runs.iter().map(|held| held.run.disk_bytes).sum(),
            dropped_runs: self.layers.dropped.load(Ordering::Relaxed),
        }
    }

    /// Runs that this process found damaged and dropped, as in [`Index::stats`], but cheap enough to ask after every miss.
    pub fn dropped_runs(&self) -> u64 {
        self.layers.dropped.load(Ordering::Relaxed)
    }

    /// Calls `each` for every location of every chunk in known packs, ordered by chunk id, after a flush.
    ///
    /// Memory: 64 KiB a run and 80 bytes a pack. [`crate::Error::Damaged`] means that a run was dropped on the way.
    pub fn scan(&self, each: &mut dyn FnMut(&ChunkId, &Location) -> ControlFlow<()>) -> Result<()> {
        self.flush()?;
        let mut union = {
            let shared = self.layers.shared.read();
            Union::new(shared.runs.iter().map(|held| held.run.clone()).collect(), &shared.packs)
        };
        let damaged = |(run, fault): (Arc<OpenRun>, Fault)| {
            let error = Fault::Damaged.at(run.identity.path());
            self.layers.drop_run(&run, fault).err().unwrap_or(error)
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
}
