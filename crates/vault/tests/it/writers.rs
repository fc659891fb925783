//! A stolen writer key and a place that takes whatever comes: what an attacker puts costs nobody anything (I9).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use drystone_format::epoch::{Epoch, seal_epoch};
use drystone_format::id::object_hash;
use drystone_format::keys::{Role, Secrets};
use drystone_format::ledger::{Sightings, seal_ledger};
use drystone_format::pack::PackedChunk;
use drystone_format::presence::{Presence, WriterState};
use drystone_format::seal::PackKind;
use drystone_format::tree::Time;
use drystone_format::{RegistrationId, RootId, random};
use drystone_store::fail::{Failure, Fault};
use drystone_store::{Fail, Kind, Memory, Name, Op, Prefix, Store};
use drystone_vault::retention::{Group, Keep};
use drystone_vault::{Error, GcOptions, Vault};

use crate::gc::{forgetting, gc};
use crate::support::{
    ALONE, Fixture, add_key, back_up, check, craft_pack, craft_presence, craft_root, files, index_of, lines, noise,
    plant, random as entropy, root_of, runtime, scrub, secrets, snapshot,
};

/// The place as its owner has set it up for a write-only client: it adds and never removes.
fn append_only(store: &Arc<Memory>) -> Arc<Fail> {
    let store = Fail::new(store.clone());
    store.add(Fault::error(Op::Delete, Failure::Denied));
    Arc::new(store)
}

struct World {
    owner: Fixture,
    client: Fixture,
    store: Arc<Memory>,
    good: Vec<RootId>,
}

/// An owner's vault with snapshots of the owner and of a write-only client, which the owner has looked at.
fn world() -> World {
    let (owner, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = owner.create(store.clone()).unwrap();
    let client = add_key(&vault, Role::Writer);
    let mut good = vec![back_up(&vault, &[("o", &noise(1, 60_000))]).unwrap().0];
    for number in 0..2 {
        let vault = client.open(append_only(&store)).unwrap();
        good.push(back_up(&vault, &[("c", &noise(10 + number, 60_000))]).unwrap().0);
    }
    World {
        owner,
        client,
        store,
        good,
    }
}

impl World {
    /// What the client's key can make.
    fn stolen(&self) -> Secrets {
        secrets(&self.client, &self.store)
    }

    fn owner(&self) -> Vault {
        self.owner.open(self.store.clone()).unwrap()
    }

    fn put(&self, name: &Name, object: Vec<u8>) {
        runtime()
            .block_on(append_only(&self.store).put(name, object.into()))
            .unwrap();
    }

    fn assert_whole(&self) {
        let vault = self.owner.elsewhere().open(self.store.clone()).unwrap();
        for id in &self.good {
            assert_eq!(files(&vault, id).unwrap()[0].1.len(), 60_000);
        }
    }
}

/// A client that may not delete leaves its presences; gc sees that those runs are over, and removes them.
#[test]
fn an_append_only_client_holds_nothing_up() {
    let world = world();
    let writers = || {
        world
            .store
            .contents()
            .into_keys()
            .filter(|name| Prefix::Writers.covers(name))
            .count()
    };
    assert_eq!(writers(), 2);
    let vault = world.owner();
    scrub(&vault);
    let (garbage, _) = back_up(&vault, &[("g", &noise(5, 60_000))]).unwrap();
    vault.forget(&[garbage]).unwrap();
    // The garbage, and the small packs that were folded.
    assert_eq!(gc(&vault).deleted_packs, 4);
    assert_eq!(writers(), 0);
    world.assert_whole();
}

#[test]
fn what_an_attacker_signs_counts_for_nobody() {
    let world = world();
    let stolen = world.stolen();
    let packs = world.store.contents().into_keys().filter_map(|name| match name.kind() {
        Kind::Pack(id) => Some(id),
        _ => None,
    });
    let epoch = Epoch {
        packs: packs.collect(),
        ..Epoch::default()
    };
    let forged = seal_epoch(&stolen, &epoch, &mut entropy()).unwrap();
    world.put(&Name::epoch(1, &object_hash(&forged)), forged);
    let ledger = forgetting(&world.store, &world.good);
    let forged = seal_ledger(&stolen, &ledger, &Sightings::default(), &mut entropy()).unwrap();
    world.put(&Name::ledger(7, &object_hash(&forged)), forged);
    let client = world.client.open(append_only(&world.store)).unwrap();
    assert!(client.gc(&GcOptions::default()).is_err() && client.forget(&world.good).is_err());
    let error = runtime()
        .block_on(append_only(&world.store).delete(&root_of(&*world.store, &world.good[0])))
        .unwrap_err();
    assert!(matches!(error, drystone_store::Error::Denied { .. }));
    let vault = world.owner();
    vault.gc(&GcOptions::default()).unwrap();
    assert_eq!(vault.snapshot_ids().unwrap().len(), 3);
    world.assert_whole();
    assert_eq!(check(&vault).problems.count(), 2, "{}", lines(&check(&vault).problems));
}

/// A pack that claims chunks of others: gc must not take it for the better copy and delete the true one.
#[test]
fn a_lying_pack_costs_nobody_the_true_one() {
    let world = world();
    let vault = world.owner();
    let index = index_of(&vault);
    let mut claimed = Vec::new();
    let reader = vault.reader().unwrap();
    for id in &world.good {
        let tree = vault.snapshot(id).unwrap().tree;
        for entry in reader.tree(&tree) {
            for part in reader.parts(entry.unwrap().recipe().unwrap()) {
                if let drystone_format::recipe::Part::Chunk { id, bytes } = part.unwrap() {
                    assert!(index.contains(&id).unwrap());
                    claimed.push(PackedChunk {
                        id,
                        bytes: bytes as u32,
                    });
                }
            }
        }
    }
    let total = claimed.iter().map(|chunk| chunk.bytes as usize).sum();
    // Ids of packs decide between equals: one of several lies comes first.
    for _ in 0..4 {
        let frame = (vec![0; total], claimed.clone());
        plant(&world.store, craft_pack(&world.stolen(), PackKind::Data, &[frame]));
    }
    let packs = || {
        world
            .store
            .contents()
            .into_keys()
            .filter(|name| Prefix::Packs.covers(name))
            .count()
    };
    let before = packs();
    // Kept whole, they stay beside the true ones; copied from, the true bytes are what is copied.
    for (max_unused, left) in [(1.0, before), (0.0, before - 4 + 1)] {
        let options = GcOptions {
            max_unused,
            ..GcOptions::default()
        };
        world.owner().gc(&options).unwrap();
        world.assert_whole();
        assert_eq!(packs(), left, "{max_unused}");
    }
    assert_eq!(lines(&scrub(&world.owner()).problems), "");
}

/// A presence that claims to have seen everything, beside that of an honest run; and one that is no presence at all.
#[test]
fn false_presences_free_nothing_and_keep_garbage_for_a_while_only() {
    let world = world();
    let vault = world.owner();
    scrub(&vault);
    gc(&vault);
    let honest = add_key(&vault, Role::Owner).open(world.store.clone()).unwrap();
    let run = crate::support::ingest(&honest);
    let presence = world
        .store
        .contents()
        .into_keys()
        .find(|name| Prefix::Writers.covers(name))
        .unwrap();
    let Kind::Writer(id, ..) = presence.kind() else {
        panic!()
    };
    let (garbage, _) = back_up(&vault, &[("g", &noise(5, 60_000))]).unwrap();
    vault.forget(&[garbage]).unwrap();
    let report = gc(&vault);
    assert_eq!((report.waiting_packs, report.deleted_packs), (1, 0), "{report:?}");
    let seen = world.store.contents().into_keys().filter_map(|name| match name.kind() {
        Kind::Epoch(number, id) => Some((number, id)),
        _ => None,
    });
    // In the name of the honest run, signed with the stolen key: it counts for nobody. So does junk. One under a name of
    // the thief's own, and one whose bytes were damaged, belong to somebody who may be at work.
    let lie = Presence {
        beat: 77,
        epochs: seen.collect(),
        state: WriterState::Over,
        ..Presence::default()
    };
    let object = lie.sign(&world.stolen()).unwrap();
    let forged = Name::writer(&id, 77, &object_hash(&object));
    let junk = Name::writer(&RegistrationId([3; 16]), 0, &object_hash(b"junk"));
    world.put(&forged, object);
    world.put(&junk, b"junk".to_vec());
    let damaged = Name::writer(&RegistrationId([4; 16]), 0, &RootId([4; 16]));
    world.put(&damaged, b"junk".to_vec());
    for report in [
        vault.gc(&GcOptions::default()).unwrap(),
        vault.gc(&GcOptions::default()).unwrap(),
    ] {
        assert_eq!((report.waiting_packs, report.deleted_packs), (1, 0), "{report:?}");
        let waiting_for: BTreeSet<RegistrationId> = report.waiting_for.iter().copied().collect();
        assert_eq!(waiting_for, [id, RegistrationId([4; 16])].into());
        let said = lines(&report.problems);
        assert!(said.contains(forged.as_str()) && said.contains(junk.as_str()), "{said}");
        assert_eq!(report.problems.count(), 2, "{said}");
    }
    let said = lines(&check(&vault).problems);
    for name in [&forged, &junk, &damaged] {
        assert!(said.contains(name.as_str()), "{said}");
    }
    drop(run);
    let options = GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    };
    let reports = [0; 3].map(|_| vault.gc(&options).unwrap());
    assert_eq!(reports.iter().map(|report| report.deleted_packs).sum::<u64>(), 1);
    assert_eq!(reports[2].waiting_packs, 0);
    world.assert_whole();
}

/// A presence under the owner's key spares no packs of other registrations; it keeps what is condemned, but not for ever.
#[test]
fn a_false_presence_keeps_packs_for_a_while_only() {
    let world = world();
    let vault = world.owner();
    let (garbage, _) = back_up(&vault, &[("g", &noise(5, 60_000))]).unwrap();
    vault.forget(&[garbage]).unwrap();
    let (name, lie) = craft_presence(&secrets(&world.owner, &world.store), &Presence::default());
    world.put(&name, lie);
    let options = GcOptions {
        silence: Duration::ZERO,
        ..GcOptions::default()
    };
    let reports = [0; 4].map(|_| vault.gc(&options).unwrap());
    assert_eq!(
        (
            reports[0].spared_packs,
            reports[0].waiting_packs,
            reports[0].deleted_packs
        ),
        (0, 1, 0),
        "{reports:?}"
    );
    assert_eq!(
        reports.iter().map(|report| report.deleted_packs).sum::<u64>(),
        1,
        "{reports:?}"
    );
    world.assert_whole();
}

/// Dummies with all kinds of times, as many as the rules keep, cost none of the good snapshots.
#[test]
fn dummies_push_no_good_snapshot_out_of_the_rules() {
    let world = world();
    let vault = world.owner();
    let keep = Keep {
        last: 2,
        daily: 3,
        yearly: 1,
        grace_seconds: 14 * 86_400,
        ..Keep::default()
    };
    let forgotten = |vault: &Vault| -> Vec<RootId> {
        let groups = vault.plan_forget(&keep, &|_| true).unwrap().0;
        groups.iter().flat_map(Group::forgotten).collect()
    };
    assert!(forgotten(&vault).is_empty());
    let tree = vault.snapshot(&world.good[1]).unwrap().tree;
    for number in 0..40_i64 {
        let time = Time {
            seconds: 1_700_000_000 + (number - 20) * 40_000,
            nanos: 0,
        };
        let mut dummy = snapshot(tree.clone());
        (dummy.started, dummy.finished) = (time, time);
        let (name, root) = craft_root(&world.stolen(), random::array(&mut entropy()), ALONE, &dummy.encode());
        world.put(&Name::root(&name), root);
    }
    let lost = forgotten(&vault);
    assert!(world.good.iter().all(|id| !lost.contains(id)), "{lost:?}");
    assert!(lost.is_empty(), "nothing of a writer's goes at once");
    assert!(matches!(vault.forget(&[]), Ok(())));
    vault.forget(&world.good[..1]).unwrap();
    assert!(matches!(vault.snapshot(&world.good[0]), Err(Error::Store(_))));
}
