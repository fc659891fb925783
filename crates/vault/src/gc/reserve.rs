//! Space that is set aside at a place, so that a full disk can still be emptied; and whether a place takes anything at all.
//!
//! - Only what frees space uses it: forget and gc. When a put of theirs finds a place full, the reserve there is removed and they run again.
//! - Best effort: others may take the space in between. It is set aside again when there is room for it.
//! - Object stores, which have no size of their own, and places that remove nothing have none.
//! - The bytes are random: a file system that compresses would set nothing aside for zeros.

use std::sync::Arc;

use bytes::Bytes;
use drystone_format::PlaceId;
use drystone_format::limits::{RESERVE_PIECE_BYTES, RESERVE_PIECES};
use drystone_format::places::PlaceMarks;
use drystone_format::random::Random;
use drystone_store::{Error as StoreError, Name, Space, Store};

use crate::context::Source;
use crate::error::{Error, Result};
use crate::vault::Vault;

/// The number of the piece that is stored and removed to see whether a place takes anything.
const PROBE: u8 = u8::MAX;
/// What a probe holds, bytes: a block of most file systems.
const PROBE_BYTES: usize = 4096;

/// Whether there is room for what frees space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// As far as is known.
    Plenty,
    /// A place is full: what has just been given up of its reserve is all there is.
    Little,
}

/// A disk of the vault.
struct Disk<'a> {
    place: &'a str,
    store: &'a Arc<dyn Store>,
    /// Which place of a spread it is.
    id: Option<PlaceId>,
    removes: bool,
}

/// How a place takes what is stored.
pub(crate) struct Taking {
    pub(crate) place: String,
    /// Why it takes nothing.
    pub(crate) refusal: Option<StoreError>,
    /// How much it can take, where it tells.
    pub(crate) space: Option<Space>,
}

impl Vault {
    /// Runs what frees space; if a place turns out to be full, gives up the reserve there and runs it once more.
    pub(crate) fn with_reserve<T>(&self, work: impl Fn(Room) -> Result<T>) -> Result<T> {
        let error = match work(Room::Plenty) {
            Err(error) => error,
            done => return done,
        };
        let full = self.full_disks(&error);
        if full.is_empty() {
            return Err(error);
        }
        for disk in full {
            for number in 0..RESERVE_PIECES {
                // Gone already, or what cannot be removed: the second run tells.
                let _ = self.place.block_on(disk.store.delete(&Name::reserve(number)));
            }
            if let (Some(spread), Some(id)) = (self.place.as_spread(), disk.id) {
                spread.forgive_full(&id);
            }
        }
        work(Room::Little)
    }

    /// Sets space aside at every disk where some of it is missing and there is room.
    pub(crate) fn keep_reserve(&self) {
        for disk in self.disks().filter(|disk| disk.removes && disk.store.traits().finite) {
            for number in 0..RESERVE_PIECES {
                let name = Name::reserve(number);
                match self.place.block_on(disk.store.stat(&name)) {
                    Err(error) if error.is_not_found() => {}
                    Ok(_) => continue,
                    Err(_) => break,
                }
                if self
                    .place
                    .block_on(disk.store.put(&name, self.noise(RESERVE_PIECE_BYTES)))
                    .is_err()
                {
                    break;
                }
            }
        }
    }

    /// Stores something at every place and removes it again. A place that removes nothing is not tried: the bytes would stay.
    pub(crate) fn take_stock(&self) -> Vec<Taking> {
        let probe = |disk: Disk<'_>| {
            let name = Name::reserve(PROBE);
            let put = async {
                disk.store.put(&name, self.noise(PROBE_BYTES)).await?;
                disk.store.delete(&name).await
            };
            let refusal = if disk.removes {
                self.place.block_on(put).err()
            } else {
                None
            };
            Taking {
                place: disk.place.to_owned(),
                refusal,
                space: self.place.block_on(disk.store.space()).ok().flatten(),
            }
        };
        self.disks().map(probe).collect()
    }

    fn noise(&self, length: usize) -> Bytes {
        let mut bytes = vec![0; length];
        Source(&*self.context.entropy).fill(&mut bytes);
        bytes.into()
    }

    /// The places that answer.
    fn disks(&self) -> impl Iterator<Item = Disk<'_>> {
        let is_spread = self.place.as_spread().is_some();
        let whole = (!is_spread).then(|| Disk {
            place: self.place.name(),
            store: self.place.store(),
            id: None,
            removes: self.place.removes(),
        });
        let sites = self.sites.iter().filter(move |_| is_spread);
        let spread = sites.filter_map(|site| {
            Some(Disk {
                place: &site.entry.url,
                store: site.store.as_ref().ok()?,
                id: Some(site.entry.id),
                removes: !site.entry.marks.has(PlaceMarks::APPEND_ONLY),
            })
        });
        whole.into_iter().chain(spread)
    }

    /// The places for whose lack of space work ended with this error.
    fn full_disks(&self, error: &Error) -> Vec<Disk<'_>> {
        let is_full = matches!(error, Error::Store(StoreError::Full { .. }));
        match self.place.as_spread().map(|spread| spread.troubles().places) {
            None if is_full => self.disks().collect(),
            None => Vec::new(),
            Some(places) => {
                let full: Vec<PlaceId> = places
                    .iter()
                    .filter(|place| place.full > 0)
                    .map(|place| place.id)
                    .collect();
                let is_named = |disk: &Disk<'_>| disk.id.is_some_and(|id| full.contains(&id));
                self.disks().filter(is_named).collect()
            }
        }
    }
}
