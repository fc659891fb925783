//! What earlier runs leave for later ones: how far each got, and what came of it.
//!
//! - Everything in it can be found out again: without it the next run looks at everything once.
//! - Progress is noted only after the work that it stands for; a run that was killed is repeated, and finds its work done.
//! - One run at a time: the file beside it is locked while it is open for writing.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Marks the file as ours ("DSrl"), and says which tables it has.
const APPLICATION: i32 = 0x4453_726c;
const SCHEMA_VERSION: i32 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Runs that are remembered for a file system.
const RUNS_MAX: i64 = 100;

const SCHEMA: &str = "
    CREATE TABLE fs (id BLOB PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE done (
        fs BLOB NOT NULL REFERENCES fs ON DELETE CASCADE, scope TEXT NOT NULL, generation INTEGER NOT NULL, PRIMARY KEY (fs, scope)
    ) WITHOUT ROWID;
    CREATE TABLE run (
        number INTEGER PRIMARY KEY, fs BLOB NOT NULL REFERENCES fs ON DELETE CASCADE, scope TEXT NOT NULL, started_s INTEGER NOT NULL,
        elapsed_ms INTEGER NOT NULL, scanned_bytes INTEGER NOT NULL, freed_bytes INTEGER NOT NULL, predicted_bytes INTEGER NOT NULL,
        complete INTEGER NOT NULL
    );
    CREATE INDEX run_fs ON run (fs, number);
";

/// Later than the rest, so that states without it get it.
const LIFE: &str = "
    CREATE TABLE IF NOT EXISTS life (
        fs BLOB NOT NULL REFERENCES fs ON DELETE CASCADE, scope TEXT NOT NULL, life TEXT NOT NULL, PRIMARY KEY (fs, scope)
    ) WITHOUT ROWID;
";

/// The state of all file systems of this machine.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    connection: Connection,
    _lock: Option<File>,
}

/// A file system that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFs {
    /// Its identity.
    pub id: [u8; 16],
    /// `btrfs` or `xfs`.
    pub kind: String,
    /// Where it was mounted when it was last seen.
    pub name: String,
    /// How far runs got: what they were about, and the generation up to which everything was looked at.
    pub done: Vec<(String, u64)>,
    /// The latest run, if there was one.
    pub last: Option<PastRun>,
}

/// A run that was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PastRun {
    /// What it was about.
    pub scope: String,
    /// When it began, seconds since 1970.
    pub started_s: u64,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Bytes on disk that were looked at.
    pub scanned_bytes: u64,
    /// Bytes that were freed.
    pub freed_bytes: u64,
    /// Bytes that the plan promised.
    pub predicted_bytes: u64,
    /// Whether it did all that it found to do.
    pub complete: bool,
}

impl State {
    /// Opens the state at `path`, or begins it, and keeps other runs out.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|source| Error::io(directory, "make", source))?;
        }
        let open = |path: &Path| {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path);
            file.map_err(|source| Error::io(path, "open", source))
        };
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = open(Path::new(&lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy { path: path.to_owned() }),
            other => other.map_err(|source| Error::io(path, "lock", source))?,
        }
        // SQLite would make it readable for everyone, and it names directories.
        drop(open(path)?);
        let connection = Connection::open(path).map_err(|error| failed(path, &error))?;
        prepare(&connection).map_err(|error| failed(path, &error))?;
        let state = Self {
            path: path.to_owned(),
            connection,
            _lock: Some(lock),
        };
        state.check_kind()?;
        Ok(state)
    }

    /// Opens the state for looking at; `None` if there is none.
    pub fn look(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| failed(path, &error))?;
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .map_err(|error| failed(path, &error))?;
        let state = Self {
            path: path.to_owned(),
            connection,
            _lock: None,
        };
        state.check_kind()?;
        Ok(Some(state))
    }

    fn check_kind(&self) -> Result<()> {
        let number = |name: &str| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
        };
        let kind = number("application_id").and_then(|id| Ok((id, number("user_version")?)));
        match kind.map_err(|error| failed(&self.path, &error))? {
            (APPLICATION, SCHEMA_VERSION) => Ok(()),
            (APPLICATION, version) => Err(self.refused(format!("it is of version {version}, not {SCHEMA_VERSION}"))),
            _ => Err(self.refused("it is another program's".to_owned())),
        }
    }

    fn refused(&self, why: String) -> Error {
        Error::State {
            path: self.path.clone(),
            why,
        }
    }

    fn failed(&self, error: rusqlite::Error) -> Error {
        failed(&self.path, &error)
    }

    /// Notes that a file system is there.
    pub fn see(&self, id: [u8; 16], kind: &str, name: &str) -> Result<()> {
        let sql = "INSERT INTO fs VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET kind = ?2, name = ?3";
        let done = self.connection.execute(sql, params![id.as_slice(), kind, name]);
        done.map(drop).map_err(|error| self.failed(error))
    }

    /// The generation up to which everything of this scope was done; 0 if nothing was.
    pub fn generation(&self, id: [u8; 16], scope: &str) -> Result<u64> {
        let mut query = self
            .connection
            .prepare_cached("SELECT generation FROM done WHERE fs = ?1 AND scope = ?2");
        let row = query.as_mut().map_err(|error| failed(&self.path, error));
        let row = row?
            .query_row(params![id.as_slice(), scope], |row| row.get::<_, i64>(0))
            .optional();
        row.map(|row| row.unwrap_or(0).max(0) as u64)
            .map_err(|error| self.failed(error))
    }

    /// What [`crate::Space::life`] said at the run that is noted; `None` if that is not known, and empty if a later run was not complete.
    pub fn life(&self, id: [u8; 16], scope: &str) -> Result<Option<String>> {
        let sql = "SELECT life FROM life WHERE fs = ?1 AND scope = ?2";
        let found = self
            .connection
            .query_row(sql, params![id.as_slice(), scope], |row| row.get(0))
            .optional();
        found.map_err(|error| self.failed(error))
    }

    /// Notes that for the run that [`State::finish`] has just noted; `None` as long as one is on.
    pub fn note_life(&self, id: [u8; 16], scope: &str, life: Option<&str>) -> Result<()> {
        let sql = "INSERT INTO life VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET life = ?3";
        let done = self
            .connection
            .execute(sql, params![id.as_slice(), scope, life.unwrap_or_default()]);
        done.map(drop).map_err(|error| self.failed(error))
    }

    /// Notes a run, and how far it got if it got anywhere: both or nothing.
    pub fn finish(&mut self, id: [u8; 16], run: &PastRun, generation: Option<u64>) -> Result<()> {
        let record = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            if let Some(generation) = generation {
                let sql = "INSERT INTO done VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET generation = ?3";
                transaction.execute(sql, params![id.as_slice(), run.scope, generation as i64])?;
            }
            transaction.execute(
                "INSERT INTO run (fs, scope, started_s, elapsed_ms, scanned_bytes, freed_bytes, predicted_bytes, complete)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    id.as_slice(),
                    run.scope,
                    run.started_s as i64,
                    run.elapsed_ms as i64,
                    run.scanned_bytes as i64,
                    run.freed_bytes as i64,
                    run.predicted_bytes as i64,
                    run.complete,
                ],
            )?;
            let old = "DELETE FROM run WHERE fs = ?1 AND number <= (SELECT max(number) FROM run WHERE fs = ?1) - ?2";
            transaction.execute(old, params![id.as_slice(), RUNS_MAX])?;
            transaction.commit()
        };
        record(&mut self.connection).map_err(|error| failed(&self.path, &error))
    }

    /// Forgets how far runs got: the next one looks at everything. False if nothing was known.
    pub fn reset(&self, id: [u8; 16]) -> Result<bool> {
        let done = self
            .connection
            .execute("DELETE FROM done WHERE fs = ?1", [id.as_slice()]);
        done.map(|count| count > 0).map_err(|error| self.failed(error))
    }

    /// Forgets a file system and all its runs. False if it was not known.
    pub fn forget(&self, id: [u8; 16]) -> Result<bool> {
        let done = self.connection.execute("DELETE FROM fs WHERE id = ?1", [id.as_slice()]);
        done.map(|count| count > 0).map_err(|error| self.failed(error))
    }

    /// All file systems that were seen, by identity.
    pub fn known(&self) -> Result<Vec<KnownFs>> {
        let read = || {
            let mut query = self.connection.prepare("SELECT id, kind, name FROM fs ORDER BY id")?;
            let rows = query.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?)))?;
            let rows: Vec<(Vec<u8>, String, String)> = rows.collect::<rusqlite::Result<_>>()?;
            rows.into_iter()
                .map(|(id, kind, name)| self.known_fs(id, kind, name))
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }

    fn known_fs(&self, id: Vec<u8>, kind: String, name: String) -> rusqlite::Result<KnownFs> {
        let mut query = self
            .connection
            .prepare_cached("SELECT scope, generation FROM done WHERE fs = ?1 ORDER BY scope")?;
        let done = query.query_map([&id], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
        let mut last = self.connection.prepare_cached(
            "SELECT scope, started_s, elapsed_ms, scanned_bytes, freed_bytes, predicted_bytes, complete FROM run
             WHERE fs = ?1 ORDER BY number DESC LIMIT 1",
        )?;
        let last = last.query_row([&id], |row| {
            let number = |at: usize| row.get::<_, i64>(at).map(|number| number as u64);
            Ok(PastRun {
                scope: row.get(0)?,
                started_s: number(1)?,
                elapsed_ms: number(2)?,
                scanned_bytes: number(3)?,
                freed_bytes: number(4)?,
                predicted_bytes: number(5)?,
                complete: row.get(6)?,
            })
        });
        Ok(KnownFs {
            id: id.first_chunk().copied().unwrap_or_default(),
            kind,
            name,
            done: done.collect::<rusqlite::Result<_>>()?,
            last: last.optional()?,
        })
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let is_empty: bool = connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
    if is_empty && number("application_id")? == 0 {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(&format!(
            "BEGIN; {SCHEMA} {LIFE} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        ))?;
    }
    if !is_empty && number("application_id")? == APPLICATION {
        connection.execute_batch(LIFE)?;
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)
}

/// Removes a cache that is no database any more: what it held is found out again.
pub(crate) fn drop_damaged(path: &Path) {
    let look = || Connection::open(path)?.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    let damaged = [ErrorCode::NotADatabase, ErrorCode::DatabaseCorrupt].map(Some);
    if path.exists() && look().is_err_and(|error| damaged.contains(&error.sqlite_error_code())) {
        for end in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            // One that cannot be removed is told when it is opened.
            let _ = fs::remove_file(name);
        }
    }
}

/// The public form of an error of the database.
pub(crate) fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy { path: path.to_owned() },
        _ => Error::State {
            path: path.to_owned(),
            why: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_remembered_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/state");
        assert!(State::look(&path).unwrap().is_none());
        let (id, other) = ([1; 16], [2; 16]);
        let mut state = State::open(&path).unwrap();
        assert!(matches!(State::open(&path), Err(Error::Busy { .. })));
        state.see(id, "btrfs", "/mnt").unwrap();
        state.see(other, "xfs", "/srv").unwrap();
        let run = PastRun {
            scope: "all".into(),
            freed_bytes: 7,
            ..PastRun::default()
        };
        state.finish(id, &run, Some(42)).unwrap();
        state
            .finish(
                id,
                &PastRun {
                    freed_bytes: 8,
                    ..run.clone()
                },
                None,
            )
            .unwrap();
        drop(state);
        let state = State::look(&path).unwrap().unwrap();
        assert_eq!(
            (
                state.generation(id, "all").unwrap(),
                state.generation(id, "one").unwrap()
            ),
            (42, 0)
        );
        let known = state.known().unwrap();
        assert_eq!((known.len(), known[0].last.as_ref().unwrap().freed_bytes), (2, 8));
        let state = State::open(&path).unwrap();
        assert!(state.reset(id).unwrap() && !state.reset(other).unwrap());
        assert!(state.forget(id).unwrap() && !state.forget(id).unwrap());
        assert_eq!(state.known().unwrap().len(), 1);
    }

    #[test]
    fn a_foreign_file_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        for bytes in [b"no database, and long enough to be taken for one".repeat(100), {
            let other = directory.path().join("other");
            Connection::open(&other)
                .unwrap()
                .execute_batch("CREATE TABLE a (b)")
                .unwrap();
            fs::read(&other).unwrap()
        }] {
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(State::open(&path), Err(Error::State { .. })));
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}
