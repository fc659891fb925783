//! One commit of a lasting writer: chunks and files that one root will name.
//!
//! - A chunk is *durable* once its pack is at its places and in the index; a [`Ticket`] tells. What a door acknowledges must be *kept*: durable, and
//!   named by a root that counts. [`Commit::publish`] returns then and not before.
//! - Commits of one writer share lanes' frames, packs and requests, so a chunk that another commit is storing is not stored twice: who needs it
//!   waits for it.
//! - A commit remembers what it relies on, stored by itself or not, until it is published. If gc gives the writer up meanwhile, all of that is
//!   looked for again under a new registration.

use std::collections::BTreeSet;
use std::sync::Arc;

use drystone_format::index_part::IndexPart;
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, RootState};
use drystone_format::seal::PackKind;
use drystone_format::{ChunkId, RootId};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::gc::registration::{Publication, Work};
use crate::writing::flights::{FrameId, Ticket};
use crate::writing::lane::{Lane, TreeWriter};
use crate::writing::relied::{Everything, Relied};
use crate::writing::writer::{Shop, Writer};

/// How often a commit begins anew before its writer is given up for good.
const ANEW_MAX: u32 = 3;

/// What a commit belongs to that opens the vault anew where its places have moved.
pub(crate) trait Home: Send + Sync {
    /// The writer for a commit whose own is of no use any more.
    fn writer_after(&self, shop: &Shop) -> Result<Arc<Writer>>;
}

/// A commit under way. May be used from many threads; dropping it gives its work up.
pub struct Commit {
    /// The handle that the commit belongs to, if there is one: it knows what to do when places have moved.
    home: Option<Arc<dyn Home>>,
    shop: Arc<Shop>,
    work: Work,
    relied: Arc<Relied>,
    lane: Mutex<Lane>,
}

impl Writer {
    /// Begins a commit. Reads what gc has condemned meanwhile, if the last root or beat found anything new.
    pub fn commit(&self) -> Result<Commit> {
        Ok(Commit::new(self.shop().clone(), self.shop().begin()?))
    }
}

impl Commit {
    pub(crate) fn new(shop: Arc<Shop>, work: Work) -> Self {
        let relied = Arc::new(Relied::default());
        let lane = shop.lane(&relied);
        Self {
            home: None,
            shop,
            work,
            relied,
            lane: Mutex::new(lane),
        }
    }

    /// The same, as a commit of a handle.
    pub(crate) fn at(mut self, home: Arc<dyn Home>) -> Self {
        self.home = Some(home);
        self
    }

    /// A lane of one thread for files and trees of this commit. It must be finished, or dropped, before the commit is published.
    pub fn lane(&self) -> Lane {
        self.shop.lane(&self.relied)
    }

    /// A writer of one directory's tree; its chunks go through whatever lane of this commit it is given.
    pub fn tree(&self) -> TreeWriter {
        TreeWriter::new(self.shop.shared())
    }

    /// Stores one chunk as it is, unless the vault has it or another commit is storing it. Returns its id, and when it is durable.
    ///
    /// [`Error::ChunkSize`] if it is empty or has more bytes than the vault's chunks may have.
    pub fn put(&self, chunk: &[u8]) -> Result<(ChunkId, Ticket)> {
        let max_bytes = self.shop.chunk_max_bytes();
        if chunk.is_empty() || chunk.len() > max_bytes {
            return Err(Error::ChunkSize {
                bytes: chunk.len(),
                max_bytes,
            });
        }
        self.lane.lock().put_chunk(PackKind::Data, chunk)
    }

    /// Relies on all that a recipe leads to, which some root names by now. The recipe of a directory stands for its own stream alone.
    pub fn rely_on(&self, recipe: &Recipe) {
        self.relied.add_recipe(recipe.clone());
    }

    /// Returns true if the chunk of this ticket is durable and in the index.
    pub fn is_durable(&self, ticket: &Ticket) -> bool {
        let mut frames: BTreeSet<FrameId> = ticket.0.into_iter().collect();
        self.shop.shared().flights.retain(&mut frames);
        frames.is_empty()
    }

    /// Waits until the chunk of this ticket is durable. Has its pack closed, also where another commit fills it.
    pub fn wait(&self, ticket: &Ticket) -> Result<()> {
        self.shop.shared().flush(ticket.0.into_iter().collect())
    }

    /// The same of many chunks.
    pub(crate) fn wait_for(&self, tickets: &[Ticket]) -> Result<()> {
        let frames = tickets.iter().filter_map(|ticket| ticket.0);
        self.shop.shared().flush(frames.collect())
    }

    /// Waits until everything that this commit relies on is durable.
    pub fn flush(&self) -> Result<()> {
        self.shop.shared().flush(self.relied.frames())
    }

    /// Makes everything durable, publishes a root that names it, and makes sure that the root counts: what the root keeps alive is kept when this
    /// returns. If gc has given the writer up, it registers anew, stores again what is gone meanwhile, and publishes again.
    ///
    /// [`Error::GivenUp`] if that did not help, or if the commit relies on too much to remember. [`Error::KeyRemoved`] and [`Error::PlacesMoved`]
    /// if an owner has removed the key or a place: the vault must be opened again, which a commit of a [`Handle`](crate::Handle) does itself
    /// where a place is gone. After any error nothing was acknowledged, and the root may be there all the same.
    pub fn publish(mut self, kind: RootKind, payload: &[u8]) -> Result<RootId> {
        self.shop.vault().may_publish_kind(kind)?;
        self.flush()?;
        let part = self.shop.shared().take_part();
        let mut published = self.publish_once(kind, payload, part.as_ref());
        for _ in 0..ANEW_MAX {
            let writer = match (published, &self.home) {
                (Err(Error::GivenUp { .. } | Error::Published), _) => None,
                (Err(Error::PlacesMoved { .. }), Some(home)) => Some(home.writer_after(&self.shop)?),
                (published, _) => return published,
            };
            let begun = self.begin_anew(writer);
            published = begun.and_then(|()| self.publish_once(kind, payload, part.as_ref()));
        }
        published
    }

    fn publish_once(&self, kind: RootKind, payload: &[u8], index_part: Option<&IndexPart>) -> Result<RootId> {
        self.shop.vault().publish_work(&Publication {
            kind,
            payload,
            state: RootState::Open,
            work: &self.work,
            index_part,
        })
    }

    /// Begins the work of this commit again under another registration, or by another writer: looks for all that it relies on, and stores again
    /// what is gone.
    fn begin_anew(&mut self, writer: Option<Arc<Writer>>) -> Result<()> {
        let before = self.shop.vault().reader()?;
        match writer {
            Some(writer) => {
                self.shop = writer.shop().clone();
                self.work = self.shop.begin()?;
            }
            None => self.work = self.shop.begin_anew(&self.work)?,
        }
        let all = self.relied.all.lock().take();
        let Everything { chunks, recipes } = all.ok_or_else(|| self.shop.given_up(&self.work))?;
        let (reader, shared) = (self.shop.vault().reader()?, self.shop.shared().clone());
        let relied = Arc::new(Relied::default());
        let mut lane = self.shop.lane(&relied);
        for id in &chunks {
            if !shared.admit.has(id)? {
                // It may still be there, in a pack that is condemned, or at a place that was given up.
                let chunk = reader.chunk(id).or_else(|_| before.chunk(id))?;
                lane.put_chunk(PackKind::Data, &chunk)?;
            } else {
                relied.remember(|all| all.chunks.push(*id));
            }
        }
        for recipe in recipes {
            if !reader.contains_all(&recipe)? {
                return Err(self.shop.given_up(&self.work));
            }
            relied.add_recipe(recipe);
        }
        lane.finish()?;
        self.relied = relied;
        self.lane = Mutex::new(self.shop.lane(&self.relied));
        self.flush()
    }
}
