//! Ledgers are owners' words: they round trip, are bounded whatever they claim, and keep times from writers.

use std::collections::{BTreeMap, BTreeSet};

use drystone_format::ledger::{
    Bounds, FirstSeen, InForce, KindWord, Ledger, Live, Numbered, OpenedLedger, Sightings, open_ledger, seal_ledger,
};
use drystone_format::limits::LEDGER_MAX_BYTES;
use drystone_format::notice::{NoticeKind, seal_notice};
use drystone_format::tree::Time;
use drystone_format::{Error, RegistrationId, RootId};
use proptest::prelude::*;

use crate::fixture::{Counting, secrets, stranger, unhex, writer};

fn root(registration: u8, number: u64, hash: u8) -> Numbered {
    Numbered {
        registration: RegistrationId([registration; 16]),
        number,
        hash: RootId([hash; 16]),
    }
}

fn live(word: &str, first: u64) -> Live {
    Live {
        kind: KindWord::new(word).unwrap(),
        first,
    }
}

/// Says something of every kind.
pub(crate) fn ledger() -> Ledger {
    let registration = |byte| RegistrationId([byte; 16]);
    Ledger {
        number: 7,
        predecessors: [(5, RootId([5; 16])), (6, RootId([6; 16]))].into(),
        live: [
            (root(1, 4, 1), live("snapshot", 6)),
            (root(1, 9, 2), live("head", 7)),
            (root(2, 0, 3), live("snapshot", 7)),
        ]
        .into(),
        forgotten: [root(1, 8, 4), root(1, 8, 5), root(3, 0, 6)].into(),
        bounds: [
            (registration(1), Bounds { floor: 8, end: None }),
            (registration(4), Bounds { floor: 0, end: Some(0) }),
        ]
        .into(),
        dead: [registration(5), registration(6)].into(),
        configuration: InForce {
            heads: [(3, RootId([7; 16]))].into(),
            superseded: [(2, RootId([8; 16]))].into(),
        },
        runs: InForce {
            heads: [root(2, 1, 9)].into(),
            superseded: [root(2, 2, 10)].into(),
        },
    }
}

pub(crate) fn sightings(ledger: &Ledger) -> Sightings {
    let seen = |(at, root): (i64, &Numbered)| {
        let not_at = Some(at - 86_400).filter(|_| at % 2 == 0);
        (*root, FirstSeen { not_at, at })
    };
    Sightings {
        time: Time {
            seconds: 1_700_000_000,
            nanos: 5,
        },
        seen: (1_600_000_000..).zip(ledger.live.keys()).map(seen).collect(),
    }
}

fn sealed(ledger: &Ledger) -> Vec<u8> {
    seal_ledger(&secrets(), ledger, &sightings(ledger), &mut Counting::default()).unwrap()
}

#[test]
fn ledgers_are_an_owners_word_for_everybody_and_times_for_readers() {
    let object = sealed(&ledger());
    let open = |secrets| open_ledger(&secrets, &object);
    let opened = open(secrets()).unwrap();
    assert_eq!(opened.ledger, ledger());
    assert_eq!(opened.sightings(&secrets()).unwrap(), sightings(&ledger()));
    let by_writer = open(writer()).unwrap();
    assert_eq!(by_writer.ledger, ledger());
    assert!(matches!(by_writer.sightings(&writer()), Err(Error::WriterKey { .. })));
    assert!(matches!(open(stranger()), Err(Error::Signature { .. })));
    let forged = seal_ledger(&writer(), &ledger(), &Sightings::default(), &mut Counting::default()).unwrap();
    assert!(matches!(open_ledger(&secrets(), &forged), Err(Error::Signature { .. })));
    for length in 0..object.len() {
        assert!(open_ledger(&secrets(), &object[..length]).is_err(), "{length}");
    }
}

#[test]
fn what_is_said_twice_or_taken_back_is_left_out() {
    let mut told = ledger();
    // Forgotten already: by a floor, by an end, by a death, and live all the same.
    let twice = [root(1, 3, 7), root(4, 1, 1), root(5, 0, 1), root(2, 0, 3)];
    told.forgotten.extend(twice);
    told.live.insert(root(6, 0, 0), live("snapshot", 1));
    let opened = open_ledger(&secrets(), &sealed(&told)).unwrap().ledger;
    let mut expected = ledger();
    expected.live.remove(&root(2, 0, 3));
    expected.forgotten.insert(root(2, 0, 3));
    assert_eq!(opened, expected);
    assert!(twice.iter().all(|root| opened.forgets(root)));
}

#[test]
fn forgotten_are_the_named_and_the_ranges_and_nothing_else() {
    let ledger = ledger();
    let forgotten = [
        root(1, 0, 9),
        root(1, 4, 9),
        root(1, 7, 1),
        root(1, 8, 4),
        root(4, 0, 1),
        root(4, u64::MAX, 1),
        root(5, 77, 1),
    ];
    assert!(forgotten.iter().all(|root| ledger.forgets(root)));
    let alive = [
        root(1, 4, 1),
        root(1, 8, 6),
        root(1, 9, 9),
        root(2, 5, 5),
        root(9, 0, 0),
    ];
    assert!(!alive.iter().any(|root| ledger.forgets(root)));
}

fn forged(payload: &str) -> Result<OpenedLedger, Error> {
    let payload = unhex(payload);
    let object = seal_notice(&secrets(), NoticeKind::Ledger, payload, &mut Counting::default()).unwrap();
    open_ledger(&secrets(), &object)
}

#[test]
fn ledgers_are_read_with_limits_and_in_order() {
    let id = |byte: &str| format!("50 {}", byte.repeat(16));
    // Number, then what is tried, then key epoch and sealed part.
    let with = |inner: &str| format!("a4 00 01 {inner} 07 00 08 40");
    assert_eq!(forged("a3 00 01 07 00 08 40").unwrap().ledger.number, 1);
    assert!(forged(&with(&format!("03 81 84 {} 00 80 82 00 {}", id("01"), id("02")))).is_ok());
    assert!(
        forged("a4 00 01 07 00 08 40 18 63 80").is_ok(),
        "a key of a later format"
    );
    for bad in [
        "a2 07 00 08 40".to_owned(),
        with(&format!("01 84 02 {} 01 {}", id("01"), id("01"))),
        with(&format!("01 83 02 {} 01", id("01"))),
        with("02 81 61 41"),
        with("02 82 61 62 61 61"),
        with("03 9b ffffffffffffffff"),
        with(&format!("03 81 84 {} 00 80 80", id("01"))),
        with(&format!("03 81 84 {} 00 84 00 {} 00 00 80", id("01"), id("02"))),
        with(&format!(
            "03 81 84 {} 00 80 84 01 {} 00 {}",
            id("01"),
            id("02"),
            id("02")
        )),
        with(&format!("03 82 84 {0} 01 80 80 84 {0} 01 80 80", id("01"))),
        with("04 41 00"),
        with(&format!("04 5820 {}{}", "02".repeat(16), "01".repeat(16))),
        with("05 81 80"),
        with("06 82 81 00 80"),
    ] {
        assert!(forged(&bad).is_err(), "{bad}");
    }
}

/// A registration for each root, as a backup that runs once has it, or one for all.
fn many(roots: u64, registrations: u64) -> Ledger {
    let id = |number: u64| -> [u8; 16] {
        let word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        [word, word].concat().try_into().unwrap()
    };
    let numbered = |number: u64| Numbered {
        registration: RegistrationId(id(number % registrations)),
        number: number / registrations,
        hash: RootId(id(number)),
    };
    let live_count = roots / 50;
    Ledger {
        number: 1,
        live: (0..live_count)
            .map(|number| (numbered(number), live("snapshot", 1)))
            .collect(),
        forgotten: (live_count..roots + live_count).map(numbered).collect(),
        ..Ledger::default()
    }
}

#[test]
fn a_million_forgotten_roots_fit() {
    for (roots, registrations) in [(250_000, u64::MAX), (250_000, 100), (1_000_000, u64::MAX)] {
        let ledger = many(roots, registrations);
        let start = std::time::Instant::now();
        let object = seal_ledger(&secrets(), &ledger, &Sightings::default(), &mut Counting::default()).unwrap();
        let sealed = start.elapsed();
        let opened = open_ledger(&secrets(), &object).unwrap();
        let each = object.len() / ledger.forgotten.len();
        println!(
            "{roots} of {registrations}: {} bytes, sealed in {sealed:?}, read in {:?}",
            object.len(),
            start.elapsed() - sealed
        );
        assert!(opened.ledger == ledger);
        assert!(object.len() < LEDGER_MAX_BYTES * 3 / 4);
        assert!(
            each <= if registrations == 100 { 22 } else { 42 },
            "{each} bytes a root"
        );
    }
    let dead = Ledger {
        dead: many(1_000_000, u64::MAX)
            .forgotten
            .into_iter()
            .map(|root| root.registration)
            .collect(),
        ..Ledger::default()
    };
    assert!(sealed(&dead).len() < 16_001_000);
}

fn numbered() -> impl Strategy<Value = Numbered> {
    (0..4_u8, prop_oneof![0..20_u64, any::<u64>()], 0..4_u8)
        .prop_map(|(registration, number, hash)| root(registration, number, hash))
}

fn any_ledger() -> impl Strategy<Value = Ledger> {
    let words = proptest::sample::select(vec!["snapshot", "head", "blocks", "abcdefghijklmno"]);
    let live = proptest::collection::btree_map(numbered(), (words, any::<u64>()), 0..20);
    let forgotten = proptest::collection::btree_set(numbered(), 0..20);
    let bounds = proptest::collection::btree_map(0..6_u8, (0..20_u64, proptest::option::of(0..20_u64)), 0..3);
    let names = || proptest::collection::btree_set((any::<u64>(), any::<[u8; 16]>()), 0..5);
    let dead = proptest::collection::btree_set(0..9_u8, 0..2);
    (any::<u64>(), live, forgotten, bounds, names(), dead).prop_map(
        |(number, roots, forgotten, bounds, names, dead)| {
            let names: BTreeSet<(u64, RootId)> = names.into_iter().map(|(n, hash)| (n, RootId(hash))).collect();
            let mut ledger = Ledger {
                number,
                live: roots
                    .into_iter()
                    .map(|(root, (word, first))| (root, live_of(word, first)))
                    .collect(),
                forgotten,
                bounds: bounds
                    .into_iter()
                    .map(|(id, (floor, end))| (RegistrationId([id; 16]), Bounds { floor, end }))
                    .collect(),
                dead: dead.into_iter().map(|id| RegistrationId([id; 16])).collect(),
                predecessors: names.clone(),
                configuration: InForce {
                    heads: names,
                    superseded: BTreeSet::new(),
                },
                runs: InForce::default(),
            };
            ledger.normalise();
            ledger
        },
    )
}

fn live_of(word: &str, first: u64) -> Live {
    live(word, first)
}

proptest! {
    #[test]
    fn ledgers_round_trip(ledger in any_ledger(), times in proptest::collection::vec((any::<i64>(), any::<u32>()), 20)) {
        let seen = |((at, before), root): (&(i64, u32), &Numbered)| {
            let not_at = at.checked_sub(i64::from(*before)).filter(|_| before % 3 > 0);
            (*root, FirstSeen { not_at, at: *at })
        };
        let seen: BTreeMap<Numbered, FirstSeen> = times.iter().zip(ledger.live.keys()).map(seen).collect();
        let sightings = Sightings { time: Time { seconds: 5, nanos: 6 }, seen };
        let object = seal_ledger(&secrets(), &ledger, &sightings, &mut Counting::default()).unwrap();
        let opened = open_ledger(&secrets(), &object).unwrap();
        prop_assert_eq!(&opened.ledger, &ledger);
        prop_assert_eq!(opened.sightings(&secrets()).unwrap(), sightings);
        let again = seal_ledger(&secrets(), &opened.ledger, &opened.sightings(&secrets()).unwrap(), &mut Counting::default());
        prop_assert_eq!(again.unwrap(), object);
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let object = [b"DRYLEDG\x01".as_slice(), &bytes].concat();
        let _ = (open_ledger(&secrets(), &bytes), open_ledger(&secrets(), &object));
        let object = seal_notice(&secrets(), NoticeKind::Ledger, bytes, &mut Counting::default()).unwrap();
        let _ = open_ledger(&secrets(), &object);
    }

    #[test]
    fn a_changed_byte_of_the_sealed_part_is_noticed(at in 0..200_usize, ledger in any_ledger()) {
        let mut object = seal_ledger(&secrets(), &ledger, &sightings(&ledger), &mut Counting::default()).unwrap();
        let at = at % object.len();
        object[at] ^= 1;
        prop_assert!(open_ledger(&secrets(), &object).is_err());
    }
}
