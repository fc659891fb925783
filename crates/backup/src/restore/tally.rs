//! What a restore did and could not do, counted by all its threads.
//!
//! - Bounded: problems as in `drystone_vault::Problems`, attributes that could not be set by kind, not by entry.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use drystone_vault::{Problem, Problems};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::causes::Causes;
use crate::error::Error;

/// Different kinds of things that could not be set, counted apart; the rest is counted together.
const NOT_SET_KINDS: usize = 64;

/// One kind of attribute that could not be set, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotSet {
    /// What: `owner`, `extended attribute user.x`, ...
    pub what: String,
    /// Why not.
    pub why: String,
    /// Of how many entries.
    pub count: u64,
    /// Path of the first of them, relative to the target.
    pub example: Vec<u8>,
}

impl fmt::Display for NotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, why, count, .. } = self;
        let (path, entries) = (self.example.clone(), if *count == 1 { "entry" } else { "entries" });
        let example = Problem {
            path,
            what: why.clone(),
        };
        write!(f, "{what} of {count} {entries}, first of {example}")
    }
}

/// What a restore did.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Entries that are not directories and are now as they were stored.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of all restored regular files.
    pub bytes: u64,
    /// Regular files whose content was there already.
    pub unchanged_files: u64,
    /// Entries left as they were because something of that name existed (`Overwrite::Never`).
    pub kept: u64,
    /// Devices that were left out because that was asked for (`Special::LeaveOut`).
    pub left_out: u64,
    /// Bytes written to the target.
    pub written_bytes: u64,
    /// What could not be restored.
    pub problems: Problems,
    /// Files and directories that were restored as they are stored, but are marked in the snapshot as not whole.
    pub incomplete: Problems,
    /// Patterns to include that matched nothing.
    pub unmatched: Vec<String>,
    /// Patterns to exclude that matched nothing.
    pub unmatched_excludes: Vec<String>,
    /// What could not be set on entries that were restored otherwise.
    pub not_set: Vec<NotSet>,
}

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This entry cannot be restored; others can.
    Entry(String),
    /// As [`Failure::Entry`]: what it needs of the vault is damaged.
    Damage(drystone_vault::Error),
    /// Nothing more can be restored.
    Run(Error),
}

impl From<drystone_vault::Error> for Failure {
    fn from(error: drystone_vault::Error) -> Self {
        if error.is_damage() {
            Self::Damage(error)
        } else {
            Self::Run(Error::Vault(error))
        }
    }
}

impl Failure {
    /// Sorts an error of the target's file system into those of one entry and those that will meet all entries.
    pub(crate) fn io(what: &str, errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::NFILE | Errno::MFILE | Errno::NOMEM => {
                Self::Run(Error::Write {
                    path: Vec::new(),
                    what: format!("cannot {what}"),
                    source: errno.into(),
                })
            }
            errno => Self::Entry(format!("cannot {what}: {}", std::io::Error::from(errno))),
        }
    }

    /// Names the path that an error of the whole run was met at.
    pub(crate) fn at(self, make_path: impl FnOnce() -> Vec<u8>) -> Self {
        match self {
            Self::Run(Error::Write { path, what, source }) if path.is_empty() => Self::Run(Error::Write {
                path: make_path(),
                what,
                source,
            }),
            other => other,
        }
    }
}

/// What and why, how often, and the first path.
type NotSetKinds = BTreeMap<(String, String), (u64, Vec<u8>)>;

/// The report while it is being made.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) files: AtomicU64,
    pub(crate) dirs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) unchanged_files: AtomicU64,
    pub(crate) kept: AtomicU64,
    pub(crate) left_out: AtomicU64,
    /// Entries marked as incomplete.
    pub(crate) marked: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    problems: Mutex<Problems>,
    causes: Mutex<Causes>,
    incomplete: Mutex<Problems>,
    unmatched: Mutex<(Vec<String>, Vec<String>)>,
    not_set: Mutex<NotSetKinds>,
}

pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// The path, or that of the target itself.
fn named(path: Vec<u8>) -> Vec<u8> {
    if path.is_empty() { b".".to_vec() } else { path }
}

impl Tally {
    pub(crate) fn problem(&self, path: Vec<u8>, what: &str) {
        self.problems.lock().push(named(path), what);
    }

    /// Notes an entry that damage costs.
    pub(crate) fn damage(&self, path: Vec<u8>, error: &drystone_vault::Error) {
        let what = self.causes.lock().tell(error);
        self.problem(path, &format!("not restored: {what}"));
    }

    /// Notes an entry that is restored as it is stored, which is not what it was.
    pub(crate) fn incomplete(&self, path: Vec<u8>, flaw: &str) {
        add(&self.marked, 1);
        self.incomplete.lock().push(named(path), flaw);
    }

    /// Notes the patterns to include, and those to exclude, that matched nothing.
    pub(crate) fn unmatched(&self, includes: Vec<String>, excludes: Vec<String>) {
        *self.unmatched.lock() = (includes, excludes);
    }

    pub(crate) fn not_set(&self, what: &str, why: &str, path: impl FnOnce() -> Vec<u8>) {
        let mut kinds = self.not_set.lock();
        let mut key = (what.to_owned(), why.to_owned());
        if kinds.len() >= NOT_SET_KINDS && !kinds.contains_key(&key) {
            key = ("other attributes".to_owned(), "various reasons".to_owned());
        }
        kinds.entry(key).or_insert_with(|| (0, named(path()))).0 += 1;
    }

    pub(crate) fn finish(self) -> RestoreReport {
        let not_set = self.not_set.into_inner().into_iter();
        let (unmatched, unmatched_excludes) = self.unmatched.into_inner();
        RestoreReport {
            files: self.files.into_inner(),
            dirs: self.dirs.into_inner(),
            bytes: self.bytes.into_inner(),
            unchanged_files: self.unchanged_files.into_inner(),
            kept: self.kept.into_inner(),
            left_out: self.left_out.into_inner(),
            written_bytes: self.written_bytes.into_inner(),
            problems: self.problems.into_inner(),
            incomplete: self.incomplete.into_inner(),
            unmatched,
            unmatched_excludes,
            not_set: not_set
                .map(|((what, why), (count, example))| NotSet {
                    what,
                    why,
                    count,
                    example,
                })
                .collect(),
        }
    }
}
