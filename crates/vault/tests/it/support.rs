//! A vault in memory for tests, with a key, a clock that stands still and a cache directory of its own.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, OnceLock};

use drystone_format::chunker::Sizes;
use drystone_format::codec::Compression;
use drystone_format::header::Trust;
use drystone_format::keys::Role;
use drystone_format::recipe::Recipe;
use drystone_format::snapshot::{Snapshot, Totals};
use drystone_format::tree::{Entry, Kind, Marks, Time};
use drystone_store::Store;
use drystone_vault::{
    Cancel, Clock, Context, CreateOptions, Entropy, Finished, Ingest, IngestOptions, NewLock, NewSlot, Progress,
    Unlock, Vault, generate_key_file,
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
    pub(crate) fn new() -> Self {
        let key = generate_key_file();
        Self {
            cache: tempfile::tempdir().unwrap(),
            key: key.content.to_string(),
            recipient: key.recipient,
        }
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            clock: Arc::new(Still),
            entropy: Arc::new(Hashed),
            runtime: runtime(),
            threads: 2,
            memory_bytes: 64 << 20,
            cache_dir: self.cache.path().to_owned(),
        }
    }

    pub(crate) fn unlock(&self) -> Unlock {
        Unlock::key_file(&self.key, "test", None).unwrap()
    }

    pub(crate) fn create(&self, store: Arc<dyn Store>) -> drystone_vault::Result<Vault> {
        let lock = NewLock::Recipient(self.recipient.clone());
        let options = CreateOptions {
            data_sizes: Sizes::new(1 << 10, 7 << 10).unwrap(),
            meta_sizes: Sizes::new(256, 1792).unwrap(),
            trust: Trust::Verified,
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

pub(crate) fn ingest(vault: &Vault) -> Ingest {
    let options = IngestOptions {
        compression: Compression::DEFAULT,
        progress: Arc::new(Progress::default()),
        cancel: Cancel::default(),
    };
    vault.ingest(options).unwrap()
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
        unknown: Vec::new(),
    }
}

/// Stores `files` as one directory and publishes it.
pub(crate) fn back_up(
    vault: &Vault,
    files: &[(&str, &[u8])],
) -> drystone_vault::Result<(drystone_format::RootId, Finished)> {
    let ingest = ingest(vault);
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
        unknown: Vec::new(),
    }
}

/// The files of a snapshot's root directory.
pub(crate) fn files(vault: &Vault, id: &drystone_format::RootId) -> drystone_vault::Result<Vec<(String, Vec<u8>)>> {
    let reader = vault.reader()?;
    let snapshot = vault.snapshot(id)?;
    let mut files = Vec::new();
    for entry in reader.tree(&snapshot.tree) {
        let entry = entry?;
        let mut bytes = Vec::new();
        let mut content = reader.content(entry.recipe().unwrap());
        while let Some(piece) = content.next_piece()? {
            match piece.data {
                drystone_vault::PieceData::Bytes(chunk) => bytes.extend_from_slice(&chunk),
                drystone_vault::PieceData::Zeros(count) | drystone_vault::PieceData::Hole(count) => {
                    bytes.resize(bytes.len() + count as usize, 0);
                }
            }
        }
        files.push((String::from_utf8(entry.name).unwrap(), bytes));
    }
    Ok(files)
}
