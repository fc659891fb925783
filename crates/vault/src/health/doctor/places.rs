//! What is wrong with the places: those that are away, full or forging, and what is owed to them.

use std::collections::BTreeMap;

use drystone_store::Error as StoreError;
use drystone_store::spread::Lacking;

use super::{Findings, Grade};
use crate::error::Result;
use crate::gc::reserve::Taking;
use crate::health::repair::Redundancy;
use crate::places::allow::Act;
use crate::vault::Vault;

/// Less than this share of a disk, or less than so many bytes, is little: a twentieth, and 10 GB.
const LEAST_FREE_SHARE: u64 = 20;
/// See [`LEAST_FREE_SHARE`].
const LEAST_FREE_BYTES: u64 = 10_000_000_000;

impl Vault {
    /// Stores something at every place and removes it again, and looks at the space that is left.
    pub(super) fn look_at_room(&self, findings: &mut Findings) {
        if self.allow(Act::Store).is_err() {
            return;
        }
        for Taking { place, refusal, space } in self.take_stock() {
            let (total, free) = space.map_or((0, 0), |space| (space.total_bytes, space.free_bytes));
            let least = (total / LEAST_FREE_SHARE).min(LEAST_FREE_BYTES);
            match refusal {
                Some(StoreError::Full { .. }) => {
                    let what = format!("{place}: no space is left: nothing can be stored");
                    let next =
                        "drystone gc; if that frees too little: drystone forget, then drystone gc, or a larger disk";
                    findings.push(Grade::Owed, what, next);
                }
                Some(error) => {
                    let what = format!("{place}: nothing can be stored: {error}");
                    findings.push(
                        Grade::Owed,
                        what,
                        "make the place writable for this user, then: drystone doctor",
                    );
                }
                None if free < least => {
                    let what = format!(
                        "{place}: only {} MB of {} MB are free",
                        free / 1_000_000,
                        total / 1_000_000
                    );
                    findings.push(Grade::Risk, what, "drystone gc, or a larger disk");
                }
                None => {}
            }
        }
    }

    pub(super) fn look_at_places(&self, findings: &mut Findings) -> Result<()> {
        let alone = |place: &str| format!("{place}: the vault lies at one place only: if that is lost, everything is");
        let places = self.places();
        if let [] | [_] = places {
            let place = places.first().map_or(self.place(), |only| only.url.as_str());
            findings.push(Grade::Risk, alone(place), "drystone place add PLACE");
        }
        for (name, _) in self.unsound_config_copies()? {
            let what = format!("{name}: this copy of the configuration is missing or altered");
            findings.push(Grade::Owed, what, "drystone repair");
        }
        if places.is_empty() {
            return Ok(());
        }
        for (entry, absent) in places.iter().zip(self.absent_places()) {
            if let Some(reason) = absent {
                let next = format!(
                    "make it available again, or: drystone place replace {} NEW-PLACE",
                    entry.id.short()
                );
                findings.push(Grade::Owed, format!("{}: not there: {reason}", entry.url), &next);
            }
        }
        self.look_at_forged(findings)
    }

    /// Names the places that gave forged shards, in this run or an earlier one.
    fn look_at_forged(&self, findings: &mut Findings) -> Result<()> {
        self.catalog()?;
        let troubles = self
            .place
            .as_spread()
            .map(|spread| spread.troubles().places)
            .unwrap_or_default();
        for place in troubles.iter().filter(|place| place.forged.count > 0) {
            let first = place.forged.named.first().map_or("", String::as_str);
            let what = format!(
                "{}: {} forged shards ({first}): who put them there has a key of this vault",
                place.place, place.forged.count
            );
            let next =
                "drystone repair; then find out whose key it is, and: drystone key remove, drystone place replace";
            findings.push(Grade::Owed, what, next);
        }
        Ok(())
    }

    /// Names what is owed to places, and what too little is left of. What snapshots lack by it `is_hit` says, and is named already.
    pub(super) fn look_at_redundancy(&self, found: Redundancy, is_hit: bool, findings: &mut Findings) {
        let mend = match self.place.lacks_places() {
            true => "bring back or replace the places that are away, then: drystone repair",
            false => "drystone repair",
        };
        let packs = found.packs;
        for Lacking { place, objects } in &found.lacking {
            let first = objects.named.first().map_or("", String::as_str);
            let what = match objects.count {
                1 => format!("{place}: one object is missing or altered here, and sound elsewhere ({first})"),
                many => {
                    format!("{place}: {many} objects are missing or altered here, and sound elsewhere ({first}, …)")
                }
            };
            findings.push(Grade::Owed, what, mend);
        }
        if found.lost_packs > 0 && !is_hit {
            let what = format!(
                "{} of {packs} packs cannot be put together any more; no snapshot needs them",
                found.lost_packs
            );
            findings.push(Grade::Owed, what, "drystone gc");
        }
        if found.unreached_packs > 0 {
            let what = format!(
                "{} of {packs} packs cannot be read while a place is away",
                found.unreached_packs
            );
            findings.push(Grade::Owed, what, "bring back the places that are away");
        }
        if found.leftover_packs > 0 {
            let were = if found.leftover_packs == 1 { "was" } else { "were" };
            let what = format!(
                "{} of {packs} packs {were} never stored whole, as far as this machine knows: a run was interrupted",
                found.leftover_packs
            );
            findings.push(Grade::Owed, what, "drystone gc");
        }
        if found.bare_packs > 0 {
            let have = if found.bare_packs == 1 { "has" } else { "have" };
            let what = format!("{} of {packs} packs {have} no redundancy left", found.bare_packs);
            findings.push(Grade::Owed, what, mend);
        }
        if found.owed_packs > found.bare_packs {
            let what = format!(
                "some shards are missing of {} of {packs} packs",
                found.owed_packs - found.bare_packs
            );
            findings.push(Grade::Owed, what, mend);
        }
    }

    /// Names the places at which something is altered, as was found just now, or by an earlier scrub and not mended since.
    pub(super) fn look_at_altered(&self, findings: &mut Findings) -> Result<()> {
        let mut altered: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for (place, name) in self.unsound_small()? {
            let known = altered.entry(place).or_insert((0, name));
            known.0 += 1;
        }
        let troubles = self.place.as_spread().map(|spread| spread.troubles().places);
        for place in troubles
            .unwrap_or_default()
            .into_iter()
            .filter(|place| place.unsound.count > 0)
        {
            let first = place.unsound.named.into_iter().next().unwrap_or_default();
            altered.entry(place.place).or_insert((place.unsound.count, first));
        }
        for (place, (count, first)) in altered {
            let what = match count {
                1 => format!("{place}: one object is altered here ({first})"),
                many => format!("{place}: {many} objects are altered here ({first}, …)"),
            };
            findings.push(Grade::Owed, what, "drystone scrub --repair");
        }
        Ok(())
    }
}
