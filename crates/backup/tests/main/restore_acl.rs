//! ACLs: whom they name is found by name as owners are, and tar programs get them.

use std::fs;
use std::path::Path;
use std::process::Command;

use drystone_backup::{Owner, RestoreReport, Selection, Watch, dump_tar};
use drystone_format::tree::{AclId, Kind};
use drystone_vault::{Cancel, Progress};

use crate::round_trip::take;
use crate::vaults::{Fixture, entry, options};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// An ACL with these rules for users and groups, and the usual others.
fn acl(users: &[(u32, u16)], groups: &[(u32, u16)]) -> Vec<u8> {
    let rule = |tag: u16, permissions: u16, id: u32| {
        let parts = [tag.to_le_bytes(), permissions.to_le_bytes()].concat();
        [parts, id.to_le_bytes().to_vec()].concat()
    };
    let mut value = 2u32.to_le_bytes().to_vec();
    value.extend(rule(1, 6, u32::MAX));
    users
        .iter()
        .for_each(|(id, permissions)| value.extend(rule(2, *permissions, *id)));
    value.extend(rule(4, 4, u32::MAX));
    groups
        .iter()
        .for_each(|(id, permissions)| value.extend(rule(8, *permissions, *id)));
    value.extend(rule(16, 6, u32::MAX));
    value.extend(rule(32, 0, u32::MAX));
    value
}

fn found(path: &Path, name: &str) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let length = rustix::fs::getxattr(path, name, &mut buffer[..]).unwrap_or(0);
    buffer.truncate(length);
    buffer
}

/// Whether this is root on a file system with ACLs; said loudly if not.
fn is_possible(dir: &Path) -> bool {
    let file = dir.join("probe");
    fs::write(&file, "").unwrap();
    let set = rustix::fs::setxattr(&file, ACCESS, &acl(&[(7, 4)], &[]), rustix::fs::XattrFlags::empty());
    let is_root = rustix::process::geteuid().is_root();
    if set.is_err() || !is_root {
        eprintln!(
            "LEFT OUT: ACLs need root and a file system that has them at {}",
            dir.display()
        );
    }
    fs::remove_file(file).unwrap();
    set.is_ok() && is_root
}

fn not_set(report: &RestoreReport) -> Vec<String> {
    report.not_set.iter().map(ToString::to_string).collect()
}

/// The first account of this system that is not root.
fn account() -> (String, u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let mut fields = passwd.lines().find(|line| !line.contains(":0:")).unwrap().split(':');
    let name = fields.next().unwrap().to_owned();
    let mut number = || fields.next().unwrap().parse().unwrap_or(0);
    let (_, uid, gid) = (number(), number(), number());
    (name, uid, gid)
}

#[test]
fn whom_acls_name_is_found_by_name_as_owners_are() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    if !is_possible(target.path()) {
        return;
    }
    let (name, uid, _) = account();
    const ELSEWHERE: u32 = 54_321;
    let raw = acl(&[(ELSEWHERE, 6), (ELSEWHERE + 1, 4)], &[(ELSEWHERE, 4)]);
    let snapshot = fixture.put(|putter| {
        let mut file = entry("f", putter.file(b"secret"));
        (file.user, file.uid) = (name.clone(), ELSEWHERE);
        file.xattrs = vec![
            (ACCESS.as_bytes().to_vec(), raw.clone()),
            // As XFS shows it to root once more; what it holds must not undo the mapping.
            (b"trusted.SGI_ACL_FILE".to_vec(), b"raw".to_vec()),
        ];
        file.acl_names = vec![
            (AclId::User(ELSEWHERE), name.clone()),
            (AclId::Group(ELSEWHERE), "no such group".to_owned()),
        ];
        file.mode = 0o660;
        let mut dir = entry("d", Kind::Dir(putter.dir(vec![])));
        dir.xattrs = vec![(DEFAULT.as_bytes().to_vec(), raw.clone())];
        dir.acl_names = file.acl_names.clone();
        // Written before names were kept, for numbers that somebody has here.
        let mut old = entry("old", putter.file(b"old"));
        old.xattrs = vec![(ACCESS.as_bytes().to_vec(), acl(&[(uid, 6)], &[]))];
        old.mode = 0o660;
        putter.dir(vec![file, dir, old])
    });
    let mapped = acl(&[(uid, 6), (ELSEWHERE + 1, 4)], &[(ELSEWHERE, 4)]);
    for round in 0..2 {
        let report = fixture.restore(&snapshot, &options(target.path()));
        assert!(report.problems.is_empty());
        assert_eq!(found(&target.path().join("f"), ACCESS), mapped);
        assert_eq!(found(&target.path().join("d"), DEFAULT), mapped);
        assert_eq!(found(&target.path().join("f"), "trusted.SGI_ACL_FILE"), b"");
        let said = not_set(&report);
        assert!(
            said.len() == 1 && said[0].contains("first of old") && said[0].contains("by number"),
            "{said:?}"
        );
        assert_eq!(report.unchanged_files, 2 * round);
    }
    let restored_by = |owner: Owner| {
        let target = tempfile::tempdir().unwrap();
        let mut options = options(target.path());
        options.owner = owner;
        let report = fixture.restore(&snapshot, &options);
        (found(&target.path().join("f"), ACCESS), not_set(&report))
    };
    assert_eq!(restored_by(Owner::Numbers), (raw, vec![]));
    let (own, said) = restored_by(Owner::Own);
    assert_eq!(own, acl(&[], &[]), "nobody else has a right, and the mask stays");
    assert!(
        said.iter().any(|said| said.contains("rights of other users")),
        "{said:?}"
    );
}

#[test]
fn the_names_are_taken_with_the_acl() {
    let (fixture, source) = (Fixture::new(), tempfile::tempdir().unwrap());
    if !is_possible(source.path()) {
        return;
    }
    let (name, uid, gid) = account();
    let (file, dir) = (source.path().join("f"), source.path().join("d"));
    fs::write(&file, "x").unwrap();
    fs::create_dir(&dir).unwrap();
    let none = rustix::fs::XattrFlags::empty();
    let value = acl(&[(uid, 4), (54_321, 4)], &[(gid, 4)]);
    rustix::fs::setxattr(&file, ACCESS, &value, none).unwrap();
    rustix::fs::setxattr(&dir, DEFAULT, &value, none).unwrap();
    let id = take(&fixture, source.path()).snapshot.unwrap();
    let snapshot = fixture.vault.snapshot(&id).unwrap();
    let reader = fixture.vault.reader().unwrap();
    for path in [&file, &dir] {
        let selection = Selection::find(&reader, &snapshot, path.as_os_str().as_encoded_bytes()).unwrap();
        let names = &selection.entry().unwrap().acl_names;
        assert_eq!(names[0], (AclId::User(uid), name.clone()));
        assert!(names.iter().all(|(id, _)| *id != AclId::User(54_321)));
    }
}

#[test]
fn tar_programs_get_acls() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    if !is_possible(target.path()) {
        return;
    }
    let (name, uid, _) = account();
    let raw = acl(&[(4321, 6), (54_321, 4)], &[(54_322, 4)]);
    let snapshot = fixture.put(|putter| {
        let mut file = entry("f", putter.file(b"x"));
        file.xattrs = vec![
            (ACCESS.as_bytes().to_vec(), raw.clone()),
            (b"user.q".to_vec(), b"z".to_vec()),
        ];
        file.mode = 0o660;
        file.acl_names = vec![(AclId::User(4321), name.clone())];
        let mut dir = entry("d", Kind::Dir(putter.dir(vec![])));
        dir.xattrs = vec![(DEFAULT.as_bytes().to_vec(), raw.clone())];
        putter.dir(vec![file, dir])
    });
    let (progress, cancel, mut out) = (Progress::default(), Cancel::default(), Vec::new());
    let watch = Watch {
        progress: &progress,
        cancel: &cancel,
    };
    let reader = fixture.vault.reader().unwrap();
    dump_tar(&reader, &Selection::whole(&snapshot), &mut out, watch).unwrap();
    let file = target.path().join("dump.tar");
    fs::write(&file, &out).unwrap();
    for (program, arguments) in [
        ("tar", ["--acls", "--xattrs", "--xattrs-include=*", "-xpf"].as_slice()),
        ("bsdtar", ["--acls", "--xattrs", "-xpf"].as_slice()),
    ] {
        let into = target.path().join(program);
        fs::create_dir(&into).unwrap();
        let ran = Command::new(program)
            .args(arguments)
            .arg(&file)
            .arg("-C")
            .arg(&into)
            .output();
        let Ok(ran) = ran else {
            eprintln!("LEFT OUT: no {program} to read ACLs of a dump");
            continue;
        };
        assert!(
            ran.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
        let sorted = |path: &str, which: &str| {
            let mut rules: Vec<Vec<u8>> = found(&into.join(path), which)[4..]
                .chunks(8)
                .map(<[u8]>::to_vec)
                .collect();
            rules.sort();
            rules
        };
        let expected = |value: Vec<u8>| {
            let mut rules: Vec<Vec<u8>> = value[4..].chunks(8).map(<[u8]>::to_vec).collect();
            rules.sort();
            rules
        };
        // By the name that was recorded, else by number.
        assert_eq!(
            sorted("f", ACCESS),
            expected(acl(&[(uid, 6), (54_321, 4)], &[(54_322, 4)])),
            "{program}"
        );
        assert_eq!(sorted("d", DEFAULT), expected(raw.clone()), "{program}");
        assert_eq!(found(&into.join("f"), "user.q"), b"z", "{program}");
    }
}

/// Where an ACL cannot be set, the owning group does not get what its mask allows to others.
#[test]
fn without_the_acl_the_group_gets_no_more_than_it_had() {
    let (fixture, directory) = (Fixture::new(), tempfile::tempdir().unwrap());
    let mount = directory.path();
    let mounted = Command::new("mount").args(["-t", "ramfs", "none"]).arg(mount).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("LEFT OUT: a target without ACLs: needs root and ramfs");
        return;
    }
    let snapshot = fixture.put(|putter| {
        let mut file = entry("f", putter.file(b"secret"));
        file.xattrs = vec![(ACCESS.as_bytes().to_vec(), acl(&[(4321, 6)], &[]))];
        file.mode = 0o660;
        putter.dir(vec![file])
    });
    let report = fixture.restore(&snapshot, &options(&mount.join("t")));
    let mode = fs::metadata(mount.join("t/f")).map(|meta| std::os::unix::fs::MetadataExt::mode(&meta) & 0o777);
    crate::image::let_go(mount);
    assert_eq!(mode.unwrap(), 0o640);
    assert!(
        not_set(&report).iter().any(|said| said.contains("posix_acl_access")),
        "{:?}",
        report.not_set
    );
}
