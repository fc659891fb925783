//! Changes of the file cache while a run is on its way: they enter the cache only when the snapshot is published.
//!
//! - Kept in memory up to a limit, beyond it in an unnamed file in the cache directory.
//! - A run that dies leaves the cache as it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use drystone_index::{Seen, State, StateWriter};

use crate::cache::Key;
use crate::error::{Error, Result};

/// Bytes kept in memory.
const MEMORY_BYTES: usize = 4 << 20;
/// Bytes of a change beside its payload: source, directory, page, length.
const HEAD_BYTES: usize = 4 + 16 + 4 + 4;
/// Length that says that the directory has so many pages, in the place of a payload.
const END: u32 = u32::MAX;

/// A list of changes, in order.
pub(crate) struct Journal {
    path: PathBuf,
    memory: Vec<u8>,
    spilled: Option<BufWriter<File>>,
}

impl Journal {
    /// `path` names the file while it is being made; it must be this run's own.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            memory: Vec::new(),
            spilled: None,
        }
    }

    /// One page of a directory.
    pub(crate) fn page(&mut self, slot: usize, dir: &Key, page: u32, payload: &[u8]) -> Result<()> {
        self.push(slot, dir, page, payload.len() as u32)?;
        self.write(payload)
    }

    /// The directory has so many pages.
    pub(crate) fn end(&mut self, slot: usize, dir: &Key, pages: u32) -> Result<()> {
        self.push(slot, dir, pages, END)
    }

    fn push(&mut self, slot: usize, dir: &Key, page: u32, length: u32) -> Result<()> {
        if self.memory.len() > MEMORY_BYTES {
            self.spill().map_err(|source| self.failed(source))?;
        }
        self.write(&(slot as u32).to_le_bytes())?;
        self.write(dir)?;
        self.write(&page.to_le_bytes())?;
        self.write(&length.to_le_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.spilled {
            None => {
                self.memory.extend_from_slice(bytes);
                Ok(())
            }
            Some(file) => file.write_all(bytes).map_err(|source| self.failed(source)),
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.spilled.is_none() {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&self.path)?;
            fs::remove_file(&self.path)?;
            self.spilled = Some(BufWriter::with_capacity(256 << 10, file));
        }
        let memory = std::mem::take(&mut self.memory);
        self.spilled.as_mut().map_or(Ok(()), |file| file.write_all(&memory))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Vault(drystone_vault::Error::CacheDir {
            path: self.path.clone(),
            source,
        })
    }

    /// Makes the changes, in `epoch`, and removes directories that were not seen. Sources are numbered as in `sources`.
    pub(crate) fn commit(self, state: &State, epoch: u64, sources: &[(Key, Seen)]) -> Result<()> {
        let keys: Vec<Key> = sources.iter().map(|(key, _)| *key).collect();
        self.add_all(state, epoch, &keys)?;
        for (key, seen) in sources {
            let mut writer = state.writer(*key)?;
            writer.sweep(seen)?;
            writer.finish()?;
        }
        Ok(())
    }

    /// Makes the changes, in `epoch`, and leaves everything else as it is. Sources are numbered as in `sources`.
    pub(crate) fn add_all(mut self, state: &State, epoch: u64, sources: &[Key]) -> Result<()> {
        match self.spilled.take() {
            None => replay(&mut self.memory.as_slice(), state, epoch, sources),
            Some(file) => {
                // What was kept in memory is in the file now.
                self.memory = Vec::new();
                let mut file = file.into_inner().map_err(|error| self.failed(error.into_error()))?;
                file.seek(SeekFrom::Start(0)).map_err(|source| self.failed(source))?;
                replay(&mut BufReader::with_capacity(256 << 10, file), state, epoch, sources)
            }
        }
    }

    /// Makes the changes, all of one source, in `epoch`, and leaves everything else as it is.
    pub(crate) fn add(self, state: &State, epoch: u64, source: Key) -> Result<()> {
        self.add_all(state, epoch, &[source])
    }
}

/// Makes the changes with one writer, which turns to another source where the changes do: each would buffer some megabytes.
fn replay(changes: &mut dyn Read, state: &State, epoch: u64, sources: &[Key]) -> Result<()> {
    let mut writing: Option<(u32, StateWriter)> = None;
    while let Some((source, dir, page, length)) = read_head(changes) {
        let Some(key) = sources.get(source as usize) else {
            break;
        };
        let (at, writer) = match &mut writing {
            Some(writing) => writing,
            None => writing.insert((source, state.writer(*key)?)),
        };
        if *at != source {
            writer.turn_to(*key)?;
            *at = source;
        }
        if length == END {
            writer.end_dir(&dir, page)?;
            continue;
        }
        let mut payload = vec![0; length as usize];
        if changes.read_exact(&mut payload).is_err() {
            break;
        }
        writer.put_page(&dir, page, epoch, payload)?;
    }
    writing.map_or(Ok(()), |(_, writer)| Ok(writer.finish()?))
}

/// The head of the next change; a journal that cannot be read on is over, since it only fills a cache.
fn read_head(changes: &mut dyn Read) -> Option<(u32, Key, u32, u32)> {
    let mut head = [0; HEAD_BYTES];
    changes.read_exact(&mut head).ok()?;
    let (source, rest) = head.split_first_chunk::<4>()?;
    let (dir, rest) = rest.split_first_chunk::<16>()?;
    let (page, rest) = rest.split_first_chunk::<4>()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    Some((
        u32::from_le_bytes(*source),
        *dir,
        u32::from_le_bytes(*page),
        u32::from_le_bytes(*length),
    ))
}
