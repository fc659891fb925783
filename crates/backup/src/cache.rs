//! What files looked like in the last run: a file that looks the same is not opened.
//!
//! - For each directory pages of records, sorted by name. A record is what identifies a state of a file, and its entry.
//! - A file counts as unchanged if size, mtime, ctime and inode are equal. Its record was made only if its ctime was
//!   clearly before the run began: a change within the granularity of the clock would not show ("racy git").
//! - Records of an older loss epoch are trusted only as far as their chunks are still there.
//! - It is a cache: what cannot be decoded is not there.

pub(crate) mod file;
pub(crate) mod journal;
pub(crate) mod last;
pub(crate) mod slots;

use std::ops::Range;
use std::sync::Arc;

use drystone_format::recipe::Part;
use drystone_format::tree::{Entry, Time};
use drystone_index::StateReader;
use drystone_vault::Vault;

use crate::error::Result;
use crate::local::dir::Stat;

/// Bytes after which a page is closed.
const PAGE_BYTES: usize = 64 << 10;
/// A file whose ctime is less than this before the run began may change without showing it, seconds: FAT counts in twos.
const RACY_SECONDS: i64 = 2;
/// Bytes of a record beside name and entry.
const FIXED_BYTES: usize = 2 + Print::BYTES + 4;

/// Names a source, or a directory, in the cache.
pub(crate) type Key = [u8; 16];

/// A key from whatever tells it apart.
pub(crate) fn key(parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut key = Key::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

/// What identifies a state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print {
    size: u64,
    mtime: Time,
    ctime: Time,
    ino: u64,
    /// Of files with several names, whose entries hold it; 0 for all others, since device numbers change at will.
    device: u64,
}

impl Print {
    const BYTES: usize = 8 + 12 + 12 + 8 + 8;

    pub(crate) fn new(stat: &Stat) -> Self {
        Self {
            size: stat.size,
            mtime: stat.mtime,
            ctime: stat.ctime,
            ino: stat.ino,
            device: stat.hard_link().map_or(0, |(device, _)| device),
        }
    }

    /// Whether a later state could look the same, for a run that began at `started`.
    pub(crate) fn is_racy(&self, started: Time) -> bool {
        let Time { seconds, nanos } = self.ctime;
        let later = Time {
            seconds: seconds.saturating_add(RACY_SECONDS),
            nanos,
        };
        later >= started
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.size.to_le_bytes());
        for time in [self.mtime, self.ctime] {
            out.extend_from_slice(&time.seconds.to_le_bytes());
            out.extend_from_slice(&time.nanos.to_le_bytes());
        }
        out.extend_from_slice(&self.ino.to_le_bytes());
        out.extend_from_slice(&self.device.to_le_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            size: u64::from_le_bytes(take(bytes)?),
            mtime: take_time(bytes)?,
            ctime: take_time(bytes)?,
            ino: u64::from_le_bytes(take(bytes)?),
            device: u64::from_le_bytes(take(bytes)?),
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn take_time(bytes: &mut &[u8]) -> Option<Time> {
    let seconds = i64::from_le_bytes(take(bytes)?);
    let nanos = u32::from_le_bytes(take(bytes)?);
    Some(Time { seconds, nanos })
}

/// Appends a record to a page.
pub(crate) fn append(page: &mut Vec<u8>, name: &[u8], print: &Print, entry: &[u8]) {
    page.reserve(FIXED_BYTES + name.len() + entry.len());
    page.extend_from_slice(&(name.len() as u16).to_le_bytes());
    page.extend_from_slice(name);
    print.encode(page);
    page.extend_from_slice(&(entry.len() as u32).to_le_bytes());
    page.extend_from_slice(entry);
}

/// Whether a page is to be closed.
pub(crate) fn is_full(page: &[u8]) -> bool {
    page.len() >= PAGE_BYTES
}

/// A page as it was read.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) number: u32,
    pub(crate) bytes: Vec<u8>,
}

/// Where a record lies in its page.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) page: Arc<Page>,
    /// All of it.
    pub(crate) all: Range<usize>,
    /// Its entry.
    pub(crate) entry: Range<usize>,
}

impl Record {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.page.bytes.get(self.all.clone()).unwrap_or_default()
    }

    pub(crate) fn entry(&self) -> &[u8] {
        self.page.bytes.get(self.entry.clone()).unwrap_or_default()
    }
}

/// A record with what it is found by.
struct Parsed {
    name: Range<usize>,
    print: Print,
    record: Record,
}

fn parse(page: &Arc<Page>, at: usize) -> Option<Parsed> {
    let mut rest = page.bytes.get(at..)?;
    let name_bytes = usize::from(u16::from_le_bytes(take(&mut rest)?));
    let name = at + 2..at + 2 + name_bytes;
    rest = rest.get(name_bytes..)?;
    let print = Print::decode(&mut rest)?;
    let entry_bytes = u32::from_le_bytes(take(&mut rest)?) as usize;
    rest.get(..entry_bytes)?;
    let start = name.end + Print::BYTES + 4;
    let entry = start..start + entry_bytes;
    Some(Parsed {
        name,
        print,
        record: Record {
            page: page.clone(),
            all: at..entry.end,
            entry,
        },
    })
}

/// What the cache says about a name.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// It was never seen.
    New,
    /// It looked different, or what it was cannot be trusted.
    Changed,
    /// It looked the same.
    Same(Record),
}

/// What the run before left, as far as a run may look at it.
pub(crate) struct Cache<'a> {
    vault: &'a Vault,
    reader: Option<StateReader>,
    /// Its lower half.
    loss_epoch: u32,
}

impl<'a> Cache<'a> {
    /// `reader` is none for a run that looks at every file anew.
    pub(crate) fn new(vault: &'a Vault, reader: Option<StateReader>, loss_epoch: u64) -> Self {
        Self {
            vault,
            reader,
            loss_epoch: loss_epoch as u32,
        }
    }

    /// One page of a directory; later pages must be of the first one's epoch.
    pub(crate) fn page(&self, source: &Key, dir: &Key, number: u32, epoch: Option<u64>) -> Result<Option<(u64, Page)>> {
        let Some(reader) = &self.reader else { return Ok(None) };
        let found = reader.get_page(source, dir, number)?;
        Ok(found
            .filter(|(found, _)| epoch.is_none_or(|epoch| epoch == *found))
            .map(|(epoch, bytes)| (epoch, Page { number, bytes })))
    }

    /// Whether everything that this record's entry needs is in the vault.
    fn is_stored(&self, record: &Record) -> Result<bool> {
        let Ok(entry) = Entry::decode(record.entry()) else {
            return Ok(false);
        };
        let Some(recipe) = entry.recipe() else { return Ok(true) };
        // What is below the first level of a long recipe cannot be seen by a writer: read such files again.
        if recipe.depth > 0 {
            return Ok(false);
        }
        for part in &recipe.parts {
            if let Part::Chunk { id, .. } = part
                && !self.vault.contains(id)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Walks the records of one directory beside its sorted names.
pub(crate) struct Cursor {
    source: Key,
    dir: Key,
    epoch: u64,
    page: Option<Arc<Page>>,
    at: usize,
    is_trusted: bool,
}

impl Cursor {
    /// At the first record of a directory.
    pub(crate) fn open(cache: &Cache<'_>, source: &Key, dir: &Key) -> Result<Self> {
        let first = cache.page(source, dir, 0, None)?;
        let epoch = first.as_ref().map_or(0, |(epoch, _)| *epoch);
        Ok(Self {
            source: *source,
            dir: *dir,
            epoch,
            page: first.map(|(_, page)| Arc::new(page)),
            at: 0,
            is_trusted: (epoch >> 32) as u32 == cache.loss_epoch,
        })
    }

    /// What the pages are of, if there are any.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.page.as_ref().map(|_| self.epoch)
    }

    /// Whether the pages were written since the vault last lost something.
    pub(crate) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// The next record, if its name is at most `name`; `None` asks for any.
    fn next(&mut self, cache: &Cache<'_>, name: Option<&[u8]>) -> Result<Option<Parsed>> {
        while let Some(page) = &self.page {
            let Some(parsed) = parse(page, self.at) else {
                let next = page.number + 1;
                let page = cache.page(&self.source, &self.dir, next, Some(self.epoch))?;
                self.page = page.map(|(_, page)| Arc::new(page));
                self.at = 0;
                continue;
            };
            let found = page.bytes.get(parsed.name.clone()).unwrap_or_default();
            if name.is_some_and(|name| found > name) {
                return Ok(None);
            }
            self.at = parsed.record.all.end;
            return Ok(Some(parsed));
        }
        Ok(None)
    }

    /// Looks `name` up, and calls `gone` for each record of a name that was skipped.
    pub(crate) fn find(
        &mut self,
        cache: &Cache<'_>,
        name: &[u8],
        print: &Print,
        gone: &mut dyn FnMut(),
    ) -> Result<Lookup> {
        while let Some(parsed) = self.next(cache, Some(name))? {
            let record = parsed.record;
            if record.page.bytes.get(parsed.name) != Some(name) {
                gone();
                continue;
            }
            let is_same = parsed.print == *print && (self.is_trusted || cache.is_stored(&record)?);
            return Ok(if is_same { Lookup::Same(record) } else { Lookup::Changed });
        }
        Ok(Lookup::New)
    }

    /// Whether records are left after the last name.
    pub(crate) fn has_more(&mut self, cache: &Cache<'_>) -> Result<bool> {
        Ok(self.next(cache, None)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(number: u64) -> Print {
        let time = Time {
            seconds: number as i64 - 5,
            nanos: number as u32 % 1000,
        };
        Print {
            size: number,
            mtime: time,
            ctime: time,
            ino: number * 7,
            device: number % 2,
        }
    }

    proptest! {
        #[test]
        fn records_come_back(names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..20)) {
            let mut bytes = Vec::new();
            for (number, name) in (0..).zip(&names) {
                append(&mut bytes, name, &print(number), &name.repeat(2));
            }
            let page = Arc::new(Page { number: 0, bytes });
            let mut at = 0;
            for (number, name) in (0..).zip(&names) {
                let parsed = parse(&page, at).unwrap();
                prop_assert_eq!(&page.bytes[parsed.name.clone()], name.as_slice());
                prop_assert_eq!(parsed.print, print(number));
                prop_assert_eq!(parsed.record.entry().to_vec(), name.repeat(2));
                at = parsed.record.all.end;
            }
            prop_assert!(parse(&page, at).is_none());
        }

        #[test]
        fn damage_is_absence(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
            let page = Arc::new(Page { number: 0, bytes });
            if let Some(parsed) = parse(&page, at) {
                prop_assert!(parsed.record.all.end <= page.bytes.len());
            }
        }
    }

    #[test]
    fn a_recent_change_is_racy() {
        let ctime = Time { seconds: 100, nanos: 5 };
        let print = Print { ctime, ..print(1) };
        for (seconds, nanos, expected) in [(99, 0, true), (102, 5, true), (102, 6, false), (103, 0, false)] {
            assert_eq!(print.is_racy(Time { seconds, nanos }), expected, "{seconds}.{nanos}");
        }
    }
}
