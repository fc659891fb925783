//! The engine as a door sees it: through the trait, over an index that hosts share, with other sources of chunks, and from async code.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::{ControlFlow, Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use drystone_format::kinds::{Kept, TestRoot};
use drystone_format::recipe::Recipe;
use drystone_format::root::{RootKind, RootName};
use drystone_format::{ChunkId, PackId, RootId};
use drystone_index::{Error as IndexError, Location, PackEntries, PackInfo, Span, Stats};
use drystone_store::{Memory, Name, Op, Prefix, Record, Store};
use drystone_vault::{
    ChunkMap, ChunkSource, Context, EditOptions, Edited, Engine, Error, Face, GcOptions, Handle, OldRecipe, Reliance,
    Stretch, Whereabouts, WriterOptions,
};
use parking_lot::Mutex;

use crate::support::{Fixture, check, lines, noise};

const BYTES: usize = 900;

/// What a map holds: packs, and for each chunk the packs that have it.
#[derive(Default)]
struct Rows {
    packs: BTreeMap<PackId, PackInfo>,
    chunks: BTreeMap<ChunkId, Vec<(PackId, Span)>>,
}

/// An index in memory that several hosts share, as a database would be.
#[derive(Default)]
pub(crate) struct SharedMap {
    rows: Mutex<Rows>,
    is_away: AtomicBool,
    asked: AtomicUsize,
}

impl SharedMap {
    fn rows(&self, during: &'static str) -> drystone_index::Result<parking_lot::MutexGuard<'_, Rows>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) {
            return Err(IndexError::Map {
                map: "test".to_owned(),
                during,
                why: "connection refused".to_owned(),
            });
        }
        Ok(self.rows.lock())
    }
}

impl Rows {
    fn locate(&self, id: &ChunkId, wanted: &dyn Fn(&PackInfo) -> bool) -> Option<Location> {
        let mut found = self.chunks.get(id)?.iter();
        let (pack, span) = found.find(|(pack, _)| self.packs.get(pack).is_some_and(wanted))?;
        Some(span.at(*pack))
    }
}

impl ChunkMap for SharedMap {
    fn is_shared(&self) -> bool {
        true
    }

    fn refresh(&self) -> drystone_index::Result<()> {
        Ok(())
    }

    fn insert(&self, entries: PackEntries) -> drystone_index::Result<()> {
        let mut rows = self.rows("insert")?;
        let (info, chunks) = entries.into_info();
        if rows.packs.insert(info.pack, info).is_none() {
            for (id, span) in chunks {
                rows.chunks.entry(id).or_default().push((info.pack, span));
            }
        }
        Ok(())
    }

    fn locate(&self, id: &ChunkId, wanted: &dyn Fn(&PackInfo) -> bool) -> drystone_index::Result<Option<Location>> {
        Ok(self.rows("look")?.locate(id, wanted))
    }

    fn locate_many(
        &self,
        ids: &[ChunkId],
        wanted: &dyn Fn(&PackInfo) -> bool,
    ) -> drystone_index::Result<Vec<Option<Location>>> {
        let rows = self.rows("look")?;
        Ok(ids.iter().map(|id| rows.locate(id, wanted)).collect())
    }

    fn packs(&self) -> drystone_index::Result<Vec<PackInfo>> {
        Ok(self.rows("list")?.packs.values().copied().collect())
    }

    fn pack(&self, pack: &PackId) -> drystone_index::Result<Option<PackInfo>> {
        Ok(self.rows("look")?.packs.get(pack).copied())
    }

    fn retain(&self, live: &dyn Fn(&PackId) -> bool) -> drystone_index::Result<usize> {
        let mut rows = self.rows("forget")?;
        let before = rows.packs.len();
        rows.packs.retain(|pack, _| live(pack));
        for found in rows.chunks.values_mut() {
            found.retain(|(pack, _)| live(pack));
        }
        rows.chunks.retain(|_, found| !found.is_empty());
        Ok(before - rows.packs.len())
    }

    fn flush(&self) -> drystone_index::Result<()> {
        Ok(())
    }

    fn scan(&self, each: &mut dyn FnMut(&ChunkId, &Location) -> ControlFlow<()>) -> drystone_index::Result<()> {
        let all: Vec<(ChunkId, Vec<(PackId, Span)>)> = {
            let rows = self.rows("scan")?;
            rows.chunks.iter().map(|(id, found)| (*id, found.clone())).collect()
        };
        for (id, found) in all {
            for (pack, span) in found {
                if each(&id, &span.at(pack)).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn stats(&self) -> drystone_index::Result<Stats> {
        let rows = self.rows("count")?;
        Ok(Stats {
            chunks: rows.chunks.values().map(|found| found.len() as u64).sum(),
            packs: rows.packs.len() as u64,
            ..Stats::default()
        })
    }

    fn dropped_parts(&self) -> u64 {
        0
    }
}

/// A machine with an open engine.
struct Host {
    engine: Arc<dyn Engine>,
    /// Has the directory of its cache.
    _machine: Fixture,
}

impl Deref for Host {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        &*self.engine
    }
}

/// A host of its own, perhaps with an index that others share.
fn host(fixture: &Fixture, store: Arc<dyn Store>, map: Option<Arc<SharedMap>>) -> Host {
    let machine = fixture.elsewhere();
    let context = Context {
        chunk_map: map.map(|map| map as Arc<dyn ChunkMap>),
        ..machine.context()
    };
    let handle = Handle::open(store, context, &fixture.unlock(), WriterOptions::default()).unwrap();
    Host {
        engine: Arc::new(handle),
        _machine: machine,
    }
}

fn new_vault(fixture: &Fixture) -> Arc<Memory> {
    let store = Arc::new(Memory::new());
    fixture
        .create(store.clone())
        .unwrap()
        .admit_roots(RootKind::TEST)
        .unwrap();
    store
}

/// Keeps chunks made of these seeds under one root.
fn keep(engine: &dyn Engine, seeds: &[u64]) -> Vec<ChunkId> {
    keep_under(engine, seeds).0
}

/// The same; returns the root too.
fn keep_under(engine: &dyn Engine, seeds: &[u64]) -> (Vec<ChunkId>, RootId) {
    let commit = engine.begin().unwrap();
    let chunks: Vec<Vec<u8>> = seeds.iter().map(|seed| noise(*seed, BYTES)).collect();
    let put = commit
        .put(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>())
        .unwrap();
    let kept = put
        .iter()
        .map(|(id, _)| Kept::Stream(Recipe::single(*id, BYTES as u64)));
    let root = TestRoot(kept.collect()).encode();
    let root = commit.publish(RootKind::TEST, &root).unwrap();
    (put.into_iter().map(|(id, _)| id).collect(), root)
}

/// What an engine gives for these chunks, in their order.
fn got(engine: &dyn Engine, ids: &[ChunkId]) -> Vec<drystone_vault::Result<Vec<u8>>> {
    let got = Mutex::new(BTreeMap::new());
    let each = |at, chunk: drystone_vault::Result<_>| {
        got.lock()
            .insert(at, chunk.map(|chunk: drystone_vault::ChunkBytes| chunk.to_vec()));
    };
    engine.get(ids, &each).unwrap();
    got.into_inner().into_values().collect()
}

fn assert_given(engine: &dyn Engine, ids: &[ChunkId], seeds: &[u64]) {
    for (given, seed) in got(engine, ids).into_iter().zip(seeds) {
        assert_eq!(given.unwrap(), noise(*seed, BYTES));
    }
}

fn ids_of(engine: &dyn Engine, seeds: &[u64]) -> Vec<ChunkId> {
    let hasher = engine.hasher();
    seeds.iter().map(|seed| hasher.id(&noise(*seed, BYTES))).collect()
}

/// How often the packs were listed since this was asked last.
fn lists(record: &Record) -> usize {
    let calls = record.take().into_iter();
    calls
        .filter(|call| call.op == Op::List && call.name.starts_with("packs/"))
        .count()
}

fn packs(store: &Memory) -> Vec<Name> {
    let names = store.contents().into_keys();
    names.filter(|name| Prefix::Packs.covers(name)).collect()
}

/// A file in which a range was overwritten.
struct Page<'a>(&'a [u8], Range<u64>);

impl Edited for Page<'_> {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn edit(&mut self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok(Some(self.1.clone()).filter(|edit| edit.end > offset))
    }

    fn stretch(&mut self, _: u64) -> io::Result<Stretch> {
        Ok(Stretch::Data(self.0.len() as u64))
    }

    fn read_at(&mut self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
        (&self.0[offset as usize..]).read(room)
    }
}

#[test]
fn hosts_that_share_an_index_find_each_others_chunks_without_a_list() {
    let (fixture, map) = (Fixture::new(), Arc::new(SharedMap::default()));
    let store = new_vault(&fixture);
    let record = Arc::new(Record::new(store.clone()));
    let first = host(&fixture, store.clone(), Some(map.clone()));
    let second = host(&fixture, record.clone(), Some(map.clone()));
    keep(&*second, &[1000]);
    record.take();
    for seed in 0..20 {
        let ids = keep(&*first, &[seed]);
        assert_eq!(second.has(&ids).unwrap(), [true]);
        assert_given(&*second, &ids, &[seed]);
    }
    assert_eq!(lists(&record), 0);
    // What one has stored the other does not store again.
    let before = packs(&store).len();
    let ids = keep(&*second, &(0..20).collect::<Vec<_>>());
    assert_eq!(packs(&store).len(), before);
    // Without the shared index, another host learns of it by itself, at the price of a list.
    let third = host(&fixture, store, None);
    assert_given(&*third, &ids, &(0..20).collect::<Vec<_>>());
}

#[test]
fn many_chunks_are_asked_of_a_shared_index_at_once() {
    let (fixture, map) = (Fixture::new(), Arc::new(SharedMap::default()));
    let engine = host(&fixture, new_vault(&fixture), Some(map.clone()));
    let seeds: Vec<u64> = (0..100).collect();
    let ids = keep(&*engine, &seeds);
    let before = map.asked.load(Ordering::Relaxed);
    assert!(engine.has(&ids).unwrap().iter().all(|has| *has));
    assert_eq!(map.asked.load(Ordering::Relaxed), before + 1);
}

#[test]
fn a_shared_index_that_is_emptied_costs_time_alone() {
    let (fixture, map) = (Fixture::new(), Arc::new(SharedMap::default()));
    let store = new_vault(&fixture);
    let engines = [(); 2].map(|()| host(&fixture, store.clone(), Some(map.clone())));
    let mut kept = Vec::new();
    for round in 0..6 {
        kept.extend(keep(&*engines[round % 2], &[round as u64, 100 + round as u64 / 2]));
        *map.rows.lock() = Rows::default();
        let seeds: Vec<u64> = (0..=round as u64).flat_map(|seed| [seed, 100 + seed / 2]).collect();
        assert_given(&*engines[(round + 1) % 2], &kept, &seeds);
    }
    let vault = fixture.elsewhere().open(store).unwrap();
    assert_eq!(lines(&check(&vault).problems), "");
}

#[test]
fn a_shared_index_that_does_not_answer_is_an_error_and_no_miss() {
    let (fixture, map) = (Fixture::new(), Arc::new(SharedMap::default()));
    let engine = host(&fixture, new_vault(&fixture), Some(map.clone()));
    let ids = keep(&*engine, &[1]);
    map.is_away.store(true, Ordering::Relaxed);
    let is_map = |error: &Error| matches!(error, Error::Index(IndexError::Map { .. }));
    assert!(is_map(&engine.has(&ids).unwrap_err()));
    assert!(is_map(&engine.reader().unwrap().chunk(&ids[0]).unwrap_err()));
    assert!(is_map(
        &engine.get(&ids, &|_, _| panic!("nothing was found")).unwrap_err()
    ));
    let put = || engine.begin()?.put(&[&noise(2, BYTES)]);
    assert!(is_map(&put().unwrap_err()));
    map.is_away.store(false, Ordering::Relaxed);
    assert_given(&*engine, &ids, &[1]);
}

#[test]
fn gc_beside_hosts_that_share_an_index_takes_nothing_they_need() {
    let (fixture, map) = (Fixture::new(), Arc::new(SharedMap::default()));
    let store = new_vault(&fixture);
    let engines = [(); 2].map(|()| host(&fixture, store.clone(), Some(map.clone())));
    let owner = fixture.elsewhere().open(store.clone()).unwrap();
    let options = GcOptions {
        silence: std::time::Duration::ZERO,
        ..GcOptions::default()
    };
    let mut live: BTreeMap<u64, (ChunkId, RootId)> = BTreeMap::new();
    for round in 0..12_u64 {
        let engine = &*engines[round as usize % 2];
        let (ids, root) = keep_under(engine, &[round]);
        live.insert(round, (ids[0], root));
        if round % 3 == 2 {
            // The oldest goes, and with it its pack, which the shared index must forget.
            let (_, (_, gone)) = live.pop_first().unwrap();
            engine.forget(&[gone]).unwrap();
            owner.gc(&options).unwrap();
            engines.iter().for_each(|engine| engine.refresh().unwrap());
        }
        for engine in &engines {
            let (seeds, ids): (Vec<u64>, Vec<ChunkId>) = live.iter().map(|(seed, (id, _))| (*seed, *id)).unzip();
            assert_given(&**engine, &ids, &seeds);
        }
    }
    // What was forgotten and stored again is there again.
    let again = keep(&*engines[0], &[0]);
    for _ in 0..3 {
        owner.gc(&options).unwrap();
    }
    engines.iter().for_each(|engine| assert_given(&**engine, &again, &[0]));
}

/// How a source behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Gives,
    IsAway,
    Lies,
}

/// Another holder of chunks.
struct Peer {
    name: &'static str,
    held: BTreeMap<ChunkId, Vec<u8>>,
    mood: Mutex<Mood>,
    asked: AtomicUsize,
}

impl Peer {
    fn new(name: &'static str, engine: &dyn Engine, seeds: &[u64]) -> Arc<Self> {
        let hasher = engine.hasher();
        let chunks = seeds.iter().map(|seed| noise(*seed, BYTES));
        Arc::new(Self {
            name,
            held: chunks.map(|chunk| (hasher.id(&chunk), chunk)).collect(),
            mood: Mutex::new(Mood::Gives),
            asked: AtomicUsize::new(0),
        })
    }

    fn turns(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }
}

impl ChunkSource for Peer {
    fn name(&self) -> &str {
        self.name
    }

    fn holds(&self, ids: &[ChunkId]) -> io::Result<Vec<bool>> {
        match *self.mood.lock() {
            Mood::IsAway => Err(io::ErrorKind::ConnectionRefused.into()),
            Mood::Gives | Mood::Lies => Ok(ids.iter().map(|id| self.held.contains_key(id)).collect()),
        }
    }

    fn chunks(&self, ids: &[ChunkId]) -> io::Result<Vec<Option<Vec<u8>>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match *self.mood.lock() {
            Mood::IsAway => Err(io::ErrorKind::ConnectionRefused.into()),
            Mood::Gives => Ok(ids.iter().map(|id| self.held.get(id).cloned()).collect()),
            Mood::Lies => Ok(ids
                .iter()
                .map(|id| self.held.get(id).map(|_| noise(99_999, BYTES)))
                .collect()),
        }
    }
}

#[test]
fn what_the_places_lack_comes_from_other_sources_and_is_held_against_its_id() {
    let fixture = Fixture::new();
    let engine = host(&fixture, new_vault(&fixture), None);
    keep(&*engine, &[0]);
    let seeds: Vec<u64> = (1..100).collect();
    let ids = ids_of(&*engine, &seeds);
    let (liar, peer) = (Peer::new("liar", &*engine, &seeds), Peer::new("peer", &*engine, &seeds));
    liar.turns(Mood::Lies);
    engine.add_source(liar);
    engine.add_source(peer.clone());
    assert_given(&*engine, &ids, &seeds);
    // Many at once, though not all in one.
    assert!(peer.asked.load(Ordering::Relaxed) <= seeds.len().div_ceil(32));
    assert_eq!(engine.take_liars().count(), seeds.len() as u64);
    assert!(engine.take_liars().is_empty());
    let alone = engine.reader().unwrap().chunk(&ids[3]).unwrap();
    assert_eq!(*alone, noise(seeds[3], BYTES)[..]);
    // Nothing of it counts as stored.
    assert!(engine.has(&ids).unwrap().iter().all(|has| !has));
}

#[test]
fn who_does_not_answer_leaves_a_doubt_and_no_loss() {
    let fixture = Fixture::new();
    let engine = host(&fixture, new_vault(&fixture), None);
    let ids = ids_of(&*engine, &[1]);
    let peer = Peer::new("peer", &*engine, &[1]);
    let read = || engine.reader().unwrap().chunk(&ids[0]);
    assert!(matches!(read(), Err(Error::MissingChunk { .. })));
    engine.add_source(peer.clone());
    assert!(read().is_ok());
    peer.turns(Mood::IsAway);
    let error = read().unwrap_err();
    assert!(error.is_absence(), "{error}");
    let Error::Elsewhere { sources, .. } = error else {
        panic!("{error}")
    };
    assert!(sources[0].starts_with("peer ("), "{sources:?}");
    peer.turns(Mood::Lies);
    assert!(matches!(read(), Err(Error::MissingChunk { .. })));
    engine.remove_source("peer");
    peer.turns(Mood::Gives);
    assert!(matches!(read(), Err(Error::MissingChunk { .. })));
}

#[test]
fn only_a_ledger_says_that_a_chunk_is_gone() {
    let fixture = Fixture::new();
    let store = new_vault(&fixture);
    let engine = host(&fixture, store.clone(), None);
    let ids = keep(&*engine, &[1]);
    let (roots, _) = engine.roots(RootKind::TEST).unwrap();
    let of: RootName = roots[0].name;
    let peer = Peer::new("peer", &*engine, &[1]);
    let find = || engine.whereabouts(&of, &ids).unwrap()[0];
    assert_eq!(find(), Whereabouts::Here);
    // The pack is lost: nothing says that it may be.
    for name in packs(&store) {
        store.remove(&name);
    }
    engine.refresh().unwrap();
    assert_eq!(find(), Whereabouts::Unknown);
    engine.add_source(peer.clone());
    assert_eq!(find(), Whereabouts::Elsewhere);
    peer.turns(Mood::IsAway);
    assert_eq!(find(), Whereabouts::Unknown);
    engine.forget(&[of.hash]).unwrap();
    assert_eq!(find(), Whereabouts::Gone);
    peer.turns(Mood::Gives);
    assert_eq!(find(), Whereabouts::Elsewhere);
}

#[test]
fn a_root_relies_on_the_places_alone() {
    let fixture = Fixture::new();
    let store = new_vault(&fixture);
    let engine = host(&fixture, store.clone(), None);
    engine.add_source(Peer::new("peer", &*engine, &[1]));
    let ids = ids_of(&*engine, &[1]);
    assert_given(&*engine, &ids, &[1]);
    assert_eq!(keep(&*engine, &[1]), ids);
    // Without the peer.
    let other = host(&fixture, store, None);
    assert_given(&*other, &ids, &[1]);
}

#[test]
fn files_edits_and_trees_go_through_the_trait() {
    let fixture = Fixture::new();
    let engine = host(&fixture, new_vault(&fixture), None);
    let before = noise(1, 300_000);
    let commit = engine.begin().unwrap();
    let recipe = commit.store(&mut &before[..]).unwrap();
    let tree = commit.tree(&mut std::iter::empty()).unwrap();
    let kept = vec![Kept::Stream(recipe.clone()), Kept::Stream(tree.clone())];
    commit.publish(RootKind::TEST, &TestRoot(kept).encode()).unwrap();
    let mut after = before.clone();
    after[150_000..150_010].fill(7);
    let commit = engine.begin().unwrap();
    let reader = engine.reader().unwrap();
    let options = EditOptions {
        reliance: Reliance::Unknown,
        keep_parts: None,
    };
    let mut old = OldRecipe::new(reader, &recipe);
    let mut new = Page(&after, 150_000..150_010);
    let report = commit.edit(&mut old, &mut new, options).unwrap();
    assert!(report.read_bytes < 60_000, "{report:?}");
    let kept = vec![Kept::Stream(report.recipe.clone())];
    commit.publish(RootKind::TEST, &TestRoot(kept).encode()).unwrap();
    let file = engine.reader().unwrap().file(&report.recipe).unwrap();
    let mut read = vec![0; after.len()];
    file.read_at(0, &mut read).unwrap();
    assert!(read == after);
    assert_eq!(engine.reader().unwrap().tree(&tree).count(), 0);
}

#[test]
fn async_code_asks_through_a_face() {
    let fixture = Fixture::new();
    let engine = host(&fixture, new_vault(&fixture), None);
    let face = Face::new(engine.engine.clone(), 3).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    runtime.block_on(async {
        let asked = (0..20_u64).map(|seed| {
            let (face, busy, most) = (face.clone(), busy.clone(), most.clone());
            async move {
                let ids = face.ask(move |engine| {
                    most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let ids = keep(engine, &[seed]);
                    busy.fetch_sub(1, Ordering::SeqCst);
                    Ok(ids)
                });
                ids.await.unwrap()[0]
            }
        });
        let asked: Vec<_> = asked.collect();
        let ids = futures_join(asked).await;
        let found = face.ask(move |engine| engine.has(&ids)).await.unwrap();
        assert!(found.iter().all(|has| *has));
        // A panic costs its own answer; the thread goes on.
        for _ in 0..4 {
            let panicked = face
                .ask(|_| -> drystone_vault::Result<()> { panic!("on purpose") })
                .await;
            assert!(matches!(panicked, Err(Error::Stopped)));
        }
        // Whoever gives an answer up does not take its room.
        drop(face.ask(|_| Ok(())));
        assert!(face.ask(|_| Ok(7)).await.is_ok_and(|seven| seven == 7));
    });
    assert!(most.load(Ordering::SeqCst) <= 3);
}

/// Waits for all, which run at once.
async fn futures_join<F: Future + 'static>(all: Vec<F>) -> Vec<F::Output>
where
    F::Output: 'static,
{
    let mut all: Vec<std::pin::Pin<Box<F>>> = all.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(done.iter_mut().filter_map(Option::take).collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

#[test]
fn a_pack_that_an_engine_cannot_read_may_come_from_elsewhere() {
    let fixture = Fixture::new();
    let store = new_vault(&fixture);
    let engine = host(&fixture, store.clone(), None);
    let ids = keep(&*engine, &[1, 2]);
    let pack: Name = packs(&store).remove(0);
    let mut bytes = store.contents()[&pack].to_vec();
    bytes[40] ^= 1;
    store.overwrite(&pack, bytes.into());
    let other = host(&fixture, store, None);
    assert!(other.reader().unwrap().chunk(&ids[0]).is_err());
    other.add_source(Peer::new("peer", &*other, &[1]));
    assert_given(&*other, &ids[..1], &[1]);
    assert!(other.reader().unwrap().chunk(&ids[1]).unwrap_err().is_damage());
}
