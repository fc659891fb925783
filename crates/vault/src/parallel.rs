//! The same work on many things, by a bounded number of threads.

use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, ScopedJoinHandle};

use crate::error::{Error, Result};

impl Error {
    /// A thread could not be started.
    pub fn thread(source: io::Error) -> Self {
        Self::Exhausted {
            what: "cannot start a thread",
            source,
        }
    }
}

/// Does `work` on each of `items`, in their order as far as threads take them; the first error of any thread is returned
/// when all have ended, and what was not begun by a thread that failed is left to the others.
pub(crate) fn each<T: Sync>(threads: usize, items: &[T], work: &(dyn Fn(&T) -> Result<()> + Sync)) -> Result<()> {
    let next = AtomicUsize::new(0);
    let run = || -> Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item)?;
        }
        Ok(())
    };
    workers(threads.min(items.len()), run).into_iter().collect()
}

/// Does `work` on each of `items` and returns what came of each, in their order; errors as [`each`] has them.
pub(crate) fn map<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: &(dyn Fn(&T) -> Result<R> + Sync),
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let run = || -> Result<Vec<(usize, R)>> {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return Ok(done) };
            done.push((at, work(item)?));
        }
    };
    let done: Result<Vec<Vec<(usize, R)>>> = workers(threads.min(items.len()), run).into_iter().collect();
    let mut done: Vec<(usize, R)> = done?.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Does `work` in so many threads, and returns what each of them did. Where no more can be started those that could do it all,
/// at worst this one.
pub(crate) fn workers<R: Send>(count: usize, work: impl Fn() -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let started = (0..count).map_while(|_| Builder::new().spawn_scoped(scope, &work).ok());
        let started: Vec<_> = started.collect();
        if started.is_empty() {
            return vec![work()];
        }
        let join = |thread: ScopedJoinHandle<'_, R>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        started.into_iter().map(join).collect()
    })
}
