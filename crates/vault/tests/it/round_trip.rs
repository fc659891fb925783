//! What goes in comes out, once, and only to who may read it.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use drystone_format::keys::Role;
use drystone_store::Memory;
use drystone_vault::{CheckOptions, Error, NewEpoch, NewLock, NewSlot, Unlock};

use crate::support::{Fixture, add_key, back_up, files, noise};

#[test]
fn files_come_back_and_are_stored_once() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let big = noise(1, 3 << 20);
    let zeros = vec![0; 100_000];
    let input: [(&str, &[u8]); 4] = [("a", b"hello"), ("big", &big), ("empty", b""), ("zeros", &zeros)];
    let vault = fixture.create(store.clone()).unwrap();
    let (id, first) = back_up(&vault, &input).unwrap();
    assert!(first.new_bytes as usize >= big.len() && (first.new_bytes as usize) < big.len() + 50_000);
    let (_, second) = back_up(&vault, &input).unwrap();
    assert_eq!((second.new_chunks, second.packs), (0, 0));

    let vault = fixture.open(store).unwrap();
    for (name, bytes) in files(&vault, &id).unwrap() {
        assert!(
            input.iter().any(|(known, content)| *known == name && *content == bytes),
            "{name}"
        );
    }
    let report = vault.check(&CheckOptions::default()).unwrap();
    assert_eq!((report.problems.count(), report.snapshots, report.entries), (0, 2, 4));
}

#[test]
fn an_index_that_is_lost_comes_back_from_the_packs() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let big = noise(2, 1 << 20);
    let (id, _) = back_up(&vault, &[("big", &big)]).unwrap();
    let other = Fixture {
        cache: tempfile::tempdir().unwrap(),
        ..fixture
    };
    let vault = other.open(store).unwrap();
    assert_eq!(files(&vault, &id).unwrap()[0].1, big);
    assert_eq!(back_up(&vault, &[("big", &big)]).unwrap().1.new_chunks, 0);
}

#[test]
fn a_writer_stores_and_deduplicates_but_cannot_read() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let big = noise(3, 1 << 20);
    let (first, _) = back_up(&vault, &[("big", &big)]).unwrap();
    let writer = Fixture::new();
    let lock = NewLock::Recipient(writer.recipient.clone());
    vault
        .add_key(&NewSlot {
            lock,
            label: "writer".to_owned(),
            role: Role::Writer,
        })
        .unwrap();

    let writing = writer.open(store.clone()).unwrap();
    assert_eq!(writing.role(), Role::Writer);
    let (second, finished) = back_up(&writing, &[("big", &big), ("more", b"new")]).unwrap();
    assert!(finished.new_bytes < 2000, "{finished:?}");
    let is_refused = |error: Error| matches!(error, Error::Format(drystone_format::Error::WriterKey { .. }));
    for id in [first, second] {
        assert!(is_refused(writing.snapshot(&id).unwrap_err()));
    }
    let tree = vault.snapshot(&second).unwrap().tree;
    let mut bytes = Vec::new();
    let error = writing
        .reader()
        .unwrap()
        .content(&tree)
        .read_to_end(&mut bytes)
        .unwrap_err();
    assert!(error.to_string().contains("writer key"), "{error}");
    assert!(
        writing
            .add_key(&NewSlot {
                lock: NewLock::Recipient(writer.recipient.clone()),
                label: String::new(),
                role: Role::Owner
            })
            .is_err()
    );

    let vault = fixture.open(store).unwrap();
    assert_eq!(
        files(&vault, &second).unwrap(),
        [("big".to_owned(), big), ("more".to_owned(), b"new".to_vec())]
    );
}

/// What no codec shortens would be found as it is in what lies at the place, if it were not sealed.
#[test]
fn neither_names_nor_content_lie_open_at_the_place() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let writer = add_key(&vault, Role::Writer);
    let bytes = noise(5, 100_000);
    let name = "a name that stands nowhere else";
    for fixture in [&fixture, &writer] {
        back_up(&fixture.open(store.clone()).unwrap(), &[(name, &bytes)]).unwrap();
    }
    let sought: HashSet<&[u8]> = bytes.chunks_exact(16).chain(name.as_bytes().chunks_exact(16)).collect();
    for (object, stored) in store.contents() {
        let found = stored.windows(16).position(|window| sought.contains(window));
        assert_eq!(found, None, "{object:?}");
    }
}

#[test]
fn keys_can_be_added_and_removed_but_not_the_last() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let own = vault.keys().unwrap().0[0].id;
    assert!(matches!(
        vault.remove_key(&own, NewEpoch::Keep),
        Err(Error::LastOwner { .. })
    ));
    let passphrase = NewLock::Passphrase("correct horse".to_owned().into());
    vault
        .add_key(&NewSlot {
            lock: passphrase,
            label: "me".to_owned(),
            role: Role::Owner,
        })
        .unwrap();
    let (before, _) = back_up(&vault, &[("old", b"old")]).unwrap();
    vault.tidy_owner_key(&own).unwrap();

    assert!(matches!(fixture.open(store.clone()), Err(Error::WrongKey { .. })));
    let wrong = drystone_vault::Vault::open(store.clone(), fixture.context(), &Unlock::passphrase("wrong"));
    assert!(matches!(wrong, Err(Error::WrongKey { .. })));
    let vault = drystone_vault::Vault::open(store, fixture.context(), &Unlock::passphrase("correct horse")).unwrap();
    let (after, _) = back_up(&vault, &[("new", b"new")]).unwrap();
    assert_eq!(files(&vault, &before).unwrap()[0].0, "old");
    assert_eq!(files(&vault, &after).unwrap()[0].0, "new");
}
