//! What doors keep on a machine: a directory for each, which goes with the local state.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use drystone_store::Memory;

use crate::support::Fixture;

#[test]
fn a_door_finds_its_directory_again_until_the_state_is_lost() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let vault = fixture.create(store.clone()).unwrap();
    let dir = vault.door_dir("one").unwrap();
    let mode = |dir: &std::path::Path| fs::metadata(dir).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(dir.parent().unwrap())), (0o700, 0o700));
    fs::write(dir.join("kept"), "x").unwrap();
    assert_ne!(vault.door_dir("two").unwrap(), dir);
    let again = fixture.open(store.clone()).unwrap();
    assert_eq!(again.door_dir("one").unwrap(), dir);
    assert!(dir.join("kept").exists());
    // Deleted while it is in use, it is made again.
    fs::remove_dir_all(&dir).unwrap();
    assert!(again.door_dir("one").unwrap().exists());
    fs::write(dir.join("kept"), "x").unwrap();
    drop((vault, again));
    let local = fixture
        .cache
        .path()
        .join(fixture.open(store.clone()).unwrap().id().to_string());
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(local.join(format!("state.sqlite{end}"))).unwrap();
    }
    let anew = fixture.open(store).unwrap().door_dir("one").unwrap();
    assert_ne!(anew, dir);
    assert!(!dir.exists() && fs::read_dir(anew).unwrap().next().is_none());
}

#[test]
fn processes_that_begin_a_state_together_agree_on_its_doors() {
    let (fixture, store) = (Fixture::new(), Arc::new(Memory::new()));
    let id = fixture.create(store.clone()).unwrap().id();
    fs::remove_dir_all(fixture.cache.path().join(id.to_string())).unwrap();
    let dirs: Vec<_> = std::thread::scope(|scope| {
        let open = || fixture.open(store.clone()).unwrap().door_dir("one").unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(dirs.iter().all(|dir| *dir == dirs[0] && dir.exists()), "{dirs:?}");
}
