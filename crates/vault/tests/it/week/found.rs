//! What weeks of the door have found, each as a test of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use async_trait::async_trait;
use bytes::Bytes;
use drystone_store::{Listed, Memory, Name, Prefix, Put, Range, Store, Traits};
use drystone_vault::GcOptions;
use parking_lot::Mutex;

use super::door::{Door, Machine, Ticking};
use super::machine;
use super::owner::{assert_kept, keep, stranger};
use crate::spread_world::World;
use crate::support::Fixture;

const URL: &str = "mem://a";

/// A new vault at one place in memory, and a door.
fn opened() -> (World, Fixture, Machine, Door) {
    let (world, fixture, clock) = (World::default(), Fixture::new(), Arc::new(Ticking::default()));
    drop(world.create(&fixture, &[URL], (1, 1)));
    let machine = machine(&world, &fixture, &clock, &[URL.to_owned()]);
    let door = Door::open(&machine, clock, 1, None);
    (world, fixture, machine, door)
}

/// Asks somebody to do something, and hears when it is done.
type Ask = (SyncSender<()>, Receiver<()>);

/// A place where something happens before each list of roots.
struct Meanwhile {
    inner: Arc<Memory>,
    ask: Arc<Mutex<Option<Ask>>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Meanwhile({:?})", self.inner)
    }
}

#[async_trait]
impl Store for Meanwhile {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> drystone_store::Result<Put> {
        self.inner.put(name, bytes).await
    }

    async fn get(&self, name: &Name, range: Range) -> drystone_store::Result<Bytes> {
        self.inner.get(name, range).await
    }

    async fn stat(&self, name: &Name) -> drystone_store::Result<u64> {
        self.inner.stat(name).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> drystone_store::Result<Vec<Listed>> {
        if let (Prefix::AllRoots | Prefix::Roots(_), Some((ask, done))) = (prefix, &*self.ask.lock()) {
            ask.send(()).unwrap();
            done.recv().unwrap();
        }
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, name: &Name) -> drystone_store::Result<()> {
        self.inner.delete(name).await
    }
}

/// However long lists take: between the list of packs and that of roots there is always a commit.
#[test]
fn gc_comes_to_its_end_beside_a_door_that_commits_at_every_list() {
    let (world, _fixture, machine, mut door) = opened();
    for _ in 0..30 {
        door.commit();
    }
    let ask = Arc::new(Mutex::new(None));
    world.show(URL, |inner| {
        let ask = ask.clone();
        Arc::new(Meanwhile { inner, ask })
    });
    let (owner, _elsewhere) = stranger(&machine);
    let vault = owner.open();
    let (groups, _) = vault.plan_forget(&keep(), &|_| true).unwrap();
    let forgotten: Vec<_> = groups.iter().flat_map(|group| group.forgotten()).collect();
    vault.forget(&forgotten).unwrap();
    door.history.retain(|root, _| !forgotten.contains(root));
    for _ in 0..3 {
        let ((ask_one, asked), (done, is_done)) = (sync_channel(0), sync_channel(0));
        *ask.lock() = Some((ask_one, is_done));
        let committing = &mut door;
        let collected = std::thread::scope(|scope| {
            scope.spawn(move || {
                while asked.recv().is_ok() {
                    committing.commit();
                    done.send(()).unwrap();
                }
            });
            let collected = vault.gc(&GcOptions::default());
            *ask.lock() = None;
            collected
        });
        let report = collected.unwrap();
        assert!(report.condemned_packs > 0, "{report:?}");
        assert_kept(&machine, "after gc", &door.history);
    }
    door.close();
}

/// A commit writes down all roots that the machine knows: these must not be those of a year.
#[test]
fn a_door_remembers_no_root_that_was_forgotten() {
    let (_world, fixture, machine, mut door) = opened();
    for _ in 0..60 {
        door.commit();
    }
    let (owner, _elsewhere) = stranger(&machine);
    let vault = owner.open();
    let (groups, _) = vault.plan_forget(&keep(), &|_| true).unwrap();
    let forgotten: Vec<_> = groups.iter().flat_map(|group| group.forgotten()).collect();
    vault.forget(&forgotten).unwrap();
    door.handle().refresh().unwrap();
    door.commit();
    let known = fixture
        .cache
        .path()
        .join("known")
        .join(format!("{}.snapshots", vault.id()));
    let bytes = std::fs::metadata(known).unwrap().len();
    assert!(bytes < 20 * 100, "{bytes} bytes for 11 roots");
    door.close();
}
