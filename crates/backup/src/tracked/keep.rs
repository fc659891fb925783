//! Writing down, after the snapshot is published, how far a run looked.
//!
//! - First what is kept is said to be in the making, then rows are removed and written, then the file system is marked, and only
//!   then is it whole: a run that is killed in between costs the next one a walk.

use std::sync::Arc;

use drystone_index::State;

use super::memory::{Memory, Seen};
use super::{Row, Tracked, Tracker, maps_of};
use crate::cache::Key;
use crate::cache::journal::Journal;
use crate::error::Result;
use crate::report::Distrust;

/// Subvolumes that are remembered.
const REMEMBERED_MAX: usize = 1024;

impl Tracker {
    /// Why what was there was looked at all the same.
    pub(crate) fn told(&self) -> Vec<Distrust> {
        self.told.lock().clone()
    }

    /// Keeps the rows of directories, in `rows` by the numbers of their subvolumes, and what they are true for.
    ///
    /// `dirs` is how many directories there were in all.
    pub(crate) fn keep(&self, state: &State, rows: Journal, epoch: u64, dirs: u64) -> Result<()> {
        let all = self.known.read().tracked.clone();
        if all.is_empty() {
            return Ok(());
        }
        let open = Memory {
            is_open: true,
            ..self.memory.clone()
        };
        let open = open.encode();
        if !state.replace(&self.state_key, self.before.as_deref(), &open)? {
            // Another run over the same sources was faster; what it keeps is as true.
            return Ok(());
        }
        for tracked in &all {
            tracked.remove_rows(state)?;
            tracked.remove_maps(state)?;
        }
        let both = |tracked: &Arc<Tracked>| [tracked.now.rows, tracked.maps()];
        let keys: Vec<Key> = all.iter().flat_map(both).collect();
        rows.add_all(state, epoch, &keys)?;
        let now = self.now(&all, dirs);
        for old in &self.memory.subvolumes {
            if now.subvolumes.iter().any(|seen| seen.rows == old.rows) {
                continue;
            }
            for unused in [old.rows, maps_of(&old.rows)] {
                let mut writer = state.writer(unused)?;
                writer.sweep(&state.seen(&unused)?)?;
                writer.finish()?;
            }
        }
        if all
            .iter()
            .all(|tracked| tracked.home.set_token(&self.name, &self.run).is_ok())
        {
            state.replace(&self.state_key, Some(&open), &now.encode())?;
        }
        Ok(())
    }

    fn now(&self, all: &[Arc<Tracked>], dirs: u64) -> Memory {
        let mut subvolumes: Vec<Seen> = all.iter().map(|tracked| tracked.now).collect();
        if self.distrust.is_none() && self.reads {
            // Such as were not mounted this time.
            let is_absent = |old: &&Seen| all.iter().all(|tracked| tracked.now.id != old.id);
            let absent = self.memory.subvolumes.iter().filter(is_absent);
            let absent: Vec<Seen> = absent.filter_map(|old| self.marked(old, all)).collect();
            subvolumes.extend(absent);
        }
        subvolumes.truncate(REMEMBERED_MAX);
        Memory {
            is_open: false,
            options: self.options,
            loss_epoch: self.loss_epoch,
            dirs,
            subvolumes,
        }
    }
}

impl Tracker {
    /// What is known of a subvolume that this run did not come to; its file system may have been marked anew for another one.
    fn marked(&self, old: &Seen, all: &[Arc<Tracked>]) -> Option<Seen> {
        let beside = all
            .iter()
            .find(|tracked| tracked.now.id.file_system == old.id.file_system);
        match beside {
            None => Some(*old),
            Some(beside) => beside.touched.as_ref().map(|_| Seen {
                token: self.run,
                ..*old
            }),
        }
    }
}

impl Tracked {
    /// Removes the rows of all directories in which something changed.
    fn remove_rows(&self, state: &State) -> Result<()> {
        let Some(touched) = &self.touched else { return Ok(()) };
        let mut writer = state.writer(self.now.rows)?;
        for inode in &touched.directories {
            writer.end_dir(&Row::key(*inode), 0)?;
        }
        Ok(writer.finish()?)
    }

    /// Removes the maps of files that are gone.
    fn remove_maps(&self, state: &State) -> Result<()> {
        if self
            .touched
            .as_ref()
            .is_none_or(|touched| touched.directories.is_empty())
        {
            return Ok(());
        }
        let maps = self.maps();
        let mut writer = state.writer(maps)?;
        for file in state.reader()?.dirs_of(&maps)? {
            let inode = u128::from_be_bytes(file) as u64;
            if matches!(self.fs.inode(self.snapshot_id, inode), Ok(None)) {
                writer.end_dir(&file, 0)?;
            }
        }
        Ok(writer.finish()?)
    }
}
