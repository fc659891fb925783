//! The damage matrix: every kind of object, damaged in every way, met by every operation (I4, I6, I8).

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use drystone_format::keys::Role;
use drystone_format::recipe::Part;
use drystone_format::seal::PackKind;
use drystone_format::{PackId, RootId};
use drystone_index::Location;
use drystone_store::{Kind, Local, Memory, Name, Prefix, Store};
use drystone_vault::{Error, GcOptions, Vault};

use crate::support::root_of;
use crate::support::{Fixture, add_key, back_up, check, content, files, index_of, lines, noise, runtime, scrub, walk};

/// A way to damage an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    Delete,
    /// Only this share of a hundred is left.
    Truncate(usize),
    /// One byte is missing at the end.
    CutLast,
    /// A bit at so many bytes from the start.
    Flip(usize),
    /// A bit at so many bytes from the end.
    FlipBack(usize),
    /// A bit at this share of a hundred.
    FlipAt(usize),
    /// This bit, the lowest of the first byte being 0.
    Bit(usize),
    /// The bytes of another object of the vault.
    Replace,
}

const DAMAGES: [Damage; 14] = [
    Damage::Delete,
    Damage::Truncate(0),
    Damage::Truncate(50),
    Damage::CutLast,
    Damage::Flip(0),
    Damage::Flip(7),
    Damage::Flip(9),
    Damage::FlipAt(25),
    Damage::FlipAt(50),
    Damage::FlipAt(98),
    Damage::FlipBack(1),
    Damage::FlipBack(40),
    Damage::FlipBack(300),
    Damage::Replace,
];

impl Damage {
    fn apply(self, bytes: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        match self {
            Self::Delete => return None,
            Self::Truncate(share) => bytes.truncate(bytes.len() * share / 100),
            Self::CutLast => drop(bytes.pop()),
            Self::Replace => bytes = other.to_vec(),
            Self::Bit(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
            Self::Flip(_) | Self::FlipBack(_) | Self::FlipAt(_) => {
                let at = self.position(bytes.len()).unwrap();
                bytes[at] ^= 1;
            }
        }
        Some(bytes)
    }

    fn position(self, length: usize) -> Option<usize> {
        match self {
            Self::Flip(at) => Some(at.min(length - 1)),
            Self::FlipBack(at) => Some(length.saturating_sub(at)),
            Self::FlipAt(share) => Some(length * share / 100),
            Self::Bit(bit) => Some(bit / 8),
            _ => None,
        }
    }

    /// Whether it leaves an object of this name at the place.
    fn leaves(self) -> bool {
        self != Self::Delete
    }
}

/// A file: its snapshot, its name, its bytes, and where everything that it is read from lies.
struct File {
    snapshot: RootId,
    name: String,
    bytes: Vec<u8>,
    lies: Vec<Location>,
}

/// A vault with two snapshots of an owner and one of a writer, whose pack an owner has verified.
pub(crate) struct World {
    owner: Fixture,
    second: Fixture,
    pub(crate) store: Memory,
    files: Vec<File>,
    first: RootId,
    data_pack: Name,
    meta_pack: Name,
}

pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// What the two snapshots of the owner are of.
fn sources() -> &'static (Files, Files) {
    static SOURCES: OnceLock<(Files, Files)> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let first: Files = (0..5).map(|at| (format!("a{at}"), noise(at, 250_000))).collect();
        let second = vec![first[0].clone(), ("b".to_owned(), noise(77, 150_000))];
        (first, second)
    })
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect()
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    let (a, b) = sources();
    WORLD.get_or_init(|| World::new(a, b, &noise(99, 50_000)))
}

fn survey(vault: &Vault, snapshot: &RootId) -> Vec<File> {
    let (reader, index) = (vault.reader().unwrap(), index_of(vault));
    let tree = vault.snapshot(snapshot).unwrap().tree;
    let locate = |parts: &mut dyn Iterator<Item = Part>| -> Vec<Location> {
        let ids = parts.filter_map(|part| match part {
            Part::Chunk { id, .. } => Some(id),
            _ => None,
        });
        ids.map(|id| index.get(&id).unwrap().unwrap()).collect()
    };
    let tree_lies = [
        locate(&mut tree.parts.iter().copied()),
        locate(&mut reader.parts(&tree).map(Result::unwrap)),
    ]
    .concat();
    let file = |entry: drystone_format::tree::Entry| {
        let recipe = entry.recipe().unwrap();
        assert!(recipe.depth < 2);
        let leaves = locate(&mut reader.parts(recipe).map(Result::unwrap));
        let nodes = locate(&mut recipe.parts.iter().copied());
        File {
            snapshot: *snapshot,
            bytes: content(&reader, recipe).unwrap(),
            name: String::from_utf8(entry.name).unwrap(),
            lies: [tree_lies.clone(), nodes, leaves].concat(),
        }
    };
    reader.tree(&tree).map(|entry| file(entry.unwrap())).collect()
}

impl World {
    /// An owner's snapshots of `a` and `b`, and a writer's of a file `w`.
    pub(crate) fn new(a: &Files, b: &Files, w: &[u8]) -> Self {
        let (owner, store) = (Fixture::new(), Arc::new(Memory::new()));
        let vault = owner.create(store.clone()).unwrap();
        let second = add_key(&vault, Role::Owner);
        let writer = add_key(&vault, Role::Writer);
        let first = back_up(&vault, &borrowed(a)).unwrap().0;
        let packs = index_of(&vault).packs();
        let pack = |kind: PackKind| {
            let has = |kind: PackKind| packs.iter().find(|pack| pack.kind & 0x7f == kind as u8);
            Name::pack(&has(kind).or(has(PackKind::Mixed)).unwrap().pack)
        };
        let (data_pack, meta_pack) = (pack(PackKind::Data), pack(PackKind::Meta));
        let snapshots = [
            first,
            back_up(&vault, &borrowed(b)).unwrap().0,
            back_up(&writer.open(store.clone()).unwrap(), &[("w", w)]).unwrap().0,
        ];
        let vault = owner.open(store.clone()).unwrap();
        assert_eq!(lines(&scrub(&vault).problems), "");
        let files = snapshots.iter().flat_map(|id| survey(&vault, id)).collect();
        Self {
            owner,
            second,
            store: (*store).clone(),
            files,
            first,
            data_pack,
            meta_pack,
        }
    }

    /// The other owner, with this machine's cache: its key is another one.
    pub(crate) fn second(&self) -> Fixture {
        let copy = self.owner.copy();
        Fixture {
            cache: copy.cache,
            key: self.second.key.clone(),
            recipient: self.second.recipient.clone(),
        }
    }

    /// A copy of everything with one object damaged.
    pub(crate) fn damaged(&self, name: &Name, damage: Damage) -> (Fixture, Arc<Memory>) {
        let store = self.store.clone();
        let objects = store.contents();
        let other = objects
            .iter()
            .find(|(other, _)| *other != name && same_kind(other, name))
            .or_else(|| objects.iter().find(|(other, _)| *other != name))
            .unwrap();
        match damage.apply(&objects[name], other.1) {
            Some(bytes) => store.overwrite(name, Bytes::from(bytes)),
            None => runtime().block_on(store.delete(name)).unwrap(),
        }
        (self.owner.copy(), Arc::new(store))
    }

    /// Whether a file is read from the part of `name` that `damage` alters.
    fn hits(&self, file: &File, name: &Name, damage: Damage) -> bool {
        let Kind::Pack(pack) = name.kind() else {
            return matches!(name.kind(), Kind::Root(root) if root.hash == file.snapshot);
        };
        let length = self.store.contents()[name].len();
        let frames_end = |pack: PackId| {
            let lies = self.files.iter().flat_map(|file| &file.lies);
            let ends = lies.filter(|lie| lie.pack == pack);
            ends.map(|lie| lie.frame_offset + lie.frame_bytes).max().unwrap() as usize
        };
        file.lies.iter().filter(|lie| lie.pack == pack).any(|lie| {
            let frame = lie.frame_offset as usize..(lie.frame_offset + lie.frame_bytes) as usize;
            match damage.position(length) {
                Some(at) => frame.contains(&at) || at >= frames_end(pack),
                None => true,
            }
        })
    }

    /// Reads every file: what is not hit must be there, and nothing may be wrong. Returns the errors.
    pub(crate) fn read_all(&self, vault: &Vault, name: &Name, damage: Damage) -> Vec<Error> {
        let mut errors = Vec::new();
        let reader = vault.reader().unwrap();
        for file in &self.files {
            match read_one(vault, &reader, file) {
                Ok(bytes) => assert!(bytes == file.bytes, "{damage:?} {name}: wrong bytes in {}", file.name),
                Err(error) => {
                    let hit = self.hits(file, name, damage);
                    assert!(hit, "{damage:?} {name}: {} is lost for nothing: {error}", file.name);
                    assert!(error.is_damage(), "{error:?}");
                    errors.push(error);
                }
            }
        }
        errors
    }
}

fn same_kind(one: &Name, other: &Name) -> bool {
    std::mem::discriminant(&one.kind()) == std::mem::discriminant(&other.kind())
}

fn read_one(vault: &Vault, reader: &drystone_vault::Reader, file: &File) -> Result<Vec<u8>, Error> {
    let snapshot = vault.snapshot(&file.snapshot)?;
    for entry in reader.tree(&snapshot.tree) {
        let entry = entry?;
        if entry.name == file.name.as_bytes() {
            return content(reader, entry.recipe().unwrap());
        }
    }
    panic!("{}: a file is gone without an error", file.name);
}

/// After everything was backed up again: new and old snapshots are whole, and nothing is a problem.
fn assert_healed(world: &World, vault: &Vault, name: &Name, damage: Damage) {
    let (a, b) = sources();
    for source in [a, b, &vec![("w".to_owned(), noise(99, 50_000))]] {
        let (id, _) = back_up(vault, &borrowed(source)).unwrap();
        assert!(files(vault, &id).unwrap() == *source, "{damage:?} {name}");
    }
    let report = check(vault);
    let is_root = matches!(name.kind(), Kind::Root(..));
    // A root that is gone is missed by the machine that made it; another cannot know.
    let is_missed = is_root && !damage.leaves() && report.problems.count() == 1;
    if is_root && damage.leaves() || is_missed {
        assert_eq!(report.problems.count(), 1, "{damage:?} {}", lines(&report.problems));
        assert!(lines(&report.problems).contains(name.as_str()));
    } else {
        assert_eq!(lines(&report.problems), "", "{damage:?} {name}");
    }
    if matches!(name.kind(), Kind::Pack(_)) {
        assert!(world.read_all(vault, name, damage).is_empty(), "{damage:?} {name}");
    }
}

/// Read, check, scrub, back up, check.
fn read_first(world: &World, name: &Name, damage: Damage) {
    let (fixture, store) = world.damaged(name, damage);
    let vault = fixture.open(store.clone()).unwrap();
    let errors = world.read_all(&vault, name, damage);
    let is_pack = matches!(name.kind(), Kind::Pack(_));
    for error in &errors {
        let (text, object) = (error.to_string(), name.as_str());
        // Of a root that is gone nothing is known but the hash that people name it by.
        let object = match name.kind() {
            Kind::Root(root) if damage == Damage::Delete => root.hash.to_string(),
            _ => object.to_owned(),
        };
        let is_named = text.contains(&object) || matches!(error, Error::MissingChunk { .. });
        assert!(is_named, "{damage:?} {object}: {text}");
        assert!(text.contains("memory"), "{text}");
    }
    let found = lines(&check(&vault).problems);
    // Nobody knows of a root that is gone.
    let can_know = is_pack || damage.leaves();
    assert!(
        errors.is_empty() || !can_know || !found.is_empty(),
        "{damage:?} {name}: check finds nothing"
    );
    if !is_pack && damage.leaves() {
        assert!(found.contains(name.as_str()), "{damage:?} {name}: {found}");
    }
    let found = lines(&scrub(&vault).problems);
    if is_pack && damage.leaves() {
        assert!(found.contains(name.as_str()), "{damage:?} {name}: {found}");
    }
    if is_pack && damage != Damage::Delete && index_of(&vault).has_pack(&pack_of(name)).is_some() {
        let found = check(&vault);
        let named = lines(&found.problems) + &lines(&found.harmless);
        assert!(named.contains(name.as_str()), "{damage:?} {name}: {named}");
    }
    assert_healed(world, &fixture.open(store).unwrap(), name, damage);
}

fn pack_of(name: &Name) -> PackId {
    match name.kind() {
        Kind::Pack(id) => id,
        _ => panic!("{name} is no pack"),
    }
}

/// Back up without looking, then scrub, then back up.
fn back_up_first(world: &World, name: &Name, damage: Damage) {
    let (fixture, store) = world.damaged(name, damage);
    let (a, _) = sources();
    back_up(&fixture.open(store.clone()).unwrap(), &borrowed(a)).unwrap();
    let vault = fixture.open(store.clone()).unwrap();
    world.read_all(&vault, name, damage);
    scrub(&vault);
    let epoch = vault.loss_epoch().unwrap();
    assert_healed(world, &vault, name, damage);
    let again = fixture.open(store).unwrap();
    assert_eq!(
        again.loss_epoch().unwrap(),
        epoch,
        "{damage:?} {name}: a loss counts twice"
    );
    let (_, finished) = back_up(&again, &borrowed(a)).unwrap();
    assert_eq!(finished.new_chunks, 0, "{damage:?} {name}: stored again and again");
}

/// Rebuild the index, read, back up.
fn rebuild_first(world: &World, name: &Name, damage: Damage) {
    let (fixture, store) = world.damaged(name, damage);
    let before = fixture.open(store.clone()).unwrap().loss_epoch().unwrap();
    let report = fixture.open(store.clone()).unwrap().repair_index().unwrap();
    let vault = fixture.open(store.clone()).unwrap();
    let errors = world.read_all(&vault, name, damage);
    if let Kind::Pack(pack) = name.kind()
        && damage.leaves()
        && index_of(&vault).has_pack(&pack).is_none()
    {
        assert!(lines(&report.problems).contains(name.as_str()), "{damage:?} {name}");
    }
    if matches!(errors.first(), Some(Error::MissingChunk { .. })) {
        let epoch = vault.loss_epoch().unwrap();
        assert!(epoch > before || before > 0, "{damage:?} {name}: a loss goes unnoticed");
    }
    scrub(&vault);
    assert_healed(world, &vault, name, damage);
}

/// Collect garbage, with everything copied that can be: what is not hit stays, whether gc stops or not.
fn collect_first(world: &World, name: &Name, damage: Damage) {
    let (fixture, store) = world.damaged(name, damage);
    let vault = fixture.open(store.clone()).unwrap();
    let options = GcOptions {
        max_unused: 0.0,
        ..GcOptions::default()
    };
    match vault.gc(&options) {
        Ok(report) => assert_eq!(report.waiting_packs, 0, "{damage:?} {name}: {report:?}"),
        Err(Error::Unmarked { object, why, .. }) => {
            let is_named = format!("{object} {why}").contains(name.as_str()) || matches!(name.kind(), Kind::Pack(_));
            assert!(is_named, "{damage:?} {name}: {object}: {why}");
        }
        Err(Error::MissingRoots { object, .. }) => assert_eq!(object, name.as_str(), "{damage:?}"),
        Err(error) => panic!("{damage:?} {name}: {error}"),
    }
    world.read_all(&vault, name, damage);
    let vault = fixture.elsewhere().open(store).unwrap();
    world.read_all(&vault, name, damage);
    scrub(&vault);
    assert_healed(world, &vault, name, damage);
}

fn matrix(name: &Name) {
    let world = world();
    for damage in DAMAGES {
        read_first(world, name, damage);
        collect_first(world, name, damage);
        if matches!(name.kind(), Kind::Pack(_)) {
            back_up_first(world, name, damage);
            rebuild_first(world, name, damage);
        }
    }
    back_up_first(world, name, Damage::FlipAt(50));
    rebuild_first(world, name, Damage::Truncate(50));
}

#[test]
fn a_data_pack() {
    matrix(&world().data_pack);
}

#[test]
fn a_metadata_pack() {
    matrix(&world().meta_pack);
}

#[test]
fn a_root() {
    matrix(&root_of(&world().store, &world().first));
}

#[test]
fn a_list_of_verified_packs() {
    let contents = world().store.contents();
    let list = contents.keys().find(|name| Prefix::Verified.covers(name)).unwrap();
    matrix(list);
}

#[test]
fn the_header() {
    let (world, name) = (world(), Name::header());
    for damage in DAMAGES {
        let (fixture, store) = world.damaged(&name, damage);
        let vault = fixture.open(store.clone()).unwrap();
        assert!(vault.warnings().join("\n").contains("drystone"), "{damage:?}");
        assert!(world.read_all(&vault, &name, damage).is_empty());
        let found = lines(&check(&vault).problems);
        assert!(
            found.starts_with("drystone: the vault header is damaged"),
            "{damage:?} {found}"
        );
        assert_eq!(lines(&scrub(&vault).problems), "");
        back_up(&vault, &[("c", b"new")]).unwrap();
        vault.repair_index().unwrap();
        vault.repair_header().unwrap();
        let vault = fixture.open(store.clone()).unwrap();
        assert!(vault.warnings().is_empty());
        assert_healed(world, &vault, &name, damage);
        assert_eq!(store.contents()[&name], world.store.contents()[&name]);
    }
}

#[test]
fn a_key_slot() {
    let world = world();
    let vault = world.owner.copy().open(Arc::new(world.store.clone())).unwrap();
    let current = vault.keys().unwrap().0.into_iter().find(|slot| slot.current).unwrap();
    let name = Name::key(&current.id);
    for damage in DAMAGES {
        let (fixture, store) = world.damaged(&name, damage);
        let error = fixture.open(store.clone()).map(drop).unwrap_err();
        assert!(
            !damage.leaves() || error.to_string().contains(name.as_str()),
            "{damage:?}: {error}"
        );
        let vault = world.second.copy().open(store.clone()).unwrap();
        assert!(world.read_all(&vault, &name, damage).is_empty());
        let found = lines(&check(&vault).problems);
        assert!(!damage.leaves() || found.contains(name.as_str()), "{damage:?}: {found}");
        assert_eq!(found.lines().count(), usize::from(damage.leaves()), "{found}");
        assert_eq!(lines(&scrub(&vault).problems), "");
        let (a, _) = sources();
        assert_eq!(back_up(&vault, &borrowed(a)).unwrap().1.new_chunks, 0);
        vault.repair_index().unwrap();
    }
}

#[test]
fn all_key_slots() {
    let world = world();
    let store = Arc::new(world.store.clone());
    for name in store.contents().keys().filter(|name| Prefix::Keys.covers(name)) {
        runtime().block_on(store.delete(name)).unwrap();
    }
    let error = world.owner.copy().open(store.clone()).map(drop).unwrap_err();
    assert!(
        matches!(error, Error::BadKey { .. }) && error.to_string().contains("keys/"),
        "{error}"
    );
    runtime().block_on(store.delete(&Name::header())).unwrap();
    let error = world.owner.copy().open(store.clone()).map(drop).unwrap_err();
    assert!(matches!(error, Error::Emptied { .. }), "{error}");
    let error = world.owner.elsewhere().open(store).map(drop).unwrap_err();
    assert!(matches!(error, Error::NoVault { .. }), "{error}");
}

/// Local files that are rebuilt: the runs of the index and the state.
fn cached(fixture: &Fixture) -> Vec<PathBuf> {
    // What this machine knows of vaults is no cache.
    let is_known = |path: &PathBuf| path.starts_with(fixture.cache.path().join("known"));
    let files = walk(fixture.cache.path()).into_iter().filter(|path| !is_known(path));
    files
        .filter(|path| std::fs::metadata(path).unwrap().len() > 0)
        .collect()
}

fn damage_file(path: &Path, damage: Damage, other: &[u8]) {
    match damage.apply(&std::fs::read(path).unwrap(), other) {
        // In place, as a disk does it.
        Some(bytes) => {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
        }
        None => std::fs::remove_file(path).unwrap(),
    }
}

fn cache_files() -> BTreeMap<String, ()> {
    let fixture = world().owner.copy();
    let names = cached(&fixture).into_iter();
    names
        .map(|path| {
            (
                path.strip_prefix(fixture.cache.path()).unwrap().display().to_string(),
                (),
            )
        })
        .collect()
}

#[test]
fn a_file_of_the_cache() {
    let (world, (a, _)) = (world(), sources());
    let names = cache_files();
    assert!(names.keys().any(|name| name.contains("index/")) && names.keys().any(|name| name.contains("state")));
    for name in names.keys() {
        for damage in DAMAGES {
            let (fixture, store) = (world.owner.copy(), Arc::new(world.store.clone()));
            damage_file(&fixture.cache.path().join(name), damage, b"something else");
            let vault = fixture.open(store.clone()).unwrap();
            assert_whole(world, &vault, a, &format!("{damage:?} {name}"));
            vault.repair_index().unwrap();
            assert_whole(world, &fixture.open(store).unwrap(), a, &format!("{damage:?} {name}"));
        }
    }
}

#[test]
fn a_run_of_the_index_while_it_is_in_use() {
    let (world, (a, _)) = (world(), sources());
    for name in cache_files().keys().filter(|name| name.ends_with(".run")) {
        for damage in DAMAGES.into_iter().filter(|damage| *damage != Damage::Delete) {
            let (fixture, store) = (world.owner.copy(), Arc::new(world.store.clone()));
            let vault = fixture.open(store.clone()).unwrap();
            vault.loss_epoch().unwrap();
            damage_file(&fixture.cache.path().join(name), damage, b"something else");
            assert_whole(world, &vault, a, &format!("{damage:?} {name}"));
        }
    }
}

/// Everything is there, nothing is a problem, nothing is stored again.
fn assert_whole(world: &World, vault: &Vault, source: &[(String, Vec<u8>)], case: &str) {
    let reader = vault.reader().unwrap();
    for file in &world.files {
        let bytes = read_one(vault, &reader, file).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(bytes == file.bytes, "{case}: wrong bytes");
    }
    assert_eq!(lines(&check(vault).problems), "", "{case}");
    assert_eq!(back_up(vault, &borrowed(source)).unwrap().1.new_chunks, 0, "{case}");
    vault.stats().unwrap();
}

#[test]
fn a_pack_that_goes_with_the_index_counts_as_a_loss() {
    let world = world();
    let (fixture, store) = (world.owner.copy(), Arc::new(world.store.clone()));
    let before = fixture.open(store.clone()).unwrap().loss_epoch().unwrap();
    for path in cached(&fixture)
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "run"))
    {
        std::fs::remove_file(path).unwrap();
    }
    runtime().block_on(store.delete(&world.data_pack)).unwrap();
    let after = fixture.open(store.clone()).unwrap().loss_epoch().unwrap();
    assert!(after > before, "the file cache would trust what is gone");
    assert_eq!(fixture.open(store).unwrap().loss_epoch().unwrap(), after);
}

#[test]
fn what_one_run_finds_damaged_another_does_not_forget() {
    let world = world();
    let (fixture, store) = (world.owner.copy(), Arc::new(world.store.clone()));
    let vaults = [0, 1].map(|_| fixture.open(store.clone()).unwrap());
    vaults
        .iter()
        .for_each(|vault| assert!(vault.stats().unwrap().chunks > 0));
    for (vault, name) in vaults.iter().zip([&world.data_pack, &world.meta_pack]) {
        let sound = world.store.contents()[name].clone();
        store.overwrite(name, Bytes::from(vec![0; sound.len()]));
        assert!(files(vault, &world.first).is_err());
        store.overwrite(name, sound);
    }
    let epochs = vaults.each_ref().map(|vault| vault.loss_epoch().unwrap());
    assert!(epochs[1] > epochs[0], "two losses, one epoch: {epochs:?}");
    let vault = fixture.open(store).unwrap();
    assert_eq!(
        (vault.stats().unwrap().damaged_packs, vault.loss_epoch().unwrap()),
        (2, epochs[1])
    );
    scrub(&vault);
    assert_eq!(vault.stats().unwrap().damaged_packs, 0);
}

/// A vault on a real disk, with files damaged under it.
#[test]
fn a_local_place() {
    let world = world();
    for (name, damage) in [
        (&world.data_pack, Damage::Delete),
        (&world.data_pack, Damage::Truncate(50)),
        (&world.data_pack, Damage::FlipAt(50)),
        (&world.data_pack, Damage::Replace),
        (&world.meta_pack, Damage::FlipBack(1)),
        (&Name::header(), Damage::Truncate(0)),
    ] {
        let (dir, fixture) = (tempfile::tempdir().unwrap(), world.owner.copy());
        let local = Arc::new(Local::create(dir.path()).unwrap());
        for (name, bytes) in world.store.contents() {
            runtime().block_on(local.put(&name, bytes)).unwrap();
        }
        let other = &world.store.contents()[&Name::header()];
        damage_file(&dir.path().join(name.as_str()), damage, other);
        let vault = fixture.open(local.clone()).unwrap();
        world.read_all(&vault, name, damage);
        scrub(&vault);
        assert_healed_locally(world, &fixture, local, name, damage);
    }
}

fn assert_healed_locally(world: &World, fixture: &Fixture, local: Arc<Local>, name: &Name, damage: Damage) {
    let vault = fixture.open(local.clone()).unwrap();
    if *name == Name::header() {
        vault.repair_header().unwrap();
    }
    assert_healed(world, &fixture.open(local).unwrap(), name, damage);
}
