//! What was copied before: for a recipe of the source, the recipe of the same bytes in the target.
//!
//! - A cache on this machine (`cache/file.rs` of the target), about 200 bytes for each file and directory that was ever copied (I4): what cannot be read or decoded is not there, and what cannot be written is read again by the next copy.
//! - The recipe of a file holds only as long as the target has every chunk of it, which is asked each time.
//! - The recipe of a directory stands for all that is below it: it enters the memo when what it needs is durable, and
//!   holds only within the loss epoch in which its run began.
//! - What this run has copied is known at once: its ingest has promised to store it before anything is published.

use std::collections::HashMap;

use drystone_format::VaultId;
use drystone_format::recipe::{Part, Recipe};
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_index::{StateReader, StateWriter};
use drystone_vault::{Reader, Vault};
use parking_lot::Mutex;

use super::destination::Destination;
use crate::cache::journal::Journal;
use crate::cache::{Key, key};
use crate::error::Result;

/// Memory for what this run has copied, bytes.
const FRESH_BYTES: usize = 16 << 20;
/// Memory of one of these beside its parts, bytes.
const FRESH_HEAD_BYTES: usize = 120;

/// What a recipe is of: the two are cut in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    File,
    Dir,
}

/// What was copied between two vaults. Shared by the threads of a run.
pub(crate) struct Memo<'a> {
    to: &'a Destination<'a>,
    reader: Reader,
    from: VaultId,
    /// Where in the target's state.
    slot: Key,
    /// Loss epoch of the target and number of the run.
    epoch: u64,
    fresh: Mutex<Fresh>,
    dirs: Mutex<Journal>,
    files: Mutex<StateWriter>,
}

#[derive(Default)]
struct Fresh {
    recipes: HashMap<Key, Recipe>,
    bytes: usize,
}

impl<'a> Memo<'a> {
    /// For one run, which must begin its ingest after this.
    pub(crate) fn open(from: &Vault, to: &'a Destination<'a>) -> Result<Self> {
        let mut run = [0; 4];
        let vault = to.vault;
        vault.context().entropy.fill(&mut run);
        let run = u32::from_le_bytes(run);
        let slot = key(&[b"copy", &from.id().0]);
        let path = vault.context().cache_dir.join(format!("copy-{}-{run:08x}", vault.id()));
        Ok(Self {
            to,
            reader: vault.reader()?,
            from: from.id(),
            slot,
            epoch: u64::from(vault.loss_epoch()? as u32) << 32 | u64::from(run),
            fresh: Mutex::default(),
            dirs: Mutex::new(Journal::new(path)),
            files: Mutex::new(to.state.writer(slot)?),
        })
    }

    /// A way into it for one thread.
    pub(crate) fn lookup(&self) -> Result<Lookup<'_>> {
        Ok(Lookup {
            memo: self,
            state: self.to.state.reader()?,
        })
    }

    /// The key of a recipe of the source.
    pub(crate) fn key(&self, of: Of, recipe: &Recipe) -> Key {
        let mut parts = Vec::with_capacity(recipe.parts.len() * 40);
        for part in &recipe.parts {
            match part {
                Part::Chunk { id, .. } => parts.extend_from_slice(&id.0),
                Part::Zeros(_) => parts.push(0),
                Part::Hole(_) => parts.push(1),
            }
            parts.extend_from_slice(&part.bytes().to_le_bytes());
        }
        let head = [of as u8, recipe.depth];
        key(&[&self.from.0, &head, &recipe.size_bytes.to_le_bytes(), &parts])
    }

    /// Remembers that a file was copied whole.
    pub(crate) fn put_file(&self, key: Key, recipe: &Recipe) {
        // Best effort: whoever finds nothing in the memo reads the file.
        let _ = self
            .files
            .lock()
            .put_page(&key, 0, self.epoch, bare(Kind::File(recipe.clone())).encode());
        self.fresh.lock().put(key, recipe);
    }

    /// Remembers that a directory was copied whole, with all that is in it.
    pub(crate) fn put_dir(&self, key: Key, recipe: &Recipe) {
        // As for files.
        let _ = self
            .dirs
            .lock()
            .page(0, &key, 0, &bare(Kind::Dir(recipe.clone())).encode());
        self.fresh.lock().put(key, recipe);
    }

    /// Writes it down; everything that the run has copied must be durable.
    pub(crate) fn keep(self) -> Result<()> {
        self.files.into_inner().finish()?;
        self.dirs.into_inner().add(&self.to.state, self.epoch, self.slot)
    }

    /// Writes down what holds without the run having succeeded.
    pub(crate) fn keep_files(self) -> Result<()> {
        Ok(self.files.into_inner().finish()?)
    }
}

impl Fresh {
    fn put(&mut self, key: Key, recipe: &Recipe) {
        if self.bytes < FRESH_BYTES {
            self.bytes += FRESH_HEAD_BYTES + recipe.parts.len() * size_of::<Part>();
            self.recipes.insert(key, recipe.clone());
        }
    }
}

/// One thread's way into a memo.
pub(crate) struct Lookup<'a> {
    memo: &'a Memo<'a>,
    state: StateReader,
}

impl Lookup<'_> {
    /// The target's recipe, if all that it needs is there.
    pub(crate) fn get(&self, of: Of, key: &Key, size_bytes: u64) -> Result<Option<Recipe>> {
        if let Some(recipe) = self.memo.fresh.lock().recipes.get(key) {
            return Ok(Some(recipe.clone()));
        }
        // Busy or damaged: as if it were empty.
        let Ok(Some((epoch, payload))) = self.state.get_page(&self.memo.slot, key, 0) else {
            return Ok(None);
        };
        let recipe = match Entry::decode(&payload).map(|entry| entry.kind) {
            Ok(Kind::File(recipe)) if of == Of::File && recipe.size_bytes == size_bytes => recipe,
            Ok(Kind::Dir(recipe)) if of == Of::Dir && epoch >> 32 == self.memo.epoch >> 32 => recipe,
            _ => return Ok(None),
        };
        // What is below the first level of a long recipe cannot be seen by a writer.
        if recipe.depth > 0 && !self.memo.to.vault.role().may_read() {
            return Ok(None);
        }
        match self.memo.reader.contains_all(&recipe) {
            Ok(true) => Ok(Some(recipe)),
            Ok(false) => Ok(None),
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// An entry with nothing but its kind.
pub(crate) fn bare(kind: Kind) -> Entry {
    Entry {
        name: b"copy".to_vec(),
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        user: String::new(),
        group: String::new(),
        mtime: Time::default(),
        xattrs: Vec::new(),
        hard_link: None,
        marks: Marks::default(),
        acl_names: Vec::new(),
        unknown: Vec::new(),
    }
}
