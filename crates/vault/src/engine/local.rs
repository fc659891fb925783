//! The engine over the places of a vault.

use std::io::Read;
use std::sync::Arc;

use drystone_format::id::ChunkHasher;
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, RootName};
use drystone_format::{ChunkId, RootId, VaultId};

use super::{EachChunk, Engine, EngineCommit};
use crate::error::Result;
use crate::handle::Handle;
use crate::problem::Problems;
use crate::reading::reader::{Reader, Whereabouts};
use crate::reading::sources::ChunkSource;
use crate::roots::kinds::FoundRoot;
use crate::writing::commit::Commit;
use crate::writing::edit::{EditOptions, EditReport, Edited, OldParts};
use crate::writing::flights::Ticket;
use crate::writing::lane::FillError;

impl Engine for Handle {
    fn id(&self) -> VaultId {
        self.vault().id()
    }

    fn hasher(&self) -> ChunkHasher {
        self.vault().hasher().clone()
    }

    fn has(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        self.vault().catalog()?.contains_many(ids)
    }

    fn whereabouts(&self, of: &RootName, ids: &[ChunkId]) -> Result<Vec<Whereabouts>> {
        let is_forgotten = !self.vault().ledgers.refresh()?.is_live(&of.numbered());
        Handle::reader(self)?.whereabouts(ids, is_forgotten)
    }

    fn get(&self, ids: &[ChunkId], each: &EachChunk<'_>) -> Result<()> {
        Handle::reader(self)?.chunks(ids, each)
    }

    fn reader(&self) -> Result<Reader> {
        Handle::reader(self)
    }

    fn begin(&self) -> Result<Box<dyn EngineCommit>> {
        Ok(Box::new(self.commit()?))
    }

    fn roots(&self, kind: RootKind) -> Result<(Vec<FoundRoot>, Problems)> {
        self.vault().roots(kind)
    }

    fn forget(&self, ids: &[RootId]) -> Result<()> {
        self.vault().forget(ids)
    }

    fn refresh(&self) -> Result<()> {
        Handle::refresh(self)
    }

    fn add_source(&self, source: Arc<dyn ChunkSource>) {
        self.sources().add(source);
    }

    fn remove_source(&self, name: &str) {
        self.sources().remove(name);
    }

    fn take_liars(&self) -> Problems {
        self.sources().take_liars()
    }
}

impl EngineCommit for Commit {
    fn put(&self, chunks: &[&[u8]]) -> Result<Vec<(ChunkId, Ticket)>> {
        chunks.iter().map(|chunk| Commit::put(self, chunk)).collect()
    }

    fn store(&self, content: &mut dyn Read) -> Result<Recipe, FillError> {
        let mut lane = self.lane();
        let mut file = lane.content();
        while file.fill(&mut |room| content.read(room))? > 0 {}
        let recipe = file.finish()?;
        lane.finish()?;
        Ok(recipe)
    }

    fn edit(
        &self,
        old: &mut dyn OldParts,
        new: &mut dyn Edited,
        options: EditOptions,
    ) -> Result<EditReport, FillError> {
        let mut lane = self.lane();
        let report = lane.edit(old, new, options)?;
        lane.finish()?;
        Ok(report)
    }

    fn tree(&self, entries: &mut dyn Iterator<Item = Vec<u8>>) -> Result<Recipe> {
        let (mut lane, mut tree) = (self.lane(), Commit::tree(self));
        for entry in entries {
            tree.push(&mut lane, &entry)?;
        }
        let recipe = tree.finish(&mut lane)?;
        lane.finish()?;
        Ok(recipe)
    }

    fn rely_on(&self, recipe: &Recipe) {
        Commit::rely_on(self, recipe);
    }

    fn wait(&self, tickets: &[Ticket]) -> Result<()> {
        self.wait_for(tickets)
    }

    fn publish(self: Box<Self>, kind: RootKind, payload: &[u8]) -> Result<RootId> {
        Commit::publish(*self, kind, payload)
    }
}
