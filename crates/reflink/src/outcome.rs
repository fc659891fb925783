//! What came of carrying out a plan.

use std::collections::{BTreeSet, HashSet};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::space::FileId;

/// Problems that are told one by one.
const PROBLEMS_MAX: usize = 1000;

/// A file that could not be treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: FileId,
    /// What the kernel said.
    pub why: String,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Extents that were shared as planned.
    pub extents: u64,
    /// Bytes that the kernel compared and shared.
    pub shared_bytes: u64,
    /// Ranges that turned out to differ, or gone: changed since they were looked at.
    pub differing: u64,
    /// Bytes written anew.
    pub rewritten_bytes: u64,
    /// Files that could not be treated, the first ones.
    pub problems: Vec<Problem>,
    /// Those, all of them.
    pub problem_count: u64,
    /// Bytes freed, on the physical map.
    pub freed_bytes: u64,
    /// Bytes that the plan promised, each extent counted once however often it was tried.
    pub predicted_bytes: u64,
    /// A limit, the wish to stop, or a lack of room ended it before everything was done.
    pub is_cut: bool,
    /// Something was busy, refused, changed meanwhile or found no room: a later run shall try again.
    pub is_owed: bool,
    /// Bytes that the plan promised for that.
    pub(crate) owed_bytes: u64,
    /// Files whose data the disk no longer gives.
    pub unreadable: BTreeSet<FileId>,
    /// The extents that have it, by where they begin: nothing is to be shared with them.
    pub(crate) bad: BTreeSet<u64>,
    /// As above, by their numbers among the candidates.
    pub(crate) bad_indexes: Vec<u32>,
    /// Requests for which there was no room.
    pub(crate) no_room: u64,
    /// The subvolume that was busy.
    pub(crate) busy: Option<u64>,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.extents += other.extents;
        self.shared_bytes += other.shared_bytes;
        self.differing += other.differing;
        self.rewritten_bytes += other.rewritten_bytes;
        self.predicted_bytes += other.predicted_bytes;
        self.freed_bytes += other.freed_bytes;
        self.is_cut |= other.is_cut;
        self.is_owed |= other.is_owed;
        self.owed_bytes += other.owed_bytes;
        self.unreadable.extend(other.unreadable);
        self.bad.extend(other.bad);
        self.no_room += other.no_room;
        if other.problems.is_empty() {
            return;
        }
        // A file that refuses does so at each attempt, and is one problem.
        let mut known: HashSet<FileId> = self.problems.iter().map(|problem| problem.file).collect();
        for problem in other.problems {
            if known.insert(problem.file) {
                self.problem_count += 1;
                if self.problems.len() < PROBLEMS_MAX {
                    self.problems.push(problem);
                }
            }
        }
    }

    /// Notes that an extent stays to be done.
    pub(crate) fn owe(&mut self, bytes: u64) {
        self.is_owed = true;
        self.owed_bytes += bytes;
    }

    /// Notes that the disk does not give the data of a file, which has it in this candidate.
    pub(crate) fn unreadable(&mut self, file: FileId, index: Option<u32>) {
        self.unreadable.insert(file);
        self.bad_indexes.extend(index);
        self.problem_count += 1;
        self.problems.push(Problem {
            file,
            why: "its data could not be read (Input/output error): the disk has damaged it".to_owned(),
        });
    }

    /// Notes that there was no room for something.
    pub(crate) fn no_room_for(&mut self, file: FileId, what: &str) -> Result<()> {
        self.problem(
            file,
            format!("no room on the file system for {what}: free some, and run this again"),
        )
    }

    pub(crate) fn problem(&mut self, file: FileId, why: String) -> Result<()> {
        self.problem_count += 1;
        self.problems.push(Problem { file, why });
        Ok(())
    }

    /// Notes that a file could not be opened, or read, or written for; one that is gone is no problem.
    pub(crate) fn failed(&mut self, file: FileId, error: &Error) -> Result<()> {
        match error.errno() {
            Some(Errno::NOENT | Errno::STALE) => {
                self.differing += 1;
                Ok(())
            }
            _ => self.problem(file, error.to_string()),
        }
    }

    /// Notes what the kernel refused for one file; an error if it would refuse everything else as well.
    pub(crate) fn refused(&mut self, file: FileId, source: Errno) -> Result<()> {
        match source {
            Errno::ROFS | Errno::OPNOTSUPP => Err(Error::io("the file system", "share data on", source)),
            // Btrfs, of snapshots that are being sent.
            Errno::AGAIN => {
                self.busy = Some(file.subvolume);
                self.problem(
                    file,
                    "busy (btrfs send?): run this again when that has ended".to_owned(),
                )
            }
            // What is shared with a snapshot takes metadata of its own.
            Errno::NOSPC => {
                self.no_room += 1;
                self.no_room_for(file, "metadata")
            }
            source => self.problem(file, source.to_string()),
        }
    }
}
