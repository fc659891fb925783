//! Counts beside a first backup what it has before it, so that its progress has an end.
//!
//! - Nothing depends on the count: what cannot be looked at is left out, and a count that grows too large is given up.
//! - What a backup leaves out is not counted: what is excluded, the vault itself, and file systems that the kernel makes up.
//! - A later backup knows what the last one had, and is not counted.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use drystone_vault::{Cancel, Progress};

use crate::local::system::Systems;
use crate::options::{BackupOptions, OneFileSystem};
use crate::scope::filters::Filters;
use crate::scope::own::OwnDirs;

/// Time that a backup gets to be done, or to know the end itself, before anything is counted.
const HEAD_START: Duration = Duration::from_millis(300);
/// Directories that wait to be looked at, at most; a count that would have more is given up.
const WAITING_MAX: usize = 200_000;

/// A count that runs until it is done or dropped.
#[derive(Debug)]
pub struct Counting {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What is counted, and where that is told.
struct Count {
    filters: Filters,
    own: OwnDirs,
    one_file_system: OneFileSystem,
    systems: Systems,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    cancel: Cancel,
    files: u64,
    bytes: u64,
}

impl Counting {
    /// Counts what a backup has before it; once that is known, its progress has it.
    pub fn start(options: &BackupOptions) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Count::new(options, stop.clone());
        let sources = outermost(&options.sources);
        let run = move || {
            std::thread::park_timeout(HEAD_START);
            count.run(&sources);
        };
        let thread = std::thread::Builder::new().name("drystone-count".to_owned()).spawn(run);
        Self {
            stop,
            // A backup without an end in sight is a backup all the same.
            thread: thread.ok(),
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot have panicked; if it did, the backup is still what counts.
            let _ = thread.join();
        }
    }
}

/// The sources that lie below no other.
fn outermost(sources: &[PathBuf]) -> Vec<PathBuf> {
    let is_inner = |path: &PathBuf| sources.iter().any(|other| other != path && path.starts_with(other));
    let mut outer: Vec<PathBuf> = sources.iter().filter(|path| !is_inner(path)).cloned().collect();
    outer.sort();
    outer.dedup();
    outer
}

impl Count {
    fn new(options: &BackupOptions, stop: Arc<AtomicBool>) -> Self {
        Self {
            filters: options.filters.clone(),
            own: options.own.clone(),
            one_file_system: options.one_file_system,
            systems: Systems::default(),
            progress: options.progress.clone(),
            stop,
            cancel: options.cancel.clone(),
            files: 0,
            bytes: 0,
        }
    }

    fn run(mut self, sources: &[PathBuf]) {
        if sources.iter().all(|source| self.source(source).is_some()) {
            self.progress.total_files.store(self.files, Ordering::Relaxed);
            self.progress.total_bytes.store(self.bytes, Ordering::Relaxed);
        }
    }

    /// Whether the count has no use any more: the backup is over, or knows its end from the last one.
    fn is_over(&self) -> bool {
        let is_known = self.progress.total_files.load(Ordering::Relaxed) > 0;
        is_known || self.cancel.is_cancelled() || self.stop.load(Ordering::Relaxed)
    }

    /// Counts a source; `None` if the count was given up.
    fn source(&mut self, source: &Path) -> Option<()> {
        let Ok(about) = fs::symlink_metadata(source) else {
            return Some(());
        };
        if !about.is_dir() {
            self.add(&about);
            return Some(());
        }
        if self.own.has_number(about.dev(), about.ino()) {
            return Some(());
        }
        let mut waiting = vec![(source.to_owned(), about.dev())];
        while let Some((dir, device)) = waiting.pop() {
            if self.is_over() || waiting.len() > WAITING_MAX {
                return None;
            }
            self.directory((&dir, device), about.dev(), &mut waiting);
        }
        Some(())
    }

    /// Counts the files of a directory on `device`; those in it join `waiting`, each with the device that it is on.
    fn directory(&mut self, (dir, device): (&Path, u64), source_device: u64, waiting: &mut Vec<(PathBuf, u64)>) {
        if let Some(marker) = self.marker(dir) {
            // Of what is marked only the mark itself is stored.
            self.add(&marker);
            return;
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            let path = entry.path();
            if self.filters.excludes(path.as_os_str().as_bytes(), about.is_dir()) {
                continue;
            }
            if !about.is_dir() {
                self.add(&about);
                continue;
            }
            let is_entered = (self.one_file_system == OneFileSystem::Cross || about.dev() == source_device)
                && !self.own.has_number(about.dev(), about.ino())
                && (about.dev() == device || !self.is_made_up(dir, &entry.file_name(), about.dev()));
            if is_entered {
                waiting.push((path, about.dev()));
            }
        }
    }

    /// Whether the kernel makes up what is mounted at a name in a directory.
    fn is_made_up(&self, dir: &Path, name: &OsStr, device: u64) -> bool {
        fs::File::open(dir).is_ok_and(|dir| self.systems.is_made_up(dir, name.as_bytes(), device))
    }

    /// The file that marks this directory as left out.
    fn marker(&self, dir: &Path) -> Option<fs::Metadata> {
        self.filters.markers().iter().find_map(|marker| {
            let name = Path::new(OsStr::from_bytes(&marker.name));
            let about = fs::symlink_metadata(dir.join(name)).ok()?;
            let open = OwnedFd::from(fs::File::open(dir).ok()?);
            marker.holds(&open).then_some(about)
        })
    }

    fn add(&mut self, about: &fs::Metadata) {
        self.files += 1;
        self.bytes += if about.is_file() { about.len() } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use drystone_format::codec::Compression;

    use super::*;
    use crate::local::names::Names;
    use crate::options::{Look, Mode, Parent};
    use crate::scope::filters::{FiltersBuilder, Marker};

    fn options(sources: &[PathBuf], filters: &Filters, one_file_system: OneFileSystem) -> BackupOptions {
        BackupOptions {
            sources: sources.to_vec(),
            filters: filters.clone(),
            own: OwnDirs::default(),
            one_file_system,
            compression: Compression::DEFAULT,
            host: String::new(),
            user: String::new(),
            program: String::new(),
            tags: Vec::new(),
            names: Arc::new(Names::parse(b"", b"")),
            parent: Parent::Cached,
            look: Look::Files,
            mode: Mode::Store,
            threads: 1,
            progress: Arc::default(),
            cancel: Cancel::default(),
        }
    }

    fn counted(sources: &[PathBuf], filters: &Filters, known: u64) -> (u64, u64) {
        count(&options(sources, filters, OneFileSystem::Stay), known)
    }

    fn count(options: &BackupOptions, known: u64) -> (u64, u64) {
        let progress = &options.progress;
        progress.total_files.store(known, Ordering::Relaxed);
        let mut counting = Counting::start(options);
        counting.thread.take().unwrap().join().unwrap();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        (load(&progress.total_files), load(&progress.total_bytes))
    }

    #[test]
    fn what_a_backup_would_store_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, bytes) in [
            ("a", 10),
            ("d/b", 200),
            ("d/x.o", 4000),
            ("c/CACHEDIR.TAG", 0),
            ("c/big", 80_000),
        ] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), vec![7; bytes]).unwrap();
        }
        let cache = b"Signature: 8a477f597d28d172789f06886806bc55";
        fs::write(at("c/CACHEDIR.TAG"), cache).unwrap();
        std::os::unix::fs::symlink("/nowhere", at("link")).unwrap();
        let mut builder = FiltersBuilder::default();
        builder.exclude("*.o").unwrap();
        builder.exclude_if_present(Marker::cache());
        let filters = builder.build().unwrap();
        let sources = [dir.path().to_owned(), at("d"), at("gone")];
        assert_eq!(counted(&sources, &filters, 0), (4, 210 + cache.len() as u64));
        assert_eq!(counted(&sources, &Filters::default(), 0).0, 6);
        assert_eq!(counted(&sources, &filters, 7), (7, 0), "the end is known already");
    }

    #[test]
    fn the_vault_itself_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("a", 10), ("vault/pack", 80_000), ("link", 0)] {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), vec![7; bytes]).unwrap();
        }
        let vault = dir.path().join("vault");
        let sources = [dir.path().to_owned()];
        let all = options(&sources, &Filters::default(), OneFileSystem::Cross);
        assert_eq!(count(&all, 0), (3, 80_010));
        let own = OwnDirs::of([&vault]);
        let but_own = |sources: &[PathBuf]| {
            let options = BackupOptions {
                own: own.clone(),
                ..options(sources, &Filters::default(), OneFileSystem::Cross)
            };
            count(&options, 0)
        };
        assert_eq!(but_own(&sources), (2, 10));
        assert_eq!(but_own(&[vault]), (0, 0));
    }

    #[test]
    fn what_the_kernel_makes_up_is_not_counted_and_the_root_has_one_slash() {
        let mut builder = FiltersBuilder::default();
        builder.exclude("/usr").unwrap();
        let options = options(&["/".into()], &builder.build().unwrap(), OneFileSystem::Cross);
        let mut count = Count::new(&options, Arc::default());
        let (device, mut waiting) = (fs::symlink_metadata("/").unwrap().dev(), Vec::new());
        count.directory((Path::new("/"), device), device, &mut waiting);
        let is_waiting = |path: &str| waiting.iter().any(|(waiting, _)| waiting == Path::new(path));
        assert!(is_waiting("/etc") && !is_waiting("/usr"), "{waiting:?}");
        assert!(Path::new("/proc/self").exists() && !is_waiting("/proc"), "{waiting:?}");
    }
}
