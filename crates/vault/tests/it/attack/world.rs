//! The world of a trace, and everything in it that knows the format or the interface of the engine: places, machines, the names
//! of objects, what the attacker can seal. A change of the format should need changes here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use drystone_format::chunker::Sizes;
use drystone_format::config::Trust;
use drystone_format::header::Header;
use drystone_format::keys::{OpenKey, Role, Secrets, VerifyKey};
use drystone_format::pack::{Tail, tail_bytes};
use drystone_format::recipe::Recipe;
use drystone_format::root::open_root;
use drystone_format::slot::Slot;
use drystone_format::snapshot::Snapshot;
use drystone_format::tree::Time;
use drystone_format::{RootId, SlotId, VaultId};
use drystone_store::{Kind, Memory, Name};
use drystone_vault::{
    Accept, Clock, Context, CreateOptions, Entropy, Error, Ingest, NewEpoch, NewLock, NewPlace, NewSlot, PlaceUse,
    Reach, Unlock, Vault, VaultPin, generate_key_file, vault_line,
};
use parking_lot::Mutex;

use crate::attack::spot::{Net, Spot};
use crate::attack::trace::{Client, Key, Rng, Setting, What};
use crate::support::{self, Fixture, copy_tree, noise, runtime, scrub};

/// Whether a client with a kept key makes a vault where it finds none, as the command line does today (S14).
pub(crate) const AUTO_CREATES: bool = true;
/// Where the attacker has a place of his own.
pub(crate) const EVIL_URL: &str = "mem://evil";
/// Hosts of the honest machines, in the order of [`Client`].
pub(crate) const HOSTS: [&str; 3] = ["home", "desk", "web"];
/// When every world begins.
const START: i64 = 1_700_000_000;

pub(crate) type Objects = BTreeMap<Name, Bytes>;
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// The clock of the world.
struct Ticking(Arc<AtomicI64>);

impl Clock for Ticking {
    fn now(&self) -> Time {
        Time {
            seconds: self.0.load(Ordering::Relaxed),
            nanos: 0,
        }
    }
}

/// Randomness from a seed, after bytes that were chosen.
pub(crate) struct Seeded(Mutex<(Vec<u8>, Rng)>);

impl Seeded {
    pub(crate) fn new(first: Vec<u8>, seed: u64) -> Self {
        Self(Mutex::new((first, Rng::new(seed))))
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        let (chosen, rng) = &mut *self.0.lock();
        if chosen.len() == bytes.len() {
            bytes.copy_from_slice(&std::mem::take(chosen));
            return;
        }
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&rng.next().to_le_bytes()[..part.len()]);
        }
    }
}

/// Randomness for what the attacker seals himself.
impl drystone_format::Random for Rng {
    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }
}

/// A run that has stored its data and not published it.
pub(crate) struct Pending {
    pub(crate) vault: Vault,
    pub(crate) ingest: Ingest,
    pub(crate) tree: Recipe,
    pub(crate) files: Files,
}

/// An honest machine: a key that names its vault, a cache directory with what it knows beside it, and what it has seen.
pub(crate) struct Machine {
    pub(crate) key: Fixture,
    pub(crate) pending: Option<Pending>,
    /// Snapshots that it has listed; outlives the cache directory.
    pub(crate) seen: BTreeSet<RootId>,
    /// The newest configuration that it has seen.
    pub(crate) generation: u64,
}

impl Machine {
    fn new() -> Self {
        Self {
            key: new_key(),
            pending: None,
            seen: BTreeSet::new(),
            generation: 0,
        }
    }

    fn copy(&self) -> Self {
        let copy = Self {
            key: elsewhere(&self.key),
            pending: None,
            seen: self.seen.clone(),
            generation: self.generation,
        };
        copy_tree(self.key.cache.path(), copy.key.cache.path());
        copy
    }
}

/// A directory that is gone with its machine, in memory where that can be: nothing here tests power cuts.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn new_key() -> Fixture {
    let key = generate_key_file();
    Fixture {
        cache: scratch(),
        key: key.content.to_string(),
        recipient: key.recipient,
    }
}

/// The same machine without its cache directory: what it knows outlives that.
pub(crate) fn without_cache(key: &Fixture) -> Fixture {
    let without = elsewhere(key);
    let known = known_dir(key);
    if known.exists() {
        std::fs::create_dir(known_dir(&without)).unwrap();
        copy_tree(&known, &known_dir(&without));
    }
    without
}

/// Where a machine remembers vaults and places.
fn known_dir(key: &Fixture) -> std::path::PathBuf {
    key.cache.path().join("known")
}

/// The same key on a fresh machine.
pub(crate) fn elsewhere(key: &Fixture) -> Fixture {
    Fixture {
        cache: scratch(),
        key: key.key.clone(),
        recipient: key.recipient.clone(),
    }
}

/// A snapshot that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Acked {
    pub(crate) id: RootId,
    pub(crate) client: Client,
    pub(crate) files: Files,
    /// An owner asked for it to be forgotten.
    pub(crate) is_forgotten: bool,
}

pub(crate) struct World {
    pub(crate) setting: &'static Setting,
    pub(crate) spots: Vec<Arc<Spot>>,
    pub(crate) evil: Arc<Spot>,
    /// In the order of [`Client`].
    pub(crate) machines: [Machine; 3],
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) vault: VaultId,
    pub(crate) vault_verify: VerifyKey,
    /// What lay at each place after each honest step.
    pub(crate) history: Vec<Vec<Objects>>,
    /// When each object was first seen: makes the choice among objects repeatable though their names are random.
    pub(crate) born: BTreeMap<Name, usize>,
    pub(crate) acked: Vec<Acked>,
    /// What was known before each new key epoch.
    pub(crate) retired: Vec<Secrets>,
    /// The attacker's credential, if he has one.
    pub(crate) thief: Option<Secrets>,
    /// Secrets that the attacker has made: of vaults and epochs of his.
    pub(crate) forged: Vec<Secrets>,
    pub(crate) rng: Rng,
}

pub(crate) fn url(at: usize) -> String {
    format!("mem://{at}")
}

/// The files of a machine in this state: one that all machines have, one of its own, one that changes.
pub(crate) fn files_of(client: Client, state: u8) -> Files {
    let own = client as u64 * 1000;
    vec![
        ("common".to_owned(), noise(7, 5000)),
        ("own".to_owned(), noise(own + 1, 3000)),
        ("state".to_owned(), noise(own + 100 + u64::from(state), 4000)),
    ]
}

impl World {
    /// A vault in which some things have happened: snapshots of two machines, a scrub, keys removed with new key epochs,
    /// a change of the list of places, more snapshots, and every machine has looked.
    pub(crate) fn new(setting: &'static Setting) -> Self {
        let spots: Vec<_> = (0..setting.places)
            .map(|at| Spot::new(&url(at), Memory::named(&url(at))))
            .collect();
        let machines = [Machine::new(), Machine::new(), Machine::new()];
        let clock = Arc::new(AtomicI64::new(START));
        let mut maker = Maker {
            clock,
            opened: AtomicU64::new(0),
            spots,
            machines,
            acked: Vec::new(),
            history: Vec::new(),
        };
        let made = maker.create(setting);
        let (thief, former, member, writer) = (new_key(), new_key(), new_key(), new_key());
        for (key, role) in [
            (&maker.machines[1].key, Role::Owner),
            (&maker.machines[2].key, Role::Writer),
            (&thief, Role::Writer),
            (&former, Role::Owner),
            (&member, Role::Member),
            (&writer, Role::Writer),
        ] {
            made.add_key(&new_slot(&key.recipient, role)).unwrap();
        }
        let line = vault_line(&made.pin());
        for machine in &mut maker.machines {
            machine.key.key.insert_str(0, &line);
        }
        drop(made);
        maker.store(Client::Home, 0);
        maker.store(Client::Web, 0);
        scrub(&maker.open(Client::Home));
        maker.remember();
        let then = maker.spots[0].objects.contents();
        let retired = unlock(&member.key, &then).unwrap();
        maker.rekey(&former, &[&member, &writer]);
        maker.store(Client::Home, 1);
        maker.store(Client::Desk, 0);
        maker.look();
        maker.remember();
        let thief = match setting.key {
            Key::None => None,
            Key::Writer => unlock(&thief.key, &maker.spots[0].objects.contents()),
            Key::Stolen => unlock(&maker.machines[2].key.key, &maker.spots[0].objects.contents()),
            Key::FormerOwner => unlock(&former.key, &then),
            Key::RemovedMember => Some(retired.clone()),
            Key::RemovedWriter => unlock(&writer.key, &then),
        };
        let mut world = Self {
            setting,
            evil: Spot::new(EVIL_URL, Memory::named(EVIL_URL)),
            vault: retired.vault,
            vault_verify: retired.vault_verify,
            history: maker.history,
            spots: maker.spots,
            machines: maker.machines,
            clock: maker.clock,
            born: BTreeMap::new(),
            acked: maker.acked,
            retired: vec![retired],
            thief,
            forged: Vec::new(),
            // Far from the seeds of the machines, or the attacker would draw their ids.
            rng: Rng::new(0x6174_7461_636b),
        };
        for state in world.history.clone() {
            world.note_births(&state);
        }
        world
    }

    /// The world of this setting as it was made, to be used up by one trace.
    pub(crate) fn of(setting: usize, all: &'static [Setting]) -> Self {
        static WORLDS: OnceLock<Vec<OnceLock<Mutex<World>>>> = OnceLock::new();
        let worlds = WORLDS.get_or_init(|| all.iter().map(|_| OnceLock::new()).collect());
        let made = worlds[setting].get_or_init(|| Mutex::new(Self::new(&all[setting])));
        made.lock().copy()
    }

    fn copy(&self) -> Self {
        let copy = |spot: &Arc<Spot>| Spot::new(&spot.url, spot.objects.clone());
        Self {
            setting: self.setting,
            spots: self.spots.iter().map(copy).collect(),
            evil: copy(&self.evil),
            machines: [0, 1, 2].map(|at: usize| self.machines[at].copy()),
            clock: Arc::new(AtomicI64::new(self.clock.load(Ordering::Relaxed))),
            vault: self.vault,
            vault_verify: self.vault_verify,
            history: self.history.clone(),
            born: self.born.clone(),
            acked: self.acked.clone(),
            retired: self.retired.clone(),
            thief: self.thief.clone(),
            forged: self.forged.clone(),
            rng: self.rng.clone(),
        }
    }

    pub(crate) fn note_births(&mut self, state: &[Objects]) {
        let now = self.born.len();
        for name in state.iter().flat_map(BTreeMap::keys) {
            self.born.entry(name.clone()).or_insert(now);
        }
    }

    pub(crate) fn state(&self) -> Vec<Objects> {
        self.spots.iter().map(|spot| spot.objects.contents()).collect()
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    pub(crate) fn machine(&mut self, client: Client) -> &mut Machine {
        &mut self.machines[client as usize]
    }

    /// Opens the vault on a machine, from the place `from`; from 8 on all are named, that one first.
    pub(crate) fn open(&mut self, client: Client, from: u8) -> drystone_vault::Result<Vault> {
        let seed = self.rng.next();
        let key = &self.machines[client as usize].key;
        let context = context(key, &self.clock, Seeded::new(Vec::new(), seed));
        open_from(&self.spots, Some(&self.evil), key, context, from)
    }

    /// Opens it on a fresh machine with that machine's key.
    pub(crate) fn open_fresh(&mut self, client: Client, from: u8) -> drystone_vault::Result<(Fixture, Vault)> {
        let seed = self.rng.next();
        let key = elsewhere(&self.machines[client as usize].key);
        let context = context(&key, &self.clock, Seeded::new(Vec::new(), seed));
        let vault = open_from(&self.spots, Some(&self.evil), &key, context, from)?;
        Ok((key, vault))
    }

    /// What a client with a kept key does that finds nothing at its only place.
    pub(crate) fn create_anew(&mut self, client: Client) -> drystone_vault::Result<Vault> {
        let seed = self.rng.next();
        let key = &self.machines[client as usize].key;
        let context = context(key, &self.clock, Seeded::new(Vec::new(), seed));
        let options = options(vec![new_slot(&key.recipient, Role::Owner)]);
        Vault::create(self.spots[0].clone(), context, &options)
    }

    /// An owner adds a member's key and removes it again with a new key epoch; what it knew meanwhile is closed from then on.
    pub(crate) fn rekey(&mut self, vault: &Vault) -> drystone_vault::Result<()> {
        let former = new_key();
        vault.add_key(&new_slot(&former.recipient, Role::Member))?;
        let known = self
            .spots
            .iter()
            .find_map(|spot| unlock(&former.key, &spot.objects.contents()));
        remove_key(vault, &former.recipient)?;
        self.retired.extend(known);
        Ok(())
    }

    /// A vault of the attacker's own, locked to the public keys of all honest machines, and its secrets.
    pub(crate) fn foreign_vault(&mut self, same_id: bool) -> (Objects, Secrets) {
        let own = new_key();
        let mut locks = vec![new_slot(&own.recipient, Role::Owner)];
        let roles = [Role::Owner, Role::Owner, Role::Writer];
        for (machine, role) in self.machines.iter().zip(roles) {
            locks.push(new_slot(&machine.key.recipient, role));
        }
        // The first that a new vault draws is its id.
        let first = if same_id { self.vault.0.to_vec() } else { Vec::new() };
        let store = Arc::new(Memory::new());
        let context = context(&own, &self.clock, Seeded::new(first, self.rng.next()));
        Vault::create(store.clone(), context, &options(locks)).unwrap();
        let objects = store.contents();
        let secrets = unlock(&own.key, &objects).unwrap();
        (objects, secrets)
    }
}

/// Makes a world.
struct Maker {
    clock: Arc<AtomicI64>,
    opened: AtomicU64,
    spots: Vec<Arc<Spot>>,
    machines: [Machine; 3],
    acked: Vec<Acked>,
    history: Vec<Vec<Objects>>,
}

impl Maker {
    fn context(&self, client: Client) -> Context {
        // Never the same twice: two runs that draw alike would name their objects alike.
        let seed = self.opened.fetch_add(1, Ordering::Relaxed);
        context(
            &self.machines[client as usize].key,
            &self.clock,
            Seeded::new(Vec::new(), seed),
        )
    }

    fn create(&self, setting: &Setting) -> Vault {
        let options = options(vec![new_slot(&self.machines[0].key.recipient, Role::Owner)]);
        let context = self.context(Client::Home);
        if setting.places == 1 {
            return Vault::create(self.spots[0].clone(), context, &options).unwrap();
        }
        let places = self.spots.iter().map(|spot| NewPlace {
            store: spot.clone(),
            url: spot.url.clone(),
            used: PlaceUse::default(),
        });
        Vault::create_spread(places.collect(), setting.spread, context, &options).unwrap()
    }

    fn open(&self, client: Client) -> Vault {
        let key = &self.machines[client as usize].key;
        open_from(&self.spots, None, key, self.context(client), 8).unwrap()
    }

    fn store(&mut self, client: Client, state: u8) {
        self.clock.fetch_add(3600, Ordering::Relaxed);
        let vault = self.open(client);
        let files = files_of(client, state);
        let (ingest, tree) = begin(&vault, &files).unwrap();
        let id = finish(&vault, ingest, tree, client, self.clock.load(Ordering::Relaxed)).unwrap();
        self.acked.push(Acked {
            id,
            client,
            files,
            is_forgotten: false,
        });
    }

    fn rekey(&self, owner: &Fixture, others: &[&Fixture]) {
        let vault = self.open(Client::Home);
        vault.tidy_owner_key(&slot_of(&vault, &owner.recipient)).unwrap();
        for former in others {
            let vault = self.open(Client::Home);
            remove_key(&vault, &former.recipient).unwrap();
        }
        let vault = self.open(Client::Home);
        if let Some(place) = vault.places().first().map(|entry| entry.id) {
            vault.use_place(place, PlaceUse::default()).unwrap();
        }
    }

    fn look(&mut self) {
        for client in [Client::Home, Client::Desk, Client::Web] {
            let vault = self.open(client);
            let seen = vault.snapshot_ids().unwrap();
            let machine = &mut self.machines[client as usize];
            machine.seen.extend(seen);
            machine.generation = vault.config().number;
            if client != Client::Web {
                vault.snapshots().unwrap();
            }
        }
    }

    fn remember(&mut self) {
        let state = self.spots.iter().map(|spot| spot.objects.contents());
        self.history.push(state.collect());
    }
}

fn context(key: &Fixture, clock: &Arc<AtomicI64>, entropy: Seeded) -> Context {
    Context {
        clock: Arc::new(Ticking(clock.clone())),
        entropy: Arc::new(entropy),
        runtime: runtime(),
        threads: 1,
        memory_bytes: 64 << 20,
        cache_dir: key.cache.path().join("cache"),
        known_dir: known_dir(key),
        chunk_map: None,
        accept: Accept::default(),
    }
}

fn options(slots: Vec<NewSlot>) -> CreateOptions {
    CreateOptions {
        data_sizes: Sizes::new(1 << 10, 7 << 10).unwrap(),
        meta_sizes: Sizes::new(256, 1792).unwrap(),
        trust: Trust::Verified,
        slots,
    }
}

fn new_slot(recipient: &str, role: Role) -> NewSlot {
    NewSlot {
        lock: NewLock::Recipient(recipient.to_owned()),
        label: "key".to_owned(),
        role,
    }
}

fn remove_key(vault: &Vault, recipient: &str) -> drystone_vault::Result<()> {
    vault.remove_key(&slot_of(vault, recipient), NewEpoch::Start).map(drop)
}

fn slot_of(vault: &Vault, recipient: &str) -> SlotId {
    let (keys, _) = vault.keys().unwrap();
    keys.iter().find(|key| key.recipient == recipient).unwrap().id
}

fn open_from(
    spots: &[Arc<Spot>],
    evil: Option<&Arc<Spot>>,
    key: &Fixture,
    context: Context,
    from: u8,
) -> drystone_vault::Result<Vault> {
    let first = usize::from(from) % 8 % spots.len();
    let count = if from >= 8 { spots.len() } else { 1 };
    let named: Vec<usize> = (0..count).map(|at| (first + at) % spots.len()).collect();
    let open = |named: &[usize]| {
        let urls: Vec<String> = named.iter().map(|at| url(*at)).collect();
        let net = spots.iter().chain(evil).map(|spot| (spot.url.clone(), spot.clone()));
        let reach = Reach::open(&urls, Arc::new(Net(net.collect())))?;
        let unlock = Unlock::key_file(&key.key, "test", None)?;
        Vault::open(reach, context.clone(), &unlock)
    };
    match open(&named) {
        // Whoever is told so leaves out the places that show another id or key, as the message says.
        Err(Error::DifferentVaults { .. }) => {
            let own: Vec<usize> = named.into_iter().filter(|at| is_own(&spots[*at], key)).collect();
            open(&own)
        }
        outcome => outcome,
    }
}

/// Whether a place shows the vault that the key file names.
fn is_own(spot: &Spot, key: &Fixture) -> bool {
    let object = spot.objects.contents().remove(&Name::header());
    let header = object.and_then(|object| Header::decode(&object).ok());
    header.is_some_and(|header| {
        let pin = VaultPin {
            vault: header.vault,
            key: header.vault_verify,
        };
        key.key.starts_with(&vault_line(&pin))
    })
}

/// What a key file opens among these objects: the secrets of the newest epoch.
fn unlock(key: &str, objects: &Objects) -> Option<Secrets> {
    let identity: age::x25519::Identity = key.lines().last().unwrap().parse().unwrap();
    let open = |object: &Bytes| -> Option<Secrets> {
        let slot = Slot::decode(object).ok()?;
        let locked = age::Decryptor::new_buffered(slot.locked.as_slice()).ok()?;
        let mut key = [0; 32];
        let mut reader = locked.decrypt(std::iter::once(&identity as &dyn age::Identity)).ok()?;
        reader.read_exact(&mut key).ok()?;
        slot.open(&OpenKey::from_bytes(key)).ok()
    };
    let slots = objects.iter().filter(|(name, _)| is(What::Slots, name));
    slots
        .filter_map(|(_, object)| open(object))
        .max_by_key(|secrets| secrets.epochs.len())
}

/// Registers a run and stores its files.
pub(crate) fn begin(vault: &Vault, files: &Files) -> drystone_vault::Result<(Ingest, Recipe)> {
    support::begin(
        vault,
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
    )
}

/// Publishes what was begun.
pub(crate) fn finish(
    vault: &Vault,
    ingest: Ingest,
    tree: Recipe,
    client: Client,
    now: i64,
) -> drystone_vault::Result<RootId> {
    let finished = ingest.finish()?;
    vault.publish(&snapshot_of(tree, HOSTS[client as usize], now), &finished)
}

/// What a root says.
pub(crate) fn snapshot_of(tree: Recipe, host: &str, now: i64) -> Snapshot {
    let time = Time { seconds: now, nanos: 0 };
    Snapshot {
        started: time,
        finished: time,
        host: host.to_owned(),
        ..support::snapshot(tree)
    }
}

/// Whether a name is of this kind.
pub(crate) fn is(what: What, name: &Name) -> bool {
    match what {
        What::Any => true,
        What::Header => name.kind() == Kind::Header,
        What::Slots => matches!(name.kind(), Kind::Key(_)),
        What::Packs => matches!(name.kind(), Kind::Pack(_) | Kind::Shard(_)),
        What::Roots => matches!(name.kind(), Kind::Root(..)),
        What::Verified => matches!(name.kind(), Kind::Verified(_)),
        What::Epochs => matches!(name.kind(), Kind::Epoch(..)),
        What::Ledgers => matches!(name.kind(), Kind::Ledger(..)),
        What::Config => matches!(name.kind(), Kind::Config(..)),
        What::Presences => matches!(name.kind(), Kind::Writer(..)),
        What::Mark => name.kind() == Kind::Place,
    }
}

/// Whether these secrets open what an object holds: the tree of a root, the frames of a pack.
pub(crate) fn opens(secrets: &Secrets, name: &Name, object: &[u8]) -> bool {
    match name.kind() {
        Kind::Root(root) => open_root(secrets, &root, object).is_ok(),
        Kind::Pack(_) => {
            let tail = |object: &[u8]| {
                let size = object.len() as u64;
                let start = object.len().checked_sub(tail_bytes(object, size).ok()?)?;
                Tail::open(object.get(start..)?, size, secrets).ok()
            };
            tail(object).is_some_and(|tail| tail.preamble.frame_sealer(secrets).is_ok())
        }
        _ => false,
    }
}
