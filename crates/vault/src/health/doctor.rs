//! What is wrong with a vault, all in one list, each with the command that mends it.
//!
//! - Reads listings, roots and local state; if packs are known to be lost or damaged, also the directories of all snapshots, to say which
//!   of them are hit. Something small is stored at every place and removed
//!   again; nothing else is changed.
//! - Each command that it names brings the vault nearer to having nothing wrong; it never names one that changes nothing.
//! - Worst first; a vault with nothing wrong gives notes at most.

use drystone_format::keys::Role;
use drystone_format::root::RootKind;
use drystone_format::slot::Lock;
use drystone_format::tree::Time;
use drystone_store::{Kind, Name};

use crate::error::damage::COUNTS_FOR_NOBODY;
use crate::error::{Error, Result};
use crate::health::check::CheckOptions;
use crate::places::allow::Act;
use crate::problem::Problems;
use crate::roots::RootSource;
use crate::roots::order::Candidate;
use crate::vault::Vault;

mod losses;
mod places;

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
    /// Looks at everything that can be looked at without reading data.
    pub fn doctor(&self) -> Result<Vec<Finding>> {
        self.diagnose(&CheckOptions::default())
    }

    /// The same; what is lost is looked for as these options say.
    pub fn diagnose(&self, options: &CheckOptions) -> Result<Vec<Finding>> {
        let mut findings = Findings(Vec::new());
        self.look_at_warnings(&mut findings);
        for act in [Act::Store, Act::Collect] {
            if let Err(error @ (Error::Feature { .. } | Error::UnknownRoots { .. })) = self.allow(act) {
                findings.push(Grade::Risk, error.to_string(), "install a newer drystone");
            }
        }
        self.look_at_room(&mut findings);
        self.look_at_places(&mut findings)?;
        self.look_at_packs(&mut findings)?;
        let redundancy = self.redundancy()?;
        let is_hit = self.look_at_losses(options, redundancy.lost_packs, &mut findings)?;
        self.look_at_redundancy(redundancy, is_hit, &mut findings);
        self.look_at_keys(&mut findings)?;
        self.look_at_habits(&mut findings)?;
        // Last: by now everything was read that is.
        self.look_at_altered(&mut findings)?;
        findings.0.sort_by_key(|finding| finding.grade);
        Ok(findings.0)
    }

    /// What was said when the vault was opened, each with what mends it.
    fn look_at_warnings(&self, findings: &mut Findings) {
        for warning in self.warnings() {
            let object = warning.split_once(": ").map_or("", |(object, _)| object);
            let next = match Name::parse(object).map(|name| name.kind()) {
                Ok(Kind::Header) => "drystone repair header",
                // Named with all other slots.
                Ok(Kind::Key(_)) => continue,
                _ if warning.contains("until an owner chooses") => {
                    "drystone vault show, then drystone vault resolve HASH"
                }
                _ if object.starts_with("config/") => "drystone vault resolve",
                _ => "drystone check",
            };
            findings.push(Grade::Owed, warning.clone(), next);
        }
    }

    fn look_at_packs(&self, findings: &mut Findings) -> Result<()> {
        let catalog = self.catalog()?;
        for problem in catalog.bad_lists().iter() {
            findings.push(Grade::Owed, problem.to_string(), "drystone scrub");
        }
        let unverified = catalog
            .index
            .packs()?
            .iter()
            .filter(|pack| catalog.is_unverified(pack))
            .count();
        if unverified > 0 && self.role() == Role::Owner {
            findings.push(
                Grade::Risk,
                format!(
                    "packs of writer keys that were never verified: {unverified}; other writers store their content again"
                ),
                "drystone scrub",
            );
        }
        Ok(())
    }

    fn look_at_keys(&self, findings: &mut Findings) -> Result<()> {
        let (slots, problems) = self.keys()?;
        for problem in problems.iter() {
            findings.push(Grade::Owed, problem.to_string(), &self.giving_up(&problem.path));
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
            let snapshots = self.look_at_snapshots(findings)?;
            match snapshots.last() {
                None => findings.push(Grade::Risk, "there is no snapshot yet", "drystone backup PATH"),
                Some(Candidate { snapshot: newest, .. }) => {
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

    /// Names roots, ledgers, configurations and presences that are lost or count for nobody; gives the snapshots that can be read.
    fn look_at_snapshots(&self, findings: &mut Findings) -> Result<Vec<Candidate>> {
        let survey = self.survey(RootSource::Place)?;
        for problem in survey.problems.iter().chain(survey.foreign.iter()) {
            findings.push(Grade::Lost, problem.to_string(), &self.giving_up(&problem.path));
        }
        let (mut strange, mut revoked) = (Problems::default(), survey.revoked);
        for other in self.survey_others()?.into_iter().filter_map(|(_, survey)| survey) {
            for problem in other.problems.iter().chain(other.foreign.iter()) {
                findings.push(Grade::Lost, problem.to_string(), &self.giving_up(&problem.path));
            }
            strange.append(other.ignored);
            revoked.extend(other.revoked);
        }
        self.check_roots(&revoked, &mut strange)?;
        self.check_presences(&mut strange)?;
        strange.append(self.epochs.problems());
        for problem in strange.iter().chain(survey.ignored.iter()) {
            let next = match problem.what.contains(COUNTS_FOR_NOBODY) {
                true => "find out who has put it there, and remove it from the place".to_owned(),
                false => self.giving_up(&problem.path),
            };
            findings.push(Grade::Owed, problem.to_string(), &next);
        }
        Ok(survey.candidates)
    }

    /// The command that goes on without an object of which no place that answered has a sound copy.
    fn giving_up(&self, path: &[u8]) -> String {
        let name = std::str::from_utf8(path).ok().and_then(|path| Name::parse(path).ok());
        let command = match name.map(|name| name.kind()) {
            Some(Kind::Root(root)) if root.kind == RootKind::SNAPSHOT => {
                format!("drystone forget {}", root.hash.short())
            }
            Some(Kind::Ledger(number, hash)) => format!("drystone vault resolve --ledger {number}-{hash}"),
            Some(Kind::Config(..)) => "drystone vault resolve".to_owned(),
            Some(Kind::Key(slot)) => format!("drystone key remove {}", slot.short()),
            Some(Kind::Writer(..) | Kind::Epoch(..)) => "drystone gc".to_owned(),
            _ => "drystone check".to_owned(),
        };
        match self.place.lacks_places() {
            true => {
                format!("bring back the places that are away, then drystone repair; to go on without it: {command}")
            }
            false => command,
        }
    }

    /// Whole days since `time`, if that is more than `limit_seconds` ago.
    fn days_since(&self, time: Time, limit_seconds: i64) -> Option<i64> {
        let passed = self.context.clock.now().seconds.saturating_sub(time.seconds);
        (passed > limit_seconds).then_some(passed / 86_400)
    }
}
