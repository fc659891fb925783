//! A local directory with the faults that real ones have.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use bytes::Bytes;
use drystone_format::{PackId, SlotId};
use drystone_store::{Error, Local, Name, OpenOptions, Prefix, Put, Range, Store, create, open};

use crate::image::{self, command, let_go, may_mount};
use crate::pack;

fn key() -> Name {
    Name::key(&SlotId([1; 16]))
}

fn options() -> OpenOptions<'static> {
    OpenOptions::new(&|_| None, 1)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn what_is_made_is_for_the_owner_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a/b/vault");
    let store = create(path.to_str().unwrap(), &options()).await.unwrap();
    let (name, bytes) = pack(1, 100);
    store.put(&name, bytes).await.unwrap();
    let file = path.join(name.as_str());
    assert_eq!(mode(&file), 0o600);
    for directory in [
        file.parent().unwrap(),
        &path.join("packs"),
        &path.join("tmp"),
        &path,
        &place.path().join("a"),
    ] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    assert_eq!(store.place(), path.to_str().unwrap());
    assert!(
        create(path.to_str().unwrap(), &options()).await.is_ok(),
        "a vault's own objects do not stand in the way"
    );
}

#[tokio::test]
async fn places_that_are_none_are_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let url = |name: &str| place.path().join(name).display().to_string();
    assert!(
        matches!(open(&url("missing"), &options()).await, Err(Error::NoPlace { place, .. }) if place == url("missing"))
    );
    fs::write(place.path().join("file"), b"").unwrap();
    assert!(matches!(
        open(&url("file"), &options()).await,
        Err(Error::NotDirectory { .. })
    ));
    assert!(matches!(
        create(&url("file"), &options()).await,
        Err(Error::NotDirectory { .. })
    ));
    assert!(matches!(
        create(&url("file/below"), &options()).await,
        Err(Error::NotDirectory { .. })
    ));
    assert!(matches!(create(&url(""), &options()).await, Err(Error::Occupied { found, .. }) if found == "file"));
    fs::create_dir_all(place.path().join("fresh/lost+found")).unwrap();
    assert!(create(&url("fresh"), &options()).await.is_ok());
}

#[tokio::test]
async fn foreign_files_are_not_listed() {
    let place = tempfile::tempdir().unwrap();
    let store = Local::open(place.path()).unwrap();
    let (name, bytes) = pack(1, 100);
    store.put(&name, bytes).await.unwrap();
    let directory = place.path().join(name.as_str()).parent().unwrap().to_path_buf();
    let upper = PackId([0xcd; 32]).to_string().to_uppercase();
    for path in [
        "lost+found/x",
        "tmp/1-1",
        "packs/zz/x",
        "packs/README",
        "notes.txt",
        "keys/key.txt",
        "roots/head/00",
    ] {
        fs::create_dir_all(place.path().join(path).parent().unwrap()).unwrap();
        fs::write(place.path().join(path), b"foreign").unwrap();
    }
    fs::write(directory.join(upper), b"foreign").unwrap();
    fs::write(
        directory.join(format!("{}.part", name.as_str().rsplit('/').next().unwrap())),
        b"foreign",
    )
    .unwrap();
    fs::create_dir_all(place.path().join(key().as_str())).unwrap();
    let listed = store.list(&Prefix::All, None, 100).await.unwrap();
    assert_eq!(listed.iter().map(|listed| &listed.name).collect::<Vec<_>>(), [&name]);
}

#[tokio::test]
async fn what_is_no_regular_file_is_no_object() {
    let place = tempfile::tempdir().unwrap();
    let store = Local::open(place.path()).unwrap();
    let outside = place.path().join("outside");
    fs::write(&outside, b"secret").unwrap();
    fs::create_dir(place.path().join("keys")).unwrap();
    let path = place.path().join(key().as_str());
    let makers: [&dyn Fn(&PathBuf); 3] = [
        &|path| symlink(&outside, path).unwrap(),
        &|path| fs::create_dir(path).unwrap(),
        &|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
    ];
    for make in makers {
        make(&path);
        for outcome in [
            store.get(&key(), Range::All).await.map(|_| ()),
            store.stat(&key()).await.map(|_| ()),
            store.put(&key(), Bytes::from_static(b"new")).await.map(|_| ()),
        ] {
            assert!(
                matches!(&outcome, Err(error @ Error::Foreign { name, .. })
                    if name == key().as_str() && error.to_string().contains("remove it")),
                "{outcome:?}"
            );
        }
        assert_eq!(store.list(&Prefix::All, None, 10).await.unwrap(), []);
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
    }
    assert_eq!(fs::read(outside).unwrap(), b"secret");
}

#[tokio::test]
async fn a_directory_that_was_replaced_by_a_link_fails_the_listing() {
    let place = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let store = Local::open(place.path()).unwrap();
    symlink(elsewhere.path(), place.path().join("packs")).unwrap();
    assert!(store.list(&Prefix::Packs, None, 10).await.is_err());
    assert!(store.list(&Prefix::All, None, 10).await.is_err());
}

/// Every operation, of an object below a directory and of one beside it.
async fn outcomes(store: &Local, name: &Name) -> Vec<std::result::Result<(), Error>> {
    vec![
        store.get(name, Range::All).await.map(drop),
        store.stat(name).await.map(drop),
        store.put(name, Bytes::from_static(b"new")).await.map(drop),
        store.delete(name).await,
    ]
}

#[tokio::test]
async fn no_link_below_the_place_is_followed() {
    let (name, _) = pack(1, 100);
    let parts: Vec<&str> = name.as_str().split('/').collect();
    let fan_out = parts[..parts.len() - 1].join("/");
    for link in [parts[0].to_string(), fan_out] {
        let (place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // What the link leads to looks just as the place does.
        let there = elsewhere
            .path()
            .join(name.as_str().strip_prefix(&link).unwrap().trim_start_matches('/'));
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::write(&there, b"not ours").unwrap();
        let at = place.path().join(&link);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(elsewhere.path(), &at).unwrap();
        let store = Local::open(place.path()).unwrap();
        for outcome in outcomes(&store, &name).await {
            let told = |error: &Error| error.to_string().contains(&format!("{link} is a symbolic link"));
            assert!(matches!(&outcome, Err(error) if told(error)), "{outcome:?}");
        }
        let listed = store.list(&Prefix::Packs, None, 10).await;
        assert!(
            matches!(&listed, Err(Error::Foreign { name, .. }) if *name == link),
            "{listed:?}"
        );
        assert_eq!(fs::read(&there).unwrap(), b"not ours");
    }
}

#[tokio::test]
async fn temporary_files_are_written_and_removed_at_the_place_only() {
    let (place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(elsewhere.path().join("1-1"), b"a file of somebody else").unwrap();
    symlink(elsewhere.path(), place.path().join("tmp")).unwrap();
    let store = Local::open(place.path()).unwrap();
    let outcome = store.put(&key(), Bytes::from_static(b"x")).await;
    let Err(error @ Error::Foreign { .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(error.to_string().contains("tmp is a symbolic link"), "{error}");
    let left: Vec<_> = fs::read_dir(elsewhere.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// A file system in a file, taken down at the end.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn mount(&self) {
        let (image, mount) = (self.image.to_str().unwrap(), self.mount.to_str().unwrap());
        command("mount", &["-oloop", image, mount]);
    }

    /// Throws away what is in memory only, the log of the file system included.
    fn cut_power(&self) {
        let mount = self.mount.to_str().unwrap();
        command("xfs_io", &["-x", "-c", "shutdown", mount]);
        command("umount", &[mount]);
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let_go(&self.mount);
    }
}

#[tokio::test]
async fn what_was_answered_outlives_a_power_cut() {
    if !may_mount("a power cut", &["mkfs.xfs", "xfs_io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
    image::make(&["mkfs.xfs", "-q"], &image, 300 << 20);
    fs::create_dir(&mount).unwrap();
    let disk = Disk { image, mount };
    disk.mount();
    let path = disk.mount.join("vault");
    let (name, bytes) = pack(1, 3 << 20);
    for (name, bytes) in [(key(), Bytes::from_static(b"x")), (name, bytes)] {
        let store = Local::create(&path).unwrap();
        assert_eq!(store.put(&name, bytes.clone()).await.unwrap(), Put::Created);
        drop(store);
        disk.cut_power();
        let store = Local::open(&path).unwrap();
        assert_eq!(store.get(&name, Range::All).await.unwrap(), bytes);
        store.delete(&name).await.unwrap();
        drop(store);
        disk.cut_power();
        let found = Local::open(&path).unwrap().stat(&name).await;
        assert!(matches!(found, Err(Error::NotFound { .. })), "{found:?}");
    }
}

#[tokio::test]
async fn a_place_that_is_removed_is_not_an_empty_one() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("vault");
    let store = Local::create(&path).unwrap();
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(
        store.list(&Prefix::Packs, None, 10).await,
        Err(Error::NoPlace { .. })
    ));
    assert!(matches!(
        store.get(&key(), Range::All).await,
        Err(Error::NoPlace { .. })
    ));
    assert!(matches!(store.stat(&key()).await, Err(Error::NoPlace { .. })));
    assert!(matches!(store.delete(&key()).await, Err(Error::NoPlace { .. })));
    assert!(matches!(
        store.put(&key(), Bytes::new()).await,
        Err(Error::NoPlace { .. })
    ));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[tokio::test]
async fn a_huge_object_is_refused_before_memory_is_taken_for_it() {
    let place = tempfile::tempdir().unwrap();
    let store = Local::open(place.path()).unwrap();
    fs::create_dir(place.path().join("keys")).unwrap();
    fs::File::create(place.path().join(key().as_str()))
        .unwrap()
        .set_len(8 << 40)
        .unwrap();
    assert!(matches!(store.get(&key(), Range::All).await, Err(Error::TooLarge { size, .. }) if size == 8 << 40));
    assert_eq!(store.get(&key(), Range::Last(3)).await.unwrap(), [0; 3].as_slice());
}

#[tokio::test]
async fn a_read_only_place_can_be_read() {
    let place = tempfile::tempdir().unwrap();
    let store = Local::open(place.path()).unwrap();
    store.put(&key(), Bytes::from_static(b"key")).await.unwrap();
    let Some(_mount) = Mount::over(
        place.path(),
        &["--bind", place.path().to_str().unwrap()],
        "a read-only place",
    ) else {
        return;
    };
    let remounted = Command::new("mount")
        .args(["-o", "remount,bind,ro"])
        .arg(place.path())
        .status()
        .unwrap();
    assert!(remounted.success());
    let store = Local::open(place.path()).unwrap();
    assert_eq!(store.get(&key(), Range::All).await.unwrap(), "key");
    assert_eq!(store.list(&Prefix::All, None, 10).await.unwrap().len(), 1);
    let (name, bytes) = pack(1, 10);
    assert!(matches!(store.put(&name, bytes).await, Err(Error::ReadOnly { .. })));
    assert!(matches!(store.delete(&key()).await, Err(Error::ReadOnly { .. })));
}

#[tokio::test]
async fn a_full_disk_keeps_nothing_of_the_object_and_goes_on_when_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::over(place.path(), &["-t", "tmpfs", "-o", "size=2m", "tmpfs"], "a full disk") else {
        return;
    };
    let store = Local::open(place.path()).unwrap();
    let mut stored = Vec::new();
    let (refused, bytes) = loop {
        let (name, bytes) = pack(stored.len() as u64, 300_000);
        match store.put(&name, bytes.clone()).await {
            Ok(put) => assert_eq!(put, Put::Created),
            Err(error) => {
                assert!(
                    matches!(&error, Error::Full { name: found, .. } if found == name.as_str()),
                    "{error}"
                );
                break (name, bytes);
            }
        }
        stored.push(name);
        assert!(stored.len() < 10, "a disk of 2 MiB does not fill up");
    };
    assert!(store.stat(&refused).await.unwrap_err().is_not_found());
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
    stored.sort();
    let listed = store.list(&Prefix::Packs, None, 100).await.unwrap();
    assert_eq!(
        listed.iter().map(|listed| &listed.name).collect::<Vec<_>>(),
        stored.iter().collect::<Vec<_>>()
    );
    store.delete(&stored[0]).await.unwrap();
    assert_eq!(store.put(&refused, bytes).await.unwrap(), Put::Created);
}

#[tokio::test]
async fn permission_denied_names_the_object() {
    let place = tempfile::tempdir().unwrap();
    if fs::read_dir("/proc/1/fd").is_ok() {
        left_out("missing permissions cannot be tested as root");
        return;
    }
    let store = Local::open(place.path()).unwrap();
    store.put(&key(), Bytes::from_static(b"key")).await.unwrap();
    fs::set_permissions(place.path().join("keys"), fs::Permissions::from_mode(0o000)).unwrap();
    let error = store.get(&key(), Range::All).await.unwrap_err();
    fs::set_permissions(place.path().join("keys"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(
        matches!(&error, Error::Denied { name, .. } if name == key().as_str()),
        "{error}"
    );
}

/// Says what is not tested here. Written to the stream itself, because the test runner hides what `println` prints.
fn left_out(what: &str) {
    io::stderr()
        .write_all(format!("LEFT OUT: {what}\n").as_bytes())
        .unwrap();
}

/// Something mounted for the time of a test.
struct Mount(PathBuf);

impl Mount {
    /// Mounts as root; without the right to, says so and gives nothing.
    fn over(path: &Path, arguments: &[&str], what: &str) -> Option<Self> {
        let run = || -> io::Result<bool> {
            Ok(Command::new("mount")
                .args(arguments)
                .arg(path)
                .output()?
                .status
                .success())
        };
        if run().is_ok_and(|mounted| mounted) {
            return Some(Self(path.to_path_buf()));
        }
        left_out(&format!("{what} cannot be tested without the right to mount"));
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}
