//! Check: is everything there that the snapshots and other roots need? Reads metadata only; data is scrub's.
//!
//! - Names every file that lost something, in every snapshot; goes on after every problem.
//! - What is stored as it should be, but is marked as not whole, is incomplete, not damaged.
//! - What is missing while a place does not answer is out of reach, not lost.
//! - A damaged pack is a problem only if some snapshot needs what no other pack has.
//! - Memory is bounded: levels of a hostile tree that hold too much are not entered.
//! - Trees that several snapshots share are walked once, as long as the list of those seen fits its bound; nodes of recipes too.
//! - The wish to stop is heard at every part of every recipe.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::vec::IntoIter;

use drystone_format::RootId;
use drystone_format::kinds::Kept;
use drystone_format::limits::TREE_DEPTH_MAX;
use drystone_format::recipe::{Part, Recipe, decode_node};
use drystone_format::root::{RootKind, RootName};
use drystone_format::tree::{Entry, Kind};
use drystone_store::Name;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::health::repair::Redundancy;
use crate::problem::Problems;
use crate::progress::{Cancel, Progress};
use crate::reading::content::TreeReader;
use crate::reading::reader::Reader;
use crate::roots::RootSource;
use crate::roots::candidates::RootSurvey;
use crate::roots::kinds::root_path;
use crate::roots::order::Candidate;
use crate::vault::Vault;

/// Trees remembered as sound, so that they are not walked again: 16 bytes each.
const SEEN_MAX: usize = 2 << 20;

/// Nodes of recipes remembered with what they miss: 24 bytes each, and forgotten together when there are more.
const NODES_MAX: usize = 1 << 20;
/// Nodes read for one file at most: with 1024 parts of a KiB each they make 16 TiB.
const FILE_NODES_MAX: u64 = 16 << 20;

/// What to do about what is missing while a place is.
const AWAY: &str = "bring back the place that is away, or give it up with `drystone place remove`";

/// How to check.
#[derive(Clone, Default)]
pub struct CheckOptions {
    /// Counts files and their bytes.
    pub progress: Arc<Progress>,
    /// Stops it.
    pub cancel: Cancel,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Snapshots whose root could be read.
    pub snapshots: u64,
    /// Roots of other kinds that could be read.
    pub other_roots: u64,
    /// Files and directories looked at, shared trees once.
    pub entries: u64,
    /// Packs at the place that could be indexed.
    pub packs: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// Everything that is wrong.
    pub problems: Problems,
    /// Snapshots that lost something, and how many of their files and directories.
    pub hit: Vec<(RootId, u64)>,
    /// Roots of other kinds that lost something, and how many of the things that they keep.
    pub other_hit: Vec<(RootName, u64)>,
    /// Kinds of roots that count and that this program does not know: nothing that they need was looked at.
    pub unknown_kinds: Vec<String>,
    /// What cannot be read while a place is away, and is not known to be lost.
    pub out_of_reach: Problems,
    /// Files and directories that are marked as not whole: bytes of them were lost, or mixed, before or when they were stored.
    pub incomplete: Problems,
    /// Damaged packs that nothing depends on: whatever a snapshot needs of them lies in sound packs as well.
    pub harmless: Problems,
    /// How much redundancy there is, where the vault lies at several places.
    pub redundancy: Redundancy,
}

struct Checker<'a> {
    catalog: &'a Catalog,
    /// What the levels of a tree may hold at once.
    memory_bytes: usize,
    reader: Reader,
    options: &'a CheckOptions,
    /// Some place is not there or does not answer.
    is_cut_off: bool,
    seen: HashSet<u128>,
    /// What the nodes of recipes that were looked at miss, bytes.
    nodes: HashMap<u128, u64>,
    report: CheckReport,
}

/// A node of a recipe that is being looked at.
struct Node {
    key: u128,
    depth: u8,
    parts: IntoIter<Part>,
    missing_bytes: u64,
}

/// A name of a node for a map: the same bytes mean another thing at another depth or length.
fn node_key(id: &[u8; 32], depth: u8, bytes: u64) -> u128 {
    let wide = id.first_chunk().map_or(0, |first| u128::from_be_bytes(*first));
    wide ^ u128::from(depth) << 64 ^ u128::from(bytes)
}

/// A directory whose entries are being looked at.
struct Level {
    entries: TreeReader,
    path_bytes: usize,
    recipe: u128,
    problems_before: u64,
    /// What the levels above hold.
    above_bytes: usize,
}

impl Vault {
    /// Checks header, key slots, snapshots, trees, and that every chunk they name is in a pack that is there.
    pub fn check(&self, options: &CheckOptions) -> Result<CheckReport> {
        let troubles = self.place.troubles_before();
        // Snapshots first, packs after: of a backup that ends meanwhile nothing seems to be missing.
        let mut survey = self.survey(RootSource::Place)?;
        let mut revoked = std::mem::take(&mut survey.revoked);
        let (snapshots, mut problems) = survey.told();
        let mut others = Others::default();
        for (kind, survey) in self.survey_others()? {
            others.add(kind, survey, &mut revoked, &mut problems);
        }
        let catalog = self.fresh_catalog()?;
        catalog.reread()?;
        catalog.forget_missed();
        let mut report = CheckReport {
            redundancy: self.redundancy()?,
            ..CheckReport::default()
        };
        let slots = self.keys()?.1;
        for warning in self.warnings() {
            let (object, what) = warning.split_once(": ").unwrap_or(("", warning));
            if !slots.iter().any(|slot| slot.to_string() == *warning) {
                report.problems.push(object, what);
            }
        }
        report.problems.append(slots);
        report.problems.append(catalog.bad_lists());
        report.problems.append(catalog.bad_epochs());
        let stats = catalog.index.stats()?;
        (report.packs, report.chunks) = (stats.packs, stats.chunks);
        report.problems.append(problems);
        self.check_roots(&revoked, &mut report.problems)?;
        self.check_presences(&mut report.problems)?;
        let mut checker = Checker {
            catalog,
            memory_bytes: self.context.memory_bytes / 4,
            reader: self.reader()?,
            options,
            is_cut_off: self.place.is_cut_off(&troubles),
            seen: HashSet::new(),
            nodes: HashMap::new(),
            report,
        };
        for Candidate { id, snapshot, .. } in snapshots {
            checker.report.snapshots += 1;
            let mut path = id.short().into_bytes();
            path.push(b':');
            let before = checker.report.problems.count();
            checker.tree(&snapshot.tree, path)?;
            let lost = checker.report.problems.count() - before;
            if lost > 0 {
                checker.report.hit.push((id, lost));
            }
        }
        checker.others(others)?;
        let report = checker.finish();
        self.remember_altered()?;
        Ok(report)
    }
}

/// Roots of other kinds than snapshots.
#[derive(Default)]
struct Others {
    roots: Vec<(RootName, Vec<Kept>)>,
    unknown_kinds: Vec<String>,
}

impl Others {
    /// Takes in the roots of a kind; there is no survey of one that this program does not know.
    fn add(
        &mut self,
        kind: RootKind,
        survey: Option<RootSurvey<Vec<Kept>>>,
        revoked: &mut Vec<RootName>,
        problems: &mut Problems,
    ) {
        let Some(mut survey) = survey else {
            self.unknown_kinds.push(kind.word().to_owned());
            return;
        };
        revoked.append(&mut survey.revoked);
        let (found, wrong) = survey.told();
        problems.append(wrong);
        self.roots.extend(found.into_iter().map(|root| (root.name, root.says)));
    }
}

/// A short name of a recipe, for a set: equal recipes have equal names.
pub(crate) fn fingerprint(recipe: &Recipe) -> u128 {
    let mut bytes = recipe.size_bytes.to_be_bytes().to_vec();
    bytes.push(recipe.depth);
    for part in &recipe.parts {
        if let Part::Chunk { id, .. } = part {
            bytes.extend_from_slice(&id.0);
        }
    }
    let hash = drystone_format::id::pack_id(&bytes).0;
    hash.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

impl Checker<'_> {
    /// Looks at what roots of other kinds keep alive.
    fn others(&mut self, others: Others) -> Result<()> {
        self.report.unknown_kinds = others.unknown_kinds;
        for (name, kept) in others.roots {
            self.report.other_roots += 1;
            let before = self.report.problems.count();
            for kept in &kept {
                match kept {
                    Kept::Tree(recipe) => self.tree(recipe, root_path(&name))?,
                    Kept::Stream(recipe) => self.file(recipe, &root_path(&name))?,
                }
            }
            let lost = self.report.problems.count() - before;
            if lost > 0 {
                self.report.other_hit.push((name, lost));
            }
        }
        Ok(())
    }

    /// Walks the tree at `path`; an error is of this program's side, damage is a problem.
    fn tree(&mut self, recipe: &Recipe, mut path: Vec<u8>) -> Result<()> {
        let mut levels = Vec::new();
        self.enter(recipe, &path, &mut levels);
        while let Some(level) = levels.last_mut() {
            self.options.cancel.check()?;
            path.truncate(level.path_bytes);
            match level.entries.next() {
                Some(Ok(entry)) => self.entry(&entry, &mut path, &mut levels)?,
                Some(Err(error)) => self.problem(&path, error, "the rest of this directory cannot be read")?,
                None => {
                    let Some(done) = levels.pop() else { continue };
                    if self.problem_count() == done.problems_before && self.seen.len() < SEEN_MAX {
                        self.seen.insert(done.recipe);
                    }
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, recipe: &Recipe, path: &[u8], levels: &mut Vec<Level>) {
        let name = fingerprint(recipe);
        if self.seen.contains(&name) {
            return;
        }
        let above_bytes = levels
            .last()
            .map_or(0, |level| level.above_bytes + level.entries.held_bytes());
        if levels.len() >= TREE_DEPTH_MAX || above_bytes > self.memory_bytes {
            self.report
                .problems
                .push(path, "nested too deeply; nothing below is looked at");
            return;
        }
        levels.push(Level {
            entries: self.reader.tree(recipe),
            path_bytes: path.len(),
            recipe: name,
            problems_before: self.problem_count(),
            above_bytes,
        });
    }

    fn entry(&mut self, entry: &Entry, path: &mut Vec<u8>, levels: &mut Vec<Level>) -> Result<()> {
        path.push(b'/');
        path.extend_from_slice(&entry.name);
        self.report.entries += 1;
        Progress::add(&self.options.progress.files, 1);
        if let Some(flaw) = entry.flaw() {
            self.report.incomplete.push(path.as_slice(), flaw);
        }
        match &entry.kind {
            Kind::Dir(recipe) => self.enter(recipe, path, levels),
            Kind::File(recipe) => {
                Progress::add(&self.options.progress.bytes, recipe.size_bytes);
                self.file(recipe, path)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn file(&mut self, recipe: &Recipe, path: &[u8]) -> Result<()> {
        let missing_bytes = match self.missing_bytes(recipe) {
            Ok(Some(missing_bytes)) => missing_bytes,
            Ok(None) => {
                let what = "its recipe has more parts than any file; not all of it was looked at, and nothing of it \
                            should be restored: find out who wrote this snapshot, then forget it";
                self.report.problems.push(path, what);
                Progress::add(&self.options.progress.problems, 1);
                return Ok(());
            }
            Err(error) => return self.problem(path, error, "the file cannot be restored"),
        };
        if missing_bytes > 0 {
            let (all_bytes, is_cut_off) = (recipe.size_bytes, self.is_cut_off);
            let next = if is_cut_off { AWAY } else { "back the file up again" };
            let what = format!("{missing_bytes} of {all_bytes} bytes are in no sound pack; {next}");
            self.missing().push(path, what);
            Progress::add(&self.options.progress.problems, 1);
        }
        Ok(())
    }

    /// How many bytes of a file are in no sound pack; `None` if its recipe has no end to speak of.
    ///
    /// A node that was looked at before is not read again, so a recipe costs what is stored of it, whatever it states.
    fn missing_bytes(&mut self, recipe: &Recipe) -> Result<Option<u64>> {
        let whole = Node {
            key: 0,
            depth: recipe.depth,
            parts: recipe.parts.clone().into_iter(),
            missing_bytes: 0,
        };
        let (mut stack, mut read) = (vec![whole], 0_u64);
        while let Some(node) = stack.last_mut() {
            self.options.cancel.check()?;
            let Some(part) = node.parts.next() else {
                let Some(done) = stack.pop() else { break };
                let Some(above) = stack.last_mut() else {
                    return Ok(Some(done.missing_bytes));
                };
                above.missing_bytes = above.missing_bytes.saturating_add(done.missing_bytes);
                if self.nodes.len() >= NODES_MAX {
                    self.nodes.clear();
                }
                self.nodes.insert(done.key, done.missing_bytes);
                continue;
            };
            let Part::Chunk { id, bytes } = part else { continue };
            if node.depth == 0 {
                let found = self.catalog.locate_sound(&id)?;
                if found.is_none_or(|location| u64::from(location.chunk_bytes) != bytes) {
                    node.missing_bytes = node.missing_bytes.saturating_add(bytes);
                    // Says which damaged pack is missed here, if it is one.
                    self.catalog.locate(&id)?;
                }
                continue;
            }
            let key = node_key(&id.0, node.depth, bytes);
            if let Some(missing_bytes) = self.nodes.get(&key) {
                node.missing_bytes = node.missing_bytes.saturating_add(*missing_bytes);
                continue;
            }
            read += 1;
            if read > FILE_NODES_MAX {
                return Ok(None);
            }
            let depth = node.depth - 1;
            let parts = decode_node(&self.reader.chunk(&id)?, node.depth, bytes)?.into_iter();
            stack.push(Node {
                key,
                depth,
                parts,
                missing_bytes: 0,
            });
        }
        Ok(Some(0))
    }

    /// Where to note what cannot be found.
    fn missing(&mut self) -> &mut Problems {
        if self.is_cut_off {
            &mut self.report.out_of_reach
        } else {
            &mut self.report.problems
        }
    }

    fn problem_count(&self) -> u64 {
        self.report.problems.count() + self.report.out_of_reach.count()
    }

    /// Names the damaged packs, now that it is known which of them matter.
    fn finish(mut self) -> CheckReport {
        let report = &mut self.report;
        let missed = self.catalog.missed();
        for pack in self.catalog.losses.damaged() {
            let name = Name::pack(&pack);
            if missed.contains(&pack) {
                let what = "known to be damaged; run `drystone scrub` to see what is wrong with it";
                report.problems.push(name.as_str(), what);
            } else {
                let what = "known to be damaged; all that the snapshots need of it lies in sound packs as well";
                report.harmless.push(name.as_str(), what);
            }
        }
        // What an unreadable pack held is not known: it matters as soon as anything is missed.
        if report.problems.is_empty() {
            report.harmless.append(self.catalog.unreadable());
        } else {
            report.problems.append(self.catalog.unreadable());
        }
        self.report
    }

    fn problem(&mut self, path: &[u8], error: Error, consequence: &str) -> Result<()> {
        if !error.is_damage() {
            return Err(error);
        }
        let is_missing = error.is_absence() || matches!(error, Error::MissingChunk { .. });
        if is_missing && self.is_cut_off {
            let what = format!("{error}; {AWAY}");
            self.report.out_of_reach.push(path, what);
        } else {
            self.report.problems.push(path, format!("{error}; {consequence}"));
        }
        Progress::add(&self.options.progress.problems, 1);
        Ok(())
    }
}
