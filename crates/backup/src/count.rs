//! Counts beside a first backup what it has before it, so that its progress has an end.
//!
//! - Nothing depends on the count: what cannot be looked at is left out, and a count that grows too large is given up.
//! - A later backup knows what the last one had, and is not counted.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use drystone_vault::{Cancel, Progress};

use crate::filters::Filters;
use crate::options::OneFileSystem;

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
    one_file_system: OneFileSystem,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    cancel: Cancel,
    files: u64,
    bytes: u64,
}

impl Counting {
    /// Counts what a backup of `sources` has before it; once that is known, it is in `progress`.
    pub fn start(
        sources: &[PathBuf],
        (filters, one_file_system): (&Filters, OneFileSystem),
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Count {
            filters: filters.clone(),
            one_file_system,
            progress: progress.clone(),
            stop: stop.clone(),
            cancel: cancel.clone(),
            files: 0,
            bytes: 0,
        };
        let sources = outermost(sources);
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
        let mut waiting = vec![source.to_owned()];
        while let Some(dir) = waiting.pop() {
            if self.is_over() || waiting.len() > WAITING_MAX {
                return None;
            }
            self.directory(&dir, about.dev(), &mut waiting);
        }
        Some(())
    }

    fn directory(&mut self, dir: &Path, device: u64, waiting: &mut Vec<PathBuf>) {
        if let Some(marker) = self.marker(dir) {
            // Of what is marked only the mark itself is stored.
            self.add(&marker);
            return;
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            let mut path = dir.as_os_str().as_bytes().to_vec();
            path.push(b'/');
            path.extend_from_slice(entry.file_name().as_bytes());
            if self.filters.excludes(&path, about.is_dir()) {
                continue;
            }
            let stays = self.one_file_system == OneFileSystem::Cross || about.dev() == device;
            match about.is_dir() {
                true if stays => waiting.push(std::ffi::OsString::from_vec(path).into()),
                true => {}
                false => self.add(&about),
            }
        }
    }

    /// The file that marks this directory as left out.
    fn marker(&self, dir: &Path) -> Option<fs::Metadata> {
        self.filters.markers().iter().find_map(|marker| {
            let name = Path::new(std::ffi::OsStr::from_bytes(&marker.name));
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
    use super::*;
    use crate::filters::{FiltersBuilder, Marker};

    fn counted(sources: &[PathBuf], filters: &Filters, known: u64) -> (u64, u64) {
        let progress = Arc::new(Progress::default());
        progress.total_files.store(known, Ordering::Relaxed);
        let mut counting = Counting::start(sources, (filters, OneFileSystem::Stay), &progress, &Cancel::default());
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
}
