//! A vault in memory for tests, with a key, a clock that stands still and a cache directory of its own.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use drystone_format::Random;
use drystone_format::chunker::Sizes;
use drystone_format::codec::{Compression, Compressor};
use drystone_format::config::Trust;
use drystone_format::id::object_hash;
use drystone_format::keys::{OpenKey, Role, Secrets};
use drystone_format::ledger::{Ledger, open_ledger};
use drystone_format::pack::{PackBuilder, PackOptions, PackedChunk, SealedPack};
use drystone_format::presence::{Presence, Seen};
use drystone_format::recipe::Recipe;
use drystone_format::root::{NewRoot, RootKind, RootName, RootState, root_name, seal_root};
use drystone_format::seal::{Compressed, PackKind, Suite};
use drystone_format::slot::Slot;
use drystone_format::snapshot::{Snapshot, Totals};
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_index::{Index, Options as IndexOptions};
use drystone_store::{Kind as ObjectKind, Memory, Name, Prefix, Store};
use drystone_vault::ledger::Known;
use drystone_vault::{
    Accept, Cancel, CheckOptions, CheckReport, Clock, Context, CreateOptions, Entropy, Finished, FrameSize, Ingest,
    IngestOptions, NewLock, NewSlot, PieceData, Problems, Progress, Reader, ScrubOptions, ScrubReport, Unlock, Vault,
    generate_key_file,
};

struct Still;

impl Clock for Still {
    fn now(&self) -> Time {
        Time {
            seconds: 1_700_000_000,
            nanos: 5,
        }
    }
}

/// Random enough for tests: each call hashes with fresh keys of the standard library.
struct Hashed;

impl Entropy for Hashed {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes.chunks_mut(8) {
            let word = RandomState::new().build_hasher().finish().to_le_bytes();
            byte.copy_from_slice(&word[..byte.len()]);
        }
    }
}

impl Random for Hashed {
    fn fill(&mut self, bytes: &mut [u8]) {
        Entropy::fill(self, bytes);
    }
}

/// Randomness for what tests seal themselves.
pub(crate) fn random() -> impl Random {
    Hashed
}

/// One runtime for all tests of the process.
pub(crate) fn runtime() -> tokio::runtime::Handle {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| tokio::runtime::Runtime::new().unwrap())
        .handle()
        .clone()
}

pub(crate) struct Fixture {
    pub(crate) cache: tempfile::TempDir,
    pub(crate) key: String,
    pub(crate) recipient: String,
}

impl Fixture {
    /// The same key with a cache directory of its own: another machine.
    pub(crate) fn elsewhere(&self) -> Self {
        Self {
            cache: tempfile::tempdir().unwrap(),
            key: self.key.clone(),
            recipient: self.recipient.clone(),
        }
    }

    /// The same key with a copy of the cache directory.
    pub(crate) fn copy(&self) -> Self {
        let copy = self.elsewhere();
        copy_tree(self.cache.path(), copy.cache.path());
        copy
    }

    pub(crate) fn new() -> Self {
        let key = generate_key_file();
        Self {
            cache: tempfile::tempdir().unwrap(),
            key: key.content.to_string(),
            recipient: key.recipient,
        }
    }

    pub(crate) fn context(&self) -> Context {
        context_in(self.cache.path())
    }

    pub(crate) fn unlock(&self) -> Unlock {
        Unlock::key_file(&self.key, "test", None).unwrap()
    }

    pub(crate) fn create(&self, store: Arc<dyn Store>) -> drystone_vault::Result<Vault> {
        self.create_trusting(store, Trust::Verified)
    }

    pub(crate) fn create_trusting(&self, store: Arc<dyn Store>, trust: Trust) -> drystone_vault::Result<Vault> {
        let lock = NewLock::Recipient(self.recipient.clone());
        let options = CreateOptions {
            data_sizes: Sizes::new(1 << 10, 7 << 10).unwrap(),
            meta_sizes: Sizes::new(256, 1792).unwrap(),
            trust,
            slots: vec![NewSlot {
                lock,
                label: "test".to_owned(),
                role: Role::Owner,
            }],
        };
        Vault::create(store, self.context(), &options)
    }

    pub(crate) fn open(&self, store: Arc<dyn Store>) -> drystone_vault::Result<Vault> {
        Vault::open(store, self.context(), &self.unlock())
    }
}

/// A context with this cache directory.
pub(crate) fn context_in(cache: &Path) -> Context {
    Context {
        clock: Arc::new(Still),
        entropy: Arc::new(Hashed),
        runtime: runtime(),
        threads: 2,
        memory_bytes: 64 << 20,
        cache_dir: cache.to_owned(),
        known_dir: cache.join("known"),
        chunk_map: None,
        accept: Accept::default(),
    }
}

/// What the key of `fixture` opens: for tests that write objects themselves.
pub(crate) fn secrets(fixture: &Fixture, store: &Memory) -> Secrets {
    let identity: age::x25519::Identity = fixture.key.lines().last().unwrap().parse().unwrap();
    let open = |object: &[u8]| -> Option<Secrets> {
        let slot = Slot::decode(object).ok()?;
        let locked = age::Decryptor::new_buffered(slot.locked.as_slice()).ok()?;
        let mut key = [0; 32];
        locked
            .decrypt(std::iter::once(&identity as &dyn age::Identity))
            .ok()?
            .read_exact(&mut key)
            .ok()?;
        slot.open(&OpenKey::from_bytes(key)).ok()
    };
    let objects = store.contents();
    let mut slots = objects.iter().filter(|(name, _)| Prefix::Keys.covers(name));
    slots.find_map(|(_, object)| open(object)).unwrap()
}

/// A pack signed with `secrets`: frames of plaintext, each with the chunks that the trailer claims.
pub(crate) fn craft_pack(secrets: &Secrets, kind: PackKind, frames: &[(Vec<u8>, Vec<PackedChunk>)]) -> SealedPack {
    let options = PackOptions {
        kind,
        suite: Suite::ChaCha20Poly1305,
        registration: [7; 16],
        number: 0,
        capacity_bytes: 0,
    };
    let mut pack = PackBuilder::new(secrets, &options, &mut Hashed).unwrap();
    let mut compressor = Compressor::new(Compression::DEFAULT).unwrap();
    for (plaintext, chunks) in frames {
        let frame = Compressed::new(&mut compressor, plaintext).unwrap();
        pack.push(&frame, chunks.clone()).unwrap();
    }
    pack.finish(secrets).unwrap()
}

/// Stores a crafted pack.
pub(crate) fn plant(store: &Memory, pack: SealedPack) -> Name {
    let name = Name::pack(&pack.id);
    store.overwrite(&name, pack.bytes.into());
    name
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// All regular files below `dir`.
pub(crate) fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Adds a key with `role` for the fixture that is returned.
pub(crate) fn add_key(vault: &Vault, role: Role) -> Fixture {
    let fixture = Fixture::new();
    vault
        .add_key(&NewSlot {
            lock: NewLock::Recipient(fixture.recipient.clone()),
            label: "added".to_owned(),
            role,
        })
        .unwrap();
    fixture
}

pub(crate) fn check(vault: &Vault) -> CheckReport {
    vault.check(&CheckOptions::default()).unwrap()
}

pub(crate) fn scrub(vault: &Vault) -> ScrubReport {
    vault
        .scrub(&ScrubOptions {
            share: 1.0,
            repair: false,
            progress: Arc::default(),
            cancel: Cancel::default(),
        })
        .unwrap()
}

/// What a report says, one problem a line.
pub(crate) fn lines(problems: &Problems) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// Runs `work` in a thread and fails if it takes longer than a minute: for what could hang.
pub(crate) fn watched<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || drop(sender.send(work())));
    match receiver.recv_timeout(Duration::from_secs(60)) {
        Ok(done) => done,
        Err(RecvTimeoutError::Timeout) => panic!("hangs"),
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

pub(crate) fn ingest(vault: &Vault) -> Ingest {
    try_ingest(vault).unwrap()
}

fn try_ingest(vault: &Vault) -> drystone_vault::Result<Ingest> {
    vault.ingest(options())
}

pub(crate) fn options() -> IngestOptions {
    IngestOptions {
        compression: Compression::DEFAULT,
        frames: FrameSize::default(),
        progress: Arc::new(Progress::default()),
        cancel: Cancel::default(),
    }
}

/// Bytes that look random and compress badly, different for each seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

pub(crate) fn entry(name: &str, kind: Kind) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        user: String::new(),
        group: String::new(),
        mtime: Time::default(),
        xattrs: Vec::new(),
        hard_link: None,
        marks: Marks::default(),
        acl_names: Vec::new(),
        unknown: Vec::new(),
    }
}

/// Registers a run and stores `files` as one directory.
pub(crate) fn begin<'a>(
    vault: &Vault,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> drystone_vault::Result<(Ingest, Recipe)> {
    let ingest = try_ingest(vault)?;
    let mut lane = ingest.lane();
    let mut tree = ingest.tree();
    for (name, bytes) in files {
        let mut content = lane.content();
        content.write(bytes)?;
        let recipe = content.finish()?;
        tree.push(&mut lane, &entry(name, Kind::File(recipe)).encode())?;
    }
    let tree = tree.finish(&mut lane)?;
    lane.finish()?;
    Ok((ingest, tree))
}

/// Stores `files` as one directory and publishes it.
pub(crate) fn back_up(
    vault: &Vault,
    files: &[(&str, &[u8])],
) -> drystone_vault::Result<(drystone_format::RootId, Finished)> {
    let (ingest, tree) = begin(vault, files.iter().copied())?;
    let finished = ingest.finish()?;
    let id = vault.publish(&snapshot(tree), &finished)?;
    Ok((id, finished))
}

pub(crate) fn snapshot(tree: Recipe) -> Snapshot {
    Snapshot {
        started: Time::default(),
        finished: Time::default(),
        host: "host".to_owned(),
        user: "user".to_owned(),
        paths: vec![b"/".to_vec()],
        tags: Vec::new(),
        tree,
        parent: None,
        totals: Totals::default(),
        program: "test".to_owned(),
        origin: None,
        unknown: Vec::new(),
    }
}

/// The bytes of a file.
pub(crate) fn content(reader: &Reader, recipe: &Recipe) -> drystone_vault::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut content = reader.content(recipe);
    while let Some(piece) = content.next_piece()? {
        assert_eq!(piece.offset, bytes.len() as u64);
        match piece.data {
            PieceData::Bytes(chunk) => bytes.extend_from_slice(&chunk),
            PieceData::Zeros(count) | PieceData::Hole(count) => bytes.resize(bytes.len() + count as usize, 0),
        }
    }
    Ok(bytes)
}

/// The files of a snapshot's root directory.
pub(crate) fn files(vault: &Vault, id: &drystone_format::RootId) -> drystone_vault::Result<Vec<(String, Vec<u8>)>> {
    let reader = vault.reader()?;
    let snapshot = vault.snapshot(id)?;
    let mut files = Vec::new();
    for entry in reader.tree(&snapshot.tree) {
        let entry = entry?;
        let bytes = content(&reader, entry.recipe().unwrap())?;
        files.push((String::from_utf8(entry.name).unwrap(), bytes));
    }
    Ok(files)
}

/// The name of the root with this hash.
pub(crate) fn root_of(store: &dyn drystone_store::Store, id: &drystone_format::RootId) -> Name {
    let roots = runtime()
        .block_on(store.list(&Prefix::AllRoots, None, 100_000))
        .unwrap();
    let is_meant = |name: &Name| matches!(name.kind(), ObjectKind::Root(root) if root.hash == *id);
    roots.into_iter().map(|listed| listed.name).find(is_meant).unwrap()
}

/// A root that the holder of `secrets` has made by hand: number, root before it, state, and epochs that it claims to know.
pub(crate) fn craft_root(secrets: &Secrets, nonce: [u8; 16], link: Link<'_>, payload: &[u8]) -> (RootName, Vec<u8>) {
    let root = NewRoot {
        kind: link.kind,
        nonce,
        number: link.number,
        previous: link.previous,
        state: link.state,
        epochs: link.epochs,
        ledgers: &BTreeSet::new(),
        packs: 0,
        payload,
        index_part: None,
    };
    let object = seal_root(secrets, &root, &mut random()).unwrap();
    (root_name(secrets, &root, &object), object)
}

/// Where a root stands in its registration.
#[derive(Clone, Copy)]
pub(crate) struct Link<'a> {
    pub(crate) kind: RootKind,
    pub(crate) number: u64,
    pub(crate) previous: Option<drystone_format::RootId>,
    pub(crate) state: RootState,
    pub(crate) epochs: &'a Seen,
}

/// The only root of a registration.
pub(crate) const ALONE: Link<'static> = Link {
    kind: RootKind::SNAPSHOT,
    number: 0,
    previous: None,
    state: RootState::Last,
    epochs: &BTreeSet::new(),
};

/// A presence that the holder of `secrets` has made by hand.
pub(crate) fn craft_presence(secrets: &Secrets, presence: &Presence) -> (Name, Vec<u8>) {
    let object = presence.sign(secrets).unwrap();
    let name = Name::writer(&presence.registration(secrets), presence.beat, &object_hash(&object));
    (name, object)
}

/// What the newest ledgers at a place state together.
pub(crate) fn stated(secrets: &Secrets, store: &Memory) -> Arc<Ledger> {
    let mut known = Known::default();
    for (name, object) in store.contents() {
        if let ObjectKind::Ledger(number, hash) = name.kind() {
            known.insert((number, hash), Arc::new(open_ledger(secrets, &object).unwrap().ledger));
        }
    }
    known.view().stated
}

/// What lies where, as the local index says once it is brought up to date.
pub(crate) fn index_of(vault: &Vault) -> Index {
    vault.loss_epoch().unwrap();
    let dir = vault.context().cache_dir.join(vault.id().to_string()).join("index");
    Index::open(&dir, IndexOptions { memory_bytes: 8 << 20 }).unwrap()
}
