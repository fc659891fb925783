//! The payload of a snapshot root: who backed up what, when, and the tree that came of it. Layout: docs/format.md.
//!
//! - Unknown keys are kept on rewrite.

use crate::cbor::{Reader, Unknown, Writer, required};
use crate::error::Result;
use crate::id::{RootId, VaultId};
use crate::limits::{LINK_TARGET_MAX_BYTES, SNAPSHOT_LIST_MAX};
use crate::recipe::Recipe;
use crate::tree::Time;

const OBJECT: &str = "snapshot";

/// What a backup run saw and stored; for people and `stats`, nothing depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Entries that are not directories.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
    /// Bytes of chunks that were new to the vault.
    pub new_bytes: u64,
    /// Bytes that these took in it, sealed.
    pub stored_bytes: u64,
    /// Things that could not be read, or changed while they were read.
    pub problems: u64,
}

/// Where a copied snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The vault that the backup was made into.
    pub vault: VaultId,
    /// Its id there.
    pub snapshot: RootId,
    /// Files and directories that are not whole in the copy though they are in that snapshot.
    pub lost: u64,
}

/// A backed-up tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When the backup began.
    pub started: Time,
    /// When it was complete.
    pub finished: Time,
    /// Host that was backed up.
    pub host: String,
    /// User who ran the backup.
    pub user: String,
    /// What was asked for, absolute, as bytes.
    pub paths: Vec<Vec<u8>>,
    /// Free words.
    pub tags: Vec<String>,
    /// The root directory: holds each path under its absolute name.
    pub tree: Recipe,
    /// The snapshot that unchanged files were taken from.
    pub parent: Option<RootId>,
    /// What it saw.
    pub totals: Totals,
    /// Program and version that wrote it.
    pub program: String,
    /// Where it was copied from; none where it was made by a backup.
    pub origin: Option<Origin>,
    /// Keys of a newer format, kept.
    pub unknown: Vec<Unknown>,
}

impl Snapshot {
    /// How many entries were lost on the way from where it was made; 0 for one that is no copy.
    pub fn lost(&self) -> u64 {
        self.origin.map_or(0, |origin| origin.lost)
    }

    /// The payload of the root.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(9 + usize::from(self.parent.is_some()) + usize::from(self.origin.is_some()) + self.unknown.len())
            .uint(0);
        self.started.encode(&mut out);
        self.finished.encode(out.uint(1));
        out.uint(2)
            .text(&self.host)
            .uint(3)
            .text(&self.user)
            .uint(4)
            .array(self.paths.len());
        for path in &self.paths {
            out.bytes(path);
        }
        self.tree.encode(out.uint(5).texts(&self.tags).uint(6));
        if let Some(parent) = self.parent {
            out.uint(7).bytes(&parent.0);
        }
        let Totals {
            files,
            dirs,
            bytes,
            new_bytes,
            stored_bytes,
            problems,
        } = self.totals;
        out.uint(8)
            .array(6)
            .uint(files)
            .uint(dirs)
            .uint(bytes)
            .uint(new_bytes)
            .uint(stored_bytes)
            .uint(problems);
        out.uint(9).text(&self.program);
        if let Some(Origin { vault, snapshot, lost }) = self.origin {
            out.uint(10).array(3).bytes(&vault.0).bytes(&snapshot.0).uint(lost);
        }
        out.unknown(&self.unknown);
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(payload: &[u8]) -> Result<Self> {
        let (mut started, mut finished, mut host, mut user) = (None, None, None, None);
        let (mut paths, mut tags, mut tree, mut parent) = (Vec::new(), Vec::new(), None, None);
        let (mut totals, mut program, mut origin) = (Totals::default(), String::new(), None);
        let mut reader = Reader::new(OBJECT, payload);
        let unknown = reader.map(|reader, key| {
            match key {
                0 => started = Some(Time::decode(reader)?),
                1 => finished = Some(Time::decode(reader)?),
                2 => host = Some(reader.text("host")?),
                3 => user = Some(reader.text("user")?),
                4 => {
                    for _ in 0..reader.array("paths", SNAPSHOT_LIST_MAX)? {
                        paths.push(reader.bytes("path", LINK_TARGET_MAX_BYTES)?.to_vec());
                    }
                }
                5 => tags = reader.texts("tags", SNAPSHOT_LIST_MAX)?,
                6 => tree = Some(Recipe::decode(reader)?),
                7 => parent = Some(RootId(reader.fixed()?)),
                8 => totals = decode_totals(reader)?,
                9 => program = reader.text("program")?,
                10 => origin = Some(decode_origin(reader)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(Self {
            started: required(OBJECT, "start", started)?,
            finished: required(OBJECT, "end", finished)?,
            host: required(OBJECT, "host", host)?,
            user: required(OBJECT, "user", user)?,
            paths,
            tags,
            tree: required(OBJECT, "tree", tree)?,
            parent,
            totals,
            program,
            origin,
            unknown,
        })
    }
}

fn decode_origin(reader: &mut Reader<'_>) -> Result<Origin> {
    reader.array_of("origin", 3)?;
    Ok(Origin {
        vault: VaultId(reader.fixed()?),
        snapshot: RootId(reader.fixed()?),
        lost: reader.uint()?,
    })
}

fn decode_totals(reader: &mut Reader<'_>) -> Result<Totals> {
    reader.array_of("totals", 6)?;
    Ok(Totals {
        files: reader.uint()?,
        dirs: reader.uint()?,
        bytes: reader.uint()?,
        new_bytes: reader.uint()?,
        stored_bytes: reader.uint()?,
        problems: reader.uint()?,
    })
}
