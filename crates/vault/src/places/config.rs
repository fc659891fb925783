//! Which configuration is in force, and what is doubtful about that.
//!
//! - A configuration counts if an owner signed it and its bytes have the hash in its name. What a writer or a place makes up
//!   is reported and counts for nobody.
//! - In force is the one that no other replaces; of several (two owners changed at once) all are named, the one with the
//!   greatest number and hash is read by, and nobody changes or collects anything before an owner has chosen.
//! - A configuration that may be newer and cannot be read is never passed over in silence: reading goes on with what there
//!   is, changes and gc refuse.

use std::collections::BTreeMap;

use bytes::Bytes;
use drystone_format::config::{Config, Features, Removed, Trust};
use drystone_format::id::object_hash;
use drystone_format::keys::Secrets;
use drystone_format::notice::{NoticeKind, notice_version, open_notice};
use drystone_format::root::RootKind;
use drystone_format::tree::Time;
use drystone_format::{Error as Format, RootId, chunker::Sizes};
use drystone_store::{Kind, Name, Prefix, Range};

use crate::error::{Error, Result};
use crate::places::place::Place;

/// The command that ends every doubt about the configuration.
const RESOLVE: &str = "drystone vault resolve";

/// A configuration that an owner signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The hash in its name.
    pub hash: RootId,
    /// What it says.
    pub config: Config,
}

impl Signed {
    /// What decides between configurations of which neither replaces the other.
    fn rank(&self) -> (u64, RootId) {
        (self.config.number, self.hash)
    }

    /// For messages: the number and the beginning of the hash.
    pub fn label(&self) -> String {
        format!("{}-{}", self.config.number, self.hash.short())
    }
}

/// Why a configuration that is listed does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unread {
    /// No owner signed it.
    Forged(String),
    /// An owner may have signed it; its bytes are not what was written.
    Damaged(String),
    /// An owner may have signed it; it is out of reach, or this key does not open it.
    OutOfReach(String),
}

/// All configurations that places list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    signed: Vec<Signed>,
    unread: BTreeMap<(u64, RootId), Unread>,
    /// Copies that are damaged of what was read elsewhere.
    damaged_copies: Vec<String>,
}

/// The configurations that count: the one in force, and others that it does not replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// What everybody goes by.
    pub signed: Signed,
    /// Those that an owner must choose from as well.
    pub rivals: Vec<Signed>,
}

/// Returns the configuration in force among `configs`: the one that no other replaces. Of several, the greatest number and hash.
///
/// A ledger that names one decides, unless another replaces it.
pub fn in_force(configs: &[Signed], named_by_ledger: Option<RootId>) -> Option<InForce> {
    let is_replaced = |one: &Signed| configs.iter().any(|other| other.config.is_after(&one.hash));
    let mut heads: Vec<&Signed> = configs.iter().filter(|one| !is_replaced(one)).collect();
    heads.sort_by_key(|one| (Some(one.hash) == named_by_ledger, one.rank()));
    let signed = heads.pop()?.clone();
    Some(InForce {
        signed,
        rivals: heads.into_iter().rev().cloned().collect(),
    })
}

impl Found {
    /// One that was just made.
    pub(crate) fn of(signed: Signed) -> Self {
        Self {
            signed: vec![signed],
            ..Self::default()
        }
    }

    /// Adds what `place` lists; those that are replaced, and those that are known already, are not read.
    pub(crate) fn read(&mut self, place: &Place, secrets: &Secrets) -> Result<()> {
        let mut listed = Vec::new();
        place.for_each(&Prefix::Config, |found| {
            if let Kind::Config(number, hash) = found.name.kind() {
                listed.push((number, hash));
            }
            Ok(())
        })?;
        listed.sort_unstable();
        for (number, hash) in listed.into_iter().rev() {
            if !self.is_known(&hash) {
                match read_one(place, secrets, (number, hash))? {
                    Ok(config) => self.add(Signed { hash, config }),
                    Err(unread) => self.note((number, hash), unread),
                }
            }
        }
        Ok(())
    }

    /// The first reason stays, unless bytes with the right hash were found: then nobody can have signed them.
    fn note(&mut self, name: (u64, RootId), unread: Unread) {
        let is_final = matches!(unread, Unread::Forged(_));
        let known = self.unread.entry(name).or_insert_with(|| unread.clone());
        if is_final {
            *known = unread;
        }
    }

    fn add(&mut self, signed: Signed) {
        let added = signed.hash;
        self.signed.push(signed);
        let unread = std::mem::take(&mut self.unread);
        for ((number, hash), why) in unread {
            if !self.is_known(&hash) {
                self.unread.insert((number, hash), why);
            } else if let (true, Unread::Damaged(why)) = (hash == added, why) {
                let name = Name::config(number, &hash);
                self.damaged_copies.push(format!(
                    "{name}: a copy of this configuration is damaged ({why}); another one is used; run `drystone repair`"
                ));
            }
        }
    }

    /// Returns true if the configuration with this hash is readable, or replaced by one that is.
    pub(crate) fn is_known(&self, hash: &RootId) -> bool {
        self.signed
            .iter()
            .any(|signed| signed.hash == *hash || signed.config.is_after(hash))
    }

    /// Returns true if no configuration can be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.signed.is_empty()
    }

    /// Returns true if everything that is listed can be read or is replaced.
    pub(crate) fn is_certain(&self) -> bool {
        !self.is_empty() && self.unread.is_empty()
    }

    /// The configuration in force; `None` if none can be read.
    pub(crate) fn in_force(&self) -> Option<InForce> {
        in_force(&self.signed, None)
    }

    /// What the vault goes by. `seen` is what this machine went by the last time.
    pub(crate) fn standing(&self, in_force: Option<InForce>, seen: Option<(u64, RootId)>) -> Standing {
        let (mut doubts, mut reports) = (Vec::new(), self.damaged_copies.clone());
        for ((number, hash), unread) in &self.unread {
            let name = Name::config(*number, hash);
            match unread {
                Unread::Forged(why) => reports.push(format!("{name}: it counts for nobody: {why}")),
                Unread::Damaged(why) | Unread::OutOfReach(why) => doubts.push(format!(
                    "{name}: this configuration cannot be read ({why}), so the one in use may be older"
                )),
            }
        }
        if let Some((number, hash)) = seen.filter(|(_, hash)| !self.is_known(hash)) {
            let name = Name::config(number, &hash);
            doubts.push(format!(
                "{name}: this machine has used this configuration before, and no place that answered has it: they are \
                 stale or were rolled back; name another place with --vault"
            ));
        }
        let listed = self.unread.keys().map(|(_, hash)| *hash);
        let mut replaced: Vec<RootId> = listed.chain(seen.map(|(_, hash)| hash)).collect();
        for signed in &self.signed {
            replaced.push(signed.hash);
            replaced.extend(&signed.config.replaces);
        }
        replaced.sort_unstable();
        replaced.dedup();
        let numbers = self.signed.iter().map(|signed| signed.config.number);
        let number = numbers.chain(seen.map(|(number, _)| number)).max().unwrap_or(0);
        let unread = self.unread.iter().filter(|(_, why)| !matches!(why, Unread::Forged(_)));
        let listed = unread.map(|((number, _), _)| *number);
        let listed = listed
            .chain(self.signed.iter().map(|signed| signed.config.number))
            .max();
        let is_assumed = in_force.is_none();
        let (signed, rivals) = in_force.map_or_else(|| (assumed(), Vec::new()), |found| (found.signed, found.rivals));
        Standing {
            signed,
            rivals,
            is_assumed,
            doubts,
            reports,
            replaced,
            number,
            listed: listed.unwrap_or(0),
        }
    }
}

/// What the vault goes by, and all that is to be said about it.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) signed: Signed,
    pub(crate) rivals: Vec<Signed>,
    /// None can be read; what a vault at one place must have is assumed.
    pub(crate) is_assumed: bool,
    /// Why another configuration may be newer.
    doubts: Vec<String>,
    /// What counts for nobody.
    reports: Vec<String>,
    /// Hashes of all that the next configuration replaces.
    replaced: Vec<RootId>,
    /// The greatest number that an owner has used.
    number: u64,
    /// The greatest number that a place lists, of a configuration that an owner may have signed.
    listed: u64,
}

impl Standing {
    /// The greatest number of a configuration that a place lists, readable or not.
    pub(crate) fn listed_number(&self) -> u64 {
        self.listed
    }

    /// Returns true if this configuration is in force, beside it, or replaced.
    pub(crate) fn knows(&self, hash: &RootId) -> bool {
        self.replaced.binary_search(hash).is_ok()
    }

    /// What to tell everybody who opens the vault.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.reports.clone();
        warnings.extend(self.doubts.iter().map(|doubt| {
            format!("{doubt}; changes of the vault and gc refuse (to make them possible again: {RESOLVE})")
        }));
        if self.is_assumed {
            warnings.push(format!(
                "config/: no configuration can be read; what is stored can be read, nothing can be stored (an owner makes a \
                 new configuration: {RESOLVE})"
            ));
        }
        for rival in &self.rivals {
            warnings.push(format!(
                "config/: {}; changes of the vault and gc refuse until an owner chooses: {RESOLVE} HASH",
                conflict(&self.signed, rival)
            ));
        }
        warnings
    }

    /// An error if no configuration can be read: then nobody knows what must not be done.
    pub(crate) fn readable(&self, place: &str) -> Result<()> {
        if self.is_assumed { self.certain(place) } else { Ok(()) }
    }

    /// An error unless it is certain what is in force.
    pub(crate) fn certain(&self, place: &str) -> Result<()> {
        let doubt = self.doubts.first().cloned();
        let missing = self.is_assumed.then(|| "no configuration can be read".to_owned());
        let rivals = self.rivals.first().map(|rival| conflict(&self.signed, rival));
        match missing.or(rivals).or(doubt) {
            None => Ok(()),
            Some(why) => Err(Error::UncertainConfig {
                place: place.to_owned(),
                why,
            }),
        }
    }

    /// The configuration that replaces everything that was found: as `chosen`, or as the one in force.
    pub(crate) fn next(&self, made: Time, chosen: Option<&RootId>) -> Result<Config> {
        let mut candidates = std::iter::once(&self.signed).chain(&self.rivals);
        let base = match chosen {
            None => &self.signed,
            Some(hash) => candidates
                .find(|signed| signed.hash == *hash)
                .ok_or_else(|| Error::NoConfig { text: hash.to_string() })?,
        };
        let number = self.number.checked_add(1).ok_or(Error::Stopped)?;
        // Removing a key is for ever: no choice between two configurations brings one back.
        let all = std::iter::once(&self.signed).chain(&self.rivals);
        let mut removed: Vec<Removed> = all.flat_map(|signed| signed.config.removed.iter().copied()).collect();
        removed.sort_unstable();
        removed.dedup_by_key(|one| one.writer);
        Ok(Config {
            number,
            made,
            replaces: self.replaced.clone(),
            removed,
            ..base.config.clone()
        })
    }

    /// The hash that `text` begins, among the configurations that can be chosen.
    pub(crate) fn find(&self, text: &str) -> Result<RootId> {
        let all = std::iter::once(&self.signed).chain(&self.rivals);
        let mut found = all.filter(|signed| !text.is_empty() && signed.hash.to_string().starts_with(text));
        match (found.next(), found.next()) {
            (Some(signed), None) => Ok(signed.hash),
            _ => Err(Error::NoConfig { text: text.to_owned() }),
        }
    }
}

/// What is known of a vault at one place whose configuration is lost.
fn assumed() -> Signed {
    let config = Config {
        number: 0,
        made: Time::default(),
        replaces: Vec::new(),
        features: Features::default(),
        data_sizes: Sizes::DATA,
        meta_sizes: Sizes::META,
        trust: Trust::Verified,
        spread: (1, 1),
        places: Vec::new(),
        root_kinds: first_root_kinds(),
        removed: Vec::new(),
        unknown: Vec::new(),
    };
    Signed {
        hash: RootId([0; 16]),
        config,
    }
}

/// The kinds of roots that a new vault admits.
pub(crate) fn first_root_kinds() -> Vec<String> {
    vec![RootKind::SNAPSHOT.word().to_owned()]
}

/// One sentence about two configurations of which neither replaces the other.
fn conflict(in_use: &Signed, rival: &Signed) -> String {
    format!(
        "two owners changed the configuration at once: {} is in use, and {} exists beside it; they differ in {}",
        in_use.label(),
        rival.label(),
        differences(&in_use.config, &rival.config).join("; ")
    )
}

/// What is different between two configurations, in words.
pub fn differences(one: &Config, other: &Config) -> Vec<String> {
    let places = |config: &Config| -> Vec<String> { config.places.iter().map(|entry| entry.url.clone()).collect() };
    let features = |config: &Config| {
        let names = ["read", "write", "collect"];
        let named = names.iter().zip(config.features.classes());
        let words: Vec<String> = named
            .flat_map(|(class, words)| words.iter().map(move |word| format!("{word} ({class})")))
            .collect();
        words.join(", ")
    };
    let sizes = |sizes: Sizes| format!("{} to {}", sizes.min_bytes(), sizes.max_bytes());
    let fields = [
        ("spread", spread_words(one), spread_words(other)),
        ("places", places(one).join(", "), places(other).join(", ")),
        ("features", features(one), features(other)),
        ("kinds of roots", one.root_kinds.join(", "), other.root_kinds.join(", ")),
        ("chunk sizes", sizes(one.data_sizes), sizes(other.data_sizes)),
        ("chunk sizes of trees", sizes(one.meta_sizes), sizes(other.meta_sizes)),
        ("trust", format!("{:?}", one.trust), format!("{:?}", other.trust)),
    ];
    let quoted = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let mut found: Vec<String> = fields
        .into_iter()
        .filter(|(_, one, other)| one != other)
        .map(|(field, one, other)| format!("{field}: {} against {}", quoted(one), quoted(other)))
        .collect();
    if one.removed != other.removed {
        found.push("the credentials that were removed".to_owned());
    }
    if one.unknown != other.unknown {
        found.push("something that this program does not know".to_owned());
    }
    if found.is_empty() {
        let only_use = one.places != other.places;
        let what = if only_use {
            "how a place is used"
        } else {
            "nothing but the time"
        };
        found.push(what.to_owned());
    }
    found
}

fn spread_words(config: &Config) -> String {
    format!("{}/{}", config.spread.0, config.spread.1)
}

/// Reads one configuration; an error only if it is of a newer program.
fn read_one(place: &Place, secrets: &Secrets, (number, hash): (u64, RootId)) -> Result<Result<Config, Unread>> {
    let name = Name::config(number, &hash);
    let object = match place.get(&name, Range::All) {
        Ok(object) => object,
        Err(error @ (Error::Stopped | Error::Interrupted)) => return Err(error),
        // What cannot be read here may be read at another place.
        Err(error) if error.is_damage() && !error.is_absence() => return Ok(Err(Unread::Damaged(error.to_string()))),
        Err(error) => return Ok(Err(Unread::OutOfReach(error.to_string()))),
    };
    if object_hash(&object) != hash {
        let why = format!("{}: its bytes do not have the hash in its name", place.name());
        return Ok(Err(Unread::Damaged(why)));
    }
    decode(secrets, number, &object).map_err(place.damaged(&name))
}

/// What an object with the right hash is; an error only if it is of a newer program.
fn decode(secrets: &Secrets, number: u64, object: &Bytes) -> Result<Result<Config, Unread>, Format> {
    // Only an owner can say that a vault is newer: everybody else's word is checked before the version counts.
    if let Err(error) = notice_version(secrets, NoticeKind::Config, object) {
        return Ok(Err(Unread::Forged(error.to_string())));
    }
    match open_notice(secrets, NoticeKind::Config, object).and_then(|payload| Config::decode(&payload)) {
        Ok(config) if config.number == number => Ok(Ok(config)),
        Ok(_) => Ok(Err(Unread::Forged("it has another number than its name".to_owned()))),
        Err(error @ Format::Version { .. }) => Err(error),
        Err(error) => Ok(Err(Unread::OutOfReach(error.to_string()))),
    }
}
