//! What was learned about packs in this run, for as many as fit a bound.
//!
//! - Two generations: when the young one is full it becomes the old one, so what is used stays.

use std::collections::HashMap;

use drystone_format::PackId;
use parking_lot::Mutex;

/// Packs in one generation: with lengths two of them take about 0.5 MiB, with the places of 14 shards about 8 MiB.
const GENERATION_MAX: usize = 4096;

/// A bounded memory of something about packs.
#[derive(Debug)]
pub(super) struct Recent<T> {
    generations: Mutex<[HashMap<PackId, T>; 2]>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            generations: Mutex::default(),
        }
    }
}

impl<T: Clone> Recent<T> {
    pub(super) fn get(&self, pack: &PackId) -> Option<T> {
        let mut generations = self.generations.lock();
        let [young, old] = &mut *generations;
        if let Some(found) = young.get(pack) {
            return Some(found.clone());
        }
        let found = old.get(pack)?.clone();
        insert(&mut generations, *pack, found.clone());
        Some(found)
    }

    pub(super) fn insert(&self, pack: PackId, value: T) {
        insert(&mut self.generations.lock(), pack, value);
    }

    pub(super) fn remove(&self, pack: &PackId) {
        for generation in &mut *self.generations.lock() {
            generation.remove(pack);
        }
    }
}

fn insert<T>([young, old]: &mut [HashMap<PackId, T>; 2], pack: PackId, value: T) {
    if young.len() >= GENERATION_MAX {
        *old = std::mem::take(young);
    }
    young.insert(pack, value);
}
