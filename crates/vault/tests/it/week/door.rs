//! The door: a handle that stays open over a volume of files, which commits, edits, reads and starts again.
//!
//! - Each commit publishes one snapshot of the whole volume; what a commit does not touch keeps its recipe.
//! - A commit is acknowledged when `publish` has returned, and not before. From then on the model has it.
//! - Threads read ranges of what was acknowledged while commits go on. An edit reads old bytes from the vault, as a mounted volume does.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use drystone_format::RootId;
use drystone_format::recipe::Recipe;
use drystone_format::root::RootKind;
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::{Kind, Time};
use drystone_vault::{
    Clock, Commit, Connect, Context, EditOptions, Edited, Error, FileReader, FillError, Handle, Lane, OldRecipe, Reach,
    Reliance, Stretch, Unlock, Vault, WriterOptions,
};
use parking_lot::Mutex;

use super::files::{Bytes, Change, DIRS, Files, choices, dir_of, seen, stretches};
use crate::support::{entry, snapshot};

/// The file that slow commits write, beyond all others.
const SLOW_FILE: u64 = 1000;
/// Threads that read.
const READERS: usize = 3;
/// A thousand commits an hour.
const COMMIT_MS: i64 = 3600;
/// The handle refreshes by itself after five minutes; so many commits.
const REFRESH_COMMITS: u64 = 83;
/// How often a commit is tried. A door whose work is given up does it again.
const TRIES: u32 = 5;
/// When the vaults of these tests are made, seconds.
const BEGIN_SECONDS: i64 = 1_700_000_000;

/// Time that passes by commits alone.
#[derive(Default)]
pub(super) struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Time {
        let ms = self.0.load(Ordering::SeqCst);
        Time {
            seconds: BEGIN_SECONDS + ms / 1000,
            nanos: (ms % 1000 * 1_000_000) as u32,
        }
    }
}

impl Ticking {
    /// It is as late as it is at this commit.
    pub(super) fn set(&self, number: u64) {
        self.0.fetch_max(number as i64 * COMMIT_MS, Ordering::SeqCst);
    }
}

/// How a machine opens the vault.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) connect: Arc<dyn Connect>,
    pub(super) urls: Vec<String>,
    pub(super) context: Context,
    pub(super) key: String,
}

impl Machine {
    fn reach(&self) -> Reach {
        Reach::open(&self.urls, self.connect.clone()).unwrap()
    }

    fn unlock(&self) -> Unlock {
        Unlock::key_file(&self.key, "test", None).unwrap()
    }

    pub(super) fn open(&self) -> Vault {
        Vault::open(self.reach(), self.context.clone(), &self.unlock()).unwrap()
    }

    fn handle(&self) -> Handle {
        Handle::open(
            self.reach(),
            self.context.clone(),
            &self.unlock(),
            WriterOptions::default(),
        )
        .unwrap()
    }
}

/// What was acknowledged and not forgotten: snapshots, and the files of each.
pub(super) type History = BTreeMap<RootId, Files>;

/// A range to be read, and what is there.
struct Read {
    file: u64,
    bytes: Arc<Bytes>,
    recipe: Recipe,
    range: Range<usize>,
}

/// What the threads of a door share.
#[derive(Default)]
struct Shared {
    current: Mutex<Files>,
    failures: Mutex<Vec<String>>,
    reads: AtomicI64,
}

/// The door while it is open.
struct Open {
    handle: Arc<Handle>,
    wanted: SyncSender<Read>,
    readers: Vec<JoinHandle<()>>,
}

/// What the door knows of its volume between commits.
#[derive(Default, Clone)]
struct Volume {
    files: Files,
    recipes: BTreeMap<u64, Recipe>,
    dirs: BTreeMap<u64, Recipe>,
}

pub(super) struct Door {
    seed: u64,
    /// Number of the next commit.
    pub(super) number: u64,
    pub(super) clock: Arc<Ticking>,
    volume: Volume,
    shared: Arc<Shared>,
    open: Option<Open>,
    /// Everything that was acknowledged; what is forgotten is removed from outside.
    pub(super) history: History,
    /// Commits that were done again.
    pub(super) again: u64,
}

impl Door {
    /// Opens the volume as it was after so many commits, of which the last one published `root`.
    pub(super) fn open(machine: &Machine, clock: Arc<Ticking>, seed: u64, last: Option<(u64, RootId)>) -> Self {
        let number = last.map_or(0, |(number, _)| number + 1);
        clock.set(number);
        let mut door = Self {
            seed,
            number,
            clock,
            volume: Volume::default(),
            shared: Arc::default(),
            open: None,
            history: History::new(),
            again: 0,
        };
        door.reopen(machine);
        door.volume.files = Files::after(seed, number);
        if let Some((_, root)) = last {
            (door.volume.dirs, door.volume.recipes) = read_volume(&door.handle().vault(), &root);
        }
        door
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.open.as_ref().unwrap().handle
    }

    pub(super) fn files(&self) -> &Files {
        &self.volume.files
    }

    /// Ranges that were read by now.
    pub(super) fn reads(&self) -> i64 {
        self.shared.reads.load(Ordering::SeqCst)
    }

    /// Closes the door: its handle is dropped once its threads have ended.
    pub(super) fn close(&mut self) {
        let Some(Open {
            handle,
            wanted,
            readers,
        }) = self.open.take()
        else {
            return;
        };
        drop(wanted);
        for reader in readers {
            reader.join().unwrap();
        }
        drop(Arc::into_inner(handle).unwrap());
        self.assert_sound();
    }

    /// Closes the door and opens it again.
    pub(super) fn reopen(&mut self, machine: &Machine) {
        self.close();
        let handle = Arc::new(machine.handle());
        let (wanted, ranges) = sync_channel(32);
        let ranges = Arc::new(Mutex::new(ranges));
        let readers = (0..READERS).map(|_| {
            let (handle, ranges, shared) = (handle.clone(), ranges.clone(), self.shared.clone());
            std::thread::spawn(move || read_all(&handle, &ranges, &shared))
        });
        self.open = Some(Open {
            readers: readers.collect(),
            handle,
            wanted,
        });
    }

    /// Fails if a thread has read what is wrong.
    pub(super) fn assert_sound(&self) {
        let failures = self.shared.failures.lock();
        assert!(
            failures.is_empty(),
            "seed {}, before commit {}: {failures:#?}",
            self.seed,
            self.number
        );
    }

    /// Makes the next commit, has ranges read meanwhile, and remembers the commit once it is acknowledged.
    pub(super) fn commit(&mut self) -> RootId {
        self.clock.set(self.number);
        let changes = self.volume.files.changes(self.seed, self.number);
        self.want_reads();
        let mut outcome = self.commit_once(&changes);
        for _ in 1..TRIES {
            // Given up over and over, or what it relied on went with it.
            if !matches!(outcome, Err(Error::GivenUp { .. } | Error::MissingChunk { .. })) {
                break;
            }
            self.again += 1;
            outcome = self.commit_once(&changes);
        }
        let (root, volume) =
            outcome.unwrap_or_else(|error| panic!("seed {}, commit {}: {error}", self.seed, self.number));
        self.acknowledge(root, volume);
        self.number += 1;
        if self.number.is_multiple_of(REFRESH_COMMITS) {
            self.handle().refresh().unwrap();
        }
        self.assert_sound();
        root
    }

    /// From now on this is what must be there.
    fn acknowledge(&mut self, root: RootId, volume: Volume) {
        self.volume = volume;
        self.history.insert(root, self.volume.files.clone());
        *self.shared.current.lock() = self.volume.files.clone();
    }

    /// Asks for two ranges of what was acknowledged.
    fn want_reads(&self) {
        let mut choices = choices(!self.seed, self.number);
        for _ in 0..2 {
            let at = self.volume.files.0.range(choices.below(400)..).next();
            let Some((file, bytes)) = at else { continue };
            let offset = choices.below(bytes.len() as u64 + 10) as usize;
            let read = Read {
                file: *file,
                bytes: bytes.clone(),
                recipe: self.volume.recipes[file].clone(),
                range: offset..offset + 1 + choices.below(9000) as usize,
            };
            self.open.as_ref().unwrap().wanted.send(read).unwrap();
        }
    }

    /// Makes a commit with these changes, which follow from no seed.
    pub(super) fn commit_changes(&mut self, changes: &BTreeMap<u64, Change>) -> drystone_vault::Result<()> {
        let (root, volume) = self.commit_once(changes)?;
        self.acknowledge(root, volume);
        Ok(())
    }

    /// Makes a commit that stores a file again which is garbage by now, and that is under way while something else happens.
    pub(super) fn commit_slowly(&mut self, again: Arc<Bytes>, meanwhile: impl FnOnce()) {
        let changes = BTreeMap::from([(SLOW_FILE, Change::Write(again))]);
        self.clock.set(self.number);
        let (commit, snapshot, volume) = self.prepare(&changes).unwrap();
        meanwhile();
        let root = commit.publish(RootKind::SNAPSHOT, &snapshot.encode()).unwrap();
        self.acknowledge(root, volume);
    }

    /// Returns the root and the volume, once the root is acknowledged.
    fn commit_once(&self, changes: &BTreeMap<u64, Change>) -> drystone_vault::Result<(RootId, Volume)> {
        let (commit, snapshot, volume) = self.prepare(changes)?;
        Ok((commit.publish(RootKind::SNAPSHOT, &snapshot.encode())?, volume))
    }

    /// Stores what a commit changes; nothing is acknowledged yet.
    fn prepare(&self, changes: &BTreeMap<u64, Change>) -> drystone_vault::Result<(Commit, Snapshot, Volume)> {
        let handle = self.handle();
        let commit = handle.commit()?;
        let (mut lane, mut volume) = (commit.lane(), self.volume.clone());
        for (file, change) in changes {
            let recipe = match change {
                Change::Delete => None,
                Change::Write(bytes) => Some(write(&mut lane, bytes)?),
                Change::Edit(bytes, edits) => Some(self.edit(&mut lane, (bytes, edits), &self.volume.recipes[file])?),
            };
            match recipe {
                Some(recipe) => volume.recipes.insert(*file, recipe),
                None => volume.recipes.remove(file),
            };
        }
        volume.files.apply(changes);
        let touched = changes.keys().map(|file| dir_of(*file));
        for dir in touched {
            let recipe = store_dir(&commit, &mut lane, &volume, dir)?;
            volume.dirs.insert(dir, recipe);
        }
        rely_on_rest(&commit, &volume, changes);
        let mut top = commit.tree();
        for (dir, recipe) in &volume.dirs {
            top.push(
                &mut lane,
                &entry(&format!("dir{dir:02}"), Kind::Dir(recipe.clone())).encode(),
            )?;
        }
        let mut snapshot = snapshot(top.finish(&mut lane)?);
        lane.finish()?;
        (snapshot.started, snapshot.finished) = (self.clock.now(), self.clock.now());
        Ok((commit, snapshot, volume))
    }

    fn edit(
        &self,
        lane: &mut Lane,
        (bytes, edits): (&Bytes, &[Range<u64>]),
        old: &Recipe,
    ) -> drystone_vault::Result<Recipe> {
        let reader = self.handle().reader()?;
        let mut now = Dirty {
            bytes,
            stretches: stretches(bytes),
            edits,
            old: reader.file(old)?,
        };
        let options = EditOptions {
            reliance: Reliance::SinceLoss(self.handle().vault().loss_epoch()?),
            keep_parts: None,
        };
        let edited = lane.edit(&mut OldRecipe::new(reader, old), &mut now, options);
        match edited {
            Ok(report) => Ok(report.recipe),
            Err(FillError::Vault(error)) => Err(error),
            Err(FillError::Read(error)) => panic!("{error}"),
        }
    }
}

fn write(lane: &mut Lane, bytes: &Bytes) -> drystone_vault::Result<Recipe> {
    let mut content = lane.content();
    for run in bytes.chunk_by(|one, two| one.is_some() == two.is_some()) {
        match run[0] {
            Some(_) => content.write(&seen(run))?,
            None => content.hole(run.len() as u64)?,
        }
    }
    content.finish()
}

fn store_dir(commit: &Commit, lane: &mut Lane, volume: &Volume, dir: u64) -> drystone_vault::Result<Recipe> {
    let mut tree = commit.tree();
    for (file, recipe) in volume.recipes.iter().filter(|(file, _)| dir_of(**file) == dir) {
        let kind = Kind::File(recipe.clone());
        tree.push(lane, &entry(&format!("file{file:04}"), kind).encode())?;
    }
    tree.finish(lane)
}

/// The commit relies on everything that it takes over from the last one as well.
fn rely_on_rest(commit: &Commit, volume: &Volume, changes: &BTreeMap<u64, Change>) {
    let files = volume.recipes.iter().filter(|(file, _)| !changes.contains_key(file));
    files.for_each(|(_, recipe)| commit.rely_on(recipe));
    let touched = |dir: &u64| changes.keys().any(|file| dir_of(*file) == *dir);
    let dirs = volume.dirs.iter().filter(|(dir, _)| !touched(dir));
    dirs.for_each(|(_, recipe)| commit.rely_on(recipe));
}

/// A file as a mounted volume has it: what was written lately in memory, the rest in the vault.
struct Dirty<'a> {
    bytes: &'a Bytes,
    stretches: Vec<Stretch>,
    edits: &'a [Range<u64>],
    old: FileReader,
}

impl Edited for Dirty<'_> {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn edit(&mut self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok(self.edits.iter().find(|edit| edit.end > offset).cloned())
    }

    fn stretch(&mut self, offset: u64) -> io::Result<Stretch> {
        let ends = |stretch: &Stretch| match stretch {
            Stretch::Data(end) | Stretch::Hole(end) => *end,
        };
        let found = self.stretches.iter().find(|stretch| ends(stretch) > offset);
        found.copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn read_at(&mut self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
        let at = offset as usize;
        let count = room.len().min(self.bytes.len() - at);
        let room = &mut room[..count];
        let old = self.old.read_at(offset, room).map_err(io::Error::other)?;
        // Beyond the old end, and where it was changed, memory has it.
        let written = self.edits.iter().map(|edit| edit.start as usize..edit.end as usize);
        for range in written.chain(std::iter::once(at + old..at + count)) {
            for place in range.start.max(at)..range.end.min(at + count) {
                room[place - at] = self.bytes[place].unwrap_or(0);
            }
        }
        Ok(count)
    }
}

/// Reads ranges until the door closes.
fn read_all(handle: &Handle, ranges: &Mutex<Receiver<Read>>, shared: &Shared) {
    loop {
        let Ok(read) = ranges.lock().recv() else { return };
        let Read {
            file,
            bytes,
            recipe,
            range,
        } = read;
        let mut out = vec![0; range.len()];
        let found = handle
            .reader()
            .and_then(|reader| reader.file(&recipe)?.read_at(range.start as u64, &mut out));
        let end = range.end.min(bytes.len());
        let wanted = seen(bytes.get(range.start..end).unwrap_or_default());
        shared.reads.fetch_add(1, Ordering::SeqCst);
        match found {
            Ok(count) if out[..count] == wanted[..] => {}
            Ok(count) => shared
                .failures
                .lock()
                .push(format!("file {file}, {range:?}: {count} bytes, and others")),
            // What was replaced and forgotten meanwhile may be gone.
            Err(error) => {
                if shared
                    .current
                    .lock()
                    .0
                    .get(&file)
                    .is_some_and(|now| Arc::ptr_eq(now, &bytes))
                {
                    shared.failures.lock().push(format!("file {file}, {range:?}: {error}"));
                }
            }
        }
    }
}

/// The recipes of directories and files, by their numbers.
pub(super) type Recipes = (BTreeMap<u64, Recipe>, BTreeMap<u64, Recipe>);

/// Reads what a snapshot leads to.
fn read_volume(vault: &Vault, root: &RootId) -> Recipes {
    let reader = vault.reader().unwrap();
    let (mut dirs, mut files) = (BTreeMap::new(), BTreeMap::new());
    for dir in reader.tree(&vault.snapshot(root).unwrap().tree) {
        let dir = dir.unwrap();
        let recipe = dir.recipe().unwrap().clone();
        for file in reader.tree(&recipe) {
            let file = file.unwrap();
            files.insert(number_in(&file.name), file.recipe().unwrap().clone());
        }
        dirs.insert(number_in(&dir.name), recipe);
    }
    assert!(dirs.len() as u64 <= DIRS);
    (dirs, files)
}

/// The number in the name of a file or directory.
pub(super) fn number_in(name: &[u8]) -> u64 {
    let digits = name.iter().skip_while(|byte| !byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
