//! What honest machines do, through the interface of the engine, and what is remembered of it.
//!
//! - An error is an answer: whoever is refused has been told. Only what succeeds is held against the promises.

use std::sync::atomic::Ordering;

use drystone_vault::retention::{Group, Keep};
use drystone_vault::{CheckOptions, Error, GcOptions, PlaceUse, RepairOptions, ScrubOptions, Vault};

use crate::attack::forge::pick_of;
use crate::attack::oracle::{Violation, broken};
use crate::attack::trace::{Client, Verb};
use crate::attack::world::{AUTO_CREATES, Acked, HOSTS, Pending, World, begin, files_of, finish, without_cache};

const DAY: i64 = 86_400;

impl World {
    /// One honest step, and what must hold after it.
    pub(crate) fn honest(&mut self, client: Client, verb: Verb, from: u8) -> Result<(), Violation> {
        self.clock.fetch_add(600, Ordering::Relaxed);
        let before = self.state();
        let places = self.spots.iter().chain([&self.evil]);
        places.for_each(|spot| spot.written.lock().clear());
        let outcome = self.perform(client, verb, from);
        self.secrecy(&before)?;
        outcome?;
        let after = self.state();
        self.note_births(&after);
        self.history.push(after);
        if self.spots.iter().any(|spot| spot.is_overrun()) {
            return broken("endless", format!("{client:?} {verb:?}"));
        }
        Ok(())
    }

    fn perform(&mut self, client: Client, verb: Verb, from: u8) -> Result<(), Violation> {
        match verb {
            Verb::Wait(days) => {
                self.clock.fetch_add(i64::from(days) * DAY, Ordering::Relaxed);
                return Ok(());
            }
            Verb::LoseCache => {
                let machine = self.machine(client);
                machine.pending = None;
                machine.key = without_cache(&machine.key);
                return Ok(());
            }
            Verb::Finish => return self.finish_run(client),
            _ => self.finish_run(client)?,
        }
        if matches!(verb, Verb::BackupAhead) {
            self.clock.fetch_add(365 * DAY, Ordering::Relaxed);
            let outcome = self.perform(client, Verb::Backup(7), from);
            self.clock.fetch_sub(365 * DAY, Ordering::Relaxed);
            return outcome;
        }
        let is_backup = matches!(verb, Verb::Backup(_) | Verb::Begin(_));
        let vault = match self.open(client, from) {
            Ok(vault) => vault,
            Err(Error::NoVault { .. }) if AUTO_CREATES && is_backup && self.spots.len() == 1 => {
                let Ok(vault) = self.create_anew(client) else {
                    return Ok(());
                };
                vault
            }
            Err(_) => return Ok(()),
        };
        let moved = self.moved(client, &vault);
        self.act(client, verb, vault)?;
        moved
    }

    fn act(&mut self, client: Client, verb: Verb, vault: Vault) -> Result<(), Violation> {
        let scrub = |repair| ScrubOptions {
            share: 1.0,
            repair,
            progress: Default::default(),
            cancel: Default::default(),
        };
        match verb {
            Verb::Backup(state) | Verb::Begin(state) => {
                let files = files_of(client, state);
                let Ok((ingest, tree)) = begin(&vault, &files) else {
                    return Ok(());
                };
                self.machine(client).pending = Some(Pending {
                    vault,
                    ingest,
                    tree,
                    files,
                });
                if matches!(verb, Verb::Backup(_)) {
                    self.finish_run(client)?;
                }
            }
            Verb::Look => drop(self.look(client, &vault)?),
            Verb::Restore => drop(self.restore(client, &vault)?),
            Verb::Forget(last) => self.forget(&vault, usize::from(last))?,
            Verb::Gc => drop(vault.gc(&GcOptions::default())),
            Verb::Check => drop(vault.check(&CheckOptions::default())),
            Verb::Scrub => drop(vault.scrub(&scrub(false))),
            Verb::Mend => drop(vault.scrub(&scrub(true))),
            Verb::Repair => drop(vault.repair(&RepairOptions::default())),
            Verb::UsePlace(pick) => self.use_place(client, vault, pick)?,
            Verb::Rekey => drop(self.rekey(&vault)),
            Verb::Finish | Verb::LoseCache | Verb::Wait(_) | Verb::BackupAhead => {}
        }
        Ok(())
    }

    /// Ends what a machine has begun.
    pub(crate) fn finish_run(&mut self, client: Client) -> Result<(), Violation> {
        let now = self.now();
        let Some(Pending {
            vault,
            ingest,
            tree,
            files,
        }) = self.machine(client).pending.take()
        else {
            return Ok(());
        };
        if let Ok(id) = finish(&vault, ingest, tree, client, now) {
            self.acked.push(Acked {
                id,
                client,
                files,
                is_forgotten: false,
            });
        }
        Ok(())
    }

    fn forget(&mut self, vault: &Vault, last: usize) -> Result<(), Violation> {
        let keep = Keep {
            last,
            grace_seconds: 14 * DAY,
            ..Keep::default()
        };
        let Ok((groups, _)) = vault.plan_forget(&keep, &|_| true) else {
            return Ok(());
        };
        let going: Vec<_> = groups.iter().flat_map(Group::forgotten).collect();
        if self.is_tolerated() {
            for client in [Client::Home, Client::Desk] {
                let own = |acked: &&Acked| acked.client == client && !acked.is_forgotten;
                let newest = self.acked.iter().rev().filter(own).take(last);
                if let Some(acked) = newest.into_iter().find(|acked| going.contains(&acked.id)) {
                    let host = HOSTS[client as usize];
                    return broken("keep-rules", format!("{} of {host} would be forgotten", acked.id));
                }
            }
        }
        // Also if it fails: it may have been done in part.
        let _ = vault.forget(&going);
        for acked in self.acked.iter_mut().filter(|acked| going.contains(&acked.id)) {
            acked.is_forgotten = true;
        }
        Ok(())
    }

    fn use_place(&mut self, client: Client, vault: Vault, pick: u8) -> Result<(), Violation> {
        let ids: Vec<_> = vault.places().iter().map(|entry| entry.id).collect();
        let Some(place) = pick_of(&ids, pick) else {
            return Ok(());
        };
        let used = PlaceUse {
            weight: 1 + u32::from(pick) % 3,
            ..PlaceUse::default()
        };
        match vault.use_place(place, used) {
            Ok(vault) => self.moved(client, &vault),
            Err(_) => Ok(()),
        }
    }
}
