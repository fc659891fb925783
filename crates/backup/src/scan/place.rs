//! Where a name is looked at: in the directory that is listed, in a snapshot's in its place, or beside the snapshot.
//!
//! - What a snapshot does not have, mounts and other subvolumes, is looked at where it is.

use std::cell::OnceCell;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::{Errno, Result};

use crate::local::dir::{Dir, Follow, Stat};
use crate::tracked::{NamesThere, Tracked, Tracker, is_home, is_placeholder};

/// A directory whose names are looked at.
pub(crate) struct Place<'a> {
    pub(crate) dir: &'a Dir,
    tracker: &'a Tracker,
    /// The subvolume, if the directory is that of a snapshot.
    tracked: Option<Arc<Tracked>>,
    /// Absolute.
    pub(crate) path: &'a [u8],
    /// What is mounted on names in it, and so not in the snapshot that it may be in.
    mounted: Option<NamesThere>,
    /// The directory itself, in the place of that of a snapshot.
    live: OnceCell<Arc<Dir>>,
    /// That of a snapshot, in the place of the directory itself.
    inside: OnceCell<Arc<Dir>>,
}

impl<'a> Place<'a> {
    pub(crate) fn new(tracker: &'a Tracker, dir: &'a Dir, path: &'a [u8]) -> Self {
        let tracked = tracker.of(dir);
        Self {
            dir,
            path,
            mounted: tracked.as_ref().and_then(|tracked| tracked.mounted_in(path)),
            tracker,
            tracked,
            live: OnceCell::new(),
            inside: OnceCell::new(),
        }
    }

    /// A file that is a source, as a snapshot has it, where there is one.
    pub(crate) fn look_inside(&self, name: &[u8], stat: Stat) -> (Stat, Option<Arc<Dir>>) {
        if !self.tracker.is_on() || self.dir.stand_in.is_some() || self.dir.stat.device != stat.device {
            return (stat, None);
        }
        let inside = match self.inside.get() {
            Some(inside) => inside,
            None => {
                let Ok(dir) = self.dir.open(b".") else {
                    return (stat, None);
                };
                self.inside.get_or_init(|| Arc::new(self.tracker.enter(dir, self.path)))
            }
        };
        match inside.look(name, Follow::No) {
            Ok(found) if inside.stand_in.is_some() && found.ino == stat.ino => (found, Some(inside.clone())),
            _ => (stat, None),
        }
    }

    /// Whether a symbolic link is at a name.
    pub(crate) fn is_link(&self, name: &[u8]) -> bool {
        let found = self.dir.look(name, Follow::No);
        found.is_ok_and(|stat| stat.kind == FileType::Symlink)
    }

    /// What is at a name; with the directory that it is in, if that is not the one that is listed.
    pub(crate) fn look(&self, name: &[u8], follow: Follow) -> Result<(Stat, Option<Arc<Dir>>)> {
        let found = self.dir.look(name, follow);
        let Some(tracked) = &self.tracked else {
            return Ok((found?, None));
        };
        let is_mounted = self.mounted.as_ref().is_some_and(|names| names.contains(name));
        // A link may lead out of the snapshot.
        let is_elsewhere = is_mounted || follow == Follow::Yes || found.as_ref().is_ok_and(is_placeholder);
        if !is_elsewhere || found.as_ref().is_ok_and(|stat| is_home(name, stat)) {
            return Ok((found?, None));
        }
        let live = match self.live.get() {
            Some(live) => live.clone(),
            // Not there any more: what it held elsewhere by now is in no snapshot, and that is worth a word.
            None => Arc::new(tracked.live(self.path).map_err(|_| Errno::STALE)?),
        };
        let live = self.live.get_or_init(|| live).clone();
        Ok((live.look(name, follow)?, Some(live)))
    }
}
