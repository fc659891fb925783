//! The packs this process knows, numbered in the order of their appearance.
//!
//! - A number stays valid, and names the same pack, for the life of the process.
//! - A pack is known while at least one table or run holds all its entries, unless it was forgotten.

use std::collections::HashMap;

use drystone_format::PackId;

use crate::entry::PackInfo;

/// What is known of every pack.
#[derive(Default)]
pub(crate) struct Packs {
    known: Vec<Known>,
    numbers: HashMap<PackId, u32>,
}

struct Known {
    info: PackInfo,
    /// Tables and runs that hold the pack's entries.
    sources: u32,
    /// The caller said that the pack is gone from the vault; its entries count no more.
    forgotten: bool,
}

impl Packs {
    /// Counts one more source of the pack and returns its number.
    pub(crate) fn add(&mut self, info: &PackInfo) -> u32 {
        let next = self.known.len() as u32;
        let number = *self.numbers.entry(info.pack).or_insert(next);
        match self.known.get_mut(number as usize) {
            Some(known) => {
                if known.sources == 0 {
                    known.info = *info;
                }
                known.sources += 1;
            }
            None => self.known.push(Known {
                info: *info,
                sources: 1,
                forgotten: false,
            }),
        }
        number
    }

    /// Counts one source less.
    pub(crate) fn remove(&mut self, number: u32) {
        if let Some(known) = self.known.get_mut(number as usize) {
            known.sources = known.sources.saturating_sub(1);
            if known.sources == 0 {
                known.forgotten = false;
            }
        }
    }

    /// The pack, if it is known.
    pub(crate) fn get(&self, number: u32) -> Option<&PackInfo> {
        self.known
            .get(number as usize)
            .filter(|known| known.is_live())
            .map(|known| &known.info)
    }

    pub(crate) fn find(&self, pack: &PackId) -> Option<&PackInfo> {
        self.get(*self.numbers.get(pack)?)
    }

    /// Says how many distinct chunks the pack has, once they have been counted.
    pub(crate) fn set_chunk_count(&mut self, number: u32, chunk_count: u32) {
        if let Some(known) = self.known.get_mut(number as usize) {
            known.info.chunk_count = chunk_count;
        }
    }

    pub(crate) fn set_forgotten(&mut self, number: u32, forgotten: bool) {
        if let Some(known) = self.known.get_mut(number as usize) {
            known.forgotten = forgotten;
        }
    }

    /// All known packs with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &PackInfo)> {
        (0..)
            .zip(&self.known)
            .filter(|(_, known)| known.is_live())
            .map(|(number, known)| (number, &known.info))
    }

    /// Numbers that were ever given, known or not.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

impl Known {
    fn is_live(&self) -> bool {
        self.sources > 0 && !self.forgotten
    }
}
