//! The epochs at the place, read as they come; an epoch object never changes, so each is read once.
//!
//! - gc acts only on what everybody else can list, whichever places they are without.
//! - One that no owner signed, or that is damaged, counts for nobody; that it is there is a problem.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use drystone_format::Random;
use drystone_format::epoch::{Epoch, EpochName, open_epoch, seal_epoch};
use drystone_format::id::object_hash;
use drystone_format::keys::Secrets;
use drystone_store::{Kind, Name, Prefix, Range};
use parking_lot::{Mutex, RwLock};

use crate::error::Result;
use crate::error::damage::COUNTS_FOR_NOBODY;
use crate::gc::protocol::Standing;
use crate::places::place::Place;
use crate::problem::Problems;
use crate::roots::ledgers::Ledgers;

/// An epoch that counts for nobody.
struct Unreadable {
    why: String,
    /// No place has the bytes that its name says; else somebody who is no owner has put it there.
    is_damaged: bool,
}

pub(crate) struct Epochs {
    place: Place,
    secrets: Arc<Secrets>,
    standing: RwLock<Arc<Standing>>,
    unreadable: Mutex<BTreeMap<EpochName, Unreadable>>,
    reading: Mutex<()>,
    is_confirming: AtomicBool,
}

impl Epochs {
    pub(crate) fn new(place: Place, secrets: Arc<Secrets>) -> Self {
        Self {
            place,
            secrets,
            standing: RwLock::default(),
            unreadable: Mutex::default(),
            reading: Mutex::new(()),
            is_confirming: AtomicBool::new(false),
        }
    }

    /// From now on what is read is first brought to as many places as a put asks for: whoever put it may have crashed.
    pub(crate) fn confirm(&self) {
        self.is_confirming.store(true, Ordering::Release);
    }

    /// What stood when it was last asked.
    pub(crate) fn standing(&self) -> Arc<Standing> {
        self.standing.read().clone()
    }

    /// Takes in what the newest ledgers state that were read by now.
    pub(crate) fn follow(&self, ledgers: &Ledgers) -> Arc<Standing> {
        let _one_at_a_time = self.reading.lock();
        // Looked up under the lock: no thread brings back what another has already replaced.
        let (before, view) = (self.standing(), ledgers.view());
        if *before.stated() == view.stated {
            return before;
        }
        let mut standing = Standing::clone(&before);
        standing.set_stated(view.stated.clone());
        let standing = Arc::new(standing);
        *self.standing.write() = standing.clone();
        standing
    }

    /// The epochs that stand now, and what ledgers stated when they were read last.
    pub(crate) fn refresh(&self) -> Result<Arc<Standing>> {
        let _one_at_a_time = self.reading.lock();
        let is_confirming = self.is_confirming.load(Ordering::Acquire);
        let names = self.place.small_names(&Prefix::Epochs, is_confirming)?;
        let listed = names.iter().filter_map(|name| match name.kind() {
            Kind::Epoch(number, hash) => Some((number, hash)),
            _ => None,
        });
        let listed: BTreeSet<EpochName> = listed.collect();
        let before = self.standing();
        let mut standing = Standing::clone(&before);
        standing.retain(&listed);
        self.unreadable.lock().retain(|name, _| listed.contains(name));
        for name in &listed {
            if !standing.has_read(name) && !self.unreadable.lock().contains_key(name) {
                self.read(*name, &mut standing)?;
            }
        }
        if *before == standing {
            return Ok(before);
        }
        let standing = Arc::new(standing);
        *self.standing.write() = standing.clone();
        Ok(standing)
    }

    fn read(&self, epoch: EpochName, standing: &mut Standing) -> Result<()> {
        let name = Name::epoch(epoch.0, &epoch.1);
        let object = self.place.get(&name, Range::All);
        match object.and_then(|object| open_epoch(&self.secrets, &object).map_err(self.place.damaged(&name))) {
            Ok(read) => standing.insert(epoch, read),
            // Removed since it was listed: another was put before that, and is listed or will be.
            Err(crate::Error::Store(error)) if error.is_not_found() => {}
            // One that cannot be reached may give this very run up: who cannot read it must not go on.
            Err(error) if error.is_absence() => return Err(error),
            // An owner's, and no damage: this credential is too old for what is in force.
            Err(crate::Error::Damaged {
                source: source @ drystone_format::Error::Epoch { .. },
                ..
            }) => return Err(source.into()),
            Err(error) if error.is_damage() => {
                standing.insert_unreadable(epoch);
                let unreadable = Unreadable {
                    why: error.to_string(),
                    is_damaged: matches!(error, crate::Error::Store(_)),
                };
                self.unreadable.lock().insert(epoch, unreadable);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The names of epochs of which no place has the bytes that the name says.
    pub(crate) fn damaged(&self) -> Vec<EpochName> {
        let unreadable = self.unreadable.lock();
        let damaged = unreadable.iter().filter(|(_, unreadable)| unreadable.is_damaged);
        damaged.map(|(name, _)| *name).collect()
    }

    /// Epochs that could not be read.
    pub(crate) fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        for ((number, id), Unreadable { why, is_damaged }) in self.unreadable.lock().iter() {
            let what = match is_damaged {
                true => format!("{why}; it counts for nobody"),
                false => format!("{why}; {COUNTS_FOR_NOBODY}"),
            };
            problems.push(Name::epoch(*number, id).as_str(), what);
        }
        problems
    }

    /// An epoch that condemns nothing, as an object: whoever does not know it looks at ledgers and configuration before it reports anything.
    pub(crate) fn notice(&self, random: &mut dyn Random) -> Result<(Name, Bytes)> {
        let number = self.refresh()?.next_number();
        let object = seal_epoch(&self.secrets, &Epoch::default(), random)?;
        Ok((Name::epoch(number, &object_hash(&object)), Bytes::from(object)))
    }

    /// Puts an epoch, as several objects if it is large; durable on return. [`Epochs::refresh`] learns of it.
    pub(crate) fn put(&self, epoch: &Epoch, random: &mut dyn Random) -> Result<()> {
        let number = self.standing().next_number();
        for part in epoch.clone().split() {
            let object = seal_epoch(&self.secrets, &part, random)?;
            self.place
                .put(&Name::epoch(number, &object_hash(&object)), Bytes::from(object))?;
        }
        Ok(())
    }
}
