//! What `latest` means when clocks lie, writer keys are stolen and roots are damaged.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use drystone_format::id::object_hash;
use drystone_format::keys::Role;
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, RootName, open_root};
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::Time;
use drystone_format::{RegistrationId, RootId};
use drystone_store::{Kind, Memory, Name};
use drystone_vault::retention::{Group, Keep};
use drystone_vault::{Clock, Context, Error, GcOptions, NewEpoch, Vault};

use crate::support::{ALONE, Fixture, add_key, back_up, check, craft_root, ingest, lines, root_of, secrets, snapshot};

const DAY: i64 = 86_400;

struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Time {
        Time {
            seconds: self.0.load(Ordering::Relaxed),
            nanos: 0,
        }
    }
}

struct World {
    clock: Arc<Hand>,
    store: Arc<Memory>,
    owner: Fixture,
}

impl World {
    fn new() -> Self {
        let (owner, store) = (Fixture::new(), Arc::new(Memory::new()));
        owner.create(store.clone()).unwrap();
        let clock = Arc::new(Hand(AtomicI64::new(1_700_000_000)));
        Self { clock, store, owner }
    }

    fn open(&self, fixture: &Fixture) -> Vault {
        let context = Context {
            clock: self.clock.clone(),
            ..fixture.context()
        };
        Vault::open(self.store.clone(), context, &fixture.unlock()).unwrap()
    }

    /// Time passes, and the owner looks.
    fn later(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
        self.open(&self.owner).snapshots().unwrap();
    }

    /// A snapshot that claims to be of `host` and from `off` seconds after the time that the world knows.
    fn publish(&self, fixture: &Fixture, host: &str, off: i64) -> RootId {
        let vault = self.open(fixture);
        let ingest = ingest(&vault);
        let mut lane = ingest.lane();
        let tree = ingest.tree().finish(&mut lane).unwrap();
        lane.finish().unwrap();
        let time = Time {
            seconds: self.clock.0.load(Ordering::Relaxed) + off,
            nanos: 0,
        };
        let claimed = Snapshot {
            started: time,
            finished: time,
            host: host.to_owned(),
            ..snapshot(tree)
        };
        vault.publish(&claimed, &ingest.finish().unwrap()).unwrap()
    }

    fn latest(&self, text: &str) -> Result<RootId, Error> {
        Ok(self.open(&self.owner).resolve(text)?.id)
    }
}

/// S7: a writer says that its snapshot is the fileserver's, and newer.
#[test]
fn a_writer_does_not_become_the_latest_of_an_owner() {
    let world = World::new();
    let good = world.publish(&world.owner, "fileserver", 0);
    let writer = add_key(&world.open(&world.owner), Role::Writer);
    let dummy = world.publish(&writer, "fileserver", 3600);
    assert_eq!(world.latest("latest").unwrap(), good);
    let resolved = world.open(&world.owner).resolve("latest").unwrap();
    assert!(resolved.is_chosen && resolved.notes.len() == 1, "{:?}", resolved.notes);
    let named = world.open(&world.owner).resolve(&dummy.to_string()).unwrap();
    assert_ne!(named.signer, resolved.signer);
    let vault = world.open(&world.owner);
    let signer = vault.signer_name(&named.signer);
    assert_eq!(vault.signer(&named.signer), format!("{signer} \"added\""));
    assert!(resolved.notes[0].contains("\"added\""), "{:?}", resolved.notes);
    assert_eq!(world.latest(&format!("latest@{signer}")).unwrap(), dummy);
    assert!(matches!(world.latest("latest@00112233"), Err(Error::NoSigner { .. })));
}

#[test]
fn of_writers_alone_one_must_be_named() {
    let world = World::new();
    let vault = world.open(&world.owner);
    let (one, two) = (add_key(&vault, Role::Writer), add_key(&vault, Role::Writer));
    let first = world.publish(&one, "a", 0);
    assert_eq!(world.latest("latest").unwrap(), first);
    world.publish(&two, "a", 10);
    assert!(matches!(world.latest("latest"), Err(Error::LatestOfSeveral { .. })));
}

/// A writer that backdates or postdates its snapshot does not hide its own earlier ones either.
#[test]
fn a_writer_cannot_choose_its_place_in_the_order() {
    let world = World::new();
    let writer = add_key(&world.open(&world.owner), Role::Writer);
    world.publish(&writer, "a", DAY / 2);
    world.later(DAY);
    let second = world.publish(&writer, "a", -DAY / 2);
    world.later(DAY);
    assert_eq!(world.latest("latest").unwrap(), second);
}

/// B1: a backup made while the clock was in 2099 neither is the latest nor pushes the true ones out of the rules.
#[test]
fn a_clock_in_the_future_costs_no_snapshot() {
    let world = World::new();
    let old = world.publish(&world.owner, "host", 0);
    world.later(60);
    let future = world.publish(&world.owner, "host", 73 * 365 * DAY);
    world.later(60);
    let new = world.publish(&world.owner, "host", 0);
    world.later(60);
    assert_eq!(world.latest("latest").unwrap(), new);
    let keep = Keep {
        within_seconds: Some(30 * DAY),
        ..Keep::default()
    };
    let plan = |keep: &Keep| {
        let (groups, _) = world.open(&world.owner).plan_forget(keep, &|_| true).unwrap();
        groups.iter().flat_map(Group::forgotten).collect::<Vec<_>>()
    };
    assert_eq!(plan(&keep), []);
    let last = Keep {
        last: 1,
        ..Keep::default()
    };
    assert_eq!(plan(&last), [old]);
    // With nothing after it, the latest is the one before it, and the passed over one is named.
    let vault = world.open(&world.owner);
    vault.forget(&[new]).unwrap();
    let resolved = vault.resolve("latest").unwrap();
    assert_eq!(resolved.id, old);
    assert!(
        resolved.notes.iter().any(|note| note.contains(&future.short())),
        "{:?}",
        resolved.notes
    );
    vault.forget(&[old]).unwrap();
    assert!(matches!(vault.resolve("latest"), Err(Error::LatestDoubtful { .. })));
    assert_eq!(vault.resolve(&future.to_string()).unwrap().id, future);
}

/// B1: a clock that was a year ahead while a snapshot was made and looked at. Once it is right again, the snapshot is in the future.
#[test]
fn a_look_by_a_clock_that_was_ahead_believes_no_future() {
    let world = World::new();
    let old = world.publish(&world.owner, "host", 0);
    world.later(365 * DAY);
    let future = world.publish(&world.owner, "host", 0);
    world.open(&world.owner).snapshots().unwrap();
    world.later(-365 * DAY + 60);
    let new = world.publish(&world.owner, "host", 0);
    assert_eq!(world.latest("latest").unwrap(), new);
    let vault = world.open(&world.owner);
    let going = |keep: &Keep| {
        let (groups, _) = vault.plan_forget(keep, &|_| true).unwrap();
        groups.iter().flat_map(Group::forgotten).collect::<Vec<_>>()
    };
    let within = Keep {
        within_seconds: Some(30 * DAY),
        ..Keep::default()
    };
    assert_eq!(going(&within), []);
    let last = Keep {
        last: 1,
        ..Keep::default()
    };
    assert_eq!(going(&last), [old]);
    assert!(vault.snapshot_ids().unwrap().contains(&future), "it is kept and told");
}

/// A vault that lay idle since it was opened reads the key slots again before its first run.
#[test]
fn a_vault_that_was_idle_follows_a_new_key_epoch_in_its_first_run() {
    let world = World::new();
    let vault = world.open(&world.owner);
    let removed = add_key(&vault, Role::Member);
    let old = secrets(&removed, &world.store);
    let idle = world.open(&world.owner);
    world.later(60);
    let slots = vault.keys().unwrap().0;
    let slot = slots.iter().find(|slot| slot.role == Role::Member).unwrap();
    vault.remove_key(&slot.id, NewEpoch::Start).unwrap();
    let (id, _) = back_up(&idle, &[("new", b"new")]).unwrap();
    let name = root_of(&*world.store, &id);
    let Kind::Root(root) = name.kind() else { panic!() };
    assert!(open_root(&old, &root, &world.store.contents()[&name]).is_err());
}

/// S8: who has made a snapshot misses it, also if it never looked.
#[test]
fn a_machine_misses_the_snapshot_that_it_made() {
    let world = World::new();
    let kept = world.publish(&world.owner, "host", 0);
    let made = world.publish(&world.owner, "host", 60);
    let name = root_of(&*world.store, &made);
    world.store.remove(&name);
    let vault = world.open(&world.owner);
    let refused = vault.gc(&GcOptions::default()).map(drop);
    assert!(
        matches!(refused, Err(Error::MissingRoots { count: 1, .. })),
        "{refused:?}"
    );
    assert!(lines(&vault.snapshots().unwrap().1).contains(name.as_str()));
    assert_eq!(vault.snapshot_ids().unwrap(), [kept]);
}

/// S8: a snapshot that this machine has seen is missed aloud, whether a place hides it or was rolled back, until an owner forgets it.
#[test]
fn a_snapshot_that_was_seen_is_missed_aloud() {
    let world = World::new();
    let old = world.publish(&world.owner, "host", 0);
    let before = world.store.contents();
    world.later(60);
    let new = world.publish(&world.owner, "host", 0);
    world.later(60);
    let hidden = root_of(&*world.store, &new);
    let name = hidden.as_str().to_owned();
    let rolled_back = |world: &World| {
        for (name, object) in world.store.contents() {
            if !before.contains_key(&name) {
                world.store.remove(&name);
            }
            drop(object);
        }
    };
    let hides: [&dyn Fn(&World); 2] = [&|world| world.store.remove(&hidden), &rolled_back];
    for hide in hides {
        hide(&world);
        let vault = world.open(&world.owner);
        assert!(lines(&vault.snapshots().unwrap().1).contains(&name));
        assert!(lines(&check(&vault).problems).contains(&name));
        assert!(matches!(vault.resolve("latest"), Err(Error::LatestUnknown { .. })));
        let refused = vault.gc(&GcOptions::default()).map(drop);
        assert!(
            matches!(refused, Err(Error::MissingRoots { count: 1, .. })),
            "{refused:?}"
        );
        assert_eq!(vault.snapshot_ids().unwrap(), [old]);
    }
    // Who has never seen it cannot miss it; who has knows it also without its cache.
    let vault = world.open(&world.owner);
    assert_eq!(vault.resolve_id(&new.to_string()).unwrap(), new);
    vault.forget(&[new]).unwrap();
    assert!(vault.snapshots().unwrap().1.is_empty());
    vault.gc(&GcOptions::default()).unwrap();
    vault.gc(&GcOptions::default()).unwrap();
    assert!(world.open(&world.owner).snapshots().unwrap().1.is_empty());
    assert_eq!(world.latest("latest").unwrap(), old);
}

/// Whoever may add to a place can put bytes there that are no snapshot of this vault, or two roots of one number with a stolen key: both are
/// told, and stop nobody.
#[test]
fn what_counts_for_nobody_and_what_is_there_twice_stops_no_latest() {
    let world = World::new();
    let id = world.publish(&world.owner, "host", 0);
    let writer = add_key(&world.open(&world.owner), Role::Writer);
    let junk = b"no root at all";
    let junk_name = Name::root(&RootName {
        kind: RootKind::SNAPSHOT,
        registration: RegistrationId([3; 16]),
        number: 0,
        hash: object_hash(junk),
    });
    world.store.overwrite(&junk_name, junk.as_slice().into());
    let stolen = secrets(&writer, &world.store);
    let payload = snapshot(Recipe::default()).encode();
    let mut twice = [0; 2].map(|_| craft_root(&stolen, [7; 16], ALONE, &payload)).to_vec();
    // One that cannot be read in the epoch that it claims, which the thief made up.
    let mut newer = stolen.clone();
    newer.epochs[0].number = 9;
    twice.push(craft_root(&newer, [8; 16], ALONE, &payload));
    for (name, object) in &twice {
        world.store.overwrite(&Name::root(name), object.clone().into());
    }
    assert_eq!(world.latest("latest").unwrap(), id);
    let said = lines(&world.open(&world.owner).snapshots().unwrap().1);
    let named = twice.iter().map(|(name, _)| Name::root(name)).chain([junk_name]);
    for name in named {
        assert!(said.contains(name.as_str()), "{said}");
    }
}

/// A1: while the newest snapshot cannot be read, nothing else is taken for it.
#[test]
fn a_damaged_root_stops_latest() {
    let world = World::new();
    let old = world.publish(&world.owner, "host", 0);
    world.later(60);
    let new = world.publish(&world.owner, "host", 0);
    let name = root_of(&*world.store, &new);
    let mut object = world.store.contents()[&name].to_vec();
    object[100] ^= 1;
    world.store.overwrite(&name, object.into());
    assert!(matches!(
        world.latest("latest"),
        Err(Error::LatestUnknown { count: 1, .. })
    ));
    assert_eq!(world.latest(&old.to_string()).unwrap(), old);
}
