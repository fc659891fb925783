//! Golden vaults: what any version of the format wrote is read byte for byte, by this program and by one in Python.
//!
//! - testdata/format/vN holds a vault of version N, its keys, and a manifest of all that comes out of it.
//! - A golden vault never changes; `make_golden_vault` writes that of a new version, and refuses to touch an old one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::chunker::Sizes;
use drystone_format::codec::{CODECS, Codec, Compression, Compressor};
use drystone_format::header::Trust;
use drystone_format::id::pack_id;
use drystone_format::keys::{OpenKey, Role, Secrets};
use drystone_format::limits::FORMAT_VERSION;
use drystone_format::pack::{PackBuilder, PackedChunk};
use drystone_format::recipe::Recipe;
use drystone_format::seal::{Compressed, PackKind, Suite};
use drystone_format::slot::{Lock, Slot};
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_format::{Random, RootId};
use drystone_store::{Local, Name, Prefix, Range, Store};
use drystone_vault::{
    Cancel, CheckOptions, CreateOptions, Entropy, IngestOptions, Lane, NewEpoch, NewLock, NewSlot, Progress,
    ScrubOptions, TreeWriter, Unlock, Vault, generate_key_file,
};

use crate::support::{Fixture, entry, noise, runtime, snapshot};

const PASSPHRASE: &str = "a stone for a stone";

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
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
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

/// A directory that is being described from memory.
enum Source {
    File(Entry, Vec<u8>),
    Hole(Entry, Vec<(u64, Vec<u8>)>),
    Dir(Entry, Vec<Source>),
    Other(Entry),
}

impl Source {
    fn name(&self) -> &[u8] {
        let (Self::File(entry, _) | Self::Hole(entry, _) | Self::Dir(entry, _) | Self::Other(entry)) = self;
        &entry.name
    }
}

fn file(name: &str, bytes: Vec<u8>) -> Source {
    Source::File(entry(name, Kind::Fifo), bytes)
}

fn dir(name: &str, sources: Vec<Source>) -> Source {
    let entry = Entry {
        mode: 0o755,
        ..entry(name, Kind::Fifo)
    };
    Source::Dir(entry, sources)
}

/// Text that compresses well, different for each word.
fn text(word: &str) -> Vec<u8> {
    (0..400)
        .map(|line| format!("{line}: {word} {word} on the wall, take {} down\n", line * line % 97))
        .collect::<String>()
        .into()
}

fn codec_file(codec: Codec) -> Source {
    file(&format!("{}.txt", codec.name()), text(codec.name()))
}

fn everything() -> Vec<Source> {
    let with = |mut source: Source, change: &dyn Fn(&mut Entry)| {
        let (Source::File(entry, _) | Source::Hole(entry, _) | Source::Dir(entry, _) | Source::Other(entry)) =
            &mut source;
        change(entry);
        source
    };
    let mut deep = vec![b'a'; 64 * 33 * 1024];
    deep.extend(text("deep"));
    let linked = |name| {
        with(file(name, b"one file, two names\n".to_vec()), &|entry| {
            entry.hard_link = Some((64, 4711))
        })
    };
    let latin = with(file("?", b"a name in Latin 1\n".to_vec()), &|entry| {
        entry.name = b"caf\xe9-\xff.txt".to_vec()
    });
    let owned = with(file("attributes.txt", b"who and when\n".to_vec()), &|entry| {
        (entry.uid, entry.gid, entry.mode) = (1000, 100, 0o4751);
        (entry.user, entry.group) = ("mason".to_owned(), "users".to_owned());
        entry.mtime = Time {
            seconds: -86_400,
            nanos: 999_999_999,
        };
        entry.xattrs = vec![
            (b"user.a".to_vec(), b"\0\xff".to_vec()),
            (b"user.comment".to_vec(), b"hello".to_vec()),
        ];
        entry.marks = Marks(Marks::CHANGED_WHILE_READ);
    });
    let many = (0..120)
        .map(|number| file(&format!("n{number:03}"), b"all the same\n".to_vec()))
        .collect();
    let nested = (0..12).fold(file("leaf.txt", b"leaf\n".to_vec()), |inner, depth| {
        dir(&format!("d{depth}"), vec![inner])
    });
    let holes = vec![
        (1 << 20, text("after a hole")),
        (4096, vec![0; 5000]),
        (1, b"end".to_vec()),
        (70_000, Vec::new()),
    ];
    let mut all = vec![
        dir("codecs", CODECS.into_iter().map(codec_file).collect()),
        file("chacha.txt", b"in a pack of ChaCha20-Poly1305\n".to_vec()),
        file("deep.txt", deep),
        file("empty", Vec::new()),
        linked("hard-a"),
        linked("hard-b"),
        latin,
        owned,
        dir("many", many),
        nested,
        dir("nothing", Vec::new()),
        file("noise.bin", noise(7, 5000)),
        file("zeros", vec![0; 10_000]),
        Source::Hole(entry("sparse", Kind::Fifo), holes),
        Source::Other(entry("link", Kind::Symlink(b"codecs/zstd.txt".to_vec()))),
        Source::Other(entry("dangling", Kind::Symlink(b"/no/\xfe/where".to_vec()))),
        Source::Other(entry("pipe", Kind::Fifo)),
        Source::Other(entry("socket", Kind::Socket)),
        Source::Other(entry("sda", Kind::BlockDevice { major: 8, minor: 0 })),
        Source::Other(entry("null", Kind::CharDevice { major: 1, minor: 3 })),
    ];
    all.sort_by(|one, two| one.name().cmp(two.name()));
    all
}

fn store_directory(ingest: &drystone_vault::Ingest, lane: &mut Lane, mut sources: Vec<Source>) -> Recipe {
    sources.sort_by(|one, two| one.name().cmp(two.name()));
    let mut tree: TreeWriter = ingest.tree();
    for source in sources {
        let entry = match source {
            Source::Other(entry) => entry,
            Source::Dir(entry, sources) => Entry {
                kind: Kind::Dir(store_directory(ingest, lane, sources)),
                ..entry
            },
            Source::File(entry, bytes) => {
                let mut content = lane.content();
                content.write(&bytes).unwrap();
                Entry {
                    kind: Kind::File(content.finish().unwrap()),
                    ..entry
                }
            }
            Source::Hole(entry, pieces) => {
                let mut content = lane.content();
                for (hole, bytes) in pieces {
                    content.hole(hole).unwrap();
                    content.write(&bytes).unwrap();
                }
                Entry {
                    kind: Kind::File(content.finish().unwrap()),
                    ..entry
                }
            }
        };
        tree.push(lane, &entry.encode()).unwrap();
    }
    tree.finish(lane).unwrap()
}

fn back_up(vault: &Vault, codec: Codec, tag: &str, parent: Option<RootId>, sources: Vec<Source>) -> RootId {
    let options = IngestOptions {
        compression: Compression::new(codec, None).unwrap(),
        progress: Arc::new(Progress::default()),
        cancel: Cancel::default(),
    };
    let ingest = vault.ingest(options).unwrap();
    let mut lane = ingest.lane();
    let tree = store_directory(&ingest, &mut lane, vec![dir("golden", sources)]);
    lane.finish().unwrap();
    let finished = ingest.finish().unwrap();
    let mut snapshot = snapshot(tree);
    (snapshot.tags, snapshot.paths, snapshot.parent) = (vec![tag.to_owned()], vec![b"/golden".to_vec()], parent);
    vault.publish(&snapshot, &finished).unwrap()
}

struct FromContext<'a>(&'a dyn Entropy);

impl Random for FromContext<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

/// What the slot that this key file opens holds.
fn secrets(store: &Arc<dyn Store>, key: &str) -> Secrets {
    let line = key.lines().find(|line| line.starts_with("AGE-")).unwrap();
    let identity: age::x25519::Identity = line.parse().unwrap();
    let listed = runtime().block_on(store.list(&Prefix::Keys, None, 100)).unwrap();
    let objects = listed
        .iter()
        .map(|listed| runtime().block_on(store.get(&listed.name, Range::All)).unwrap());
    let slots = objects
        .map(|object| Slot::decode(&object).unwrap())
        .filter(|slot| slot.lock == Lock::X25519);
    let mut opened = slots.filter_map(|slot| {
        let mut key = [0; 32];
        let decryptor = age::Decryptor::new_buffered(slot.locked.as_slice()).unwrap();
        decryptor
            .decrypt(std::iter::once(&identity as &dyn age::Identity))
            .ok()?
            .read_exact(&mut key)
            .unwrap();
        Some(slot.open(&OpenKey::from_bytes(key)).unwrap())
    });
    opened.next().unwrap()
}

/// Stores the one chunk of chacha.txt under the cipher that this machine may not choose by itself.
fn store_chacha_pack(vault: &Vault, store: &Arc<dyn Store>, key: &str) {
    let secrets = secrets(store, key);
    let plaintext = b"in a pack of ChaCha20-Poly1305\n";
    let mut compressor = Compressor::new(Compression::DEFAULT).unwrap();
    let mut random = FromContext(&*vault.context().entropy);
    let mut pack = PackBuilder::new(&secrets, PackKind::Data, Suite::ChaCha20Poly1305, 0, &mut random).unwrap();
    let chunk = PackedChunk {
        id: vault.hasher().id(plaintext),
        bytes: plaintext.len() as u32,
    };
    pack.push(&Compressed::new(&mut compressor, plaintext).unwrap(), vec![chunk])
        .unwrap();
    let pack = pack.finish(&secrets).unwrap();
    runtime()
        .block_on(store.put(&Name::pack(&pack.id), Bytes::from(pack.bytes)))
        .unwrap();
}

fn slot(lock: NewLock, label: &str, role: Role) -> NewSlot {
    NewSlot {
        lock,
        label: label.to_owned(),
        role,
    }
}

#[test]
#[ignore = "writes the golden vault of a new format version"]
fn make_golden_vault() {
    let (target, fixture) = (directory(FORMAT_VERSION), Fixture::new());
    assert!(!target.exists(), "{target:?} exists, and a golden vault never changes");
    std::fs::create_dir_all(&target).unwrap();
    let [owner, removed, writer] = [(); 3].map(|()| generate_key_file());
    std::fs::write(target.join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    std::fs::write(target.join("owner.key"), owner.content.as_bytes()).unwrap();
    std::fs::write(target.join("writer.key"), writer.content.as_bytes()).unwrap();
    let store: Arc<dyn Store> = Arc::new(Local::create(&target.join("vault")).unwrap());
    let options = CreateOptions {
        data_sizes: Sizes::new(64, 448).unwrap(),
        meta_sizes: Sizes::new(64, 448).unwrap(),
        trust: Trust::Verified,
        slots: vec![
            slot(
                NewLock::Passphrase(PASSPHRASE.to_owned().into()),
                "passphrase",
                Role::Owner,
            ),
            slot(NewLock::Recipient(owner.recipient), "key file", Role::Owner),
            slot(NewLock::Recipient(removed.recipient.clone()), "removed", Role::Owner),
        ],
    };
    let vault = Vault::create(store.clone(), fixture.context(), &options).unwrap();
    let mut parent = None;
    for codec in CODECS {
        parent = Some(back_up(&vault, codec, codec.name(), parent, vec![codec_file(codec)]));
    }
    let info = vault
        .keys()
        .unwrap()
        .0
        .into_iter()
        .find(|info| info.recipient == removed.recipient)
        .unwrap();
    vault.remove_key(&info.id, NewEpoch::Start).unwrap();
    store_chacha_pack(&vault, &store, &owner.content);

    let owner = key_file(FORMAT_VERSION, "owner.key");
    let vault = Vault::open(store.clone(), fixture.context(), &owner).unwrap();
    assert!(
        vault
            .contains(&vault.hasher().id(b"in a pack of ChaCha20-Poly1305\n"))
            .unwrap()
    );
    back_up(&vault, Codec::Zstd, "everything", parent, everything());
    vault
        .add_key(&slot(NewLock::Recipient(writer.recipient), "writer", Role::Writer))
        .unwrap();
    let other = Fixture::new();
    let writing = Vault::open(store.clone(), other.context(), &key_file(FORMAT_VERSION, "writer.key")).unwrap();
    back_up(
        &writing,
        Codec::Zstd,
        "writer",
        None,
        vec![file("from-a-writer.txt", text("writer"))],
    );

    let vault = Vault::open(store, fixture.context(), &owner).unwrap();
    let options = ScrubOptions {
        share: 1.0,
        progress: Arc::new(Progress::default()),
        cancel: Cancel::default(),
    };
    assert_eq!(vault.scrub(&options).unwrap().problems.count(), 0);
    std::fs::write(target.join("manifest.txt"), describe(&vault)).unwrap();
}
