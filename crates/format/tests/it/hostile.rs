//! Bytes that an enemy with the right keys could write: counts, lengths, nesting and orders that do not hold.

use drystone_format::codec::{CODECS, decompress};
use drystone_format::header::Header;
use drystone_format::index_part::{open_index_part, open_part};
use drystone_format::index_run::IndexRun;
use drystone_format::keys::Secrets;
use drystone_format::notice::open_verified;
use drystone_format::pack::{Preamble, Tail, tail_bytes};
use drystone_format::recipe::decode_node;
use drystone_format::root::{open_root, root_name};
use drystone_format::slot::Slot;
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::{Entry, Kind, TreeDecoder};
use drystone_format::{Error, Result};
use proptest::prelude::*;

use crate::fixture::{NUMBERED, entry, new_root, secrets, unhex};
use crate::forge;

/// Heads of items that claim 2^63 items or bytes: array, map, byte string, text.
const HUGE: [&str; 4] = [
    "9b 8000000000000000",
    "bb 8000000000000000",
    "5b 8000000000000000",
    "7b 8000000000000000",
];

type Decode = fn(&[u8]) -> Result<()>;

/// Decoders of plain CBOR maps.
const MAPS: [(&str, Decode); 3] = [
    ("secrets", |bytes| Secrets::decode(bytes).map(drop)),
    ("snapshot", |bytes| Snapshot::decode(bytes).map(drop)),
    ("entry", |bytes| Entry::decode(bytes).map(drop)),
];

#[test]
fn huge_counts_and_lengths_are_refused_before_memory_is_taken() {
    for (name, decode) in MAPS {
        for huge in HUGE {
            assert!(decode(&unhex(huge)).is_err(), "{name}");
            for key in 0..20 {
                let bytes = [&[0xa1, key], unhex(huge).as_slice()].concat();
                assert!(decode(&bytes).is_err(), "{name} key {key} {huge}");
            }
        }
    }
    for huge in HUGE {
        assert!(decode_node(&unhex(huge), 1, 1).is_err());
    }
    let mut decoder = TreeDecoder::default();
    decoder.feed(&[0xff; 8]);
    assert!(matches!(decoder.next_entry(), Err(Error::Limit { .. })));
}

#[test]
fn nesting_is_bounded() {
    for (name, decode) in MAPS {
        for opening in [0x81, 0xa1] {
            let mut bytes = unhex("a1 18 63");
            bytes.extend(if opening == 0x81 {
                vec![0x81; 1 << 20]
            } else {
                [0xa1, 0x00].repeat(1 << 19)
            });
            bytes.push(0);
            assert!(matches!(decode(&bytes), Err(Error::Malformed { .. })), "{name}");
        }
    }
}

#[test]
fn order_duplicates_and_forms_outside_the_format_are_refused() {
    for (name, decode) in MAPS {
        for bytes in [
            "a2 18 64 00 18 63 00",
            "a2 18 63 00 18 63 00",
            "bf 18 63 00 ff",
            "a1 18 63 9f ff",
            "a1 18 63 5f ff",
            "a1 18 63 c0 00",
            "a1 61 78 00",
            "a1 20 00",
            "80",
            "00",
            "",
            "f6",
        ] {
            assert!(
                matches!(decode(&unhex(bytes)), Err(Error::Malformed { .. })),
                "{name} {bytes}"
            );
        }
        let many: Vec<u8> = (0u16..300)
            .flat_map(|key| [0x19, (key >> 8) as u8 + 1, key as u8, 0x00])
            .collect();
        let bytes = [unhex("b9 012c"), many].concat();
        assert!(matches!(decode(&bytes), Err(Error::Limit { .. })), "{name}");
    }
    let mut bytes = entry(b"x", Kind::Fifo).encode();
    bytes.push(0);
    assert!(Entry::decode(&bytes).is_err(), "bytes after the end");
    assert!(Entry::decode(&[&[0xff], bytes.as_slice()].concat()).is_err());
}

#[test]
fn nanoseconds_beyond_a_second_are_refused() {
    let bytes = entry(b"x", Kind::Fifo).encode();
    let time = unhex("1a 6553f100 05");
    let at = bytes.windows(time.len()).position(|window| window == time).unwrap();
    let wrong = [&bytes[..at + 5], &unhex("1a 3b9aca00"), &bytes[at + 6..]].concat();
    assert!(matches!(
        Entry::decode(&wrong),
        Err(Error::Limit {
            what: "nanoseconds",
            ..
        })
    ));
}

/// A footer that claims these lengths.
fn footer(trailer: u32, preamble: u32) -> Vec<u8> {
    [
        trailer.to_be_bytes().as_slice(),
        &preamble.to_be_bytes(),
        &[0; 64],
        b"DRYPACK\x01",
    ]
    .concat()
}

#[test]
fn footers_cannot_claim_more_than_there_is() {
    for (trailer, preamble) in [
        (u32::MAX, u32::MAX),
        (8 << 20, 0),
        (0, 8 << 20),
        (0, 1),
        (1, 0),
        (0, u32::MAX),
    ] {
        let end = footer(trailer, preamble);
        assert!(tail_bytes(&end, 88).is_err(), "{trailer} {preamble}");
        assert!(Tail::open(&end, 88, &secrets()).is_err());
        assert!(Preamble::from_end(&end).is_err());
    }
    assert_eq!(tail_bytes(&footer(0, 0), 88).unwrap(), 80);
    assert!(tail_bytes(&footer(0, 0), 87).is_err());
    assert!(matches!(tail_bytes(&footer(0, 0), 1 << 40), Err(Error::Limit { .. })));
}

/// The frames that a forged trailer opens to.
fn frames(trailer: &[u8], frames_bytes: u64) -> Result<usize> {
    let secrets = secrets();
    let (tail, pack_bytes) = forge::tail(&secrets, trailer, frames_bytes);
    Tail::open(&tail, pack_bytes, &secrets).map(|tail| tail.frames.len())
}

#[test]
fn trailers_that_do_not_fit_their_pack_are_refused() {
    let row = |bytes: &str| [vec![7; 32], unhex(bytes)].concat();
    let one = |bytes: &str, rows: &[u8]| {
        [
            unhex("a1 00 81 82"),
            unhex(bytes),
            unhex("59"),
            (rows.len() as u16).to_be_bytes().to_vec(),
            rows.to_vec(),
        ]
        .concat()
    };
    assert_eq!(frames(&unhex("a1 00 80"), 0).unwrap(), 0);
    assert_eq!(frames(&one("18 64", &row("00000001")), 100).unwrap(), 1);
    assert_eq!(frames(&unhex("a1 00 80 00 00"), 0).unwrap(), 0, "zeros may follow");
    assert_eq!(
        frames(&unhex("a1 00 81 82 18 64 40"), 100).unwrap(),
        1,
        "a frame without chunks"
    );
    for (why, trailer, frames_bytes) in [
        ("a gap", one("18 64", &row("00000001")), 101),
        ("frames beyond the trailer", one("18 64", &row("00000001")), 99),
        ("a frame of 4 GiB", one("1a ffffffff", &row("00000001")), 100),
        ("a row cut short", one("18 64", &row("000001")), 100),
        ("a chunk above 1 MiB", one("18 64", &row("00100001")), 100),
        (
            "chunks above 4 MiB together",
            one("18 64", &row("00100000").repeat(5)),
            100,
        ),
        ("no frames at all", unhex("a0"), 100),
        ("bytes after the end", unhex("a1 00 80 01"), 0),
        ("bytes after zeros", unhex("a1 00 80 00 00 01"), 0),
        ("more frames than a pack has", unhex("a1 00 9a 00010001"), 0),
        ("a negative length", one("20", &row("00000001")), 100),
        ("a frame of three items", unhex("a1 00 81 83 00 40 00"), 0),
        ("nothing", Vec::new(), 0),
    ] {
        assert!(frames(&trailer, frames_bytes).is_err(), "{why}");
    }
}

#[test]
fn forged_lists_are_read_with_limits() {
    let secrets = secrets();
    let open = |list: &str| open_verified(&secrets, &forge::verified(&secrets, &unhex(list)));
    assert_eq!(open("a1 00 80").unwrap(), []);
    assert_eq!(open(&format!("a1 00 81 58 20 {}", "07".repeat(32))).unwrap().len(), 1);
    for bad in [
        "",
        "80",
        "a1 00 9b ffffffffffffffff",
        "a1 00 81 41 07",
        "a1 00 80 00",
        "a1 00 81",
    ] {
        assert!(open(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_decoder_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), depth in any::<u8>(), size in any::<u64>()) {
        let secrets = secrets();
        let _ = (Header::decode(&bytes), Slot::decode(&bytes), Secrets::decode(&bytes), Snapshot::decode(&bytes));
        let _ = (open_verified(&secrets, &bytes), open_root(&secrets, &root_name(&secrets, &new_root(&[]), &bytes), &bytes));
        let _ = (tail_bytes(&bytes, size), Tail::open(&bytes, size, &secrets).map(drop), Preamble::from_end(&bytes));
        let _ = (decode_node(&bytes, depth, size), Slot::verify(&bytes, &secrets.vault_verify));
        let _ = (open_index_part(&secrets, &bytes).map(drop), IndexRun::open(&secrets, &bytes));
        for magic in ["DRYVALT", "DRYSLOT", "DRYROOT", "DRYLIST"] {
            let bytes = [magic.as_bytes(), &[1], &bytes].concat();
            let _ = (Header::decode(&bytes), Slot::decode(&bytes), open_verified(&secrets, &bytes));
            let _ = open_root(&secrets, &root_name(&secrets, &new_root(&[]), &bytes), &bytes);
        }
        let _ = (frames(&bytes, size % 1000), open_verified(&secrets, &forge::verified(&secrets, &bytes)));
        for run in forge::runs(&secrets, &NUMBERED, &bytes) {
            let _ = IndexRun::open(&secrets, &run);
        }
        let _ = open_part(&secrets, 1, &NUMBERED, &forge::part(&secrets, &NUMBERED, &bytes));
        let end = [bytes.as_slice(), &footer(bytes.len() as u32 / 2, bytes.len() as u32 - bytes.len() as u32 / 2)].concat();
        let _ = (Tail::open(&end, end.len() as u64 + 8, &secrets).map(drop), Preamble::from_end(&end));
    }

    #[test]
    fn codecs_neither_panic_nor_exceed_their_promise(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000), promised in 0usize..100_000,
    ) {
        for codec in CODECS {
            if let Ok(plaintext) = decompress(codec, &bytes, promised) {
                prop_assert_eq!(plaintext.len(), promised);
            }
        }
    }
}

#[test]
fn only_the_last_level_of_a_recipe_has_zeros_and_holes() {
    for code in [0, 1] {
        let node = [0x81, 0x82, code, 0x0a];
        assert!(decode_node(&node, 1, 10).is_ok());
        assert!(decode_node(&node, 2, 10).is_err());
    }
}
