//! Writes the golden vault of a format version: every codec, cipher, kind of entry, two key epochs, a writer's pack.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::chunker::Sizes;
use drystone_format::codec::{CODECS, Codec, Compression, Compressor};
use drystone_format::config::Trust;
use drystone_format::keys::{OpenKey, Role, Secrets};
use drystone_format::limits::FORMAT_VERSION;
use drystone_format::pack::{PackBuilder, PackOptions, PackedChunk};
use drystone_format::recipe::Recipe;
use drystone_format::seal::{Compressed, PackKind, Suite};
use drystone_format::slot::{Lock, Slot};
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_format::{Random, RootId};
use drystone_store::{Local, Name, Prefix, Range, Store};
use drystone_vault::{
    Cancel, CreateOptions, Entropy, FrameSize, GcOptions, Ingest, IngestOptions, Lane, NewEpoch, NewLock, NewSlot,
    Progress, ScrubOptions, TreeWriter, Vault, generate_key_file,
};

use super::{describe, directory, key_file};
use crate::support::{Fixture, entry, lines, noise, root_of, runtime, snapshot};

const PASSPHRASE: &str = "a stone for a stone";

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

fn store_directory(ingest: &Ingest, lane: &mut Lane, mut sources: Vec<Source>) -> Recipe {
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
        frames: FrameSize::default(),
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
    let options = PackOptions {
        kind: PackKind::Data,
        suite: Suite::ChaCha20Poly1305,
        registration: [7; 16],
        number: 0,
        capacity_bytes: 0,
    };
    let mut pack = PackBuilder::new(&secrets, &options, &mut random).unwrap();
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
            slot(NewLock::Recipient(removed.recipient.clone()), "removed", Role::Member),
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

    let vault = Vault::open(store.clone(), fixture.context(), &owner).unwrap();
    let options = ScrubOptions {
        share: 1.0,
        repair: false,
        progress: Arc::new(Progress::default()),
        cancel: Cancel::default(),
    };
    assert_eq!(vault.scrub(&options).unwrap().problems.count(), 0);
    // Ledgers state all of it, and forget a snapshot that the place brings back.
    let gone = back_up(&vault, Codec::Zstd, "gone", None, vec![file("gone.txt", text("gone"))]);
    let name = root_of(&*store, &gone);
    let root = runtime().block_on(store.get(&name, Range::All)).unwrap();
    assert_eq!(lines(&vault.gc(&GcOptions::default()).unwrap().problems), "");
    vault.forget(&[gone]).unwrap();
    runtime().block_on(store.put(&name, root)).unwrap();
    std::fs::write(target.join("manifest.txt"), describe(&vault)).unwrap();
}
