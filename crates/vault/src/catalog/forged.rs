//! Which places gave forged shards, kept in the local state until they are mended: every run says so, and reads others first.
//!
//! - Bounded: [`ROWS_MAX`] shards are remembered. That their packs are to be read in full by repair is kept beside them.

use std::sync::Arc;

use drystone_format::{PackId, PlaceId};
use drystone_index::{ChunkMap, State};
use parking_lot::Mutex;

use crate::base::Base;
use crate::catalog::losses::{UNSOUND, flat, stored_packs};
use crate::error::Result;
use crate::places::place::Place;

/// State key of the forged shards: place and pack, 48 bytes each.
const FORGED: &str = "forged_shards";
/// Rows kept: some 200 KB.
const ROWS_MAX: usize = 4096;

const ROW_BYTES: usize = PlaceId::LEN + PackId::LEN;

fn rows(state: &State) -> Result<Vec<(PlaceId, PackId)>> {
    let bytes = state.get(FORGED)?.unwrap_or_default();
    let (rows, _) = bytes.as_chunks::<ROW_BYTES>();
    let row = |row: &[u8; ROW_BYTES]| {
        let (place, pack) = row.split_at(PlaceId::LEN);
        Some((PlaceId::from_slice(place)?, PackId::from_slice(pack)?))
    };
    Ok(rows.iter().filter_map(row).collect())
}

fn store(state: &State, rows: &[(PlaceId, PackId)]) -> Result<()> {
    let flat: Vec<u8> = rows
        .iter()
        .flat_map(|(place, pack)| [&place.0[..], &pack.0].concat())
        .collect();
    Ok(state.set(FORGED, &flat)?)
}

fn note(state: &State, pack: &PackId, places: &[PlaceId]) -> Result<()> {
    let mut unsound = stored_packs(state, UNSOUND)?;
    if unsound.insert(*pack) {
        state.set(UNSOUND, &flat(&unsound))?;
    }
    let mut rows = rows(state)?;
    let before = rows.len();
    for place in places {
        if !rows.contains(&(*place, *pack)) && rows.len() < ROWS_MAX {
            rows.push((*place, *pack));
        }
    }
    if rows.len() > before {
        store(state, &rows)?;
    }
    Ok(())
}

/// Forgets what was forged of a pack: it was made anew. The caller holds the lock on what is noted.
pub(crate) fn forget_forged(state: &State, pack: &PackId) -> Result<()> {
    let mut rows = rows(state)?;
    let before = rows.len();
    rows.retain(|(_, forged)| forged != pack);
    if rows.len() < before {
        store(state, &rows)?;
    }
    Ok(())
}

impl Base {
    /// Remembers from now on which places give forged shards.
    pub(crate) fn watch_for_forged(&self) {
        let Some(spread) = self.place.as_spread() else { return };
        let (state, noting) = (Arc::clone(self.state()), Arc::clone(&self.noting));
        spread.set_forged(Arc::new(move |pack, places| {
            let _one_at_a_time = noting.lock();
            // Best effort: what is read is right even if nothing can be written down, and the run says what it found.
            let _ = note(&state, pack, places);
        }));
    }
}

/// Tells the spread what earlier runs found, as far as the packs are still there.
pub(crate) fn recall_forged(place: &Place, state: &State, noting: &Mutex<()>, index: &dyn ChunkMap) -> Result<()> {
    let Some(spread) = place.as_spread() else {
        return Ok(());
    };
    let _one_at_a_time = noting.lock();
    let all = rows(state)?;
    let mut kept = Vec::new();
    for row in &all {
        if index.pack(&row.1)?.is_some() {
            kept.push(*row);
        }
    }
    if kept.len() < all.len() {
        store(state, &kept)?;
    }
    for (place, pack) in kept {
        spread.recall_forged(&place, &pack);
    }
    Ok(())
}
