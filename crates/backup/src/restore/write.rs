//! Making entries in the target: what each thread of a restore does.
//!
//! - New files are made with `O_EXCL`; what exists is opened without following symbolic links, and replaced or filled.
//! - What exists under another spelling of the name, where the file system folds case, is another entry and never touched.
//! - A file gets its time last, so that one that was left half-way does not look complete.
//! - A new file whose content is damaged is removed again; one that existed stays.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind};
use drystone_vault::Progress;
use parking_lot::Mutex;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, linkat, makedev, mknodat, openat, readlinkat, statat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

use super::before::Befores;
use super::content::{Filled, Filler, Filling};
use super::dir::{Dir, Ongoing, OpenDirs};
use super::links::{Claim, Links, identity};
use super::options::{Overwrite, RestoreOptions};
use super::tally::{Failure, add};
use crate::apply::{Apply, Handle, LEFT_OUT, Now, Special};
use crate::error::Error;

/// What all threads of a restore share.
pub(crate) struct Work<'a> {
    pub(crate) options: &'a RestoreOptions,
    pub(crate) filler: Filler<'a>,
    pub(crate) apply: Apply,
    pub(crate) open: OpenDirs,
    pub(crate) links: Links,
    pub(crate) befores: Befores,
    stopped: AtomicBool,
    error: Mutex<Option<Error>>,
}

/// How an entry came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// It was written.
    Written,
    /// Its content was there already.
    Unchanged,
    /// Something was there already and was left as it is.
    Kept,
    /// It was not made, as was asked for.
    LeftOut,
}

/// The reason given for names that do not become one file.
const APART: &str = "one of the names is there already with other content or attributes, and is not to be overwritten";

/// Where an entry is to be.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    /// Its directory, open.
    pub(super) at: BorrowedFd<'a>,
    pub(super) dir: &'a Dir,
    pub(super) entry: &'a Entry,
}

impl Spot<'_> {
    fn name(&self) -> &[u8] {
        &self.entry.name
    }

    fn path(&self) -> Vec<u8> {
        self.dir.path(&self.entry.name)
    }

    fn look(&self) -> Result<Stat, Failure> {
        look(self.at, &self.entry.name)
    }
}

/// An existing entry, looked at without following it.
pub(super) fn look(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Failure> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| Failure::io("look at what is there", errno))
}

/// Removes what is in the way; a directory only if it is empty.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<(), Failure> {
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Err(Failure::Entry(
            "a directory that is not empty is in its way; move it away and restore again".to_owned(),
        )),
        Err(errno) => Err(Failure::io("remove what is in its way", errno)),
    }
}

impl<'a> Work<'a> {
    pub(crate) fn new(options: &'a RestoreOptions, filler: Filler<'a>) -> Self {
        Self {
            options,
            filler,
            apply: Apply::new(options.owner, options.special),
            open: OpenDirs::default(),
            links: Links::default(),
            befores: Befores::default(),
            stopped: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    /// Ends the run; the first error is the one reported.
    pub(crate) fn stop(&self, error: Error) {
        self.stopped.store(true, Ordering::Relaxed);
        self.error.lock().get_or_insert(error);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The error that ended the run.
    pub(crate) fn into_error(self) -> Option<Error> {
        self.error.into_inner()
    }

    /// Notes a failure.
    pub(crate) fn fail(&self, failure: Failure, make_path: impl FnOnce() -> Vec<u8>) {
        let path = make_path();
        match failure {
            Failure::Entry(what) => {
                Progress::add(&self.filler.progress.problems, 1);
                self.filler.tally.problem(path, &what);
            }
            Failure::Damage(error) => {
                Progress::add(&self.filler.progress.problems, 1);
                self.filler.tally.damage(path, &error);
            }
            Failure::Run(error) => {
                let Failure::Run(error) = Failure::Run(error).at(|| path) else {
                    return;
                };
                self.stop(error);
            }
        }
    }

    /// Restores one entry, and those that waited to be linked to it.
    pub(crate) fn item(&self, ongoing: Arc<Ongoing>, entry: Entry, buffer: &mut Vec<u8>) {
        let mut queue = vec![(ongoing, entry)];
        while let Some((ongoing, entry)) = queue.pop() {
            if self.is_stopped() {
                return;
            }
            let Some(identity) = identity(&entry) else {
                let made = self.make(&ongoing, &entry, buffer);
                self.count(&ongoing, &entry, made);
                self.release(ongoing);
                continue;
            };
            match self.links.claim(identity, ongoing, entry) {
                Claim::Waits => {}
                Claim::Link(ongoing, entry, dir, name) => {
                    let made = match self.link(&ongoing, &entry, &dir, &name) {
                        Ok(Some(made)) => Ok(made),
                        Ok(None) => self.make(&ongoing, &entry, buffer),
                        Err(failure) => Err(failure),
                    };
                    self.count(&ongoing, &entry, made);
                    self.release(ongoing);
                }
                Claim::First(ongoing, entry) => {
                    let made = self.make(&ongoing, &entry, buffer);
                    let can_be_linked = match made {
                        Ok(Made::Written | Made::Unchanged) => true,
                        Ok(Made::Kept) => self.is_stored(&ongoing, &entry, buffer),
                        Ok(Made::LeftOut) | Err(_) => false,
                    };
                    queue.extend(match can_be_linked {
                        true => self.links.done(identity, &ongoing.dir, &entry.name),
                        false => self.links.failed(identity),
                    });
                    self.count(&ongoing, &entry, made);
                    self.release(ongoing);
                }
            }
        }
    }

    pub(super) fn count(&self, ongoing: &Ongoing, entry: &Entry, made: Result<Made, Failure>) {
        let tally = self.filler.tally;
        match made {
            Err(failure) => return self.fail(failure, || ongoing.dir.path(&entry.name)),
            Ok(Made::Kept) => {
                self.pass(entry);
                return add(&tally.kept, 1);
            }
            Ok(Made::LeftOut) => return add(&tally.left_out, 1),
            Ok(Made::Written) => {}
            Ok(Made::Unchanged) => add(&tally.unchanged_files, 1),
        }
        if let Some(flaw) = entry.flaw() {
            tally.incomplete(ongoing.dir.path(&entry.name), flaw);
        }
        add(&tally.files, 1);
        Progress::add(&self.filler.progress.files, 1);
        if let Kind::File(recipe) = &entry.kind {
            add(&tally.bytes, recipe.size_bytes);
        }
    }

    /// Counts the bytes of a file that need not be written.
    fn pass(&self, entry: &Entry) {
        if let Kind::File(recipe) = &entry.kind {
            Progress::add(&self.filler.progress.bytes, recipe.size_bytes);
        }
    }

    /// Returns true if a file that was left alone has the stored content and attributes, so that its other names may be linked to it.
    fn is_stored(&self, ongoing: &Ongoing, entry: &Entry, buffer: &mut Vec<u8>) -> bool {
        let Kind::File(recipe) = &entry.kind else { return false };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = self.open.fd(&ongoing.dir);
        let opened = opened.and_then(|at| openat(&at, entry.name.as_slice(), flags, Mode::empty()));
        let is_it = opened.and_then(|fd| {
            let stat = fstat(&fd)?;
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size != recipe.size_bytes {
                return Ok(false);
            }
            let is_set = self.apply.is_set(fd.as_fd(), Now::of(&stat), entry);
            let filling = Filling::new(fd, Some(size), false);
            Ok(is_set && matches!(self.filler.fill(&filling, recipe, buffer), Ok(Filled::Done)))
        });
        if is_it != Ok(true) {
            let path = || ongoing.dir.path(&entry.name);
            self.filler.tally.not_set("hard links to it", APART, path);
        }
        is_it == Ok(true)
    }

    fn make(&self, ongoing: &Ongoing, entry: &Entry, buffer: &mut Vec<u8>) -> Result<Made, Failure> {
        let at = self.open_dir(&ongoing.dir)?;
        let spot = Spot {
            at: at.as_fd(),
            dir: &ongoing.dir,
            entry,
        };
        let device = |major: &u32, minor: &u32| makedev(*major, *minor);
        match &entry.kind {
            Kind::File(recipe) => self.file(spot, recipe, buffer),
            Kind::Symlink(target) => self.symlink(spot, target),
            Kind::BlockDevice { major, minor } => self.special(spot, FileType::BlockDevice, device(major, minor)),
            Kind::CharDevice { major, minor } => self.special(spot, FileType::CharacterDevice, device(major, minor)),
            Kind::Fifo => self.special(spot, FileType::Fifo, 0),
            Kind::Socket => self.special(spot, FileType::Socket, 0),
            Kind::Dir(_) => Err(Failure::Entry("a directory among files".to_owned())),
        }
    }

    pub(super) fn open_dir(&self, dir: &Arc<Dir>) -> Result<Arc<OwnedFd>, Failure> {
        self.open
            .fd(dir)
            .map_err(|errno| Failure::io("open its directory", errno))
    }

    fn set(&self, spot: Spot<'_>, handle: Handle<'_>, now: Now) -> Result<(), Failure> {
        self.apply
            .set(handle, now, spot.entry, (self.filler.tally, &|| spot.path()))
            .map_err(|errno| Failure::io("set attributes", errno))
    }

    /// What a new entry has that was made with `mode`.
    fn fresh(&self, mode: u32) -> Now {
        Now {
            uid: self.apply.uid,
            gid: self.apply.gid,
            mode: mode & !self.apply.umask,
            mtime: None,
            xattrs: false,
        }
    }

    /// A new file; with its final mode at once where nobody else gets to it by that.
    fn create(&self, spot: Spot<'_>) -> Result<(Filling, Now), Errno> {
        let Spot { at, dir, entry } = spot;
        let own = self.apply.owner(entry) == (self.apply.uid, self.apply.gid);
        let plain = own && !dir.inherits && entry.xattrs.is_empty();
        let mode = if plain { entry.mode & 0o777 } else { 0o600 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(at, spot.name(), flags, Mode::from_raw_mode(mode))?;
        let mut now = self.fresh(mode);
        if dir.inherits {
            now = Now::of(&fstat(&fd)?);
            now.mtime = None;
        }
        Ok((Filling::new(fd, None, true), now))
    }

    /// The file to be filled, new or as it is; `None` if it is to be left alone.
    pub(super) fn open_file(&self, spot: Spot<'_>) -> Result<Option<(Filling, Now)>, Failure> {
        match self.create(spot) {
            Ok(created) => return Ok(Some(created)),
            Err(Errno::EXIST) => spot.dir.refuse_folded(spot.at, spot.name())?,
            Err(errno) => return Err(Failure::io("create", errno)),
        }
        if self.options.overwrite == Overwrite::Never {
            return Ok(None);
        }
        let stat = spot.look()?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let open = |access| openat(spot.at, spot.name(), access | flags, Mode::empty());
            let opened = match stat.st_nlink {
                1 => open(OFlags::RDWR),
                _ => Err(Errno::MLINK),
            };
            let opened = opened
                .map(|fd| (fd, true))
                .or_else(|_| open(OFlags::RDONLY).map(|fd| (fd, false)));
            if let Ok((fd, writable)) = opened {
                let stat = fstat(&fd).map_err(|errno| Failure::io("look at it", errno))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                    let size = u64::try_from(stat.st_size).unwrap_or_default();
                    let filling = Filling::new(fd, Some(size), writable && stat.st_nlink == 1);
                    return Ok(Some((filling, Now::of(&stat))));
                }
            }
        }
        self.replace(spot).map(Some)
    }

    /// A new file in place of what is there.
    fn replace(&self, spot: Spot<'_>) -> Result<(Filling, Now), Failure> {
        remove(spot.at, spot.name(), &spot.look()?)?;
        self.create(spot).map_err(|errno| Failure::io("create", errno))
    }

    pub(super) fn file(&self, spot: Spot<'_>, recipe: &Recipe, buffer: &mut Vec<u8>) -> Result<Made, Failure> {
        let Some((mut filling, mut now)) = self.open_file(spot)? else {
            return Ok(Made::Kept);
        };
        let mut fill = |filling: &Filling| match self.filler.prepare(filling, recipe) {
            Ok(Filled::Done) => self.filler.fill(filling, recipe, buffer),
            other => other,
        };
        let mut filled = fill(&filling);
        let is_right = match filled {
            Ok(Filled::Differs) => false,
            Ok(Filled::Done) => !has_other_names(&filling) || self.apply.is_set(filling.fd.as_fd(), now, spot.entry),
            Err(_) => true,
        };
        if !is_right {
            (filling, now) = self.replace(spot)?;
            filled = fill(&filling);
        }
        self.finish_file(spot, (&filling, now), filled.map(|_| ()))
    }

    pub(super) fn finish_file(
        &self,
        spot: Spot<'_>,
        (filling, mut now): (&Filling, Now),
        filled: Result<(), Failure>,
    ) -> Result<Made, Failure> {
        if let Err(failure) = filled {
            if filling.before.is_none() && !matches!(failure, Failure::Run(_)) {
                // If this fails too, the file is there without its time, as after a crash.
                let _ = unlinkat(spot.at, spot.name(), AtFlags::empty());
            }
            return Err(failure);
        }
        let unchanged = filling.is_unchanged();
        if !unchanged {
            if filling.before.is_some() {
                // Writing took set-id bits and capabilities away.
                now = Now::of(&fstat(&filling.fd).map_err(|errno| Failure::io("look at it", errno))?);
            }
            now.mtime = None;
        }
        self.set(spot, Handle::Open(filling.fd.as_fd()), now)?;
        Ok(if unchanged { Made::Unchanged } else { Made::Written })
    }

    fn symlink(&self, spot: Spot<'_>, target: &[u8]) -> Result<Made, Failure> {
        let make = || symlinkat(target, spot.at, spot.name());
        let is_it = |_: &Stat| {
            let there = readlinkat(spot.at, spot.name(), Vec::new());
            there.is_ok_and(|there| there.as_bytes() == target)
        };
        self.make_named(spot, &make, &is_it)?
            .map_err(|errno| Failure::io("make the symbolic link", errno))
    }

    fn special(&self, spot: Spot<'_>, kind: FileType, device: u64) -> Result<Made, Failure> {
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if is_device && self.options.special == Special::LeaveOut {
            self.filler.tally.not_set("the device itself", LEFT_OUT, || spot.path());
            return Ok(Made::LeftOut);
        }
        let make = || mknodat(spot.at, spot.name(), kind, Mode::RUSR | Mode::WUSR, device);
        let is_it = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == device;
        match self.make_named(spot, &make, &is_it)? {
            Err(Errno::PERM) if is_device && self.apply.uid != 0 => Err(Failure::Entry(
                "cannot make the device file: only root may; --no-special leaves devices out".to_owned(),
            )),
            made => made.map_err(|errno| Failure::io("make the special file", errno)),
        }
    }

    /// Makes what is not a file, unless it is there already; the inner result is that of `make`.
    fn make_named(
        &self,
        spot: Spot<'_>,
        make: &dyn Fn() -> Result<(), Errno>,
        is_it: &dyn Fn(&Stat) -> bool,
    ) -> Result<Result<Made, Errno>, Failure> {
        let mut made = make();
        let mut now = self.fresh(0o600);
        if made == Err(Errno::EXIST) {
            spot.dir.refuse_folded(spot.at, spot.name())?;
            if self.options.overwrite == Overwrite::Never {
                return Ok(Ok(Made::Kept));
            }
            let stat = spot.look()?;
            if is_it(&stat) {
                (made, now) = (Ok(()), Now::of(&stat));
            } else {
                remove(spot.at, spot.name(), &stat)?;
                made = make();
            }
        }
        if let Err(errno) = made {
            return Ok(Err(errno));
        }
        if spot.dir.inherits && now.mtime.is_none() {
            now = Now::of(&spot.look()?);
        }
        self.set(spot, Handle::Name(spot.at, spot.name()), now)?;
        Ok(Ok(Made::Written))
    }

    /// Gives the file at `first` another name; `None` if that cannot be, so that it must be restored by itself.
    fn link(
        &self,
        ongoing: &Ongoing,
        entry: &Entry,
        first_dir: &Arc<Dir>,
        first_name: &[u8],
    ) -> Result<Option<Made>, Failure> {
        let (from, to) = (self.open_dir(first_dir)?, self.open_dir(&ongoing.dir)?);
        let name = entry.name.as_slice();
        let link = || linkat(&from, first_name, &to, name, AtFlags::empty());
        let mut linked = link();
        if linked == Err(Errno::EXIST) {
            ongoing.dir.refuse_folded(to.as_fd(), name)?;
            if self.options.overwrite == Overwrite::Never {
                return Ok(Some(Made::Kept));
            }
            let (first, there) = (look(from.as_fd(), first_name)?, look(to.as_fd(), name)?);
            if (first.st_dev, first.st_ino) == (there.st_dev, there.st_ino) {
                return Ok(Some(Made::Written));
            }
            remove(to.as_fd(), name, &there)?;
            linked = link();
        }
        if let Err(errno) = linked {
            let path = || ongoing.dir.path(name);
            let why = std::io::Error::from(errno).to_string();
            self.filler
                .tally
                .not_set("hard link (restored as a file of its own)", &why, path);
            return Ok(None);
        }
        self.pass(entry);
        Ok(Some(Made::Written))
    }
}

/// Whether an existing file has names elsewhere, so that not even its attributes may be touched.
fn has_other_names(filling: &Filling) -> bool {
    filling.before.is_some() && fstat(&filling.fd).is_ok_and(|stat| stat.st_nlink != 1)
}
