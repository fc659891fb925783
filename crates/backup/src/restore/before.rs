//! What directories of the target were like before a restore entered them, for those that stay as they were.
//!
//! - A directory that could not be filled as it was is opened for its owner, and gets its mode back when it is left: at the
//!   end, after errors, and when the restore is stopped.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use drystone_format::tree::Time;
use parking_lot::Mutex;
use rustix::fs::{Mode, Stat, fchmod, fstat};
use rustix::io::Result;

use super::dir::{Dir, OpenDirs};
use crate::apply::{Now, Place};

/// The attributes of a directory that are given back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    mode: u32,
    /// None if its time may be that of what was put into it.
    mtime: Option<Time>,
}

impl Before {
    /// Mode and time.
    pub(crate) fn all(stat: &Stat) -> Self {
        let Now { mode, mtime, .. } = Now::of(stat);
        Self { mode, mtime }
    }

    /// The mode alone.
    pub(crate) fn mode(stat: &Stat) -> Self {
        Self {
            mtime: None,
            ..Self::all(stat)
        }
    }

    /// Makes the directory what it was.
    pub(crate) fn give_back(self, fd: BorrowedFd<'_>) -> Result<()> {
        let now = Now::of(&fstat(fd)?);
        if let Some(time) = self.mtime.filter(|time| now.mtime != Some(*time)) {
            Place::Open(fd).set_mtime(time)?;
        }
        if now.mode != self.mode {
            fchmod(fd, Mode::from_raw_mode(self.mode))?;
        }
        Ok(())
    }
}

/// The directories that are entered and stay as they were, in the order in which they were entered.
#[derive(Default)]
pub(crate) struct Befores(Mutex<BTreeMap<u64, (Arc<Dir>, Before)>>);

impl Befores {
    /// Remembers one, under a number.
    pub(crate) fn note(&self, dir: &Arc<Dir>, before: Before) -> u64 {
        let mut befores = self.0.lock();
        let number = befores.last_key_value().map_or(0, |(last, _)| last + 1);
        befores.insert(number, (dir.clone(), before));
        number
    }

    /// Takes one back.
    pub(crate) fn take(&self, number: u64) -> Option<Before> {
        self.0.lock().remove(&number).map(|(_, before)| before)
    }

    /// Gives back what is left of a run that was stopped; the innermost first, since the way to them leads through the others.
    pub(crate) fn give_back_all(&self, open: &OpenDirs) {
        let left = std::mem::take(&mut *self.0.lock());
        for (dir, before) in left.into_values().rev() {
            // The run has failed already, and what is not ours could not be changed before.
            let _ = open
                .fd(&dir)
                .and_then(|fd| before.give_back(std::os::fd::AsFd::as_fd(&fd)));
        }
    }
}
