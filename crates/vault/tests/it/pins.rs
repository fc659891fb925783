//! What a machine knows of places and vaults, key epochs, and roles: nobody who lacks the key moves a client anywhere else.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::config::Trust;
use drystone_format::header::Header;
use drystone_format::keys::{OpenKey, Role, Secrets, epoch_number};
use drystone_format::pack::PackedChunk;
use drystone_format::root::open_root;
use drystone_format::seal::PackKind;
use drystone_format::slot::{Lock, SealedNote, Slot, SlotNote};
use drystone_format::tree::Time;
use drystone_format::{Random, RootId, SlotId, VaultId};
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Fail, Kind, Memory, Name, Op, Prefix, Store};
use drystone_vault::{Accept, Error, NewEpoch, PlaceChange, SlotInfo, Unlock, Vault, vault_line};

use crate::spread_world::World;
use crate::support::{
    Fixture, add_key, back_up, begin, check, craft_pack, files, lines, noise, plant, random, root_of, scrub, secrets,
    snapshot,
};

const FILE: &[(&str, &[u8])] = &[("file", b"content")];

/// Opens with `accept`.
fn accepting(fixture: &Fixture, store: &Arc<Memory>, accept: Accept) -> drystone_vault::Result<Vault> {
    let mut context = fixture.context();
    context.accept = accept;
    Vault::open(store.clone(), context, &fixture.unlock())
}

const NEW_VAULT: Accept = Accept {
    new_vault: true,
    older: false,
};
const OLDER: Accept = Accept {
    new_vault: false,
    older: true,
};

/// Loses everything local but what this machine knows.
fn lose_cache(fixture: &Fixture) {
    for entry in std::fs::read_dir(fixture.cache.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "known" {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

/// A vault of a stranger at a place called `/v`, under any id, with a slot for this public key.
fn forged(id: Option<VaultId>, recipient: &str) -> Arc<Memory> {
    let store = Arc::new(Memory::named("/v"));
    let mut bytes = [0; 16];
    random().fill(&mut bytes);
    let stranger = Secrets::generate(&mut random(), id.unwrap_or(VaultId(bytes))).unwrap();
    let vault_key = stranger.vault_key.clone().unwrap();
    let header = Header {
        vault: stranger.vault,
        vault_verify: stranger.vault_verify,
        unknown: Vec::new(),
    };
    let header = header.encode(&vault_key).unwrap();
    let slot_key = OpenKey::generate(&mut random());
    let mut locked = Vec::new();
    let to: age::x25519::Recipient = recipient.parse().unwrap();
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&to as &dyn age::Recipient)).unwrap();
    let mut writer = encryptor.wrap_output(&mut locked).unwrap();
    writer.write_all(slot_key.expose()).unwrap();
    writer.write_all(&stranger.vault_verify.0).unwrap();
    writer.finish().unwrap();
    let mut slot = Slot {
        vault: stranger.vault,
        id: SlotId([7; 16]),
        role: Role::Owner,
        lock: Lock::X25519,
        created: Time::default(),
        note: SealedNote::default(),
        slot_key: slot_key.seal_key().unwrap(),
        locked,
        sealed: Vec::new(),
        own: Vec::new(),
        header: header.clone(),
        unknown: Vec::new(),
    };
    let credential = stranger.delegate(&mut random(), Role::Owner).unwrap();
    let note = SlotNote {
        label: String::new(),
        recipient: String::new(),
        writer: credential.certificate.writer,
    };
    slot.fill(&credential, &mut random()).unwrap();
    slot.set_note(&stranger, &note, &mut random()).unwrap();
    store.overwrite(&Name::key(&slot.id), slot.encode(&vault_key).unwrap().into());
    store.overwrite(&Name::header(), header.into());
    store
}

fn slots(store: &Memory) -> Vec<(Name, Bytes)> {
    let all = store.contents().into_iter();
    all.filter(|(name, _)| Prefix::Keys.covers(name)).collect()
}

/// Puts the key slots of before in the stead of those of now.
fn replay(store: &Memory, before: &[(Name, Bytes)]) {
    slots(store).iter().for_each(|(name, _)| store.remove(name));
    before
        .iter()
        .for_each(|(name, object)| store.overwrite(name, object.clone()));
}

/// Whether these secrets open what the root says.
pub(crate) fn opens(secrets: &Secrets, store: &Memory, id: &RootId) -> bool {
    let name = root_of(store, id);
    let Kind::Root(root) = name.kind() else { unreachable!() };
    open_root(secrets, &root, &store.contents()[&name]).is_ok()
}

/// The slot of the key that is meant.
pub(crate) fn slot_of(vault: &Vault, is_meant: impl Fn(&SlotInfo) -> bool) -> SlotId {
    let (keys, _) = vault.keys().unwrap();
    keys.iter().find(|key| is_meant(key)).unwrap().id
}

#[test]
fn a_place_that_holds_another_vault_is_refused_even_without_a_cache() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    back_up(&vault, FILE).unwrap();
    let (writer, ids) = (add_key(&vault, Role::Writer), vault.pin());
    writer.open(store.clone()).unwrap();
    lose_cache(&fixture);
    for victim in [&fixture, &writer] {
        let swapped = forged(None, &victim.recipient);
        let error = victim.open(swapped.clone()).map(drop).unwrap_err();
        assert!(
            matches!(&error, Error::OtherVault { known, .. } if **known == ids),
            "{error}"
        );
        assert!(error.to_string().starts_with("/v: ") && error.to_string().contains("nothing was read or written"));
        let same_id = forged(Some(ids.vault), &victim.recipient);
        let error = victim.open(same_id.clone()).map(drop).unwrap_err();
        assert!(
            matches!(&error, Error::OtherVaultKey { known, .. } if **known == ids),
            "{error}"
        );
        // Wherever it lies: the id is known.
        let elsewhere = Arc::new(Memory::named("/elsewhere"));
        same_id
            .contents()
            .into_iter()
            .for_each(|(name, object)| elsewhere.overwrite(&name, object));
        assert!(matches!(victim.open(elsewhere), Err(Error::OtherVaultKey { .. })));
        // A slot of the stranger beside those of the vault changes nothing.
        let mixed = Arc::new(Memory::named("/v"));
        let both = slots(&swapped).into_iter().chain(store.contents());
        both.for_each(|(name, object)| mixed.overwrite(&name, object));
        assert_eq!(victim.open(mixed).unwrap().pin(), ids);
        let accepted = accepting(victim, &swapped, NEW_VAULT).unwrap().pin();
        assert_eq!(
            victim.open(swapped).unwrap().pin(),
            accepted,
            "accepted once is remembered"
        );
        assert!(matches!(victim.open(store.clone()), Err(Error::OtherVault { .. })));
    }
}

#[test]
fn a_key_file_that_names_its_vault_opens_no_other_on_a_new_machine() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let pin = fixture.create(store.clone()).unwrap().pin();
    let mut named = fixture.elsewhere();
    named.key += &vault_line(&pin);
    assert_eq!(
        named.open(store.clone()).unwrap().notes(),
        [""; 0],
        "nothing has to be trusted"
    );
    for id in [None, Some(pin.vault)] {
        let machine = named.elsewhere();
        let error = machine.open(forged(id, &fixture.recipient)).map(drop).unwrap_err();
        assert!(
            matches!(&error, Error::KeyOfOtherVault { found, .. } if **found != pin),
            "{error}"
        );
        assert!(error.to_string().contains(&pin.vault.to_string()), "{error}");
        let machine = named.elsewhere();
        let accepted = accepting(&machine, &forged(id, &fixture.recipient), NEW_VAULT);
        assert!(
            matches!(accepted, Err(Error::KeyOfOtherVault { .. })),
            "the file must say so itself"
        );
    }
    let bare = fixture.elsewhere();
    let note = lines_of(bare.open(store.clone()).unwrap().notes());
    assert!(
        note.contains("first time") && note.contains(&pin.vault.to_string()),
        "{note}"
    );
    assert_eq!(lines_of(bare.open(store).unwrap().notes()), "");
    for bad in ["# drystone vault: \n", "# drystone vault: 00 11\n"] {
        assert!(Unlock::key_file(&(fixture.key.clone() + bad), "k", None).is_err());
    }
}

fn lines_of(lines: &[String]) -> String {
    lines.join("\n")
}

#[test]
fn an_emptied_place_is_neither_opened_nor_used_for_another_vault() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let pin = fixture.create(store).unwrap().pin();
    lose_cache(&fixture);
    let empty = Arc::new(Memory::named("/v"));
    for error in [
        fixture.open(empty.clone()).map(drop).unwrap_err(),
        fixture.create(empty.clone()).map(drop).unwrap_err(),
    ] {
        assert!(
            matches!(&error, Error::Emptied { known, .. } if *known == pin),
            "{error}"
        );
        assert!(error.to_string().contains("is the disk mounted?"));
    }
    assert!(empty.contents().is_empty());
    assert!(matches!(
        accepting(&fixture, &empty, NEW_VAULT),
        Err(Error::NoVault { .. })
    ));
}

#[test]
fn old_key_slots_that_come_back_are_refused() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    let (removed, writer) = (add_key(&vault, Role::Member), add_key(&vault, Role::Writer));
    writer.open(store.clone()).unwrap();
    let before = slots(&store);
    let old = secrets(&removed, &store);
    let id = slot_of(&vault, |key| key.role == Role::Member);
    vault.remove_key(&id, NewEpoch::Start).unwrap();
    for fixture in [&fixture, &writer] {
        let (root, _) = back_up(&fixture.open(store.clone()).unwrap(), FILE).unwrap();
        assert!(!opens(&old, &store, &root), "closed to the removed key");
    }
    let now = slots(&store);
    replay(&store, &before);
    for fixture in [&fixture, &writer] {
        lose_cache(fixture);
        let error = fixture.open(store.clone()).map(drop).unwrap_err();
        assert!(matches!(error, Error::OlderKeys { .. }), "{error}");
        assert!(error.to_string().contains("were rolled back") && error.to_string().starts_with("/v: keys/"));
    }
    accepting(&fixture, &store, OLDER).unwrap();
    fixture.open(store.clone()).unwrap();
    // What is there again is newer than what was accepted.
    replay(&store, &now);
    fixture.open(store.clone()).unwrap();
    replay(&store, &before);
    assert!(matches!(fixture.open(store), Err(Error::OlderKeys { .. })));
}

#[test]
fn old_key_slots_at_one_of_three_places_win_nothing() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["/a", "/b", "/c"], (2, 3));
    let removed = add_key(&vault, Role::Member);
    let before = slots(&world.store("/a"));
    let old = secrets(&removed, &world.store("/a"));
    let id = slot_of(&vault, |key| key.role == Role::Member);
    vault.remove_key(&id, NewEpoch::Start).unwrap();
    replay(&world.store("/a"), &before);
    // Also on a machine that knows nothing, and whichever places are named.
    for names in [["/a"].as_slice(), &["/a", "/b"], &["/c", "/a"]] {
        for machine in [fixture.copy(), fixture.elsewhere()] {
            let (root, _) = back_up(&world.open(&machine, names).unwrap(), FILE).unwrap();
            assert!(!opens(&old, &world.store("/b"), &root), "{names:?}");
        }
    }
}

#[test]
fn named_places_that_hold_different_vaults_are_refused() {
    let (world, fixture) = (World::default(), Fixture::new());
    let vault = world.create(&fixture, &["/a", "/b", "/c"], (2, 3));
    let pin = vault.pin();
    let stranger = forged(None, &fixture.recipient);
    let odd = Arc::new(Memory::named("/a"));
    stranger
        .contents()
        .into_iter()
        .for_each(|(name, object)| odd.overwrite(&name, object));
    world.take("/a");
    world.bring("/a", odd);
    for machine in [fixture.copy(), fixture.elsewhere()] {
        for names in [["/a", "/b", "/c"].as_slice(), &["/b", "/a"]] {
            let error = world.open(&machine, names).map(drop).unwrap_err();
            assert!(
                matches!(error, Error::DifferentVaults { .. } | Error::OtherVault { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("/a: "), "{error}");
        }
        // Left out, it is one place that is not there.
        assert_eq!(world.open(&machine, &["/b", "/c"]).unwrap().pin(), pin);
    }
}

#[test]
fn an_older_list_of_places_is_refused() {
    let (world, fixture) = (World::default(), Fixture::new());
    drop(world.create(&fixture, &["/a", "/b"], (1, 2)));
    let name = |store: &Memory| {
        let names = store.contents().into_keys();
        names.filter(|name| Prefix::Config.covers(name)).collect::<Vec<_>>()
    };
    let before: Vec<_> = name(&world.store("/a"));
    let vault = world.open(&fixture, &["/a"]).unwrap();
    let change = PlaceChange {
        add: vec![world.new_place("/c")],
        remove: Vec::new(),
        spread: None,
    };
    drop(vault.change_places(change).unwrap());
    for place in ["/a", "/b"] {
        let store = world.store(place);
        name(&store)
            .iter()
            .filter(|name| !before.contains(name))
            .for_each(|name| store.remove(name));
    }
    world.take("/c");
    lose_cache(&fixture);
    let error = world.open(&fixture, &["/a"]).map(drop).unwrap_err();
    assert!(
        matches!(error, Error::OlderConfiguration { known: 2, found: 1, .. }),
        "{error}"
    );
    world.open(&fixture.elsewhere(), &["/a"]).unwrap();
}

#[test]
fn both_sides_of_a_split_may_start_the_next_key_epoch() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    let writer = add_key(&vault, Role::Writer);
    let gone = [add_key(&vault, Role::Member), add_key(&vault, Role::Member)];
    let other = Arc::new(Memory::named("/v"));
    store
        .contents()
        .into_iter()
        .for_each(|(name, object)| other.overwrite(&name, object));
    let mut roots = Vec::new();
    for (side, gone) in [&store, &other].into_iter().zip(&gone) {
        let owner = fixture.elsewhere().open(side.clone()).unwrap();
        let held = secrets(gone, side).certificate.writer;
        let id = slot_of(&owner, |key| key.writer == held);
        assert_eq!(owner.remove_key(&id, NewEpoch::Start).unwrap(), Some(held));
        roots.push(back_up(&owner, FILE).unwrap().0);
        back_up(&writer.elsewhere().open(side.clone()).unwrap(), FILE).unwrap();
    }
    // They meet again.
    other
        .contents()
        .into_iter()
        .for_each(|(name, object)| store.overwrite(&name, object));
    let owner = fixture.elsewhere().open(store.clone()).unwrap();
    for root in &roots {
        assert_eq!(files(&owner, root).unwrap()[0].1, b"content");
    }
    // Both have changed the configuration; whichever an owner chooses, both keys stay removed.
    let chosen = owner.in_force().unwrap().signed.hash.to_string();
    owner.resolve_config(Some(&chosen)).unwrap();
    let owner = fixture.elsewhere().open(store.clone()).unwrap();
    assert_eq!(owner.revoked().count(), 2);
    assert_eq!(lines(&check(&owner).problems), "");
    assert_eq!(lines(&scrub(&owner).problems), "");
    let machine = writer.elsewhere();
    back_up(&machine.open(store.clone()).unwrap(), FILE).unwrap();
    back_up(&machine.open(store).unwrap(), FILE).unwrap();
}

#[test]
fn an_open_vault_follows_a_new_key_epoch_and_takes_it_for_no_damage() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    back_up(&vault, FILE).unwrap();
    let removed = add_key(&vault, Role::Member);
    let reading = removed.open(store.clone()).unwrap();
    reading.loss_epoch().unwrap();
    let old = secrets(&removed, &store);
    let other = fixture.open(store.clone()).unwrap();
    let id = slot_of(&other, |key| key.role == Role::Member);
    other.remove_key(&id, NewEpoch::Start).unwrap();
    let (root, _) = back_up(&other, &[("new", &noise(1, 50_000))]).unwrap();
    let losses = vault.loss_epoch().unwrap();
    // The one that keeps its slot reads what is new, and writes where the removed key cannot follow.
    assert_eq!(lines(&check(&vault).problems), "");
    assert_eq!(files(&vault, &root).unwrap()[0].1, noise(1, 50_000));
    assert_eq!(lines(&check(&vault).problems), "");
    assert_eq!(vault.loss_epoch().unwrap(), losses);
    let (mine, _) = back_up(&vault, &[("mine", b"mine")]).unwrap();
    assert!(!opens(&old, &store, &mine));
    // The removed one says why it cannot, and calls nothing damaged.
    let error = reading.snapshot(&root).unwrap_err();
    assert!(matches!(error, Error::NewerKeys { .. }), "{error}");
    assert!(error.to_string().contains("key epoch 1"), "{error}");
    let losses = reading.loss_epoch().unwrap();
    check(&reading);
    scrub(&reading);
    assert_eq!(reading.loss_epoch().unwrap(), losses);
    assert!(matches!(removed.open(store), Err(Error::WrongKey { .. })));
}

/// A process that has run before, and has read nothing since, learns of a new key epoch when its next run begins.
#[test]
fn the_next_run_of_an_open_vault_is_closed_to_a_removed_key() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    let removed = add_key(&vault, Role::Member);
    let idle = fixture.elsewhere().open(store.clone()).unwrap();
    back_up(&idle, FILE).unwrap();
    let old = secrets(&removed, &store);
    let id = slot_of(&vault, |key| key.role == Role::Member);
    vault.remove_key(&id, NewEpoch::Start).unwrap();
    let (root, _) = back_up(&idle, &[("new", b"new")]).unwrap();
    assert!(!opens(&old, &store, &root));
}

#[test]
fn a_run_that_a_removal_overtakes_seals_its_root_in_the_new_key_epoch() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    let removed = add_key(&vault, Role::Member);
    let running = fixture.elsewhere().open(store.clone()).unwrap();
    let (run, tree) = begin(&running, FILE.iter().copied()).unwrap();
    let finished = run.finish().unwrap();
    let old = secrets(&removed, &store);
    let id = slot_of(&vault, |key| key.role == Role::Member);
    vault.remove_key(&id, NewEpoch::Start).unwrap();
    let root = running.publish(&snapshot(tree), &finished).unwrap();
    assert!(!opens(&old, &store, &root));
    assert!(files(&fixture.open(store).unwrap(), &root).is_ok());
}

/// Where everybody's packs are relied on, those of a removed key are not: what they hold is stored again.
#[test]
fn packs_of_a_removed_key_are_not_relied_on() {
    for role in [Role::Writer, Role::Member] {
        let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
        let vault = fixture.create_trusting(store.clone(), Trust::Everyone).unwrap();
        let removed = add_key(&vault, role);
        let bytes = noise(4, 50_000);
        let new_bytes = |by: &Fixture| {
            let vault = by.open(store.clone()).unwrap();
            back_up(&vault, &[("file", &bytes)]).unwrap().1.new_bytes
        };
        assert!(new_bytes(&removed) > 50_000);
        assert_eq!(new_bytes(&fixture), 0, "{role:?}: relied on before");
        vault
            .remove_key(&slot_of(&vault, |key| key.role == role), NewEpoch::Start)
            .unwrap();
        assert!(new_bytes(&fixture.elsewhere()) > 50_000, "{role:?}");
    }
}

#[test]
fn epochs_that_a_writer_invents_damage_nothing() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    let (root, _) = back_up(&vault, FILE).unwrap();
    let mut hostile = secrets(&add_key(&vault, Role::Writer), &store);
    let current = hostile.current().unwrap();
    for number in 1..300_u64 {
        hostile.epochs.truncate(1);
        let mut made = current.clone();
        made.number = current.number + number;
        hostile.epochs.push(made);
        let chunk = PackedChunk {
            id: vault.hasher().id(&number.to_be_bytes()),
            bytes: 8,
        };
        plant(
            &store,
            craft_pack(
                &hostile,
                PackKind::Data,
                &[(number.to_be_bytes().to_vec(), vec![chunk])],
            ),
        );
    }
    let fresh = fixture.elsewhere().open(store).unwrap();
    assert_eq!(files(&fresh, &root).unwrap()[0].1, b"content");
    assert_eq!(epoch_number(current.number), 0);
    let found = check(&fresh);
    let found = lines(&found.problems) + &lines(&found.harmless);
    assert!(found.contains("does not know"), "{found}");
    assert_eq!(fresh.loss_epoch().unwrap(), 0);
    back_up(&fresh, FILE).unwrap();
}

#[test]
fn what_a_reader_signs_is_reported_and_counts_for_nobody() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create_trusting(store.clone(), Trust::Everyone).unwrap();
    let (root, _) = back_up(&vault, FILE).unwrap();
    let reader = add_key(&vault, Role::Reader);
    let reading = reader.open(store.clone()).unwrap();
    assert_eq!(files(&reading, &root).unwrap()[0].1, b"content");
    let refused = back_up(&reading, FILE).unwrap_err();
    assert!(
        refused.to_string().contains("reader key") && !refused.is_damage(),
        "{refused}"
    );
    let bytes = noise(5, 900);
    let chunk = PackedChunk {
        id: vault.hasher().id(&bytes),
        bytes: 900,
    };
    let held = secrets(&reader, &store);
    let name = plant(
        &store,
        craft_pack(&held, PackKind::Data, &[(bytes.clone(), vec![chunk])]),
    );
    let fresh = fixture.elsewhere().open(store.clone()).unwrap();
    assert!(!fresh.contains(&vault.hasher().id(&bytes)).unwrap());
    let found = check(&fresh);
    assert!((lines(&found.problems) + &lines(&found.harmless)).contains(name.as_str()));
    for refused in [
        reading.forget(&[root]).unwrap_err(),
        reading.gc(&drystone_vault::GcOptions::default()).map(drop).unwrap_err(),
        reading.tidy_owner_key(&SlotId([0; 16])).unwrap_err(),
    ] {
        assert!(
            refused.to_string().contains("reader key") && !refused.is_damage(),
            "{refused}"
        );
    }
}

#[test]
fn an_owners_key_is_not_taken_back_by_removing_it() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    let second = add_key(&vault, Role::Owner);
    let id = slot_of(&vault, |key| !key.current);
    let before = store.contents();
    for epoch in [NewEpoch::Start, NewEpoch::Keep] {
        let error = vault.remove_key(&id, epoch).unwrap_err();
        assert!(matches!(error, Error::OwnerStays { .. }), "{error}");
        assert!(error.to_string().contains("removing it protects nothing"));
    }
    assert_eq!(store.contents(), before, "nothing was changed");
    vault.tidy_owner_key(&id).unwrap();
    assert!(matches!(second.open(store.clone()), Err(Error::WrongKey { .. })));
    let own = vault.keys().unwrap().0[0].id;
    assert!(matches!(vault.tidy_owner_key(&own), Err(Error::LastOwner { .. })));
}

#[test]
fn a_writer_still_knows_its_own_packs_after_another_key_is_removed() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    let (writer, gone) = (add_key(&vault, Role::Writer), add_key(&vault, Role::Reader));
    let bytes = noise(3, 50_000);
    back_up(&writer.open(store.clone()).unwrap(), &[("file", &bytes)]).unwrap();
    let held = secrets(&gone, &store).certificate.writer;
    let id = slot_of(&vault, |key| key.writer == held);
    vault.remove_key(&id, NewEpoch::Start).unwrap();
    let (_, again) = back_up(&writer.elsewhere().open(store.clone()).unwrap(), &[("file", &bytes)]).unwrap();
    assert_eq!(again.new_bytes, 0);
    let names = store.contents().into_keys();
    assert_eq!(names.filter(|name| matches!(name.kind(), Kind::Key(_))).count(), 2);
    let _: &dyn Store = &*store;
}

/// A removed key's slot that comes back, from its holder or from a place, opens nothing that is written afterwards, whoever is removed next.
#[test]
fn a_slot_that_comes_back_gets_no_new_key_epoch() {
    for role in [Role::Reader, Role::Member, Role::Writer] {
        let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
        let vault = fixture.create(store.clone()).unwrap();
        let (removed, other) = (add_key(&vault, role), add_key(&vault, Role::Writer));
        let before = slots(&store);
        let writer_of = |of: &Fixture| secrets(of, &store).certificate.writer;
        let (gone, next) = (writer_of(&removed), writer_of(&other));
        vault
            .remove_key(&slot_of(&vault, |key| key.writer == gone), NewEpoch::Start)
            .unwrap();
        before
            .iter()
            .for_each(|(name, object)| store.overwrite(name, object.clone()));
        let vault = fixture.open(store.clone()).unwrap();
        let found = vault.doctor().unwrap();
        assert!(
            found
                .iter()
                .any(|finding| finding.what.contains("this key was removed")),
            "{found:?}"
        );
        vault
            .remove_key(&slot_of(&vault, |key| key.writer == next), NewEpoch::Start)
            .unwrap();
        let (new, _) = back_up(&vault, FILE).unwrap();
        assert!(
            matches!(removed.open(store.clone()), Err(Error::WrongKey { .. })),
            "{role:?}"
        );
        // With the old slot put back once more it opens what was there, and neither reads nor stores anything new.
        before
            .iter()
            .for_each(|(name, object)| store.overwrite(name, object.clone()));
        let back = removed.elsewhere().open(store.clone()).unwrap();
        assert!(files(&back, &new).is_err());
        let stored = back_up(&back, FILE).map(drop);
        let is_told = matches!(stored, Err(Error::KeyRemoved { .. }));
        assert!(is_told || role == Role::Reader && stored.is_err(), "{stored:?}");
    }
}

/// A key that is added by somebody who has not seen the new key epoch yet belongs to it all the same.
#[test]
fn a_key_that_is_added_beside_a_removal_gets_the_new_key_epoch() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    let removed = add_key(&vault, Role::Reader);
    let old = secrets(&removed, &store);
    let beside = fixture.open(store.clone()).unwrap();
    vault
        .remove_key(&slot_of(&vault, |key| key.role == Role::Reader), NewEpoch::Start)
        .unwrap();
    let added = add_key(&beside, Role::Writer);
    let (id, _) = back_up(&added.open(store.clone()).unwrap(), FILE).unwrap();
    assert!(!opens(&old, &store, &id));
    assert!(files(&fixture.open(store).unwrap(), &id).is_ok());
}

/// Whoever dies in the middle of a removal leaves a vault whose owner reads everything that anybody stores, and the removal can be made again.
#[test]
fn a_removal_that_is_interrupted_leaves_nothing_that_nobody_reads() {
    for puts in 0..6 {
        let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
        let vault = fixture.create(store.clone()).unwrap();
        let (writer, reader) = (add_key(&vault, Role::Writer), add_key(&vault, Role::Reader));
        add_key(&vault, Role::Member);
        let old = secrets(&reader, &store);
        let fails = Fail::new(store.clone());
        fails.add(
            Fault::error(Op::Put, Failure::Unavailable)
                .only(Prefix::Keys)
                .nth(puts + 1),
        );
        let dying = fixture.open(Arc::new(fails)).unwrap();
        let slot = slot_of(&dying, |key| key.role == Role::Reader);
        assert_eq!(dying.remove_key(&slot, NewEpoch::Start).is_err(), puts < 3, "{puts}");
        let (id, _) = back_up(&writer.open(store.clone()).unwrap(), FILE).unwrap();
        let owner = fixture.elsewhere().open(store.clone()).unwrap();
        assert!(files(&owner, &id).is_ok(), "after {puts}");
        if let Some(slot) = owner.keys().unwrap().0.iter().find(|key| key.role == Role::Reader) {
            owner.remove_key(&slot.id, NewEpoch::Start).unwrap();
        }
        let (id, _) = back_up(&writer.open(store.clone()).unwrap(), FILE).unwrap();
        assert!(!opens(&old, &store, &id), "after {puts}");
        assert!(files(&fixture.open(store).unwrap(), &id).is_ok());
    }
}

/// Whoever may write at a place can put a header there that claims a newer format; only the vault's own key makes that true.
#[test]
fn a_header_is_newer_only_in_the_word_of_the_vault() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::named("/v")));
    let vault = fixture.create(store.clone()).unwrap();
    let (id, _) = back_up(&vault, FILE).unwrap();
    let header = store.contents()[&Name::header()].to_vec();
    let mut newer = header[..header.len() - 64].to_vec();
    newer[7] = 2;
    let vault_key = secrets(&fixture, &store).vault_key.unwrap();
    let signature = vault_key
        .sign(&[b"drystone header v1".as_slice(), &newer].concat())
        .unwrap();
    let junk = [newer.as_slice(), &[7; 64]].concat();
    let signed = [newer.as_slice(), &signature.0].concat();
    for object in [junk, b"DRYVALT\x02 and what not".to_vec()] {
        store.overwrite(&Name::header(), object.into());
        for machine in [fixture.copy(), fixture.elsewhere()] {
            let vault = machine.open(store.clone()).unwrap();
            let said = vault.warnings().join("\n");
            assert!(
                said.contains("header is damaged") && said.contains("repair header"),
                "{said}"
            );
            assert!(files(&vault, &id).is_ok());
        }
    }
    store.overwrite(&Name::header(), signed.into());
    let refused = fixture.elsewhere().open(store).map(drop);
    assert!(
        matches!(
            &refused,
            Err(Error::Damaged {
                source: drystone_format::Error::Version { found: 2, .. },
                ..
            })
        ),
        "{refused:?}"
    );
}
