//! Headers, slots, secrets, roots, notices: round trips, unknown keys, what a credential may do, wrong names.

use drystone_format::chunker::Sizes;
use drystone_format::codec::Codec;
use drystone_format::config::{Config, Features, Removed, Trust};
use drystone_format::header::Header;
use drystone_format::id::object_hash;
use drystone_format::keys::{OpenKey, Role, Secrets, epoch_number};
use drystone_format::limits::{CONFIG_REPLACES_MAX, EPOCHS_MAX, FORMAT_VERSION};
use drystone_format::notice::{
    NoticeKind, notice_version, open_notice, open_notice_up_to, open_verified, seal_notice_as, seal_verified,
    verify_notice,
};
use drystone_format::pack::{Tail, tail_bytes};
use drystone_format::places::{PlaceEntry, PlaceMark};
use drystone_format::root::{NewRoot, RootKind, RootName, open_root, root_name, seal_root, verify_root};
use drystone_format::seal::{PackKind, Suite};
use drystone_format::slot::{Lock, Slot, SlotNote};
use drystone_format::snapshot::{Origin, Snapshot, Totals};
use drystone_format::{Error, PackId, PlaceId, RegistrationId, RootId, SlotId, VaultId};

use crate::fixture::{
    Counting, config, header, header_bytes, new_root, pack, place_mark, sealed_root, secrets, slot, slot_bytes,
    slot_key, slot_note, snapshot, stranger, writer,
};

/// A key of a newer version: 100, with the value `["new", {0: h'ff'}, -1]`.
fn unknown() -> Vec<(u64, Vec<u8>)> {
    vec![(100, b"\x83\x63new\xa1\x00\x41\xff\x20".to_vec())]
}

#[test]
fn headers_round_trip_and_keep_unknown_keys() {
    let vault_key = secrets().vault_key.unwrap();
    let header = Header {
        unknown: unknown(),
        ..self::header()
    };
    assert_eq!(Header::decode(&header.encode(&vault_key).unwrap()).unwrap(), header);
    let forged = self::header().encode(&stranger().vault_key.unwrap()).unwrap();
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
    let root = |by: &Secrets| {
        let (name, object) = sealed_root(by, &snapshot().encode());
        verify_root(&owner, &name, &object).map(drop)
    };
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

#[test]
fn roots_open_for_owners_under_their_own_name_only() {
    let root = |secrets: &Secrets| sealed_root(secrets, &snapshot().encode());
    for by in [secrets(), writer()] {
        let (name, object) = root(&by);
        let opened = open_root(&secrets(), &name, &object).unwrap();
        assert_eq!(
            (opened.payload, opened.certificate),
            (snapshot().encode(), by.certificate)
        );
        assert!(verify_root(&writer(), &name, &object).is_ok());
        let refused = open_root(&writer(), &name, &object);
        assert!(matches!(refused, Err(Error::WriterKey { .. })));
        let hash = RootId([0; 16]);
        let renamed = open_root(&secrets(), &RootName { hash, ..name }, &object);
        assert!(matches!(renamed, Err(Error::Hash { .. })));
        let registration = RegistrationId([0; 16]);
        let others = [
            RootName { registration, ..name },
            RootName { number: 2, ..name },
            RootName {
                kind: RootKind::HEAD,
                ..name
            },
        ];
        for other in others {
            let refused = verify_root(&secrets(), &other, &object);
            assert!(matches!(refused, Err(Error::Authentication { .. })), "{other:?}");
        }
        assert!(matches!(
            open_root(&stranger(), &name, &object),
            Err(Error::Signature { .. })
        ));
        let foreign = open_root(&of_another_vault(), &name, &object);
        assert!(matches!(foreign, Err(Error::Authentication { .. })));
    }
    let mut later = secrets();
    later.advance(&mut Counting::default()).unwrap();
    let (name, object) = root(&later);
    let refused = open_root(&secrets(), &name, &object);
    assert!(matches!(refused, Err(Error::Epoch { epoch, .. }) if epoch_number(epoch) == 1));
    let (name, object) = root(&secrets());
    open_root(&later, &name, &object).unwrap();
}

/// The holder of one writer key cannot sign in the name of a registration of another, whatever its nonce.
#[test]
fn nobody_signs_in_the_name_of_another_registration() {
    let (name, _) = sealed_root(&secrets(), &snapshot().encode());
    let (_, forged) = sealed_root(&writer(), &snapshot().encode());
    let taken = RootName {
        hash: object_hash(&forged),
        ..name
    };
    let refused = verify_root(&secrets(), &taken, &forged);
    assert!(matches!(refused, Err(Error::Authentication { .. })), "{refused:?}");
}

#[test]
fn all_roots_but_the_first_state_the_one_before() {
    for (number, previous, is_right) in [(0, None, true), (1, None, false), (0, Some(RootId([1; 16])), false)] {
        let payload = snapshot().encode();
        let root = NewRoot {
            number,
            previous,
            ..new_root(&payload)
        };
        let object = seal_root(&secrets(), &root, &mut Counting::default()).unwrap();
        let name = root_name(&secrets(), &root, &object);
        assert_eq!(verify_root(&secrets(), &name, &object).is_ok(), is_right, "{number}");
    }
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
        let sealed = seal_root(&secrets(), &new_root(&snapshot.encode()), &mut Counting::default());
        assert!(matches!(sealed, Err(Error::Limit { .. })), "{sealed:?}");
    }
    let huge = Snapshot {
        paths: vec![vec![b'x'; 65_000]; 100],
        ..snapshot()
    };
    let sealed = seal_root(&secrets(), &new_root(&huge.encode()), &mut Counting::default());
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

/// The name that these bytes would have as the example root.
fn renamed(object: &[u8]) -> RootName {
    root_name(&secrets(), &new_root(&[]), object)
}

#[test]
fn objects_do_not_pass_for_each_other() {
    let object = header_bytes();
    assert!(matches!(Slot::decode(&object), Err(Error::Magic { .. })));
    assert!(matches!(open_verified(&secrets(), &object), Err(Error::Magic { .. })));
    assert!(matches!(
        open_root(&secrets(), &renamed(&object), &object),
        Err(Error::Magic { .. })
    ));
    assert!(matches!(Header::decode(&slot_bytes()), Err(Error::Magic { .. })));
    assert!(matches!(
        Slot::verify(&object, &secrets().vault_verify),
        Err(Error::Signature { .. })
    ));
}

fn seal_config(config: &Config, secrets: &Secrets) -> drystone_format::Result<Vec<u8>> {
    config.seal(secrets, &mut Counting::default())
}

#[test]
fn configurations_round_trip_and_keep_unknown_keys() {
    for (trust, spread, places) in [(Trust::Verified, (1, 1), 0), (Trust::Everyone, (10, 255), 3)] {
        let mut one = Config {
            number: u64::MAX,
            trust,
            spread,
            removed: Vec::new(),
            unknown: unknown(),
            ..config()
        };
        one.places.truncate(places);
        let object = seal_config(&one, &secrets()).unwrap();
        assert_eq!(Config::open(&writer(), &object).unwrap(), one);
    }
    assert!(config().lists("snapshot") && !config().lists("blocks"));
    assert!(config().is_after(&RootId([0xd1; 16])) && !config().is_after(&RootId([0xd2; 16])));
}

#[test]
fn a_configuration_counts_only_from_an_owner() {
    let object = seal_config(&config(), &secrets()).unwrap();
    assert!(Config::open(&stranger(), &object).is_err());
    let forged = seal_config(&config(), &writer()).unwrap();
    assert!(matches!(
        Config::open(&secrets(), &forged),
        Err(Error::Signature { .. })
    ));
    // One kind of notice is not taken for another.
    assert!(open_verified(&secrets(), &object).is_err());
    let list = seal_verified(&secrets(), &[], &mut Counting::default()).unwrap();
    assert!(Config::open(&secrets(), &list).is_err());
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    type Spoil = fn(&mut Config);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let bad: [(&str, Spoil); 11] = [
        ("k = 0", |config| config.spread = (0, 3)),
        ("k > n", |config| config.spread = (4, 3)),
        ("twice", |config| config.places.push(config.places[0].clone())),
        ("no place", |config| config.places.clear()),
        ("hashes twice", |config| config.replaces.push(config.replaces[1])),
        ("hashes out of order", |config| config.replaces.reverse()),
        ("kind", |config| config.root_kinds = vec!["Snapshot".to_owned()]),
        ("long kind", |config| config.root_kinds = vec!["a".repeat(16)]),
        ("feature", |config| config.features.collect = vec!["a b".to_owned()]),
        ("features", |config| {
            config.features.write = vec!["b".to_owned(), "a".to_owned()]
        }),
        ("credential twice", |config| {
            config.removed.push(Removed {
                since: 9,
                ..config.removed[0]
            });
        }),
    ];
    for (what, spoil) in bad {
        let mut config = config();
        spoil(&mut config);
        let refused = seal_config(&config, &secrets());
        assert!(matches!(refused, Err(Error::Malformed { .. })), "{what}: {refused:?}");
    }
    let mut many = config();
    many.places = (0..=255u8)
        .map(|number| PlaceEntry {
            id: PlaceId([number; 16]),
            ..config().places[0].clone()
        })
        .collect();
    assert!(matches!(seal_config(&many, &secrets()), Err(Error::Limit { .. })));
    let mut old = config();
    old.replaces = (0..=CONFIG_REPLACES_MAX)
        .map(|number| RootId(u128::from(number).to_be_bytes()))
        .collect();
    assert!(matches!(seal_config(&old, &secrets()), Err(Error::Limit { .. })));
    let mut fine = config();
    fine.features = Features {
        read: words(&["a", "b-2"]),
        ..Features::default()
    };
    fine.root_kinds = words(&["blocks", "snapshot"]);
    seal_config(&fine, &secrets()).unwrap();
}

#[test]
fn a_newer_version_is_called_newer_and_both_can_be_read_by_a_program_that_knows_both() {
    let next = FORMAT_VERSION + 1;
    let seal = |version, secrets: &Secrets| {
        let payload = config().encode().unwrap();
        seal_notice_as(version, secrets, NoticeKind::Config, payload, &mut Counting::default()).unwrap()
    };
    let (old, new) = (seal(FORMAT_VERSION, &secrets()), seal(next, &secrets()));
    for object in [&old, &new] {
        let payload = open_notice_up_to(next, &secrets(), NoticeKind::Config, object).unwrap();
        assert_eq!(Config::decode(&payload).unwrap(), config());
    }
    let refused = open_notice(&secrets(), NoticeKind::Config, &new);
    let newer = Error::Version {
        object: "configuration",
        found: next,
        known: FORMAT_VERSION,
    };
    assert_eq!(refused, Err(newer.clone()));
    assert!(newer.to_string().contains("newer"));
    // Only an owner can claim that: the signature is checked before the version is believed.
    assert_eq!(notice_version(&secrets(), NoticeKind::Config, &new), Ok(next));
    let forged = seal(next, &writer());
    assert!(notice_version(&secrets(), NoticeKind::Config, &forged).is_err());
    // The version byte is bound into the seal: an object of one version is not taken for one of another.
    let mut altered = new.clone();
    altered[7] = FORMAT_VERSION;
    assert!(open_notice(&secrets(), NoticeKind::Config, &altered).is_err());
    // A version 2 of the header is refused by name, too.
    let mut header = header_bytes();
    header[7] = next;
    assert!(matches!(Header::decode(&header), Err(Error::Version { found, .. }) if found == next));
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
