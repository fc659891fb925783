//! A golden vault that lies 2 of 4: what any two of its places give back, by this program and by one in Python.

use std::sync::Arc;

use drystone_store::{Local, Store};
use drystone_vault::{Connect, Reach};

use super::*;
use crate::gc::gc;
use crate::spread_world::{create_over, new_place};
use crate::support::{back_up, noise};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Directories below one, by the last part of their URLs.
struct Below(PathBuf);

impl Connect for Below {
    fn connect(&self, url: &str) -> drystone_store::Result<Arc<dyn Store>> {
        Ok(Arc::new(Local::open(&self.0.join(&url["golden://".len()..]))?))
    }
}

fn places(version: u8) -> PathBuf {
    directory(version).join("places")
}

/// Copies of two of the places.
fn two_of(version: u8, names: [&str; 2]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::create_dir(copy.path().join(name)).unwrap();
        copy_directory(&places(version).join(name), &copy.path().join(name));
    }
    copy
}

fn open_two(version: u8, fixture: &Fixture, copy: &Path, name: &str) -> Vault {
    let reach = Reach::open(&[format!("golden://{name}")], Arc::new(Below(copy.to_owned()))).unwrap();
    Vault::open(reach, fixture.context(), &key_file(version, "places/owner.key")).unwrap()
}

fn pairs() -> impl Iterator<Item = [&'static str; 2]> {
    let later = |one: &'static str| NAMES.into_iter().filter(move |other| *other > one);
    NAMES
        .into_iter()
        .flat_map(move |one| later(one).map(move |other| [one, other]))
}

#[test]
fn any_two_golden_places_read_as_the_manifest_says() {
    for version in 1..=FORMAT_VERSION {
        let manifest = read(places(version).join("manifest.txt"));
        for pair in pairs() {
            let (copy, fixture) = (two_of(version, pair), Fixture::new());
            let vault = open_two(version, &fixture, copy.path(), pair[1]);
            assert_eq!(describe(&vault), manifest, "{pair:?}");
        }
    }
}

#[test]
fn the_python_programs_join_and_extract_any_two_golden_places() {
    let Some(python) = python() else {
        return;
    };
    let run = |program: &str, arguments: &[&Path]| {
        let output = Command::new(&python)
            .args([std::ffi::OsStr::new("-B"), testdata().join(program).as_os_str()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for version in 1..=FORMAT_VERSION {
        for pair in pairs() {
            let (copy, fixture) = (two_of(version, pair), Fixture::new());
            let vault = open_two(version, &fixture, copy.path(), pair[0]);
            let (joined, target) = (copy.path().join("joined"), copy.path().join("target"));
            let [one, other] = pair.map(|name| copy.path().join(name));
            run("join.py", &[&one, &other, &joined]);
            std::fs::create_dir(&target).unwrap();
            let (id, snapshot) = vault.snapshots().unwrap().0.remove(0);
            let (key, id) = (places(version).join("owner.key"), PathBuf::from(id.to_string()));
            let command = [Path::new("--key-file"), &key, Path::new("extract"), &id, &target];
            run("reader.py", &[&[joined.as_path()], command.as_slice()].concat());
            assert_eq!(compare(&vault, &snapshot.tree, &target), 3, "{pair:?}");
        }
    }
}

#[test]
#[ignore = "writes the golden places of a new format version"]
fn make_golden_places() {
    let (target, fixture) = (places(FORMAT_VERSION), Fixture::new());
    assert!(!target.exists(), "{target:?} exists, and golden places never change");
    let create = |name: &str| {
        let store = Arc::new(Local::create(&target.join(name)).unwrap());
        new_place(&format!("golden://{name}"), store)
    };
    std::fs::create_dir_all(&target).unwrap();
    let vault = create_over(&fixture, NAMES.map(create).into(), (2, 4));
    // Noise fills more than one block of a shard, the rest less.
    let files: [(&str, &[u8]); 3] = [
        ("empty", b""),
        ("noise", &noise(7, 60_000)),
        ("text", &b"dry stone ".repeat(9)),
    ];
    back_up(&vault, &files).unwrap();
    gc(&vault);
    std::fs::write(target.join("owner.key"), &fixture.key).unwrap();
    std::fs::write(target.join("manifest.txt"), describe(&vault)).unwrap();
}
