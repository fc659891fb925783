//! Memory for packs: those that are filled, that wait, and that are being stored, of all who write to an open vault, together.
//!
//! - Counts bytes and not packs, since packs grow with the vault.
//! - Filling waits while the bytes are spent and some pack is on its way to the place; with none on its way it goes on, so
//!   nothing waits for itself. Likewise one pack may always be put.
//! - Many writers share the bytes: where open packs alone take them all, the next frame has its writer close what it has open.
//! - What a pack costs beyond its own bytes while it is put (shards, parity) is counted for as long as that lasts.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// Bytes that packs may take in memory: with caches of 64 MiB and some 50 MiB of lanes and frames the program stays below 256.
pub(crate) const PACKS_BYTES: u64 = 112 << 20;

/// Counts them.
pub(crate) struct Budget {
    limit_bytes: u64,
    spent: Mutex<Spent>,
    freed: Condvar,
}

#[derive(Default)]
struct Spent {
    bytes: u64,
    /// Packs that are closed and not yet stored.
    sealed: usize,
    /// Packs that are being put.
    putting: usize,
}

impl Budget {
    pub(crate) fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            spent: Mutex::default(),
            freed: Condvar::new(),
        })
    }

    /// Returns true if there is no room for `bytes` and no pack on its way that would make any: others fill packs that they do not close.
    /// Whoever fills a pack closes it then, so that memory does not grow with the number of those who do.
    pub(crate) fn is_stuck(&self, bytes: u64) -> bool {
        let spent = self.spent.lock();
        spent.bytes + bytes > self.limit_bytes && spent.sealed == 0
    }

    /// Makes waiters look again whether the run is over.
    pub(crate) fn wake(&self) {
        // Under the lock, or a waiter that has just looked would miss it.
        let _spent = self.spent.lock();
        self.freed.notify_all();
    }

    /// Waits for `bytes`, unless `is_free` says that waiting would be for nothing; [`Error::Stopped`] if `is_over` meanwhile.
    fn spend(
        &self,
        bytes: u64,
        is_over: &dyn Fn() -> bool,
        is_free: impl Fn(&Spent) -> bool,
        take: impl FnOnce(&mut Spent),
    ) -> Result<()> {
        let mut spent = self.spent.lock();
        while spent.bytes + bytes > self.limit_bytes && !is_free(&spent) {
            if is_over() {
                return Err(Error::Stopped);
            }
            self.freed.wait(&mut spent);
        }
        spent.bytes += bytes;
        take(&mut spent);
        Ok(())
    }

    /// Room for a pack that is about to be filled.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held {
            budget: self.clone(),
            bytes: 0,
            is_sealed: false,
        }
    }

    /// Room for what putting a pack takes beside the pack itself; waits for it while another pack is being put.
    pub(crate) fn put(self: &Arc<Self>, extra_bytes: u64, is_over: &dyn Fn() -> bool) -> Result<Putting> {
        self.spend(
            extra_bytes,
            is_over,
            |spent| spent.putting == 0,
            |spent| spent.putting += 1,
        )?;
        Ok(Putting {
            budget: self.clone(),
            bytes: extra_bytes,
        })
    }
}

/// What one pack has spent, given back when it is dropped.
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: u64,
    is_sealed: bool,
}

impl Held {
    /// Waits until the pack may grow by `bytes`.
    pub(crate) fn grow(&mut self, bytes: u64, is_over: &dyn Fn() -> bool) -> Result<()> {
        self.budget.spend(bytes, is_over, |spent| spent.sealed == 0, |_| {})?;
        self.bytes += bytes;
        Ok(())
    }

    /// The pack is closed with `bytes` in all and is on its way.
    pub(crate) fn seal(&mut self, bytes: u64) {
        let mut spent = self.budget.spent.lock();
        spent.bytes = spent.bytes + bytes - self.bytes;
        spent.sealed += 1;
        (self.bytes, self.is_sealed) = (bytes, true);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut spent = self.budget.spent.lock();
        spent.bytes -= self.bytes;
        spent.sealed -= usize::from(self.is_sealed);
        self.budget.freed.notify_all();
    }
}

/// What putting one pack has spent, given back when it is dropped.
pub(crate) struct Putting {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Putting {
    fn drop(&mut self) {
        let mut spent = self.budget.spent.lock();
        spent.bytes -= self.bytes;
        spent.putting -= 1;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    const NEVER: &dyn Fn() -> bool = &|| false;

    #[test]
    fn filling_waits_for_what_is_on_its_way_and_for_nothing_else() {
        let budget = Budget::new(100);
        let mut first = budget.hold();
        first.grow(150, NEVER).unwrap();
        let mut second = budget.hold();
        second.grow(10, NEVER).unwrap();
        first.seal(160);
        assert_eq!(budget.spent.lock().bytes, 170);
        let over = AtomicBool::new(false);
        let stopped = second.grow(1, &|| {
            over.swap(true, Ordering::Relaxed) || over.load(Ordering::Relaxed)
        });
        assert!(matches!(stopped, Err(Error::Stopped)));
        drop(first);
        second.grow(1, NEVER).unwrap();
        assert_eq!(budget.spent.lock().bytes, 11);
        drop(second);
        assert_eq!(budget.spent.lock().bytes, 0);
    }

    #[test]
    fn one_pack_may_always_be_put_and_a_second_only_within_the_budget() {
        let budget = Budget::new(100);
        let first = budget.put(500, NEVER).unwrap();
        assert!(matches!(budget.put(1, &|| true), Err(Error::Stopped)));
        drop(first);
        let (_one, _two) = (budget.put(50, NEVER).unwrap(), budget.put(50, NEVER).unwrap());
    }

    #[test]
    fn many_threads_stay_within_the_budget() {
        let (budget, most) = (Budget::new(1000), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut held = budget.hold();
                        held.grow(90, NEVER).unwrap();
                        held.seal(100);
                        let _putting = budget.put(100, NEVER).unwrap();
                        most.fetch_max(budget.spent.lock().bytes, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(budget.spent.lock().bytes, 0);
        assert!(most.into_inner() <= 1000 + 4 * 10);
    }

    #[test]
    fn many_who_fill_packs_at_once_stay_within_the_budget() {
        let budget = Budget::new(1000);
        let mut open: Vec<(Held, u64)> = (0..50).map(|_| (budget.hold(), 0)).collect();
        let (mut most, mut closed) = (0, 0);
        for _ in 0..40 {
            for (held, bytes) in &mut open {
                if budget.is_stuck(10) {
                    held.seal(*bytes);
                    closed += 1;
                    // Stored at once.
                    (*held, *bytes) = (budget.hold(), 0);
                }
                held.grow(10, NEVER).unwrap();
                *bytes += 10;
                most = most.max(budget.spent.lock().bytes);
            }
        }
        assert!(most <= 1000, "{most}");
        // Packs do not become as small as the frames in them.
        assert!(closed < 50 * 40 * 3 / 4, "{closed}");
    }
}
