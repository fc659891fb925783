//! Reads back what was acknowledged: every file of every snapshot that nobody has forgotten, byte for byte.
//!
//! - A directory that many snapshots share, with the same files in mind, is read once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drystone_format::RootId;
use drystone_format::recipe::{Part, Recipe};
use drystone_vault::{Reader, Vault};

use super::door::{History, number_in};
use super::files::{Bytes, Files, dir_of, seen};
use crate::support::content;

/// A recipe as a key.
type Key = Vec<u8>;
/// The files of a directory, as they should be: number and where the bytes lie in memory.
type Expected = Vec<(u64, *const Bytes)>;

fn key(recipe: &Recipe) -> Key {
    let mut key = recipe.size_bytes.to_be_bytes().to_vec();
    key.push(recipe.depth);
    for part in &recipe.parts {
        match part {
            Part::Chunk { id, .. } => key.extend_from_slice(&id.0),
            Part::Zeros(bytes) => key.extend_from_slice(&[&[1][..], &bytes.to_be_bytes()].concat()),
            Part::Hole(bytes) => key.extend_from_slice(&[&[2][..], &bytes.to_be_bytes()].concat()),
        }
    }
    key
}

/// Reading back with one reader.
struct Readback<'a> {
    vault: &'a Vault,
    reader: Reader,
    dirs: BTreeSet<(Key, Expected)>,
    files: BTreeSet<(Key, *const Bytes)>,
}

/// Fails unless everything reads back, through `reader` and a vault that is open.
pub(super) fn assert_all(what: &str, vault: &Vault, reader: Reader, history: &History) {
    let mut readback = Readback {
        vault,
        reader,
        dirs: BTreeSet::new(),
        files: BTreeSet::new(),
    };
    for (root, files) in history {
        if let Err(error) = readback.snapshot(root, files) {
            panic!("{what}: snapshot {root}: {error}");
        }
    }
}

impl Readback<'_> {
    fn snapshot(&mut self, root: &RootId, files: &Files) -> Result<(), String> {
        let mut by_dir: BTreeMap<u64, BTreeMap<u64, &Arc<Bytes>>> = BTreeMap::new();
        for (file, bytes) in &files.0 {
            by_dir.entry(dir_of(*file)).or_default().insert(*file, bytes);
        }
        let snapshot = self.vault.snapshot(root).map_err(|error| error.to_string())?;
        let reader = self.reader.clone();
        for dir in reader.tree(&snapshot.tree) {
            let dir = dir.map_err(|error| error.to_string())?;
            let expected = by_dir.remove(&number_in(&dir.name)).unwrap_or_default();
            self.dir(dir.recipe().unwrap(), &expected)?;
        }
        match by_dir.is_empty() {
            true => Ok(()),
            false => Err(format!("directories {:?} are missing", by_dir.keys())),
        }
    }

    fn dir(&mut self, recipe: &Recipe, expected: &BTreeMap<u64, &Arc<Bytes>>) -> Result<(), String> {
        let all: Expected = expected
            .iter()
            .map(|(file, bytes)| (*file, Arc::as_ptr(bytes)))
            .collect();
        if !self.dirs.insert((key(recipe), all)) {
            return Ok(());
        }
        let (reader, mut found) = (self.reader.clone(), 0);
        for file in reader.tree(recipe) {
            let file = file.map_err(|error| error.to_string())?;
            let number = number_in(&file.name);
            let bytes = expected
                .get(&number)
                .ok_or_else(|| format!("file {number} should not be there"))?;
            self.file(number, file.recipe().unwrap(), bytes)?;
            found += 1;
        }
        match found == expected.len() {
            true => Ok(()),
            false => Err(format!("{found} files of {}", expected.len())),
        }
    }

    fn file(&mut self, number: u64, recipe: &Recipe, bytes: &Arc<Bytes>) -> Result<(), String> {
        if !self.files.insert((key(recipe), Arc::as_ptr(bytes))) {
            return Ok(());
        }
        match content(&self.reader, recipe) {
            Ok(found) if found == seen(bytes) => Ok(()),
            Ok(found) => Err(format!(
                "file {number}: {} bytes, and others than {}",
                found.len(),
                bytes.len()
            )),
            Err(error) => Err(format!("file {number}: {error}")),
        }
    }
}
