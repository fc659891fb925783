//! A writer that lives on: threads, packs in the making and one registration, for as many commits as there are.
//!
//! - Its presence moves on by itself, so that gc is not held up by it: with each root, and in between once every few minutes.
//! - A writer that gc has given up, because it was stopped or cut off for long, is never let back. It registers anew; commits under way begin
//!   their work again (`commit.rs`).
//! - Memory is that of one run, however many commits there are, beside what each commit remembers.
//!
//! What may be claimed and reported when is decided in `gc/writer.rs`.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use drystone_format::codec::Compression;
use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::gc::registration::{BEAT, Registration, Work};
use crate::places::allow::Act;
use crate::progress::{Cancel, Progress};
use crate::vault::Vault;
use crate::writing::frame_size::FrameSize;
use crate::writing::ingest::{IngestOptions, Pipeline};
use crate::writing::lane::Lane;
use crate::writing::relied::Relied;
use crate::writing::shared::Shared;

/// How a writer takes data in.
#[derive(Clone)]
pub struct WriterOptions {
    /// How frames are compressed.
    pub compression: Compression,
    /// How large frames become.
    pub frames: FrameSize,
    /// After what time a pack is closed that is not full, counted from its first frame.
    pub pack_age: Duration,
    /// Where stored bytes are counted.
    pub progress: Arc<Progress>,
    /// Stops the writer.
    pub cancel: Cancel,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            compression: Compression::DEFAULT,
            frames: FrameSize::RANDOM,
            pack_age: Duration::from_secs(5),
            progress: Arc::default(),
            cancel: Cancel::default(),
        }
    }
}

/// A lasting writer of one vault. Dropping it says that it is over; what was not published by then is garbage.
pub struct Writer {
    shop: Arc<Shop>,
    upkeep: Option<JoinHandle<()>>,
}

/// What a writer and its commits share.
pub(crate) struct Shop {
    vault: Arc<Vault>,
    pipeline: Pipeline,
    frames: FrameSize,
    registration: Mutex<Arc<Registration>>,
    is_over: Mutex<bool>,
    wake: Condvar,
}

impl Vault {
    /// Starts a writer that lives on; several may do so at once, here and elsewhere.
    ///
    /// What a reader's key signs counts for nobody, so it cannot.
    pub fn writer(self: &Arc<Self>, options: WriterOptions) -> Result<Writer> {
        if !self.role().may_publish() {
            return Err(self.secrets.refused("back up").into());
        }
        self.follow_keys()?;
        self.allow(Act::Store)?;
        let registration = Arc::new(Registration::new(self)?);
        let WriterOptions {
            compression,
            frames,
            pack_age,
            progress,
            cancel,
        } = options;
        let options = IngestOptions {
            compression,
            frames,
            progress,
            cancel,
        };
        let shop = Arc::new(Shop {
            pipeline: self.pipeline(registration.series.clone(), 0, options, Some(pack_age))?,
            vault: self.clone(),
            frames,
            registration: Mutex::new(registration),
            is_over: Mutex::new(false),
            wake: Condvar::new(),
        });
        let kept_up = shop.clone();
        let upkeep = Builder::new().spawn(move || kept_up.keep_up()).map_err(Error::thread)?;
        Ok(Writer {
            shop,
            upkeep: Some(upkeep),
        })
    }
}

impl Writer {
    pub(crate) fn shop(&self) -> &Arc<Shop> {
        &self.shop
    }

    /// Moves the presence of this writer on, and registers anew if gc has given it up. Happens by itself every few minutes.
    pub fn advance(&self) -> Result<()> {
        self.shop.advance()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        *self.shop.is_over.lock() = true;
        self.shop.wake.notify_all();
        if let Some(upkeep) = self.upkeep.take() {
            let _ = upkeep.join();
        }
    }
}

impl Shop {
    pub(crate) fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.pipeline.shared
    }

    /// A lane of a commit that relies on this.
    pub(crate) fn lane(&self, relied: &Arc<Relied>) -> Lane {
        Lane::new(self.shared().clone(), self.frames, Some(relied.clone()))
    }

    /// The most bytes that a chunk of file data may have.
    pub(crate) fn chunk_max_bytes(&self) -> usize {
        self.vault.config().data_sizes.max_bytes() as usize
    }

    /// Begins work under the registration as it is now, or under a new one if nothing more can be published under it.
    pub(crate) fn begin(&self) -> Result<Work> {
        let registration = self.registration.lock().clone();
        if registration.has_ended() {
            return self.register_anew(&registration)?.begin();
        }
        registration.begin()
    }

    /// Begins work again that was begun under a registration of which nothing counts any more.
    pub(crate) fn begin_anew(&self, work: &Work) -> Result<Work> {
        self.register_anew(work.registration())?.begin()
    }

    /// Registers anew, unless another thread has done so since `ended`.
    fn register_anew(&self, ended: &Arc<Registration>) -> Result<Arc<Registration>> {
        let mut registration = self.registration.lock();
        if Arc::ptr_eq(&registration, ended) {
            // The list of packs may be as old as the writer was silent.
            self.vault.fresh_catalog()?;
            *registration = Arc::new(Registration::new(&self.vault)?);
            self.shared().set_series(registration.series.clone());
        }
        Ok(registration.clone())
    }

    pub(crate) fn given_up(&self, work: &Work) -> Error {
        Error::GivenUp {
            id: work.registration().id(),
            place: self.vault.place().to_owned(),
        }
    }

    fn advance(&self) -> Result<()> {
        let registration = self.registration.lock().clone();
        match registration.move_on(&|| self.vault.follow_config()) {
            Err(Error::GivenUp { .. } | Error::Published) => self.register_anew(&registration).map(drop),
            other => other,
        }
    }

    /// Moves the presence on until the writer is over. What fails is silence; the next commit finds out why.
    fn keep_up(&self) {
        let mut is_over = self.is_over.lock();
        while !*is_over {
            if self.wake.wait_for(&mut is_over, BEAT).timed_out() && !*is_over {
                // Not held meanwhile: the place may take its time, and the writer may end.
                parking_lot::MutexGuard::unlocked(&mut is_over, || drop(self.advance()));
            }
        }
    }
}
