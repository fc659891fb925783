//! Fingerprints of data that Btrfs keeps no checksums of (NODATASUM, NODATACOW): read, and remembered while its file is unchanged.
//!
//! - The database is a cache: without it the data is read again. Memory does not grow with what is in it.
//! - These fingerprints are of another kind than checksums, so that the two never match: the kernel would not let them share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use drystone_extents::items::{FileExtent, Form, Inode};
use drystone_extents::{Btrfs, Piece};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::Result;
use crate::progress::Cancel;
use crate::read;
use crate::space::{Extent, FileId, NO_PRINT, Print};
use crate::state::failed;

const VERSION: i32 = 1;
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
}

/// An extent as it was read: by which file, as of when.
struct Row {
    generation: u64,
    file: FileId,
    changed: u64,
    prints: Vec<u8>,
}

/// The file by which an extent is read.
struct Reader {
    file: FileId,
    inode: Inode,
    extent: FileExtent,
}

impl Unsummed {
    /// What was remembered in `cache`; nothing, and only for this run, without one.
    pub(crate) fn open(cache: Option<&Path>, cancel: &Cancel) -> Result<Self> {
        // SQLite's name for a temporary file.
        let path = cache.map_or_else(PathBuf::new, Path::to_owned);
        let open = || {
            let connection = Connection::open(&path)?;
            let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version != VERSION {
                connection.execute_batch(SCHEMA)?;
                connection.pragma_update(None, "user_version", VERSION)?;
            }
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            Ok(connection)
        };
        let connection = open().map_err(|error| failed(&path, &error))?;
        Ok(Self {
            connection: Mutex::new(connection),
            path,
            cancel: cancel.clone(),
            read_bytes: AtomicU64::new(0),
        })
    }

    fn call<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&self.connection.lock()).map_err(|error| failed(&self.path, &error))
    }

    /// Fills in the fingerprints of an extent that has no checksums, if it has data.
    ///
    /// `before` is where the extent before it begins: nothing between them is remembered any longer.
    pub(crate) fn fill(&self, fs: &Btrfs, extent: &Extent, before: u64, prints: &mut [Print]) -> Result<()> {
        let forget = "DELETE FROM extent WHERE start > ?1 AND start < ?2";
        self.call(|connection| {
            let mut statement = connection.prepare_cached(forget)?;
            statement.execute(params![before as i64, extent.start as i64])
        })?;
        if let Some(row) = self
            .row(extent.start)?
            .filter(|row| row.generation == extent.generation)
        {
            let inode = fs.inode(row.file.subvolume, row.file.inode)?;
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
        self.read(fs, extent, &reader, prints)?;
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
        self.call(|connection| connection.prepare_cached(note)?.execute(row).map(drop))
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

    fn read(&self, fs: &Btrfs, extent: &Extent, reader: &Reader, prints: &mut [Print]) -> Result<()> {
        let Reader { file, extent: part, .. } = reader;
        let block = u64::from(fs.info().block_bytes.max(512));
        let opened = fs.open_file(file.subvolume, file.inode)?;
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
        let own = prints.get_mut((part.offset / block) as usize..).unwrap_or_default();
        own.iter_mut()
            .zip(found.into_iter().flatten())
            .for_each(|(print, found)| *print = found);
        Ok(())
    }
}

/// The file that uses most of an extent, if it is data without checksums, and not just reserved.
fn reader(fs: &Btrfs, start: u64) -> Result<Option<Reader>> {
    let mut best: Option<Reader> = None;
    for reference in fs.references(start)?.unwrap_or_default() {
        let file = FileId {
            subvolume: reference.subvolume,
            inode: reference.inode,
        };
        let Some(inode) = fs.inode(file.subvolume, file.inode)? else {
            continue;
        };
        let at = reference.file_offset;
        let extents = fs.file_extents(file.subvolume, file.inode, (at, at))?;
        let found = extents.into_iter().find(|extent| extent.disk_start == start);
        let is_usable = inode.is_file() && inode.is_unsummed();
        let usable = found.filter(|extent| is_usable && extent.form == Form::Plain);
        if let Some(extent) = usable.filter(|extent| best.as_ref().is_none_or(|best| extent.len > best.extent.len)) {
            best = Some(Reader { file, inode, extent });
        }
    }
    Ok(best)
}
