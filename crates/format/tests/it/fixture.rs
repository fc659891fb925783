//! Objects with fixed contents: the examples of docs/format.md, and what the other tests damage.

use std::sync::LazyLock;

use drystone_format::chunker::Sizes;
use drystone_format::codec::{Codec, Compression, Compressor};
use drystone_format::config::{Config, Features, Removed, Trust};
use drystone_format::header::Header;
use drystone_format::id::ChunkHasher;
use drystone_format::index_part::{IndexPart, Numbered};
use drystone_format::index_run::{IndexRun, RunChunk, RunPack, Verified};
use drystone_format::keys::{OpenKey, Role, Secrets, VerifyKey};
use drystone_format::pack::{PackBuilder, PackOptions, PackedChunk, SealedPack, Tail};
use drystone_format::places::{PlaceEntry, PlaceMark, PlaceMarks};
use drystone_format::presence::Seen;
use drystone_format::recipe::{Part, Recipe};
use drystone_format::root::{NewRoot, RootKind, RootName, RootState, root_name, seal_root};
use drystone_format::seal::{Compressed, PackKind, Suite};
use drystone_format::slot::{Lock, SealedNote, Slot, SlotNote};
use drystone_format::snapshot::{Snapshot, Totals};
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_format::{ChunkId, PlaceId, Random, RootId, SlotId, VaultId};

/// The bytes 0, 1, 2 and so on, across calls.
#[derive(Default)]
pub(crate) struct Counting(pub(crate) u8);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

pub(crate) const TIME: Time = Time {
    seconds: 1_700_000_000,
    nanos: 5,
};
/// The nonce of the registration of the examples.
pub(crate) const NONCE: [u8; 16] = [0xdd; 16];
pub(crate) const ROOT: RootId = RootId([0xaa; 16]);
/// What the writer of the example root and presence has read.
pub(crate) static SEEN: LazyLock<Seen> = LazyLock::new(|| [(1, ROOT)].into());

/// A root with this payload, the second of its registration.
pub(crate) fn new_root(payload: &[u8]) -> NewRoot<'_> {
    NewRoot {
        kind: RootKind::SNAPSHOT,
        nonce: NONCE,
        number: 1,
        previous: Some(RootId([0xdd; 16])),
        state: RootState::Last,
        epochs: &SEEN,
        ledgers: &SEEN,
        packs: 5,
        payload,
        index_part: Some(b"index part"),
    }
}

/// Such a root with its name.
pub(crate) fn sealed_root(secrets: &Secrets, payload: &[u8]) -> (RootName, Vec<u8>) {
    let root = new_root(payload);
    let object = seal_root(secrets, &root, &mut Counting::default()).unwrap();
    (root_name(secrets, &root, &object), object)
}

/// An age file for the identity of 32 bytes of 0x42; its plaintext is the bytes 0 to 31, then the vault key.
const LOCKED: &str = "6167652d656e6372797074696f6e2e6f72672f76310a2d3e20583235353139206f6f7038524f336956395a6b2b2f4657722f70\
    39714b757a726e53352f756a586f6765465131424f476e550a5038544b36662f706866786249574b7a38796b67554161776b75\
    6764427532467730444a624553732b56340a2d2d2d20556e6251364e6a446b6d4937416b566a3435525076686f56796b586a52\
    544839776b4e65377865443265730a454545454545454545454545454545450f8ba20ab8894807d2fa17b6b08e98235c225081\
    3d1889c2a719996c202b0054ca0dd294d405aa359ec77e17fe7135ac6b6befe3a968bb5b1c7ee507bec79065976569138b7c8a\
    6c2cabd480176fed96";

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

pub(crate) fn vault() -> VaultId {
    VaultId::from_hex("00112233445566778899aabbccddeeff").unwrap()
}

pub(crate) fn secrets() -> Secrets {
    Secrets::generate(&mut Counting::default(), vault()).unwrap()
}

/// A credential of the same vault that cannot read.
pub(crate) fn writer() -> Secrets {
    secrets().delegate(&mut Counting(0xa0), Role::Writer).unwrap()
}

/// A stranger under the same vault id.
pub(crate) fn stranger() -> Secrets {
    Secrets::generate(&mut Counting(7), vault()).unwrap()
}

pub(crate) fn header() -> Header {
    Header {
        vault: vault(),
        vault_verify: secrets().vault_verify,
        unknown: Vec::new(),
    }
}

pub(crate) fn header_bytes() -> Vec<u8> {
    header().encode(secrets().vault_key.as_ref().unwrap()).unwrap()
}

/// One that replaces two others, with every key.
pub(crate) fn config() -> Config {
    let place = |number: u8, url: &str, marks| PlaceEntry {
        id: PlaceId([0xc0 + number; 16]),
        url: url.to_owned(),
        weight: 1,
        marks: PlaceMarks(marks),
        up_bytes: None,
        down_bytes: None,
        unknown: Vec::new(),
    };
    Config {
        number: 2,
        made: TIME,
        replaces: vec![RootId([0xd0; 16]), RootId([0xd1; 16])],
        features: Features {
            read: vec!["test".to_owned()],
            ..Features::default()
        },
        data_sizes: Sizes::new(16 << 10, 112 << 10).unwrap(),
        meta_sizes: Sizes::new(4 << 10, 28 << 10).unwrap(),
        trust: Trust::Verified,
        spread: (2, 3),
        places: vec![
            place(0, "/mnt/a", 0),
            PlaceEntry {
                up_bytes: Some(1_000_000),
                ..place(
                    1,
                    "s3://bucket/vault?endpoint=https://s3.example",
                    PlaceMarks::APPEND_ONLY,
                )
            },
            place(2, "sftp://host/vault", PlaceMarks::COLD | PlaceMarks::LEAVING),
        ],
        root_kinds: vec!["snapshot".to_owned()],
        removed: vec![Removed {
            writer: VerifyKey([0xe0; 32]),
            since: 1,
        }],
        unknown: Vec::new(),
    }
}

pub(crate) fn place_mark() -> PlaceMark {
    PlaceMark {
        vault: vault(),
        place: PlaceId([0xc1; 16]),
    }
}

pub(crate) fn slot_key() -> OpenKey {
    OpenKey::generate(&mut Counting::default())
}

pub(crate) fn slot() -> Slot {
    let mut slot = Slot {
        vault: vault(),
        id: SlotId([0xbb; 16]),
        role: Role::Owner,
        lock: Lock::X25519,
        created: TIME,
        note: SealedNote::default(),
        slot_key: slot_key().seal_key().unwrap(),
        locked: unhex(LOCKED),
        sealed: Vec::new(),
        own: Vec::new(),
        header: header_bytes(),
        unknown: Vec::new(),
    };
    slot.fill(&secrets(), &mut Counting::default()).unwrap();
    slot.set_note(&secrets(), &slot_note(), &mut Counting(0x50)).unwrap();
    slot
}

pub(crate) fn slot_note() -> SlotNote {
    SlotNote {
        label: "key file".to_owned(),
        recipient: "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj".to_owned(),
        writer: secrets().certificate.writer,
    }
}

pub(crate) fn slot_bytes() -> Vec<u8> {
    slot().encode(secrets().vault_key.as_ref().unwrap()).unwrap()
}

/// A pack of one frame for each of `frames`, which are lists of chunks; not padded, so that tests may damage every bit.
pub(crate) fn pack(secrets: &Secrets, kind: PackKind, suite: Suite, codec: Codec, frames: &[&[&[u8]]]) -> SealedPack {
    filled(secrets, kind, suite, codec, frames)
        .finish_unpadded(secrets)
        .unwrap()
}

/// The same as writers make it.
pub(crate) fn padded_pack(secrets: &Secrets, frames: &[&[&[u8]]]) -> SealedPack {
    filled(secrets, PackKind::Mixed, Suite::Aes256Gcm, Codec::None, frames)
        .finish(secrets)
        .unwrap()
}

fn filled(secrets: &Secrets, kind: PackKind, suite: Suite, codec: Codec, frames: &[&[&[u8]]]) -> PackBuilder {
    let hasher = ChunkHasher::new(&secrets.dedup_key);
    let mut compressor = Compressor::new(Compression::new(codec, None).unwrap()).unwrap();
    let options = PackOptions {
        kind,
        suite,
        registration: NONCE,
        number: 1000,
        capacity_bytes: 0,
    };
    let mut pack = PackBuilder::new(secrets, &options, &mut Counting::default()).unwrap();
    for chunks in frames {
        let rows = chunks.iter().map(|chunk| PackedChunk {
            id: hasher.id(chunk),
            bytes: chunk.len() as u32,
        });
        let frame = Compressed::new(&mut compressor, &chunks.concat()).unwrap();
        pack.push(&frame, rows.collect()).unwrap();
    }
    pack
}

pub(crate) fn example_pack() -> SealedPack {
    pack(
        &secrets(),
        PackKind::Data,
        Suite::Aes256Gcm,
        Codec::None,
        &[&[b"hello\n", b"world\n"]],
    )
}

/// The object of the registration of the examples that carries their index part.
pub(crate) const NUMBERED: Numbered = Numbered {
    registration: NONCE,
    number: 3,
};

pub(crate) fn index_part() -> IndexPart {
    IndexPart::from_sealed_packs(&[example_pack()])
}

/// A run that lists these packs and all their chunks.
pub(crate) fn index_run(secrets: &Secrets, packs: &[SealedPack]) -> IndexRun {
    let mut run = IndexRun::default();
    for (number, pack) in (0..).zip(packs) {
        let size = pack.bytes.len() as u64;
        let tail = Tail::open(pack.tail(), size, secrets).unwrap();
        run.packs.push(RunPack::new(pack.id, size, &tail, Verified::Yes));
        for (frame_number, frame) in (0..).zip(&tail.frames) {
            let mut chunk_offset = 0;
            for chunk in &frame.chunks {
                run.chunks.push(RunChunk {
                    id: chunk.id,
                    pack: number,
                    frame: frame_number,
                    frame_offset: frame.offset,
                    frame_bytes: frame.bytes,
                    chunk_offset,
                    chunk_bytes: chunk.bytes,
                });
                chunk_offset += chunk.bytes;
            }
        }
    }
    run.chunks.sort_by_key(|chunk| (chunk.id, chunk.pack));
    run.chunks.dedup_by_key(|chunk| (chunk.id, chunk.pack));
    run
}

pub(crate) fn hello() -> ChunkId {
    ChunkHasher::new(&secrets().dedup_key).id(b"hello\n")
}

pub(crate) fn entry(name: &[u8], kind: Kind) -> Entry {
    Entry {
        name: name.to_vec(),
        kind,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        user: String::new(),
        group: String::new(),
        mtime: TIME,
        xattrs: Vec::new(),
        hard_link: None,
        marks: Marks::default(),
        acl_names: Vec::new(),
        unknown: Vec::new(),
    }
}

/// An entry of every kind, and one with every optional key.
pub(crate) fn entries() -> Vec<Entry> {
    let mut all = entry(b"all", Kind::File(Recipe::single(hello(), 6)));
    (all.mode, all.user, all.group) = (0o4755, "mason".to_owned(), "users".to_owned());
    all.mtime = Time {
        seconds: -1,
        nanos: 999_999_999,
    };
    all.xattrs = vec![(b"user.note".to_vec(), b"\0\xff".to_vec())];
    all.hard_link = Some((64, 4711));
    all.marks = Marks(Marks::CHANGED_WHILE_READ);
    vec![
        all,
        entry(b"block", Kind::BlockDevice { major: 8, minor: 1 }),
        entry(b"char", Kind::CharDevice { major: 1, minor: 3 }),
        entry(b"directory", Kind::Dir(Recipe::default())),
        entry(b"fifo", Kind::Fifo),
        entry(b"link", Kind::Symlink(b"../\xfftarget".to_vec())),
        entry(b"socket", Kind::Socket),
        entry(b"\xff not UTF-8", Kind::File(Recipe::default())),
    ]
}

/// Parts of every kind.
pub(crate) fn parts() -> Vec<Part> {
    vec![
        Part::Chunk { id: hello(), bytes: 6 },
        Part::Zeros(4096),
        Part::Hole(1 << 40),
    ]
}

pub(crate) fn snapshot() -> Snapshot {
    Snapshot {
        started: TIME,
        finished: Time {
            seconds: 1_700_000_060,
            nanos: 0,
        },
        host: "quarry".to_owned(),
        user: "mason".to_owned(),
        paths: vec![b"/home/mason".to_vec()],
        tags: vec!["daily".to_owned()],
        tree: Recipe::single(hello(), 6),
        parent: Some(RootId([0xcc; 16])),
        totals: Totals {
            files: 3,
            dirs: 2,
            bytes: 1000,
            new_bytes: 500,
            stored_bytes: 250,
            problems: 0,
        },
        program: "drystone 0.1.0".to_owned(),
        origin: None,
        unknown: Vec::new(),
    }
}

/// Every copy of `bytes` with one bit flipped.
pub(crate) fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len() * 8).map(|bit| {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        (bit, damaged)
    })
}
