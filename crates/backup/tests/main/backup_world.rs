//! A vault in memory, a directory to back up, and the tree that came of it as a table: for tests of taking backups.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use drystone_backup::{
    BackupOptions, BackupReport, Filters, Look, Mode, Names, OneFileSystem, OwnDirs, Parent, backup,
};
use drystone_format::chunker::Sizes;
use drystone_format::codec::Compression;
use drystone_format::recipe::Recipe;
use drystone_format::tree::{Entry, Kind, Time};
use drystone_store::{Local, Memory};
use drystone_vault::{Cancel, Clock, Context, Progress, Unlock, Vault};

use crate::vaults::{Hashed, create, runtime};

/// This machine's clock, put forward: files that were made just now look old enough to be cached.
pub(crate) struct Ahead(AtomicI64);

impl Clock for Ahead {
    fn now(&self) -> Time {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Time {
            seconds: now.as_secs() as i64 + self.0.load(Ordering::Relaxed),
            nanos: now.subsec_nanos(),
        }
    }
}

/// Entries by their paths below the directory that was backed up.
pub(crate) type Table = BTreeMap<Vec<u8>, Entry>;

/// What the directories above the one that is backed up take at most, bytes.
pub(crate) const ABOVE_BYTES: u64 = 2000;

pub(crate) struct World {
    pub(crate) store: Arc<Memory>,
    pub(crate) vault: Vault,
    pub(crate) clock: Arc<Ahead>,
    pub(crate) context: Context,
    key: String,
    dir: PathBuf,
    _own_dir: Option<tempfile::TempDir>,
    _cache: tempfile::TempDir,
}

/// Chunks of which even small files have several.
fn small() -> Sizes {
    Sizes::new(1 << 10, 7 << 10).unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        let dir = own.path().to_owned();
        Self {
            _own_dir: Some(own),
            ..Self::over(dir)
        }
    }

    /// With this directory to back up.
    pub(crate) fn over(dir: PathBuf) -> Self {
        let (cache, store) = (tempfile::tempdir().unwrap(), Arc::new(Memory::new()));
        let clock = Arc::new(Ahead(AtomicI64::new(10)));
        let context = Context {
            clock: clock.clone(),
            entropy: Arc::new(Hashed),
            runtime: runtime(),
            threads: 2,
            memory_bytes: 64 << 20,
            cache_dir: cache.path().to_owned(),
            known_dir: cache.path().join("known"),
            chunk_map: None,
            accept: drystone_vault::Accept::default(),
        };
        let (vault, key) = create(store.clone(), &context, small());
        Self {
            vault,
            store,
            clock,
            context,
            key,
            dir,
            _own_dir: None,
            _cache: cache,
        }
    }

    /// Takes a new vault below a directory in the place of the one in memory, for several processes.
    pub(crate) fn move_to(&mut self, home: &Path) {
        self.context.cache_dir = home.join("cache");
        std::fs::create_dir(&self.context.cache_dir).unwrap();
        let store = Local::create(&home.join("vault")).unwrap();
        let (vault, key) = create(Arc::new(store), &self.context, small());
        std::fs::write(home.join("key"), key).unwrap();
        self.vault = vault;
    }

    /// Opens the vault below a directory anew.
    pub(crate) fn reopen_at(&mut self, home: &Path) {
        let key = std::fs::read_to_string(home.join("key")).unwrap();
        let unlock = Unlock::key_file(&key, "test", None).unwrap();
        self.context.cache_dir = home.join("cache");
        let store = Local::open(&home.join("vault")).unwrap();
        self.vault = Vault::open(Arc::new(store), self.context.clone(), &unlock).unwrap();
    }

    /// Moves the clock of later runs.
    pub(crate) fn set_ahead(&self, seconds: i64) {
        self.clock.0.store(seconds, Ordering::Relaxed);
    }

    /// The same vault, opened anew with its own key, as the next run of the program would.
    pub(crate) fn reopen(&mut self) {
        let unlock = Unlock::key_file(&self.key, "test", None).unwrap();
        self.vault = Vault::open(self.store.clone(), self.context.clone(), &unlock).unwrap();
    }

    /// The directory to back up.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.join(name.as_ref())
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub(crate) fn options(&self) -> BackupOptions {
        BackupOptions {
            sources: vec![self.dir().to_owned()],
            filters: Filters::default(),
            own: OwnDirs::default(),
            one_file_system: OneFileSystem::Cross,
            compression: Compression::DEFAULT,
            host: "host".to_owned(),
            user: "user".to_owned(),
            program: "test".to_owned(),
            tags: vec!["tag".to_owned()],
            names: Arc::new(Names::of_system()),
            parent: Parent::Cached,
            look: Look::default(),
            mode: Mode::Store,
            threads: 2,
            progress: Arc::new(Progress::default()),
            cancel: Cancel::default(),
        }
    }

    /// Backs the directory up, without problems.
    pub(crate) fn backup(&self) -> BackupReport {
        let report = backup(&self.vault, &self.options()).unwrap();
        assert_clean(&report);
        report
    }

    /// The tree of the directory. Those above it change with every temporary file of other tests.
    pub(crate) fn tree(&self, report: &BackupReport) -> Recipe {
        let path = self.dir().as_os_str().as_bytes();
        self.everything(report)[path].recipe().unwrap().clone()
    }

    /// Everything in a report's snapshot, by absolute path.
    pub(crate) fn everything(&self, report: &BackupReport) -> Table {
        let mut table = Table::new();
        let mut stack = vec![(Vec::new(), self.vault.snapshot(&report.snapshot.unwrap()).unwrap().tree)];
        while let Some((path, recipe)) = stack.pop() {
            for entry in self.vault.reader().unwrap().tree(&recipe) {
                let entry = entry.unwrap();
                let path = [path.as_slice(), b"/", &entry.name].concat();
                if let Kind::Dir(recipe) = &entry.kind {
                    stack.push((path.clone(), recipe.clone()));
                }
                table.insert(path, entry);
            }
        }
        table
    }

    /// What a report's snapshot has below the directory.
    pub(crate) fn table(&self, report: &BackupReport) -> Table {
        let prefix = [self.dir().as_os_str().as_bytes(), b"/"].concat();
        let below = |(path, entry): (Vec<u8>, Entry)| Some((path.strip_prefix(prefix.as_slice())?.to_vec(), entry));
        self.everything(report).into_iter().filter_map(below).collect()
    }

    /// The names below the directory, as text.
    pub(crate) fn names(&self, report: &BackupReport) -> Vec<String> {
        self.table(report)
            .into_keys()
            .map(|path| String::from_utf8(path).unwrap())
            .collect()
    }

    /// The bytes of a file, holes as zeros.
    pub(crate) fn content(&self, entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut content = self.vault.reader().unwrap().content(entry.recipe().unwrap());
        content.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

pub(crate) fn assert_clean(report: &BackupReport) {
    assert_eq!(problems(report), Vec::<String>::new());
}

pub(crate) fn problems(report: &BackupReport) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}
