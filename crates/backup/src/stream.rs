//! Backing up what comes through a pipe, as one file.

use std::io::{self, ErrorKind, Read};
use std::sync::atomic::Ordering;

use drystone_format::RootId;
use drystone_format::limits::TREE_DEPTH_MAX;
use drystone_format::recipe::Recipe;
use drystone_format::snapshot::Totals;
use drystone_format::tree::{Entry, Kind, Marks, Time, is_name};
use drystone_vault::{Content, FillError, Problems, Progress, Vault};
use rustix::process::{getegid, geteuid};

use crate::backup::{snapshot, start_ingest, totals};
use crate::error::{Error, Result};
use crate::options::{BackupOptions, Mode};
use crate::report::{BackupReport, Counts, Spared};

/// Mode of the file: what is worth a backup is nobody else's business.
const FILE_MODE: u32 = 0o600;
/// Mode of the directories that lead to it. They are marked as made up: those that are there keep what they have.
const DIR_MODE: u32 = 0o700;
/// Bytes that a dry run reads at once.
const READ_BYTES: usize = 1 << 20;

/// Stores everything that `input` gives as a file at `path` (absolute or relative to the root of the snapshot).
///
/// Sources and filters do not matter. [`Error::Stream`] if the input fails: then nothing is published. A dry run reads the
/// input and stores nothing.
pub fn backup_stream(
    vault: &Vault,
    path: &[u8],
    input: &mut dyn Read,
    options: &BackupOptions,
) -> Result<BackupReport> {
    let started = vault.context().clock.now();
    let names = names(path)?;
    let Some((file, dirs)) = names.split_last() else {
        return Err(bad_name(path));
    };
    let mut stream = Stream { path, input, options };
    let seen = |bytes| Totals {
        files: 1,
        dirs: dirs.len() as u64,
        bytes,
        ..Totals::default()
    };
    if options.mode == Mode::DryRun {
        let bytes = stream.measure()?;
        return Ok(report(None, seen(bytes)));
    }
    let ingest = start_ingest(vault, options)?;
    let mut lane = ingest.lane();
    let mut content = lane.content();
    while stream.fill(&mut content)? > 0 {}
    let recipe = content.finish()?;
    let bytes = recipe.size_bytes;
    let owner = Owner::new(options, started);
    let mut entry = owner.entry(file, FILE_MODE, Kind::File(recipe));
    for name in dirs.iter().rev() {
        let mut tree = ingest.tree();
        tree.push(&mut lane, &entry.encode())?;
        entry = owner.entry(name, DIR_MODE, Kind::Dir(tree.finish(&mut lane)?));
        entry.marks = Marks(Marks::MADE_UP);
    }
    let mut tree = ingest.tree();
    tree.push(&mut lane, &entry.encode())?;
    let tree: Recipe = tree.finish(&mut lane)?;
    lane.finish()?;
    let finished = ingest.finish()?;
    let totals = totals(seen(bytes), &finished, &Problems::default());
    Progress::add(&options.progress.files, 1);
    let shown = names.iter().flat_map(|name| [&b"/"[..], name].concat()).collect();
    let snapshot = snapshot(options, started, (tree, totals, None), vec![shown], vault);
    Ok(report(Some(vault.publish(&snapshot, &finished)?), totals))
}

fn report(snapshot: Option<RootId>, totals: Totals) -> BackupReport {
    BackupReport {
        snapshot,
        totals,
        counts: Counts {
            new: 1,
            ..Counts::default()
        },
        spared: Spared::default(),
        distrust: Vec::new(),
        left_out: Vec::new(),
        problems: Problems::default(),
    }
}

/// What is on its way in.
struct Stream<'a> {
    path: &'a [u8],
    input: &'a mut dyn Read,
    options: &'a BackupOptions,
}

impl Stream<'_> {
    /// One read into the vault; 0 at the end.
    fn fill(&mut self, content: &mut Content<'_>) -> Result<usize> {
        self.options.cancel.check()?;
        let count = match content.fill(&mut |room| read(self.input, room)) {
            Ok(count) => count,
            Err(FillError::Vault(error)) => return Err(error.into()),
            Err(FillError::Read(source)) => return Err(self.failed(source)),
        };
        Progress::add(&self.options.progress.bytes, count as u64);
        Ok(count)
    }

    /// Reads to the end, and says how many bytes there were.
    fn measure(&mut self) -> Result<u64> {
        let (mut room, mut bytes) = (vec![0; READ_BYTES], 0);
        loop {
            self.options.cancel.check()?;
            match read(self.input, &mut room) {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes += count as u64,
                Err(source) => return Err(self.failed(source)),
            }
            self.options.progress.bytes.store(bytes, Ordering::Relaxed);
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Stream {
            path: self.path.to_vec(),
            source,
        }
    }
}

fn read(input: &mut dyn Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(room) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn bad_name(path: &[u8]) -> Error {
    Error::Source {
        path: path.to_vec(),
        why: "is no name for a file".to_owned(),
    }
}

fn names(path: &[u8]) -> Result<Vec<&[u8]>> {
    let names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .collect();
    if names.len() < TREE_DEPTH_MAX && names.iter().all(|name| is_name(name)) {
        Ok(names)
    } else {
        Err(bad_name(path))
    }
}

/// Who runs the backup, to whom the file belongs.
struct Owner {
    uid: u32,
    gid: u32,
    user: String,
    group: String,
    mtime: Time,
}

impl Owner {
    fn new(options: &BackupOptions, mtime: Time) -> Self {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Self {
            uid,
            gid,
            user: options.names.user(uid).to_owned(),
            group: options.names.group(gid).to_owned(),
            mtime,
        }
    }

    fn entry(&self, name: &[u8], mode: u32, kind: Kind) -> Entry {
        Entry {
            name: name.to_vec(),
            kind,
            mode,
            uid: self.uid,
            gid: self.gid,
            user: self.user.clone(),
            group: self.group.clone(),
            mtime: self.mtime,
            xattrs: Vec::new(),
            hard_link: None,
            marks: Marks::default(),
            acl_names: Vec::new(),
            unknown: Vec::new(),
        }
    }
}
