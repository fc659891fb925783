//! Fingerprints of data that Btrfs keeps no checksums of (NODATASUM, NODATACOW): read, and remembered while its file is unchanged.
//!
//! - The database is a cache: without it the data is read again. Memory does not grow with what is in it.
//! - These fingerprints are of another kind than checksums, so that the two never match: the kernel would not let them share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use drystone_extents::Error::Gone;
use drystone_extents::items::{FileExtent, Form, Inode};
use drystone_extents::{Btrfs, Piece};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::Result;
use crate::progress::Cancel;
use crate::read;
use crate::space::{Extent, FileId, NO_PRINT, Print};
use crate::state::{drop_damaged, failed};

const VERSION: i32 = 1;
/// Changes that are committed together: each commit waits for the disk.
const BATCH: u64 = 4096;
/// Files that could not be read and are counted.
const FAILED_MAX: usize = 64 << 10;
const SCHEMA: &str = "
    DROP TABLE IF EXISTS extent;
    CREATE TABLE extent (
        start INTEGER PRIMARY KEY, generation INTEGER NOT NULL, subvolume INTEGER NOT NULL, inode INTEGER NOT NULL,
        changed INTEGER NOT NULL, prints BLOB NOT NULL
    );
";

/// What is known of data without checksums.
#[derive(Debug)]
pub(crate) struct Unsummed {
    connection: Mutex<Connection>,
    path: PathBuf,
    cancel: Cancel,
    /// Bytes that were read.
    pub(crate) read_bytes: AtomicU64,
    /// Changes that are not committed yet.
    pending: AtomicU64,
    /// Files that could not be read, and why.
    failed: Mutex<BTreeMap<FileId, String>>,
}

impl Drop for Unsummed {
    fn drop(&mut self) {
        // A cache: what is not noted is read again.
        let _ = self.commit();
    }
}

/// An extent as it was read: by which file, as of when.
struct Row {
    generation: u64,
    file: FileId,
    changed: u64,
    prints: Vec<u8>,
}

/// The file by which an extent is read.
pub(crate) struct Reader {
    file: FileId,
    inode: Inode,
    extent: FileExtent,
}

impl Unsummed {
    /// What was remembered in `cache`; nothing, and only for this run, without one.
    pub(crate) fn open(cache: Option<&Path>, cancel: &Cancel) -> Result<Self> {
        // SQLite's name for a temporary file.
        let path = cache.map_or_else(PathBuf::new, Path::to_owned);
        drop_damaged(&path);
        let open = || {
            let connection = Connection::open(&path)?;
            let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version != VERSION {
                connection.execute_batch(SCHEMA)?;
                connection.pragma_update(None, "user_version", VERSION)?;
            }
            // What is lost with the machine is read again.
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            Ok(connection)
        };
        let connection = open().map_err(|error| failed(&path, &error))?;
        Ok(Self {
            connection: Mutex::new(connection),
            path,
            cancel: cancel.clone(),
            read_bytes: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            failed: Mutex::default(),
        })
    }

    /// Files of which a part could not be read.
    pub(crate) fn unreadable(&self) -> u64 {
        self.failed.lock().len() as u64
    }

    /// These, and why.
    pub(crate) fn unread(&self) -> Vec<(FileId, String)> {
        let failed = self.failed.lock();
        failed.iter().map(|(file, why)| (*file, why.clone())).collect()
    }

    /// Notes something, together with what follows.
    fn write(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<()> {
        self.call(|connection| {
            if connection.is_autocommit() {
                connection.execute_batch("BEGIN IMMEDIATE")?;
            }
            work(connection)
        })?;
        if self.pending.fetch_add(1, Ordering::Relaxed) >= BATCH {
            self.commit()?;
        }
        Ok(())
    }

    /// Makes what was noted last.
    pub(crate) fn commit(&self) -> Result<()> {
        self.pending.store(0, Ordering::Relaxed);
        self.call(|connection| {
            if connection.is_autocommit() {
                return Ok(());
            }
            connection.execute_batch("COMMIT")
        })
    }

    fn call<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&self.connection.lock()).map_err(|error| failed(&self.path, &error))
    }

    /// Fills in the fingerprints of an extent that has no checksums, if it has data.
    ///
    /// `before` is where the extent before it begins: nothing between them is remembered any longer.
    pub(crate) fn fill(&self, fs: &Btrfs, extent: &Extent, before: u64, prints: &mut [Print]) -> Result<()> {
        self.forget(before, extent.start)?;
        if let Some(row) = self
            .row(extent.start)?
            .filter(|row| row.generation == extent.generation)
        {
            let inode = if_there(fs.inode(row.file.subvolume, row.file.inode))?.flatten();
            if inode.is_some_and(|inode| inode.changed == row.changed) {
                let known = row.prints.chunks_exact(size_of::<Print>());
                for (print, bytes) in prints.iter_mut().zip(known) {
                    *print = bytes
                        .first_chunk()
                        .map_or(NO_PRINT, |bytes| Print::from_le_bytes(*bytes));
                }
                return Ok(());
            }
        }
        let Some(reader) = reader(fs, extent.start)? else {
            return Ok(());
        };
        if !self.read(fs, extent, &reader, prints)? {
            // The next scan tries again.
            return Ok(());
        }
        let bytes: Vec<u8> = prints.iter().flat_map(|print| print.to_le_bytes()).collect();
        let Reader { file, inode, .. } = reader;
        let row = params![
            extent.start as i64,
            extent.generation as i64,
            file.subvolume as i64,
            file.inode as i64,
            inode.changed as i64,
            bytes
        ];
        let note = "INSERT OR REPLACE INTO extent VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.write(|connection| connection.prepare_cached(note)?.execute(row).map(drop))
    }

    /// Forgets what is remembered of extents that begin between two places.
    fn forget(&self, after: u64, before: u64) -> Result<()> {
        let range = params![after as i64, before as i64];
        let sql = "SELECT 1 FROM extent WHERE start > ?1 AND start < ?2";
        if self.call(|connection| connection.prepare_cached(sql)?.exists(range))? {
            let sql = "DELETE FROM extent WHERE start > ?1 AND start < ?2";
            self.write(|connection| connection.prepare_cached(sql)?.execute(range).map(drop))?;
        }
        Ok(())
    }

    fn row(&self, start: u64) -> Result<Option<Row>> {
        let sql = "SELECT generation, subvolume, inode, changed, prints FROM extent WHERE start = ?1";
        self.call(|connection| {
            let mut query = connection.prepare_cached(sql)?;
            let row = query.query_row([start as i64], |row| {
                let number = |at: usize| row.get::<_, i64>(at).map(|number| number as u64);
                Ok(Row {
                    generation: number(0)?,
                    file: FileId {
                        subvolume: number(1)?,
                        inode: number(2)?,
                    },
                    changed: number(3)?,
                    prints: row.get(4)?,
                })
            });
            row.optional()
        })
    }

    /// Reads an extent; false if it could not be.
    fn read(&self, fs: &Btrfs, extent: &Extent, reader: &Reader, prints: &mut [Print]) -> Result<bool> {
        let Reader { file, extent: part, .. } = reader;
        let block = u64::from(fs.info().block_bytes.max(512));
        let Some(opened) = if_there(fs.open_file(file.subvolume, file.inode))? else {
            return Ok(false);
        };
        let piece = Piece {
            file_offset: part.file_offset,
            disk_offset: extent.start + part.offset,
            len: part.len,
            shared: false,
            encoded: false,
            reserved: false,
        };
        let found = read::Reader::new(block, &self.cancel).prints(&opened, piece)?;
        self.read_bytes.fetch_add(piece.len, Ordering::Relaxed);
        let Some(found) = found else {
            let mut failed = self.failed.lock();
            if failed.len() < FAILED_MAX {
                failed.insert(*file, "its data could not be read".to_owned());
            }
            return Ok(false);
        };
        let own = prints.get_mut((part.offset / block) as usize..).unwrap_or_default();
        own.iter_mut().zip(found).for_each(|(print, found)| *print = found);
        Ok(true)
    }
}

/// What was asked of a file, unless it is gone.
pub(crate) fn if_there<T>(answer: drystone_extents::Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Gone { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The file that uses most of an extent, if it is data without checksums, and not just reserved.
pub(crate) fn reader(fs: &Btrfs, start: u64) -> Result<Option<Reader>> {
    let mut best: Option<Reader> = None;
    for reference in fs.references(start)?.0 {
        let file = FileId {
            subvolume: reference.subvolume,
            inode: reference.inode,
        };
        // Of a subvolume that is being deleted nothing can be asked.
        let Some(inode) = if_there(fs.inode(file.subvolume, file.inode))?.flatten() else {
            continue;
        };
        let at = reference.file_offset;
        let extents = if_there(fs.file_extents(file.subvolume, file.inode, (at, at)))?.unwrap_or_default();
        let found = extents.into_iter().find(|extent| extent.disk_start == start);
        let is_usable = inode.is_file() && inode.is_unsummed();
        let usable = found.filter(|extent| is_usable && extent.form == Form::Plain);
        if let Some(extent) = usable.filter(|extent| best.as_ref().is_none_or(|best| extent.len > best.extent.len)) {
            best = Some(Reader { file, inode, extent });
        }
    }
    Ok(best)
}
