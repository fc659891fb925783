//! What is wrong with a vault, all in one list, each with the command that mends it.
//!
//! - Reads listings, roots and local state only: no pack is read, nothing is changed.
//! - Worst first; a vault with nothing wrong gives notes at most.

use drystone_format::keys::Role;
use drystone_format::slot::Lock;
use drystone_format::tree::Time;
use drystone_store::Name;

use crate::error::{Error, Result};
use crate::features::Act;
use crate::repair::Redundancy;
use crate::vault::Vault;

/// How bad a finding is; the first is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Something that was stored cannot be read now.
    Lost,
    /// Everything can be read, but less may be lost than was meant to.
    Owed,
    /// Nothing is wrong yet.
    Risk,
}

/// Something that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// What it is about, and what is wrong.
    pub what: String,
    /// The command that mends it, or what else to do.
    pub next: String,
}

/// Seconds after which a backup counts as old: a week.
const OLD_BACKUP_SECONDS: i64 = 7 * 86_400;
/// Seconds after which everything should have been read once: about half a year.
const OLD_SCRUB_SECONDS: i64 = 180 * 86_400;

/// The list as it grows.
struct Findings(Vec<Finding>);

impl Findings {
    fn push(&mut self, grade: Grade, what: impl Into<String>, next: &str) {
        let (what, next) = (what.into(), next.to_owned());
        self.0.push(Finding { grade, what, next });
    }
}

impl Vault {
    /// Looks at everything that can be looked at without reading packs.
    pub fn doctor(&self) -> Result<Vec<Finding>> {
        let mut findings = Findings(Vec::new());
        for warning in self.warnings() {
            let next = match warning.starts_with("config/") {
                true => "drystone vault show",
                false => "drystone check",
            };
            findings.push(Grade::Owed, warning.clone(), next);
        }
        for act in [Act::Store, Act::Collect] {
            if let Err(error @ (Error::Feature { .. } | Error::UnknownRoots { .. })) = self.allow(act) {
                findings.push(Grade::Risk, error.to_string(), "install a newer drystone");
            }
        }
        self.look_at_places(&mut findings)?;
        self.look_at_packs(&mut findings)?;
        self.look_at_keys(&mut findings)?;
        self.look_at_habits(&mut findings)?;
        findings.0.sort_by_key(|finding| finding.grade);
        Ok(findings.0)
    }

    fn look_at_places(&self, findings: &mut Findings) -> Result<()> {
        let alone = |place: &str| format!("{place}: the vault lies at one place only; who loses it loses all");
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
        let mut mend = "drystone repair";
        for (entry, absent) in places.iter().zip(self.absent_places()) {
            if let Some(reason) = absent {
                mend = "drystone repair, once every place is back or replaced";
                let next = format!(
                    "make it available again, or: drystone place replace {} NEW-PLACE",
                    entry.id.short()
                );
                findings.push(Grade::Owed, format!("{}: not there: {reason}", entry.url), &next);
            }
        }
        self.look_at_forged(findings)?;
        self.look_at_redundancy(mend, findings)
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

    fn look_at_redundancy(&self, mend: &str, findings: &mut Findings) -> Result<()> {
        let Redundancy {
            packs,
            owed_packs,
            bare_packs,
            lost_packs,
            unreached_packs,
            leftover_packs,
            ..
        } = self.redundancy()?;
        if lost_packs > 0 {
            findings.push(
                Grade::Lost,
                format!(
                    "{lost_packs} of {packs} packs have fewer than {} shards left",
                    self.config().spread.0
                ),
                "drystone check, which names the files, then drystone backup",
            );
        }
        if unreached_packs > 0 {
            let what = format!("{unreached_packs} of {packs} packs cannot be read while a place is away");
            findings.push(
                Grade::Owed,
                what,
                "make it available again, or: drystone place remove PLACE",
            );
        }
        if leftover_packs > 0 {
            let what = format!(
                "{leftover_packs} of {packs} packs were never stored whole, as far as this machine knows: a run was interrupted"
            );
            findings.push(
                Grade::Owed,
                what,
                "drystone gc removes them; drystone check says whether anything is missing",
            );
        }
        if bare_packs > 0 {
            let what = format!("{bare_packs} of {packs} packs have no redundancy left");
            findings.push(Grade::Owed, what, mend);
        }
        if owed_packs > bare_packs {
            let what = format!("{} of {packs} packs lack some of their shards", owed_packs - bare_packs);
            findings.push(Grade::Owed, what, mend);
        }
        Ok(())
    }

    fn look_at_packs(&self, findings: &mut Findings) -> Result<()> {
        let catalog = self.catalog()?;
        for pack in catalog.losses.damaged() {
            let what = format!("{}: known to be damaged", Name::pack(&pack));
            findings.push(
                Grade::Lost,
                what,
                "drystone scrub --repair, then drystone backup, then drystone check",
            );
        }
        for problem in catalog.unreadable().iter() {
            findings.push(Grade::Lost, problem.to_string(), "drystone check");
        }
        for problem in catalog.bad_lists().iter() {
            findings.push(Grade::Owed, problem.to_string(), "drystone scrub");
        }
        let unverified = catalog
            .index
            .packs()
            .iter()
            .filter(|pack| catalog.is_unverified(pack))
            .count();
        if unverified > 0 && self.role() == Role::Owner {
            findings.push(
                Grade::Risk,
                format!(
                    "{unverified} packs of writer keys were never verified; other writers store their content again"
                ),
                "drystone scrub",
            );
        }
        Ok(())
    }

    fn look_at_keys(&self, findings: &mut Findings) -> Result<()> {
        let (slots, problems) = self.keys()?;
        for problem in problems.iter() {
            findings.push(Grade::Owed, problem.to_string(), "drystone key list");
        }
        for slot in slots.iter().filter(|slot| self.is_removed(&slot.writer)) {
            let what = format!(
                "{}: this key was removed, and its slot is there again: the next new key would open itself to it",
                Name::key(&slot.id)
            );
            let next = format!("drystone key remove {}", slot.id.short());
            findings.push(Grade::Owed, what, &next);
        }
        let owners = slots.iter().filter(|slot| slot.role == Role::Owner).count();
        if owners < 2 {
            let what = "one key alone opens this vault as owner; if it is lost, everything is";
            findings.push(Grade::Risk, what, "drystone key recovery");
        } else if !slots.iter().any(|slot| slot.lock == Lock::Recovery) {
            let what = "there is no recovery code for the day when the key is lost";
            findings.push(Grade::Risk, what, "drystone key recovery");
        }
        Ok(())
    }

    fn look_at_habits(&self, findings: &mut Findings) -> Result<()> {
        if self.role().may_read() {
            let (snapshots, problems) = self.snapshots()?;
            for problem in problems.iter() {
                let next = match problem.path.starts_with(b"ledger/") {
                    true => "drystone repair, which brings it back if any place has it; else give it up as said",
                    false => "drystone repair, which mends it if any place has a sound copy; else: drystone forget ID",
                };
                findings.push(Grade::Lost, problem.to_string(), next);
            }
            for problem in self.missing_configs()?.iter() {
                findings.push(Grade::Owed, problem.to_string(), "drystone vault show");
            }
            match snapshots.last() {
                None => findings.push(Grade::Risk, "there is no snapshot yet", "drystone backup PATH"),
                Some((_, newest)) => {
                    if let Some(days) = self.days_since(newest.started, OLD_BACKUP_SECONDS) {
                        let what = format!("the newest snapshot is {days} days old");
                        findings.push(Grade::Risk, what, "drystone backup");
                    }
                }
            }
        }
        match self.last_scrub()? {
            None => findings.push(Grade::Risk, "this machine has never read all packs", "drystone scrub"),
            Some(time) => {
                if let Some(days) = self.days_since(time, OLD_SCRUB_SECONDS) {
                    let what = format!("all packs were read {days} days ago for the last time");
                    findings.push(Grade::Risk, what, "drystone scrub");
                }
            }
        }
        Ok(())
    }

    /// Whole days since `time`, if that is more than `limit_seconds` ago.
    fn days_since(&self, time: Time, limit_seconds: i64) -> Option<i64> {
        let passed = self.context.clock.now().seconds.saturating_sub(time.seconds);
        (passed > limit_seconds).then_some(passed / 86_400)
    }
}
