//! Opening over a network: what is read, how often, by how many at once, and that no shortcut changes what is true.

mod figures;
mod parts;
mod roots;
mod runs;

use std::sync::Arc;
use std::time::Duration;

use drystone_format::index_part::{IndexPart, Numbered, PackTail, seal_part};
use drystone_format::keys::Secrets;
use drystone_format::limits::FORMAT_VERSION;
use drystone_format::pack::{PackBuilder, PackOptions, PackedChunk, SealedPack};
use drystone_format::presence::Seen;
use drystone_format::root::{NewRoot, RootKind, RootName, RootState, root_name, seal_root};
use drystone_format::seal::{Compressed, PackKind, Suite};
use drystone_format::{ChunkId, codec};
use drystone_store::{Delay, Memory, Name, Op, Record};
use drystone_vault::Vault;

use crate::support::{Fixture, noise, random, secrets};

/// A place in memory behind a network: each call takes a round trip, and is recorded.
struct Far {
    fixture: Fixture,
    objects: Arc<Memory>,
    store: Arc<Record>,
}

/// A new vault that far away.
fn far(round_trip: Duration) -> (Far, Vault) {
    let (fixture, objects) = (Fixture::new(), Arc::new(Memory::new()));
    let store = Arc::new(Record::new(Arc::new(Delay::new(objects.clone(), round_trip))));
    let vault = fixture.create(store.clone()).unwrap();
    let far = Far {
        fixture,
        objects,
        store,
    };
    (far, vault)
}

impl Far {
    /// Another process of the same machine.
    fn again(&self) -> Vault {
        self.open(&self.fixture)
    }

    fn open(&self, machine: &Fixture) -> Vault {
        machine.open(self.store.clone()).unwrap()
    }

    fn secrets(&self) -> Secrets {
        secrets(&self.fixture, &self.objects)
    }

    /// How many objects were read whose names begin so since the last look.
    fn gets(&self, of: &str) -> usize {
        let calls = self.store.take();
        let meant = calls
            .iter()
            .filter(|call| call.op == Op::Get && call.name.starts_with(of));
        meant.count()
    }
}

/// A pack of these chunks, small and not padded; what it claims of them need not be so.
fn small_pack(secrets: &Secrets, chunks: &[(ChunkId, Vec<u8>)]) -> SealedPack {
    let options = PackOptions {
        kind: PackKind::Data,
        suite: Suite::ChaCha20Poly1305,
        registration: [7; 16],
        number: 0,
        capacity_bytes: 0,
    };
    let mut pack = PackBuilder::new(secrets, &options, &mut random()).unwrap();
    let mut compressor = codec::Compressor::new(codec::Compression::DEFAULT).unwrap();
    let plaintext: Vec<u8> = chunks.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let listed = chunks.iter().map(|(id, bytes)| PackedChunk {
        id: *id,
        bytes: bytes.len() as u32,
    });
    let frame = Compressed::new(&mut compressor, &plaintext).unwrap();
    pack.push(&frame, listed.collect()).unwrap();
    pack.finish_unpadded(secrets).unwrap()
}

/// A pack with one chunk that is what it says, different for each seed; and the chunk.
fn honest_pack(vault: &Vault, secrets: &Secrets, seed: u64) -> (SealedPack, ChunkId) {
    // Long enough for the root that lists its tail to be taken for one that carries a part.
    let chunks: Vec<(ChunkId, Vec<u8>)> = (0..60)
        .map(|at| noise(seed * 100 + at, 20))
        .map(|bytes| (vault.hasher().id(&bytes), bytes))
        .collect();
    (small_pack(secrets, &chunks), chunks[0].0)
}

/// A root by hand, alone in its registration, that carries a part.
fn root_with(secrets: &Secrets, nonce: [u8; 16], payload: &[u8], part: Option<&[u8]>) -> (RootName, Vec<u8>) {
    root_of_kind(RootKind::SNAPSHOT, secrets, nonce, (payload, part))
}

fn root_of_kind(
    kind: RootKind,
    secrets: &Secrets,
    nonce: [u8; 16],
    (payload, part): (&[u8], Option<&[u8]>),
) -> (RootName, Vec<u8>) {
    let none = Seen::new();
    let root = NewRoot {
        kind,
        nonce,
        number: 0,
        previous: None,
        state: RootState::Last,
        epochs: &none,
        ledgers: &none,
        packs: 0,
        payload,
        index_part: part,
    };
    let object = seal_root(secrets, &root, &mut random()).unwrap();
    (root_name(secrets, &root, &object), object)
}

/// The part of the only root of a registration that lists these tails.
fn part_of(secrets: &Secrets, nonce: [u8; 16], tails: impl IntoIterator<Item = PackTail>) -> Vec<u8> {
    let of = Numbered {
        registration: nonce,
        number: 0,
    };
    let mut part = IndexPart::default();
    tails.into_iter().for_each(|tail| part.insert(tail));
    seal_part(secrets, FORMAT_VERSION, &of, &part, &mut random()).unwrap()
}

fn put_root(far: &Far, (name, object): (RootName, Vec<u8>)) -> Name {
    let name = Name::root(&name);
    far.objects.overwrite(&name, object.into());
    name
}

fn put_pack(far: &Far, pack: &SealedPack) {
    far.objects.overwrite(&Name::pack(&pack.id), pack.bytes.clone().into());
}
