//! What is named is what is treated: mounts that others hide, devices without a special file, labels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use drystone_extents::{Mount, mounts};
use drystone_reflink::{IsRoot, Space, Target, find_targets};

use crate::disk::{Disk, noise};
use crate::image::command;

fn find(name: &str) -> Target {
    let found = find_targets(&[name.to_owned()], IsRoot(true)).unwrap();
    found.all().unwrap().pop().unwrap()
}

fn mount_at(path: &Path) -> Mount {
    mounts().unwrap().into_iter().rfind(|mount| mount.path == path).unwrap()
}

fn uuid(id: &[u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A mount that goes at the end.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

#[test]
fn a_device_is_treated_by_another_way_if_something_else_is_mounted_over_it() {
    for (one, other) in [
        (Disk::btrfs(""), Disk::btrfs("")),
        (Disk::xfs(), Disk::xfs()),
        (Disk::xfs(), Disk::btrfs("")),
    ] {
        let (Some(one), Some(other)) = (one, other) else { return };
        one.write("of one", &noise(1, 5000));
        other.write("of other", &noise(2, 5000));
        let device = mount_at(one.root()).source.display().to_string();
        let (id, id_of_other) = (find(&device).id, find(other.root().to_str().unwrap()).id);
        assert_ne!(id, id_of_other);
        command(
            "mount",
            &["--bind", other.root().to_str().unwrap(), one.root().to_str().unwrap()],
        );
        let _over = Mounted(one.root().to_owned());
        for name in [device.clone(), uuid(&id), format!("UUID={}", uuid(&id))] {
            let target = find(&name);
            assert_eq!(target.id, id, "{name}");
        }
        assert_eq!(find(one.root().to_str().unwrap()).id, id_of_other);
        // By another way, if there is one.
        let elsewhere = tempfile::tempdir().unwrap();
        command("mount", &[&device, elsewhere.path().to_str().unwrap()]);
        let _elsewhere = Mounted(elsewhere.path().to_owned());
        let target = find(&device);
        assert_eq!(
            (target.id, target.name.as_str()),
            (id, elsewhere.path().to_str().unwrap())
        );
        let all = find_targets(&[], IsRoot(true)).unwrap().targets;
        for id in [id, id_of_other] {
            assert_eq!(all.iter().filter(|target| target.id == id).count(), 1);
        }
    }
}

#[test]
fn one_mount_in_an_odd_state_stops_no_other() {
    let (Some(disk), Some(other)) = (Disk::btrfs(""), Disk::xfs()) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    // Its device has lost its special file.
    let (special, place) = (directory.path().join("special"), directory.path().join("place"));
    let number = fs::read_to_string("/proc/partitions").unwrap();
    let device = mount_at(disk.root()).source;
    let name = device.file_name().unwrap().to_str().unwrap();
    let line = number.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    command("mknod", &[special.to_str().unwrap(), "b", words[0], words[1]]);
    fs::create_dir(&place).unwrap();
    let id = find(disk.root().to_str().unwrap()).id;
    command("mount", &[special.to_str().unwrap(), place.to_str().unwrap()]);
    let _place = Mounted(place.clone());
    disk.unmount();
    fs::remove_file(&special).unwrap();
    let found = find_targets(&[], IsRoot(true)).unwrap();
    let other_id = find(other.root().to_str().unwrap()).id;
    for id in [id, other_id] {
        assert!(found.targets.iter().any(|target| target.id == id), "{:?}", found.failed);
    }
    // Of another only a file is mounted, as in a container.
    let file = directory.path().join("hosts");
    fs::write(&file, b"").unwrap();
    let hosts = other.write("hosts", b"of others");
    command("mount", &["--bind", hosts.to_str().unwrap(), file.to_str().unwrap()]);
    let _file = Mounted(file);
    // The targets hold what they are on.
    drop(found);
    other.unmount();
    let found = find_targets(&[], IsRoot(true)).unwrap();
    assert!(found.targets.iter().all(|target| target.id != other_id));
    assert!(found.targets.iter().any(|target| target.id == id), "{:?}", found.failed);
    // What is missing is said, and the rest found.
    let names = [place.display().to_string(), "/no/such".to_owned()];
    let found = find_targets(&names, IsRoot(true)).unwrap();
    assert_eq!((found.targets.len(), found.failed.len()), (1, 1));
}

#[test]
fn file_systems_are_found_by_label_mounted_or_not() {
    for make in [["mkfs.btrfs", "-q", "-L"], ["mkfs.xfs", "-q", "-L"]] {
        let label = format!("t{}{}", std::process::id() % 100_000, &make[0][5..8]);
        let Some(disk) = Disk::make(&[&make[..], &[label.as_str()]].concat(), 400 << 20, "") else {
            return;
        };
        let id = find(disk.root().to_str().unwrap()).id;
        let name = format!("LABEL={label}");
        assert_eq!(find(&name).id, id);
        let attached = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(disk.unmount())
            .output()
            .unwrap();
        let device = String::from_utf8(attached.stdout).unwrap();
        let found = [find(&name).id, find(&uuid(&id)).id];
        command("losetup", &["-d", device.trim()]);
        assert_eq!(found, [id, id]);
    }
}

#[test]
fn paths_of_problems_can_be_opened() {
    let Some(disk) = Disk::btrfs("") else { return };
    disk.subvolume("sub");
    let path = disk.write("sub/deep/file", &noise(1, 5000));
    disk.sync();
    let target = find(disk.path("sub/deep").to_str().unwrap());
    let space = disk.space();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let file = drystone_reflink::FileId {
        subvolume: target.subvolume().unwrap(),
        inode,
    };
    assert_eq!(target.reachable(&space.path(file).unwrap()), path);
}
