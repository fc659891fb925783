//! What a walk saw, and what is forgotten after it: files that are gone, changed or excluded, and places that nobody uses.

use rusqlite::{Row, params};

use super::{Map, SCAN_ROWS};
use crate::error::Result;
use crate::plan::live;
use crate::space::Print;
use crate::walk::FoundFile;

impl Map {
    /// Notes files that are there; those that changed lose what was known of them.
    pub(crate) fn see(&mut self, files: Vec<FoundFile>) -> Result<()> {
        for found in files {
            let first = "INSERT OR IGNORE INTO seen VALUES (?1) RETURNING inode";
            if self.rows(first, [found.inode as i64], |_| Ok(()))?.is_empty() {
                // Another name of a file that was seen.
                continue;
            }
            let known = self.file(found.inode)?;
            if known.as_ref() == Some(&found) {
                continue;
            }
            let same_content = known.as_ref().is_some_and(|known| {
                FoundFile {
                    path: found.path.clone(),
                    ..known.clone()
                } == found
            });
            if same_content {
                self.execute(
                    "UPDATE file SET path = ?2 WHERE inode = ?1",
                    params![found.inode as i64, found.path],
                )?;
                continue;
            }
            self.drop_uses(found.inode)?;
            self.execute(
                "INSERT OR REPLACE INTO file VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)",
                params![
                    found.inode as i64,
                    found.path,
                    found.size as i64,
                    found.mtime_ns,
                    found.ctime_ns,
                    found.owner,
                    found.mode
                ],
            )?;
        }
        Ok(())
    }

    /// Notes that a file is left alone, by whichever of its names it is seen.
    pub(crate) fn exclude(&self, inode: u64) -> Result<()> {
        self.execute("INSERT OR IGNORE INTO excluded VALUES (?1)", [inode as i64])
    }

    /// Forgets files that were not seen or are excluded, and places that nobody uses.
    pub(crate) fn sweep(&mut self) -> Result<()> {
        self.execute("DELETE FROM seen WHERE inode IN (SELECT inode FROM excluded)", [])?;
        self.execute("DELETE FROM excluded", [])?;
        let gone =
            "SELECT inode FROM file WHERE inode > ?1 AND inode NOT IN (SELECT inode FROM seen) ORDER BY inode LIMIT ?2";
        self.each_number(gone, |inode| self.drop_file(inode))?;
        self.cut_lost()?;
        // Read for a file that meanwhile lay elsewhere.
        self.execute(
            "DELETE FROM extent WHERE NOT EXISTS (SELECT 1 FROM use WHERE extent = start)",
            [],
        )?;
        self.execute("DELETE FROM seen", [])?;
        self.commit()
    }

    /// Cuts extents that lost a use down to what is used.
    pub(crate) fn cut_lost(&self) -> Result<()> {
        let lost = "SELECT extent FROM lost WHERE extent > ?1 ORDER BY extent LIMIT ?2";
        self.each_number(lost, |extent| self.cut_down(extent))?;
        self.execute("DELETE FROM lost", [])
    }

    /// Calls `each` with the numbers that a query finds above one, of which it is asked for so many at once.
    fn each_number(&self, sql: &str, each: impl Fn(u64) -> Result<()>) -> Result<()> {
        let mut last = -1;
        loop {
            let found = self.rows(sql, params![last, SCAN_ROWS as i64], |row| row.get::<_, i64>(0))?;
            let Some(end) = found.last() else { return Ok(()) };
            last = *end;
            found.into_iter().try_for_each(|number| each(number as u64))?;
        }
    }

    /// Leaves of an extent what is used, as an extent for each stretch of it.
    fn cut_down(&self, extent: u64) -> Result<()> {
        let live = live(&self.uses(extent)?);
        let columns = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?));
        let sql = "SELECT blocks, generation, prints FROM extent WHERE start = ?1";
        let Some((blocks, generation, prints)) = self.rows(sql, [extent as i64], columns)?.pop() else {
            return Ok(());
        };
        if matches!(live.as_slice(), [(0, to)] if i64::from(*to) == blocks) {
            return Ok(());
        }
        self.execute("DELETE FROM extent WHERE start = ?1", [extent as i64])?;
        for (from, to) in live {
            let start = extent + u64::from(from) * self.block_bytes;
            let of_range = from as usize * size_of::<Print>()..to as usize * size_of::<Print>();
            self.execute(
                "INSERT INTO extent VALUES (?1, ?2, ?3, ?4)",
                params![
                    start as i64,
                    to - from,
                    generation,
                    prints.get(of_range).unwrap_or_default()
                ],
            )?;
            self.execute(
                "UPDATE use SET extent = ?2, block = block - ?3 WHERE extent = ?1 AND block >= ?3 AND block < ?4",
                params![extent as i64, start as i64, from, to],
            )?;
        }
        Ok(())
    }
}
