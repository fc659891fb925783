//! A vault in memory with a key, and trees put into it entry by entry, for tests of restoring and looking.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use drystone_backup::{Overwrite, Owner, Patterns, RestoreMode, RestoreOptions, Selection, Sparse, Special};
use drystone_format::RootId;
use drystone_format::chunker::Sizes;
use drystone_format::codec::Compression;
use drystone_format::config::Trust;
use drystone_format::keys::Role;
use drystone_format::recipe::Recipe;
use drystone_format::snapshot::{Snapshot, Totals};
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_store::{Memory, Record, Store};
use drystone_vault::{
    Cancel, Clock, Context, CreateOptions, Entropy, FrameSize, Ingest, IngestOptions, Lane, NewLock, NewSlot, Progress,
    Unlock, Vault, generate_key_file,
};

/// A vault with these chunk sizes, and its key.
pub(crate) fn create(store: Arc<dyn Store>, context: &Context, data_sizes: Sizes) -> (Vault, String) {
    let key = generate_key_file();
    let options = CreateOptions {
        data_sizes,
        meta_sizes: Sizes::new(256, 1792).unwrap(),
        trust: Trust::Verified,
        slots: vec![NewSlot {
            lock: NewLock::Recipient(key.recipient),
            label: "test".to_owned(),
            role: Role::Owner,
        }],
    };
    let vault = Vault::create(store, context.clone(), &options).unwrap();
    (vault, key.content.to_string())
}

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
pub(crate) struct Hashed;

impl Entropy for Hashed {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes.chunks_mut(8) {
            let word = RandomState::new().build_hasher().finish().to_le_bytes();
            byte.copy_from_slice(&word[..byte.len()]);
        }
    }
}

pub(crate) fn runtime() -> tokio::runtime::Handle {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| tokio::runtime::Runtime::new().unwrap())
        .handle()
        .clone()
}

/// A vault in memory; the store is kept for tests that damage it.
pub(crate) struct Fixture {
    pub(crate) vault: Vault,
    pub(crate) store: Arc<Memory>,
    /// Every call to the store.
    pub(crate) calls: Arc<Record>,
    key: String,
    _cache: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::sized(Sizes::new(1 << 10, 7 << 10).unwrap())
    }

    /// With these chunk sizes.
    pub(crate) fn sized(data_sizes: Sizes) -> Self {
        let (cache, store) = (tempfile::tempdir().unwrap(), Arc::new(Memory::new()));
        let context = Context {
            clock: Arc::new(Still),
            entropy: Arc::new(Hashed),
            runtime: runtime(),
            threads: 2,
            memory_bytes: 64 << 20,
            cache_dir: cache.path().to_owned(),
            known_dir: cache.path().join("known"),
            chunk_map: None,
            accept: drystone_vault::Accept::default(),
        };
        let calls = Arc::new(Record::new(store.clone()));
        let (vault, key) = create(calls.clone(), &context, data_sizes);
        Self {
            vault,
            store,
            calls,
            key,
            _cache: cache,
        }
    }

    /// The same vault, opened anew as the next run of the program would, with nothing in memory.
    pub(crate) fn reopen(&mut self) {
        self.vault = self.open(self.calls.clone());
        self.calls.take();
    }

    /// The same vault through another store, by a program that may take so much memory for caches.
    pub(crate) fn open_within(&self, store: Arc<dyn Store>, memory_bytes: usize) -> Vault {
        let unlock = Unlock::key_file(&self.key, "test", None).unwrap();
        let context = Context {
            memory_bytes,
            ..self.vault.context().clone()
        };
        Vault::open(store, context, &unlock).unwrap()
    }

    /// The same vault through another store.
    pub(crate) fn open(&self, store: Arc<dyn Store>) -> Vault {
        let unlock = Unlock::key_file(&self.key, "test", None).unwrap();
        Vault::open(store, self.vault.context().clone(), &unlock).unwrap()
    }

    fn ingest(&self) -> Ingest {
        let options = IngestOptions {
            compression: Compression::DEFAULT,
            frames: FrameSize::default(),
            progress: Arc::new(Progress::default()),
            cancel: Cancel::default(),
        };
        self.vault.ingest(options).unwrap()
    }

    /// Publishes a snapshot of what is stored already.
    pub(crate) fn publish(&self, snapshot: &Snapshot) -> RootId {
        let stored = self.ingest().finish().unwrap();
        self.vault.publish(snapshot, &stored).unwrap()
    }

    /// Stores what `fill` puts, and gives a snapshot of the root directory that it returns.
    pub(crate) fn put(&self, fill: impl FnOnce(&mut Putter) -> Recipe) -> Snapshot {
        let ingest = self.ingest();
        let lane = ingest.lane();
        let mut putter = Putter { ingest, lane };
        let tree = fill(&mut putter);
        putter.lane.finish().unwrap();
        putter.ingest.finish().unwrap();
        snapshot(tree)
    }

    pub(crate) fn restore(&self, snapshot: &Snapshot, options: &RestoreOptions) -> drystone_backup::RestoreReport {
        drystone_backup::restore(&self.vault, &Selection::whole(snapshot), options).unwrap()
    }
}

pub(crate) struct Putter {
    ingest: Ingest,
    lane: Lane,
}

impl Putter {
    pub(crate) fn file(&mut self, bytes: &[u8]) -> Kind {
        let mut content = self.lane.content();
        content.write(bytes).unwrap();
        Kind::File(content.finish().unwrap())
    }

    /// A file of data and holes: `Ok(bytes)` or `Err(bytes of a hole)`.
    pub(crate) fn sparse(&mut self, pieces: &[Result<&[u8], u64>]) -> Kind {
        let mut content = self.lane.content();
        for piece in pieces {
            match piece {
                Ok(bytes) => content.write(bytes).unwrap(),
                Err(hole) => content.hole(*hole).unwrap(),
            }
        }
        Kind::File(content.finish().unwrap())
    }

    /// A directory; the entries are sorted here.
    pub(crate) fn dir(&mut self, mut entries: Vec<Entry>) -> Recipe {
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let encoded: Vec<Vec<u8>> = entries.iter().map(Entry::encode).collect();
        self.raw_dir(&encoded)
    }

    /// A directory of whatever bytes.
    pub(crate) fn raw_dir(&mut self, entries: &[Vec<u8>]) -> Recipe {
        let mut tree = self.ingest.tree();
        for entry in entries {
            tree.push(&mut self.lane, entry).unwrap();
        }
        tree.finish(&mut self.lane).unwrap()
    }
}

fn snapshot(tree: Recipe) -> Snapshot {
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

/// An entry that belongs to whoever runs the test.
pub(crate) fn entry(name: &str, kind: Kind) -> Entry {
    let is_dir = matches!(kind, Kind::Dir(_));
    Entry {
        name: name.as_bytes().to_vec(),
        kind,
        mode: if is_dir { 0o755 } else { 0o644 },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        user: String::new(),
        group: String::new(),
        mtime: Time {
            seconds: 1_500_000_000,
            nanos: 123_456_789,
        },
        xattrs: Vec::new(),
        hard_link: None,
        marks: Marks::default(),
        acl_names: Vec::new(),
        unknown: Vec::new(),
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

pub(crate) fn options(target: &std::path::Path) -> RestoreOptions {
    RestoreOptions {
        target: target.to_owned(),
        include: Patterns::NONE,
        exclude: Patterns::NONE,
        mode: RestoreMode::Write,
        overwrite: Overwrite::Always,
        sparse: Sparse::AsStored,
        owner: Owner::Names,
        special: Special::AsStored,
        threads: 3,
        progress: Arc::default(),
        cancel: Cancel::default(),
    }
}

/// Runs the one test of this binary that `child` names, as nobody if this is root; `what` it does is said if it cannot run.
pub(crate) fn run_as_another_user(child: &mut Command, what: &str) {
    if rustix::process::geteuid().is_root() {
        child.uid(65534).gid(65534);
    }
    match child.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
        }
        Err(error) => eprintln!("LEFT OUT: {what} as another user: {error}"),
    }
}
