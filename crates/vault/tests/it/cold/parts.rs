//! Index parts: what owners' roots say of packs spares reading them, and nobody's part changes what a pack holds.

use std::collections::BTreeSet;
use std::time::Duration;

use drystone_format::index_part::PackTail;
use drystone_format::keys::{Role, Secrets};
use drystone_format::pack::SealedPack;
use drystone_format::recipe::Recipe;
use drystone_format::{ChunkId, PackId};
use drystone_store::{Name, Op};
use drystone_vault::Vault;

use super::{Far, far, honest_pack, part_of, put_pack, put_root, root_with, small_pack};
use crate::support::{add_key, back_up, check, files, index_of, lines, noise, scrub, secrets, snapshot};

/// Packs of a vault: enough for parts to be looked for.
const PACKS: u64 = 80;
/// Packs that a root lists.
const EACH: usize = 4;

struct Scene {
    far: Far,
    vault: Vault,
    owner: Secrets,
    packs: Vec<SealedPack>,
    chunks: Vec<ChunkId>,
    roots: Vec<Name>,
}

/// An owner's roots with their parts, and the packs that these list. Of the last root there are only the packs: its part is for the
/// test to make.
fn scene() -> Scene {
    let (far, vault) = far(Duration::ZERO);
    let owner = far.secrets();
    let (packs, chunks): (Vec<_>, Vec<_>) = (0..PACKS).map(|seed| honest_pack(&vault, &owner, seed)).unzip();
    packs.iter().for_each(|pack| put_pack(&far, pack));
    let mut scene = Scene {
        far,
        vault,
        owner,
        packs,
        chunks,
        roots: Vec::new(),
    };
    let groups: Vec<Vec<PackTail>> = scene
        .packs
        .chunks(EACH)
        .map(|packs| packs.iter().map(PackTail::of).collect())
        .collect();
    for (at, tails) in (0..).zip(&groups[..groups.len() - 1]) {
        let nonce = [at; 16];
        let part = part_of(&scene.owner, nonce, tails.clone());
        scene.publish(&scene.owner.clone(), nonce, Some(&part));
    }
    scene
}

impl Scene {
    fn publish(&mut self, signer: &Secrets, nonce: [u8; 16], part: Option<&[u8]>) {
        let payload = snapshot(Recipe::default()).encode();
        let name = put_root(&self.far, root_with(signer, nonce, &payload, part));
        self.roots.push(name);
    }

    /// The packs that the part of the last root should list.
    fn last(&self) -> &[SealedPack] {
        &self.packs[self.packs.len() - EACH..]
    }

    fn last_tails(&self) -> Vec<PackTail> {
        self.last().iter().map(PackTail::of).collect()
    }

    /// Opens it on a new machine; returns the packs that were asked for, each once.
    fn cold(&self) -> (Vault, BTreeSet<String>) {
        let vault = self.far.open(&self.far.fixture.elsewhere());
        self.far.store.take();
        vault.loss_epoch().unwrap();
        let calls = self.far.store.take();
        let asked = calls
            .iter()
            .filter(|call| call.op == Op::Get && call.name.starts_with("packs/"));
        let asked: Vec<String> = asked.map(|call| call.name.clone()).collect();
        let distinct: BTreeSet<String> = asked.iter().cloned().collect();
        assert_eq!(asked.len(), distinct.len(), "none is asked for twice");
        (vault, distinct)
    }

    /// Every chunk is found, in the pack that holds it.
    fn assert_found(&self, vault: &Vault) {
        let index = index_of(vault);
        for (pack, chunk) in self.packs.iter().zip(&self.chunks) {
            assert_eq!(index.get(chunk).unwrap().unwrap().pack, pack.id);
            assert!(vault.contains(chunk).unwrap());
        }
        assert_eq!(index.stats().chunks, PACKS * 60);
        let report = check(vault);
        assert_eq!(lines(&report.problems), "");
    }

    fn names(&self, packs: &[SealedPack]) -> BTreeSet<String> {
        packs.iter().map(|pack| Name::pack(&pack.id).to_string()).collect()
    }
}

#[test]
fn packs_that_an_owner_lists_are_not_asked() {
    let mut scene = scene();
    let part = part_of(&scene.owner, [99; 16], scene.last_tails());
    let owner = scene.owner.clone();
    scene.publish(&owner, [99; 16], Some(&part));
    let (vault, asked) = scene.cold();
    assert!(asked.is_empty(), "{asked:?}");
    scene.assert_found(&vault);
    let near = drystone_vault::Vault::open(
        scene.far.objects.clone() as std::sync::Arc<dyn drystone_store::Store>,
        scene.far.fixture.elsewhere().context(),
        &scene.far.fixture.unlock(),
    );
    let (near, far) = (near.unwrap(), vault);
    let sorted = |vault: &Vault| {
        let mut packs = index_of(vault).packs();
        packs.sort_unstable_by_key(|pack| pack.pack);
        packs
    };
    assert_eq!(sorted(&near), sorted(&far), "the same as what the packs themselves say");
}

#[test]
fn packs_that_no_part_lists_are_asked_and_no_others() {
    let scene = scene();
    let (vault, asked) = scene.cold();
    assert_eq!(asked, scene.names(scene.last()));
    scene.assert_found(&vault);
}

/// What a writer says of anybody's packs costs nothing and spares nothing.
#[test]
fn a_writers_part_is_passed_over() {
    let mut scene = scene();
    let fixture = add_key(&scene.vault, Role::Writer);
    let writer = secrets(&fixture, &scene.far.objects);
    // A pack of the writer with one chunk, and a tail of the same length that claims another: what is to come, and dear to others.
    let (mine, claimed) = (noise(5000, 1000), scene.vault.hasher().id(&noise(6000, 1000)));
    let id = scene.vault.hasher().id(&mine);
    let held = small_pack(&writer, &[(id, mine.clone())]);
    let lie = small_pack(&writer, &[(claimed, mine.clone())]);
    assert_eq!(held.bytes.len(), lie.bytes.len());
    put_pack(&scene.far, &held);
    let lying = PackTail {
        id: held.id,
        ..PackTail::of(&lie)
    };
    // Of an owner's packs too, in the writer's own name and with the owner's own tails.
    let stolen = scene.last_tails();
    let emptied = small_pack(&writer, &[]);
    let about_owner = PackTail {
        id: scene.packs[0].id,
        bytes: scene.packs[0].bytes.len() as u64,
        tail: emptied.tail().to_vec(),
    };
    let part = part_of(&writer, [98; 16], stolen.into_iter().chain([lying, about_owner]));
    scene.publish(&writer, [98; 16], Some(&part));
    let (vault, asked) = scene.cold();
    let mut expected = scene.names(scene.last());
    expected.extend(scene.names(std::slice::from_ref(&held)));
    assert_eq!(asked, expected);
    let index = index_of(&vault);
    assert_eq!(index.get(&claimed).unwrap(), None);
    assert_eq!(index.get(&id).unwrap().unwrap().pack, held.id);
    assert_eq!(&vault.reader().unwrap().chunk(&id).unwrap()[..], mine);
    // An owner's scrub vouches for what the pack holds, and for nothing else.
    scrub(&vault);
    assert!(vault.contains(&id).unwrap() && !vault.contains(&claimed).unwrap());
}

#[test]
fn where_two_parts_differ_the_packs_own_end_decides() {
    let mut scene = scene();
    let (one, other) = (&scene.packs[0], &scene.packs[1]);
    assert_eq!(one.bytes.len(), other.bytes.len());
    // The tail of one pack under the id of another of the same length, signed by the owner both times.
    let swapped = PackTail {
        id: one.id,
        ..PackTail::of(other)
    };
    let owner = scene.owner.clone();
    let part = part_of(&owner, [97; 16], scene.last_tails().into_iter().chain([swapped]));
    scene.publish(&owner, [97; 16], Some(&part));
    let (vault, asked) = scene.cold();
    assert_eq!(asked, scene.names(&scene.packs[..1]));
    scene.assert_found(&vault);
}

#[test]
fn what_is_wrong_with_a_part_costs_reading_the_ends_of_its_packs() {
    type Spoil = fn(&mut Scene) -> Option<Vec<u8>>;
    let spoils: [(&str, Spoil); 6] = [
        ("no part", |_| None),
        ("no part at all", |_| Some(vec![0xa0; 3000])),
        ("of another root", |scene| {
            Some(part_of(&scene.owner, [1; 16], scene.last_tails()))
        }),
        ("cut short", |scene| {
            let mut part = part_of(&scene.owner, [99; 16], scene.last_tails());
            part.truncate(part.len() - 1);
            Some(part)
        }),
        ("of another length", |scene| {
            let longer = |tail: PackTail| PackTail {
                bytes: tail.bytes + 1,
                ..tail
            };
            Some(part_of(
                &scene.owner,
                [99; 16],
                scene.last_tails().into_iter().map(longer),
            ))
        }),
        ("altered tails", |scene| {
            let altered = |mut tail: PackTail| {
                tail.tail[10] ^= 1;
                tail
            };
            Some(part_of(
                &scene.owner,
                [99; 16],
                scene.last_tails().into_iter().map(altered),
            ))
        }),
    ];
    for (what, spoil) in spoils {
        let mut scene = scene();
        let part = spoil(&mut scene);
        let owner = scene.owner.clone();
        scene.publish(&owner, [99; 16], part.as_deref());
        let (vault, asked) = scene.cold();
        assert_eq!(asked, scene.names(scene.last()), "{what}");
        scene.assert_found(&vault);
    }
}

#[test]
fn roots_that_are_damaged_gone_or_hidden_cost_the_same() {
    let scene = scene();
    let objects = &scene.far.objects;
    let (gone, damaged) = (&scene.roots[0], &scene.roots[1]);
    objects.remove(gone);
    let mut bytes = objects.contents()[damaged].to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    objects.overwrite(damaged, bytes.into());
    let (vault, asked) = scene.cold();
    let mut expected = scene.names(scene.last());
    expected.extend(scene.names(&scene.packs[..2 * EACH]));
    assert_eq!(asked, expected);
    let index = index_of(&vault);
    assert!(scene.chunks.iter().all(|chunk| index.get(chunk).unwrap().is_some()));
}

#[test]
fn packs_that_are_gone_or_cut_short_are_not_there_whatever_a_part_says() {
    let scene = scene();
    let objects = &scene.far.objects;
    let names: Vec<Name> = scene.packs.iter().map(|pack| Name::pack(&pack.id)).collect();
    objects.remove(&names[0]);
    let bytes = objects.contents()[&names[1]].clone();
    objects.overwrite(&names[1], bytes.slice(..bytes.len() - 1));
    let (vault, asked) = scene.cold();
    assert!(asked.contains(names[1].as_str()) && !asked.contains(names[0].as_str()));
    let index = index_of(&vault);
    assert_eq!(index.get(&scene.chunks[0]).unwrap(), None);
    assert_eq!(index.get(&scene.chunks[1]).unwrap(), None);
    assert!(lines(&check(&vault).harmless).contains(names[1].as_str()));
}

#[test]
fn no_more_roots_are_read_than_packs_are_unknown() {
    let mut scene = scene();
    let fixture = add_key(&scene.vault, Role::Writer);
    let writer = secrets(&fixture, &scene.far.objects);
    let filler = part_of(&writer, [0; 16], scene.last_tails());
    for number in 0..3 * PACKS {
        let mut nonce = [200; 16];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        scene.publish(&writer, nonce, Some(&filler));
    }
    let vault = scene.far.open(&scene.far.fixture.elsewhere());
    scene.far.store.take();
    vault.loss_epoch().unwrap();
    let calls = scene.far.store.take();
    let count = |of: &str| {
        calls
            .iter()
            .filter(|call| call.op == Op::Get && call.name.starts_with(of))
            .count()
    };
    assert!(count("roots/") <= PACKS as usize, "{}", count("roots/"));
    assert!(count("packs/") <= PACKS as usize);
    scene.assert_found(&vault);
}

#[test]
fn few_new_packs_are_asked_and_many_are_taken_from_the_roots_that_are_new() {
    let mut scene = scene();
    let machine = scene.far.fixture.elsewhere();
    scene.far.open(&machine).loss_epoch().unwrap();
    let more: Vec<(SealedPack, ChunkId)> = (PACKS..PACKS + 70)
        .map(|seed| honest_pack(&scene.vault, &scene.owner, seed))
        .collect();
    more.iter().for_each(|(pack, _)| put_pack(&scene.far, pack));
    let owner = scene.owner.clone();
    let part = part_of(&owner, [99; 16], more.iter().map(|(pack, _)| PackTail::of(pack)));
    scene.publish(&owner, [99; 16], Some(&part));
    let vault = scene.far.open(&machine);
    scene.far.store.take();
    vault.loss_epoch().unwrap();
    let calls = scene.far.store.take();
    let gets: Vec<&str> = calls
        .iter()
        .filter(|call| call.op == Op::Get)
        .map(|call| call.name.as_str())
        .collect();
    assert_eq!(gets, [scene.roots.last().unwrap().as_str()]);
    // A few more are asked at once.
    let (pack, chunk) = honest_pack(&scene.vault, &scene.owner, 500);
    put_pack(&scene.far, &pack);
    let vault = scene.far.open(&machine);
    scene.far.store.take();
    assert!(vault.contains(&chunk).unwrap());
    assert_eq!(scene.far.gets(""), 1);
}

#[test]
fn a_lost_index_is_made_anew_from_the_same_roots_and_repair_asks_every_pack() {
    let scene = scene();
    let machine = scene.far.fixture.elsewhere();
    let vault = scene.far.open(&machine);
    vault.loss_epoch().unwrap();
    drop(vault);
    let local = machine.cache.path().join(scene.vault.id().to_string());
    std::fs::remove_dir_all(local.join("index")).unwrap();
    let vault = scene.far.open(&machine);
    scene.far.store.take();
    scene.assert_found(&vault);
    assert_eq!(scene.far.gets("packs/"), EACH);
    // And with all else that is local.
    drop(vault);
    std::fs::remove_dir_all(&local).unwrap();
    let vault = scene.far.open(&machine);
    scene.assert_found(&vault);
    scene.far.store.take();
    let report = vault.repair_index().unwrap();
    assert_eq!(report.packs, PACKS);
    assert_eq!(scene.far.gets("packs/"), PACKS as usize);
}

#[test]
fn a_snapshot_is_read_whose_packs_were_never_asked() {
    let (far, vault) = far(Duration::ZERO);
    let store = |seed: u64| back_up(&vault, &[("file", &noise(seed, 3_000))]).unwrap().0;
    let ids: Vec<_> = (1..=66).map(store).collect();
    let vault = far.open(&far.fixture.elsewhere());
    far.store.take();
    vault.loss_epoch().unwrap();
    assert_eq!(far.gets("packs/"), 0);
    for (seed, id) in (1..).zip(&ids) {
        assert_eq!(files(&vault, id).unwrap(), [("file".to_owned(), noise(seed, 3_000))]);
    }
    let packs: BTreeSet<PackId> = index_of(&vault).packs().iter().map(|pack| pack.pack).collect();
    assert_eq!(packs.len(), ids.len());
}
