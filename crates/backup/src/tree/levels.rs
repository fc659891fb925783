//! The directories of a tree that is being put together: entries in order into trees, trees into entries of the tree above.
//!
//! - An explicit stack, since trees may be deeper than a thread's stack.

use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind};
use drystone_vault::{Ingest, Lane, TreeWriter};

use crate::error::Result;

/// Into what a tree is put.
pub(crate) struct Target<'a> {
    pub(crate) ingest: &'a Ingest,
    pub(crate) lane: Lane,
}

/// A directory that is being put together.
struct Level<T> {
    head: Entry,
    /// None if nothing is stored.
    tree: Option<TreeWriter>,
    path_bytes: usize,
    with: T,
}

/// A directory that is complete.
pub(crate) struct Left<T> {
    /// Its recipe; none if nothing is stored.
    pub(crate) recipe: Option<Recipe>,
    /// Its entry in the directory above; empty if there is none, or nothing is stored.
    pub(crate) entry: Vec<u8>,
    /// What it was entered with.
    pub(crate) with: T,
}

/// The directories that are being put together, the innermost last, each with something of the caller's.
pub(crate) struct Levels<'a, T> {
    /// None if nothing is stored.
    target: Option<Target<'a>>,
    levels: Vec<Level<T>>,
    path: Vec<u8>,
}

impl<'a, T> Levels<'a, T> {
    pub(crate) fn new(target: Option<Target<'a>>) -> Self {
        Self {
            target,
            levels: Vec::new(),
            path: Vec::new(),
        }
    }

    /// Whether anything is stored.
    pub(crate) fn stores(&self) -> bool {
        self.target.is_some()
    }

    /// Whether no directory is being put together.
    pub(crate) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Path of the innermost directory from that of the outermost, each name after a slash.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What the innermost directory was entered with.
    pub(crate) fn last(&self) -> Option<&T> {
        self.levels.last().map(|level| &level.with)
    }

    /// The same, to be changed.
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        self.levels.last_mut().map(|level| &mut level.with)
    }

    /// What follows is in this directory.
    pub(crate) fn enter(&mut self, head: Entry, with: T) {
        let path_bytes = self.path.len();
        if !self.levels.is_empty() {
            self.path.push(b'/');
            self.path.extend_from_slice(&head.name);
        }
        self.levels.push(Level {
            head,
            tree: self.target.as_ref().map(|target| target.ingest.tree()),
            path_bytes,
            with,
        });
    }

    /// Puts an entry into the innermost directory.
    pub(crate) fn push(&mut self, encoded: &[u8]) -> Result<()> {
        if let (Some(target), Some(level)) = (&mut self.target, self.levels.last_mut())
            && let Some(tree) = &mut level.tree
        {
            tree.push(&mut target.lane, encoded)?;
        }
        Ok(())
    }

    /// Completes the innermost directory, and puts it with `marks` into the one above; `None` if there is none.
    pub(crate) fn leave(&mut self, marks: u64) -> Result<Option<Left<T>>> {
        let Some(Level {
            mut head,
            tree,
            path_bytes,
            with,
        }) = self.levels.pop()
        else {
            return Ok(None);
        };
        self.path.truncate(path_bytes);
        let (Some(target), Some(tree)) = (&mut self.target, tree) else {
            return Ok(Some(Left {
                recipe: None,
                entry: Vec::new(),
                with,
            }));
        };
        let recipe = tree.finish(&mut target.lane)?;
        let mut entry = Vec::new();
        if !self.levels.is_empty() {
            head.kind = Kind::Dir(recipe.clone());
            head.marks.0 |= marks;
            entry = head.encode();
            self.push(&entry)?;
        }
        Ok(Some(Left {
            recipe: Some(recipe),
            entry,
            with,
        }))
    }

    /// Hands over what has not left the lane.
    pub(crate) fn finish(self) -> Result<()> {
        match self.target {
            Some(target) => Ok(target.lane.finish()?),
            None => Ok(()),
        }
    }
}
