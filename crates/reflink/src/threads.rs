//! Threads that do the same, as many as may be started.

use std::panic::resume_unwind;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::{Error, Result};

/// Starts so many threads; those that can be started are enough, and none is an error.
pub(crate) fn start_some<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    work: impl FnOnce() -> T + Send + Clone + 'scope,
) -> Result<Vec<ScopedJoinHandle<'scope, T>>> {
    let mut threads = Vec::new();
    for _ in 0..count {
        match Builder::new().spawn_scoped(scope, work.clone()) {
            Ok(thread) => threads.push(thread),
            Err(error) if threads.is_empty() => return Err(Error::Thread(error)),
            Err(_) => break,
        }
    }
    Ok(threads)
}

/// What the thread came to; a panic of it goes on here.
pub(crate) fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}
