//! Entries and tree streams: round trips with unknown keys and any bytes as names, and names that are refused.

use drystone_format::recipe::{Part, Recipe};
use drystone_format::tree::{AclId, Entry, Kind, Marks, Time, TreeDecoder, append_encoded, is_name};
use drystone_format::{ChunkId, Error};
use proptest::prelude::*;

use crate::fixture::{entries, entry, parts};

fn recipe() -> impl Strategy<Value = Recipe> {
    let chunk = (any::<[u8; 32]>(), 1u64..1 << 40).prop_map(|(id, bytes)| Part::Chunk { id: ChunkId(id), bytes });
    let deep = proptest::collection::vec(chunk.clone(), 0..=32);
    let part = prop_oneof![
        chunk,
        (1u64..1 << 50).prop_map(Part::Zeros),
        (1u64..1 << 50).prop_map(Part::Hole)
    ];
    let flat = proptest::collection::vec(part, 0..=32).prop_map(|parts| (0, parts));
    prop_oneof![flat, (1u8..=6, deep)].prop_map(|(depth, parts)| Recipe {
        size_bytes: parts.iter().map(Part::bytes).sum(),
        depth,
        parts,
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        recipe().prop_map(Kind::File),
        recipe().prop_map(Kind::Dir),
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(Kind::Symlink),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        Just(Kind::Fifo),
        Just(Kind::Socket),
    ]
}

prop_compose! {
    fn any_entry()(
        name in proptest::collection::vec(any::<u8>(), 1..40).prop_filter("a name", |name| is_name(name)),
        kind in kind(),
        (mode, uid, gid) in (0u32..=0o7777, any::<u32>(), any::<u32>()),
        (user, group) in ("[a-zé]{0,6}", "[a-zé]{0,6}"),
        mtime in (any::<i64>(), 0u32..1_000_000_000),
        xattrs in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..20), proptest::collection::vec(any::<u8>(), 0..20)), 0..4),
        hard_link in any::<Option<(u64, u64)>>(),
        marks in 0u64..9,
        acl_names in proptest::collection::vec((any::<bool>(), any::<u32>(), "[a-zé]{0,6}"), 0..4),
        unknown in proptest::collection::btree_map(15u64.., Just(b"\x82\x01\x43abc".to_vec()), 0..3),
    ) -> Entry {
        let mtime = Time { seconds: mtime.0, nanos: mtime.1 };
        let (marks, unknown) = (Marks(marks), unknown.into_iter().collect());
        let acl_id = |is_user, number| if is_user { AclId::User(number) } else { AclId::Group(number) };
        let acl_names = acl_names.into_iter().map(|(is_user, number, name)| (acl_id(is_user, number), name)).collect();
        Entry { name, kind, mode, uid, gid, user, group, mtime, xattrs, hard_link, marks, acl_names, unknown }
    }
}

proptest! {
    #[test]
    fn entries_round_trip(entry in any_entry()) {
        let bytes = entry.encode();
        let decoded = Entry::decode(&bytes).unwrap();
        prop_assert_eq!(decoded.encode(), bytes);
        prop_assert_eq!(decoded, entry);
    }

    #[test]
    fn damaged_entries_never_panic(entry in any_entry(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = entry.encode();
        for length in 0..bytes.len() {
            prop_assert!(Entry::decode(&bytes[..length]).is_err());
        }
        bytes[at.index(entry.encode().len())] = byte;
        if let Ok(decoded) = Entry::decode(&bytes) {
            prop_assert!(is_name(&decoded.name));
            prop_assert_eq!(Entry::decode(&decoded.encode()).unwrap(), decoded);
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Entry::decode(&bytes);
        let mut decoder = TreeDecoder::default();
        decoder.feed(&bytes);
        while let Ok(Some(_)) = decoder.next_entry() {}
    }

    #[test]
    fn streams_come_back_whatever_the_pieces(
        mut entries in proptest::collection::vec(any_entry(), 0..8),
        piece in 1usize..400,
    ) {
        entries.sort_by(|one, two| one.name.cmp(&two.name));
        entries.dedup_by(|one, two| one.name == two.name);
        let mut stream = Vec::new();
        entries.iter().for_each(|entry| append_encoded(&mut stream, &entry.encode()));
        let (mut decoder, mut found) = (TreeDecoder::default(), Vec::new());
        for piece in stream.chunks(piece) {
            decoder.feed(piece);
            while let Some(entry) = decoder.next_entry().unwrap() {
                found.push(entry);
            }
        }
        decoder.finish().unwrap();
        prop_assert_eq!(found, entries);
    }
}

fn stream(names: &[&[u8]]) -> Vec<u8> {
    let mut stream = Vec::new();
    for name in names {
        append_encoded(&mut stream, &entry(name, Kind::Fifo).encode());
    }
    stream
}

/// The first error of a stream, with the number of entries before it.
fn failure(stream: &[u8]) -> (usize, Error) {
    let (mut decoder, mut count) = (TreeDecoder::default(), 0);
    decoder.feed(stream);
    loop {
        match decoder.next_entry() {
            Ok(Some(_)) => count += 1,
            Ok(None) => return (count, decoder.finish().unwrap_err()),
            Err(error) => return (count, error),
        }
    }
}

#[test]
fn names_that_climb_or_cheat_are_refused() {
    let long = [b'x'; 1025];
    let bad: [&[u8]; 9] = [b"", b".", b"..", b"/", b"a/b", b"../x", b"a\0", b"\0", &long];
    for name in bad {
        assert!(!is_name(name));
        assert!(Entry::decode(&entry(name, Kind::Fifo).encode()).is_err(), "{name:?}");
        assert_eq!(failure(&stream(&[b"#", name])).0, 1, "{name:?}");
    }
    let good: [&[u8]; 6] = [b"...", b" ", b"\xff\xfe", b"a\nb", b"-rf", &long[..1024]];
    for name in good {
        assert_eq!(Entry::decode(&entry(name, Kind::Fifo).encode()).unwrap().name, name);
    }
}

#[test]
fn names_ascend_strictly() {
    let bad: [&[&[u8]]; 4] = [&[b"b", b"a"], &[b"a", b"a"], &[b"ab", b"a"], &[b"a", b"c", b"b"]];
    for names in bad {
        let (count, error) = failure(&stream(names));
        assert_eq!(count, names.len() - 1);
        assert!(error.to_string().contains("out of order"), "{error}");
    }
}

#[test]
fn streams_that_end_within_an_entry_are_refused() {
    let whole = stream(&[b"a", b"b"]);
    let first = stream(&[b"a"]).len();
    for length in (1..first).chain(first + 1..whole.len()) {
        assert_eq!(failure(&whole[..length]).0, length / first, "{length}");
    }
}

#[test]
fn entries_of_unknown_type_or_without_their_content_are_refused() {
    for found in entries() {
        let bytes = found.encode();
        let at = 1 + 1 + 1 + usize::from(found.name.len() > 23) + found.name.len() + 1;
        for code in 0..24 {
            let mut changed = bytes.clone();
            changed[at] = code;
            match Entry::decode(&changed) {
                Ok(decoded) => assert!(code <= 6 && decoded.encode()[at] == code),
                Err(error) => assert!(matches!(error, Error::Malformed { .. })),
            }
        }
        let mut changed = bytes;
        changed[at] = 7;
        let error = Entry::decode(&changed).unwrap_err().to_string();
        assert!(error.contains("newer drystone"), "{error}");
    }
}

#[test]
fn recipes_inside_entries_keep_their_rules() {
    let with = |recipe: Recipe| Entry::decode(&entry(b"x", Kind::File(recipe)).encode());
    let size_bytes = parts().iter().map(Part::bytes).sum();
    with(Recipe {
        size_bytes,
        depth: 0,
        parts: parts(),
    })
    .unwrap();
    for (size_bytes, depth, parts) in [
        (size_bytes + 1, 0, parts()),
        (size_bytes, 1, parts()),
        (0, 0, vec![Part::Zeros(0)]),
        (33, 0, vec![Part::Zeros(1); 33]),
        (0, 7, Vec::new()),
        (0, 0, vec![Part::Hole(u64::MAX), Part::Hole(1)]),
    ] {
        assert!(
            with(Recipe {
                size_bytes,
                depth,
                parts
            })
            .is_err()
        );
    }
}
