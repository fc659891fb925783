//! Presence of a run at the place: put before it relies on anything, renewed while it lasts, removed at its end.
//!
//! - Its id is that of the root that the run will publish, once.
//! - A run whose root may still arrive (the place did not answer) leaves its presence; gc gives it up in the end.
//! - A local file is locked as long as the process lives: of a process that is gone, gc on this machine need not wait.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use drystone_format::presence::Presence;
use drystone_format::{RootId, random};
use drystone_store::Name;
use parking_lot::{Condvar, Mutex};

use crate::context::Source;
use crate::error::{Error, Result};
use crate::gc::epochs::Epochs;
use crate::gc::protocol::Writer;
use crate::place::Place;
use crate::vault::Vault;

/// How often a run renews its presence: rarely enough to cost nothing.
const BEAT: Duration = Duration::from_secs(300);

pub(crate) struct Registration {
    writer: Writer,
    epochs: Arc<Epochs>,
    is_used: AtomicBool,
    pulse: Arc<Pulse>,
    thread: Mutex<Option<JoinHandle<()>>>,
    mark: Mark,
}

/// What the run shares with the thread that renews its presence.
struct Pulse {
    place: Place,
    id: RootId,
    object: Bytes,
    beat: AtomicU64,
    is_over: Mutex<bool>,
    wake: Condvar,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registration").field(&self.writer.id).finish()
    }
}

impl Registration {
    /// Registers, reads the epochs, and makes sure that the catalog is no older than any deletion they do not show.
    pub(crate) fn new(vault: &Vault) -> Result<Self> {
        let catalog = vault.catalog()?;
        let id = RootId(random::array(&mut Source(&*vault.context.entropy)));
        let writer = Writer::new(id, (*catalog.synced_with()).clone());
        let presence = Presence {
            writer: vault.secrets.certificate.writer,
            seen: writer.seen(),
        };
        let pulse = Arc::new(Pulse {
            place: vault.place.clone(),
            id,
            object: Bytes::from(presence.encode()),
            beat: AtomicU64::new(0),
            is_over: Mutex::new(false),
            wake: Condvar::new(),
        });
        let mark = Mark::new(&vault.writers_dir(), &id)?;
        if let Err(error) = pulse.place.put(&Name::writer(&id, 0), pulse.object.clone()) {
            // It may be there.
            mark.keep();
            return Err(error);
        }
        let beating = pulse.clone();
        let registration = Self {
            writer,
            epochs: vault.epochs.clone(),
            is_used: AtomicBool::new(false),
            pulse,
            thread: Mutex::new(Some(std::thread::spawn(move || beating.run()))),
            mark,
        };
        if registration.writer.must_list_again(&*registration.epochs.refresh()?) {
            catalog.refresh()?;
        }
        Ok(registration)
    }

    pub(crate) fn id(&self) -> RootId {
        self.writer.id
    }

    /// [`Error::GivenUp`] if gc took the run for dead.
    fn check(&self) -> Result<()> {
        if self.writer.is_given_up(&*self.epochs.refresh()?) {
            return Err(Error::GivenUp {
                id: self.writer.id,
                place: self.pulse.place.name().to_owned(),
            });
        }
        Ok(())
    }

    /// Publishes the root of this run, by `put`, and makes sure that it counts.
    pub(crate) fn publish(&self, put: impl FnOnce(&RootId) -> Result<()>) -> Result<RootId> {
        if self.is_used.swap(true, Ordering::AcqRel) {
            return Err(Error::Published);
        }
        // A short run need not ask twice; that nothing is reported in vain is decided after.
        if self.pulse.beat.load(Ordering::Acquire) > 0 {
            self.check()?;
        }
        let published = put(&self.writer.id).and_then(|()| self.check());
        match published {
            Ok(()) => {
                self.pulse.leave();
                Ok(self.writer.id)
            }
            Err(error) => {
                // The root may be there, or still arrive.
                self.pulse.stop();
                self.mark.keep();
                Err(error)
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.is_used.load(Ordering::Acquire) && !self.pulse.leave() {
            self.mark.keep();
        }
        self.pulse.stop();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Pulse {
    fn stop(&self) {
        *self.is_over.lock() = true;
        self.wake.notify_all();
    }

    /// Removes the presence; says whether it is gone everywhere. Where it is not, gc sees that the run is over or gives it up.
    fn leave(&self) -> bool {
        let mut is_over = self.is_over.lock();
        *is_over = true;
        self.wake.notify_all();
        super::delete_presence(&self.place, &self.id, self.beat.load(Ordering::Acquire)).is_ok()
            && self.place.is_complete()
    }

    /// Renews the presence until the run is over. A beat that fails is silence.
    fn run(&self) {
        let mut is_over = self.is_over.lock();
        while !*is_over {
            if !self.wake.wait_for(&mut is_over, BEAT).timed_out() || *is_over {
                continue;
            }
            let beat = self.beat.load(Ordering::Acquire);
            if self
                .place
                .put(&Name::writer(&self.id, beat + 1), self.object.clone())
                .is_ok()
            {
                self.beat.store(beat + 1, Ordering::Release);
                let _ = super::delete_presence(&self.place, &self.id, beat);
            }
        }
    }
}

/// A local file that is locked while the run lives.
struct Mark {
    path: PathBuf,
    file: File,
    stays: AtomicBool,
}

impl Mark {
    fn new(dir: &Path, id: &RootId) -> Result<Self> {
        let path = dir.join(id.to_string());
        let failed = |source| Error::CacheDir {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        let stays = AtomicBool::new(false);
        Ok(Self { path, file, stays })
    }

    fn keep(&self) {
        self.stays.store(true, Ordering::Release);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if !self.stays.load(Ordering::Acquire) {
            let _ = fs::remove_file(&self.path);
        }
        let _ = self.file.unlock();
    }
}

/// Whether the writer was a run on this machine whose process is gone, or that has ended.
pub(crate) fn is_dead_here(dir: &Path, id: &RootId) -> bool {
    match File::open(dir.join(id.to_string())) {
        Ok(file) => !matches!(file.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))),
        Err(_) => false,
    }
}

/// Forgets marks of writers that are no longer registered; those of runs that live stay.
pub(crate) fn sweep_marks(dir: &Path, is_registered: &dyn Fn(&RootId) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let id = entry.file_name().to_str().and_then(RootId::from_hex);
        if let Some(id) = id
            && !is_registered(&id)
            && is_dead_here(dir, &id)
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}
