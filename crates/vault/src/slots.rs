//! Key slots of a vault: reading, adding, removing, renewing them. Deletion itself is gc.rs's.
//!
//! - A slot counts only if the vault's own key signed it, so nobody can slip in a slot of his own.
//! - A rewritten slot gets a new name before the old one goes: at every moment the same locks open the vault.

use bytes::Bytes;
use drystone_format::header::Header;
use drystone_format::keys::{OpenKey, Role, Secrets};
use drystone_format::slot::{Lock, Slot};
use drystone_format::tree::Time;
use drystone_format::{SlotId, random};
use drystone_store::{Kind, Name, Prefix, Range};

use crate::context::{Context, Source};
use crate::error::{Error, Result};
use crate::features::Act;
use crate::gc::delete_slot;
use crate::keys::{NewLock, Unlock, Unlocked};
use crate::place::Place;
use crate::problem::Problems;
use crate::vault::Vault;

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

/// All slots at `place` that can be parsed; what cannot is a problem.
pub(crate) fn read_slots(place: &Place) -> Result<(Vec<(Slot, Bytes)>, Problems)> {
    let (mut slots, mut problems, mut names) = (Vec::new(), Problems::default(), Vec::new());
    place.for_each(&Prefix::Keys, |listed| {
        names.push(listed.name);
        Ok(())
    })?;
    for name in names {
        let object = match place.get(&name, Range::All) {
            Ok(object) => object,
            Err(error @ Error::Store(drystone_store::Error::Unavailable { .. })) => return Err(error),
            Err(error) => {
                problems.push(name.as_str(), error);
                continue;
            }
        };
        match Slot::decode(&object) {
            Ok(slot) if name.kind() == Kind::Key(slot.id) => slots.push((slot, object)),
            Ok(slot) => problems.push(
                name.as_str(),
                format!("this is key slot {} under another name", slot.id),
            ),
            Err(error) => problems.push(name.as_str(), format!("{error}; remove it and add the key again")),
        }
    }
    Ok((slots, problems))
}

/// The secrets that `unlock` opens, and in which slot. Slots of the vault that `header` is of are tried first: one of
/// another vault may have been copied here, for the same key.
pub(crate) fn unlock(
    place: &Place,
    slots: &[(Slot, Bytes)],
    header: Option<&Header>,
    unlock: &Unlock,
) -> Result<(Secrets, Slot)> {
    let is_foreign = |slot: &Slot| header.is_some_and(|header| header.vault != slot.vault);
    let mut first_error = None;
    for (foreign, lock) in [false, true]
        .into_iter()
        .flat_map(|foreign| unlock.locks().iter().map(move |lock| (foreign, lock)))
    {
        let chosen = |(slot, _): &&(Slot, Bytes)| slot.lock == *lock && is_foreign(slot) == foreign;
        for (slot, object) in slots.iter().filter(chosen) {
            let Some(unlocked) = unlock.open(&slot.locked) else {
                continue;
            };
            match open_slot(slot, object, &unlocked) {
                Ok(secrets) => return Ok(newest(slots, (secrets, slot), &unlocked)),
                Err(error) => first_error = first_error.or(Some(place.damaged(&Name::key(&slot.id))(error))),
            }
        }
    }
    let is_damaged =
        |(_, object): &&(Slot, Bytes)| header.is_some_and(|header| Slot::verify(object, &header.vault_verify).is_err());
    let damaged: Vec<String> = slots
        .iter()
        .filter(is_damaged)
        .map(|(slot, _)| format!("; {} is damaged or another vault's", Name::key(&slot.id)))
        .collect();
    Err(first_error.unwrap_or_else(|| Error::WrongKey {
        place: place.name().to_owned(),
        slots: slots.len(),
        damaged: damaged.concat(),
    }))
}

fn open_slot(slot: &Slot, object: &[u8], unlocked: &Unlocked) -> drystone_format::Result<Secrets> {
    let secrets = slot.open(&unlocked.slot_key)?;
    if secrets.vault_verify != unlocked.vault_verify {
        return Err(drystone_format::Error::Signature { object: "key slot" });
    }
    Slot::verify(object, &unlocked.vault_verify)?;
    Ok(secrets)
}

/// The slot with the newest secrets among those that the same key opens: a renewal that was interrupted leaves both.
fn newest(slots: &[(Slot, Bytes)], (secrets, slot): (Secrets, &Slot), unlocked: &Unlocked) -> (Secrets, Slot) {
    let age = |secrets: &Secrets| secrets.current().map_or(0, |epoch| epoch.number);
    let mut best = (secrets, slot);
    for (slot, object) in slots.iter().filter(|(other, _)| other.slot_key == slot.slot_key) {
        if let Ok(secrets) = open_slot(slot, object, unlocked)
            && (secrets.vault, secrets.vault_verify) == (best.0.vault, best.0.vault_verify)
            && age(&secrets) > age(&best.0)
        {
            best = (secrets, slot);
        }
    }
    (best.0, best.1.clone())
}

/// The object of a new slot that holds a credential made from the owner's `secrets`.
pub(crate) fn new_slot(context: &Context, secrets: &Secrets, header: &[u8], new: &NewSlot) -> Result<(SlotId, Bytes)> {
    let mut random = Source(&*context.entropy);
    let slot_key = OpenKey::generate(&mut random);
    let slot = Slot {
        vault: secrets.vault,
        id: SlotId(random::array(&mut random)),
        role: new.role,
        lock: new.lock.lock(),
        label: new.label.clone(),
        created: context.clock.now(),
        recipient: new.lock.recipient(),
        slot_key: slot_key.seal_key()?,
        locked: new.lock.wrap(&slot_key, &secrets.vault_verify)?,
        sealed: Vec::new(),
        header: header.to_vec(),
        unknown: Vec::new(),
    };
    finish_slot(context, secrets, slot)
}

/// Fills `slot` with a fresh credential and signs it.
fn finish_slot(context: &Context, secrets: &Secrets, mut slot: Slot) -> Result<(SlotId, Bytes)> {
    let mut random = Source(&*context.entropy);
    let vault_key = owner_key(secrets)?;
    slot.fill(&secrets.delegate(&mut random, slot.role)?, &mut random)?;
    Ok((slot.id, Bytes::from(slot.encode(vault_key)?)))
}

pub(crate) fn owner_key(secrets: &Secrets) -> Result<&drystone_format::keys::SignKey> {
    secrets
        .vault_key
        .as_ref()
        .ok_or(Error::Format(drystone_format::Error::WriterKey {
            what: "change keys or configuration",
        }))
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
            let Slot {
                id,
                role,
                lock,
                label,
                created,
                recipient,
                ..
            } = slot;
            infos.push(SlotInfo {
                id,
                role,
                lock,
                label,
                created,
                recipient,
                current: id == self.slot,
            });
        }
        infos.sort_by_key(|info| (info.created, info.id));
        Ok((infos, problems))
    }

    /// Adds a key; durable on return.
    pub fn add_key(&self, new: &NewSlot) -> Result<SlotId> {
        self.allow(Act::Store)?;
        let (id, object) = new_slot(&self.context, &self.secrets, &self.header_object(), new)?;
        self.place.put(&Name::key(&id), object)?;
        Ok(id)
    }

    /// Removes a key; the last owner's cannot be. With [`NewEpoch::Start`] every remaining slot is renewed first.
    ///
    /// [`Error::Absent`] if one of several places is away: it would bring the removed slot back.
    pub fn remove_key(&self, id: &SlotId, new_epoch: NewEpoch) -> Result<()> {
        owner_key(&self.secrets)?;
        self.allow(Act::Store)?;
        self.place.all_there()?;
        let (slots, _) = read_slots(&self.place)?;
        let valid = |(slot, object): &&(Slot, Bytes)| {
            slot.id != *id && Slot::verify(object, &self.secrets.vault_verify).is_ok()
        };
        let remaining: Vec<Slot> = slots.iter().filter(valid).map(|(slot, _)| slot.clone()).collect();
        if !remaining.iter().any(|slot| slot.role == Role::Owner) {
            return Err(Error::LastOwner { id: id.to_string() });
        }
        if !slots.iter().any(|(slot, _)| slot.id == *id) {
            return Err(Error::NoSlot { text: id.to_string() });
        }
        let mut outdated = vec![*id];
        if new_epoch == NewEpoch::Start {
            outdated.extend(self.renew(remaining)?);
        }
        outdated.iter().try_for_each(|id| delete_slot(&self.place, id))
    }

    /// Stores every slot again under a new name with the secrets of a new epoch; returns the outdated names.
    fn renew(&self, slots: Vec<Slot>) -> Result<Vec<SlotId>> {
        let mut random = Source(&*self.context.entropy);
        let mut secrets = self.secrets.as_ref().clone();
        secrets.advance(&mut random)?;
        let mut outdated = Vec::new();
        for slot in slots {
            let renewed = Slot {
                id: SlotId(random::array(&mut random)),
                ..slot
            };
            outdated.push(slot.id);
            let (id, object) = finish_slot(&self.context, &secrets, renewed)?;
            self.place.put(&Name::key(&id), object)?;
        }
        Ok(outdated)
    }

    /// The slot whose id begins with `text`.
    pub fn find_key(&self, text: &str) -> Result<SlotId> {
        let (slots, _) = read_slots(&self.place)?;
        let mut found = slots
            .iter()
            .map(|(slot, _)| slot.id)
            .filter(|id| !text.is_empty() && id.to_string().starts_with(text));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            _ => Err(Error::NoSlot { text: text.to_owned() }),
        }
    }
}
