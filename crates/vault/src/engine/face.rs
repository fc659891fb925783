//! The engine for callers that must not block: what they ask runs on a few threads of its own.
//!
//! - Bounded: as many things run at once as there are threads; who asks for more waits without a thread.
//! - Not tokio's own threads for blocking work: those count as inside its runtime, where the engine refuses to wait for places.
//! - Whoever drops a future gives up the answer, not the work: that runs to its end, and its thread is free after that.

use std::sync::Arc;
use std::thread::Builder;

use crossbeam_channel::{Sender, unbounded};
use tokio::sync::{Semaphore, oneshot};

use super::Engine;
use crate::error::{Error, Result};

/// Something to do. It holds its place among those that may run until it is done.
type Job = Box<dyn FnOnce() + Send>;

/// An engine with threads to wait for it. Clones share both; the threads end with the last one.
#[derive(Clone)]
pub struct Face {
    engine: Arc<dyn Engine>,
    room: Arc<Semaphore>,
    jobs: Sender<Job>,
}

impl Face {
    /// Starts so many threads, at least one.
    pub fn new(engine: Arc<dyn Engine>, threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        // Never longer than the room that there is.
        let (jobs, waiting) = unbounded::<Job>();
        for _ in 0..threads {
            let waiting = waiting.clone();
            let work = move || waiting.iter().for_each(|job| job());
            Builder::new().spawn(work).map_err(Error::thread)?;
        }
        Ok(Self {
            engine,
            room: Arc::new(Semaphore::new(threads)),
            jobs,
        })
    }

    /// Asks the engine. Waits for a thread if all are busy.
    ///
    /// [`Error::Stopped`] if what was asked panicked.
    pub async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&dyn Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let room = self.room.clone().acquire_owned().await.map_err(|_| Error::Stopped)?;
        let (engine, (answer, answered)) = (self.engine.clone(), oneshot::channel());
        let job = Box::new(move || {
            let _room = room;
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| what(&*engine)));
            // Nobody may wait for it any more.
            let _ = answer.send(found.unwrap_or(Err(Error::Stopped)));
        });
        self.jobs.send(job).map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)?
    }
}
