//! A stored tree in depth-first order, on an explicit stack: what restoring, listing, finding and dumping have in common.
//!
//! - Memory is bounded whatever the depth: only the innermost directories keep their streams open, outer ones are
//!   read again up to where they were left.
//! - A directory whose tree is damaged ends there; the walk goes on beside it.
//! - Deeper than `TREE_DEPTH_MAX` nothing is read, and no more than is allowed.

use drystone_format::limits::TREE_DEPTH_MAX;
use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind};
use drystone_vault::{Reader, TreeReader};

use crate::browse::allowance::Allowance;
use crate::error::{Error, Result};

/// Directories that keep their streams open, each up to about 60 KiB.
const OPEN_STREAMS: usize = 256;

/// The entries of one directory; can be put aside and taken up again.
pub(crate) struct Entries {
    recipe: Recipe,
    stream: Option<TreeReader>,
    last: Vec<u8>,
    over: bool,
}

impl Entries {
    pub(crate) fn new(recipe: &Recipe) -> Self {
        Self {
            recipe: recipe.clone(),
            stream: None,
            last: Vec::new(),
            over: false,
        }
    }

    /// The next entry by name. After damage the directory is over.
    pub(crate) fn next(&mut self, reader: &Reader) -> Result<Option<Entry>> {
        while !self.over {
            let stream = self.stream.get_or_insert_with(|| reader.tree(&self.recipe));
            match stream.next() {
                Some(Ok(entry)) if entry.name <= self.last => {}
                Some(Ok(entry)) => {
                    self.last.clone_from(&entry.name);
                    return Ok(Some(entry));
                }
                Some(Err(error)) => {
                    self.finish();
                    return Err(error.into());
                }
                None => self.finish(),
            }
        }
        Ok(None)
    }

    fn finish(&mut self) {
        self.over = true;
        self.stream = None;
    }

    /// Frees what it holds in memory, at the cost of reading again.
    pub(crate) fn park(&mut self) {
        self.stream = None;
    }
}

/// What a walk comes to.
pub(crate) enum Step {
    /// Anything but a directory.
    Entry(Entry),
    /// A directory; what is in it follows, then [`Step::Leave`], unless [`TreeWalk::skip`] is called.
    Enter(Entry),
    /// The end of the directory that was entered last.
    Leave,
}

/// A depth-first walk.
pub(crate) struct TreeWalk {
    reader: Reader,
    stack: Vec<Entries>,
    path: Vec<u8>,
    /// Length of the path of the directory whose entries come next.
    parent: usize,
    /// What may still follow; none if that does not matter.
    allowance: Option<Allowance>,
}

impl TreeWalk {
    /// Walks what is in the directory of this recipe.
    pub(crate) fn new(reader: &Reader, recipe: &Recipe) -> Self {
        Self {
            reader: reader.clone(),
            stack: vec![Entries::new(recipe)],
            path: Vec::new(),
            parent: 0,
            allowance: None,
        }
    }

    /// Ends with [`Error::MoreThanStated`] where the tree turns out to hold more than this.
    pub(crate) fn within(self, allowance: Option<Allowance>) -> Self {
        Self { allowance, ..self }
    }

    /// Path of the last entry given out (or of the directory left, or damaged), relative to the start.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Leaves out what is in the directory that was entered just now, its `Leave` too.
    pub(crate) fn skip(&mut self) {
        self.close();
    }

    fn close(&mut self) {
        self.stack.pop();
        self.parent = self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    }

    /// The next step; `None` at the end. After an error that is damage the walk goes on after it.
    pub(crate) fn next(&mut self) -> Result<Option<Step>> {
        self.path.truncate(self.parent);
        let Some(top) = self.stack.last_mut() else {
            return Ok(None);
        };
        let Some(entry) = top.next(&self.reader)? else {
            self.close();
            return Ok((!self.stack.is_empty()).then_some(Step::Leave));
        };
        if let Some(allowance) = &mut self.allowance {
            allowance.take(&entry)?;
        }
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(&entry.name);
        let Kind::Dir(recipe) = &entry.kind else {
            return Ok(Some(Step::Entry(entry)));
        };
        if self.stack.len() >= TREE_DEPTH_MAX {
            return Err(Error::TooDeep {
                path: self.path.clone(),
            });
        }
        self.stack.push(Entries::new(recipe));
        self.parent = self.path.len();
        let outer = self.stack.len().checked_sub(OPEN_STREAMS);
        if let Some(outer) = outer.and_then(|at| self.stack.get_mut(at)) {
            outer.park();
        }
        Ok(Some(Step::Enter(entry)))
    }
}
