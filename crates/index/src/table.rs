//! Entries that are not yet in a run: in the order of their arrival, found through a hash table of their positions.
//!
//! - Holds every pack whole.
//! - The hash is keyed at random per table: a writer cannot craft ids that collide.

use std::hash::{BuildHasher, RandomState};

use drystone_format::ChunkId;

use crate::entry::{ENTRY_BYTES, Entry, Span};

/// Slots per entry at least; more would waste memory, fewer would lengthen the probes.
const SLOTS_PER_ENTRY_HALVES: usize = 3;
/// A slot without an entry; others hold the entry's position plus one.
const EMPTY: u32 = 0;

/// Bytes that an entry takes in a table, its slots included.
pub(crate) const TABLE_ENTRY_BYTES: usize = ENTRY_BYTES + 8;

/// Entries of packs that were inserted lately.
#[derive(Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    slots: Vec<u32>,
    packs: Vec<u32>,
    hash: RandomState,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// Numbers of the packs in the table.
    pub(crate) fn packs(&self) -> &[u32] {
        &self.packs
    }

    pub(crate) fn entry(&self, position: u32) -> Option<&Entry> {
        self.entries.get(position as usize)
    }

    /// Adds a pack's chunks and returns how many were new; one that the pack lists twice is taken once.
    pub(crate) fn insert(&mut self, pack: u32, chunks: &[(ChunkId, Span)]) -> u32 {
        let before = self.entries.len();
        self.grow(chunks.len());
        for (id, span) in chunks {
            let position = self.entries.len() as u32;
            let entries = &self.entries;
            let taken = |slot: u32| {
                let entry = entries.get((slot - 1) as usize);
                entry.is_some_and(|entry| entry.pack() == pack && entry.has_id(id))
            };
            if let Some(slot) = free_slot(&self.slots, self.hash.hash_one(id.0), taken)
                && let Some(slot) = self.slots.get_mut(slot)
            {
                *slot = position + 1;
                self.entries.push(Entry::new(id, pack, span));
            }
        }
        self.packs.push(pack);
        (self.entries.len() - before) as u32
    }

    /// The first entry of this chunk that is accepted.
    pub(crate) fn find(&self, id: &ChunkId, mut accept: impl FnMut(&Entry) -> bool) -> Option<Entry> {
        if self.entries.is_empty() {
            return None;
        }
        for slot in probes(&self.slots, self.hash.hash_one(id.0)) {
            match self.slots.get(slot) {
                Some(&EMPTY) | None => return None,
                Some(taken) => {
                    let entry = self.entry(taken - 1)?;
                    if entry.has_id(id) && accept(entry) {
                        return Some(*entry);
                    }
                }
            }
        }
        None
    }

    /// Positions of the entries whose pack is kept, in the order of their ids.
    pub(crate) fn sorted(&self, keep: impl Fn(u32) -> bool) -> Vec<u32> {
        let positions = (0..).zip(&self.entries).filter(|(_, entry)| keep(entry.pack()));
        let mut keyed: Vec<(u64, u32)> = positions.map(|(position, entry)| (entry.prefix(), position)).collect();
        keyed.sort_unstable_by(|(left_prefix, left), (right_prefix, right)| {
            left_prefix
                .cmp(right_prefix)
                .then_with(|| self.id_of(*left).cmp(&self.id_of(*right)))
        });
        keyed.into_iter().map(|(_, position)| position).collect()
    }

    fn id_of(&self, position: u32) -> Option<ChunkId> {
        self.entry(position).map(Entry::id)
    }

    fn grow(&mut self, more: usize) {
        let want = ((self.entries.len() + more) * SLOTS_PER_ENTRY_HALVES / 2 + 1).next_power_of_two();
        if want <= self.slots.len() {
            return;
        }
        self.slots = vec![EMPTY; want];
        for (position, entry) in (1..).zip(&self.entries) {
            if let Some(slot) = free_slot(&self.slots, self.hash.hash_one(entry.id().0), |_| false)
                && let Some(slot) = self.slots.get_mut(slot)
            {
                *slot = position;
            }
        }
    }
}

/// Slots to look at for this hash, in order; there is a power of two of them.
fn probes(slots: &[u32], hash: u64) -> impl Iterator<Item = usize> + use<> {
    let mask = slots.len().wrapping_sub(1);
    (0..slots.len()).map(move |step| (hash as usize).wrapping_add(step) & mask)
}

/// The first empty slot, unless one on the way is taken by the same entry.
fn free_slot(slots: &[u32], hash: u64, same: impl Fn(u32) -> bool) -> Option<usize> {
    for slot in probes(slots, hash) {
        match slots.get(slot) {
            Some(&EMPTY) => return Some(slot),
            Some(taken) if !same(*taken) => {}
            _ => return None,
        }
    }
    None
}
