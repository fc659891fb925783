//! Entries with several names: the first is restored, the others are linked to it.
//!
//! - Memory: one record per file that has several names.
//! - A name that comes while the first is being written waits in that record; nobody blocks.

use std::collections::HashMap;
use std::sync::Arc;

use drystone_format::tree::{Entry, Kind};
use parking_lot::Mutex;

use super::dir::{Dir, Ongoing};

/// Device and inode at the time of the backup, and the kind, so that a hostile tree links no file to a device.
pub(crate) type Identity = ((u64, u64), std::mem::Discriminant<Kind>);

/// The identity of an entry that has several names.
pub(crate) fn identity(entry: &Entry) -> Option<Identity> {
    let is_dir = matches!(entry.kind, Kind::Dir(_));
    let link = entry.hard_link.filter(|_| !is_dir)?;
    Some((link, std::mem::discriminant(&entry.kind)))
}

enum State {
    /// Being restored; these wait for it.
    Ongoing(Vec<(Arc<Ongoing>, Entry)>),
    /// Restored under this name.
    Done(Arc<Dir>, Vec<u8>),
}

/// What to do with a name.
pub(crate) enum Claim {
    /// It is the first: restore it, then call [`Links::done`] or [`Links::failed`].
    First(Arc<Ongoing>, Entry),
    /// Link it to this name.
    Link(Arc<Ongoing>, Entry, Arc<Dir>, Vec<u8>),
    /// It waits; whoever restores the first gets it.
    Waits,
}

/// All files with several names that were met.
#[derive(Default)]
pub(crate) struct Links(Mutex<HashMap<Identity, State>>);

impl Links {
    pub(crate) fn claim(&self, identity: Identity, ongoing: Arc<Ongoing>, entry: Entry) -> Claim {
        let mut links = self.0.lock();
        match links.get_mut(&identity) {
            None => {
                links.insert(identity, State::Ongoing(Vec::new()));
                Claim::First(ongoing, entry)
            }
            Some(State::Ongoing(waiting)) => {
                waiting.push((ongoing, entry));
                Claim::Waits
            }
            Some(State::Done(dir, name)) => Claim::Link(ongoing, entry, dir.clone(), name.clone()),
        }
    }

    /// The first name is there; returns those that wait to be linked to it.
    pub(crate) fn done(&self, identity: Identity, dir: &Arc<Dir>, name: &[u8]) -> Vec<(Arc<Ongoing>, Entry)> {
        let done = State::Done(dir.clone(), name.to_vec());
        match self.0.lock().insert(identity, done) {
            Some(State::Ongoing(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    /// The first name could not be restored; returns those that wait, for each to try by itself.
    pub(crate) fn failed(&self, identity: Identity) -> Vec<(Arc<Ongoing>, Entry)> {
        match self.0.lock().remove(&identity) {
            Some(State::Ongoing(waiting)) => waiting,
            _ => Vec::new(),
        }
    }
}
