//! Index runs that gc leaves behind: what this run knows of all packs, merged and sorted, for machines that read from afar.
//!
//! - Written after the sweep, from the index: whose word for what a pack holds counts there counts here. Metadata and file data apart.
//! - At most four runs of each; a run takes in those that are not much larger, so that each pack is written again few times.
//! - Nothing depends on a run: one that is lost, or names what is gone, costs readers a look at the packs. So a run is removed without
//!   waiting for anybody: once another ledger had replaced it before this gc began, or if no ledger names it for the second time.
//! - The number of a run is even for metadata, odd for file data, and greater than those of all runs before it.
//! - Which packs a run lists is remembered on this machine, so that a gc with little to do reads no run. That is a cache (I4).
//! - Memory: an entry for each pack, and one piece of each kind.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use drystone_format::id::object_hash;
use drystone_format::index_part;
use drystone_format::index_run::{IndexRun, RunChunk, RunPack, Verified};
use drystone_format::ledger::Numbered;
use drystone_format::pack::Preamble;
use drystone_format::seal::PackKind;
use drystone_format::{ChunkId, PackId, RegistrationId, random};
use drystone_index::{Location, PackInfo};
use drystone_store::{Name, Range};

use crate::catalog::index_runs::{Piece, listed, name_of};
use crate::catalog::pack_kind;
use crate::context::Source;
use crate::error::Result;
use crate::gc::run::Run;
use crate::parallel::map;
use crate::roots::ledger::{Change, View};
use crate::vault::Vault;

mod known;

use known::{Held, InForce, Size, decode, encode, merged};

/// A piece is closed at so many bytes of chunks, or at so many with those of its packs.
const PIECE_CHUNK_BYTES: usize = 24 << 20;
const PIECE_BYTES: usize = 56 << 20;
/// Bytes of a chunk, and at most of a pack, in a piece.
const CHUNK_BYTES: usize = 51;
const PACK_BYTES: usize = 300;
/// Bytes read from the end of a pack to find its preamble, which has about 330.
const PREAMBLE_BYTES: u64 = 1024;
/// State key of the objects of the index that no ledger named when they were seen: registration, number, hash, 40 bytes each.
const UNNAMED: &str = "index_unnamed";
/// State key of the packs that the runs in force list ([`Held::encode`]).
const COVERED: &str = "index_covered";

/// What a run lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Meta,
    Data,
}

impl Class {
    const ALL: [Self; 2] = [Self::Meta, Self::Data];

    /// Returns true if packs of this kind hold such chunks.
    fn has(self, kind: PackKind) -> bool {
        kind == PackKind::Mixed || (kind == PackKind::Meta) == (self == Self::Meta)
    }

    fn of_run(number: u64) -> Self {
        if number.is_multiple_of(2) {
            Self::Meta
        } else {
            Self::Data
        }
    }
}

/// The packs of a new run, and the runs that it replaces.
type Plan = (HashMap<PackId, RunPack>, Vec<(RegistrationId, u64)>);

/// A run that is being written, piece by piece.
struct Builder<'a> {
    vault: &'a Vault,
    of: index_part::Numbered,
    class: Class,
    /// What it may list.
    packs: HashMap<PackId, RunPack>,
    piece: IndexRun,
    numbers: HashMap<PackId, u32>,
    written: BTreeSet<Numbered>,
}

impl<'a> Builder<'a> {
    fn new(
        vault: &'a Vault,
        class: Class,
        (registration, number): ([u8; 16], u64),
        packs: HashMap<PackId, RunPack>,
    ) -> Self {
        Self {
            vault,
            of: index_part::Numbered { registration, number },
            class,
            packs,
            piece: IndexRun::default(),
            numbers: HashMap::new(),
            written: BTreeSet::new(),
        }
    }

    /// The run as it is in force now, if there is anything in it.
    fn finish(self) -> Option<((RegistrationId, u64), Held)> {
        let first = self.written.first()?;
        let held = Held {
            pieces: self.written.iter().map(|piece| piece.hash).collect(),
            packs: self.packs.into_keys().collect(),
            is_broken: false,
        };
        Some(((first.registration, first.number), held))
    }

    /// Lists a chunk in those of its packs that belong to the run.
    fn push(&mut self, id: &ChunkId, locations: &[Location], is_meta: bool) -> Result<()> {
        let mut rows = Vec::new();
        for at in locations {
            let Some(pack) = self.packs.get(&at.pack) else { continue };
            if pack.kind == PackKind::Mixed && is_meta != (self.class == Class::Meta) {
                continue;
            }
            let next = self.piece.packs.len() as u32;
            let number = *self.numbers.entry(at.pack).or_insert(next);
            if number == next {
                self.piece.packs.push(pack.clone());
            }
            rows.push(RunChunk {
                id: *id,
                pack: number,
                frame: at.frame,
                frame_offset: at.frame_offset,
                frame_bytes: at.frame_bytes,
                chunk_offset: at.chunk_offset,
                chunk_bytes: at.chunk_bytes,
            });
        }
        rows.sort_unstable_by_key(|row| row.pack);
        self.piece.chunks.extend(rows);
        let chunk_bytes = self.piece.chunks.len() * CHUNK_BYTES;
        let bytes = chunk_bytes + self.piece.packs.len() * PACK_BYTES;
        if chunk_bytes >= PIECE_CHUNK_BYTES || bytes >= PIECE_BYTES {
            self.put()
        } else {
            Ok(())
        }
    }

    /// Stores what is gathered as a piece; durable on return.
    fn put(&mut self) -> Result<()> {
        self.numbers.clear();
        let piece = std::mem::take(&mut self.piece);
        if piece.chunks.is_empty() {
            return Ok(());
        }
        let secrets = &self.vault.secrets;
        let object = piece.seal(secrets, &self.of, &mut Source(&*self.vault.context.entropy))?;
        let writer = &secrets.certificate.writer;
        let numbered = Numbered {
            registration: RegistrationId::derive(&secrets.vault, writer, &self.of.registration),
            number: self.of.number,
            hash: object_hash(&object),
        };
        self.vault.place.put(&name_of(&numbered), Bytes::from(object))?;
        self.written.insert(numbered);
        Ok(())
    }
}

impl Run<'_> {
    /// Brings the index runs in step with the packs that are left, and names them in a ledger. Where every place is near nobody needs any.
    pub(super) fn merge_runs(&mut self) -> Result<()> {
        let vault = self.vault;
        let is_wanted = |view: &View| !view.stated.runs.heads.is_empty() || vault.place.is_slow();
        if self.is_partial || !is_wanted(&vault.ledgers.view()) {
            return Ok(());
        }
        let view = vault.ledgers.refresh()?;
        let in_force = &view.stated.runs.heads;
        let sizes = listed(&vault.place)?;
        let mut runs = self.runs_in_force(in_force, &sizes)?;
        let newest = runs.keys().map(|(_, number)| *number).max();
        let first = newest.map_or(0, |newest| (newest / 2 + 1).saturating_mul(2));
        let nonce = random::array(&mut Source(&*vault.context.entropy));
        let (mut builders, mut replaced) = (Vec::new(), BTreeSet::new());
        for (class, number) in Class::ALL.into_iter().zip(first..) {
            let Some((packs, taken)) = self.plan_run(class, &runs, &sizes)? else {
                continue;
            };
            builders.push(Builder::new(vault, class, (nonce, number), packs));
            for name in taken {
                replaced.extend(runs.remove(&name).iter().flat_map(|run| run.pieces(&name)));
            }
        }
        self.write_runs(&mut builders)?;
        let new: BTreeSet<Numbered> = builders.iter().flat_map(|builder| builder.written.clone()).collect();
        if !new.is_empty() || !replaced.is_empty() {
            vault.put_ledger(&Change {
                runs: new,
                replaced_runs: replaced,
                ..Change::default()
            })?;
            self.has_unshown_ledger |= vault.place.is_stale();
        }
        runs.extend(builders.into_iter().filter_map(Builder::finish));
        vault.state().set(COVERED, &encode(&runs))?;
        self.drop_runs(&view.stated.runs.superseded, sizes.keys().copied())
    }

    /// The runs in force with the packs that they list, as far as this machine does not remember them as their pieces say.
    fn runs_in_force(&self, in_force: &BTreeSet<Numbered>, sizes: &HashMap<Numbered, u64>) -> Result<InForce> {
        let mut runs = InForce::new();
        for piece in in_force {
            let run = runs.entry((piece.registration, piece.number)).or_default();
            run.pieces.insert(piece.hash);
            run.is_broken |= !sizes.contains_key(piece);
        }
        let known = decode(&self.vault.state().get(COVERED)?.unwrap_or_default());
        for (name, run) in runs.iter_mut().filter(|(_, run)| !run.is_broken) {
            match known.get(name).filter(|known| known.pieces == run.pieces) {
                Some(known) => run.packs.clone_from(&known.packs),
                None => match self.listed_keys(&run.pieces(name), sizes)? {
                    Some(packs) => run.packs.extend(packs.into_keys()),
                    None => run.is_broken = true,
                },
            }
        }
        Ok(runs)
    }

    /// What these pieces say of packs; `None` if one of them cannot be read.
    fn listed_keys(
        &self,
        pieces: &[Numbered],
        sizes: &HashMap<Numbered, u64>,
    ) -> Result<Option<HashMap<PackId, RunPack>>> {
        let (place, secrets) = (&self.vault.place, &self.vault.secrets);
        let packs = map(place.parallel(self.vault.context.threads), pieces, &|piece| {
            let Some(bytes) = sizes.get(piece) else { return Ok(None) };
            let opened = Piece::open(place, secrets, piece, *bytes);
            match opened.and_then(|piece| piece.all_packs()) {
                Err(error) if error.is_damage() => Ok(None),
                packs => Ok(Some(packs?)),
            }
        })?;
        let all: Option<Vec<Vec<RunPack>>> = packs.into_iter().collect();
        Ok(all.map(|all| all.into_iter().flatten().map(|pack| (pack.id, pack)).collect()))
    }

    /// The packs of a new run of this class, and the runs that it replaces; `None` if none is needed.
    fn plan_run(&self, class: Class, runs: &InForce, sizes: &HashMap<Numbered, u64>) -> Result<Option<Plan>> {
        let is_meant = |pack: &PackInfo| pack_kind(pack).is_some_and(|kind| class.has(kind));
        let there = self.catalog.index.packs()?.into_iter();
        let there = there.filter(|pack| is_meant(pack) && !self.catalog.is_condemned(&pack.pack));
        let there: HashMap<PackId, PackInfo> = there.map(|pack| (pack.pack, pack)).collect();
        let of_class = runs.iter().filter(|((_, number), _)| Class::of_run(*number) == class);
        let (broken, whole): (Vec<_>, Vec<_>) = of_class.partition(|(_, run)| run.is_broken);
        let listed: HashSet<&PackId> = whole.iter().flat_map(|(_, run)| &run.packs).collect();
        let new = there.keys().filter(|pack| !listed.contains(pack));
        let mut packs: HashSet<PackId> = new.copied().collect();
        // What was copied out of packs that are gone is looked for where it was.
        let is_due = !broken.is_empty() || !whole.is_empty() && self.report.rewritten_packs > 0;
        let worth = if is_due { 1 } else { self.options.index_from_packs };
        let all: Vec<Size> = whole.iter().map(|(_, run)| run.size(&there)).collect();
        let merged = merged(&all, packs.len(), worth);
        if merged.is_none() && broken.is_empty() {
            return Ok(None);
        }
        let taken = merged.iter().flatten().filter_map(|at| whole.get(*at));
        let (mut keys, mut replaced) = (HashMap::new(), Vec::new());
        for (name, run) in taken {
            packs.extend(run.packs.iter().filter(|pack| there.contains_key(*pack)));
            keys.extend(self.listed_keys(&run.pieces(name), sizes)?.unwrap_or_default());
            replaced.push(**name);
        }
        replaced.extend(broken.iter().map(|(name, _)| **name));
        keys.retain(|pack, _| packs.contains(pack));
        let unknown = packs.iter().filter(|pack| !keys.contains_key(*pack));
        let unknown: Vec<PackInfo> = unknown.filter_map(|pack| there.get(pack)).copied().collect();
        keys.extend(self.read_keys(&unknown)?);
        Ok(Some((keys, replaced)))
    }

    /// What opens these packs, as their ends say. One that says another than the index is left out: readers find out what is wrong with it.
    fn read_keys(&self, packs: &[PackInfo]) -> Result<HashMap<PackId, RunPack>> {
        let place = &self.vault.place;
        let read = map(place.small_reads(self.vault.context.threads), packs, &|info| {
            self.options.cancel.check()?;
            let name = Name::pack(&info.pack);
            let end = match place.get(&name, Range::Last(PREAMBLE_BYTES)) {
                Err(error) if error.is_damage() => return Ok(None),
                end => end?,
            };
            let preamble = Preamble::from_end(&end).ok();
            let is_same = |preamble: &Preamble| {
                preamble.certificate.writer.0 == info.writer && Some(preamble.kind) == pack_kind(info)
            };
            let verified = if self.catalog.is_vouched_for(&info.pack) {
                Verified::Yes
            } else {
                Verified::No
            };
            let preamble = preamble.filter(is_same);
            Ok(preamble.map(|preamble| RunPack::of_preamble(info.pack, info.pack_bytes, &preamble, verified)))
        })?;
        Ok(read.into_iter().flatten().map(|pack| (pack.id, pack)).collect())
    }

    /// Goes through the index once and writes all runs that are planned.
    fn write_runs(&self, builders: &mut [Builder<'_>]) -> Result<()> {
        if builders.iter().all(|builder| builder.packs.is_empty()) {
            return Ok(());
        }
        let mut outcome = Ok(());
        self.sweep().scan(&mut |id, locations| {
            let is_meta = self.marker.meta.contains_chunk(id);
            let mut all = builders.iter_mut();
            outcome = all.try_for_each(|builder| builder.push(id, locations, is_meta));
            match outcome {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        outcome?;
        builders.iter_mut().try_for_each(Builder::put)
    }

    /// Removes objects of the index that were replaced before this gc began, and those that no ledger names for the second time.
    fn drop_runs(&self, replaced: &BTreeSet<Numbered>, there: impl Iterator<Item = Numbered>) -> Result<()> {
        let (vault, view) = (self.vault, self.vault.ledgers.view());
        let runs = &view.stated.runs;
        let seen_before = vault.state().get(UNNAMED)?.unwrap_or_default();
        let seen_before: HashSet<&[u8]> = seen_before.chunks(40).collect();
        let mut unnamed = Vec::new();
        for piece in there {
            let is_named = runs.heads.contains(&piece) || runs.superseded.contains(&piece);
            let row = [&piece.registration.0[..], &piece.number.to_be_bytes(), &piece.hash.0].concat();
            if replaced.contains(&piece) || !is_named && seen_before.contains(row.as_slice()) {
                vault.place.delete(&name_of(&piece))?;
            } else if !is_named {
                unnamed.extend(row);
            }
        }
        Ok(vault.state().set(UNNAMED, &unnamed)?)
    }
}
