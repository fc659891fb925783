//! Opening a vault: from the places that were named to the secrets, without trusting any one of them.
//!
//! - What this machine knows and what the key file says is compared before a secret is used: a place that lacks the key can
//!   neither put another vault in the stead of the one that is meant, nor empty a place unnoticed.
//! - Slots are read at every named place that answers. All of these must hold the same vault; key epochs are united, so old
//!   slots replayed at one place win nothing.
//! - A place that cannot be used is passed over as long as one that can is named.
//! - A damaged or lost header is replaced by the copy in the key slot for the run, and reported.

use std::sync::Arc;

use bytes::Bytes;
use drystone_format::RootId;
use drystone_format::header::{Header, is_signed_header};
use drystone_format::keys::{Secrets, VerifyKey, epoch_number};
use drystone_format::slot::Slot;
use drystone_format::{SlotId, VaultId};
use drystone_store::{Name, Range, Store};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::keyring::keys::{self, Unlock};
use crate::keyring::unlock::{Opened, read_slots, siblings, unlock};
use crate::places::config::Standing;
use crate::places::known::{Known, KnownVault, Seen};
use crate::places::pin::VaultPin;
use crate::places::place::Place;
use crate::places::reach::{Reach, in_parallel, spares};
use crate::problem::Problems;

/// A vault whose secrets are known.
pub(crate) struct Unlocked {
    pub(crate) place: Place,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) slot: SlotId,
    /// Opens the slots of this credential again.
    pub(crate) lock: keys::Unlocked,
    pub(crate) header: Header,
    pub(crate) header_bytes: Bytes,
    pub(crate) warnings: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) sight: Sight,
    /// The named places that hold it.
    pub(crate) named: Vec<String>,
}

/// Why a vault is taken for the one that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It was made here, the key file names it, or a passphrase opened it, which nobody else could have locked.
    Proven,
    /// Only this machine's memory can tell; without one it is trusted on first use.
    Trusted,
}

/// What one place shows before anything is opened.
struct Look {
    place: Place,
    header: Result<(Header, Bytes), LostHeader>,
    slots: Vec<(Slot, Bytes)>,
    problems: Problems,
    /// The vault that this machine has seen there.
    pin: Option<VaultPin>,
}

/// Opens the vault with `unlock_with` at the named places.
pub(crate) fn unlock_named(reach: &Reach, context: &Context, unlock_with: &Unlock) -> Result<Unlocked> {
    let known = Known::in_dir(&context.known_dir);
    let looks = in_parallel(&reach.named, |store| Look::at(store, store.place(), context, &known));
    let (mut seen, mut first_error) = (Vec::new(), None);
    for look in looks {
        match look {
            Ok(look) => seen.push(look),
            Err(error @ Error::Memory { .. }) => return Err(error),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let wanted = |look: &Look, pin: &VaultPin| is_wanted(look, pin, context, &known, unlock_with);
    let mut opened = None;
    for (at, look) in seen.iter().enumerate() {
        match look.unlock(unlock_with, &|pin| wanted(look, pin)) {
            Ok(found) => {
                opened = Some((at, found));
                break;
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    if opened.is_none() {
        for store in &reach.named {
            for spare in spares(store, &context.runtime).unwrap_or_default() {
                let Ok(look) = Look::at(&spare, store.place(), context, &known) else {
                    continue;
                };
                if let Ok(found) = look.unlock(unlock_with, &|pin| wanted(&look, pin)) {
                    opened = Some((seen.len(), found));
                    seen.push(look);
                    break;
                }
            }
            if opened.is_some() {
                break;
            }
        }
    }
    let Some((at, opened)) = opened else {
        return Err(first_error.unwrap_or_else(|| Error::NoVault { place: String::new() }));
    };
    let named = agreed(&seen, &opened, &wanted)?;
    let (names_it, _) = unlock_with.named();
    let is_passphrase = matches!(unlock_with, Unlock::Passphrase(_));
    let sight = if is_passphrase || !names_it.is_empty() {
        Sight::Proven
    } else {
        Sight::Trusted
    };
    let all: Vec<(SlotId, Secrets)> = seen
        .iter()
        .flat_map(|look| siblings(&look.slots, &opened.pin(), &opened.unlocked))
        .collect();
    let mut unlocked = seen.swap_remove(at).into_unlocked(opened, sight, named)?;
    unlocked.unite(all);
    Ok(unlocked)
}

/// Whether the vault `pin` is the one that is meant at this place; an error that says what is known otherwise.
fn is_wanted(look: &Look, pin: &VaultPin, context: &Context, known: &Known, unlock_with: &Unlock) -> Result<()> {
    let (place, found) = (look.place.name().to_owned(), Box::new(*pin));
    if !context.accept.new_vault {
        if let Some(key) = known.vault(&pin.vault)?.map(|vault| vault.key)
            && key != pin.key
        {
            let known = Box::new(VaultPin { key, ..*pin });
            return Err(Error::OtherVaultKey { place, known, found });
        }
        if let Some(known) = look.pin
            && known != *pin
        {
            let known = Box::new(known);
            return Err(Error::OtherVault { place, known, found });
        }
    }
    let (named, origin) = unlock_with.named();
    if !named.is_empty() && !named.contains(pin) {
        let names: Vec<String> = named.iter().map(ToString::to_string).collect();
        return Err(Error::KeyOfOtherVault {
            place,
            origin: origin.to_owned(),
            named: names.join(" and "),
            found,
        });
    }
    Ok(())
}

/// The named places that hold the vault that was opened; an error if others hold another one.
fn agreed(seen: &[Look], opened: &Opened, wanted: &dyn Fn(&Look, &VaultPin) -> Result<()>) -> Result<Vec<String>> {
    let pin = opened.pin();
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for look in seen {
        let shown = look.header.as_ref().ok().map(|(header, _)| VaultPin::of_header(header));
        if shown == Some(pin) || !siblings(&look.slots, &pin, &opened.unlocked).is_empty() {
            wanted(look, &pin)?;
            ours.push(look.place.name().to_owned());
            continue;
        }
        let slots_of = look.slots.first().map(|(slot, _)| slot.vault);
        let other = shown.map(|shown| shown.to_string()).or(slots_of
            .filter(|vault| *vault != pin.vault)
            .map(|vault| vault.to_string()));
        if let Some(other) = other {
            others.push(format!("{}: {other}", look.place.name()));
        }
    }
    if others.is_empty() {
        return Ok(ours);
    }
    let all = ours.iter().map(|place| format!("{place}: {pin}")).chain(others);
    let places = all.collect::<Vec<_>>().join(", ");
    Err(Error::DifferentVaults { places })
}

/// The vaults that a place says it holds: its header's, or, if that is lost, its key slots'.
pub(crate) fn vaults_at(store: &Arc<dyn Store>, context: &Context) -> Result<Vec<VaultId>> {
    let place = Place::new(store.clone(), context.runtime.clone());
    let header = read_header(&place)?;
    match header {
        Ok((header, _)) => return Ok(vec![header.vault]),
        Err(LostHeader::Damaged(source @ drystone_format::Error::Version { .. }, _)) => {
            // Without a key nobody knows who says so; the slots may.
            if read_slots(&place)?.0.is_empty() {
                return Err(place.damaged(&Name::header())(source));
            }
        }
        Err(_) => {}
    }
    let (slots, _) = read_slots(&place)?;
    let mut vaults: Vec<VaultId> = slots.iter().map(|(slot, _)| slot.vault).collect();
    vaults.sort();
    vaults.dedup();
    Ok(vaults)
}

impl Look {
    /// Reads header and key slots at `store`, which is at the place `name`.
    fn at(store: &Arc<dyn Store>, name: &str, context: &Context, known: &Known) -> Result<Self> {
        let place = Place::new(store.clone(), context.runtime.clone());
        let pin = known.at(name)?;
        let header = read_header(&place)?;
        let (slots, problems) = read_slots(&place)?;
        if slots.is_empty() {
            let error = no_slots(&place, &header, &problems);
            return match (pin, &error) {
                (Some(known), Error::NoVault { place }) if !context.accept.new_vault => Err(Error::Emptied {
                    place: place.clone(),
                    known,
                }),
                _ => Err(error),
            };
        }
        Ok(Self {
            place,
            header,
            slots,
            problems,
            pin,
        })
    }

    fn unlock(&self, unlock_with: &Unlock, wanted: &dyn Fn(&VaultPin) -> Result<()>) -> Result<Opened> {
        let header = self.header.as_ref().ok().map(|(header, _)| header);
        let opened = unlock(&self.place, &self.slots, header, unlock_with, wanted);
        opened.map_err(|error| match (error, header) {
            // The key fits nothing here, since another vault lies here.
            (error @ Error::WrongKey { .. }, Some(header)) => match wanted(&VaultPin::of_header(header)) {
                Err(other) => other,
                Ok(()) => also_damaged(error, &self.problems),
            },
            (error, _) => also_damaged(error, &self.problems),
        })
    }

    /// What was opened here, with the header, or its copy in the slot.
    fn into_unlocked(self, opened: Opened, sight: Sight, named: Vec<String>) -> Result<Unlocked> {
        let mut warnings: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        let pin = opened.pin();
        let Opened {
            secrets,
            slot,
            unlocked,
        } = opened;
        let (header, header_bytes) = match self.header {
            Ok((header, bytes)) if VaultPin::of_header(&header) == pin => (header, bytes),
            lost => {
                let reason = match lost {
                    Ok(_) => "it is another vault's".to_owned(),
                    Err(lost) => lost.reason(&self.place, &pin.key)?,
                };
                warnings.push(format!(
                    "{}: the vault header is damaged ({reason}); its copy in the key slot is used; run `drystone repair header`",
                    Name::header()
                ));
                let header = Header::decode(&slot.header).map_err(self.place.damaged(&Name::key(&slot.id)))?;
                (header, Bytes::from(slot.header))
            }
        };
        Ok(Unlocked {
            place: self.place,
            secrets: Arc::new(secrets),
            slot: slot.id,
            lock: unlocked,
            header,
            header_bytes,
            warnings,
            notes: Vec::new(),
            sight,
            named,
        })
    }
}

impl Unlocked {
    /// The vault that was opened.
    pub(crate) fn pin(&self) -> VaultPin {
        VaultPin::of(&self.secrets)
    }

    /// Adds what other slots of the same credential hold; the slot with the highest key epoch is the one in use.
    pub(crate) fn unite(&mut self, slots: Vec<(SlotId, Secrets)>) {
        let highest = |secrets: &Secrets| secrets.epochs.last().map(|epoch| epoch.number);
        let mut best = highest(&self.secrets);
        for (slot, secrets) in slots {
            if highest(&secrets) > best {
                best = highest(&secrets);
                self.slot = slot;
            }
            self.secrets.learn(secrets.epochs);
        }
    }

    /// Reads the key slots at all places that were reached.
    pub(crate) fn unite_all(&mut self) -> Result<()> {
        let (slots, _) = read_slots(&self.place)?;
        self.unite(siblings(&slots, &self.pin(), &self.lock));
        Ok(())
    }

    /// The configuration that this machine went by the last time: its number and hash.
    pub(crate) fn configuration_seen(&self, context: &Context) -> Result<Option<(u64, RootId)>> {
        let known = Known::in_dir(&context.known_dir).vault(&self.secrets.vault)?;
        let seen = known.filter(|vault| vault.key == self.secrets.vault_verify);
        let seen = seen
            .and_then(|vault| vault.configuration)
            .filter(|_| !context.accept.older);
        Ok(seen.and_then(|seen| seen.name()))
    }

    /// Compares what was opened with what this machine knows, and remembers what is newer.
    ///
    /// `places` is where the vault lies, `configuration` the number of the newest one, 0 if there is none.
    pub(crate) fn recall(&mut self, context: &Context, places: &[String], standing: &Standing) -> Result<()> {
        let known = Known::in_dir(&context.known_dir);
        let (id, key, place) = (
            self.secrets.vault,
            self.secrets.vault_verify,
            self.place.name().to_owned(),
        );
        let before = known.vault(&id)?.filter(|vault| vault.key == key);
        if before.is_none() && self.sight == Sight::Trusted {
            let pin = self.pin();
            self.notes.push(format!(
                "{place}: this machine sees this vault for the first time: vault {pin}"
            ));
        }
        let newest = self.secrets.current()?;
        if let Some(before) = &before
            && !context.accept.older
        {
            let all = self.secrets.all_epochs();
            let is_known = |seen: Seen| {
                all.iter()
                    .any(|epoch| epoch.number == seen.number && epoch.hash() == seen.hash)
            };
            if let Some(seen) = before.epoch.filter(|seen| !is_known(*seen)) {
                let words = |epoch: u64| format!("{} ({epoch:016x})", epoch_number(epoch));
                let (known, found) = (words(seen.number), words(newest.number));
                return Err(Error::OlderKeys { place, known, found });
            }
            let found = standing.listed_number();
            if let Some(seen) = before.configuration.filter(|seen| seen.number > found) {
                return Err(Error::OlderConfiguration {
                    place,
                    object: "config/: the configuration",
                    known: seen.number,
                    found,
                });
            }
        }
        let epoch = Seen {
            number: newest.number,
            hash: newest.hash(),
        };
        let remember = || -> Result<()> {
            known.remember_places(&self.pin(), places.iter().map(String::as_str))?;
            known.update(&id, KnownVault::new(key), |vault| {
                if vault.key != key {
                    *vault = KnownVault::new(key);
                }
                vault.see_epoch(epoch, context.accept.older);
                if standing.certain("").is_ok() {
                    let seen = Seen::of(&(standing.signed.config.number, standing.signed.hash));
                    vault.see_configuration(seen, context.accept.older);
                }
            })
        };
        if let Err(error) = remember() {
            self.warnings
                .push(format!("what was seen of this vault is not remembered: {error}"));
        }
        Ok(())
    }
}

/// Refuses to make a vault where this machine has seen one, unless that is accepted.
pub(crate) fn refuse_known(places: &[&str], context: &Context) -> Result<()> {
    let known = Known::in_dir(&context.known_dir);
    for place in places {
        if let Some(known) = known.at(place)?
            && !context.accept.new_vault
        {
            let place = (*place).to_owned();
            return Err(Error::Emptied { place, known });
        }
    }
    Ok(())
}

/// A header that cannot be used.
enum LostHeader {
    /// It is not there, or not as long as it was.
    Missing(String),
    /// It cannot be read.
    Damaged(drystone_format::Error, Bytes),
}

impl LostHeader {
    /// Why the copy in the slot is used; an error if the vault with this key is of a newer format.
    fn reason(self, place: &Place, vault: &VerifyKey) -> Result<String> {
        match self {
            Self::Missing(reason) => Ok(reason),
            Self::Damaged(source @ drystone_format::Error::Version { .. }, object) => {
                if is_signed_header(&object, vault) {
                    Err(place.damaged(&Name::header())(source))
                } else {
                    Ok("it claims a newer format, and no owner of this vault signed it".to_owned())
                }
            }
            Self::Damaged(source, _) => Ok(source.to_string()),
        }
    }
}

fn read_header(place: &Place) -> Result<Result<(Header, Bytes), LostHeader>> {
    match place.get(&Name::header(), Range::All) {
        Ok(object) => Ok(match Header::decode(&object) {
            Ok(header) => Ok((header, object)),
            Err(error) => Err(LostHeader::Damaged(error, object)),
        }),
        Err(Error::Store(error)) if error.is_not_found() => Ok(Err(LostHeader::Missing("it is missing".to_owned()))),
        Err(error) if error.is_damage() => Ok(Err(LostHeader::Missing(error.to_string()))),
        Err(error) => Err(error),
    }
}

/// Why a vault without a single key slot that can be read does not open.
fn no_slots(place: &Place, header: &Result<(Header, Bytes), LostHeader>, problems: &Problems) -> Error {
    let name = place.name().to_owned();
    match (header, problems.iter().next()) {
        (Err(LostHeader::Damaged(source @ drystone_format::Error::Version { .. }, _)), _) => {
            place.damaged(&Name::header())(source.clone())
        }
        (_, Some(problem)) => Error::BadKey {
            origin: name,
            why: format!("no usable key slot: {problem}"),
        },
        (Err(LostHeader::Missing(_)), None) => Error::NoVault { place: name },
        (Err(LostHeader::Damaged(..)) | Ok(_), None) => Error::BadKey {
            origin: name,
            why: "all key slots (keys/) are missing; without one nothing can be opened: bring one back from a copy of the vault"
                .to_owned(),
        },
    }
}

/// A wrong key may be the right one for a slot that cannot be read: names those too.
fn also_damaged(mut error: Error, problems: &Problems) -> Error {
    if let Error::WrongKey { damaged, .. } = &mut error {
        problems
            .iter()
            .for_each(|problem| damaged.push_str(&format!("; {problem}")));
    }
    error
}
