//! Brings small objects to every place, with spare copies: makes what is missing, replaces what is not what was stored.
//!
//! - A copy is taken from a sound one only; sound copies that differ are left as they are, and named.

use std::sync::Arc;

use bytes::Bytes;

use super::core::{Core, Spread};
use super::gather::all;
use super::place::KnownPlace;
use super::rebalance::replace;
use super::troubles::Objects;
use crate::{Error, Kind, Listed, Name, Prefix, Result};

/// Names listed at a time.
const PAGE: usize = 1000;

/// What was done for small objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicated {
    /// Objects looked at.
    pub objects: u64,
    /// Copies made where there were none.
    pub copied: u64,
    /// Copies that took the place of unsound ones.
    pub replaced: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Copies that there are none of and that were not made, since nothing was to be changed.
    pub missing: Objects,
    /// Copies that are not what was stored, whether or not they were replaced.
    pub rotten: Objects,
    /// Those of them that still are so, with their places: the first of them.
    pub unmended: Vec<(String, String)>,
    /// Copies that should have been made at places that did not take them.
    pub owed: Objects,
    /// Objects of which no place has a sound copy, or that nobody who may has signed.
    pub unsound: Objects,
    /// Objects of which places have different copies, all of them sound.
    pub differing: Objects,
}

/// Copies that are named as still altered.
const UNMENDED_MAX: usize = 1000;

impl Replicated {
    fn remain(&mut self, place: &KnownPlace, name: &Name) {
        if self.unmended.len() < UNMENDED_MAX {
            let name = name.spare(place.spare).to_string();
            self.unmended.push((place.label().to_owned(), name));
        }
    }
}

/// Whether to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mend {
    Yes,
    No,
}

/// What a place has of an object.
enum Copy {
    Sound(Bytes),
    Unsound,
    Missing,
    Unknown,
}

impl Spread {
    /// Reads all copies of the small objects under `prefix`, and makes those that are missing or unsound anew.
    ///
    /// Packs and shards are left alone, see `rebalance`. Fails only if too few places can be listed.
    pub async fn replicate_small(&self, prefix: &Prefix) -> Result<Replicated> {
        self.small(prefix, Mend::Yes).await
    }

    /// Reads all copies of the small objects under `prefix` and changes nothing.
    pub async fn verify_small(&self, prefix: &Prefix) -> Result<Replicated> {
        self.small(prefix, Mend::No).await
    }

    /// Removes the spare copies that there are enough places to do without; says how many there were.
    ///
    /// For when every small object has been copied to all places. Those of places that never delete stay.
    pub async fn drop_spares(&self) -> Result<u64> {
        let mut dropped = 0;
        for place in self
            .core
            .places
            .iter()
            .filter(|place| place.is_ready() && !place.is_append_only())
        {
            let mut after: Option<Name> = None;
            loop {
                let page = place.list(&Prefix::Spares, after.as_ref(), PAGE).await?;
                let is_surplus = |listed: &&Listed| listed.name.spare_number() > self.spares_per_place();
                for listed in page.iter().filter(is_surplus) {
                    place.delete(&listed.name).await?;
                    dropped += 1;
                }
                match page.into_iter().next_back() {
                    Some(last) => after = Some(last.name),
                    None => break,
                }
            }
        }
        Ok(dropped)
    }

    async fn small(&self, prefix: &Prefix, mend: Mend) -> Result<Replicated> {
        let mut replicated = Replicated::default();
        let mut after: Option<Name> = match prefix {
            Prefix::Packs | Prefix::Shards => return Ok(replicated),
            _ => None,
        };
        loop {
            let page = self.core.list_copied(prefix, after.as_ref(), PAGE).await?;
            for listed in &page {
                self.core.replicate_object(&listed.name, mend, &mut replicated).await?;
            }
            match page.into_iter().next_back() {
                Some(last) => after = Some(last.name),
                None => return Ok(replicated),
            }
        }
    }
}

impl Core {
    async fn replicate_object(self: &Arc<Self>, name: &Name, mend: Mend, replicated: &mut Replicated) -> Result<()> {
        replicated.objects += 1;
        let lying = self.copies_of(name);
        let reads = lying.iter().map(|place| {
            let (core, place, name) = (Arc::clone(self), Arc::clone(place), name.clone());
            async move {
                if core.refusal(&place, &name).is_some() {
                    return Copy::Unknown;
                }
                match core.copy_at(&place, &name).await {
                    Ok(bytes) => Copy::Sound(bytes),
                    // It may be the only one to copy from; what it lacks is nobody's concern any more.
                    Err(_) if place.is_leaving() => Copy::Unknown,
                    Err(Error::Unsound { .. } | Error::Io { .. } | Error::Foreign { .. }) => Copy::Unsound,
                    Err(error) if error.is_not_found() => Copy::Missing,
                    Err(_) => Copy::Unknown,
                }
            }
        });
        let copies = all(reads).await.ok_or_else(|| self.ending())?;
        let is_unsound = |(_, copy): &(_, &Copy)| matches!(copy, Copy::Unsound);
        for (place, _) in lying.iter().zip(&copies).filter(is_unsound) {
            replicated.rotten.add(&name.spare(place.spare));
            if mend == Mend::No {
                replicated.remain(place, name);
            }
        }
        let is_worthless = |bytes: &Bytes| !self.judge.is_sound(name, bytes);
        let mut sound = copies.iter().filter_map(|copy| match copy {
            Copy::Sound(bytes) => Some(bytes.clone()),
            _ => None,
        });
        let Some(good) = sound.next() else {
            // Somebody had it when it was listed; that nobody has it now means that it was removed since.
            // A presence that was cut short is nobody's loss: gc tells it, and gives its writer up.
            let is_presence = matches!(name.kind(), Kind::Writer(..));
            if !is_presence && !copies.iter().all(|copy| matches!(copy, Copy::Missing)) {
                replicated.unsound.add(name);
            }
            return Ok(());
        };
        if is_worthless(&good) {
            // The bytes are what the name says, and count for nobody: they are told, and not spread.
            replicated.unsound.add(name);
            return Ok(());
        }
        if sound.any(|other| other != good) {
            replicated.differing.add(name);
        }
        if mend == Mend::No {
            let lacks = |(_, copy): &(_, &Copy)| matches!(copy, Copy::Missing);
            // Nobody brings a presence to a place that was away during the run.
            let is_due = !matches!(name.kind(), Kind::Writer(..));
            for (place, _) in lying.iter().zip(&copies).filter(lacks).filter(|_| is_due) {
                place.note(|troubles| troubles.missing.add(&name.spare(place.spare)));
                replicated.missing.add(&name.spare(place.spare));
            }
            return Ok(());
        }
        for (place, copy) in lying.iter().zip(copies) {
            mend_copy(place, name, copy, &good, replicated).await;
        }
        Ok(())
    }
}

/// Makes one copy of an object sound, from a `good` one.
async fn mend_copy(place: &KnownPlace, name: &Name, copy: Copy, good: &Bytes, replicated: &mut Replicated) {
    let own = name.spare(place.spare);
    let is_rotten = match copy {
        Copy::Sound(_) => return,
        Copy::Missing => false,
        Copy::Unsound => true,
        Copy::Unknown if place.is_leaving() => return,
        Copy::Unknown => return replicated.owed.add(&own),
    };
    if is_rotten && place.is_append_only() || replace(place, name, good.clone(), is_rotten).await.is_err() {
        place.note(|troubles| troubles.owed.add(&own));
        if is_rotten {
            replicated.remain(place, name);
        }
        return replicated.owed.add(&own);
    }
    replicated.written_bytes += good.len() as u64;
    replicated.replaced += u64::from(is_rotten);
    replicated.copied += u64::from(!is_rotten);
}
