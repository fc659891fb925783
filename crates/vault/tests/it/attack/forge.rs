//! What the attacker can seal and sign with the keys he has: the other half of what knows the format.

use std::collections::BTreeSet;

use drystone_format::chunker::Sizes;
use drystone_format::epoch::{Epoch, seal_epoch};
use drystone_format::header::{Header, Trust};
use drystone_format::id::ChunkHasher;
use drystone_format::keys::Secrets;
use drystone_format::notice::seal_verified;
use drystone_format::pack::{PackedChunk, SealedPack, Tail, tail_bytes};
use drystone_format::places::{PlaceEntry, PlaceMark, PlaceMarks, Places};
use drystone_format::presence::Presence;
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, seal_root};
use drystone_format::seal::PackKind;
use drystone_format::shard::{Shape, open_footer, open_shard, seal_shard};
use drystone_format::slot::Slot;
use drystone_format::tree::{Kind as EntryKind, append_encoded};
use drystone_format::{PackId, PlaceId, RootId, SlotId, random};
use drystone_store::{Kind, Name, ShardId};

use crate::attack::trace::{Content, Key, Under, What};
use crate::attack::world::{EVIL_URL, HOSTS, World, is, snapshot_of};
use crate::support::{craft_pack, entry, noise};

/// Objects to be put.
pub(crate) type Forged = Vec<(Name, Vec<u8>)>;

impl World {
    /// What the attacker makes; nothing where he lacks the keys or there is nothing to make it of.
    pub(crate) fn forge(&mut self, content: Content, under: Under) -> Forged {
        let made = match (content, self.thief.clone()) {
            (Content::Garbage(what), _) => self.garbage(what, under),
            (_, None) => None,
            (content, Some(secrets)) => self.sealed(content, under, &secrets),
        };
        made.unwrap_or_default()
    }

    fn sealed(&mut self, content: Content, under: Under, secrets: &Secrets) -> Option<Forged> {
        match content {
            Content::Garbage(_) => None,
            Content::Root {
                forges_host,
                hours,
                has_file,
            } => self.root(secrets, under, (forges_host, hours), has_file),
            Content::Pack => self.lying_pack(secrets, under),
            Content::Shard => self.shard(secrets, under),
            Content::Presence => {
                let presence = Presence {
                    writer: secrets.certificate.writer,
                    seen: self.epochs(),
                };
                let id = self.root_id(under)?;
                Some(vec![(Name::writer(&id, 7), presence.encode())])
            }
            Content::Epoch => {
                let number = self.epochs().last().map_or(0, |(number, _)| *number) + 1;
                let roots: BTreeSet<RootId> = self.roots().into_iter().chain(self.announced()).collect();
                let epoch = Epoch {
                    packs: self.packs(),
                    fenced: roots.clone(),
                    roots,
                };
                let object = seal_epoch(secrets, &epoch, &mut self.rng).ok()?;
                Some(vec![(Name::epoch(number, &self.fresh()), object)])
            }
            Content::Verified => {
                let packs: Vec<PackId> = self.packs().into_iter().collect();
                let object = seal_verified(secrets, &packs, &mut self.rng).ok()?;
                Some(vec![(Name::verified(&self.fresh()), object)])
            }
            Content::Places(count) => self.list_of_places(secrets, count),
            Content::Slots(count) => self.slots(secrets, count),
            Content::Header => self.header(secrets),
        }
    }

    fn fresh(&mut self) -> RootId {
        RootId(random::array(&mut self.rng))
    }

    /// All names that lie anywhere, oldest first.
    fn names(&self, what: What) -> Vec<Name> {
        let all: BTreeSet<Name> = self.state().into_iter().flat_map(|state| state.into_keys()).collect();
        let mut names: Vec<Name> = all.into_iter().filter(|name| is(what, name)).collect();
        names.sort_by_key(|name| (self.born.get(name).copied().unwrap_or(usize::MAX), name.clone()));
        names
    }

    fn roots(&self) -> Vec<RootId> {
        let id = |name: Name| match name.kind() {
            Kind::Root(_, id) => Some(id),
            _ => None,
        };
        self.names(What::Roots).into_iter().filter_map(id).collect()
    }

    fn announced(&self) -> Vec<RootId> {
        let id = |name: Name| match name.kind() {
            Kind::Writer(id, _) => Some(id),
            _ => None,
        };
        self.names(What::Presences).into_iter().filter_map(id).collect()
    }

    fn epochs(&self) -> BTreeSet<(u64, RootId)> {
        let id = |name: Name| match name.kind() {
            Kind::Epoch(number, id) => Some((number, id)),
            _ => None,
        };
        self.names(What::Epochs).into_iter().filter_map(id).collect()
    }

    fn packs(&self) -> BTreeSet<PackId> {
        let id = |name: Name| match name.kind() {
            Kind::Pack(id) => Some(id),
            Kind::Shard(shard) => Some(shard.pack),
            _ => None,
        };
        self.names(What::Packs).into_iter().filter_map(id).collect()
    }

    /// The id of a root: a new one, one that exists, or one that a run will publish.
    fn root_id(&mut self, under: Under) -> Option<RootId> {
        match under {
            Under::Fresh => Some(self.fresh()),
            Under::Existing(pick) => pick_of(&self.roots(), pick),
            Under::Announced => self.announced().last().copied(),
        }
    }

    fn garbage(&mut self, what: What, under: Under) -> Option<Forged> {
        let bytes = noise(self.rng.next(), 300);
        let name = match (under, what) {
            (Under::Announced, _) => Name::root(RootKind::Snapshot, &self.root_id(under)?),
            (Under::Existing(pick), _) => pick_of(&self.names(what), pick)?,
            (Under::Fresh, What::Slots) => Name::key(&SlotId(random::array(&mut self.rng))),
            (Under::Fresh, What::Packs) => Name::pack(&PackId(random::array(&mut self.rng))),
            (Under::Fresh, What::Verified) => Name::verified(&self.fresh()),
            (Under::Fresh, What::Epochs) => Name::epoch(1000, &self.fresh()),
            (Under::Fresh, What::Places) => Name::places(1000, &self.fresh()),
            (Under::Fresh, What::Presences) => Name::writer(&self.fresh(), 0),
            (Under::Fresh, What::Roots | What::Any) => Name::root(RootKind::Snapshot, &self.fresh()),
            (Under::Fresh, What::Header | What::Mark) => return None,
        };
        Some(vec![(name, bytes)])
    }

    fn root(&mut self, secrets: &Secrets, under: Under, claim: (bool, i8), has_file: bool) -> Option<Forged> {
        let id = self.root_id(under)?;
        let host = match (claim.0, self.setting.key) {
            (true, _) => HOSTS[0],
            (false, Key::Stolen) => HOSTS[2],
            (false, _) => "thief",
        };
        let mut forged = Vec::new();
        let mut tree = Recipe::default();
        if has_file {
            let hasher = ChunkHasher::new(&secrets.dedup_key);
            let content = noise(99, 800);
            let file = Recipe::single(hasher.id(&content), content.len() as u64);
            let mut stream = Vec::new();
            append_encoded(&mut stream, &entry("evil", EntryKind::File(file)).encode());
            tree = Recipe::single(hasher.id(&stream), stream.len() as u64);
            for (kind, bytes) in [(PackKind::Data, content), (PackKind::Meta, stream)] {
                let chunk = PackedChunk {
                    id: hasher.id(&bytes),
                    bytes: bytes.len() as u32,
                };
                forged.extend(self.laid_out(secrets, craft_pack(secrets, kind, &[(bytes, vec![chunk])]))?);
            }
        }
        let time = self.now() + i64::from(claim.1) * 3600;
        let payload = snapshot_of(tree, host, time).encode();
        let object = seal_root(secrets, RootKind::Snapshot, &id, &payload, &mut self.rng).ok()?;
        forged.push((Name::root(RootKind::Snapshot, &id), object));
        Some(forged)
    }

    /// A pack as it lies here: whole, or as the shards that give it back.
    fn laid_out(&self, secrets: &Secrets, pack: SealedPack) -> Option<Forged> {
        if self.setting.places == 1 {
            return Some(vec![(Name::pack(&pack.id), pack.bytes)]);
        }
        let needed = self.setting.spread.0;
        let shape = Shape::new(pack.id, pack.bytes.len() as u64, needed).ok()?;
        let columns = shape.columns(&pack.bytes).ok()?;
        let shard = |(number, payload): (u8, &&[u8])| {
            let object = seal_shard(&secrets.shard_key(), &shape, number, payload).ok()?;
            let id = ShardId {
                pack: pack.id,
                needed,
                number,
            };
            Some((Name::shard(&id), object))
        };
        (0..).zip(&columns).map(shard).collect()
    }

    /// A pack that is there, whole.
    fn whole_pack(&self, secrets: &Secrets, id: PackId) -> Option<Vec<u8>> {
        let state = self.state();
        let find = |name: Name| state.iter().find_map(|place| place.get(&name).cloned());
        if let Some(bytes) = find(Name::pack(&id)) {
            return Some(bytes.to_vec());
        }
        let needed = self.setting.spread.0;
        let column = |number| {
            let shard = ShardId {
                pack: id,
                needed,
                number,
            };
            let object = find(Name::shard(&shard))?;
            let opened = open_shard(&secrets.shard_key(), id, needed, number, &object).ok()?;
            Some(opened.1)
        };
        let columns: Option<Vec<Vec<u8>>> = (0..needed).map(column).collect();
        Some(columns?.concat())
    }

    fn lying_pack(&mut self, secrets: &Secrets, under: Under) -> Option<Forged> {
        let packs: Vec<PackId> = self.packs().into_iter().collect();
        let pick = if let Under::Existing(pick) = under {
            pick
        } else {
            self.rng.next() as u8
        };
        let object = self.whole_pack(secrets, pick_of(&packs, pick)?)?;
        let size = object.len() as u64;
        let start = object.len() - tail_bytes(&object, size).ok()?;
        let tail = Tail::open(&object[start..], size, secrets).ok()?;
        let frames: Vec<_> = tail
            .frames
            .iter()
            .map(|frame| {
                let bytes: u32 = frame.chunks.iter().map(|chunk| chunk.bytes).sum();
                (vec![0; bytes as usize], frame.chunks.clone())
            })
            .collect();
        self.laid_out(secrets, craft_pack(secrets, PackKind::Data, &frames))
    }

    /// A shard with right tags over garbage: of a pack that is there, in the place of one that is there, or one more.
    fn shard(&mut self, secrets: &Secrets, under: Under) -> Option<Forged> {
        let shards: Vec<Name> = self.names(What::Packs);
        let pick = if let Under::Existing(pick) = under {
            pick
        } else {
            self.rng.next() as u8
        };
        let name = pick_of(&shards, pick)?;
        let Kind::Shard(id) = name.kind() else { return None };
        let object = self.state().into_iter().find_map(|place| place.get(&name).cloned())?;
        let key = secrets.shard_key();
        let shape = open_footer(&key, id.pack, id.needed, id.number, &object).ok()?;
        let number = if matches!(under, Under::Existing(_)) {
            id.number
        } else {
            self.setting.spread.1
        };
        let payload = noise(self.rng.next(), shape.payload_bytes(number) as usize);
        let forged = seal_shard(&key, &shape, number, &payload).ok()?;
        Some(vec![(Name::shard(&ShardId { number, ..id }), forged)])
    }

    /// A list of places with none but the attacker's, which he makes ready.
    fn list_of_places(&mut self, secrets: &Secrets, count: u8) -> Option<Forged> {
        let generation = |name: Name| match name.kind() {
            Kind::Places(generation, _) => Some(generation),
            _ => None,
        };
        let newest = self.names(What::Places).into_iter().filter_map(generation).max();
        let id = PlaceId(random::array(&mut self.rng));
        let list = Places {
            generation: newest.unwrap_or(0) + u64::from(count),
            needed: 1,
            total: 1,
            places: vec![PlaceEntry {
                id,
                url: EVIL_URL.to_owned(),
                weight: 1,
                marks: PlaceMarks::default(),
                up_bytes: None,
                down_bytes: None,
                unknown: Vec::new(),
            }],
            unknown: Vec::new(),
        };
        let object = list.seal(secrets, &mut self.rng).ok()?;
        let name = Name::places(list.generation, &self.fresh());
        if let Some(vault_key) = &secrets.vault_key {
            let mark = PlaceMark {
                vault: secrets.vault,
                place: id,
            };
            let small = self.state().swap_remove(0);
            let mut small: crate::attack::world::Objects =
                small.into_iter().filter(|(name, _)| !is(What::Packs, name)).collect();
            small.insert(Name::place(), mark.encode(vault_key).ok()?.into());
            small.insert(name.clone(), object.clone().into());
            self.evil.replace(&small);
        }
        Some(vec![(name, object)])
    }

    fn slots(&mut self, secrets: &Secrets, count: u8) -> Option<Forged> {
        let vault_key = secrets.vault_key.clone()?;
        let mut newer = secrets.clone();
        for _ in 0..count {
            newer.advance(&mut self.rng).ok()?;
        }
        self.forged.push(newer.clone());
        let state = self.state();
        let objects = self.names(What::Slots).into_iter().filter_map(|name| {
            let object = state.iter().find_map(|place| place.get(&name))?;
            Slot::decode(object).ok()
        });
        let mut forged = Vec::new();
        for slot in objects.collect::<Vec<_>>() {
            let mut slot = Slot {
                id: SlotId(random::array(&mut self.rng)),
                ..slot
            };
            slot.fill(&newer.delegate(&mut self.rng, slot.role).ok()?, &mut self.rng)
                .ok()?;
            forged.push((Name::key(&slot.id), slot.encode(&vault_key).ok()?));
        }
        Some(forged)
    }

    fn header(&mut self, secrets: &Secrets) -> Option<Forged> {
        let vault_key = secrets.vault_key.as_ref()?;
        let state = self.state();
        let header = state
            .iter()
            .find_map(|place| Header::decode(place.get(&Name::header())?).ok())?;
        let other = Header {
            generation: header.generation + 1,
            trust: Trust::Everyone,
            data_sizes: Sizes::new(512, 3584).ok()?,
            ..header
        };
        Some(vec![(Name::header(), other.encode(vault_key).ok()?)])
    }
}

/// The choice that a number means.
pub(crate) fn pick_of<T: Clone>(choices: &[T], pick: u8) -> Option<T> {
    if choices.is_empty() {
        return None;
    }
    choices.get(usize::from(pick) % choices.len()).cloned()
}
