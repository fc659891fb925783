//! Index parts: the tails of many packs taken from the roots that carry them, where asking every pack would take long.
//!
//! - Only parts that an owner has signed count, each for packs of that owner alone: as much as the packs' own ends would. The part of
//!   anybody else is passed over, and the ends of its packs are read: its signer could leave chunks out of it, or claim some that the pack
//!   does not have, and scrub, which reads the pack, would not notice.
//! - Where two parts differ about a pack, or a part and a list about its length, the pack's own end decides.
//! - Whatever is wrong with a part costs reading the ends of its packs.
//! - No more roots are read than packs are unknown, so that nobody's roots make it longer than without them.
//! - Memory: an entry for each unknown pack, and parts up to a share of the budget; what does not fit is opened twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drystone_format::id::object_hash;
use drystone_format::index_part::IndexPart;
use drystone_format::keys::{Role, Secrets, VerifyKey};
use drystone_format::pack::Tail;
use drystone_format::root::RootName;
use drystone_format::{PackId, RootId};
use drystone_index::State;
use drystone_store::{Kind, Prefix};
use parking_lot::Mutex;

use crate::base::Base;
use crate::error::Result;
use crate::parallel::map;
use crate::places::place::Place;
use crate::roots::listed_root;
use crate::roots::root_cache::RootCache;

/// Unknown packs from which on parts are looked for: the ends of fewer are read in the time that it takes to list the roots.
const PARTS_FROM: usize = 64;
/// A root that carries a part is larger: the least tail of a pack has 2 KiB.
const ROOT_WITH_PART_BYTES: u64 = 2 << 10;
/// State key of the roots whose parts were taken, 16 bytes each.
const TAKEN: &str = "index_parts_taken";

/// What to do with the tail of a pack of this length.
pub(super) type Learn<'a> = &'a (dyn Fn(&PackId, u64, &Tail) -> Result<()> + Sync);

/// Reads the parts that roots carry.
pub(super) struct Parts {
    place: Place,
    secrets: Arc<Secrets>,
    state: Arc<State>,
    cache: Option<Arc<RootCache>>,
    /// Keys of removed credentials.
    revoked: Vec<[u8; 32]>,
    reads: usize,
    memory_bytes: usize,
}

/// A part and the owner who signed it.
type Signed = (VerifyKey, IndexPart);

/// A part between the two looks at it.
enum Held {
    Part(Signed),
    /// There was no room for it.
    Again,
    /// There is none that counts.
    None,
}

/// What parts say of the packs that are wanted: the hash of the tail; `None` where they differ.
type Claims = HashMap<PackId, Option<RootId>>;

impl Parts {
    pub(super) fn new(vault: &Base) -> Self {
        Self {
            place: vault.place.clone(),
            secrets: vault.secrets.clone(),
            state: vault.state().clone(),
            cache: vault.root_cache.clone(),
            revoked: vault.revoked().map(|key| key.0).collect(),
            reads: vault.place.small_reads(vault.context.threads),
            memory_bytes: vault.context.memory_bytes / 4,
        }
    }

    /// Gives `learn` the tails of those of these packs that parts list, and returns the others. `new` are packs with their listed lengths.
    pub(super) fn give(&self, new: Vec<(PackId, u64)>, learn: Learn<'_>) -> Result<Vec<(PackId, u64)>> {
        if !self.place.is_slow() || new.len() < PARTS_FROM {
            return Ok(new);
        }
        let mut wanted: HashMap<PackId, u64> = new.into_iter().collect();
        let listed = self.listed()?;
        let mut taken = self.taken()?;
        // What was taken before lists packs that are known by now, unless the index was lost.
        let (before, fresh): (Vec<RootName>, Vec<RootName>) =
            listed.iter().copied().partition(|root| taken.contains(&root.hash));
        for mut roots in [fresh, before] {
            if wanted.len() < PARTS_FROM {
                break;
            }
            roots.truncate(wanted.len());
            let found = self.give_from(&roots, &wanted, learn)?;
            wanted.retain(|pack, _| !found.contains(pack));
            taken.extend(roots.iter().map(|root| root.hash));
        }
        let all: HashSet<RootId> = listed.iter().map(|root| root.hash).collect();
        taken.retain(|root| all.contains(root));
        let bytes: Vec<u8> = taken.iter().flat_map(|root| root.0).collect();
        self.state.set(TAKEN, &bytes)?;
        Ok(wanted.into_iter().collect())
    }

    /// The roots that may carry a part, the largest first.
    fn listed(&self) -> Result<Vec<RootName>> {
        let mut listed = Vec::new();
        self.place.for_each(&Prefix::AllRoots, |found| {
            if let Kind::Root(root) = found.name.kind()
                && found.size > ROOT_WITH_PART_BYTES
            {
                listed.push((found.size, root));
            }
            Ok(())
        })?;
        listed.sort_unstable_by_key(|(size, root)| (std::cmp::Reverse(*size), *root));
        Ok(listed.into_iter().map(|(_, root)| root).collect())
    }

    fn taken(&self) -> Result<HashSet<RootId>> {
        let bytes = self.state.get(TAKEN)?.unwrap_or_default();
        let (roots, _) = bytes.as_chunks::<{ RootId::LEN }>();
        Ok(roots.iter().map(|root| RootId(*root)).collect())
    }

    /// Gives the tails that these roots carry, and returns the packs that they are of. All parts are looked at before any is believed.
    fn give_from(
        &self,
        roots: &[RootName],
        wanted: &HashMap<PackId, u64>,
        learn: Learn<'_>,
    ) -> Result<HashSet<PackId>> {
        let (claims, room) = (Mutex::new(Claims::new()), AtomicUsize::new(self.memory_bytes));
        let held = map(self.reads, roots, &|root| {
            let Some(signed) = self.read(root)? else {
                return Ok(Held::None);
            };
            claim(&signed.1, wanted, &mut claims.lock());
            let bytes = signed.1.size_bytes();
            let fits = room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes));
            Ok(if fits.is_ok() { Held::Part(signed) } else { Held::Again })
        })?;
        let (claims, found) = (claims.into_inner(), Mutex::new(HashSet::new()));
        let both: Vec<(&RootName, Held)> = roots.iter().zip(held).collect();
        map(self.reads, &both, &|(root, held)| match held {
            Held::None => Ok(()),
            Held::Part(signed) => self.give_part(signed, wanted, &claims, (&found, learn)),
            Held::Again => match self.read(root)? {
                Some(signed) => self.give_part(&signed, wanted, &claims, (&found, learn)),
                None => Ok(()),
            },
        })?;
        Ok(found.into_inner())
    }

    /// The part of a root, if it carries one that counts.
    fn read(&self, root: &RootName) -> Result<Option<Signed>> {
        let signed = match listed_root(&self.place, &self.secrets, self.cache.as_deref(), root) {
            Err(error) if error.is_damage() => return Ok(None),
            signed => signed?,
        };
        let signer = signed.certificate.writer;
        if signed.certificate.role != Role::Owner || self.revoked.contains(&signer.0) {
            return Ok(None);
        }
        let part = signed.open_index_part(&self.secrets).ok().flatten();
        Ok(part.map(|part| (signer, part)))
    }

    fn give_part(
        &self,
        (signer, part): &Signed,
        wanted: &HashMap<PackId, u64>,
        claims: &Claims,
        (found, learn): (&Mutex<HashSet<PackId>>, Learn<'_>),
    ) -> Result<()> {
        for pack in part.packs() {
            let is_agreed = claims.get(&pack.id) == Some(&Some(object_hash(&pack.tail)));
            if !is_agreed || wanted.get(&pack.id) != Some(&pack.bytes) || found.lock().contains(&pack.id) {
                continue;
            }
            let Ok(tail) = pack.open(&self.secrets, signer) else {
                continue;
            };
            match learn(&pack.id, pack.bytes, &tail) {
                // The pack itself says so too, and is remembered for it.
                Err(crate::Error::Index(drystone_index::Error::TooLarge { .. })) => {}
                taken => {
                    taken?;
                    found.lock().insert(pack.id);
                }
            }
        }
        Ok(())
    }
}

/// Notes what a part says of packs that are wanted.
fn claim(part: &IndexPart, wanted: &HashMap<PackId, u64>, claims: &mut Claims) {
    for pack in part.packs().filter(|pack| wanted.contains_key(&pack.id)) {
        let says = Some(object_hash(&pack.tail));
        let agreed = claims.entry(pack.id).or_insert(says);
        if *agreed != says {
            *agreed = None;
        }
    }
}
