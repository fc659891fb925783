//! Golden vaults: what any version of the format wrote is read byte for byte, by this program and by one in Python.
//!
//! - testdata/format/vN holds a vault of version N, its keys, and a manifest of all that comes out of it.
//! - A golden vault never changes; `make_golden_vault` writes that of a new version, and refuses to touch an old one.

mod make;
mod places;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use drystone_format::id::pack_id;
use drystone_format::keys::Role;
use drystone_format::limits::FORMAT_VERSION;
use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind};
use drystone_store::Local;
use drystone_vault::{CheckOptions, Unlock, Vault};

use crate::support::Fixture;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn directory(version: u8) -> PathBuf {
    testdata().join(format!("format/v{version}"))
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Opening a place may write to it, and a golden vault never changes.
fn copy_of(version: u8) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_directory(&directory(version).join("vault"), copy.path());
    copy
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_directory(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn key_file(version: u8, name: &str) -> Unlock {
    Unlock::key_file(&read(directory(version).join(name)), name, None).unwrap()
}

fn open(fixture: &Fixture, path: &Path, unlock: &Unlock) -> Vault {
    Vault::open(Arc::new(Local::open(path).unwrap()), fixture.context(), unlock).unwrap()
}

/// Everything that a vault holds, in words: one line for a snapshot, one for each name in it.
fn describe(vault: &Vault) -> String {
    let mut lines = String::new();
    let (mut snapshots, problems) = vault.snapshots().unwrap();
    assert_eq!(problems.count(), 0);
    snapshots.sort_by(|(_, one), (_, two)| one.tags.cmp(&two.tags));
    for (_, snapshot) in snapshots {
        let parent = snapshot.parent.is_some();
        let (tags, paths) = (&snapshot.tags, snapshot.paths[0].escape_ascii());
        let (host, user, program) = (&snapshot.host, &snapshot.user, &snapshot.program);
        writeln!(
            lines,
            "snapshot {tags:?} of {paths} by {user} on {host} with {program}, parent {parent}"
        )
        .unwrap();
        walk(vault, &snapshot.tree, "", &mut |path, entry| {
            describe_entry(vault, path, entry, &mut lines)
        });
    }
    lines
}

fn walk(vault: &Vault, tree: &Recipe, parent: &str, each: &mut dyn FnMut(&str, &Entry)) {
    for entry in vault.reader().unwrap().tree(tree) {
        let entry = entry.unwrap();
        let path = format!("{parent}/{}", entry.name.escape_ascii());
        each(&path, &entry);
        if let Kind::Dir(tree) = &entry.kind {
            walk(vault, tree, &path, each);
        }
    }
}

fn describe_entry(vault: &Vault, path: &str, entry: &Entry, lines: &mut String) {
    let Entry {
        uid,
        gid,
        user,
        group,
        mtime,
        ..
    } = entry;
    write!(
        lines,
        "{path} {:04o} {uid}:{gid} {user}:{group} {}.{:09}",
        entry.mode, mtime.seconds, mtime.nanos
    )
    .unwrap();
    match &entry.kind {
        Kind::File(recipe) => {
            let hash = pack_id(&content(vault, recipe));
            write!(
                lines,
                " file of {} bytes, depth {}, {hash}",
                recipe.size_bytes, recipe.depth
            )
            .unwrap();
        }
        Kind::Dir(recipe) => write!(
            lines,
            " directory of {} parts, depth {}",
            recipe.parts.len(),
            recipe.depth
        )
        .unwrap(),
        Kind::Symlink(target) => write!(lines, " link to {}", target.escape_ascii()).unwrap(),
        other => write!(lines, " {other:?}").unwrap(),
    }
    if let Some((device, inode)) = entry.hard_link {
        write!(lines, ", inode {device}:{inode}").unwrap();
    }
    for (name, value) in &entry.xattrs {
        write!(lines, ", {}={}", name.escape_ascii(), value.escape_ascii()).unwrap();
    }
    writeln!(lines, ", marks {}", entry.marks.0).unwrap();
}

fn content(vault: &Vault, recipe: &Recipe) -> Vec<u8> {
    let mut bytes = Vec::new();
    vault.reader().unwrap().content(recipe).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn every_version_has_a_golden_vault() {
    for version in 1..=FORMAT_VERSION {
        let (vault, manifest) = (
            directory(version).join("vault/drystone"),
            directory(version).join("manifest.txt"),
        );
        assert!(
            vault.is_file() && manifest.is_file(),
            "no golden vault of format version {version}"
        );
    }
}

#[test]
fn golden_vaults_read_as_their_manifests_say() {
    for version in 1..=FORMAT_VERSION {
        let (copy, manifest) = (copy_of(version), read(directory(version).join("manifest.txt")));
        let passphrase = Unlock::passphrase(read(directory(version).join("passphrase")).trim_end());
        for unlock in [passphrase, key_file(version, "owner.key")] {
            let fixture = Fixture::new();
            let vault = open(&fixture, copy.path(), &unlock);
            assert_eq!(vault.warnings(), [""; 0]);
            assert_eq!(describe(&vault), manifest);
            let report = vault.check(&CheckOptions::default()).unwrap();
            assert_eq!(report.problems.count(), 0, "{:?}", report.problems);
        }
        let fixture = Fixture::new();
        let vault = open(&fixture, copy.path(), &key_file(version, "writer.key"));
        assert_eq!(vault.role(), Role::Writer);
        assert!(vault.snapshots().is_err());
    }
}

/// The interpreter for the reader, if it has what the reader needs.
fn python() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    let probe = Command::new(&python)
        .args(["-c", "import zstandard, cryptography"])
        .output();
    probe.is_ok_and(|output| output.status.success()).then_some(python)
}

#[test]
fn the_python_reader_lists_and_extracts_golden_vaults() {
    let Some(python) = python() else {
        let advice = "pip install zstandard cryptography, and set PYTHON to the interpreter if it is not python3";
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "no python3 for testdata/reader.py: {advice}"
        );
        eprintln!("LEFT OUT: testdata/reader.py on the golden vaults, since python3 lacks its modules; {advice}");
        return;
    };
    for version in 1..=FORMAT_VERSION {
        let (copy, fixture) = (copy_of(version), Fixture::new());
        let vault = open(&fixture, copy.path(), &key_file(version, "owner.key"));
        let run = |secret: [&str; 2], rest: &[&str]| {
            let mut command = Command::new(&python);
            command.arg("-B").arg(testdata().join("reader.py")).arg(copy.path());
            let output = command
                .arg(secret[0])
                .arg(directory(version).join(secret[1]))
                .args(rest)
                .output()
                .unwrap();
            (
                output.status.success(),
                String::from_utf8_lossy(&output.stdout).into_owned(),
                output.stderr,
            )
        };
        let listed = run(["--passphrase-file", "passphrase"], &["list"]).1;
        for (id, snapshot) in vault.snapshots().unwrap().0 {
            let line = listed.lines().find(|line| line.starts_with(&id.to_string())).unwrap();
            assert!(line.ends_with(&snapshot.tags.join(" ")), "{line}");
            let (id, target) = (id.to_string(), tempfile::tempdir().unwrap());
            let key = ["--key-file", "owner.key"];
            let (done, _, errors) = run(key, &["extract", &id, target.path().to_str().unwrap()]);
            assert!(done, "{}", String::from_utf8_lossy(&errors));
            let names = run(key, &["ls", &id]).1.lines().count();
            assert_eq!(compare(&vault, &snapshot.tree, target.path()), names);
        }
        let (done, _, errors) = run(["--key-file", "writer.key"], &["list"]);
        assert!(!done && String::from_utf8_lossy(&errors).contains("writer key"));
    }
}

/// Compares what was extracted with what the vault holds; returns how many names it looked at.
fn compare(vault: &Vault, tree: &Recipe, target: &Path) -> usize {
    let (mut count, mut inodes) = (0, BTreeMap::new());
    let mut directories = vec![(target.to_owned(), tree.clone())];
    while let Some((parent, tree)) = directories.pop() {
        for entry in vault.reader().unwrap().tree(&tree) {
            let entry = entry.unwrap();
            count += 1;
            let path = parent.join(std::ffi::OsStr::from_bytes(&entry.name));
            let Ok(found) = path.symlink_metadata() else {
                assert!(
                    !matches!(entry.kind, Kind::File(_) | Kind::Dir(_) | Kind::Symlink(_)),
                    "{path:?} is missing"
                );
                continue;
            };
            match &entry.kind {
                Kind::File(recipe) => assert!(std::fs::read(&path).unwrap() == content(vault, recipe), "{path:?}"),
                Kind::Dir(recipe) => directories.push((path.clone(), recipe.clone())),
                Kind::Symlink(target) => {
                    assert_eq!(std::fs::read_link(&path).unwrap().into_os_string().into_vec(), *target);
                    continue;
                }
                other => assert_eq!(format!("{other:?}"), "", "{path:?} was made"),
            }
            let mtime = (found.mtime(), found.mtime_nsec());
            assert_eq!(mtime, (entry.mtime.seconds, entry.mtime.nanos.into()), "{path:?}");
            assert_eq!(found.mode() & 0o7777, entry.mode, "{path:?}");
            if let Some(identity) = entry.hard_link {
                assert_eq!(*inodes.entry(identity).or_insert(found.ino()), found.ino(), "{path:?}");
            }
        }
    }
    count
}
