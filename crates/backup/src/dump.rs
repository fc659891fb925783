//! Writing what is stored to a stream: the bytes of one file, or a directory as a tar.
//!
//! - The tar is POSIX pax with what GNU tar, bsdtar and Python read: long names, times in ns, owners by name, extended
//!   attributes (`SCHILY.xattr.`), ACLs (`SCHILY.acl.`), hard links, devices. Holes become zeros.
//! - Directories that were made up to lead to standard input are left out: unpacking must not give their attributes to others.
//! - Its names are relative to the directory that was selected, which itself is `./`.
//! - Memory: one record per file that has several names.

mod header;

use std::collections::HashMap;
use std::io::{self, Write};

use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_vault::{Cancel, PieceData, Problems, Progress, Reader};

use crate::browse::Selection;
use crate::browse::walk::{Step, TreeWalk};
use crate::causes::Causes;
use crate::dump::header::{Header, record, write_padding};
use crate::error::{Error, Result};
use crate::local::acl::{self, Acl};
use crate::restore::LOST;
use crate::restore::links::{Identity, identity};

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What a dump wrote.
#[derive(Debug, Clone, Default)]
pub struct DumpReport {
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of all regular files in it.
    pub bytes: u64,
    /// Files whose content is damaged (their missing bytes are zeros) and directories whose rest is.
    pub problems: Problems,
    /// Entries that are not in the tar as they were when they were backed up: marked so in the snapshot, or of a kind that no tar holds.
    pub incomplete: Problems,
}

/// Watches over a dump.
#[derive(Debug, Clone, Copy)]
pub struct Watch<'a> {
    /// Counts files and bytes.
    pub progress: &'a Progress,
    /// Ends it with `Error::Vault(Interrupted)`.
    pub cancel: &'a Cancel,
}

fn output(source: io::Error) -> Error {
    Error::Output { source }
}

/// Writes zeros, which may be more than anybody waits for.
fn write_zeros(out: &mut dyn Write, mut bytes: u64, watch: Watch<'_>) -> Result<()> {
    while bytes > 0 {
        watch.cancel.check()?;
        let count = bytes.min(ZEROS.len() as u64);
        out.write_all(ZEROS.get(..count as usize).unwrap_or(&ZEROS))
            .map_err(output)?;
        bytes -= count;
    }
    Ok(())
}

/// Writes the content of one file, which must be a regular one. Damage ends it.
pub fn cat(reader: &Reader, selection: &Selection, out: &mut dyn Write, watch: Watch<'_>) -> Result<()> {
    content(reader, selection.content()?, (out, &mut 0), watch)
}

/// Writes a file's bytes and counts them.
fn content(reader: &Reader, recipe: &Recipe, (out, done): (&mut dyn Write, &mut u64), watch: Watch<'_>) -> Result<()> {
    let mut pieces = reader.content(recipe);
    loop {
        watch.cancel.check()?;
        let Some(piece) = pieces.next_piece()? else {
            return Ok(());
        };
        let before = *done;
        match piece.data {
            PieceData::Bytes(bytes) => {
                out.write_all(&bytes).map_err(output)?;
                *done += bytes.len() as u64;
            }
            PieceData::Zeros(bytes) | PieceData::Hole(bytes) => {
                write_zeros(out, bytes, watch)?;
                *done += bytes;
            }
        }
        Progress::add(&watch.progress.bytes, *done - before);
    }
}

/// Writes what was selected as a tar.
///
/// A file that cannot be read whole is filled up with zeros and reported, so that the others are still good.
pub fn dump_tar(reader: &Reader, selection: &Selection, out: &mut dyn Write, watch: Watch<'_>) -> Result<DumpReport> {
    let mut tar = Tar {
        reader,
        out,
        watch,
        links: HashMap::new(),
        marked: 0,
        causes: Causes::default(),
        report: DumpReport::default(),
    };
    if let Some(entry) = selection.entry() {
        let name = if selection.tree().is_some() {
            b"."
        } else {
            entry.name.as_slice()
        };
        tar.entry(name, entry)?;
    }
    if let Some(tree) = selection.tree() {
        let mut walk = TreeWalk::new(reader, tree);
        loop {
            match walk.next() {
                Ok(None) => break,
                Ok(Some(Step::Leave)) => {}
                Ok(Some(Step::Enter(entry) | Step::Entry(entry))) => tar.entry(walk.path(), &entry)?,
                Err(error) if error.is_damage() => {
                    let what = format!("the rest of this directory cannot be read: {error}");
                    tar.report.problems.push(walk.path(), what);
                }
                Err(error) => return Err(error),
            }
        }
    }
    if selection.lost() > tar.marked {
        tar.report.incomplete.push(".", LOST);
    }
    // The end: two empty records.
    write_zeros(tar.out, 1024, watch)?;
    tar.out.flush().map_err(output)?;
    Ok(tar.report)
}

struct Tar<'a> {
    reader: &'a Reader,
    out: &'a mut dyn Write,
    watch: Watch<'a>,
    /// The first name of each file that has several; the kind is part of what it is, as in a restore.
    links: HashMap<Identity, Vec<u8>>,
    /// Entries that are marked as not whole.
    marked: u64,
    causes: Causes,
    report: DumpReport,
}

impl Tar<'_> {
    fn entry(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        self.watch.cancel.check()?;
        if let Some(flaw) = entry.flaw() {
            self.marked += 1;
            self.report.incomplete.push(path, flaw);
        }
        if matches!(entry.kind, Kind::Socket) {
            let what = "a socket, which a tar cannot hold; left out";
            self.report.incomplete.push(path, what);
            return Ok(());
        }
        if entry.marks.has(Marks::MADE_UP) {
            return Ok(());
        }
        self.report.entries += 1;
        Progress::add(&self.watch.progress.files, 1);
        let is_dir = matches!(entry.kind, Kind::Dir(_));
        if let Some(link) = identity(entry) {
            if let Some(first) = self.links.get(&link) {
                let header = Header {
                    kind: b'1',
                    link: first,
                    ..header(path, entry)
                };
                return self.out.write_all(&header.encode()).map_err(output);
            }
            self.links.insert(link, path.to_vec());
        }
        let (kind, device, link) = match &entry.kind {
            Kind::File(_) => (b'0', None, [].as_slice()),
            Kind::Symlink(target) => (b'2', None, target.as_slice()),
            Kind::CharDevice { major, minor } => (b'3', Some((*major, *minor)), [].as_slice()),
            Kind::BlockDevice { major, minor } => (b'4', Some((*major, *minor)), [].as_slice()),
            Kind::Dir(_) => (b'5', None, [].as_slice()),
            Kind::Fifo => (b'6', None, [].as_slice()),
            Kind::Socket => return Ok(()),
        };
        let size = match &entry.kind {
            Kind::File(recipe) => recipe.size_bytes,
            _ => 0,
        };
        let slashed = [path, b"/"].concat();
        let header = Header {
            kind,
            device,
            link,
            size,
            ..header(if is_dir { &slashed } else { path }, entry)
        };
        self.out.write_all(&header.encode()).map_err(output)?;
        match &entry.kind {
            Kind::File(recipe) => self.content(path, recipe),
            _ => Ok(()),
        }
    }

    fn content(&mut self, path: &[u8], recipe: &Recipe) -> Result<()> {
        let mut done = 0;
        match content(self.reader, recipe, (self.out, &mut done), self.watch) {
            Err(error) if error.is_damage() => {
                let missing = recipe.size_bytes.saturating_sub(done);
                let error = match &error {
                    Error::Vault(error) => self.causes.tell(error),
                    error => error.to_string(),
                };
                let what = format!("its last {missing} bytes are zeros in the tar, since they cannot be read: {error}");
                self.report.problems.push(path, what);
                write_zeros(self.out, missing, self.watch)?;
            }
            other => other?,
        }
        self.report.bytes += recipe.size_bytes;
        write_padding(self.out, recipe.size_bytes).map_err(output)
    }
}

/// What all kinds of entries have.
fn header<'a>(path: &'a [u8], entry: &'a Entry) -> Header<'a> {
    let mut records = Vec::new();
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| !acl::is_copy(name)) {
        match (name.as_slice(), Acl::decode(value)) {
            (acl::ACCESS, Some(acl)) => record(&mut records, b"SCHILY.acl.access", acl.text(entry).as_bytes()),
            (acl::DEFAULT, Some(acl)) => record(&mut records, b"SCHILY.acl.default", acl.text(entry).as_bytes()),
            _ => record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value),
        }
    }
    if entry.mtime.nanos != 0 || entry.mtime.seconds < 0 {
        record(&mut records, b"mtime", seconds(entry.mtime).as_bytes());
    }
    Header {
        kind: b'0',
        path,
        link: &[],
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        names: (&entry.user, &entry.group),
        size: 0,
        mtime: entry.mtime.seconds,
        device: None,
        records,
    }
}

/// A time as pax has it: decimal seconds, the sign in front of all of it.
fn seconds(time: Time) -> String {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let text = format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_have_their_sign_in_front() {
        let time = |seconds, nanos| super::seconds(Time { seconds, nanos });
        assert_eq!(time(1, 500_000_000), "1.5");
        assert_eq!(time(-1, 500_000_000), "-0.5");
        assert_eq!(time(-2, 999_999_999), "-1.000000001");
        assert_eq!(time(-3, 0), "-3");
        assert_eq!(time(0, 0), "0");
    }
}
