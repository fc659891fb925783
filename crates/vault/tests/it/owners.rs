//! Two owners who remove keys at the same moment: neither sees the other's removal, and what both meant holds in the end.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::keys::Role;
use drystone_store::{Kind, Memory, Name, Put, Result, Store};
use drystone_vault::{Error, InForce, NewEpoch};

use crate::altered::{Alter, Altered};
use crate::pins::{opens, slot_of};
use crate::support::{Fixture, add_key, back_up, check, files, lines, secrets};

/// A place at which something happens just before a configuration is stored.
struct Race {
    memory: Memory,
    once: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl fmt::Debug for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Race")
    }
}

#[async_trait]
impl Alter for Race {
    fn inner(&self) -> &Memory {
        &self.memory
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> Result<Put> {
        let is_config = matches!(name.kind(), Kind::Config(..));
        let once = if is_config {
            self.once.lock().unwrap().take()
        } else {
            None
        };
        if let Some(once) = once {
            std::thread::spawn(once).join().unwrap();
        }
        self.memory.put(name, bytes).await
    }
}

#[test]
fn keys_that_two_owners_remove_at_once_are_both_removed() {
    let fixture = Fixture::new();
    let store = Arc::new(Altered(Race {
        memory: Memory::named("/v"),
        once: Mutex::default(),
    }));
    let memory = &store.0.memory;
    let vault = fixture.create(store.clone()).unwrap();
    let (before, _) = back_up(&vault, &[("file", b"before")]).unwrap();
    let removed = [add_key(&vault, Role::Reader), add_key(&vault, Role::Member)];
    let old = removed.each_ref().map(|of| secrets(of, memory));
    let slots = old
        .each_ref()
        .map(|of| slot_of(&vault, |key| key.writer == of.certificate.writer));
    let first = fixture.elsewhere().open(store.clone()).unwrap();
    let second = fixture.elsewhere().open(store.clone()).unwrap();
    let slot = slots[1];
    *store.0.once.lock().unwrap() = Some(Box::new(move || {
        second.remove_key(&slot, NewEpoch::Start).unwrap();
    }));
    // It cannot know; whether it notices afterwards or not, both removals stand beside each other.
    let _ = first.remove_key(&slots[0], NewEpoch::Start);
    let owner = fixture.elsewhere().open(store.clone()).unwrap();
    let InForce { signed, rivals } = owner.in_force().unwrap();
    assert_eq!(rivals.len(), 1, "{:?}", owner.warnings());
    assert!(
        owner
            .warnings()
            .iter()
            .any(|warning| warning.contains("until an owner chooses"))
    );
    owner.resolve_config(Some(&signed.hash.to_string()[..12])).unwrap();
    let owner = fixture.elsewhere().open(store.clone()).unwrap();
    assert_eq!(owner.in_force().unwrap().rivals.len(), 0);
    let (after, _) = back_up(&owner, &[("file", b"after")]).unwrap();
    for (removed, old) in removed.iter().zip(&old) {
        assert!(opens(old, memory, &before) && !opens(old, memory, &after));
        let opened = removed.elsewhere().open(store.clone());
        let sees = opened.map(|vault| files(&vault, &after).is_ok());
        assert!(matches!(sees, Ok(false) | Err(Error::WrongKey { .. })), "{sees:?}");
    }
    assert_eq!(files(&owner, &after).unwrap()[0].1, b"after");
    assert_eq!(lines(&check(&owner).problems), "");
}
