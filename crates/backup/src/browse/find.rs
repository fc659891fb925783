//! Finding entries of a snapshot by name, type, size and time.

use drystone_format::tree::{Entry, Kind, Time};
use drystone_vault::{Cancel, Reader};

use crate::browse::{Depth, List, Listed, Selection};
use crate::error::Result;
use crate::scope::patterns::{Patterns, Unmatched};

/// Types of entries, as `find -type` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `f`
    File,
    /// `d`
    Dir,
    /// `l`
    Symlink,
    /// `b`
    BlockDevice,
    /// `c`
    CharDevice,
    /// `p`
    Fifo,
    /// `s`
    Socket,
}

impl FileKind {
    /// The type of an entry.
    pub fn of(kind: &Kind) -> Self {
        match kind {
            Kind::File(_) => Self::File,
            Kind::Dir(_) => Self::Dir,
            Kind::Symlink(_) => Self::Symlink,
            Kind::BlockDevice { .. } => Self::BlockDevice,
            Kind::CharDevice { .. } => Self::CharDevice,
            Kind::Fifo => Self::Fifo,
            Kind::Socket => Self::Socket,
        }
    }

    /// The type with this letter.
    pub fn from_letter(letter: char) -> Option<Self> {
        Some(match letter {
            'f' => Self::File,
            'd' => Self::Dir,
            'l' => Self::Symlink,
            'b' => Self::BlockDevice,
            'c' => Self::CharDevice,
            'p' => Self::Fifo,
            's' => Self::Socket,
            _ => return None,
        })
    }

    /// Its letter.
    pub fn letter(self) -> char {
        match self {
            Self::File => 'f',
            Self::Dir => 'd',
            Self::Symlink => 'l',
            Self::BlockDevice => 'b',
            Self::CharDevice => 'c',
            Self::Fifo => 'p',
            Self::Socket => 's',
        }
    }
}

/// What is looked for; everything that is given must hold.
#[derive(Debug, Clone)]
pub struct FindOptions {
    /// Names or absolute paths; empty for any.
    pub patterns: Patterns,
    /// Types; empty for any.
    pub kinds: Vec<FileKind>,
    /// Only regular files of at least so many bytes.
    pub min_bytes: Option<u64>,
    /// Only regular files of at most so many bytes.
    pub max_bytes: Option<u64>,
    /// Only what was changed at or after this time.
    pub newer: Option<Time>,
    /// Only what was changed before this time.
    pub older: Option<Time>,
}

impl FindOptions {
    /// Whether an entry is looked for.
    pub fn matches(&self, path: &[u8], entry: &Entry) -> bool {
        let kind = FileKind::of(&entry.kind);
        let size = match &entry.kind {
            Kind::File(recipe) => Some(recipe.size_bytes),
            _ => None,
        };
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self
                .min_bytes
                .is_none_or(|least| size.is_some_and(|size| size >= least))
            && self.max_bytes.is_none_or(|most| size.is_some_and(|size| size <= most))
            && self.newer.is_none_or(|time| entry.mtime >= time)
            && self.older.is_none_or(|time| entry.mtime < time)
            && (self.patterns.is_empty() || self.patterns.matches(relative, kind == FileKind::Dir))
    }
}

/// Everything below `selection` that is looked for; errors as for [`List`], and `Interrupted` once `cancel` asks for it,
/// however long nothing matches.
pub fn find(reader: &Reader, selection: &Selection, options: FindOptions, cancel: Cancel) -> Find {
    Find {
        list: List::new(reader, selection, Depth::All),
        unmatched: Unmatched::of(&options.patterns),
        options,
        cancel,
    }
}

/// The entries that are found.
pub struct Find {
    list: List,
    options: FindOptions,
    cancel: Cancel,
    unmatched: Unmatched,
}

impl Find {
    /// The patterns that have matched nothing so far, whatever else is asked for.
    pub fn unmatched(self) -> Vec<String> {
        self.unmatched.names()
    }
}

impl Iterator for Find {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Err(stopped) = self.cancel.check() {
                return Some(Err(stopped.into()));
            }
            let next = self.list.next()?;
            if let Ok(Listed { path, entry }) = &next {
                let is_dir = matches!(entry.kind, Kind::Dir(_));
                self.unmatched.look(path.strip_prefix(b"/").unwrap_or(path), is_dir);
            }
            match next {
                Ok(Listed { path, entry }) if !self.options.matches(&path, &entry) => {}
                found => return Some(found),
            }
        }
    }
}
