//! The threads that wait for places. Whether they can be started is tried before: tokio would panic, and not say why.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use crate::exit::{Exit, Failure, Result};

/// Threads that wait for the network; they use no processor to speak of.
const WAITING: usize = 2;
/// Threads for what blocks that are always there. Tokio starts more where it may, and queues for these where it may not.
const BLOCKING: usize = 1;
/// How long an idle thread stays: as long as the process, in effect.
const IDLE_MAX: Duration = Duration::from_secs(1 << 30);

/// The runtime. What still waits when it goes, such as a name that is being looked up, is not waited for.
pub(crate) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// Starts its threads; returns what hands them work, too.
    pub(crate) fn start() -> Result<(Self, Handle)> {
        // Twice as many as are needed: the kernel may still count those that have just ended.
        can_start(2 * (WAITING + BLOCKING)).map_err(cannot_start)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(WAITING)
            .thread_name("drystone-wait")
            .thread_keep_alive(IDLE_MAX)
            .enable_all()
            .build()
            .map_err(cannot_start)?;
        // The first of them that blocks is there from now on.
        drop(runtime.spawn_blocking(|| ()));
        let handle = runtime.handle().clone();
        Ok((Self(Some(runtime)), handle))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts so many threads, which are there at once, and ends them.
fn can_start(threads: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        let _closed = gate.lock();
        (0..threads).try_for_each(|_| {
            let waiting = std::thread::Builder::new().spawn_scoped(scope, || drop(gate.lock()));
            waiting.map(drop)
        })
    })
}

/// A thread could not be started.
pub(crate) fn cannot_start(error: io::Error) -> Failure {
    Failure::new(Exit::Error, drystone_vault::Error::thread(error))
}
