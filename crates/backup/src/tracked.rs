//! Subvolumes of Btrfs that are read through a snapshot made for the run, and asked what changed since the last one.
//!
//! - A snapshot is read in the place of its subvolume: paths, inodes and device numbers are those of the subvolume.
//! - What lies below it in other subvolumes and mounts is not in the snapshot and is read where it is.
//! - A directory is taken over from the last run only if nothing changed in or below it since, by the trees of the very snapshot
//!   that is read, and if it is certain that the file system, the vault and what was asked for are still the same.
//! - Whatever cannot be certain is looked at as if there had been no last run, and the report says why.

mod home;
mod keep;
mod map;
mod memory;
mod mounts;
mod name;
mod row;

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use drystone_extents::{
    Btrfs, Kind, Layout, Snapshot, Touched, changed_ranges, kind_of, mounts, shared_starts, subvolume,
};
use drystone_format::recipe::Part;
use drystone_index::{State, StateReader};
use drystone_vault::Vault;
use parking_lot::{Mutex, RwLock};
use rustix::fs::{CWD, Mode as FileMode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::cache::journal::Journal;
use crate::cache::slots::Slots;
use crate::cache::{Key, key};
use crate::error::Result;
use crate::local::dir::{Dir, StandIn, Stat};
use crate::options::{BackupOptions, Look, Mode, Parent};
use crate::report::Distrust;
use crate::scope::sources::Sources;
use home::{FIRST_INODE, Home};
use map::Kept;
use map::Map;
pub(crate) use map::{FILE_MIN_BYTES, PARTS_MAX};
use memory::{Identity, Memory, Seen};
use mounts::Mounts;
pub(crate) use mounts::NamesThere;
use name::{digest, name, state_key};
pub(crate) use row::{Row, Sum};

/// Subvolumes of one run that get a snapshot: each costs a commit of its file system.
const SUBVOLUMES_MAX: usize = 32;
/// Inodes that may have changed (some 50 MB of memory): with more, a walk costs hardly more than asking.
const CHANGED_MAX: usize = 1 << 20;
/// Number by which a snapshot knows the directory that another subvolume is in.
const PLACEHOLDER_INODE: u64 = 2;
/// Directories that the caches may hold beyond twice those that there are.
const CACHED_DIRS_SPARE: u64 = 10_000;

/// A subvolume that is read through a snapshot.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// What its directories are told apart by.
    stand_in: StandIn,
    fs: Btrfs,
    /// Removes itself in the end.
    _snapshot: Snapshot,
    snapshot_id: u64,
    home: Home,
    now: Seen,
    /// What changed since the last run; `None` if that is not known.
    touched: Option<Touched>,
    /// Whether the subvolume's device number is that of the last run.
    is_same_device: bool,
    /// Paths by which the run came to it, and what they are without links.
    ways: RwLock<Vec<(Vec<u8>, PathBuf)>>,
    mounts: RwLock<Mounts>,
}

impl Tracked {
    /// The snapshot's directory with this number.
    fn open(&self, inode: u64) -> Option<Dir> {
        let fd = self.fs.open_file(self.snapshot_id, inode).ok()?;
        Dir::new(fd, Some(self.stand_in))
            .ok()
            .filter(|dir| dir.stat.is_dir() && dir.stand_in.is_some())
    }

    fn add_way(&self, dir: &Dir, path: &[u8], all: &[PathBuf]) -> std::io::Result<()> {
        let real = std::fs::read_link(format!("/proc/self/fd/{}", dir.fd.as_raw_fd()))?;
        self.mounts.write().add(all, &real, path);
        self.ways.write().push((path.to_vec(), real));
        Ok(())
    }

    /// What is mounted on names of this directory.
    pub(crate) fn mounted_in(&self, path: &[u8]) -> Option<NamesThere> {
        self.mounts.read().names(path)
    }

    /// The directory of the subvolume itself at a path, for what is not in the snapshot.
    pub(crate) fn live(&self, path: &[u8]) -> rustix::io::Result<Dir> {
        let ways = self.ways.read();
        let is_below = |way: &[u8]| path.starts_with(way) && matches!(path.get(way.len()), None | Some(b'/'));
        let (way, real) = ways
            .iter()
            .filter(|(way, _)| is_below(way))
            .max_by_key(|(way, _)| way.len())
            .ok_or(Errno::NOENT)?;
        let real = [real.as_os_str().as_bytes(), path.get(way.len()..).unwrap_or_default()].concat();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = openat(CWD, c"/", flags, FileMode::empty())?;
        for name in real.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            at = openat(&at, name, flags, FileMode::empty())?;
        }
        Dir::new(at, None)
    }

    /// Where to look for the row of a directory that may be taken over as it was.
    pub(crate) fn row_of(&self, inode: u64, path: &Key) -> Option<(Key, Key)> {
        let touched = self.touched.as_ref()?;
        let is_same = !touched.directories.contains(&inode) && !self.mounts.read().is_above(path);
        is_same.then(|| (self.now.rows, Row::key(inode)))
    }

    /// Where a file lies; `None` if that says nothing about its content, or takes too much to say.
    pub(crate) fn layout(&self, inode: u64) -> Option<Layout> {
        // What cannot be asked is read.
        let about = self.fs.inode(self.snapshot_id, inode).ok()??;
        if about.is_written_in_place() {
            return None;
        }
        self.fs.layout(self.snapshot_id, inode, map::EXTENTS_MAX).ok()?
    }

    /// What a file was made of in the last run and where it may have changed since, if that is known.
    pub(crate) fn known<'a>(&self, reader: &'a StateReader, inode: u64, layout: &Layout) -> Option<Known<'a>> {
        self.touched.as_ref()?;
        let map = Map::open(Kept {
            reader,
            maps: self.maps(),
            file: Row::key(inode),
            epoch: None,
        })?;
        let starts = shared_starts(&map.layout, layout);
        // What cannot be asked is read.
        let same = self.fs.made_by(&starts, map.generation).unwrap_or_default();
        let changed = changed_ranges(&map.layout, layout, |start| same.contains(&start));
        Some(Known { map, changed })
    }

    /// Where in the state the maps of files are.
    fn maps(&self) -> Key {
        maps_of(&self.now.rows)
    }

    /// A map for the next run; `None` if the file is too large for one.
    pub(crate) fn new_map(&self, inode: u64, layout: &Layout, parts: &[Part]) -> Option<NewMap> {
        map::encode(layout, self.now.generation, parts).map(|pages| NewMap {
            tracked: self.stand_in.number,
            inode,
            pages,
        })
    }

    /// Whether a row is true for the directory at this path.
    pub(crate) fn holds(&self, row: &Row, path: &Key) -> bool {
        row.path == *path && (self.is_same_device || !row.sum.has_links)
    }
}

/// What is known of a large file from the last run.
pub(crate) struct Known<'a> {
    /// What it was made of.
    pub(crate) map: Map<Kept<'a>>,
    /// Offset and length of what lies elsewhere now, in order.
    pub(crate) changed: Vec<(u64, u64)>,
}

/// What a file is made of, to be kept.
pub(crate) struct NewMap {
    tracked: usize,
    inode: u64,
    pages: Vec<Vec<u8>>,
}

impl NewMap {
    /// Writes it down.
    pub(crate) fn keep(&self, journal: &mut Journal) -> Result<()> {
        let file = Row::key(self.inode);
        for (number, page) in (0..).zip(&self.pages) {
            journal.page(maps_slot(self.tracked), &file, number, page)?;
        }
        journal.end(maps_slot(self.tracked), &file, self.pages.len() as u32)
    }
}

/// Where in a journal the rows of a subvolume are, and the maps of its files.
pub(crate) fn rows_slot(number: usize) -> usize {
    2 * number
}

fn maps_slot(number: usize) -> usize {
    2 * number + 1
}

fn maps_of(rows: &Key) -> Key {
    key(&[b"maps", rows])
}

/// Whether a name that a snapshot has is the place of another subvolume.
pub(crate) fn is_placeholder(stat: &Stat) -> bool {
    stat.is_dir() && stat.ino == PLACEHOLDER_INODE
}

/// Whether this is where the snapshots lie that runs read.
pub(crate) fn is_home(name: &[u8], stat: &Stat) -> bool {
    name == home::NAME && stat.is_dir() && matches!(stat.ino, FIRST_INODE | PLACEHOLDER_INODE)
}

/// The subvolumes that a run has come to.
#[derive(Default)]
struct Subvolumes {
    /// The number of each by its device; none if it cannot be tracked.
    by_device: HashMap<u64, Option<usize>>,
    /// Those that are tracked, by number.
    tracked: Vec<Arc<Tracked>>,
}

impl Subvolumes {
    /// The one with this device; `None` if it is not known yet.
    fn of_device(&self, device: u64) -> Option<Option<Arc<Tracked>>> {
        let number = self.by_device.get(&device)?;
        Some(number.and_then(|number| self.tracked.get(number).cloned()))
    }
}

/// The tracked subvolumes of a run.
pub(crate) struct Tracker {
    is_on: bool,
    /// Key in the state, and name in the file system.
    state_key: String,
    name: Key,
    /// As it was kept, and what it says.
    before: Option<Vec<u8>>,
    memory: Memory,
    /// Why it is not to be trusted.
    distrust: Option<&'static str>,
    is_told: AtomicBool,
    reads: bool,
    options: Key,
    loss_epoch: u32,
    run: Key,
    known: RwLock<Subvolumes>,
    making: Mutex<()>,
    told: Mutex<Vec<Distrust>>,
    mounts: Vec<PathBuf>,
}

impl Tracker {
    /// The key in the state of a run over these sources.
    pub(crate) fn key(vault: &Vault, options: &BackupOptions, sources: &Sources) -> String {
        state_key(&name(vault, options, sources))
    }

    pub(crate) fn new(
        (vault, state): (&Vault, &State),
        options: &BackupOptions,
        sources: &Sources,
        loss_epoch: u32,
    ) -> Result<Self> {
        let is_on = options.look == Look::Changes && options.mode == Mode::Store && geteuid().is_root();
        let name = name(vault, options, sources);
        let state_key = state_key(&name);
        let before = if is_on { state.get(&state_key)? } else { None };
        let memory = before.as_deref().and_then(Memory::decode);
        let mut tracker = Self {
            is_on,
            state_key,
            name,
            distrust: None,
            is_told: AtomicBool::new(memory.is_none()),
            memory: memory.unwrap_or_default(),
            before,
            reads: options.parent == Parent::Cached,
            options: digest(options),
            loss_epoch,
            run: random_key(vault),
            known: RwLock::default(),
            making: Mutex::default(),
            told: Mutex::default(),
            mounts: if is_on { mount_points() } else { Vec::new() },
        };
        tracker.distrust = tracker.why_not(state, &Slots::new(&options.host, &sources.paths))?;
        Ok(tracker)
    }

    /// Whether anything is tracked.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    fn why_not(&self, state: &State, slots: &Slots) -> Result<Option<&'static str>> {
        let memory = &self.memory;
        if memory.is_open {
            return Ok(Some(
                "another run is writing down what it saw, or was killed while it did",
            ));
        }
        if memory.options != self.options {
            return Ok(Some(
                "last time other options, users or another version of the program were in use",
            ));
        }
        if memory.loss_epoch != self.loss_epoch {
            return Ok(Some("the vault has lost or removed something since the last time"));
        }
        let rows = memory.subvolumes.iter().map(|seen| &seen.rows);
        for kept in slots.keys.iter().chain(rows) {
            if state.dirs(kept)? > 2 * memory.dirs + CACHED_DIRS_SPARE {
                return Ok(Some(
                    "the cache holds twice as many directories as there are; this run tidies it",
                ));
            }
        }
        Ok(None)
    }

    /// The subvolume that a directory is read in the place of, if it is that of a snapshot.
    pub(crate) fn of(&self, dir: &Dir) -> Option<Arc<Tracked>> {
        let number = dir.stand_in?.number;
        self.known.read().tracked.get(number).cloned()
    }

    /// The directory as its subvolume's snapshot has it, if it is in one that can be tracked.
    pub(crate) fn enter(&self, dir: Dir, path: &[u8]) -> Dir {
        if !self.is_on || dir.stand_in.is_some() {
            return dir;
        }
        let Some(tracked) = self.tracked(&dir, path) else {
            return dir;
        };
        match tracked.open(dir.stat.ino) {
            Some(inside) if tracked.add_way(&dir, path, &self.mounts).is_ok() => inside,
            // Made since the snapshot: it is read where it is, and will be news to the next run.
            _ => dir,
        }
    }

    fn tracked(&self, dir: &Dir, path: &[u8]) -> Option<Arc<Tracked>> {
        if let Some(known) = self.known.read().of_device(dir.stat.device) {
            return known;
        }
        let _making = self.making.lock();
        if let Some(known) = self.known.read().of_device(dir.stat.device) {
            return known;
        }
        let number = self.known.read().tracked.len();
        let made = self.make(dir, path, number).unwrap_or_else(|why| {
            self.tell(path, why);
            None
        });
        let made = made.map(Arc::new);
        let mut known = self.known.write();
        known.by_device.insert(dir.stat.device, made.as_ref().map(|_| number));
        known.tracked.extend(made.clone());
        made
    }

    /// Notes a reason, once: what holds for one of many subvolumes may hold for them all.
    fn tell(&self, path: &[u8], why: impl Into<String>) {
        let (path, why) = (if path.is_empty() { b"/" } else { path }, why.into());
        let mut told = self.told.lock();
        if told.iter().all(|told| told.why != why) {
            let path = path.to_vec();
            told.push(Distrust { path, why });
        }
    }

    fn make(&self, dir: &Dir, path: &[u8], number: usize) -> std::result::Result<Option<Tracked>, String> {
        if !matches!(kind_of(&dir.fd), Ok(Kind::Btrfs)) {
            return Ok(None);
        }
        if number >= SUBVOLUMES_MAX {
            return Err(format!("no more than {SUBVOLUMES_MAX} subvolumes are asked in one run"));
        }
        let said = |error: drystone_extents::Error| error.to_string();
        let name = crate::error::shown(path);
        let mount = dir.fd.try_clone().map_err(|error| error.to_string())?;
        let fs = Btrfs::new(mount, name.clone()).map_err(said)?;
        let about = subvolume(dir.fd.as_fd(), &name).map_err(said)?;
        if matches!(
            fs.inode(about.id, FIRST_INODE),
            Err(drystone_extents::Error::NeedsRoot { .. })
        ) {
            // Root of a container.
            return Ok(None);
        }
        let home = Home::open(&fs)?;
        let root = fs.open_file(about.id, FIRST_INODE).map_err(said)?;
        let run = u128::from_be_bytes(self.run);
        let snapshot = home.snapshot(root.as_fd(), &format!("{run:032x}-{}", about.id))?;
        let inside = subvolume(snapshot.root(), "the snapshot").map_err(said)?;
        let id = Identity {
            file_system: fs.info().fsid,
            subvolume: about.uuid,
        };
        let (last, touched) = self.touched(&fs, &home, (inside.id, inside.made), (&id, path))?;
        let device = Stat::of(snapshot.root()).map_err(|error| error.to_string())?.device;
        let rows = match (last, &touched) {
            (Some(last), Some(_)) => last.rows,
            _ => key(&[&self.run, &about.uuid]),
        };
        Ok(Some(Tracked {
            stand_in: StandIn {
                number,
                snapshot_device: device,
                device: dir.stat.device,
            },
            snapshot_id: inside.id,
            now: Seen {
                id,
                generation: inside.made,
                device: dir.stat.device,
                token: self.run,
                rows,
            },
            is_same_device: last.is_some_and(|last| last.device == dir.stat.device),
            fs,
            _snapshot: snapshot,
            home,
            touched,
            ways: RwLock::default(),
            mounts: RwLock::default(),
        }))
    }

    /// What is known of the subvolume, and what changed in it since; `None` if that cannot be trusted.
    fn touched(
        &self,
        fs: &Btrfs,
        home: &Home,
        (snapshot, generation): (u64, u64),
        (id, path): (&Identity, &[u8]),
    ) -> std::result::Result<(Option<&Seen>, Option<Touched>), String> {
        if !self.reads {
            return Ok((None, None));
        }
        if let Some(why) = self.distrust {
            if !self.is_told.swap(true, Ordering::Relaxed) {
                self.tell(path, why);
            }
            return Ok((None, None));
        }
        let Some(last) = self.memory.of(id) else {
            self.tell(path, "this subvolume was not there the last time");
            return Ok((None, None));
        };
        if last.generation > generation || home.token(&self.name) != Some(last.token) {
            self.tell(
                path,
                "the file system was set back, or is a copy: it is not what the last run left",
            );
            return Ok((None, None));
        }
        let touched = fs.touched(snapshot, last.generation + 1, CHANGED_MAX);
        let touched = touched.map_err(|error| error.to_string())?;
        if touched.is_none() {
            self.tell(path, format!("more than {CHANGED_MAX} files changed"));
        }
        Ok((Some(last), touched))
    }
}

fn mount_points() -> Vec<PathBuf> {
    let all = mounts().unwrap_or_default();
    all.into_iter().map(|mount| mount.path).collect()
}

fn random_key(vault: &Vault) -> Key {
    let mut key = Key::default();
    vault.context().entropy.fill(&mut key);
    key
}
