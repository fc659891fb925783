//! The same work on many things, by a bounded number of threads.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

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
    std::thread::scope(|scope| {
        let count = threads.min(items.len());
        let threads = (0..count).map_while(|_| Builder::new().spawn_scoped(scope, run).ok());
        let threads: Vec<_> = threads.collect();
        if threads.is_empty() {
            // There may be no more threads than there are.
            return run();
        }
        let outcomes: Vec<Result<()>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(Error::Stopped)))
            .collect();
        outcomes.into_iter().collect()
    })
}
