//! Roots kept on this machine: read over the network once, never believed, never more than a list shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::RootId;
use drystone_store::{Delay, Kind, Memory, Name, Prefix, Range, Store};
use drystone_vault::{Problems, Vault};

use super::{Far, far};
use crate::altered::{Alter, Altered};
use crate::support::{Fixture, back_up, check, files, lines, noise, root_of, walk};

const COUNT: u64 = 20;

/// A vault that far away with some snapshots, whose roots another machine will read.
fn with_snapshots(count: u64) -> (Far, Vec<RootId>) {
    let (far, vault) = far(Duration::ZERO);
    let ids = (0..count).map(|seed| add(&vault, seed)).collect();
    (far, ids)
}

fn add(vault: &Vault, seed: u64) -> RootId {
    back_up(vault, &[("file", &noise(seed + 1, 500))]).unwrap().0
}

fn kept(machine: &Fixture) -> Vec<PathBuf> {
    let all = walk(machine.cache.path()).into_iter();
    all.filter(|path| path.parent().is_some_and(|dir| dir.ends_with("roots")))
        .collect()
}

fn ids(listed: (Vec<(RootId, drystone_format::snapshot::Snapshot)>, Problems)) -> Vec<RootId> {
    assert_eq!(lines(&listed.1), "");
    let mut ids: Vec<RootId> = listed.0.into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids
}

fn sorted(mut ids: Vec<RootId>) -> Vec<RootId> {
    ids.sort_unstable();
    ids
}

#[test]
fn each_root_is_read_over_the_network_once() {
    let (far, mut all) = with_snapshots(COUNT);
    let machine = far.fixture.elsewhere();
    far.store.take();
    assert_eq!(ids(far.open(&machine).snapshots().unwrap()), sorted(all.clone()));
    assert_eq!(far.gets("roots/"), COUNT as usize);
    // Another process, and one more snapshot.
    assert_eq!(ids(far.open(&machine).snapshots().unwrap()), sorted(all.clone()));
    assert_eq!(far.gets("roots/"), 0);
    all.push(add(&far.again(), 99));
    far.store.take();
    let vault = far.open(&machine);
    assert_eq!(ids(vault.snapshots().unwrap()), sorted(all.clone()));
    assert_eq!(far.gets("roots/"), 1);
    assert_eq!(files(&vault, &all[3]).unwrap(), [("file".to_owned(), noise(4, 500))]);
    assert_eq!(far.gets("roots/"), 0);
    assert_eq!(kept(&machine).len(), all.len());
    // What is sealed at the place is sealed here.
    let objects = far.objects.contents();
    for path in kept(&machine) {
        let bytes = std::fs::read(path).unwrap();
        assert!(objects.values().any(|object| *object == bytes));
    }
    vault.forget(&all[..5]).unwrap();
    assert_eq!(ids(far.open(&machine).snapshots().unwrap()), sorted(all[5..].to_vec()));
    assert_eq!(kept(&machine).len(), all.len() - 5, "what is gone there is gone here");
}

/// Notes how many objects are read at once.
#[derive(Debug, Default)]
struct Crowd {
    objects: Arc<Memory>,
    now: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Alter for Crowd {
    fn inner(&self) -> &Memory {
        &self.objects
    }

    async fn get(&self, name: &Name, range: Range) -> drystone_store::Result<Bytes> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        self.objects.get(name, range).await
    }
}

#[test]
fn many_roots_are_read_at_once() {
    let (far, all) = with_snapshots(40);
    let crowd = Arc::new(Altered(Crowd {
        objects: far.objects.clone(),
        ..Crowd::default()
    }));
    let store = Arc::new(Delay::new(crowd.clone(), Duration::ZERO));
    let vault = far.fixture.elsewhere().open(store).unwrap();
    assert_eq!(vault.snapshots().unwrap().0.len(), all.len());
    let most = crowd.0.most.load(Ordering::SeqCst);
    assert!((24..=32).contains(&most), "{most} at once");
}

#[test]
fn whatever_becomes_of_the_kept_roots_the_snapshots_are_the_same() {
    let (far, all) = with_snapshots(6);
    let machine = far.fixture.elsewhere();
    let all = sorted(all);
    assert_eq!(ids(far.open(&machine).snapshots().unwrap()), all);
    let paths = kept(&machine);
    let of_another = std::fs::read(&paths[1]).unwrap();
    let damage = |at: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(&paths[at]).unwrap();
        change(&mut bytes);
        std::fs::write(&paths[at], bytes).unwrap();
    };
    damage(0, &|bytes| bytes[200] ^= 1);
    damage(2, &|bytes| bytes.truncate(bytes.len() / 2));
    damage(3, &|bytes| *bytes = of_another.clone());
    damage(4, &|bytes| bytes.clear());
    std::fs::remove_file(&paths[5]).unwrap();
    std::fs::create_dir(&paths[5]).unwrap();
    far.store.take();
    assert_eq!(ids(far.open(&machine).snapshots().unwrap()), all);
    assert_eq!(far.gets("roots/"), 5);
    std::fs::remove_dir(&paths[5]).unwrap();
    assert_eq!(ids(far.open(&machine).snapshots().unwrap()), all);
    far.store.take();
    assert_eq!(ids(far.open(&machine).snapshots().unwrap()), all);
    assert_eq!(far.gets("roots/"), 0, "all of them are whole again");
    // All of the cache, also under an open vault.
    let vault = far.open(&machine);
    std::fs::remove_dir_all(machine.cache.path().join(vault.id().to_string()).join("roots")).unwrap();
    assert_eq!(ids(vault.snapshots().unwrap()), all);
    assert_eq!(far.gets("roots/"), all.len());
    assert_eq!(kept(&machine).len(), all.len());
}

#[test]
fn a_root_that_is_kept_here_and_gone_there_is_missed() {
    let (far, all) = with_snapshots(3);
    let machine = far.fixture.elsewhere();
    ids(far.open(&machine).snapshots().unwrap());
    far.objects.remove(&root_of(&*far.objects, &all[1]));
    let vault = far.open(&machine);
    let (there, problems) = vault.snapshots().unwrap();
    assert_eq!((there.len(), problems.count()), (2, 1), "{}", lines(&problems));
    assert!(vault.snapshot(&all[1]).is_err());
    assert!(vault.resolve("latest").is_err());
    assert_eq!(kept(&machine).len(), 2);
}

#[test]
fn an_older_state_of_the_place_is_told_though_the_roots_are_kept() {
    let (far, all) = with_snapshots(2);
    let before = far.objects.contents();
    add(&far.again(), 50);
    let machine = far.fixture.elsewhere();
    assert_eq!(far.open(&machine).snapshots().unwrap().0.len(), 3);
    for name in far.objects.contents().into_keys() {
        match before.get(&name) {
            Some(bytes) => far.objects.overwrite(&name, bytes.clone()),
            None => far.objects.remove(&name),
        }
    }
    let (there, problems) = far.open(&machine).snapshots().unwrap();
    assert_eq!((there.len(), problems.count()), (all.len(), 1), "{}", lines(&problems));
}

#[test]
fn who_decides_what_can_be_spared_reads_the_roots_where_they_lie() {
    let (far, all) = with_snapshots(3);
    let machine = far.fixture.elsewhere();
    ids(far.open(&machine).snapshots().unwrap());
    let name = root_of(&*far.objects, &all[2]);
    let mut bytes = far.objects.contents()[&name].to_vec();
    bytes[100] ^= 1;
    far.objects.overwrite(&name, bytes.into());
    let vault = far.open(&machine);
    // What it says is known here; that it is damaged there is found by whoever looks for damage, or forgets others for it.
    assert_eq!(vault.snapshots().unwrap().0.len(), 3);
    assert!(lines(&check(&vault).problems).contains(name.as_str()));
    let (_, problems) = vault.plan_forget(&Default::default(), &|_| true).unwrap();
    assert!(lines(&problems).contains(name.as_str()));
    assert!(vault.gc(&Default::default()).is_err());
    assert!(
        vault
            .doctor()
            .unwrap()
            .iter()
            .any(|finding| finding.what.contains(name.as_str()))
    );
}

#[test]
fn processes_that_share_the_kept_roots_all_see_every_snapshot() {
    let (far, mut all) = with_snapshots(12);
    let machine = far.fixture.elsewhere();
    let writer = far.again();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let found = far.open(&machine).snapshots().unwrap();
                    assert_eq!(lines(&found.1), "");
                    assert!(found.0.len() >= 12);
                }
            });
        }
        all.extend((100..104).map(|seed| add(&writer, seed)));
    });
    assert_eq!(ids(far.open(&machine).snapshots().unwrap()), sorted(all));
    for path in kept(&machine) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("snapshot-"), "{name}");
    }
}

#[test]
fn a_place_that_is_near_is_read_and_nothing_kept() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    add(&vault, 1);
    vault.snapshots().unwrap();
    assert!(kept(&fixture).is_empty());
    let roots = store.contents().into_keys();
    assert_eq!(roots.filter(|name| matches!(name.kind(), Kind::Root(_))).count(), 1);
    assert!(store.contents().keys().any(|name| Prefix::AllRoots.covers(name)));
}
