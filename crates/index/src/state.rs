//! The small relational state beside the index: what directories looked like in the last run, and single facts.
//!
//! - A cache (I4): a file that is damaged or of another schema is set aside as `<path>.old` and a new one begun.
//! - SQLite in WAL mode: readers never wait; writers buffer and hold the database for one short transaction at a time.
//! - Survives the end of the process; a power cut may lose the last transactions but leaves the database whole.
//! - An unchanged run writes nothing: which directories it saw is kept in memory, in ten bits each.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, config::DbConfig, params};
use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

mod seen;

pub use seen::Seen;

/// Version of the tables; another one is set aside.
const SCHEMA_VERSION: i64 = 1;
/// How long to wait for another process's transaction, which takes milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that a writer buffers before it begins a transaction.
const BUFFER_BYTES: usize = 4 << 20;
/// Cost of a buffered row beside its payload, bytes.
const ROW_BYTES: usize = 80;

/// Memory that a reader keeps pages of the database in, KiB.
const READER_CACHE_KIB: i64 = 512;

/// Bytes of a page of the database: the common directory, of ten files, fits several times.
const PAGE_BYTES: i64 = 8192;

// Pages of directories are a table with rows: keyed by blobs alone, a payload above a quarter of a page would take pages of its own
// (10,000 directories of 1 KB: 45 MB and 340 ms to read, against 12 MB and 40 ms).
const SCHEMA: &str = "
    CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE source (source BLOB PRIMARY KEY, dirs INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE dir_page (
        source BLOB NOT NULL, dir BLOB NOT NULL, page INTEGER NOT NULL, epoch INTEGER NOT NULL, payload BLOB NOT NULL,
        UNIQUE (source, dir, page)
    );
    PRAGMA user_version = 1;
";

/// What one owner, the engine or a door, keeps of a vault on this machine. Shared by threads, and the file by processes.
pub struct State {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// Reads directories of the last run; one for each thread.
pub struct StateReader {
    path: PathBuf,
    connection: Connection,
}

/// Writes directories of one source.
pub struct StateWriter {
    path: PathBuf,
    connection: Connection,
    source: [u8; 16],
    pending: Vec<Pending>,
    pending_bytes: usize,
}

enum Pending {
    Page {
        dir: [u8; 16],
        page: u32,
        epoch: u64,
        payload: Vec<u8>,
    },
    End {
        dir: [u8; 16],
        pages: u32,
    },
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Directories that were no longer seen.
    pub dirs: u64,
}

impl State {
    /// Opens the state at `path`, or begins it; the directory must exist.
    pub fn open(path: &Path) -> Result<Self> {
        let lock_path = beside(path, ".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path);
        let lock = lock.map_err(|source| Error::io(&lock_path, "open", source))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|source| Error::io(&lock_path, "lock", source))?;
        if beside(path, ".damaged").exists() {
            set_aside(path)?;
        }
        let connection = match prepare(path) {
            Err(Error::StateDamaged { .. }) => {
                set_aside(path)?;
                prepare(path)?
            }
            other => other?,
        };
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    /// Opens the state as [`State::open`] does. Sets it aside at once if one of these facts cannot be read for damage, and
    /// begins a new one.
    pub fn open_sound(path: &Path, facts: &[&str]) -> Result<Self> {
        let state = Self::open(path)?;
        match facts.iter().try_for_each(|key| state.get(key).map(drop)) {
            Err(Error::StateDamaged { .. }) => Self::open(path),
            other => other.map(|()| state),
        }
    }

    /// Makes everything that was committed survive a power cut.
    pub fn sync(&self) -> Result<()> {
        // What is no longer in the log was synced when it was moved.
        let log = beside(&self.path, "-wal");
        match File::open(&log).and_then(|file| file.sync_data()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&log, "sync", error)),
            _ => Ok(()),
        }
    }

    /// The fact kept under this key.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let connection = self.connection.lock();
        let row = connection
            .prepare_cached("SELECT value FROM kv WHERE key = ?1")
            .and_then(|mut query| query.query_row([key], |row| row.get(0)).optional());
        row.map_err(|error| failed(&self.path, "read", error))
    }

    /// Keeps a fact, in the place of an earlier one.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let connection = self.connection.lock();
        let done = connection
            .prepare_cached("INSERT OR REPLACE INTO kv VALUES (?1, ?2)")
            .and_then(|mut insert| insert.execute(params![key, value]));
        done.map(drop).map_err(|error| failed(&self.path, "write", error))
    }

    /// Keeps a fact in the place of `before`, if that is what is kept (`None`: nothing); says whether it was.
    pub fn replace(&self, key: &str, before: Option<&[u8]>, value: &[u8]) -> Result<bool> {
        let connection = self.connection.lock();
        let done = match before {
            None => connection
                .prepare_cached("INSERT OR IGNORE INTO kv VALUES (?1, ?2)")
                .and_then(|mut insert| insert.execute(params![key, value])),
            Some(before) => connection
                .prepare_cached("UPDATE kv SET value = ?3 WHERE key = ?1 AND value = ?2")
                .and_then(|mut update| update.execute(params![key, before, value])),
        };
        done.map(|count| count == 1)
            .map_err(|error| failed(&self.path, "write", error))
    }

    /// How many directories are kept for `source`.
    pub fn dirs(&self, source: &[u8; 16]) -> Result<u64> {
        dirs(&self.connection.lock(), source).map_err(|error| failed(&self.path, "read", error))
    }

    /// Removes a fact, if it is there.
    pub fn remove(&self, key: &str) -> Result<()> {
        let done = self.connection.lock().execute("DELETE FROM kv WHERE key = ?1", [key]);
        done.map(drop).map_err(|error| failed(&self.path, "write", error))
    }

    /// A reader with a connection of its own.
    pub fn reader(&self) -> Result<StateReader> {
        let connection = connect(&self.path)?;
        // Each thread has one, and reads a directory's pages once.
        let limited = connection.pragma_update(None, "cache_size", -READER_CACHE_KIB);
        limited.map_err(|error| failed(&self.path, "open", error))?;
        Ok(StateReader {
            path: self.path.clone(),
            connection,
        })
    }

    /// A writer of the directories of `source`.
    pub fn writer(&self, source: [u8; 16]) -> Result<StateWriter> {
        let connection = connect(&self.path)?;
        Ok(StateWriter {
            path: self.path.clone(),
            connection,
            source,
            pending: Vec::new(),
            pending_bytes: 0,
        })
    }

    /// An empty set for the directories that a run over `source` sees, sized by those that are kept.
    pub fn seen(&self, source: &[u8; 16]) -> Result<Seen> {
        let dirs = dirs(&self.connection.lock(), source).map_err(|error| failed(&self.path, "read", error))?;
        Ok(Seen::new(dirs))
    }
}

impl StateReader {
    /// Page `page` (from 0) of a directory, and the epoch it was written in. Reading past the last gives none.
    ///
    /// All pages of a directory have the epoch of its page 0; one that has another is left from an earlier run that
    /// this one did not finish replacing, and ends the directory. Damage reads as absence, and is mended by the next run.
    pub fn get_page(&self, source: &[u8; 16], dir: &[u8; 16], page: u32) -> Result<Option<(u64, Vec<u8>)>> {
        let row = self
            .connection
            .prepare_cached("SELECT epoch, payload FROM dir_page WHERE source = ?1 AND dir = ?2 AND page = ?3")
            .and_then(|mut query| {
                let key = params![source.as_slice(), dir.as_slice(), page];
                query
                    .query_row(key, |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))
                    .optional()
            });
        match row.map_err(|error| failed(&self.path, "read", error)) {
            Err(Error::StateDamaged { .. }) => Ok(None),
            other => other,
        }
    }
}

impl StateReader {
    /// All directories that are kept for `source`.
    pub fn dirs_of(&self, source: &[u8; 16]) -> Result<Vec<[u8; 16]>> {
        let found = self
            .connection
            .prepare_cached("SELECT dir FROM dir_page WHERE source = ?1 AND page = 0 ORDER BY dir")
            .and_then(|mut query| {
                let rows = query.query_map([source.as_slice()], |row| row.get::<_, [u8; 16]>(0))?;
                rows.collect()
            });
        found.map_err(|error| failed(&self.path, "read", error))
    }
}

impl StateWriter {
    /// Puts one page of a directory. `epoch` must be another than that of the directory's earlier pages.
    ///
    /// Buffered: readers see it after some megabytes more, or after [`StateWriter::finish`].
    pub fn put_page(&mut self, dir: &[u8; 16], page: u32, epoch: u64, payload: Vec<u8>) -> Result<()> {
        let bytes = payload.len();
        self.push(
            Pending::Page {
                dir: *dir,
                page,
                epoch,
                payload,
            },
            bytes,
        )
    }

    /// Says that the directory has so many pages now: those beyond, from an earlier run, are removed.
    pub fn end_dir(&mut self, dir: &[u8; 16], pages: u32) -> Result<()> {
        self.push(Pending::End { dir: *dir, pages }, 0)
    }

    /// Puts all pages of a directory that fits in memory.
    pub fn replace_dir(&mut self, dir: &[u8; 16], epoch: u64, pages: Vec<Vec<u8>>) -> Result<()> {
        let count = pages.len() as u32;
        for (page, payload) in (0..).zip(pages) {
            self.put_page(dir, page, epoch, payload)?;
        }
        self.end_dir(dir, count)
    }

    /// Removes the source's directories that a complete run has not seen: all at once when there are any to remove,
    /// but for about one in a hundred, which a later run removes.
    pub fn sweep(&mut self, seen: &Seen) -> Result<Swept> {
        self.commit()?;
        self.remove_unseen(seen)
            .map_err(|error| failed(&self.path, "write", error))
    }

    /// Goes on with the directories of another source, after a commit.
    pub fn turn_to(&mut self, source: [u8; 16]) -> Result<()> {
        self.commit()?;
        self.source = source;
        Ok(())
    }

    /// Commits what is buffered.
    pub fn finish(mut self) -> Result<()> {
        self.commit()
    }

    fn push(&mut self, pending: Pending, bytes: usize) -> Result<()> {
        self.pending.push(pending);
        self.pending_bytes += bytes + ROW_BYTES;
        if self.pending_bytes < BUFFER_BYTES {
            Ok(())
        } else {
            self.commit()
        }
    }

    fn commit(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.write(pending).map_err(|error| failed(&self.path, "write", error))
    }

    fn write(&mut self, pending: Vec<Pending>) -> rusqlite::Result<()> {
        let source = self.source.as_slice();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut added = 0i64;
        {
            let mut update = transaction.prepare_cached(
                "UPDATE dir_page SET epoch = ?4, payload = ?5 WHERE source = ?1 AND dir = ?2 AND page = ?3",
            )?;
            let mut insert = transaction.prepare_cached("INSERT INTO dir_page VALUES (?1, ?2, ?3, ?4, ?5)")?;
            let mut cut = transaction
                .prepare_cached("DELETE FROM dir_page WHERE source = ?1 AND dir = ?2 AND page >= ?3 RETURNING page")?;
            for pending in pending {
                match pending {
                    Pending::Page {
                        dir,
                        page,
                        epoch,
                        payload,
                    } => {
                        let row = params![source, dir.as_slice(), page, epoch as i64, payload];
                        if update.execute(row)? == 0 {
                            insert.execute(row)?;
                            added += i64::from(page == 0);
                        }
                    }
                    Pending::End { dir, pages } => {
                        let mut rows = cut.query(params![source, dir.as_slice(), pages])?;
                        while let Some(row) = rows.next()? {
                            added -= i64::from(row.get::<_, u32>(0)? == 0);
                        }
                    }
                }
            }
            count_dirs(&transaction, source, added)?;
        }
        transaction.commit()
    }

    fn remove_unseen(&mut self, seen: &Seen) -> rusqlite::Result<Swept> {
        if seen.count() >= dirs(&self.connection, &self.source)? {
            return Ok(Swept::default());
        }
        let source = self.source.as_slice();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut swept = Swept::default();
        {
            let mut next = transaction.prepare_cached(
                "SELECT dir FROM dir_page WHERE source = ?1 AND dir > ?2 AND page = 0 ORDER BY dir LIMIT 4096",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM dir_page WHERE source = ?1 AND dir = ?2")?;
            let mut after = Vec::new();
            loop {
                let rows = next.query_map(params![source, after], |row| row.get::<_, Vec<u8>>(0))?;
                let dirs: Vec<Vec<u8>> = rows.collect::<rusqlite::Result<_>>()?;
                let Some(last) = dirs.last() else { break };
                after.clone_from(last);
                for dir in dirs.iter().filter(|dir| !seen.may_have(dir)) {
                    delete.execute(params![source, dir])?;
                    swept.dirs += 1;
                }
            }
            count_dirs(&transaction, source, -(swept.dirs as i64))?;
        }
        transaction.commit()?;
        Ok(swept)
    }
}

/// Directories that are kept for a source.
fn dirs(connection: &Connection, source: &[u8; 16]) -> rusqlite::Result<u64> {
    let mut query = connection.prepare_cached("SELECT dirs FROM source WHERE source = ?1")?;
    let dirs = query
        .query_row([source.as_slice()], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(dirs.unwrap_or(0).max(0) as u64)
}

fn count_dirs(connection: &Connection, source: &[u8], added: i64) -> rusqlite::Result<()> {
    if added != 0 {
        connection.execute(
            "INSERT INTO source VALUES (?1, ?2) ON CONFLICT DO UPDATE SET dirs = dirs + ?2",
            params![source, added],
        )?;
    }
    Ok(())
}

/// Opens the database and makes sure that its tables are there; wrong ones count as damage.
fn prepare(path: &Path) -> Result<Connection> {
    // The file holds names of files, so it is made for its owner only before SQLite makes it for everyone.
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    file.map_err(|source| Error::io(path, "create", source))?;
    let mut connection = connect(path)?;
    let version = (|| {
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == 0 {
            transaction.execute_batch(SCHEMA)?;
        }
        transaction.commit()?;
        Ok(version)
    })();
    match version {
        Ok(0 | SCHEMA_VERSION) => Ok(connection),
        Ok(_) => Err(Error::StateDamaged { path: path.to_owned() }),
        Err(error) => match failed(path, "prepare", error) {
            // "table kv already exists" and the like: somebody else's database.
            Error::State { .. } => Err(Error::StateDamaged { path: path.to_owned() }),
            other => Err(other),
        },
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).and_then(|connection| {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        // A checkpoint at every exit would cost two syncs in runs that change nothing.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
    });
    connection.map_err(|error| failed(path, "open", error))
}

/// Moves a database out of the way.
fn set_aside(path: &Path) -> Result<()> {
    for suffix in ["-wal", "-shm"] {
        crate::directory::remove(&beside(path, suffix))?;
    }
    match fs::rename(path, beside(path, ".old")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(path, "set aside", error)),
        _ => {}
    }
    crate::directory::remove(&beside(path, ".damaged"))
}

/// The public form of an error; damage is marked for the next to open the database.
fn failed(path: &Path, during: &'static str, source: rusqlite::Error) -> Error {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            // Best effort: without the mark the damage is met again.
            let _ = fs::write(beside(&path, ".damaged"), "");
            Error::StateDamaged { path }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy { path },
        Some(ErrorCode::DiskFull) => Error::Full { path },
        _ => Error::State { path, during, source },
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
