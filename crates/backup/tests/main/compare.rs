//! Compares directory trees in everything that a file has, so that tests of round trips miss nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, lgetxattr, llistxattr, seek};

/// Every path below `root` (which is the empty path), with all that is known of it as text.
pub(crate) fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut first_names) = (BTreeMap::new(), HashMap::new());
    let mut todo = vec![root.to_owned()];
    let mut metas = BTreeMap::new();
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        metas.insert(path.strip_prefix(root).unwrap().to_owned(), meta);
    }
    for (path, meta) in metas {
        let full = root.join(&path);
        let mut text = format!(
            "mode {:o} owner {}:{} mtime {}.{:09} xattrs {:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            xattrs(&full),
        );
        if !meta.is_dir() {
            let first = first_names
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| path.clone());
            text += &format!(" size {} rdev {} same as {first:?}", meta.len(), meta.rdev());
        }
        if meta.is_symlink() {
            text += &format!(" to {:?}", fs::read_link(&full).unwrap());
        } else if meta.is_file() {
            let mut hasher = DefaultHasher::new();
            fs::read(&full).unwrap().hash(&mut hasher);
            text += &format!(" content {:x} holes {:?}", hasher.finish(), holes(&full, meta.len()));
        }
        found.insert(path, text);
    }
    found
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut buffer = vec![0; 64 << 10];
    let length = llistxattr(path, &mut buffer).unwrap_or(0);
    let mut names: Vec<Vec<u8>> = buffer[..length].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    let value = |name: Vec<u8>| {
        let mut buffer = vec![0; 64 << 10];
        let length = lgetxattr(path, name.as_slice(), &mut buffer).unwrap();
        buffer.truncate(length);
        (String::from_utf8_lossy(&name).into_owned(), buffer)
    };
    names.into_iter().map(value).collect()
}

/// Where holes of at least 64 KiB are.
fn holes(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = fs::File::open(path).unwrap();
    let (mut holes, mut at) = (Vec::new(), 0);
    while at < size {
        let hole = seek(&file, SeekFrom::Hole(at)).unwrap();
        let data = seek(&file, SeekFrom::Data(hole)).unwrap_or(size);
        if data - hole.min(data) >= 64 << 10 {
            holes.push((hole, data));
        }
        at = data.max(hole + 1);
    }
    holes
}

/// Fails with the differences, if there are any.
pub(crate) fn assert_same(expected: &BTreeMap<PathBuf, String>, found: &BTreeMap<PathBuf, String>) {
    let mut differences = Vec::new();
    for path in expected.keys().chain(found.keys()) {
        if expected.get(path) != found.get(path) {
            let shown = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
            differences.push((shown, expected.get(path), found.get(path)));
        }
    }
    differences.dedup();
    assert!(differences.is_empty(), "{differences:#?}");
}
