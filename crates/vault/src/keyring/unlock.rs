//! Reading the key slots of a vault and unlocking them.
//!
//! - A slot counts only if the vault's own key signed it, so nobody can slip in a slot of his own.

use std::collections::HashMap;

use bytes::Bytes;
use drystone_format::SlotId;
use drystone_format::header::Header;
use drystone_format::keys::{Epoch, EpochSource, Secrets};
use drystone_format::slot::Slot;
use drystone_store::{Kind, Name, Prefix, Range};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::keyring::keys::{Unlock, Unlocked};
use crate::places::pin::VaultPin;
use crate::places::place::Place;
use crate::problem::Problems;

/// How often one unknown key epoch makes a process read its slots again.
const ASKED_MAX: u8 = 3;
/// How many unknown key epochs do.
const UNKNOWN_EPOCHS_MAX: usize = 256;

/// All slots at `place` that can be parsed; what cannot is a problem.
pub(crate) fn read_slots(place: &Place) -> Result<(Vec<(Slot, Bytes)>, Problems)> {
    let (mut slots, mut problems) = (Vec::new(), Problems::default());
    for name in place.names(&Prefix::Keys)? {
        let object = match place.get(&name, Range::All) {
            Ok(object) => object,
            Err(Error::Store(error)) if error.is_transient() => return Err(error.into()),
            Err(Error::Store(error @ drystone_store::Error::Stopped { .. })) => return Err(error.into()),
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

/// A slot that was unlocked.
pub(crate) struct Opened {
    pub(crate) secrets: Secrets,
    pub(crate) slot: Slot,
    pub(crate) unlocked: Unlocked,
}

impl Opened {
    /// The vault that the slot opens.
    pub(crate) fn pin(&self) -> VaultPin {
        VaultPin::of(&self.secrets)
    }
}

/// The secrets that `unlock` opens, and in which slot. Slots of the vault that `header` is of are tried first: one of
/// another vault may have been copied here, for the same key. Those of vaults that are not `wanted` are passed over.
pub(crate) fn unlock(
    place: &Place,
    slots: &[(Slot, Bytes)],
    header: Option<&Header>,
    unlock: &Unlock,
    wanted: &dyn Fn(&VaultPin) -> Result<()>,
) -> Result<Opened> {
    let is_foreign = |slot: &Slot| header.is_some_and(|header| header.vault != slot.vault);
    let mut first_error = None;
    for (foreign, lock) in [false, true]
        .into_iter()
        .flat_map(|foreign| unlock.locks().iter().map(move |lock| (foreign, lock)))
    {
        let chosen = |(slot, _): &&(Slot, Bytes)| slot.lock == *lock && is_foreign(slot) == foreign;
        for (slot, object) in slots.iter().filter(chosen) {
            unlock.check_memory()?;
            let Some(unlocked) = unlock.open(&slot.locked) else {
                continue;
            };
            let opened = open_slot(slot, object, &unlocked).map_err(place.damaged(&Name::key(&slot.id)));
            let opened = opened.and_then(|secrets| {
                let slot = slot.clone();
                let opened = Opened {
                    secrets,
                    slot,
                    unlocked,
                };
                wanted(&opened.pin()).map(|()| opened)
            });
            match opened {
                Ok(opened) => return Ok(opened),
                Err(error) => first_error = first_error.or(Some(error)),
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

/// What the same key opens of other slots: a renewal that was interrupted leaves two, both sides of a split make one each.
pub(crate) fn siblings(slots: &[(Slot, Bytes)], pin: &VaultPin, unlocked: &Unlocked) -> Vec<(SlotId, Secrets)> {
    let Ok(slot_key) = unlocked.slot_key.seal_key() else {
        return Vec::new();
    };
    let same = slots.iter().filter(|(slot, _)| slot.slot_key == slot_key);
    let opened = same.filter_map(|(slot, object)| Some((slot.id, open_slot(slot, object, unlocked).ok()?)));
    opened.filter(|(_, secrets)| VaultPin::of(secrets) == *pin).collect()
}

/// Unlocked slots that are read again when an object names a key epoch that is not known.
pub(crate) struct SlotSource {
    place: Place,
    pin: VaultPin,
    unlocked: Unlocked,
    asked: Mutex<HashMap<u64, u8>>,
}

impl SlotSource {
    pub(crate) fn new(place: Place, pin: VaultPin, unlocked: Unlocked) -> Self {
        Self {
            place,
            pin,
            unlocked,
            asked: Mutex::default(),
        }
    }

    /// What opens the slots.
    pub(crate) fn lock(&self) -> Unlocked {
        self.unlocked.clone()
    }

    /// All key epochs that the slots at the place hold for this credential now.
    pub(crate) fn read(&self) -> Result<Vec<Epoch>> {
        let (slots, _) = read_slots(&self.place)?;
        let secrets = siblings(&slots, &self.pin, &self.unlocked);
        Ok(secrets.into_iter().flat_map(|(_, secrets)| secrets.epochs).collect())
    }
}

impl EpochSource for SlotSource {
    fn epochs(&self, unknown: u64) -> Vec<Epoch> {
        // What is asked from within the runtime must not wait for it.
        if tokio::runtime::Handle::try_current().is_ok() {
            return Vec::new();
        }
        {
            // A writer can invent epochs: each is asked for a few times only, since lists of slots may lag.
            let mut asked = self.asked.lock();
            if asked.len() >= UNKNOWN_EPOCHS_MAX && !asked.contains_key(&unknown) {
                return Vec::new();
            }
            let times = asked.entry(unknown).or_default();
            if *times >= ASKED_MAX {
                return Vec::new();
            }
            *times += 1;
        }
        self.read().unwrap_or_default()
    }
}
