//! Key slots of a vault: reading, adding, removing, renewing them. Deletion itself is gc.rs's.
//!
//! - A slot counts only if the vault's own key signed it, so nobody can slip in a slot of his own.
//! - A rewritten slot gets a new name before the old one goes: at every moment the same locks open the vault.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use drystone_format::keys::{OpenKey, Role, Secrets, VerifyKey, epoch_number};
use drystone_format::slot::{Lock, SealedNote, Slot, SlotNote};
use drystone_format::tree::Time;
use drystone_format::{SlotId, random};
use drystone_store::{Kind, Name, Prefix};

use crate::context::{Context, Source};
use crate::error::{Error, Result};
use crate::gc::deletion::delete_slot;
use crate::keyring::keys::{NewLock, Unlocked};
use crate::keyring::owner_key;
use crate::keyring::unlock::read_slots;
use crate::places::allow::Act;
use crate::places::pin::hex;
use crate::places::place::Place;
use crate::problem::Problems;
use crate::vault::Vault;

/// How long slots that were read on opening are good for the first run, seconds: so a command that opens a vault and stores reads them once.
const FRESH_SECONDS: i64 = 5;
/// A key slot to be made.
#[derive(Debug, Clone)]
pub struct NewSlot {
    /// What will unlock it.
    pub lock: NewLock,
    /// The owner's name for it.
    pub label: String,
    /// What its credential may do.
    pub role: Role,
}

/// A key slot as it is shown.
#[derive(Debug, Clone)]
pub struct SlotInfo {
    /// Its name.
    pub id: SlotId,
    /// What its credential may do.
    pub role: Role,
    /// What unlocks it.
    pub lock: Lock,
    /// The owner's name for it.
    pub label: String,
    /// When it was made.
    pub created: Time,
    /// The public key it is locked to; empty for passphrases.
    pub recipient: String,
    /// Verifies what its credential signs.
    pub writer: VerifyKey,
    /// Whether it unlocked the vault just now.
    pub current: bool,
}

/// Whether the removal of a key also closes what is written from now on to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewEpoch {
    /// The removed key no longer opens the vault; who kept a copy of its secrets still can.
    Keep,
    /// A new key epoch starts: copies of the old secrets open nothing that is written from now on.
    Start,
}

/// The ids of all key slots, also of those that cannot be read.
fn slot_ids(place: &Place) -> Result<Vec<SlotId>> {
    let names = place.names(&Prefix::Keys)?.into_iter();
    let ids = names.filter_map(|name| match name.kind() {
        Kind::Key(id) => Some(id),
        _ => None,
    });
    Ok(ids.collect())
}

/// A slot that is not stored yet.
pub(crate) struct MadeSlot {
    pub(crate) id: SlotId,
    pub(crate) object: Bytes,
    pub(crate) credential: Secrets,
    pub(crate) lock: Unlocked,
}

/// A new slot that holds a credential made from the owner's `secrets`.
pub(crate) fn new_slot(context: &Context, secrets: &Secrets, header: &[u8], new: &NewSlot) -> Result<MadeSlot> {
    let mut random = Source(&*context.entropy);
    let slot_key = OpenKey::generate(&mut random);
    let mut slot = Slot {
        vault: secrets.vault,
        id: SlotId(random::array(&mut random)),
        role: new.role,
        lock: new.lock.lock(),
        created: context.clock.now(),
        note: SealedNote::default(),
        slot_key: slot_key.seal_key()?,
        locked: new.lock.wrap(&slot_key, &secrets.vault_verify)?,
        sealed: Vec::new(),
        own: Vec::new(),
        header: header.to_vec(),
        unknown: Vec::new(),
    };
    let vault_key = owner_key(secrets)?;
    let credential = secrets.delegate(&mut random, slot.role)?;
    let note = SlotNote {
        label: new.label.clone(),
        recipient: new.lock.recipient(),
        writer: credential.certificate.writer,
    };
    slot.fill(&credential, &mut random)?;
    slot.set_note(secrets, &note, &mut random)?;
    Ok(MadeSlot {
        id: slot.id,
        object: Bytes::from(slot.encode(vault_key)?),
        credential,
        lock: Unlocked {
            slot_key,
            vault_verify: secrets.vault_verify,
        },
    })
}

impl Vault {
    /// All key slots, and those that are damaged or foreign.
    pub fn keys(&self) -> Result<(Vec<SlotInfo>, Problems)> {
        let (slots, mut problems) = read_slots(&self.place)?;
        let mut infos = Vec::new();
        for (slot, object) in slots {
            if let Err(error) = Slot::verify(&object, &self.secrets.vault_verify) {
                problems.push(Name::key(&slot.id).as_str(), error);
                continue;
            }
            let note = match slot.open_note(&self.secrets) {
                Ok(note) => note,
                Err(error) => {
                    problems.push(Name::key(&slot.id).as_str(), error);
                    continue;
                }
            };
            infos.push(SlotInfo {
                id: slot.id,
                role: slot.role,
                lock: slot.lock,
                label: note.label,
                created: slot.created,
                recipient: note.recipient,
                writer: note.writer,
                current: slot.id == self.slot,
            });
        }
        infos.sort_by_key(|info| (info.created, info.id));
        Ok((infos, problems))
    }

    /// Adds a key; durable on return.
    pub fn add_key(&self, new: &NewSlot) -> Result<SlotId> {
        self.allow(Act::Store)?;
        let made = new_slot(&self.context, &self.secrets, &self.header_object(), new)?;
        let sealed_in = self.secrets.current()?.number;
        self.place.put(&Name::key(&made.id), made.object.clone())?;
        // Whoever starts a key epoch lists the slots again after that, and this slot was put before they are read here: one of both sees it.
        self.refresh_keys()?;
        if self.secrets.current()?.number == sealed_in {
            return Ok(made.id);
        }
        let slot = Slot::decode(&made.object).map_err(self.place.damaged(&Name::key(&made.id)))?;
        let renewed = self.store_renewed(slot, &self.secrets)?;
        delete_slot(&self.place, &made.id)?;
        Ok(renewed)
    }

    /// Removes a key that signs nothing for the vault, and says what verifies its signatures: from now on the configuration
    /// lists them as counting for nobody. All slots of the key go, and those of keys that were removed before. With [`NewEpoch::Start`] every
    /// remaining slot is renewed first.
    ///
    /// [`Error::OwnerStays`] for an owner's key: whoever kept a copy of the vault's signing key is an owner for ever, on
    /// every machine that has not seen the vault before. [`Error::Absent`] if one of several places is away: it would bring
    /// the removed slot back.
    pub fn remove_key(&self, id: &SlotId, new_epoch: NewEpoch) -> Result<Option<VerifyKey>> {
        self.allow(Act::Change)?;
        let removed = self.slot_to_remove(id)?;
        if removed.as_ref().is_some_and(|slot| slot.role.may_govern()) {
            return Err(Error::OwnerStays { id: id.to_string() });
        }
        let note = removed.and_then(|slot| slot.open_note(&self.secrets).ok());
        let writer = note.map(|note| note.writer);
        if let Some(writer) = writer {
            // Should this owner be stopped on the way, what is there by now goes on counting.
            self.state_roots(None)?;
            self.revoke(writer)?;
        }
        let gone: BTreeSet<VerifyKey> = self.revoked().chain(writer).collect();
        self.close_slots(&gone, &[*id], new_epoch)?;
        Ok(writer)
    }

    /// Removes the slots of keys that were removed, if a place or another owner has brought any back: everybody else gets a new key epoch.
    pub(crate) fn close_removed(&self, gone: &BTreeSet<VerifyKey>) -> Result<()> {
        let before = self.place.troubles_before();
        let is_gone = |slot: &SlotInfo| gone.contains(&slot.writer) && !slot.role.may_govern();
        if self.keys()?.0.iter().any(is_gone) {
            self.place.all_there(&before)?;
            self.close_slots(gone, &[], NewEpoch::Start)?;
        }
        Ok(())
    }

    /// Tidies an owner's slot away whose holder is still trusted. It protects nothing: a copy of the key, or of what it
    /// opened, still signs for the vault and reads all of it. The last owner's cannot be removed.
    pub fn tidy_owner_key(&self, id: &SlotId) -> Result<()> {
        self.slot_to_remove(id)?;
        delete_slot(&self.place, id)
    }

    /// The slot `id`, unless it cannot be read or is not the vault's own.
    fn slot_to_remove(&self, id: &SlotId) -> Result<Option<Slot>> {
        owner_key(&self.secrets)?;
        let before = self.place.troubles_before();
        let is_there = slot_ids(&self.place)?.contains(id);
        self.place.all_there(&before)?;
        if !is_there {
            return Err(Error::NoSlot { text: id.to_string() });
        }
        let (removed, remaining): (Vec<Slot>, Vec<Slot>) =
            self.own_slots()?.into_iter().partition(|slot| slot.id == *id);
        if !remaining.iter().any(|slot| slot.role.may_govern()) {
            return Err(Error::LastOwner { id: id.to_string() });
        }
        Ok(removed.into_iter().next())
    }

    /// The slots that the vault's key has signed.
    fn own_slots(&self) -> Result<Vec<Slot>> {
        let (slots, _) = read_slots(&self.place)?;
        let valid = slots
            .into_iter()
            .filter(|(_, object)| Slot::verify(object, &self.secrets.vault_verify).is_ok());
        Ok(valid.map(|(slot, _)| slot).collect())
    }

    /// Removes the slots named `ids` and all those of the keys that are `gone`. With [`NewEpoch::Start`] every other slot is first stored again
    /// under a new name with the secrets of a new epoch.
    fn close_slots(&self, gone: &BTreeSet<VerifyKey>, ids: &[SlotId], new_epoch: NewEpoch) -> Result<()> {
        self.secrets.learn(self.slot_source.read()?);
        let before = epoch_number(self.secrets.current()?.number);
        let mut secrets = self.secrets.as_ref().clone();
        if new_epoch == NewEpoch::Start {
            secrets.advance(&mut Source(&*self.context.entropy))?;
        }
        let (mut outdated, mut renewed) = (BTreeSet::from_iter(ids.iter().copied()), BTreeSet::new());
        loop {
            let mut slots = self.own_slots()?;
            slots.retain(|slot| !outdated.contains(&slot.id) && !renewed.contains(&slot.id));
            // Whoever dies in between leaves an epoch that this owner can open. Writers, who can only close it to others, come last.
            slots.sort_by_key(|slot| (slot.id != self.slot, !slot.role.may_govern(), !slot.role.may_read()));
            let count = outdated.len();
            for slot in slots {
                let note = slot.open_note(&self.secrets)?;
                let is_gone = gone.contains(&note.writer) && !slot.role.may_govern();
                // Another owner may do the same: what he has renewed is as new.
                let is_old = new_epoch == NewEpoch::Start && epoch_number(slot.epoch()) <= before;
                if !is_gone && !is_old {
                    renewed.insert(slot.id);
                    continue;
                }
                outdated.insert(slot.id);
                if !is_gone {
                    renewed.insert(self.store_renewed(slot, &secrets)?);
                }
            }
            // A key that was added meanwhile shows in the next list.
            if outdated.len() == count {
                break;
            }
        }
        self.secrets.learn(secrets.epochs.iter().cloned());
        self.remember_epoch();
        outdated.iter().try_for_each(|id| delete_slot(&self.place, id))
    }

    /// Stores a slot again under a new name with these secrets; returns the name.
    fn store_renewed(&self, mut slot: Slot, secrets: &Secrets) -> Result<SlotId> {
        let mut random = Source(&*self.context.entropy);
        let note = slot.open_note(&self.secrets)?;
        slot.id = SlotId(random::array(&mut random));
        slot.renew(secrets, &mut random)?;
        slot.set_note(secrets, &note, &mut random)?;
        let object = Bytes::from(slot.encode(owner_key(secrets)?)?);
        self.place.put(&Name::key(&slot.id), object)?;
        Ok(slot.id)
    }

    /// Reads the key slots again, unless they were read a moment ago, when the vault was opened.
    pub(crate) fn follow_keys(&self) -> Result<()> {
        let (opened, now) = (
            self.keys_read.swap(i64::MIN, Ordering::AcqRel),
            self.context.clock.now(),
        );
        if (opened..opened.saturating_add(FRESH_SECONDS)).contains(&now.seconds) {
            return Ok(());
        }
        self.refresh_keys()
    }

    /// Reads the key slots again: another owner may have started a key epoch since the vault was opened.
    pub fn refresh_keys(&self) -> Result<()> {
        self.secrets.learn(self.slot_source.read()?);
        self.remember_epoch();
        Ok(())
    }

    /// Finds the slot whose id, or whose signing key, begins with `text`; by its id whether it can be read or not.
    pub fn find_key(&self, text: &str) -> Result<SlotId> {
        let begins = |name: String| !text.is_empty() && name.starts_with(text);
        let by_id = slot_ids(&self.place)?.into_iter().filter(|id| begins(id.to_string()));
        // The key that a slot holds keeps its name when a new key epoch stores the slot again under another.
        let keys = self.keys()?.0.into_iter();
        let by_key = keys.filter(|key| begins(hex(&key.writer.0))).map(|key| key.id);
        let found: BTreeSet<SlotId> = by_id.chain(by_key).collect();
        match found.len() {
            1 => found.into_iter().next(),
            _ => None,
        }
        .ok_or_else(|| Error::NoSlot { text: text.to_owned() })
    }
}
