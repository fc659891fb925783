//! A vault that stays open for months, beside backups, gc, owners who change keys and places, and places that come and go.
//!
//! - An open [`Vault`] goes by the configuration that it was opened with. A handle opens the vault anew, without unlocking it again, when that
//!   has changed; readers of the vault before go on with it as long as they last.
//! - A commit whose place was given up, or whose writer gc has given up, begins its work again at the places as they are, and is acknowledged
//!   there or not at all.
//! - What a place failed to do in one hour is not held against it in the next: the vault is opened anew also after troubles.

use crate::places::place::TroublesBefore;
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

use drystone_format::ChunkId;
use parking_lot::{Condvar, Mutex};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::gc::registration::BEAT;
use crate::keyring::keys::Unlock;
use crate::places::open::{Sight, Unlocked};
use crate::places::reach::{Connect, Reach, reach_all};
use crate::reading::frames::ChunkBytes;
use crate::reading::reader::Reader;
use crate::reading::sources::Sources;
use crate::vault::Vault;
use crate::writing::commit::{Commit, Home};
use crate::writing::writer::{Shop, Writer, WriterOptions};

/// A lasting handle of a vault. All methods may be called from many threads.
pub struct Handle {
    home: Arc<Keeper>,
    upkeep: Option<JoinHandle<()>>,
}

/// What a handle and its commits share.
struct Keeper {
    connect: Option<Arc<dyn Connect>>,
    options: WriterOptions,
    now: Mutex<Now>,
    is_over: Mutex<bool>,
    wake: Condvar,
    /// Where chunks may lie beside the places.
    sources: Arc<Sources>,
}

/// The vault as it was opened last, and its writer, once there is one.
#[derive(Clone)]
struct Now {
    vault: Arc<Vault>,
    writer: Option<Arc<Writer>>,
}

impl Handle {
    /// Opens a vault as [`Vault::open`] does.
    pub fn open(
        reach: impl Into<Reach>,
        context: Context,
        unlock_with: &Unlock,
        options: WriterOptions,
    ) -> Result<Self> {
        let reach = reach.into();
        let connect = reach.connect.clone();
        let vault = Arc::new(Vault::open(reach, context, unlock_with)?);
        let home = Arc::new(Keeper {
            connect,
            options,
            now: Mutex::new(Now { vault, writer: None }),
            is_over: Mutex::new(false),
            wake: Condvar::new(),
            sources: Arc::default(),
        });
        let kept_up = Arc::downgrade(&home);
        let upkeep = Builder::new()
            .spawn(move || Keeper::keep_up(&kept_up))
            .map_err(Error::thread)?;
        Ok(Self {
            home,
            upkeep: Some(upkeep),
        })
    }

    /// The vault as it is open now. Whoever keeps it for long does not see what owners change.
    pub fn vault(&self) -> Arc<Vault> {
        self.home.now.lock().vault.clone()
    }

    /// Reads chunks, files and trees. A chunk that anybody has kept before it is asked for is found, except where lists lag.
    pub fn reader(&self) -> Result<Reader> {
        Ok(self
            .vault()
            .reader()?
            .following()
            .with_sources(self.home.sources.clone()))
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.home.sources
    }

    /// The plaintext of a chunk.
    pub fn chunk(&self, id: &ChunkId) -> Result<ChunkBytes> {
        self.reader()?.chunk(id)
    }

    /// Begins a commit. The first one registers the handle as a writer.
    pub fn commit(&self) -> Result<Commit> {
        let begin = || self.home.writer()?.commit();
        let commit = match begin() {
            // The vault was opened before an owner changed it.
            Err(Error::PlacesMoved { .. }) => {
                self.home.reopen(&self.vault())?;
                begin()
            }
            commit => commit,
        };
        Ok(commit?.at(self.home.clone()))
    }

    /// Learns of what others have put and changed: epochs, ledgers, keys, the configuration, packs. Opens the vault anew if owners have changed the
    /// configuration, or if a place has failed. Happens by itself every few minutes, and for a commit or a read whenever it must.
    ///
    /// [`Error::KeyRemoved`] if an owner has removed the key: nothing is acknowledged any more.
    pub fn refresh(&self) -> Result<()> {
        self.home.refresh()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        *self.home.is_over.lock() = true;
        self.home.wake.notify_all();
        if let Some(upkeep) = self.upkeep.take() {
            let _ = upkeep.join();
        }
    }
}

impl Keeper {
    /// The writer of the vault as it is open now.
    fn writer(&self) -> Result<Arc<Writer>> {
        let mut now = self.now.lock();
        if now.writer.is_none() {
            now.writer = Some(Arc::new(now.vault.writer(self.options.clone())?));
        }
        now.writer.clone().ok_or(Error::Stopped)
    }

    /// Opens the vault anew, unless another thread has done so since `before`.
    fn reopen(&self, before: &Arc<Vault>) -> Result<()> {
        let mut now = self.now.lock();
        if Arc::ptr_eq(&now.vault, before) {
            let vault = Arc::new(before.open_anew(self.connect.clone())?);
            // The writer ends once its last commit has.
            *now = Now { vault, writer: None };
        }
        Ok(())
    }

    fn refresh(&self) -> Result<()> {
        let vault = self.now.lock().vault.clone();
        vault.follow_notices()?;
        match vault.follow_config() {
            Ok(()) if !vault.has_new_config()? && vault.place.all_there(&TroublesBefore::default()).is_ok() => {}
            Ok(()) | Err(Error::PlacesMoved { .. }) => return self.reopen(&vault),
            Err(error) => return Err(error),
        }
        vault.fresh_catalog().map(drop)
    }

    /// Refreshes until the handle is over. What fails now is tried again later, or shows in what is asked for.
    fn keep_up(home: &Weak<Self>) {
        while let Some(home) = home.upgrade() {
            let mut is_over = home.is_over.lock();
            if !*is_over {
                home.wake.wait_for(&mut is_over, BEAT);
            }
            if *is_over {
                return;
            }
            drop(is_over);
            let _ = home.refresh();
        }
    }
}

impl Home for Keeper {
    /// The vault is opened anew if it is still the one that the commit began with.
    fn writer_after(&self, shop: &Shop) -> Result<Arc<Writer>> {
        self.reopen(shop.vault())?;
        self.writer()
    }
}

impl Vault {
    /// Opens the vault anew from its places as they are known now, with the secrets that are known now.
    fn open_anew(&self, connect: Option<Arc<dyn Connect>>) -> Result<Self> {
        self.refresh_keys()?;
        let there = self.sites.iter().filter_map(|site| site.store.as_ref().ok());
        let mut named: Vec<_> = there.cloned().collect();
        if self.sites.is_empty() {
            named.push(self.place.store().clone());
        }
        let reach = Reach {
            named,
            absent: Vec::new(),
            connect,
        };
        let mut reached = reach_all(&reach, &self.context, &self.secrets)?;
        let place = reached.place.take();
        let unlocked = Unlocked {
            place: place.unwrap_or_else(|| self.place.clone()),
            secrets: self.secrets.clone(),
            slot: self.slot,
            lock: self.slot_source.lock(),
            sight: Sight::Proven,
            named: reach.named.iter().map(|store| store.place().to_owned()).collect(),
            header: self.header().clone(),
            header_bytes: self.header_object(),
            warnings: Vec::new(),
            notes: std::mem::take(&mut reached.notes),
        };
        Self::assemble(unlocked, self.context.clone(), reached)
    }
}
