//! The owner of the volume's vault, on another machine: forgets, collects, changes keys and places, looks whether all is well.

use std::time::Duration;

use drystone_format::RootId;
use drystone_format::keys::Role;
use drystone_vault::retention::Keep;
use drystone_vault::{Error, GcOptions, GcReport, NewEpoch, NewLock, NewSlot, Vault, generate_key_file};

use super::door::{History, Machine};
use super::whole;
use crate::pins::slot_of;
use crate::spread_world::repair;
use crate::support::{Fixture, check, lines};

/// Which snapshots stay: what a door needs to go back some commits, some hours and some days.
pub(super) fn keep() -> Keep {
    Keep {
        last: 10,
        hourly: 24,
        daily: 7,
        ..Keep::default()
    }
}

/// Collects garbage. Another run may be in the way of this one, and without a place nothing can be copied.
fn gc(vault: &Vault, silence: Duration) -> GcReport {
    let options = GcOptions {
        silence,
        ..GcOptions::default()
    };
    match vault.gc(&options) {
        Ok(report) => report,
        Err(Error::Absent { .. }) if vault.absent_places().iter().any(Option::is_some) => GcReport::default(),
        Err(error @ (Error::GivenUp { .. } | Error::Unmarked { .. })) => {
            println!("gc ended early: {error}");
            GcReport::default()
        }
        Err(error) => panic!("gc: {error}"),
    }
}

/// Forgets what the rules do not keep, and collects. Returns what was forgotten.
pub(super) fn forget_and_collect(vault: &Vault, silence: Duration) -> (Vec<RootId>, GcReport) {
    let (groups, problems) = vault.plan_forget(&keep(), &|_| true).unwrap();
    assert_eq!(lines(&problems), "");
    let forgotten: Vec<RootId> = groups.iter().flat_map(|group| group.forgotten()).collect();
    vault.forget(&forgotten).unwrap();
    (forgotten, gc(vault, silence))
}

/// Adds a key and removes it; a new key epoch begins.
pub(super) fn change_keys(vault: &Vault) {
    let key = generate_key_file();
    let slot = NewSlot {
        lock: NewLock::Recipient(key.recipient),
        label: "passing".to_owned(),
        role: Role::Member,
    };
    vault.add_key(&slot).unwrap();
    let id = slot_of(vault, |key| key.label == "passing");
    vault.remove_key(&id, NewEpoch::Start).unwrap();
}

/// A machine with the key of this one, that has never seen the vault. Its cache lies in the directory.
pub(super) fn stranger(machine: &Machine) -> (Machine, Fixture) {
    let nobody = Fixture::new();
    let mut stranger = machine.clone();
    stranger.context.cache_dir = nobody.cache.path().to_owned();
    stranger.context.known_dir = nobody.cache.path().join("known");
    (stranger, nobody)
}

/// Everything reads back on a machine that has never seen the vault.
pub(super) fn assert_kept(machine: &Machine, what: &str, history: &History) {
    let (stranger, _cache) = stranger(machine);
    let vault = stranger.open();
    whole::assert_all(
        &format!("{what}, a fresh handle"),
        &vault,
        vault.reader().unwrap(),
        history,
    );
}

/// Brings everything to where it belongs; then nothing is wrong.
pub(super) fn assert_sound(machine: &Machine, what: &str) {
    let (stranger, _cache) = stranger(machine);
    let vault = stranger.open();
    assert_eq!(lines(&repair(&vault).problems), "", "{what}: repair");
    drop(vault);
    assert_eq!(lines(&check(&stranger.open()).problems), "", "{what}: check");
}

/// The packs that a vault has.
pub(super) fn packs(vault: &Vault) -> u64 {
    let options = GcOptions {
        dry_run: true,
        ..GcOptions::default()
    };
    vault.gc(&options).unwrap().packs
}
