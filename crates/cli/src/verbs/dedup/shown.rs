//! Progress of a run, shown as that of every other verb; and the wish to stop, carried on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use drystone_reflink::{Cancel, Progress};

use crate::context::App;
use crate::exit::Result;
use crate::progress::{Counts, Shown};
use crate::runtime::cannot_start;

/// Time between two looks at the counters and the wish.
const EVERY: Duration = Duration::from_millis(100);

/// Shows a run until it is dropped.
pub(super) struct Followed {
    /// What the run counts.
    pub(super) progress: Arc<Progress>,
    /// What stops the run.
    pub(super) cancel: Cancel,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _shown: Shown,
}

impl Followed {
    /// Begins to show. An error if there may be no more threads: one of them hears the wish.
    pub(super) fn start(app: &App) -> Result<Self> {
        let (progress, cancel) = (Arc::new(Progress::default()), Cancel::default());
        let shown = Arc::new(drystone_vault::Progress::default());
        let counts = Counts {
            verb: "dedup",
            things: "extent",
        };
        let done = Arc::new(AtomicBool::new(false));
        let follow = {
            let (from, to, wish) = (progress.clone(), shown.clone(), app.cancel.clone());
            let (cancel, done) = (cancel.clone(), done.clone());
            move || {
                while !done.load(Ordering::Relaxed) {
                    copy(&from, &to);
                    if wish.is_cancelled() {
                        cancel.cancel();
                    }
                    std::thread::park_timeout(EVERY);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("drystone-follow".to_owned())
            .spawn(follow)
            .map_err(cannot_start)?;
        Ok(Self {
            progress,
            cancel,
            done,
            thread: Some(thread),
            _shown: Shown::start(app, &shown, counts),
        })
    }
}

fn copy(from: &Progress, to: &drystone_vault::Progress) {
    let copy = |from: &AtomicU64, to: &AtomicU64| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    copy(&from.problems, &to.problems);
    if from.total_extents.load(Ordering::Relaxed) == 0 {
        copy(&from.scanned_bytes, &to.bytes);
        copy(&from.to_scan_bytes, &to.total_bytes);
        to.set_current(b"looking for what is equal");
        return;
    }
    copy(&from.planned_extents, &to.files);
    copy(&from.total_extents, &to.total_files);
    copy(&from.shared_bytes, &to.bytes);
    copy(&from.total_bytes, &to.total_bytes);
    let freed = from.freed_bytes.load(Ordering::Relaxed);
    match (freed, from.total_bytes.load(Ordering::Relaxed)) {
        (0, 0) => to.set_current(b"choosing what to share"),
        (0, _) => to.set_current(b""),
        _ => to.set_current(format!("{} freed", crate::output::size(freed)).as_bytes()),
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot have panicked; if it did, the work is still what counts.
            let _ = thread.join();
        }
    }
}
