//! The map of a walked file system: which places of the disk hold what, and which files use them; in SQLite.
//!
//! - Extents do not overlap, and hold each place once, whoever used it first; a file's use of a place refers to them.
//! - A place is known while a file that did not change uses it: XFS writes in place, and gives what is free to others. Extents that
//!   lost a use are noted, and cut down to what is used when the next walk has seen all files.
//! - Encoded data is counted as files have it: how much of the disk it takes is not told to those who are not root.
//! - Changes of one walk are noted file by file: a file is known only after all that it uses is.

mod sweep;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use drystone_extents::{Piece, physical_map};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::error::{Error, Result};
use crate::plan::live;
use crate::scope::is_private;
use crate::space::{Extent, FileId, NO_PRINT, Print, Use, Uses, Which};
use crate::state::failed;
use crate::walk::FoundFile;

/// Blocks of an extent at most.
const EXTENT_MAX_BLOCKS: u64 = 32 << 10;
/// Rows that a scan takes from the database at once, and fingerprints of them.
const SCAN_ROWS: usize = 1024;
const VERSION: i32 = 4;
/// What is noted of a file of which a part could not be read: neither 0, all is to be read, nor 1, all is known.
const PARTLY: i32 = 2;
/// Encoded data has as many blocks as files have of it, and lies above all else: each block of the disk has room for the most that may
/// be encoded in it (128 KiB on Btrfs).
const ENCODED_FROM: u64 = 1 << 62;
const ENCODED_ROOM: u64 = 32;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS walk (generation INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS file (
        inode INTEGER PRIMARY KEY, path BLOB NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
        owner INTEGER NOT NULL, mode INTEGER NOT NULL, known INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS extent (start INTEGER PRIMARY KEY, blocks INTEGER NOT NULL, generation INTEGER NOT NULL, prints BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS use (
        extent INTEGER NOT NULL, inode INTEGER NOT NULL, offset INTEGER NOT NULL, block INTEGER NOT NULL, blocks INTEGER NOT NULL,
        tail INTEGER NOT NULL, shared INTEGER NOT NULL, PRIMARY KEY (extent, inode, offset)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS use_inode ON use (inode);
    CREATE TABLE IF NOT EXISTS lost (extent INTEGER PRIMARY KEY);
    CREATE TEMP TABLE seen (inode INTEGER PRIMARY KEY);
    CREATE TEMP TABLE excluded (inode INTEGER PRIMARY KEY);
";

/// The map.
#[derive(Debug)]
pub(crate) struct Map {
    connection: Connection,
    path: PathBuf,
    block_bytes: u64,
    /// Files that not everybody may read, below this size, are private.
    private_min_bytes: u64,
}

/// Part of a piece of a file that lies in one extent, or in none that is known.
struct Part {
    extent: Option<u64>,
    piece: Piece,
}

impl Map {
    pub(crate) fn new(
        connection: Connection,
        path: PathBuf,
        (block_bytes, private_min_bytes): (u64, u64),
    ) -> Result<Self> {
        let map = Self {
            connection,
            path,
            block_bytes,
            private_min_bytes,
        };
        map.call(|connection| {
            let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version != VERSION {
                // A cache of another form: begin it anew.
                connection.execute_batch(
                    "DROP TABLE IF EXISTS walk; DROP TABLE IF EXISTS file; DROP TABLE IF EXISTS extent; DROP TABLE IF EXISTS use;
                     DROP TABLE IF EXISTS lost;",
                )?;
            }
            connection.pragma_update(None, "user_version", VERSION)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(SCHEMA)
        })?;
        Ok(map)
    }

    fn call<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&self.connection).map_err(|error| failed(&self.path, &error))
    }

    fn execute(&self, sql: &str, with: impl rusqlite::Params) -> Result<()> {
        self.call(|connection| connection.prepare_cached(sql)?.execute(with).map(drop))
    }

    fn rows<T>(
        &self,
        sql: &str,
        with: impl rusqlite::Params,
        row: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.call(|connection| connection.prepare_cached(sql)?.query_map(with, row)?.collect())
    }

    /// Begins a walk; returns its generation, which is above `least` and that of the walk before.
    pub(crate) fn begin(&mut self, least: u64) -> Result<u64> {
        let last = self.rows("SELECT max(generation) FROM walk HAVING count(*) > 0", [], |row| {
            row.get::<_, i64>(0)
        })?;
        self.execute("BEGIN IMMEDIATE", [])?;
        let generation = last.first().copied().unwrap_or(least as i64) + 1;
        self.execute("INSERT INTO walk VALUES (?1)", [generation])?;
        self.execute("DELETE FROM walk WHERE generation < ?1", [generation])?;
        self.execute("UPDATE file SET known = 0 WHERE known = ?1", [PARTLY])?;
        Ok(generation as u64)
    }

    /// Makes what was noted last, and goes on.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if !self.connection.is_autocommit() {
            self.execute("COMMIT", [])?;
        }
        self.execute("BEGIN IMMEDIATE", [])
    }

    /// Ends a walk.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.execute("COMMIT", [])
    }

    /// Some files of which not all is known.
    pub(crate) fn changed(&self, count: usize) -> Result<Vec<FoundFile>> {
        let sql = "SELECT inode, path, size, mtime, ctime, owner, mode FROM file WHERE known = 0 LIMIT ?1";
        self.rows(sql, [count as i64], found)
    }

    /// Bytes of files of which not all is known.
    pub(crate) fn changed_bytes(&self) -> Result<u64> {
        let sql = "SELECT coalesce(sum(size), 0) FROM file WHERE known = 0";
        let bytes = self.rows(sql, [], |row| row.get::<_, i64>(0))?;
        Ok(bytes.first().map_or(0, |bytes| *bytes as u64))
    }

    /// Notes that a file has nothing that may be shared.
    pub(crate) fn leave(&self, inode: u64) -> Result<()> {
        self.execute("UPDATE file SET known = 1 WHERE inode = ?1", [inode as i64])
    }

    /// Notes that the next walk shall look at a file again.
    pub(crate) fn look_again(&self, inode: u64) -> Result<()> {
        let with = params![inode as i64, PARTLY];
        self.execute("UPDATE file SET known = ?2 WHERE inode = ?1", with)
    }

    pub(crate) fn file(&self, inode: u64) -> Result<Option<FoundFile>> {
        let sql = "SELECT inode, path, size, mtime, ctime, owner, mode FROM file WHERE inode = ?1";
        self.call(|connection| {
            connection
                .prepare_cached(sql)?
                .query_row([inode as i64], found)
                .optional()
        })
    }

    pub(crate) fn drop_file(&self, inode: u64) -> Result<()> {
        self.drop_uses(inode)?;
        self.execute("DELETE FROM file WHERE inode = ?1", [inode as i64])
    }

    fn drop_uses(&self, inode: u64) -> Result<()> {
        self.execute(
            "INSERT OR IGNORE INTO lost SELECT extent FROM use WHERE inode = ?1",
            [inode as i64],
        )?;
        self.execute("DELETE FROM use WHERE inode = ?1", [inode as i64])
    }

    /// The pieces of a file, cut at its end and where extents that are known begin and end.
    fn parts(&self, file: &OwnedFd, found: &FoundFile) -> Result<Vec<Part>> {
        let end = found.size.next_multiple_of(self.block_bytes);
        let pieces = physical_map(file.as_fd(), (0, end))?;
        let is_aligned = |piece: &Piece| {
            [piece.file_offset, piece.disk_offset, piece.len]
                .iter()
                .all(|number| number.is_multiple_of(self.block_bytes))
        };
        let mut parts = Vec::new();
        let placed = pieces.into_iter().filter(|piece| !piece.reserved).map(|piece| Piece {
            disk_offset: place(&piece),
            ..piece
        });
        for piece in placed.filter(is_aligned) {
            let len = piece.len.min(end.saturating_sub(piece.file_offset));
            let (mut at, to) = (piece.disk_offset, piece.disk_offset + len);
            let cut = |from: u64, to: u64, extent| Part {
                extent,
                piece: Piece {
                    file_offset: piece.file_offset + (from - piece.disk_offset),
                    disk_offset: from,
                    len: to - from,
                    ..piece
                },
            };
            for (start, blocks) in self.known(at, to)? {
                let known_end = start + blocks * self.block_bytes;
                if start > at {
                    parts.push(cut(at, start, None));
                    at = start;
                }
                let until = known_end.min(to);
                parts.push(cut(at, until, Some(start)));
                at = until;
            }
            if at < to {
                parts.push(cut(at, to, None));
            }
        }
        Ok(parts)
    }

    /// Extents that lie in `from..to`, at least in part, with their blocks.
    fn known(&self, from: u64, to: u64) -> Result<Vec<(u64, u64)>> {
        // None overlap: of those that begin before, only the last can reach in.
        let last = "SELECT start, blocks FROM extent WHERE start <= ?1 ORDER BY start DESC LIMIT 1";
        let inside = "SELECT start, blocks FROM extent WHERE start > ?1 AND start < ?2 ORDER BY start";
        let number = |row: &Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64));
        let mut rows = self.rows(last, [from as i64], number)?;
        rows.extend(self.rows(inside, params![from as i64, to as i64], number)?);
        rows.retain(|(start, blocks)| start + blocks * self.block_bytes > from);
        Ok(rows)
    }

    /// Pieces of a file of which nothing is known.
    pub(crate) fn unknown_pieces(&self, file: &OwnedFd, found: &FoundFile) -> Result<Vec<Piece>> {
        let parts = self.parts(file, found)?;
        let unknown = parts.into_iter().filter(|part| part.extent.is_none());
        Ok(unknown.map(|part| part.piece).collect())
    }

    /// What to read of pieces of several files: each place of the disk once, in its order, nothing larger than an extent may be.
    pub(crate) fn each_place_once(&self, mut pieces: Vec<(usize, Piece)>) -> Vec<(usize, Piece)> {
        let most = EXTENT_MAX_BLOCKS * self.block_bytes;
        let mut once = Vec::with_capacity(pieces.len());
        let mut at = 0;
        pieces.sort_unstable_by_key(|(_, piece)| piece.disk_offset);
        for (file, piece) in pieces {
            let end = piece.disk_offset + piece.len;
            at = at.max(piece.disk_offset);
            while at < end {
                let len = most.min(end - at);
                let cut = Piece {
                    file_offset: piece.file_offset + (at - piece.disk_offset),
                    disk_offset: at,
                    len,
                    ..piece
                };
                once.push((file, cut));
                at += len;
            }
        }
        once
    }

    pub(crate) fn add_extent(&mut self, start: u64, prints: &[Print], generation: u64) -> Result<()> {
        let bytes: Vec<u8> = prints.iter().flat_map(|print| print.to_le_bytes()).collect();
        let row = params![start as i64, prints.len() as i64, generation as i64, bytes];
        self.execute("INSERT OR REPLACE INTO extent VALUES (?1, ?2, ?3, ?4)", row)
    }

    /// Notes which extents a file uses, as far as they are known, and that the file is known.
    pub(crate) fn add_uses(&mut self, file: &OwnedFd, found: &FoundFile) -> Result<()> {
        for part in self.parts(file, found)? {
            let Some(extent) = part.extent else { continue };
            let piece = part.piece;
            let in_file = found.size - piece.file_offset;
            let tail = if in_file < piece.len {
                in_file % self.block_bytes
            } else {
                0
            };
            self.execute(
                "INSERT OR REPLACE INTO use VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    extent as i64,
                    found.inode as i64,
                    piece.file_offset as i64,
                    ((piece.disk_offset - extent) / self.block_bytes) as i64,
                    (piece.len / self.block_bytes) as i64,
                    tail as i64,
                    piece.shared,
                ],
            )?;
        }
        self.execute("UPDATE file SET known = 1 WHERE inode = ?1", [found.inode as i64])
    }

    /// Maps a file anew that came to share other places.
    pub(crate) fn replace_uses(&mut self, file: &OwnedFd, found: &FoundFile) -> Result<()> {
        self.drop_uses(found.inode)?;
        self.add_uses(file, found)
    }

    /// Bytes of `extents` that files use, and those files.
    pub(crate) fn used_of(&self, extents: &[Extent]) -> Result<(u64, BTreeSet<u64>)> {
        let (mut blocks, mut users) = (0, BTreeSet::new());
        for extent in extents {
            let uses = self.uses(extent.start)?;
            blocks += live(&uses).iter().map(|(from, to)| u64::from(to - from)).sum::<u64>();
            users.extend(uses.list.iter().map(|one| one.file.inode));
        }
        Ok((blocks * self.block_bytes, users))
    }

    pub(crate) fn uses(&self, extent: u64) -> Result<Uses> {
        let sql = "SELECT inode, offset, block, blocks, tail, shared, owner, mode, size
                   FROM use JOIN file USING (inode) WHERE extent = ?1 ORDER BY inode, offset";
        let found = self.rows(sql, [extent as i64], |row| {
            let number = |at: usize| row.get::<_, i64>(at);
            let one = Use {
                file: FileId {
                    subvolume: 0,
                    inode: number(0)? as u64,
                },
                file_offset: number(1)? as u64,
                block: number(2)? as u32,
                blocks: number(3)? as u32,
                tail_bytes: number(4)? as u32,
                owner: number(6)? as u32,
                is_private: false,
            };
            Ok((one, row.get::<_, bool>(5)?, (number(7)? as u32, number(8)? as u64)))
        })?;
        // Shared, but not with what was walked: it would not become free.
        let elsewhere = matches!(found.as_slice(), [(_, true, _)]);
        let with_privacy = found.into_iter().map(|(one, _, (mode, bytes))| Use {
            is_private: is_private(mode, bytes, self.private_min_bytes),
            ..one
        });
        let list = with_privacy.collect();
        Ok(Uses {
            list,
            complete: !elsewhere,
            encoded: extent >= ENCODED_FROM,
            unsummed: false,
        })
    }

    pub(crate) fn used_bytes(&self) -> Result<u64> {
        let blocks = self.rows("SELECT coalesce(sum(blocks), 0) FROM extent", [], |row| {
            row.get::<_, i64>(0)
        })?;
        Ok(blocks.first().map_or(0, |blocks| *blocks as u64 * self.block_bytes))
    }

    /// All extents with their fingerprints, in the order of the disk.
    pub(crate) fn scan(&self, which: Which, visit: &mut dyn FnMut(Extent, &[Print]) -> Result<()>) -> Result<()> {
        let least = match which {
            Which::All => 0,
            Which::NewSince(since) => since + 1,
        };
        let sql =
            "SELECT start, blocks, generation, prints, (SELECT count(DISTINCT inode) FROM use WHERE extent = start),
                   (SELECT count(*) FROM use WHERE extent = start)
                   FROM extent WHERE start >= ?1 AND generation >= ?2 ORDER BY start";
        let mut prints = Vec::with_capacity(SCAN_ROWS);
        let mut failure = None;
        self.call(|connection| {
            let mut query = connection.prepare_cached(sql)?;
            let mut rows = query.query(params![0, least as i64])?;
            while let Some(row) = rows.next()? {
                let number = |at: usize| row.get::<_, i64>(at);
                let extent = Extent {
                    start: number(0)? as u64,
                    blocks: number(1)? as u32,
                    refs: number(4)? as u32,
                    pieces: number(5)? as u32,
                    generation: number(2)? as u64,
                };
                prints.clear();
                let bytes = row.get_ref(3)?.as_bytes()?;
                prints.extend(bytes.chunks_exact(4).map(|bytes| {
                    bytes
                        .first_chunk()
                        .map_or(NO_PRINT, |bytes| Print::from_le_bytes(*bytes))
                }));
                if let Err(error) = visit(extent, &prints) {
                    failure = Some(error);
                    return Ok(());
                }
            }
            Ok(())
        })?;
        failure.map_or(Ok(()), |error: Error| Err(error))
    }
}

/// Where a piece lies, in the order in which the map has places.
fn place(piece: &Piece) -> u64 {
    if piece.encoded {
        ENCODED_FROM | piece.disk_offset.saturating_mul(ENCODED_ROOM)
    } else {
        piece.disk_offset
    }
}

fn found(row: &Row<'_>) -> rusqlite::Result<FoundFile> {
    Ok(FoundFile {
        inode: row.get::<_, i64>(0)? as u64,
        path: row.get(1)?,
        size: row.get::<_, i64>(2)? as u64,
        mtime_ns: row.get(3)?,
        ctime_ns: row.get(4)?,
        owner: row.get(5)?,
        mode: row.get(6)?,
    })
}
