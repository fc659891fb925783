//! What the attacker can seal and sign with the keys he has: the other half of what knows the format.

use std::collections::BTreeSet;

use drystone_format::chunker::Sizes;
use drystone_format::config::{Config, Features, Trust};
use drystone_format::epoch::{Closing, Epoch, seal_epoch};
use drystone_format::header::Header;
use drystone_format::id::{ChunkHasher, object_hash};
use drystone_format::keys::{Secrets, SignKey};
use drystone_format::ledger::{Ledger, LedgerName, Sightings, seal_ledger};
use drystone_format::notice::seal_verified;
use drystone_format::pack::{PackedChunk, SealedPack, Tail, tail_bytes};
use drystone_format::places::{PlaceEntry, PlaceMark, PlaceMarks};
use drystone_format::presence::{Presence, WriterState};
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, RootName};
use drystone_format::seal::PackKind;
use drystone_format::shard::{Shape, ShardKeys, open_footer, open_shard, seal_shard};
use drystone_format::slot::{Slot, SlotNote};
use drystone_format::tree::{Kind as EntryKind, Time, append_encoded};
use drystone_format::{PackId, PlaceId, RegistrationId, RootId, SlotId, random};
use drystone_store::{Kind, Name, ShardId};

use crate::attack::trace::{Content, Key, Under, What};
use crate::attack::world::{EVIL_URL, HOSTS, World, is, snapshot_of};
use crate::support::{ALONE, craft_pack, craft_presence, craft_root, entry, noise};

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
            Content::Presence => self.presence(secrets, under),
            Content::Epoch => {
                let number = self.epochs().last().map_or(0, |(number, _)| *number) + 1;
                let roots = self.roots();
                let all = roots.iter().map(|root| root.registration).chain(self.announced());
                let fences: BTreeSet<RegistrationId> = all.collect();
                let epoch = Epoch {
                    packs: self.packs(),
                    closings: fences.iter().map(|id| (*id, Closing::Dead)).collect(),
                    fences,
                };
                let object = seal_epoch(secrets, &epoch, &mut self.rng).ok()?;
                Some(vec![(Name::epoch(number, &object_hash(&object)), object)])
            }
            Content::Ledger => self.ledger(secrets),
            Content::Verified => {
                let packs: Vec<PackId> = self.packs().into_iter().collect();
                let object = seal_verified(secrets, &packs, &mut self.rng).ok()?;
                Some(vec![(Name::verified(&object_hash(&object)), object)])
            }
            Content::Places(count) => self.configuration(secrets, count),
            Content::Slots(count) => self.slots(secrets, count),
            Content::Header => self.header(),
        }
    }

    /// A ledger that carries over all others, and forgets every root by its name and by its registration.
    fn ledger(&mut self, secrets: &Secrets) -> Option<Forged> {
        let roots = self.roots();
        let predecessors: BTreeSet<LedgerName> = self.ledgers();
        let ledger = Ledger {
            number: predecessors.last().map_or(0, |(number, _)| *number) + 1,
            predecessors,
            forgotten: roots.iter().map(RootName::numbered).collect(),
            dead: self.announced().into_iter().collect(),
            ..Ledger::default()
        };
        let object = seal_ledger(secrets, &ledger, &Sightings::default(), &mut self.rng).ok()?;
        Some(vec![(Name::ledger(ledger.number, &object_hash(&object)), object)])
    }

    fn ledgers(&self) -> BTreeSet<LedgerName> {
        let id = |name: Name| match name.kind() {
            Kind::Ledger(number, id) => Some((number, id)),
            _ => None,
        };
        self.names(What::Ledgers).into_iter().filter_map(id).collect()
    }

    fn fresh(&mut self) -> RegistrationId {
        RegistrationId(random::array(&mut self.rng))
    }

    /// All names that lie anywhere, oldest first.
    fn names(&self, what: What) -> Vec<Name> {
        let all: BTreeSet<Name> = self.state().into_iter().flat_map(|state| state.into_keys()).collect();
        let mut names: Vec<Name> = all.into_iter().filter(|name| is(what, name)).collect();
        names.sort_by_key(|name| (self.born.get(name).copied().unwrap_or(usize::MAX), name.clone()));
        names
    }

    fn roots(&self) -> Vec<RootName> {
        let id = |name: Name| match name.kind() {
            Kind::Root(root) => Some(root),
            _ => None,
        };
        self.names(What::Roots).into_iter().filter_map(id).collect()
    }

    fn announced(&self) -> Vec<RegistrationId> {
        let id = |name: Name| match name.kind() {
            Kind::Writer(id, ..) => Some(id),
            _ => None,
        };
        self.names(What::Presences).into_iter().filter_map(id).collect()
    }

    /// The registration of a presence that is there, and its nonce, which is no secret.
    fn announcement(&self, secrets: &Secrets, under: Under) -> Option<(RegistrationId, [u8; 16])> {
        let names = self.names(What::Presences);
        let name = match under {
            Under::Existing(pick) => pick_of(&names, pick)?,
            _ => names.last()?.clone(),
        };
        let Kind::Writer(registration, beat, hash) = name.kind() else {
            return None;
        };
        let object = self.state().into_iter().find_map(|place| place.get(&name).cloned())?;
        let (presence, _) = Presence::verify(secrets, (&registration, beat, &hash), &object).ok()?;
        Some((registration, presence.nonce))
    }

    fn presence(&mut self, secrets: &Secrets, under: Under) -> Option<Forged> {
        let (named, nonce, state) = match under {
            Under::Fresh => (None, random::array(&mut self.rng), WriterState::AtWork),
            _ => {
                let (registration, nonce) = self.announcement(secrets, under)?;
                (Some(registration), nonce, WriterState::Over)
            }
        };
        let presence = Presence {
            nonce,
            beat: 7,
            epochs: self.epochs(),
            ledgers: BTreeSet::new(),
            packs: 1000,
            advance: None,
            state,
        };
        let (name, object) = craft_presence(secrets, &presence);
        let name = named.map_or(name, |named| Name::writer(&named, 7, &object_hash(&object)));
        Some(vec![(name, object)])
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

    fn garbage(&mut self, what: What, under: Under) -> Option<Forged> {
        let bytes = noise(self.rng.next(), 300);
        let hash = object_hash(&bytes);
        let root = |registration| {
            Name::root(&RootName {
                kind: RootKind::SNAPSHOT,
                registration,
                number: 0,
                hash,
            })
        };
        let name = match (under, what) {
            (Under::Announced, _) => root(*self.announced().last()?),
            (Under::Existing(pick), _) => pick_of(&self.names(what), pick)?,
            (Under::Fresh, What::Slots) => Name::key(&SlotId(random::array(&mut self.rng))),
            (Under::Fresh, What::Packs) => Name::pack(&PackId(random::array(&mut self.rng))),
            (Under::Fresh, What::Verified) => Name::verified(&hash),
            (Under::Fresh, What::Epochs) => Name::epoch(1000, &hash),
            (Under::Fresh, What::Ledgers) => Name::ledger(1000, &hash),
            (Under::Fresh, What::Config) => Name::config(1000, &hash),
            (Under::Fresh, What::Presences) => Name::writer(&self.fresh(), 0, &hash),
            (Under::Fresh, What::Roots | What::Any) => root(self.fresh()),
            (Under::Fresh, What::Header | What::Mark) => return None,
        };
        Some(vec![(name, bytes)])
    }

    fn root(&mut self, secrets: &Secrets, under: Under, claim: (bool, i8), has_file: bool) -> Option<Forged> {
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
        let announced = match under {
            Under::Announced => Some(self.announcement(secrets, under)?),
            _ => None,
        };
        let nonce = announced.map_or_else(|| random::array(&mut self.rng), |(_, nonce)| nonce);
        let (root, object) = craft_root(secrets, nonce, ALONE, &payload);
        let root = match (under, announced) {
            (Under::Existing(pick), _) => pick_of(&self.roots(), pick)?,
            (_, Some((registration, _))) => RootName { registration, ..root },
            _ => root,
        };
        forged.push((Name::root(&root), object));
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
            let object = seal_shard(&ShardKeys::new(secrets), &shape, number, payload).ok()?;
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
            let opened = open_shard(&ShardKeys::new(secrets), id, needed, number, &object).ok()?;
            Some(opened.payload)
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
        let key = ShardKeys::new(secrets);
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

    /// A configuration with none but the attacker's place, which he makes ready.
    fn configuration(&mut self, secrets: &Secrets, count: u8) -> Option<Forged> {
        let id = |name: Name| match name.kind() {
            Kind::Config(number, hash) => Some((number, hash)),
            _ => None,
        };
        let there: Vec<(u64, RootId)> = self.names(What::Config).into_iter().filter_map(id).collect();
        let newest = there.iter().map(|(number, _)| *number).max();
        let replaces: BTreeSet<RootId> = there.into_iter().map(|(_, hash)| hash).collect();
        let id = PlaceId(random::array(&mut self.rng));
        let config = Config {
            number: newest.unwrap_or(0) + u64::from(count),
            made: Time::default(),
            replaces: replaces.into_iter().collect(),
            features: Features::default(),
            data_sizes: Sizes::new(512, 3584).ok()?,
            meta_sizes: Sizes::new(256, 1792).ok()?,
            trust: Trust::Everyone,
            spread: (1, 1),
            root_kinds: vec![RootKind::SNAPSHOT.word().to_owned()],
            removed: Vec::new(),
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
        let object = config.seal(secrets, &mut self.rng).ok()?;
        let name = Name::config(config.number, &object_hash(&object));
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
            slot.renew(&newer, &mut self.rng).ok()?;
            let note = slot.open_note(secrets).unwrap_or(SlotNote {
                label: "key".to_owned(),
                recipient: String::new(),
                writer: newer.certificate.writer,
            });
            slot.set_note(&newer, &note, &mut self.rng).ok()?;
            forged.push((Name::key(&slot.id), slot.encode(&vault_key).ok()?));
        }
        Some(forged)
    }

    fn header(&mut self) -> Option<Forged> {
        let key = SignKey::generate(&mut self.rng);
        let header = Header {
            vault: self.vault,
            vault_verify: key.verify_key().ok()?,
            unknown: Vec::new(),
        };
        Some(vec![(Name::header(), header.encode(&key).ok()?)])
    }
}

/// The choice that a number means.
pub(crate) fn pick_of<T: Clone>(choices: &[T], pick: u8) -> Option<T> {
    if choices.is_empty() {
        return None;
    }
    choices.get(usize::from(pick) % choices.len()).cloned()
}
