//! What the volume of the door should hold: a few hundred files in memory, and what happens to them from one commit to the next.
//!
//! - The changes of a commit follow from the seed, the number of the commit and the files before it. So a process that was killed finds its model
//!   again by playing all acknowledged commits, without asking the vault.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use drystone_vault::Stretch;

use crate::gc_stress::Choices;
use crate::support::noise;

/// A file by its bytes; `None` in holes.
pub(super) type Bytes = Vec<Option<u8>>;
/// Directories of the volume.
pub(super) const DIRS: u64 = 12;
/// Most files that the volume has at once.
const FILES_MAX: usize = 240;
/// Names that files may have: more than there are files, so that names come back.
const NAMES: u64 = 400;
/// A file that has become longer than this is cut off.
const FILE_MAX_BYTES: usize = 60_000;

/// What becomes of one file.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The file is new, or written anew.
    Write(Arc<Bytes>),
    /// The file was changed in these ranges, and has perhaps another length now.
    Edit(Arc<Bytes>, Vec<Range<u64>>),
    /// The file is deleted.
    Delete,
}

/// All files, by their numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Files(pub(super) BTreeMap<u64, Arc<Bytes>>);

/// The choices of one commit, or of what happens at its time.
pub(super) fn choices(seed: u64, number: u64) -> Choices {
    let mut choices = Choices((seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
    // The first few of a small seed are small.
    for _ in 0..4 {
        choices.below(2);
    }
    choices
}

/// The directory of a file.
pub(super) fn dir_of(file: u64) -> u64 {
    file % DIRS
}

/// The stretches of a file: where each ends, and whether it is data.
pub(super) fn stretches(bytes: &[Option<u8>]) -> Vec<Stretch> {
    let mut at = 0;
    let runs = bytes.chunk_by(|one, two| one.is_some() == two.is_some());
    runs.map(|run| {
        at += run.len() as u64;
        match run[0] {
            Some(_) => Stretch::Data(at),
            None => Stretch::Hole(at),
        }
    })
    .collect()
}

/// The bytes as a reader sees them.
pub(super) fn seen(bytes: &[Option<u8>]) -> Vec<u8> {
    bytes.iter().map(|byte| byte.unwrap_or(0)).collect()
}

impl Files {
    /// The files after so many commits.
    pub(super) fn after(seed: u64, commits: u64) -> Self {
        let mut files = Self::default();
        for number in 0..commits {
            let changes = files.changes(seed, number);
            files.apply(&changes);
        }
        files
    }

    /// What the commit of this number changes: one to three files.
    pub(super) fn changes(&self, seed: u64, number: u64) -> BTreeMap<u64, Change> {
        let mut choices = choices(seed, number);
        let mut changes = BTreeMap::new();
        for _ in 0..=choices.below(3) {
            let (file, change) = self.change(&mut choices);
            changes.insert(file, change);
        }
        changes
    }

    /// Makes the changes of a commit.
    pub(super) fn apply(&mut self, changes: &BTreeMap<u64, Change>) {
        for (file, change) in changes {
            match change {
                Change::Write(bytes) | Change::Edit(bytes, _) => self.0.insert(*file, bytes.clone()),
                Change::Delete => self.0.remove(file),
            };
        }
    }

    fn change(&self, choices: &mut Choices) -> (u64, Change) {
        let file = choices.below(NAMES);
        match choices.below(10) {
            0..5 => {
                // A name of the same number of any range, so that the volume grows at first and many edits meet a file.
                let at = self.0.range(file..).next().or_else(|| self.0.iter().next());
                match at {
                    Some((file, old)) => (*file, edit(old, choices)),
                    None => (file, write(choices)),
                }
            }
            5..7 if !self.0.is_empty() => (file, Change::Delete),
            _ if self.0.len() >= FILES_MAX => (file, Change::Delete),
            _ => (file, write(choices)),
        }
    }
}

/// A new file. One of four has a content that many files have had before, perhaps one that is garbage by now.
fn write(choices: &mut Choices) -> Change {
    let content = match choices.below(4) {
        0 => choices.below(30),
        _ => choices.below(u64::MAX),
    };
    let bytes = noise(content + 1, 300 + (content % 15_000) as usize);
    Change::Write(Arc::new(bytes.into_iter().map(Some).collect()))
}

/// One to three edits of one file.
fn edit(old: &Bytes, choices: &mut Choices) -> Change {
    let mut bytes = old.clone();
    for _ in 0..=choices.below(3) {
        let at = choices.below(bytes.len() as u64 + 1) as usize;
        let some = noise(choices.below(u64::MAX), 1 + choices.below(4000) as usize);
        match choices.below(5) {
            // Appends.
            0 if bytes.len() < FILE_MAX_BYTES => bytes.extend(some.into_iter().map(Some)),
            // Cuts off.
            0 | 1 => bytes.truncate(at.max(100).max(bytes.len() / 2)),
            // Punches.
            2 => {
                let end = bytes.len().min(at + some.len());
                bytes[at..end].fill(None);
            }
            // Overwrites, perhaps beyond the end.
            _ => {
                let end = at + some.len();
                bytes.resize(bytes.len().max(end), None);
                for (to, from) in bytes[at..end].iter_mut().zip(some) {
                    *to = Some(from);
                }
            }
        }
    }
    let edits = differing(old, &bytes);
    Change::Edit(Arc::new(bytes), edits)
}

/// Where two files differ, up to the end of the shorter one. Ranges that lie close together are one.
fn differing(old: &Bytes, new: &Bytes) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let pairs = (0..).zip(old.iter().zip(new));
    for (at, _) in pairs.filter(|(_, (before, now))| before != now) {
        match ranges.last_mut() {
            Some(last) if at < last.end + 16 => last.end = at + 1,
            _ => ranges.push(at..at + 1),
        }
    }
    ranges
}
