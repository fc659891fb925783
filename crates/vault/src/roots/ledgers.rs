//! The ledgers at the places: reading the newest, remembering them, and putting the next one. The rules are in `ledger/`.
//!
//! - Only ledgers that no other one carries over are read, the highest number first: one request as a rule.
//! - A ledger that no owner signed counts for nobody, and is reported.
//! - A ledger of which no place has a sound copy may state anything. So may one that this machine has read and no place lists any more.
//! - The newest ledgers that were read are remembered outside of the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use drystone_format::id::object_hash;
use drystone_format::keys::Secrets;
use drystone_format::ledger::{FirstSeen, LedgerName, Numbered, OpenedLedger, Sightings, open_ledger, seal_ledger};
use drystone_format::notice::{NoticeKind, notice_version};
use drystone_format::tree::Time;
use drystone_format::{Error as Format, Random};
use drystone_store::{Kind, Name, Prefix, Range};
use parking_lot::{Mutex, RwLock};

use crate::error::damage::COUNTS_FOR_NOBODY;
use crate::error::{Error, Result};
use crate::places::known::{Known as Memory, KnownVault, Seen};
use crate::places::place::Place;
use crate::problem::Problems;
use crate::roots::ledger::{Change, Known, View, first_seen, next, removable};

/// How often the ledgers are listed while one that was listed is gone when it is asked for: its successor must be there.
const LISTS: usize = 3;

/// When roots were first seen, in the word of owners.
pub(crate) type Times = BTreeMap<Numbered, FirstSeen>;

/// The ledgers of a vault.
pub(crate) struct Ledgers {
    place: Place,
    secrets: Arc<Secrets>,
    memory: Memory,
    /// What this machine remembers counts; not if its user accepts an older vault.
    is_held_to_memory: bool,
    read: Mutex<Read>,
    view: RwLock<Arc<View>>,
    is_confirming: AtomicBool,
}

/// What was read so far.
#[derive(Default)]
struct Read {
    known: Known,
    /// Of the newest ledgers, if this credential reads content.
    times: BTreeMap<LedgerName, Times>,
    /// Why a ledger cannot be read.
    unreadable: BTreeMap<LedgerName, String>,
    /// Ledgers that no owner signed.
    forged: BTreeMap<LedgerName, String>,
    /// Ledgers that this machine read in earlier runs.
    remembered: BTreeSet<LedgerName>,
    /// Ledgers that the last list showed.
    listed: BTreeSet<LedgerName>,
}

impl Ledgers {
    pub(crate) fn new(place: Place, secrets: Arc<Secrets>, memory: Memory, is_held_to_memory: bool) -> Self {
        Self {
            place,
            secrets,
            memory,
            is_held_to_memory,
            read: Mutex::default(),
            view: RwLock::default(),
            is_confirming: AtomicBool::new(false),
        }
    }

    /// From now on what is read is first brought to as many places as a put asks for: whoever put it may have crashed.
    pub(crate) fn confirm(&self) {
        self.is_confirming.store(true, Ordering::Release);
    }

    /// What the newest ledgers stated when they were read last; nothing if they were not read yet.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// What the newest ledgers state now.
    pub(crate) fn refresh(&self) -> Result<Arc<View>> {
        let mut read = self.read.lock();
        read.remembered = self.remembered()?;
        for _ in 0..LISTS {
            read.begin(self.list()?);
            if self.read_new(&mut read)? {
                break;
            }
        }
        for name in read.remembered.clone() {
            if !read.unreadable.contains_key(&name) {
                let why = "this machine has read this ledger, and no place that answered has it: lost, hidden, or rolled back";
                read.insert_unreadable(name, why.to_owned());
            }
        }
        self.remember_newest(&mut read)
    }

    fn list(&self) -> Result<BTreeSet<LedgerName>> {
        let is_confirming = self.is_confirming.load(Ordering::Acquire);
        let names = self.place.small_names(&Prefix::Ledger, is_confirming)?;
        let listed = names.iter().filter_map(|name| match name.kind() {
            Kind::Ledger(number, hash) => Some((number, hash)),
            _ => None,
        });
        Ok(listed.collect())
    }

    /// Reads the ledgers of the list that are new; says whether all of them were there.
    fn read_new(&self, read: &mut Read) -> Result<bool> {
        let mut are_there = true;
        for name in read.listed.clone().iter().rev() {
            if read.known.has_read(name) || read.known.is_superseded(name) || read.forged.contains_key(name) {
                continue;
            }
            match self.open(name) {
                Ok(Ok(opened)) => read.insert(*name, opened, &self.secrets)?,
                Ok(Err(forged)) => drop(read.forged.insert(*name, forged.to_string())),
                Err(error @ (Error::Store(_) | Error::Damaged { .. })) if error.is_damage() => {
                    are_there &= !matches!(&error, Error::Store(error) if error.is_not_found());
                    read.insert_unreadable(*name, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(are_there)
    }

    /// Reads a ledger; the inner error says why nobody has to heed it.
    fn open(&self, (number, hash): &LedgerName) -> Result<Result<OpenedLedger, Format>> {
        let name = Name::ledger(*number, hash);
        let object = self.place.get(&name, Range::All)?;
        // Only an owner can say that a vault is newer: everybody else's word is checked before the version counts.
        if let Err(forged) = notice_version(&self.secrets, NoticeKind::Ledger, &object) {
            return Ok(Err(forged));
        }
        match open_ledger(&self.secrets, &object) {
            Ok(opened) if opened.ledger.number == *number => Ok(Ok(opened)),
            Ok(_) => Ok(Err(Format::Authentication { object: "ledger" })),
            Err(error) => Err(self.place.damaged(&name)(error)),
        }
    }

    /// Makes what was read the view, and remembers it.
    fn remember_newest(&self, read: &mut Read) -> Result<Arc<View>> {
        read.known.forget_superseded();
        let view = Arc::new(read.known.view());
        read.times.retain(|name, _| view.newest.contains(name));
        let lost = read.remembered.intersection(&view.unreadable);
        let newest: BTreeSet<LedgerName> = view.newest.iter().chain(lost).copied().collect();
        if newest != read.remembered || !self.is_held_to_memory {
            let new = KnownVault::new(self.secrets.vault_verify);
            self.memory.update(&self.secrets.vault, new, |vault| {
                // Another process may have read newer ones meanwhile.
                let before = vault.ledgers.iter().filter_map(Seen::name);
                let kept = before.filter(|name| self.is_held_to_memory && !read.known.is_superseded(name));
                let all: BTreeSet<LedgerName> = newest.iter().copied().chain(kept).collect();
                vault.ledgers = all.iter().map(Seen::of).collect();
            })?;
            read.remembered = newest;
        }
        *self.view.write() = view.clone();
        Ok(view)
    }

    fn remembered(&self) -> Result<BTreeSet<LedgerName>> {
        let vault = self.memory.vault(&self.secrets.vault)?;
        let vault = vault.filter(|vault| vault.key == self.secrets.vault_verify && self.is_held_to_memory);
        let ledgers = vault.map(|vault| vault.ledgers).unwrap_or_default();
        Ok(ledgers.iter().filter_map(Seen::name).collect())
    }

    /// When the live roots that the newest ledgers state were first seen, as far as this credential may read it.
    pub(crate) fn times(&self) -> Times {
        let mut all = Times::new();
        self.read.lock().times.values().for_each(|times| merge(&mut all, times));
        all
    }

    /// Puts the ledger that adds `change` to what the newest ledgers state; durable on return. Returns false if that says nothing new: then
    /// nothing is put. The ledgers must have been read just before. `own` is when this machine saw the roots first.
    pub(crate) fn put(&self, change: &Change, own: &Times, now: Time, random: &mut dyn Random) -> Result<bool> {
        let Some(ledger) = next(&self.view(), change) else {
            return Ok(false);
        };
        let mut seen = self.times();
        merge(&mut seen, own);
        let object = seal_ledger(&self.secrets, &ledger, &Sightings { time: now, seen }, random)?;
        let name = (ledger.number, object_hash(&object));
        let opened = open_ledger(&self.secrets, &object)?;
        self.place.put(&Name::ledger(name.0, &name.1), Bytes::from(object))?;
        let mut read = self.read.lock();
        read.insert(name, opened, &self.secrets)?;
        for given_up in &change.given_up {
            read.unreadable.remove(given_up);
        }
        self.remember_newest(&mut read)?;
        Ok(true)
    }

    /// The ledgers that lie there and that others carry over which everybody can list. What this machine has put must be listed by now.
    pub(crate) fn superseded(&self) -> Result<Vec<Name>> {
        self.refresh()?;
        let read = self.read.lock();
        let mut known = Known::default();
        for (name, ledger) in read.known.read().filter(|(name, _)| read.listed.contains(name)) {
            known.insert(*name, ledger.clone());
        }
        let removable = removable(&known, &read.listed);
        Ok(removable
            .iter()
            .map(|(number, hash)| Name::ledger(*number, hash))
            .collect())
    }

    /// Ledgers that no owner signed, and those that might state anything.
    pub(crate) fn problems(&self) -> (Problems, Problems) {
        let (mut forged, mut unreadable) = (Problems::default(), Problems::default());
        let (read, view) = (self.read.lock(), self.view());
        for ((number, hash), why) in &read.forged {
            forged.push(
                Name::ledger(*number, hash).as_str(),
                format!("{why}; {}", COUNTS_FOR_NOBODY),
            );
        }
        for name in &view.unreadable {
            let why = read.unreadable.get(name).map_or("", String::as_str);
            unreadable.push(
                Name::ledger(name.0, &name.1).as_str(),
                format!("{why}; {}", unknown(name)),
            );
        }
        (forged, unreadable)
    }
}

/// Adds other words for when roots were first seen.
fn merge(all: &mut Times, others: &Times) {
    for (root, seen) in others {
        let known = all.entry(*root).or_insert(*seen);
        *known = first_seen(*known, *seen);
    }
}

/// What follows from a ledger that cannot be read.
fn unknown((number, hash): &LedgerName) -> String {
    format!(
        "until it is back or given up, gc refuses and forgotten snapshots may show (to give it up: drystone vault resolve --ledger \
         {number}-{hash})"
    )
}

impl Read {
    /// Begins with what a list shows: what could not be read before is tried again.
    fn begin(&mut self, listed: BTreeSet<LedgerName>) {
        self.unreadable.clear();
        self.known.forget_unreadable();
        self.forged.retain(|name, _| listed.contains(name));
        self.listed = listed;
    }

    fn insert(&mut self, name: LedgerName, opened: OpenedLedger, secrets: &Secrets) -> Result<()> {
        let times = match opened.sightings(secrets) {
            Ok(sightings) => sightings.seen,
            // Who reads no content goes without; so does a key that is older than the ledger.
            Err(Format::WriterKey { .. } | Format::Epoch { .. }) => Times::new(),
            Err(error) => return Err(error.into()),
        };
        self.times.insert(name, times);
        self.unreadable.remove(&name);
        self.known.insert(name, Arc::new(opened.ledger));
        Ok(())
    }

    fn insert_unreadable(&mut self, name: LedgerName, why: String) {
        if !self.known.has_read(&name) && !self.known.is_superseded(&name) {
            self.known.insert_unreadable(name);
            self.unreadable.insert(name, why);
        }
    }
}
