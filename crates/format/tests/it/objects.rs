//! Headers, slots, secrets, roots, notices: round trips, unknown keys, what a credential may do, wrong names.

use drystone_format::chunker::Sizes;
use drystone_format::config::{Config, Features, Removed, Trust};
use drystone_format::header::Header;
use drystone_format::keys::{OpenKey, Role, Secrets};
use drystone_format::limits::{CONFIG_REPLACES_MAX, EPOCHS_MAX, FORMAT_VERSION};
use drystone_format::notice::{
    NoticeKind, notice_version, open_notice, open_notice_up_to, open_verified, seal_notice_as, seal_verified,
};
use drystone_format::places::{PlaceEntry, PlaceMark};
use drystone_format::root::{RootKind, open_root, seal_root};
use drystone_format::slot::{Lock, Slot};
use drystone_format::snapshot::{Origin, Snapshot, Totals};
use drystone_format::{Error, PackId, PlaceId, RootId, SlotId, VaultId};

use crate::fixture::{
    Counting, ROOT, config, header, header_bytes, place_mark, secrets, slot, slot_bytes, slot_key, snapshot, stranger,
    writer,
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
fn slots_round_trip_and_keep_unknown_keys() {
    let vault_key = secrets().vault_key.unwrap();
    for lock in [Lock::Passphrase, Lock::Recovery, Lock::X25519, Lock::Ssh] {
        let slot = Slot {
            lock,
            recipient: String::new(),
            label: "é".repeat(2048),
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
    let long = Slot {
        label: "x".repeat(4097),
        ..slot()
    };
    assert!(matches!(
        long.encode(&vault_key),
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
    other_vault
        .fill(
            &Secrets {
                vault: VaultId([1; 16]),
                ..secrets()
            },
            &mut Counting::default(),
        )
        .unwrap();
    assert!(refused(other_vault));
    let mut held = slot();
    held.fill(&writer(), &mut Counting::default()).unwrap();
    assert_eq!(
        (held.role, held.open(&slot_key()).unwrap().role()),
        (Role::Writer, Role::Writer)
    );
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
        let other_vault = Secrets {
            vault: VaultId([1; 16]),
            ..secrets()
        };
        let foreign = open_root(&other_vault, RootKind::Snapshot, &ROOT, &object);
        assert!(matches!(foreign, Err(Error::Authentication { .. })));
    }
    let mut later = secrets();
    later.advance(&mut Counting::default()).unwrap();
    let refused = open_root(&secrets(), RootKind::Snapshot, &ROOT, &root(&later));
    assert!(matches!(refused, Err(Error::Epoch { epoch: 1, .. })));
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
