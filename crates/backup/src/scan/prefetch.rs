//! Directories are looked at ahead of the walk, in its order, by threads of their own.
//!
//! - What is ready and waiting is bounded; a thread that is too far ahead waits for the walk.
//! - The walk never waits for a directory that nobody has begun: it looks at that one itself.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::local::descriptors::Allowed;
use crate::local::dir::Dir;
use crate::scan::Scanner;
use crate::scan::found::{Ahead, Found, Scanned, Task};
use crate::scan::rules::Rules;

/// What a directory counts for beside its names: it keeps a descriptor open.
const DIR_WEIGHT: usize = 512;

#[derive(Default)]
struct Queue {
    /// The next one is the last.
    waiting: Vec<Arc<Task>>,
    ready: usize,
    is_over: bool,
}

/// What is to be looked at ahead.
pub(crate) struct Prefetch {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// What may be ready: names, with [`DIR_WEIGHT`] for each directory.
    ready_max: usize,
    /// Directories deeper than this are left to the walk: those that wait keep the one they are in open.
    depth_max: usize,
}

impl Prefetch {
    pub(crate) fn new(allowed: Allowed) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            ready_max: allowed.ahead * DIR_WEIGHT,
            depth_max: allowed.depth,
        }
    }

    /// Works until [`stop`](Self::stop).
    pub(crate) fn run(&self, rules: &Rules<'_>) -> Result<()> {
        let mut scanner = Scanner::new(rules)?;
        while let Some(task) = self.next() {
            let Some(order) = task.begin() else { continue };
            let mut result = scanner.scan(&order);
            if let Ok(Some(scanned)) = &mut result {
                self.announce(&order.path, order.depth, scanned);
            }
            self.queue.lock().ready += weight(&result);
            task.finish(result);
        }
        Ok(())
    }

    fn next(&self) -> Option<Arc<Task>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.is_over {
                return None;
            }
            if queue.ready < self.ready_max
                && let Some(task) = queue.waiting.pop()
            {
                return Some(task);
            }
            self.wake.wait(&mut queue);
        }
    }

    /// The walk is over.
    pub(crate) fn stop(&self) {
        self.queue.lock().is_over = true;
        self.wake.notify_all();
    }

    /// Lets the directories in this one be looked at ahead.
    pub(crate) fn announce(&self, path: &[u8], depth: usize, scanned: &mut Scanned) {
        if let Some(dir) = &scanned.dir {
            self.announce_batch(dir, path, depth, &mut scanned.batch);
        }
    }

    /// Lets the directories of a batch be looked at ahead.
    pub(crate) fn announce_batch(&self, dir: &Arc<Dir>, path: &[u8], depth: usize, batch: &mut [Found]) {
        let mut tasks = Vec::new();
        for found in batch.iter_mut().filter(|_| depth < self.depth_max) {
            let Found::Below(below) = found else { continue };
            if below.stat.is_some() {
                continue;
            }
            let task = Arc::new(Task::new(below.order(dir, path, depth)));
            tasks.push(task.clone());
            below.task = Some(task);
        }
        let count = tasks.len();
        if count > 0 {
            self.queue.lock().waiting.extend(tasks.into_iter().rev());
        }
        match count {
            0 => {}
            1 => drop(self.wake.notify_one()),
            _ => drop(self.wake.notify_all()),
        }
    }

    /// What was found, or will be by `scanner` at once.
    pub(crate) fn take(&self, task: &Task, scanner: &mut Scanner<'_>) -> Result<Option<Box<Scanned>>> {
        match task.take() {
            Ahead::Order(order) => {
                let mut result = scanner.scan(&order);
                if let Ok(Some(scanned)) = &mut result {
                    self.announce(&order.path, order.depth, scanned);
                }
                result
            }
            Ahead::Done(result) => {
                let mut queue = self.queue.lock();
                let was_full = queue.ready >= self.ready_max;
                queue.ready -= weight(&result).min(queue.ready);
                if was_full && queue.ready < self.ready_max {
                    self.wake.notify_all();
                }
                result
            }
            Ahead::Running | Ahead::Taken => Ok(None),
        }
    }
}

fn weight(result: &Result<Option<Box<Scanned>>>) -> usize {
    match result {
        Ok(Some(scanned)) => DIR_WEIGHT + scanned.batch.len(),
        _ => 1,
    }
}
