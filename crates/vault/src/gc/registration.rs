//! A writer at work: its presence is put before it relies on anything, renewed while it lasts, and removed at its end.
//!
//! - Its id commits to the key of this credential and to a random nonce. It may publish many roots, one after the other; the last one says so.
//! - What one root will name is a group of work. A statement claims only the epochs that every group under way honours ([`Writer::claims`]).
//! - A root is reported after one look at the epochs. If an epoch stands that the writer does not know, it looks at ledgers and configuration too.
//! - A run whose root may still arrive (the place did not answer) leaves its presence; gc gives it up in the end.
//! - The presence before the last stays until every list shows the last.
//! - A local file is locked as long as the process lives: of a process that is gone, gc on this machine need not wait.

use crate::places::place::TroublesBefore;
use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drystone_format::id::object_hash;
use drystone_format::index_part::{IndexPart, Numbered, seal_part};
use drystone_format::keys::Secrets;
use drystone_format::limits::FORMAT_VERSION;
use drystone_format::presence::{Presence, WriterState};
use drystone_format::root::{NewRoot, RootKind, RootName, RootState, root_name, seal_root};
use drystone_format::{Random, RegistrationId, RootId, random};
use drystone_store::Name;
use parking_lot::{Condvar, Mutex};

use crate::catalog::Catalog;
use crate::context::Source;
use crate::error::{Error, Result};
use crate::gc::deletion::delete_presence;
use crate::gc::epochs::Epochs;
use crate::gc::protocol::{Group, Standing, Writer};
use crate::places::place::Place;
use crate::roots::ledgers::Ledgers;
use crate::vault::Vault;
use crate::writing::series::PackSeries;

/// How often a run renews its presence: rarely enough to cost nothing.
pub(crate) const BEAT: Duration = Duration::from_secs(300);

pub(crate) struct Registration {
    id: RegistrationId,
    writer: Mutex<Writer>,
    epochs: Arc<Epochs>,
    ledgers: Arc<Ledgers>,
    catalog: Arc<Catalog>,
    has_ended: AtomicBool,
    /// Held while a root is published: roots are numbered one after the other.
    publishing: Mutex<()>,
    /// When the epochs were looked at last.
    looked: Mutex<Instant>,
    /// An epoch stands that is newer than the list of packs.
    is_behind: AtomicBool,
    pulse: Arc<Pulse>,
    thread: Mutex<Option<JoinHandle<()>>>,
    mark: Mark,
    /// Numbers the packs of the run.
    pub(crate) series: Arc<PackSeries>,
}

/// Work that one root will name. Dropping it gives the work up, unless a root names it by then.
#[derive(Debug)]
pub(crate) struct Work {
    registration: Arc<Registration>,
    group: Group,
}

impl Work {
    pub(crate) fn registration(&self) -> &Arc<Registration> {
        &self.registration
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.registration.writer.lock().end(self.group);
    }
}

/// What a root says, and which work it names.
pub(crate) struct Publication<'a> {
    pub(crate) kind: RootKind,
    pub(crate) payload: &'a [u8],
    pub(crate) state: RootState,
    pub(crate) work: &'a Work,
    pub(crate) index_part: Option<&'a IndexPart>,
}

/// What the run shares with the thread that renews its presence.
struct Pulse {
    place: Place,
    /// What was wrong with the places before the registration began.
    troubles: TroublesBefore,
    secrets: Arc<Secrets>,
    said: Mutex<Said>,
    is_over: Mutex<bool>,
    wake: Condvar,
}

/// The last statement.
struct Said {
    presence: Presence,
    name: Name,
    /// Presences before it, and when each was replaced.
    before: VecDeque<(Name, Instant)>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registration").field(&self.id).finish()
    }
}

impl Registration {
    /// Registers, reads the epochs and then the configuration, and makes sure that the catalog is no older than any deletion they do not show.
    ///
    /// An error if an owner has removed the key or a place since the vault was opened: see [`Vault::follow_config`].
    pub(crate) fn new(vault: &Vault) -> Result<Self> {
        let catalog = vault.catalog()?.clone();
        let mut presence = Presence {
            nonce: random::array(&mut Source(&*vault.context.entropy)),
            ..Presence::default()
        };
        let id = presence.registration(&vault.secrets);
        let writer = Writer::new(id, (*catalog.synced_with()).clone());
        presence.epochs = writer.claims(&[]);
        let (name, object) = named(&vault.secrets, &presence)?;
        let pulse = Arc::new(Pulse {
            place: vault.place.clone(),
            troubles: vault.place.troubles_before(),
            secrets: vault.secrets.clone(),
            said: Mutex::new(Said {
                presence,
                name: name.clone(),
                before: VecDeque::new(),
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
            catalog,
            has_ended: AtomicBool::new(false),
            publishing: Mutex::new(()),
            looked: Mutex::new(Instant::now()),
            is_behind: AtomicBool::new(false),
            pulse,
            thread: Mutex::new(Some(thread)),
            mark,
            series,
        };
        let standing = registration.epochs.refresh()?;
        if registration.writer.lock().is_behind(&standing) {
            registration.is_behind.store(true, Ordering::Release);
        }
        // After the epochs that it claims were read: an owner who changes the configuration puts an epoch after it.
        vault.follow_config()?;
        Ok(registration)
    }

    /// Begins work that one root will name. Lists the packs before that if an epoch was found that the writer did not know.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Work> {
        self.catch_up()?;
        let group = self.writer.lock().begin(self.series.begun());
        let registration = self.clone();
        Ok(Work { registration, group })
    }

    /// Lists the packs again if an epoch was found that the writer did not know, and honours all epochs that were read before that.
    fn catch_up(&self) -> Result<()> {
        if self.is_behind.load(Ordering::Acquire) {
            self.catalog.refresh()?;
            let synced = self.catalog.synced_with();
            let mut writer = self.writer.lock();
            writer.renew(&synced);
            writer.forget_gone(&synced);
            self.is_behind.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Returns true if nothing more can be published under this registration.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Looks at the epochs, honours them, and puts a presence that claims what all work under way honours.
    ///
    /// [`Error::GivenUp`] if gc took the run for dead: nothing more can be published then.
    pub(crate) fn move_on(&self, follow_config: &dyn Fn() -> Result<()>) -> Result<()> {
        let _one_at_a_time = self.publishing.lock();
        if self.has_ended() {
            return Err(Error::Published);
        }
        let standing = self.look(follow_config)?;
        if self.writer.lock().is_fenced(&standing) {
            return Err(self.end_given_up());
        }
        self.catch_up()?;
        self.pulse.claim(&self.writer.lock());
        self.pulse.put_next(WriterState::AtWork)
    }

    /// Ends a registration of which nothing counts any more.
    fn end_given_up(&self) -> Error {
        self.has_ended.store(true, Ordering::Release);
        self.pulse.stop();
        Error::GivenUp {
            id: self.id,
            place: self.pulse.place.name().to_owned(),
        }
    }

    pub(crate) fn id(&self) -> RegistrationId {
        self.id
    }

    /// The epochs as they stand now. If one stands that the writer does not know, reads the ledgers too, and calls `follow_config`.
    fn look(&self, follow_config: &dyn Fn() -> Result<()>) -> Result<Arc<Standing>> {
        let standing = self.epochs.refresh()?;
        *self.looked.lock() = Instant::now();
        if !self.writer.lock().is_behind(&standing) {
            return Ok(standing);
        }
        self.is_behind.store(true, Ordering::Release);
        self.ledgers.refresh()?;
        let standing = self.epochs.follow(&self.ledgers);
        follow_config()?;
        Ok(standing)
    }

    /// Looks at the epochs. [`Error::GivenUp`] if gc took the run for dead, or closed the number of this root.
    fn check(&self, root: (u64, RootId), follow_config: &dyn Fn() -> Result<()>) -> Result<()> {
        let standing = self.look(follow_config)?;
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
    /// `follow_config` is an error if the configuration is no longer one that the run may publish under. After [`RootState::Last`], or an error
    /// once the root may have been put, nothing more can be published.
    pub(crate) fn publish(
        &self,
        publication: &Publication<'_>,
        follow_config: &dyn Fn() -> Result<()>,
        random: &mut dyn Random,
    ) -> Result<(RegistrationId, u64, RootId)> {
        let _one_at_a_time = self.publishing.lock();
        if self.has_ended.load(Ordering::Acquire) {
            return Err(Error::Published);
        }
        // A key may have been removed meanwhile: then the root is sealed in the new key epoch. A handle that publishes often has just looked.
        if publication.state == RootState::Last || self.looked.lock().elapsed() > BEAT {
            self.look(follow_config)?;
        }
        let mut sealed = self.seal(publication, random)?;
        let root = (sealed.name.number, sealed.name.hash);
        let put = self
            .pulse
            .place
            .put(&Name::root(&sealed.name), std::mem::take(&mut sealed.object));
        if let Err(error) = put.and_then(|()| self.check(root, follow_config)) {
            // The root may be there, or still arrive.
            self.has_ended.store(true, Ordering::Release);
            self.pulse.stop();
            self.mark.keep();
            return Err(error);
        }
        let mut writer = self.writer.lock();
        writer.published(root.1, &[publication.work.group]);
        self.pulse.advance(&writer, sealed.packs);
        drop(writer);
        if publication.state == RootState::Last {
            self.has_ended.store(true, Ordering::Release);
            self.pulse.leave();
        }
        Ok((self.id, root.0, root.1))
    }

    /// Makes the object of the next root.
    fn seal(&self, publication: &Publication<'_>, random: &mut dyn Random) -> Result<SealedRoot> {
        let Publication {
            kind,
            payload,
            state,
            work,
            index_part,
        } = publication;
        let writer = self.writer.lock().clone();
        let (nonce, number) = (self.pulse.said.lock().presence.nonce, writer.next_number());
        let packs = writer.published_packs(&[work.group], self.series.begun());
        let of = Numbered {
            registration: nonce,
            number,
        };
        let secrets = &self.pulse.secrets;
        let part = index_part.filter(|part| part.packs().len() > 0);
        let part = part.map(|part| seal_part(secrets, FORMAT_VERSION, &of, part, random));
        let part = part.transpose()?;
        let root = NewRoot {
            kind: *kind,
            nonce,
            number,
            previous: writer.advance().map(|(_, hash)| hash),
            state: *state,
            epochs: &writer.claims(&[work.group]),
            ledgers: &self.ledgers.view().newest,
            packs,
            payload,
            index_part: part.as_deref(),
        };
        let object = seal_root(secrets, &root, random)?;
        let name = root_name(secrets, &root, &object);
        let object = Bytes::from(object);
        Ok(SealedRoot { name, object, packs })
    }
}

/// A root on its way to the place.
struct SealedRoot {
    name: RootName,
    object: Bytes,
    packs: u64,
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

    /// From now on the presence says that this was published.
    fn advance(&self, writer: &Writer, packs: u64) {
        self.claim(writer);
        let presence = &mut self.said.lock().presence;
        presence.advance = writer.advance();
        presence.packs = packs;
    }

    /// From now on the presence claims what all work under way honours.
    fn claim(&self, writer: &Writer) {
        self.said.lock().presence.epochs = writer.claims(&[]);
    }

    /// Removes the presences; says whether they are gone everywhere. Where one is not, gc sees that the run is over or gives it up.
    fn leave(&self) -> bool {
        self.stop();
        let said = self.said.lock();
        let before = said.before.iter().map(|(name, _)| name);
        let left = before
            .chain([&said.name])
            .map(|name| delete_presence(&self.place, name));
        left.fold(true, |all, gone| all & gone.is_ok()) && self.place.is_complete(&self.troubles)
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

    /// Puts the next presence. Removes those before it that no list can show without a later one.
    fn put_next(&self, state: WriterState) -> Result<()> {
        let mut said = self.said.lock();
        let presence = Presence {
            beat: said.presence.beat + 1,
            state,
            ..said.presence.clone()
        };
        let (name, object) = named(&self.secrets, &presence)?;
        self.place.put(&name, object)?;
        let replaced = std::mem::replace(&mut said.name, name);
        said.presence = presence;
        said.before.push_back((replaced, Instant::now()));
        let shown_after = self.place.shown_after();
        while let Some((name, since)) = said.before.pop_front() {
            if since.elapsed() < shown_after {
                said.before.push_front((name, since));
                break;
            }
            let _ = delete_presence(&self.place, &name);
        }
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
