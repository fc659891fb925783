//! docs/format.md tells the truth: its example bytes are decoded and made again, its limits are those of the code.

use std::path::{Path, PathBuf};

use drystone_format::chunker::{Chunker, Sizes};
use drystone_format::codec::{CODECS, Codec, Compression, Compressor, decompress};
use drystone_format::config::Config;
use drystone_format::epoch::{Closing, Epoch, open_epoch, seal_epoch};
use drystone_format::header::Header;
use drystone_format::id::{object_hash, pack_id};
use drystone_format::index_part::{open_index_part, seal_index_part};
use drystone_format::index_run::IndexRun;
use drystone_format::keys::Secrets;
use drystone_format::ledger::{open_ledger, seal_ledger};
use drystone_format::notice::{open_verified, seal_verified};
use drystone_format::pack::{Preamble, Tail, tail_bytes};
use drystone_format::places::PlaceMark;
use drystone_format::presence::{Presence, WriterState};
use drystone_format::recipe::decode_node;
use drystone_format::root::{RootState, open_root, root_name, verify_root};
use drystone_format::seal::Compressed;
use drystone_format::shard::{Shape, ShardKeys, open_shard, seal_shard};
use drystone_format::slot::Slot;
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::{TreeDecoder, append_encoded};
use drystone_format::{RegistrationId, RootId};

use crate::fixture::{
    Counting, NONCE, NUMBERED, SEEN, config, entries, example_pack, header, header_bytes, hello, index_part, index_run,
    new_root, parts, place_mark, sealed_root, secrets, slot, slot_bytes, slot_key, snapshot, unhex,
};
use crate::ledgers::{ledger, sightings};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md")
}

fn document() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// The lines of the fenced block with this name.
fn block<'a>(document: &'a str, name: &str) -> &'a str {
    let fence = format!("```{name}\n");
    let (_, rest) = document
        .split_once(&fence)
        .unwrap_or_else(|| panic!("docs/format.md has no block `{name}`"));
    rest.split_once("```").unwrap().0
}

fn example(name: &str) -> Vec<u8> {
    unhex(block(&document(), &format!("hex {name}-example")))
}

/// Text of which every codec finds something to compress.
fn frame_plaintext() -> Vec<u8> {
    b"drystone ".repeat(8)
}

fn frame(codec: Codec) -> Vec<u8> {
    let mut compressor = Compressor::new(Compression::new(codec, None).unwrap()).unwrap();
    Compressed::new(&mut compressor, &frame_plaintext())
        .unwrap()
        .bytes()
        .to_vec()
}

fn tree() -> Vec<u8> {
    let mut stream = Vec::new();
    entries()
        .iter()
        .for_each(|entry| append_encoded(&mut stream, &entry.encode()));
    stream
}

/// A node that holds every kind of part: 3 parts, each an array of two items.
fn recipe_node() -> Vec<u8> {
    let mut bytes = unhex("83 82 58 20");
    bytes.extend(hello().0);
    bytes.extend(unhex("06 82 00 19 1000 82 01 1b 0000010000000000"));
    bytes
}

/// The field of parity shards, from its definition: carry-less product, reduced by `0x11d`.
fn times(a: u8, b: u8) -> u8 {
    let (mut product, mut power) = (0, a);
    for bit in 0..8 {
        product ^= power * (b >> bit & 1);
        power = (power << 1) ^ (0x1d * (power >> 7));
    }
    product
}

/// Which number times `b` is `a`.
fn divide(a: u8, b: u8) -> u8 {
    (0..=255).find(|quotient| times(*quotient, b) == a).unwrap()
}

/// What parity shard `number` takes `column` times, of `needed`.
fn factor(needed: u8, number: u8, column: u8) -> u8 {
    let (above, below) = (times(number, needed ^ column), times(needed, number ^ column));
    divide(above, below)
}

/// The shape of the example shards.
fn shape() -> Shape {
    let pack = example_pack();
    Shape::new(pack.id, pack.bytes.len() as u64, 3).unwrap()
}

/// The payload of a shard of the example pack, computed as the document says and not as the program does.
fn shard_payload(number: u8) -> Vec<u8> {
    let pack = example_pack().bytes;
    let columns: Vec<&[u8]> = pack.chunks(pack.len().div_ceil(3)).collect();
    if number < 3 {
        return columns[usize::from(number)].to_vec();
    }
    let byte = |column: usize, at: usize| columns[column].get(at).copied().unwrap_or_default();
    let product = |column: u8, at| times(factor(3, number, column), byte(column.into(), at));
    (0..columns[0].len())
        .map(|at| (0..3).fold(0, |sum, column| sum ^ product(column, at)))
        .collect()
}

fn shard(number: u8) -> Vec<u8> {
    seal_shard(&ShardKeys::new(&secrets()), &shape(), number, &shard_payload(number)).unwrap()
}

fn epoch() -> Epoch {
    Epoch {
        packs: [example_pack().id].into(),
        fences: [RegistrationId([0xee; 16])].into(),
        closings: [
            (RegistrationId([0xef; 16]), Closing::Below(2)),
            (RegistrationId([0xf0; 16]), Closing::Dead),
        ]
        .into(),
    }
}

fn presence() -> Presence {
    Presence {
        nonce: NONCE,
        beat: 3,
        epochs: SEEN.clone(),
        ledgers: SEEN.clone(),
        packs: 4,
        advance: Some((1, RootId([0xcc; 16]))),
        state: WriterState::AtWork,
    }
}

/// All examples whose encoding is determined by the document.
fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let secrets = secrets();
    let root = sealed_root(&secrets, &snapshot().encode()).1;
    let list = seal_verified(&secrets, &[example_pack().id], &mut Counting::default());
    vec![
        ("secrets", secrets.encode()),
        ("header", header_bytes()),
        ("slot", slot_bytes()),
        ("chunk-id", hello().0.to_vec()),
        ("frame-none", frame(Codec::None)),
        ("pack", example_pack().bytes),
        ("shard-data", shard(2)),
        ("shard-parity", shard(4)),
        ("recipe-node", recipe_node()),
        ("tree", tree()),
        ("snapshot", snapshot().encode()),
        ("root", root),
        ("verified-list", list.unwrap()),
        ("config", config().seal(&secrets, &mut Counting::default()).unwrap()),
        (
            "place",
            place_mark().encode(secrets.vault_key.as_ref().unwrap()).unwrap(),
        ),
        (
            "epoch",
            seal_epoch(&secrets, &epoch(), &mut Counting::default()).unwrap(),
        ),
        ("presence", presence().sign(&secrets).unwrap()),
        (
            "index-part",
            seal_index_part(&secrets, &NUMBERED, &index_part(), &mut Counting::default()).unwrap(),
        ),
        (
            "index-run",
            index_run(&secrets, &[example_pack()])
                .seal(&secrets, &NUMBERED, &mut Counting::default())
                .unwrap(),
        ),
        (
            "ledger",
            seal_ledger(&secrets, &ledger(), &sightings(&ledger()), &mut Counting::default()).unwrap(),
        ),
    ]
}

#[test]
fn example_bytes_are_made_again() {
    let document = document();
    for (name, bytes) in examples() {
        assert_eq!(example(name), bytes, "{name}");
    }
    let known = examples().len() + CODECS.len() - 1;
    assert_eq!(
        document.matches("```hex ").count(),
        known,
        "a hex block that no test decodes"
    );
}

#[test]
fn example_objects_decode() {
    let secrets = Secrets::decode(&example("secrets")).unwrap();
    assert_eq!(Header::decode(&example("header")).unwrap(), header());
    let object = example("slot");
    let decoded = Slot::decode(&object).unwrap();
    assert_eq!(decoded, slot());
    Slot::verify(&object, &secrets.vault_verify).unwrap();
    assert_eq!(decoded.open(&slot_key()).unwrap().encode(), example("secrets"));
    let object = example("root");
    let name = root_name(&secrets, &new_root(&[]), &object);
    let signed = verify_root(&secrets, &name, &object).unwrap();
    assert_eq!(
        (signed.previous, signed.state),
        (new_root(&[]).previous, RootState::Last)
    );
    assert_eq!((&signed.epochs, &signed.ledgers, signed.packs), (&*SEEN, &*SEEN, 5));
    assert_eq!(signed.index_part.as_deref(), new_root(&[]).index_part);
    let root = open_root(&secrets, &name, &object).unwrap();
    assert_eq!(root.payload, example("snapshot"));
    assert_eq!(Snapshot::decode(&root.payload).unwrap(), snapshot());
    let list = open_verified(&secrets, &example("verified-list")).unwrap();
    assert_eq!(list, [pack_id(&example("pack"))]);
    assert_eq!(Config::open(&secrets, &example("config")).unwrap(), config());
    let mark = PlaceMark::decode(&example("place"), &secrets.vault_verify).unwrap();
    assert_eq!(mark, place_mark());
    assert_eq!(open_epoch(&secrets, &example("epoch")).unwrap(), epoch());
    let object = example("presence");
    let registration = presence().registration(&secrets);
    let (read, by) = Presence::verify(&secrets, (&registration, 3, &object_hash(&object)), &object).unwrap();
    assert_eq!((read, by), (presence(), secrets.certificate));
    let part = open_index_part(&secrets, &example("index-part")).unwrap();
    assert_eq!((part.of, part.part), (NUMBERED, index_part()));
    let run = IndexRun::open(&secrets, &example("index-run")).unwrap();
    assert_eq!(run, index_run(&secrets, &[example_pack()]));
    let opened = open_ledger(&secrets, &example("ledger")).unwrap();
    assert_eq!(opened.ledger, ledger());
    assert_eq!(opened.sightings(&secrets).unwrap(), sightings(&ledger()));
}

#[test]
fn example_contents_decode() {
    let (secrets, pack) = (Secrets::decode(&example("secrets")).unwrap(), example("pack"));
    let length = tail_bytes(&pack, pack.len() as u64).unwrap();
    let tail = Tail::open(&pack[pack.len() - length..], pack.len() as u64, &secrets).unwrap();
    let frame = &tail.frames[0];
    let sealed = &pack[frame.offset as usize..][..frame.bytes as usize];
    let sealer = Preamble::from_end(&pack).unwrap().frame_sealer(&secrets).unwrap();
    assert_eq!(sealer.open_frame(0, sealed).unwrap(), b"hello\nworld\n");
    assert_eq!(frame.chunks[0].id.0.as_slice(), example("chunk-id"));
    let whole: u64 = parts().iter().map(|part| part.bytes()).sum();
    assert_eq!(decode_node(&example("recipe-node"), 1, whole).unwrap(), parts());
    let mut decoder = TreeDecoder::default();
    decoder.feed(&example("tree"));
    for entry in entries() {
        assert_eq!(decoder.next_entry().unwrap(), Some(entry));
    }
    assert_eq!(decoder.next_entry().unwrap(), None);
    decoder.finish().unwrap();
}

#[test]
fn example_shards_decode() {
    let (keys, pack) = (ShardKeys::new(&secrets()), pack_id(&example("pack")));
    for (name, number) in [("shard-data", 2), ("shard-parity", 4)] {
        let opened = open_shard(&keys, pack, 3, number, &example(name)).unwrap();
        assert_eq!((opened.shape, opened.payload), (shape(), shard_payload(number)));
        assert_eq!(opened.maker, keys.maker());
    }
    assert!(shard_payload(2).len() <= shard_payload(4).len());
    let factors = [0, 1, 2].map(|column| format!("`c(4, {column}) = {:x}`", factor(3, 4, column)));
    assert!(document().contains(&factors.join(", ")), "{factors:?}");
}

#[test]
fn example_frames_of_every_codec_decode() {
    for codec in CODECS {
        let bytes = example(&format!("frame-{}", codec.name()));
        let (head, payload) = bytes.split_first_chunk::<5>().unwrap();
        let length = u32::from_be_bytes(*head.last_chunk().unwrap());
        assert_eq!(CODECS[usize::from(head[0])], codec);
        assert_eq!(decompress(codec, payload, length as usize).unwrap(), frame_plaintext());
    }
}

/// The lengths of the chunks of the stream that the document describes.
fn boundaries() -> String {
    let chunker = Chunker::new(&secrets().dedup_key, Sizes::new(64, 448).unwrap());
    let stream: Vec<u8> = (0..600u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let (mut rest, mut lengths) = (stream.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(chunker.next(rest));
        lengths.push(chunk.len().to_string());
        rest = after;
    }
    let constants = secrets().dedup_key.derive(b"drystone chunk boundaries v1");
    let word = |at| u32::from_le_bytes(*constants[at..].first_chunk().unwrap());
    format!(
        "a = {}, b = {}\n{}\n",
        word(0) | 1,
        word(4) | 1 << 31,
        lengths.join(" ")
    )
}

#[test]
fn example_boundaries_are_those_of_the_chunker() {
    assert_eq!(block(&document(), "text boundaries-example"), boundaries());
}

/// `16 << 10` and `1024` as numbers.
fn evaluate(expression: &str) -> u64 {
    let mut factors = expression
        .split("<<")
        .map(|number| number.trim().parse::<u64>().unwrap());
    let first = factors.next().unwrap();
    first << factors.next().unwrap_or(0)
}

#[test]
fn limits_are_listed_with_their_values() {
    let document = document();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/limits.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let constants = source.lines().filter_map(|line| line.strip_prefix("pub const "));
    for line in constants {
        let (name, rest) = line.split_once(':').unwrap();
        let value = evaluate(rest.split_once('=').unwrap().1.trim_end_matches(';'));
        let row = format!("| `{name}` | {value} |");
        assert!(document.contains(&row), "docs/format.md lacks the row {row}");
    }
}

#[test]
#[ignore = "writes the examples into docs/format.md; a change of bytes that it makes is a change of the format"]
fn write_examples() {
    let mut text = document();
    let mut replace = |name: &str, new: &str| {
        let old = block(&text, name).to_owned();
        let (old, new) = (format!("```{name}\n{old}```"), format!("```{name}\n{new}```"));
        text = text.replacen(&old, &new, 1);
    };
    let frames = CODECS.map(|codec| (format!("frame-{}", codec.name()), frame(codec)));
    let examples = examples().into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
    for (name, bytes) in examples.chain(frames) {
        let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
        replace(
            &format!("hex {name}-example"),
            &bytes.chunks(48).map(line).collect::<String>(),
        );
    }
    replace("text boundaries-example", &boundaries());
    std::fs::write(path(), text).unwrap();
}
