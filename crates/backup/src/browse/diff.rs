//! Comparing two stored trees, descending only where they differ.
//!
//! - Equal directories have equal recipes (of one vault), so the cost is that of the changes.
//! - Explicit stack, streaming: memory does not grow with the trees.

use std::cmp::Ordering;

use drystone_format::limits::TREE_DEPTH_MAX;
use drystone_format::tree::{Entry, Kind};
use drystone_vault::{Cancel, Reader};

use crate::browse::Selection;
use crate::browse::walk::Entries;
use crate::error::{Error, Result};

/// Pairs of directories whose streams stay open.
const OPEN_PAIRS: usize = 128;

/// How an entry changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// It is of another type.
    Kind,
    /// Its content (or link target, or device number), and perhaps attributes.
    Content,
    /// Owner, mode, times or extended attributes only.
    Attributes,
}

/// A difference and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path relative to what was compared.
    pub path: Vec<u8>,
    /// What changed.
    pub difference: Difference,
    /// The entry in the first.
    pub before: Option<Entry>,
    /// The entry in the second.
    pub after: Option<Entry>,
}

/// The differences of two selections, in order of their paths; all entries of added and removed directories are listed.
///
/// An error that [is damage](Error::is_damage) ends one pair of directories; any other ends the comparison.
pub struct Diff {
    first: Reader,
    second: Reader,
    stack: Vec<Pair>,
    path: Vec<u8>,
    over: bool,
    single: Option<Change>,
    cancel: Cancel,
}

/// The two sides of a directory, of which one may be missing.
struct Pair {
    first: Side,
    second: Side,
    parent_bytes: usize,
}

/// A side of a pair and the entry that it stands at.
struct Side {
    entries: Option<Entries>,
    next: Option<Entry>,
}

impl Side {
    fn new(entries: Option<Entries>) -> Self {
        Self { entries, next: None }
    }

    fn of(entry: Option<&Entry>) -> Self {
        Self::new(entry.and_then(|entry| match &entry.kind {
            Kind::Dir(tree) => Some(Entries::new(tree)),
            _ => None,
        }))
    }

    fn fill(&mut self, reader: &Reader) -> Result<()> {
        if let (None, Some(entries)) = (&self.next, &mut self.entries) {
            self.next = entries.next(reader)?;
        }
        Ok(())
    }

    fn park(&mut self) {
        self.entries.iter_mut().for_each(Entries::park);
    }
}

/// How two entries of one name differ; for directories, themselves only.
fn compare(before: &Entry, after: &Entry) -> Option<Difference> {
    if std::mem::discriminant(&before.kind) != std::mem::discriminant(&after.kind) {
        return Some(Difference::Kind);
    }
    let is_dir = matches!(before.kind, Kind::Dir(_));
    if !is_dir && before.kind != after.kind {
        return Some(Difference::Content);
    }
    let attributes = |entry: &Entry| {
        let Entry {
            mode, uid, gid, mtime, ..
        } = *entry;
        (mode, uid, gid, mtime)
    };
    let same = attributes(before) == attributes(after)
        && (&before.user, &before.group, &before.xattrs) == (&after.user, &after.group, &after.xattrs);
    (!same).then_some(Difference::Attributes)
}

impl Diff {
    /// Compares what was selected of one or two vaults.
    pub fn new(first: (&Reader, &Selection), second: (&Reader, &Selection)) -> Self {
        let (before, after) = (first.1.entry(), second.1.entry());
        let mut diff = Self {
            first: first.0.clone(),
            second: second.0.clone(),
            stack: Vec::new(),
            path: Vec::new(),
            over: false,
            single: None,
            cancel: Cancel::default(),
        };
        if let (Some(before), Some(after)) = (before, after) {
            diff.single = compare(before, after).map(|difference| Change {
                path: Vec::new(),
                difference,
                before: Some(before.clone()),
                after: Some(after.clone()),
            });
        }
        if first.1.tree() != second.1.tree() {
            diff.stack.push(Pair {
                first: Side::new(first.1.tree().map(Entries::new)),
                second: Side::new(second.1.tree().map(Entries::new)),
                parent_bytes: 0,
            });
        }
        diff
    }

    /// Ends with `Interrupted` once `cancel` asks for it, however long nothing differs.
    pub fn until(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    fn advance(&mut self) -> Result<Option<Change>> {
        if let Some(change) = self.single.take() {
            return Ok(Some(change));
        }
        while let Some(pair) = self.stack.last_mut() {
            self.cancel.check()?;
            let filled = pair
                .first
                .fill(&self.first)
                .and_then(|()| pair.second.fill(&self.second));
            if let Err(error) = filled {
                // What the damaged side would have had cannot be told from what was added or removed.
                (pair.first, pair.second) = (Side::new(None), Side::new(None));
                return Err(error);
            }
            let order = match (&pair.first.next, &pair.second.next) {
                (None, None) => {
                    self.path.truncate(pair.parent_bytes);
                    self.stack.pop();
                    continue;
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(before), Some(after)) => before.name.cmp(&after.name),
            };
            let before = pair.first.next.take_if(|_| order.is_le());
            let after = pair.second.next.take_if(|_| order.is_ge());
            if let Some(change) = self.pair(before, after)? {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }

    /// Compares two entries of one name, and goes into them if they are directories.
    fn pair(&mut self, before: Option<Entry>, after: Option<Entry>) -> Result<Option<Change>> {
        let parent_bytes = self.path.len();
        let name = before.as_ref().or(after.as_ref()).map(|entry| entry.name.as_slice());
        if parent_bytes > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.unwrap_or_default());
        let path = self.path.clone();
        let (first, second) = (Side::of(before.as_ref()), Side::of(after.as_ref()));
        let differ = before.as_ref().map(|entry| &entry.kind) != after.as_ref().map(|entry| &entry.kind);
        if differ && (first.entries.is_some() || second.entries.is_some()) {
            if self.stack.len() >= TREE_DEPTH_MAX {
                self.path.truncate(parent_bytes);
                return Err(Error::TooDeep { path });
            }
            self.stack.push(Pair {
                first,
                second,
                parent_bytes,
            });
            let outer = self.stack.len().checked_sub(OPEN_PAIRS);
            if let Some(outer) = outer.and_then(|at| self.stack.get_mut(at)) {
                outer.first.park();
                outer.second.park();
            }
        } else {
            self.path.truncate(parent_bytes);
        }
        let difference = match (&before, &after) {
            (Some(before), Some(after)) => compare(before, after),
            (Some(_), None) => Some(Difference::Removed),
            (None, _) => Some(Difference::Added),
        };
        Ok(difference.map(|difference| Change {
            path,
            difference,
            before,
            after,
        }))
    }
}

impl Iterator for Diff {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Result<Change>> {
        if self.over {
            return None;
        }
        let next = self.advance();
        self.over = next.as_ref().is_err_and(|error| !error.is_damage());
        next.transpose()
    }
}
