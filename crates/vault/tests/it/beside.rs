//! Runs that look while another machine stores: what is newer than a listing is neither missing nor garbage.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use drystone_store::{Listed, Memory, Name, Prefix, Result, Store};
use drystone_vault::GcOptions;

use crate::altered::{Alter, Altered};
use crate::support::{Fixture, back_up, check, files, lines, noise};

/// A place at which something happens when a list is asked for.
struct Beside {
    memory: Memory,
    prefix: Prefix,
    once: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beside")
    }
}

#[async_trait]
impl Alter for Beside {
    fn inner(&self) -> &Memory {
        &self.memory
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> Result<Vec<Listed>> {
        let once = if *prefix == self.prefix {
            self.once.lock().unwrap().take()
        } else {
            None
        };
        if let Some(once) = once {
            std::thread::spawn(once).join().unwrap();
        }
        self.memory.list(prefix, after, limit).await
    }
}

fn beside(prefix: Prefix) -> Arc<Altered<Beside>> {
    Arc::new(Altered(Beside {
        memory: Memory::new(),
        prefix,
        once: Mutex::default(),
    }))
}

/// When the list is asked for the next time, another machine makes a backup.
fn back_up_beside(store: &Arc<Altered<Beside>>, fixture: &Fixture, seed: u64) {
    let (elsewhere, other) = (fixture.elsewhere(), store.clone());
    *store.0.once.lock().unwrap() = Some(Box::new(move || {
        let vault = elsewhere.open(other).unwrap();
        back_up(&vault, &[("beside", &noise(seed, 100_000))]).unwrap();
    }));
}

#[test]
fn gc_goes_on_beside_a_backup_that_ends_after_the_packs_were_listed() {
    for prefix in [
        Prefix::Writers,
        Prefix::AllRoots,
        Prefix::Epochs,
        Prefix::Ledger,
        Prefix::Packs,
    ] {
        let (fixture, store) = (Fixture::new(), beside(prefix));
        let vault = fixture.create(store.clone()).unwrap();
        let (first, _) = back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
        let (second, _) = back_up(&vault, &[("b", &noise(2, 100_000))]).unwrap();
        vault.forget(&[first]).unwrap();
        back_up_beside(&store, &fixture, 3);
        let report = vault.gc(&GcOptions::default()).unwrap();
        assert_eq!(
            (lines(&report.problems).as_str(), report.snapshots),
            ("", 2),
            "{prefix}"
        );
        let vault = fixture.elsewhere().open(store.clone()).unwrap();
        let report = check(&vault);
        assert_eq!(
            (lines(&report.problems).as_str(), report.snapshots),
            ("", 2),
            "{prefix}"
        );
        assert_eq!(files(&vault, &second).unwrap()[0].1, noise(2, 100_000));
    }
}

#[test]
fn a_snapshot_that_is_newer_than_the_list_of_packs_is_read() {
    let (fixture, store) = (Fixture::new(), beside(Prefix::Writers));
    let vault = fixture.create(store.clone()).unwrap();
    back_up(&vault, &[("a", &noise(1, 100_000))]).unwrap();
    let other = fixture.elsewhere().open(store).unwrap();
    let (newer, _) = back_up(&other, &[("b", &noise(2, 100_000))]).unwrap();
    assert_eq!(files(&vault, &newer).unwrap()[0].1, noise(2, 100_000));
}
