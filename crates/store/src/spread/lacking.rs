//! Which places lack small objects that others have, told by listings alone.
//!
//! - Only what a place that answered lacks is told; what one that is away has is not known.
//! - Before a copy is called lacking it is asked for by name, and so is the object elsewhere: what comes or goes meanwhile is no debt.
//! - Presences are left out, as nobody brings one to a place that was away during the run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::core::{Core, Spread};
use super::place::KnownPlace;
use super::troubles::Objects;
use crate::prefix::DIRECTORIES;
use crate::{Listed, Name, Prefix, Result};

/// Names listed at a time.
const PAGE: usize = 1000;

/// What a place lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Its URL or path.
    pub place: String,
    /// The copies that should lie there: those that do not, and those whose length is not that of the object.
    pub objects: Objects,
}

impl Spread {
    /// Compares what the places list of small objects. Places that lack nothing are left out; fails if too few can be listed.
    pub async fn lacking(&self) -> Result<Vec<Lacking>> {
        let core = &self.core;
        let mut lacking: Vec<Objects> = vec![Objects::default(); core.places.len()];
        core.compare(&Name::header(), &BTreeMap::new(), &mut lacking).await;
        let is_copied = |prefix: &Prefix| !matches!(prefix, Prefix::Packs | Prefix::Shards | Prefix::Writers);
        for prefix in DIRECTORIES.iter().map(|directory| directory.prefix).filter(is_copied) {
            core.compare_listings(prefix, &mut lacking).await?;
        }
        let named = core.places.iter().zip(lacking).map(|(place, objects)| Lacking {
            place: place.label().to_owned(),
            objects,
        });
        Ok(named.filter(|lacking| lacking.objects.count > 0).collect())
    }
}

impl Core {
    async fn compare_listings(self: &Arc<Self>, prefix: Prefix, lacking: &mut [Objects]) -> Result<()> {
        let mut after: Option<Name> = None;
        loop {
            let page = self.listed_copies(prefix, after.as_ref(), PAGE).await?;
            let Some((_, last)) = page.last().and_then(|copies| copies.first()) else {
                return Ok(());
            };
            after = Some(last.name.clone());
            for copies in page.iter().filter(|copies| !self.is_everywhere(copies)) {
                let Some((_, listed)) = copies.first() else { continue };
                let mut listed_at: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
                for (position, Listed { size, .. }) in copies {
                    listed_at.entry(*position).or_default().push(*size);
                }
                self.compare(&listed.name, &listed_at, lacking).await;
            }
        }
    }

    /// Returns true if every copy of an object is listed, all with one length.
    fn is_everywhere(&self, copies: &[(usize, Listed)]) -> bool {
        let is_one_length = copies.windows(2).all(|two| match two {
            [(_, one), (_, other)] => one.size == other.size,
            _ => true,
        });
        let due = self.copies.iter().filter(|copy| !copy.is_leaving()).count();
        is_one_length && copies.len() >= due
    }

    /// Asks for each copy of an object that was not listed with the length of a sound one.
    async fn compare(self: &Arc<Self>, name: &Name, listed_at: &BTreeMap<usize, Vec<u64>>, lacking: &mut [Objects]) {
        // If it went meanwhile, or no place has a sound copy of it, whoever reads it says so.
        let Ok(size) = self.stat_small(name).await else { return };
        let copies = self.copies_of(name);
        let mut found: Vec<&Arc<KnownPlace>> = Vec::new();
        for copy in copies
            .iter()
            .filter(|copy| !copy.is_leaving() && self.refusal(copy, name).is_none())
        {
            let due = copies.iter().filter(|other| other.position == copy.position).count();
            let listed = listed_at.get(&copy.position).map_or(&[][..], Vec::as_slice);
            if listed.len() == due && listed.iter().all(|listed| *listed == size) {
                continue;
            }
            let is_lacking = match copy.stat(name).await {
                Ok(found) => found != size,
                Err(error) => error.is_not_found(),
            };
            if is_lacking {
                found.push(copy);
            }
        }
        if found.is_empty() || self.stat_small(name).await.is_err() {
            return;
        }
        for copy in found {
            if let Some(lacking) = lacking.get_mut(copy.position) {
                lacking.add(&name.spare(copy.spare));
            }
        }
    }
}
