//! Reading ranges of packs from shards, wherever they lie.
//!
//! - What is not needed to answer is not read: a range of one column is one request, a lost one exactly k.
//! - Whatever fails on the way is passed on, so that the last error can tell everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use drystone_format::PackId;
use drystone_format::shard::{FOOTER_BYTES, Piece, Shape, open_footer};

use super::core::Core;
use super::gather::{Asked, Attempt, all, gather};
use super::place::{Ease, Failure, KnownPlace};
use super::whereabouts::Source;
use crate::erasure::Coder;
use crate::{Error, Name, Range, Result, ShardId};

/// A range of one column, and where the shards lie.
#[derive(Clone)]
struct Part {
    shape: Shape,
    piece: Piece,
    sources: Arc<[Source]>,
}

impl Core {
    /// Where the shards of a pack should lie.
    pub(super) fn expected(&self, pack: &PackId) -> Arc<[Source]> {
        let homes = self.placement.homes(pack);
        let source = |(number, place)| Source {
            number,
            places: vec![place],
        };
        let mut sources: Vec<Source> = (0..=u8::MAX).zip(homes).map(source).collect();
        self.leave_forged_out(pack, self.needed, &mut sources);
        sources.into()
    }

    /// This range of a pack from its shards.
    pub(super) async fn read(self: &Arc<Self>, shape: Shape, range: Range, sources: Arc<[Source]>) -> Asked<Bytes> {
        let name = Name::pack(&shape.pack());
        let refused = |error| vec![Failure { position: 0, error }];
        let (offset, len) = range.resolve(&name, &self.label, shape.pack_bytes()).map_err(refused)?;
        let Ok(pieces) = shape.split(offset..offset + len as u64) else {
            return Ok(Bytes::new());
        };
        let part = |piece| Part {
            shape,
            piece,
            sources: Arc::clone(&sources),
        };
        if let [piece] = &*pieces {
            return Ok(self.read_part(part(*piece)).await?.into());
        }
        if len as u64 == shape.pack_bytes() && len > 0 {
            return self.read_whole_pack(shape, sources).await;
        }
        let reads = pieces.into_iter().map(|piece| {
            let core = Arc::clone(self);
            let part = part(piece);
            async move { core.read_part(part).await }
        });
        let mut bytes = Vec::with_capacity(len);
        let parts = all(reads).await.ok_or_else(|| refused(self.ending()))?;
        for part in parts {
            bytes.extend_from_slice(&part?);
        }
        Ok(bytes.into())
    }

    /// A range of one column: from its shard, or put together from others if that is lost, late or damaged.
    async fn read_part(self: &Arc<Self>, part: Part) -> Asked<Vec<u8>> {
        let patience = self.patience(part.piece.bytes);
        let own = part.sources.iter().find(|source| source.number == part.piece.number);
        let place = own.and_then(|source| self.place(*source.places.first()?));
        let ease = place.map_or(Ease::Absent, |place| place.ease());
        let mut attempts = vec![Attempt::new(None, Arc::clone(self).rebuild(part.clone()))];
        // Of copies the best is taken anyway.
        if let Some(own) = own
            && part.shape.needed() > 1
        {
            let at = usize::from(ease > Ease::Ready);
            let (core, own) = (Arc::clone(self), own.clone());
            attempts.insert(at, Attempt::new(place, async move { core.fetch(&part, &own).await }));
        }
        let mut gathered = gather(1, attempts, patience).await;
        let part = gathered
            .good
            .pop()
            .ok_or_else(|| std::mem::take(&mut gathered.failed))?;
        self.note_failed(&gathered.failed);
        Ok(part)
    }

    /// A range of a column, without the shard that it is read from first.
    pub(super) async fn from_others(
        self: &Arc<Self>,
        shape: Shape,
        piece: Piece,
        sources: &Arc<[Source]>,
    ) -> Asked<Vec<u8>> {
        let order = |source: &&Source| {
            let place = source.places.first().and_then(|place| self.place(*place));
            (place.map(|place| place.read_order()), source.number)
        };
        let excluded = if shape.needed() > 1 {
            Some(piece.number)
        } else {
            sources.iter().min_by_key(order).map(|source| source.number)
        };
        let sources = Arc::clone(sources);
        Arc::clone(self)
            .rebuild_without(Part { shape, piece, sources }, excluded)
            .await
    }

    /// The range of a column from the same range of k others.
    async fn rebuild(self: Arc<Self>, part: Part) -> Asked<Vec<u8>> {
        let excluded = (part.shape.needed() > 1).then_some(part.piece.number);
        self.rebuild_without(part, excluded).await
    }

    async fn rebuild_without(self: Arc<Self>, part: Part, excluded: Option<u8>) -> Asked<Vec<u8>> {
        let (needed, piece) = (part.shape.needed(), part.piece);
        let rows = self.rows(part, excluded).await?;
        let have: Vec<(u8, &[u8])> = rows.iter().map(|(number, row)| (*number, &**row)).collect();
        let rebuilt = Coder::new(needed).rebuild(&have, &[piece.number]);
        let row = rebuilt.and_then(|mut rows| rows.pop());
        row.filter(|row| row.len() as u64 == piece.bytes).ok_or_else(Vec::new)
    }

    /// A whole pack from any k shards, the best first.
    async fn read_whole_pack(self: &Arc<Self>, shape: Shape, sources: Arc<[Source]>) -> Asked<Bytes> {
        let column = Piece {
            number: 0,
            start: 0,
            bytes: shape.column_bytes(),
        };
        let part = Part {
            shape,
            piece: column,
            sources,
        };
        let rows: BTreeMap<u8, Vec<u8>> = self.rows(part, None).await?.into_iter().collect();
        let missing: Vec<u8> = (0..shape.needed())
            .filter(|number| !rows.contains_key(number))
            .collect();
        let have: Vec<(u8, &[u8])> = rows.iter().map(|(number, row)| (*number, &**row)).collect();
        let rebuilt = Coder::new(shape.needed()).rebuild(&have, &missing).unwrap_or_default();
        let rebuilt: BTreeMap<u8, Vec<u8>> = missing.into_iter().zip(rebuilt).collect();
        let mut pack = Vec::with_capacity(shape.pack_bytes() as usize);
        for number in 0..shape.needed() {
            let row = rows
                .get(&number)
                .or_else(|| rebuilt.get(&number))
                .ok_or_else(Vec::new)?;
            pack.extend_from_slice(row.get(..shape.payload_bytes(number) as usize).ok_or_else(Vec::new)?);
        }
        Ok(pack.into())
    }

    /// The same range of k shards, of which none is `excluded`.
    async fn rows(self: &Arc<Self>, part: Part, excluded: Option<u8>) -> Asked<Vec<(u8, Vec<u8>)>> {
        let Part { shape, piece, sources } = &part;
        let may_help = |number: &u8| Some(*number) != excluded;
        // Data shards that end before the range hold zeros there.
        let is_zero = |number: &u8| shape.blocks(*number, piece.start, piece.bytes).payload_bytes() == 0;
        let zeros = (0..shape.needed()).filter(|number| may_help(number) && is_zero(number));
        let mut rows: Vec<(u8, Vec<u8>)> = zeros.map(|number| (number, Vec::new())).collect();
        let mut asked: Vec<(_, &Source, &Arc<KnownPlace>)> = Vec::new();
        for source in sources
            .iter()
            .filter(|source| may_help(&source.number) && !is_zero(&source.number))
        {
            if let Some(place) = source.places.first().and_then(|place| self.place(*place)) {
                asked.push(((place.read_order(), source.number), source, place));
            }
        }
        asked.sort_by_key(|(order, ..)| *order);
        let attempt = |(_, source, place): (_, &Source, &Arc<KnownPlace>)| {
            let (core, part, source) = (Arc::clone(self), part.clone(), source.clone());
            Attempt::new(Some(place), async move {
                core.fetch(&part, &source).await.map(|row| (source.number, row))
            })
        };
        let attempts = asked.into_iter().map(attempt).collect();
        let missing = usize::from(shape.needed()).saturating_sub(rows.len());
        let gathered = gather(missing, attempts, self.patience(piece.bytes)).await;
        if gathered.good.len() < missing {
            return Err(gathered.failed);
        }
        self.note_failed(&gathered.failed);
        rows.extend(gathered.good);
        Ok(rows)
    }

    /// The range of a part's column from a shard, which need not be its own.
    ///
    /// What does not fit is noted once enough others do: the length of the pack may be what is wrong.
    async fn fetch(&self, part: &Part, source: &Source) -> Asked<Vec<u8>> {
        let Part { shape, piece, .. } = part;
        let blocks = shape.blocks(source.number, piece.start, piece.bytes);
        let name = shard_name(shape, source.number);
        let (offset, len) = (blocks.offset(), blocks.sealed_bytes());
        let mut failures = Vec::new();
        for place in source.places.iter().filter_map(|place| self.place(*place)) {
            let outcome = place.get(&name, Range::From { offset, len }).await;
            let mut row = Vec::new();
            match outcome.map(|sealed| blocks.open(&self.keys, &sealed, &mut row)) {
                Ok(Ok(())) => return Ok(row),
                Ok(Err(what)) => failures.push(place.failure(place.unsound(&name, &what))),
                Err(what @ Error::Short { .. }) => failures.push(place.failure(place.unsound(&name, &what))),
                Err(error) => failures.push(place.failure(error)),
            }
        }
        Err(failures)
    }

    /// The shape that the first footer vouches for.
    pub(super) async fn footer(self: &Arc<Self>, pack: PackId, needed: u8, sources: &[Source]) -> Asked<Shape> {
        let mut asked: Vec<(&Arc<KnownPlace>, u8)> = Vec::new();
        for source in sources {
            let places = source.places.iter().filter_map(|place| self.place(*place));
            asked.extend(places.map(|place| (place, source.number)));
        }
        asked.sort_by_key(|(place, number)| (place.read_order(), *number));
        let attempt = |(place, number): (&Arc<KnownPlace>, u8)| {
            let core = Arc::clone(self);
            let asked = Arc::clone(place);
            Attempt::new(Some(place), async move {
                let id = ShardId { pack, needed, number };
                let end = FOOTER_BYTES as u64;
                let outcome = core.end_of(&asked, &id, end).await;
                outcome
                    .map(|(shape, _)| shape)
                    .map_err(|error| vec![asked.failure(error)])
            })
        };
        let attempts = asked.into_iter().map(attempt).collect();
        let mut gathered = gather(1, attempts, self.hedge_after).await;
        let shape = gathered.good.pop().ok_or(gathered.failed)?;
        self.sizes.insert(pack, shape.pack_bytes());
        Ok(shape)
    }

    /// The last bytes of a shard, and what its footer vouches for.
    pub(super) async fn end_of(&self, place: &KnownPlace, id: &ShardId, bytes: u64) -> Result<(Shape, Bytes)> {
        let name = Name::shard(id);
        let end = place.get(&name, Range::Last(bytes)).await?;
        match open_footer(&self.keys, id.pack, id.needed, id.number, &end) {
            Ok(shape) => Ok((shape, end)),
            Err(what) => Err(place.note_unsound(&name, &what)),
        }
    }

    /// Writes down which places did not have, or had altered, what others show should be there.
    fn note_failed(&self, failures: &[Failure]) {
        self.note_missing(failures);
        for failure in failures {
            if let (Error::Unsound { name, .. }, Some(place)) = (&failure.error, self.place(failure.position)) {
                place.note(|troubles| troubles.unsound.add(name));
            }
        }
    }

    /// Writes down which places did not have what others show should be there.
    pub(super) fn note_missing(&self, failures: &[Failure]) {
        for failure in failures {
            if let (Error::NotFound { name, .. }, Some(place)) = (&failure.error, self.place(failure.position)) {
                place.note(|troubles| troubles.missing.add(name));
            }
        }
    }
}

/// The name of a shard of a pack of this shape.
pub(super) fn shard_name(shape: &Shape, number: u8) -> Name {
    Name::shard(&ShardId {
        pack: shape.pack(),
        needed: shape.needed(),
        number,
    })
}
