//! Headers, slots, secrets, roots, notices: round trips, unknown keys, what a credential may do, wrong names.

use drystone_format::chunker::Sizes;
use drystone_format::codec::Codec;
use drystone_format::header::{Header, Trust};
use drystone_format::keys::{OpenKey, Role, Secrets, epoch_number};
use drystone_format::limits::EPOCHS_MAX;
use drystone_format::notice::{NoticeKind, open_verified, seal_verified, verify_notice};
use drystone_format::pack::{Tail, tail_bytes};
use drystone_format::places::{PlaceEntry, PlaceMark, Places};
use drystone_format::root::{RootKind, open_root, seal_root, verify_root};
use drystone_format::seal::{PackKind, Suite};
use drystone_format::slot::{Lock, Slot, SlotNote};
use drystone_format::snapshot::{Origin, Snapshot, Totals};
use drystone_format::{Error, PackId, PlaceId, RootId, SlotId, VaultId};

use crate::fixture::{
    Counting, ROOT, header, header_bytes, pack, place_mark, places, secrets, slot, slot_bytes, slot_key, slot_note,
    snapshot, stranger, writer,
};

/// A key of a newer version: 100, with the value `["new", {0: h'ff'}, -1]`.
fn unknown() -> Vec<(u64, Vec<u8>)> {
    vec![(100, b"\x83\x63new\xa1\x00\x41\xff\x20".to_vec())]
}

#[test]
fn headers_round_trip_and_keep_unknown_keys() {
    let vault_key = secrets().vault_key.unwrap();
    for (trust, spread) in [(Trust::Verified, (1, 1)), (Trust::Everyone, (10, 255))] {
        let header = Header {
            trust,
            spread,
            generation: u64::MAX,
            unknown: unknown(),
            ..header()
        };
        assert_eq!(Header::decode(&header.encode(&vault_key).unwrap()).unwrap(), header);
    }
    let forged = header().encode(&stranger().vault_key.unwrap()).unwrap();
    assert!(matches!(Header::decode(&forged), Err(Error::Signature { .. })));
}

#[test]
fn chunk_sizes_out_of_range_are_refused() {
    for (min, max) in [
        (63, 100),
        (64, 64),
        (100, 99),
        (64, (1 << 20) + 1),
        (0, 0),
        (u32::MAX, u32::MAX),
    ] {
        assert!(Sizes::new(min, max).is_err(), "{min} to {max}");
    }
    Sizes::new(64, 1 << 20).unwrap();
}

#[test]
fn secrets_round_trip() {
    let mut owner = secrets();
    for epochs in 1..4 {
        let read = Secrets::decode(&owner.encode()).unwrap();
        assert_eq!(
            (read.encode(), read.role(), read.epochs.len()),
            (owner.encode(), Role::Owner, epochs)
        );
        owner.advance(&mut Counting::default()).unwrap();
    }
    let read = Secrets::decode(&writer().encode()).unwrap();
    assert_eq!((read.encode(), read.role()), (writer().encode(), Role::Writer));
    assert!(read.vault_key.is_none() && read.epochs.iter().all(|epoch| epoch.open_key.is_none()));
    for secrets in [secrets(), writer()] {
        let bytes = secrets.encode();
        for length in 0..bytes.len() {
            assert!(Secrets::decode(&bytes[..length]).is_err());
        }
    }
    assert!(
        !format!("{:?}", secrets()).contains("[0, 1, 2"),
        "secrets show in debug output"
    );
}

#[test]
fn epochs_ascend_and_have_a_limit() {
    let mut secrets = secrets();
    for _ in 1..EPOCHS_MAX {
        secrets.advance(&mut Counting::default()).unwrap();
    }
    assert!(matches!(
        secrets.advance(&mut Counting::default()),
        Err(Error::Limit { .. })
    ));
    // All of them fit into a slot.
    let mut slot = slot();
    slot.fill(&secrets, &mut Counting::default()).unwrap();
    let object = slot.encode(secrets.vault_key.as_ref().unwrap()).unwrap();
    assert_eq!(
        Slot::decode(&object).unwrap().open(&slot_key()).unwrap().epochs.len() as u64,
        EPOCHS_MAX
    );

    secrets.epochs.swap(0, 1);
    assert!(matches!(
        Secrets::decode(&secrets.encode()),
        Err(Error::Malformed { .. })
    ));
    secrets.epochs.clear();
    assert!(matches!(
        Secrets::decode(&secrets.encode()),
        Err(Error::Malformed { .. })
    ));
}

#[test]
fn only_owners_make_keys_and_epochs() {
    let mut writer = writer();
    assert!(matches!(
        writer.delegate(&mut Counting::default(), Role::Writer),
        Err(Error::WriterKey { .. })
    ));
    assert!(matches!(
        writer.advance(&mut Counting::default()),
        Err(Error::WriterKey { .. })
    ));
    let owner = secrets().delegate(&mut Counting::default(), Role::Owner).unwrap();
    assert_eq!(owner.role(), Role::Owner);
    owner
        .certificate
        .verify("test", &secrets().vault, &secrets().vault_verify)
        .unwrap();
    assert!(
        owner
            .certificate
            .verify("test", &VaultId([0; 16]), &secrets().vault_verify)
            .is_err()
    );
    assert!(
        owner
            .certificate
            .verify("test", &secrets().vault, &stranger().vault_verify)
            .is_err()
    );
}

#[test]
fn every_role_knows_what_it_needs_and_nothing_else() {
    for role in Role::ALL {
        let made = secrets().delegate(&mut Counting(0x30), role).unwrap();
        let read = Secrets::decode(&made.encode()).unwrap();
        assert_eq!((read.role(), read.encode()), (role, made.encode()));
        assert_eq!(read.vault_key.is_some(), role == Role::Owner, "{role:?}");
        assert_eq!(read.epochs[0].open_key.is_some(), role != Role::Writer, "{role:?}");
        assert_eq!(
            read.open_key("test", read.epochs[0].number).is_ok(),
            role != Role::Writer
        );
        // A slot that claims another role than its credential has opens nothing.
        let mut held = slot();
        held.fill(&made, &mut Counting::default()).unwrap();
        assert_eq!(held.open(&slot_key()).unwrap().role(), role);
        for other in Role::ALL.into_iter().filter(|other| *other != role) {
            held.role = other;
            assert!(held.open(&slot_key()).is_err(), "{role:?} as {other:?}");
            let mut posing = made.clone();
            posing.certificate.role = other;
            let encoded = posing.encode();
            let checked = |read: Secrets| read.certificate.verify("test", &read.vault, &read.vault_verify);
            assert!(
                Secrets::decode(&encoded).and_then(checked).is_err(),
                "{role:?} as {other:?}"
            );
        }
        if role != Role::Owner {
            assert!(made.delegate(&mut Counting::default(), role).is_err());
            assert!(made.clone().advance(&mut Counting::default()).is_err());
        }
    }
}

#[test]
fn what_a_reader_signs_counts_for_nobody() {
    let (owner, reader) = (
        secrets(),
        secrets().delegate(&mut Counting(0x30), Role::Reader).unwrap(),
    );
    let member = secrets().delegate(&mut Counting(0x30), Role::Member).unwrap();
    let root = |by: &Secrets| verify_root(&owner, RootKind::Snapshot, &ROOT, &root(by)).map(drop);
    root(&member).unwrap();
    assert!(matches!(root(&reader), Err(Error::Signature { .. })));
    let packed = |by: &Secrets| {
        let pack = pack(by, PackKind::Data, Suite::Aes256Gcm, Codec::None, &[&[b"x"]]);
        let start = pack.bytes.len() - tail_bytes(&pack.bytes, pack.bytes.len() as u64).unwrap();
        Tail::open(&pack.bytes[start..], pack.bytes.len() as u64, &owner).map(drop)
    };
    packed(&member).unwrap();
    assert!(matches!(packed(&reader), Err(Error::Signature { .. })));
    for (by, counts) in [(&owner, true), (&member, false), (&reader, false), (&writer(), false)] {
        let list = seal_verified(by, &[PackId([1; 32])], &mut Counting::default()).unwrap();
        assert_eq!(open_verified(&owner, &list).is_ok(), counts);
        assert_eq!(verify_notice(&owner, NoticeKind::Verified, &list).is_ok(), counts);
    }
}

#[test]
fn epochs_learned_later_unite_and_the_highest_is_written_in() {
    let (mut one, mut other) = (secrets(), secrets());
    one.advance(&mut Counting(1)).unwrap();
    other.advance(&mut Counting(2)).unwrap();
    let [left, right] = [&one, &other].map(|secrets| secrets.current().unwrap());
    assert!(epoch_number(left.number) == 1 && epoch_number(right.number) == 1 && left.number < right.number);
    let shared = one.clone();
    one.learn(other.all_epochs());
    for secrets in [&one, &shared] {
        assert_eq!(secrets.all_epochs().len(), 3);
        assert_eq!(secrets.current().unwrap().number, right.number);
    }
    // What is made from them knows both sides.
    let made = one.delegate(&mut Counting(0x30), Role::Member).unwrap();
    assert_eq!(Secrets::decode(&made.encode()).unwrap().epochs.len(), 3);
    one.advance(&mut Counting::default()).unwrap();
    assert_eq!(epoch_number(one.current().unwrap().number), 2);
}

#[test]
fn a_renewed_slot_keeps_its_credential() {
    let mut held = slot();
    held.fill(&writer(), &mut Counting::default()).unwrap();
    let mut owner = secrets();
    owner.advance(&mut Counting(9)).unwrap();
    held.id = SlotId([0xcc; 16]);
    held.renew(&owner, &mut Counting::default()).unwrap();
    let renewed = held.open(&slot_key()).unwrap();
    assert_eq!(renewed.certificate, writer().certificate);
    assert_eq!((renewed.role(), renewed.epochs.len()), (Role::Writer, 2));
    assert!(renewed.vault_key.is_none() && renewed.epochs.iter().all(|epoch| epoch.open_key.is_none()));
}

#[test]
fn slots_round_trip_and_keep_unknown_keys() {
    let vault_key = secrets().vault_key.unwrap();
    for lock in [Lock::Passphrase, Lock::Recovery, Lock::X25519, Lock::Ssh] {
        let slot = Slot {
            lock,
            unknown: unknown(),
            ..slot()
        };
        let object = slot.encode(&vault_key).unwrap();
        assert_eq!(Slot::decode(&object).unwrap(), slot);
        Slot::verify(&object, &secrets().vault_verify).unwrap();
        assert!(matches!(
            Slot::verify(&object, &stranger().vault_verify),
            Err(Error::Signature { .. })
        ));
    }
    assert_eq!(
        Header::decode(&Slot::decode(&slot_bytes()).unwrap().header).unwrap(),
        header()
    );
}

#[test]
fn a_slot_that_could_not_be_read_is_not_written() {
    let vault_key = secrets().vault_key.unwrap();
    let long = SlotNote {
        label: "x".repeat(4097),
        ..slot_note()
    };
    assert!(matches!(
        slot().set_note(&secrets(), &long, &mut Counting::default()),
        Err(Error::Limit { what: "label", .. })
    ));
    let large = Slot {
        header: vec![0; 300_000],
        ..slot()
    };
    assert!(matches!(
        large.encode(&vault_key),
        Err(Error::Limit { what: "header", .. })
    ));
}

#[test]
fn what_a_slot_holds_belongs_to_that_slot() {
    let refused = |slot: Slot| matches!(slot.open(&slot_key()), Err(Error::Authentication { .. }));
    assert!(refused(Slot {
        id: SlotId([0; 16]),
        ..slot()
    }));
    assert!(refused(Slot {
        vault: VaultId([0; 16]),
        ..slot()
    }));
    assert!(refused(Slot {
        slot_key: secrets().epochs[0].seal_key,
        ..slot()
    }));
    assert!(matches!(
        slot().open(&OpenKey::from_bytes([9; 32])),
        Err(Error::Authentication { .. })
    ));
    let mut other_vault = slot();
    other_vault.fill(&of_another_vault(), &mut Counting::default()).unwrap();
    assert!(refused(other_vault));
    let mut held = slot();
    held.fill(&writer(), &mut Counting::default()).unwrap();
    assert_eq!(
        (held.role, held.open(&slot_key()).unwrap().role()),
        (Role::Writer, Role::Writer)
    );
}

/// The secrets of the fixture under another vault's id.
fn of_another_vault() -> Secrets {
    let mut other = secrets();
    other.vault = VaultId([1; 16]);
    other
}

fn root(secrets: &Secrets) -> Vec<u8> {
    seal_root(
        secrets,
        RootKind::Snapshot,
        &ROOT,
        &snapshot().encode(),
        &mut Counting::default(),
    )
    .unwrap()
}

#[test]
fn roots_open_for_owners_under_their_own_name_only() {
    for (object, by) in [(root(&secrets()), secrets()), (root(&writer()), writer())] {
        let opened = open_root(&secrets(), RootKind::Snapshot, &ROOT, &object).unwrap();
        assert_eq!(
            (opened.payload, opened.certificate),
            (snapshot().encode(), by.certificate)
        );
        let refused = open_root(&writer(), RootKind::Snapshot, &ROOT, &object);
        assert!(matches!(refused, Err(Error::WriterKey { .. })));
        let renamed = open_root(&secrets(), RootKind::Snapshot, &RootId([0; 16]), &object);
        assert!(matches!(renamed, Err(Error::Authentication { .. })));
        assert!(matches!(
            open_root(&stranger(), RootKind::Snapshot, &ROOT, &object),
            Err(Error::Signature { .. })
        ));
        let other_vault = of_another_vault();
        let foreign = open_root(&other_vault, RootKind::Snapshot, &ROOT, &object);
        assert!(matches!(foreign, Err(Error::Authentication { .. })));
    }
    let mut later = secrets();
    later.advance(&mut Counting::default()).unwrap();
    let refused = open_root(&secrets(), RootKind::Snapshot, &ROOT, &root(&later));
    assert!(matches!(refused, Err(Error::Epoch { epoch, .. }) if epoch_number(epoch) == 1));
    open_root(&later, RootKind::Snapshot, &ROOT, &root(&secrets())).unwrap();
}

#[test]
fn snapshots_round_trip_and_keep_unknown_keys() {
    let smallest = Snapshot {
        host: String::new(),
        paths: Vec::new(),
        tags: Vec::new(),
        parent: None,
        totals: Totals::default(),
        ..snapshot()
    };
    for snapshot in [
        smallest,
        Snapshot {
            paths: vec![b"/\xff".to_vec(); 4096],
            unknown: unknown(),
            ..snapshot()
        },
        Snapshot {
            origin: Some(Origin {
                vault: VaultId([7; 16]),
                snapshot: RootId([8; 16]),
                lost: 300,
            }),
            unknown: unknown(),
            ..snapshot()
        },
    ] {
        assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap(), snapshot);
    }
    let bytes = snapshot().encode();
    for length in 0..bytes.len() {
        assert!(Snapshot::decode(&bytes[..length]).is_err());
    }
}

#[test]
fn a_snapshot_that_could_not_be_read_is_not_sealed() {
    for snapshot in [
        Snapshot {
            tags: vec!["x".repeat(4097)],
            ..snapshot()
        },
        Snapshot {
            tags: vec![String::new(); 4097],
            ..snapshot()
        },
        Snapshot {
            host: "x".repeat(4097),
            ..snapshot()
        },
        Snapshot {
            paths: vec![vec![b'x'; 65_537]],
            ..snapshot()
        },
    ] {
        let sealed = seal_root(
            &secrets(),
            RootKind::Snapshot,
            &ROOT,
            &snapshot.encode(),
            &mut Counting::default(),
        );
        assert!(matches!(sealed, Err(Error::Limit { .. })), "{sealed:?}");
    }
    let huge = Snapshot {
        paths: vec![vec![b'x'; 65_000]; 100],
        ..snapshot()
    };
    let sealed = seal_root(
        &secrets(),
        RootKind::Snapshot,
        &ROOT,
        &huge.encode(),
        &mut Counting::default(),
    );
    assert!(matches!(sealed, Err(Error::Limit { .. })));
}

#[test]
fn lists_are_an_owners_word_for_everybody() {
    let packs = [PackId([1; 32]), PackId([2; 32])];
    for count in 0..=packs.len() {
        let object = seal_verified(&secrets(), &packs[..count], &mut Counting::default()).unwrap();
        for reader in [secrets(), writer()] {
            assert_eq!(open_verified(&reader, &object).unwrap(), packs[..count]);
        }
        assert!(matches!(
            open_verified(&stranger(), &object),
            Err(Error::Signature { .. })
        ));
    }
    let by_writer = seal_verified(&writer(), &packs, &mut Counting::default()).unwrap();
    assert!(matches!(
        open_verified(&secrets(), &by_writer),
        Err(Error::Signature { .. })
    ));
    let too_many = vec![PackId([0; 32]); 130_000];
    assert!(matches!(
        seal_verified(&secrets(), &too_many, &mut Counting::default()),
        Err(Error::Limit { .. })
    ));
}

#[test]
fn objects_do_not_pass_for_each_other() {
    let object = header_bytes();
    assert!(matches!(Slot::decode(&object), Err(Error::Magic { .. })));
    assert!(matches!(open_verified(&secrets(), &object), Err(Error::Magic { .. })));
    assert!(matches!(
        open_root(&secrets(), RootKind::Snapshot, &ROOT, &object),
        Err(Error::Magic { .. })
    ));
    assert!(matches!(Header::decode(&slot_bytes()), Err(Error::Magic { .. })));
    assert!(matches!(
        Slot::verify(&object, &secrets().vault_verify),
        Err(Error::Signature { .. })
    ));
}

#[test]
fn a_list_of_places_counts_only_from_an_owner_and_only_if_it_makes_sense() {
    let seal = |places: &Places, secrets: &Secrets| places.seal(secrets, &mut Counting::default());
    let object = seal(&places(), &secrets()).unwrap();
    assert_eq!(Places::open(&writer(), &object).unwrap(), places());
    assert!(Places::open(&stranger(), &object).is_err());
    let forged = seal(&places(), &writer()).unwrap();
    assert!(matches!(
        Places::open(&secrets(), &forged),
        Err(Error::Signature { .. })
    ));
    // One kind of notice is not taken for another.
    assert!(open_verified(&secrets(), &object).is_err());
    for (needed, total, twice, none) in [
        (0, 3, false, false),
        (4, 3, false, false),
        (2, 3, true, false),
        (1, 1, false, true),
    ] {
        let mut bad = Places {
            needed,
            total,
            ..places()
        };
        if twice {
            bad.places.push(places().places[0].clone());
        }
        if none {
            bad.places.clear();
        }
        assert!(
            matches!(seal(&bad, &secrets()), Err(Error::Malformed { .. })),
            "{needed}/{total}"
        );
    }
    let mut many = places();
    many.places = (0..=255u8)
        .map(|number| PlaceEntry {
            id: PlaceId([number; 16]),
            ..places().places[0].clone()
        })
        .collect();
    assert!(matches!(seal(&many, &secrets()), Err(Error::Limit { .. })));
}

#[test]
fn a_place_says_which_it_is_in_the_word_of_its_vault() {
    let (owner, other) = (secrets(), stranger());
    let object = place_mark().encode(owner.vault_key.as_ref().unwrap()).unwrap();
    assert_eq!(PlaceMark::decode(&object, &owner.vault_verify).unwrap(), place_mark());
    assert!(PlaceMark::decode(&object, &other.vault_verify).is_err());
    for at in 0..object.len() {
        let mut bad = object.clone();
        bad[at] ^= 1;
        assert!(PlaceMark::decode(&bad, &owner.vault_verify).is_err(), "byte {at}");
    }
}
