//! A writer at work: its presence is put before it relies on anything, renewed while it lasts, and removed at its end.
//!
//! - Its id commits to the key of this credential and to a random nonce. It may publish many roots; the last one says so.
//! - A beat repeats what the last root said: what is renewed in between is claimed by the next root only.
//! - A run whose root may still arrive (the place did not answer) leaves its presence; gc gives it up in the end.
//! - A local file is locked as long as the process lives: of a process that is gone, gc on this machine need not wait.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use drystone_format::id::object_hash;
use drystone_format::index_part::{IndexPart, Numbered, seal_part};
use drystone_format::keys::Secrets;
use drystone_format::limits::FORMAT_VERSION;
use drystone_format::presence::{Presence, Seen, WriterState};
use drystone_format::root::{NewRoot, RootKind, RootState, root_name, seal_root};
use drystone_format::{Random, RegistrationId, RootId, random};
use drystone_store::Name;
use parking_lot::{Condvar, Mutex};

use crate::context::Source;
use crate::error::{Error, Result};
use crate::gc::epochs::Epochs;
use crate::gc::protocol::{Standing, Writer};
use crate::ledgers::Ledgers;
use crate::packer::PackSeries;
use crate::place::Place;
use crate::vault::Vault;

/// How often a run renews its presence: rarely enough to cost nothing.
const BEAT: Duration = Duration::from_secs(300);

pub(crate) struct Registration {
    id: RegistrationId,
    writer: Mutex<Writer>,
    epochs: Arc<Epochs>,
    ledgers: Arc<Ledgers>,
    has_ended: AtomicBool,
    pulse: Arc<Pulse>,
    thread: Mutex<Option<JoinHandle<()>>>,
    mark: Mark,
    /// Numbers the packs of the run.
    pub(crate) series: Arc<PackSeries>,
}

/// What the run shares with the thread that renews its presence.
struct Pulse {
    place: Place,
    secrets: Arc<Secrets>,
    said: Mutex<Said>,
    is_over: Mutex<bool>,
    wake: Condvar,
}

/// The last statement.
struct Said {
    presence: Presence,
    name: Name,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registration").field(&self.id).finish()
    }
}

impl Registration {
    /// Registers, reads the epochs, and makes sure that the catalog is no older than any deletion they do not show.
    pub(crate) fn new(vault: &Vault) -> Result<Self> {
        let catalog = vault.catalog()?;
        let mut presence = Presence {
            nonce: random::array(&mut Source(&*vault.context.entropy)),
            ..Presence::default()
        };
        let id = presence.registration(&vault.secrets);
        let writer = Writer::new(id, (*catalog.synced_with()).clone());
        presence.epochs = writer.seen();
        let (name, object) = named(&vault.secrets, &presence)?;
        let pulse = Arc::new(Pulse {
            place: vault.place.clone(),
            secrets: vault.secrets.clone(),
            said: Mutex::new(Said {
                presence,
                name: name.clone(),
            }),
            is_over: Mutex::new(false),
            wake: Condvar::new(),
        });
        let series = Arc::new(PackSeries::new(pulse.said.lock().presence.nonce));
        let mark = Mark::new(&vault.writers_dir(), &id)?;
        let beating = pulse.clone();
        // Its first beat is far away: where it cannot be started nothing is put.
        let thread = Builder::new().spawn(move || beating.run()).map_err(Error::thread)?;
        if let Err(error) = pulse.place.put(&name, object) {
            pulse.stop();
            // It may be there.
            mark.keep();
            return Err(error);
        }
        let registration = Self {
            id,
            writer: Mutex::new(writer),
            epochs: vault.epochs.clone(),
            ledgers: vault.ledgers.clone(),
            has_ended: AtomicBool::new(false),
            pulse,
            thread: Mutex::new(Some(thread)),
            mark,
            series,
        };
        let standing = registration.epochs.refresh()?;
        if registration.writer.lock().is_behind(&standing) {
            catalog.refresh()?;
        }
        Ok(registration)
    }

    pub(crate) fn id(&self) -> RegistrationId {
        self.id
    }

    /// The epochs as they stand now. Reads the ledgers too if an epoch stands that the run does not know.
    fn follow(&self) -> Result<Arc<Standing>> {
        let standing = self.epochs.refresh()?;
        if !self.writer.lock().is_behind(&standing) {
            return Ok(standing);
        }
        self.ledgers.refresh()?;
        Ok(self.epochs.follow(&self.ledgers))
    }

    /// [`Error::GivenUp`] if gc took the run for dead, or closed the number of this root.
    fn check(&self, root: (u64, RootId)) -> Result<()> {
        let standing = self.follow()?;
        if self.writer.lock().is_given_up(root, &standing) {
            return Err(Error::GivenUp {
                id: self.id,
                place: self.pulse.place.name().to_owned(),
            });
        }
        Ok(())
    }

    /// Publishes the next root of this registration, and makes sure that it counts. Returns its registration, number and hash.
    ///
    /// After [`RootState::Last`], or an error once it may have been put, nothing more can be published. After
    /// [`RootState::Open`] the caller must bring its list of packs in step with the epochs before it relies on another.
    pub(crate) fn publish(
        &self,
        (kind, payload, state): (RootKind, &[u8], RootState),
        part: Option<&IndexPart>,
        random: &mut dyn Random,
    ) -> Result<(RegistrationId, u64, RootId)> {
        if self.has_ended.load(Ordering::Acquire) {
            return Err(Error::Published);
        }
        if state == RootState::Open {
            let standing = self.follow()?;
            self.writer.lock().renew(&standing);
        }
        let (number, previous, seen) = {
            let writer = self.writer.lock();
            (
                writer.next_number(),
                writer.advance().map(|(_, hash)| hash),
                writer.seen(),
            )
        };
        let (nonce, packs) = (self.pulse.said.lock().presence.nonce, self.series.begun());
        let of = Numbered {
            registration: nonce,
            number,
        };
        let part = part.filter(|part| part.packs().len() > 0);
        let part = part.map(|part| seal_part(&self.pulse.secrets, FORMAT_VERSION, &of, part, random));
        let part = part.transpose()?;
        let root = NewRoot {
            kind,
            nonce,
            number,
            previous,
            state,
            epochs: &seen,
            ledgers: &self.ledgers.view().newest,
            packs,
            payload,
            index_part: part.as_deref(),
        };
        // Sealed before anything ends: one that cannot be sealed does not end the run.
        let object = seal_root(&self.pulse.secrets, &root, random)?;
        let name = root_name(&self.pulse.secrets, &root, &object);
        if self.has_ended.swap(true, Ordering::AcqRel) {
            return Err(Error::Published);
        }
        // A short run need not ask twice; that nothing is reported in vain is decided after.
        if self.pulse.has_beaten() {
            self.check((number, name.hash))?;
        }
        let put = self.pulse.place.put(&Name::root(&name), Bytes::from(object));
        if let Err(error) = put.and_then(|()| self.check((number, name.hash))) {
            // The root may be there, or still arrive.
            self.pulse.stop();
            self.mark.keep();
            return Err(error);
        }
        self.writer.lock().published(name.hash);
        self.pulse.advance(seen, (number, name.hash), packs);
        match state {
            RootState::Last => {
                self.pulse.leave();
            }
            RootState::Open => self.has_ended.store(false, Ordering::Release),
        }
        Ok((self.id, number, name.hash))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.has_ended.load(Ordering::Acquire) && !self.pulse.end() {
            self.mark.keep();
        }
        self.pulse.stop();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// A presence of the holder of `secrets`, as an object.
fn named(secrets: &Secrets, presence: &Presence) -> Result<(Name, Bytes)> {
    let object = presence.sign(secrets)?;
    let name = Name::writer(&presence.registration(secrets), presence.beat, &object_hash(&object));
    Ok((name, Bytes::from(object)))
}

impl Pulse {
    fn stop(&self) {
        *self.is_over.lock() = true;
        self.wake.notify_all();
    }

    fn has_beaten(&self) -> bool {
        self.said.lock().presence.beat > 0
    }

    /// From now on the presence says this.
    fn advance(&self, seen: Seen, advance: (u64, RootId), packs: u64) {
        let mut said = self.said.lock();
        said.presence.epochs = seen;
        said.presence.advance = Some(advance);
        said.presence.packs = packs;
    }

    /// Removes the presence; says whether it is gone everywhere. Where it is not, gc sees that the run is over or gives it up.
    fn leave(&self) -> bool {
        self.stop();
        super::delete_presence(&self.place, &self.said.lock().name).is_ok() && self.place.is_complete()
    }

    /// Ends a registration that has not published its last root; says whether nothing tells any more that it is at work.
    fn end(&self) -> bool {
        self.stop();
        let is_silent = self.said.lock().presence.advance.is_none();
        if is_silent && self.leave() {
            return true;
        }
        // Its roots, or places that never delete, go on telling that it is at work.
        self.put_next(WriterState::Over).is_ok()
    }

    /// Puts the next presence, then removes the one before.
    fn put_next(&self, state: WriterState) -> Result<()> {
        let mut said = self.said.lock();
        let presence = Presence {
            beat: said.presence.beat + 1,
            state,
            ..said.presence.clone()
        };
        let (name, object) = named(&self.secrets, &presence)?;
        self.place.put(&name, object)?;
        let before = std::mem::replace(&mut *said, Said { presence, name });
        let _ = super::delete_presence(&self.place, &before.name);
        Ok(())
    }

    /// Renews the presence until the run is over. A beat that fails is silence.
    fn run(&self) {
        let mut is_over = self.is_over.lock();
        while !*is_over {
            if self.wake.wait_for(&mut is_over, BEAT).timed_out() && !*is_over {
                let _ = self.put_next(WriterState::AtWork);
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
    fn new(dir: &Path, id: &RegistrationId) -> Result<Self> {
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
pub(crate) fn is_dead_here(dir: &Path, id: &RegistrationId) -> bool {
    match File::open(dir.join(id.to_string())) {
        Ok(file) => !matches!(file.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))),
        Err(_) => false,
    }
}

/// Forgets marks of writers that are no longer registered; those of runs that live stay.
pub(crate) fn sweep_marks(dir: &Path, is_registered: &dyn Fn(&RegistrationId) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let id = entry.file_name().to_str().and_then(RegistrationId::from_hex);
        if let Some(id) = id
            && !is_registered(&id)
            && is_dead_here(dir, &id)
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}
