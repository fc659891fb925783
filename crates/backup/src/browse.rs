//! Looking into a snapshot: finding a path in it, listing directories.
//!
//! - Paths are those of the backed-up system, from its root; symbolic links are not followed.
//! - Listings stream: memory does not grow with the tree.

pub(crate) mod allowance;
pub(crate) mod diff;
pub(crate) mod find;
pub(crate) mod walk;

use drystone_format::recipe::Recipe;
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::{Entry, Kind};
use drystone_vault::Reader;

use crate::browse::walk::{Entries, Step, TreeWalk};
use crate::error::{Error, Result};

/// What was chosen of a snapshot: the place where listing, restoring, comparing or dumping begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    path: Vec<u8>,
    start: Start,
    lost: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    Whole(Recipe),
    Entry(Box<Entry>),
}

impl Selection {
    /// All of a snapshot.
    pub fn whole(snapshot: &Snapshot) -> Self {
        Self {
            path: Vec::new(),
            start: Start::Whole(snapshot.tree.clone()),
            lost: snapshot.lost(),
        }
    }

    /// What lies under an absolute path (empty or `/` is everything); repeated and final slashes do not count.
    ///
    /// [`Error::NotFound`] if nothing does, [`Error::WrongKind`] if the path goes through something that is no directory.
    pub fn find(reader: &Reader, snapshot: &Snapshot, path: &[u8]) -> Result<Self> {
        let mut selection = Self::whole(snapshot);
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let Some(tree) = selection.tree() else {
                return Err(Error::WrongKind {
                    path: selection.path,
                    wanted: "directory",
                });
            };
            let mut entries = Entries::new(tree);
            let entry = loop {
                match entries.next(reader)? {
                    Some(entry) if entry.name == name => break entry,
                    Some(entry) if entry.name.as_slice() < name => {}
                    _ => return Err(Error::NotFound { path: path.to_vec() }),
                }
            };
            selection.path.push(b'/');
            selection.path.extend_from_slice(name);
            selection.start = Start::Entry(Box::new(entry));
            selection.lost = 0;
        }
        Ok(selection)
    }

    /// Its absolute path on the backed-up system; empty for all of a snapshot.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns how many entries a whole snapshot lost when it was copied. A part of one has 0: its entries say it.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Its entry; none for all of a snapshot, whose root directory has no attributes.
    pub fn entry(&self) -> Option<&Entry> {
        match &self.start {
            Start::Whole(_) => None,
            Start::Entry(entry) => Some(entry),
        }
    }

    /// The tree, if it is a directory.
    pub fn tree(&self) -> Option<&Recipe> {
        match &self.start {
            Start::Whole(tree) => Some(tree),
            Start::Entry(entry) => match &entry.kind {
                Kind::Dir(tree) => Some(tree),
                _ => None,
            },
        }
    }

    /// The content, if it is a regular file; else [`Error::WrongKind`].
    pub fn content(&self) -> Result<&Recipe> {
        match &self.start {
            Start::Entry(entry) if matches!(entry.kind, Kind::File(_)) => entry.recipe(),
            _ => None,
        }
        .ok_or_else(|| Error::WrongKind {
            path: self.path.clone(),
            wanted: match self.tree() {
                Some(_) => "regular file but a directory; `drystone dump` writes it as tar",
                None => "regular file",
            },
        })
    }
}

/// How deep a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// The entries of the directory itself.
    #[default]
    One,
    /// Everything below it.
    All,
}

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Absolute path on the backed-up system.
    pub path: Vec<u8>,
    /// What is there.
    pub entry: Entry,
}

/// A listing, depth first, each directory before what is in it and its names in byte order.
///
/// An error that [is damage](Error::is_damage) ends one directory, and the listing goes on; any other ends it.
pub struct List {
    walk: Option<TreeWalk>,
    single: Option<Entry>,
    base: Vec<u8>,
    depth: Depth,
}

impl List {
    /// Lists a directory, or the one entry that was selected.
    pub fn new(reader: &Reader, selection: &Selection, depth: Depth) -> Self {
        let walk = selection.tree().map(|tree| TreeWalk::new(reader, tree));
        Self {
            single: if walk.is_none() {
                selection.entry().cloned()
            } else {
                None
            },
            walk,
            base: selection.path.clone(),
            depth,
        }
    }

    /// Path of what was listed last, or of the directory that an error was met in.
    pub fn path(&self) -> Vec<u8> {
        let walked = self.walk.as_ref().map(TreeWalk::path).unwrap_or_default();
        if walked.is_empty() {
            return self.base.clone();
        }
        [&self.base, b"/".as_slice(), walked].concat()
    }

    fn advance(&mut self) -> Result<Option<Listed>> {
        if let Some(entry) = self.single.take() {
            let path = self.base.clone();
            return Ok(Some(Listed { path, entry }));
        }
        loop {
            let Some(walk) = &mut self.walk else { return Ok(None) };
            let entry = match walk.next()? {
                None => return Ok(None),
                Some(Step::Leave) => continue,
                Some(Step::Entry(entry)) => entry,
                Some(Step::Enter(entry)) => {
                    let path = [&self.base, b"/".as_slice(), walk.path()].concat();
                    if self.depth == Depth::One {
                        walk.skip();
                    }
                    return Ok(Some(Listed { path, entry }));
                }
            };
            let path = self.path();
            return Ok(Some(Listed { path, entry }));
        }
    }
}

impl Iterator for List {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Result<Listed>> {
        let next = self.advance();
        if next.as_ref().is_err_and(|error| !error.is_damage()) {
            self.walk = None;
        }
        next.transpose()
    }
}
