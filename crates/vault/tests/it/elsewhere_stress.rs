//! A vault of which one machine has only a part: processes there get the rest from two other sources, which appear and vanish.
//!
//! - Beside gc, an owner who changes keys, the place gone for a while, processes that are killed and stopped.
//! - No read ever gives other bytes than were stored. What cannot be had while a source is away is an absence; while both are there, and the
//!   place is, everything is read. What was acknowledged is never missed by a machine that has all of the vault.
//! - `DRYSTONE_STRESS_SECONDS` says how long, `DRYSTONE_STRESS_SEED` repeats the choices of a run.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use drystone_format::ChunkId;
use drystone_format::keys::Role;
use drystone_format::kinds::{Kept, TestRoot};
use drystone_format::recipe::Recipe;
use drystone_format::root::RootKind;
use drystone_store::{Kind, Listed, Local, Name, Prefix, Put, Range, Store, Traits};
use drystone_vault::{ChunkSource, Engine, Error, Handle, NewEpoch, Unlock, Vault, WriterOptions};

use crate::gc_stress::{Choices, arguments, furnish, open, settings};
use crate::lasting_stress::{Peer, collect};
use crate::support::{Fixture, add_key, check, context_in, lines, noise};

const PROCESSES: u64 = 2;
const THREADS: usize = 4;
/// Contents that are kept: all threads choose from them.
const KEPT: u64 = 400;
/// Contents that were acknowledged, one number a line; and those of them that the sources have.
const ACKNOWLEDGED: &str = "acknowledged";
const SUPPLIED: &str = "supplied";
/// Which of the sources are there, and the place, as a number that grows with every change and a word.
const WEATHER: &str = "weather";
const SOURCES: [&str; 2] = ["source0", "source1"];

/// Says that something is away while it exists.
fn away(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.away"))
}

fn bytes_of(content: u64) -> Vec<u8> {
    noise(content + 1, 200 + (content % 700) as usize)
}

/// What a place shows to a machine that has only a part of the vault: every second pack, and nothing while it is away.
#[derive(Debug)]
struct Part {
    inner: Local,
    away: PathBuf,
}

impl Part {
    fn hides(name: &Name) -> bool {
        matches!(name.kind(), Kind::Pack(id) if id.0[31] & 1 == 1)
    }

    fn there(&self, name: &str) -> drystone_store::Result<()> {
        if !self.away.exists() {
            return Ok(());
        }
        Err(drystone_store::Error::Io {
            name: name.to_owned(),
            place: self.inner.place().to_owned(),
            during: "reaching",
            source: io::ErrorKind::ConnectionRefused.into(),
        })
    }

    fn shown(&self, name: &Name) -> drystone_store::Result<()> {
        self.there(name.as_str())?;
        if !Self::hides(name) {
            return Ok(());
        }
        Err(drystone_store::Error::NotFound {
            name: name.to_string(),
            place: self.inner.place().to_owned(),
        })
    }
}

#[async_trait]
impl Store for Part {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    async fn put(&self, name: &Name, bytes: Bytes) -> drystone_store::Result<Put> {
        self.there(name.as_str())?;
        self.inner.put(name, bytes).await
    }

    async fn get(&self, name: &Name, range: Range) -> drystone_store::Result<Bytes> {
        self.shown(name)?;
        self.inner.get(name, range).await
    }

    async fn stat(&self, name: &Name) -> drystone_store::Result<u64> {
        self.shown(name)?;
        self.inner.stat(name).await
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Name>, limit: usize) -> drystone_store::Result<Vec<Listed>> {
        self.there(prefix.to_string().as_str())?;
        let mut after = after.cloned();
        loop {
            let page = self.inner.list(prefix, after.as_ref(), limit).await?;
            after = page.last().map(|last| last.name.clone());
            let shown: Vec<Listed> = page.into_iter().filter(|found| !Self::hides(&found.name)).collect();
            if !shown.is_empty() || after.is_none() {
                return Ok(shown);
            }
        }
    }

    async fn delete(&self, name: &Name) -> drystone_store::Result<()> {
        self.there(name.as_str())?;
        self.inner.delete(name).await
    }
}

/// Chunks in a directory, each in a file of its name.
struct Files {
    name: &'static str,
    dir: PathBuf,
    away: PathBuf,
    given: Arc<AtomicU64>,
}

impl Files {
    fn there(&self) -> io::Result<()> {
        match self.away.exists() {
            true => Err(io::ErrorKind::ConnectionRefused.into()),
            false => Ok(()),
        }
    }
}

impl ChunkSource for Files {
    fn name(&self) -> &str {
        self.name
    }

    fn holds(&self, ids: &[ChunkId]) -> io::Result<Vec<bool>> {
        self.there()?;
        Ok(ids.iter().map(|id| self.dir.join(id.to_string()).exists()).collect())
    }

    fn chunks(&self, ids: &[ChunkId]) -> io::Result<Vec<Option<Vec<u8>>>> {
        self.there()?;
        let read = |id: &ChunkId| match fs::read(self.dir.join(id.to_string())) {
            Ok(bytes) => {
                self.given.fetch_add(1, Ordering::Relaxed);
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        ids.iter().map(read).collect()
    }
}

/// The numbers in a file, whose last line may be under way.
fn numbers(path: &Path) -> BTreeSet<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| line.parse().unwrap()).collect()
}

fn append(dir: &Path, file: &str, number: u64) {
    let mut file = OpenOptions::new().append(true).open(dir.join(file)).unwrap();
    file.write_all(format!("{number}\n").as_bytes()).unwrap();
}

/// Returns the weather if everything is there.
fn fair(dir: &Path) -> Option<String> {
    let weather = fs::read_to_string(dir.join(WEATHER)).unwrap_or_default();
    weather.ends_with("fair").then_some(weather)
}

/// Commits one chunk; whether it was acknowledged.
fn commit(engine: &dyn Engine, content: u64) -> bool {
    let bytes = bytes_of(content);
    let kept = || {
        let commit = engine.begin()?;
        let (id, _) = commit.put(&[&bytes])?.remove(0);
        let kept = Kept::Stream(Recipe::single(id, bytes.len() as u64));
        commit.publish(RootKind::TEST, &TestRoot(vec![kept]).encode())
    };
    match kept() {
        Ok(_) => true,
        // Given up, or the place went away meanwhile: the door puts it again later.
        Err(Error::GivenUp { .. } | Error::MissingChunk { .. } | Error::Elsewhere { .. }) => false,
        Err(Error::Store(_) | Error::Stopped | Error::Published | Error::Unstored { .. }) => false,
        Err(error) => panic!("{content}: {error}"),
    }
}

/// Reads what was kept, alone or together; returns whether it could be had.
fn read(dir: &Path, engine: &dyn Engine, content: u64) -> bool {
    let before = fair(dir);
    let bytes = bytes_of(content);
    let id = engine.hasher().id(&bytes);
    let error = match engine.reader().and_then(|reader| reader.chunk(&id)) {
        Ok(found) => {
            assert!(*found == bytes[..], "{content}: other bytes");
            return true;
        }
        Err(error) => error,
    };
    let is_cut_off = error.is_absence() || matches!(error, Error::Store(_));
    assert!(is_cut_off, "{content}: {error}");
    let after = fair(dir);
    assert!(
        before.is_none() || before != after,
        "{content}: all were there, and yet: {error}"
    );
    false
}

#[test]
#[ignore = "started by the stress test"]
fn child() {
    let Some((dir, numbers_of)) = arguments() else { return };
    let (machine, seed, lives) = (numbers_of[0], numbers_of[1], Duration::from_millis(numbers_of[2]));
    let (born, given) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let key = fs::read_to_string(dir.join(format!("key{machine}"))).unwrap();
    let unlock = Unlock::key_file(&key, "test", None).unwrap();
    let opened = || -> drystone_vault::Result<Handle> {
        let store = Part {
            inner: Local::open(&dir.join("vault"))?,
            away: away(&dir, "vault"),
        };
        let store: Arc<dyn Store> = Arc::new(store);
        let context = context_in(&dir.join(format!("part{machine}")));
        Handle::open(store, context, &unlock, WriterOptions::default())
    };
    let engine = loop {
        match opened() {
            Ok(engine) => break engine,
            Err(_) if born.elapsed() > lives => return,
            Err(error) if fair(&dir).is_some() && born.elapsed() > Duration::from_secs(60) => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    for name in SOURCES {
        engine.add_source(Arc::new(Files {
            name,
            dir: dir.join(name),
            away: away(&dir, name),
            given: given.clone(),
        }));
    }
    let (read_count, absent) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let (dir, engine, read_count, absent) = (&dir, &engine, &read_count, &absent);
            let mut choices = Choices((seed + thread * 2) | 1);
            scope.spawn(move || {
                while born.elapsed() < lives {
                    if choices.below(4) == 0 {
                        let content = choices.below(KEPT);
                        if commit(engine, content) {
                            append(dir, ACKNOWLEDGED, content);
                        }
                        continue;
                    }
                    let supplied: Vec<u64> = numbers(&dir.join(SUPPLIED)).into_iter().collect();
                    let Some(content) = supplied.get(choices.below(supplied.len().max(1) as u64) as usize) else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let counter = if read(dir, engine, *content) {
                        read_count
                    } else {
                        absent
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "child counted {} {} {}",
        count(&read_count),
        count(&absent),
        count(&given)
    );
}

/// What the parent does to the world, and where it stands.
struct World {
    dir: PathBuf,
    owner: Fixture,
    vault: Vault,
    supplied: BTreeSet<u64>,
    changes: u64,
    spare_key: u64,
}

impl World {
    /// Gives the sources what was acknowledged: to the first, to the second, or to both, of which one lies.
    fn supply(&mut self) {
        for content in numbers(&self.dir.join(ACKNOWLEDGED)) {
            if !self.supplied.insert(content) {
                continue;
            }
            let bytes = bytes_of(content);
            let name = self.vault.hasher().id(&bytes).to_string();
            let put = |source: &str, bytes: &[u8]| fs::write(self.dir.join(source).join(&name), bytes).unwrap();
            match content % 4 {
                0 => put(SOURCES[0], &bytes),
                1 => put(SOURCES[1], &bytes),
                2 => SOURCES.iter().for_each(|source| put(source, &bytes)),
                _ => {
                    put(SOURCES[0], &noise(content + 5000, 300));
                    put(SOURCES[1], &bytes);
                }
            }
            append(&self.dir, SUPPLIED, content);
        }
    }

    /// Lets a source or the place go away, or come back.
    fn change_weather(&mut self, choices: &mut Choices) {
        let names = [SOURCES[0], SOURCES[1], "vault"];
        let name = names[choices.below(3) as usize];
        // Foul before anything goes, fair after all have come.
        self.say("foul");
        let marker = away(&self.dir, name);
        match marker.exists() {
            true => fs::remove_file(marker).unwrap(),
            false => drop(File::create(marker).unwrap()),
        }
        if names.iter().all(|name| !away(&self.dir, name).exists()) {
            self.say("fair");
        }
    }

    fn say(&mut self, weather: &str) {
        self.changes += 1;
        let new = self.dir.join("weather.new");
        fs::write(&new, format!("{} {weather}", self.changes)).unwrap();
        fs::rename(new, self.dir.join(WEATHER)).unwrap();
    }

    /// Adds a key and removes it again, which begins a new key epoch.
    fn change_keys(&mut self) {
        self.spare_key += 1;
        self.reopen();
        let before: BTreeSet<_> = self.vault.keys().unwrap().0.iter().map(|key| key.id).collect();
        drop(add_key(&self.vault, Role::Reader));
        let keys = self.vault.keys().unwrap().0;
        let added = keys.iter().find(|key| !before.contains(&key.id)).unwrap();
        self.vault.remove_key(&added.id, NewEpoch::Start).unwrap();
        self.reopen();
    }

    /// An open vault goes by the configuration that it was opened with.
    fn reopen(&mut self) {
        let store = Arc::new(Local::open(&self.dir.join("vault")).unwrap());
        self.vault = self.owner.open(store).unwrap();
    }
}

#[test]
fn what_lies_elsewhere_is_read_or_absent_and_never_wrong() {
    let (seconds, seed) = settings();
    let (dir, fixture, mut choices) = (tempfile::tempdir().unwrap(), Fixture::new(), Choices(seed));
    let store = Arc::new(Local::create(&dir.path().join("vault")).unwrap());
    let vault = fixture.create(store).unwrap().admit_roots(RootKind::TEST).unwrap();
    furnish(dir.path(), &fixture, &vault);
    for file in [ACKNOWLEDGED, SUPPLIED] {
        File::create(dir.path().join(file)).unwrap();
    }
    SOURCES
        .iter()
        .for_each(|source| fs::create_dir(dir.path().join(source)).unwrap());
    let mut world = World {
        dir: dir.path().to_owned(),
        owner: fixture,
        vault,
        supplied: BTreeSet::new(),
        changes: 0,
        spare_key: 0,
    };
    world.say("fair");
    let (sender, said) = channel();
    let (mut peers, mut failures, start) = (Vec::new(), 0, Instant::now());
    let (mut next_gc, mut next_weather, mut next_key) = (start, start, start + Duration::from_secs(2));
    while start.elapsed() < Duration::from_secs(seconds) {
        while peers.len() < PROCESSES as usize {
            let child = ("elsewhere_stress::child", dir.path());
            peers.push(Peer::start(child, choices.below(PROCESSES), &mut choices, &sender));
        }
        peers.retain_mut(|peer: &mut Peer| peer.goes_on(&mut choices, &mut failures));
        world.supply();
        let now = Instant::now();
        if now >= next_weather {
            world.change_weather(&mut choices);
            next_weather = now + Duration::from_millis(choices.below(600));
        }
        if now >= next_gc {
            collect(&world.vault, &mut Vec::new());
            next_gc = now + Duration::from_millis(choices.below(700));
        }
        if now >= next_key {
            world.change_keys();
            next_key = now + Duration::from_secs(2 + choices.below(4));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(peers);
    for _ in 0..3 {
        collect(&world.vault, &mut Vec::new());
    }
    let known = numbers(&dir.path().join(ACKNOWLEDGED));
    let mut counted = [0_u64; 3];
    for line in said.try_iter() {
        let Some((_, counts)) = line.split_once("child counted ") else {
            continue;
        };
        for (sum, count) in counted.iter_mut().zip(counts.split(' ')) {
            *sum += count.parse::<u64>().unwrap();
        }
    }
    let [read, absent, given] = counted;
    println!(
        "{} kept, {read} read, {given} of them from elsewhere, {absent} absent, {} keys changed",
        known.len(),
        world.spare_key
    );
    for machine in 0..PROCESSES {
        let vault = open(dir.path(), machine);
        let reader = vault.reader().unwrap();
        for content in &known {
            let bytes = bytes_of(*content);
            let found = reader.chunk(&vault.hasher().id(&bytes));
            assert!(found.is_ok_and(|found| *found == bytes[..]), "seed {seed}: {content}");
        }
        assert_eq!(lines(&check(&vault).problems), "", "seed {seed}");
    }
    assert_eq!(failures, 0, "seed {seed}: a child failed");
    assert!(known.len() as u64 > seconds && read > 0 && given > 0, "seed {seed}");
}
