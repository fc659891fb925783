//! What a large file was made of, and where it lay: when it changes, only what lies elsewhere is read again.
//!
//! - Records of one size: the head, a record for each extent, one for each stretch without holes, then the chunks of all stretches.
//!   Extents and stretches are held in memory, chunks are read as the edit comes to them.
//! - True of the very state that a snapshot had, for extents are never written again, and such as take their place are made in a
//!   generation later than the snapshot's, which the head has. That does not hold for files that are written in place, which have no map.
//! - It is a cache: what cannot be decoded is not there.

use std::ops::Range;

use drystone_extents::Layout;
use drystone_extents::items::{FileExtent, Form};
use drystone_format::ChunkId;
use drystone_format::recipe::Part;
use drystone_index::StateReader;
use drystone_vault::{OldPart, OldParts, Whole};

use crate::cache::Key;

/// Smallest file that has a map, bytes.
pub(crate) const FILE_MIN_BYTES: u64 = 8 << 20;
/// Extents of a file that has one at most, and stretches between holes.
pub(crate) const EXTENTS_MAX: usize = 128 << 10;
/// Chunks, runs of zeros and holes of a file that has one at most: 100 GiB with common chunks, and 90 MB of memory while it is read.
pub(crate) const PARTS_MAX: usize = 800_000;
const RECORD_BYTES: usize = 1 + 32 + 8;
/// Records in a page of the state.
const PAGE_RECORDS: usize = 1536;

const HEAD: u8 = 7;
const EXTENT: u8 = 2;
const STRETCH: u8 = 3;
const CHUNK: u8 = 4;
const ZEROS: u8 = 5;

/// One record: what it is, 32 bytes, a number.
type Record = [u8; RECORD_BYTES];

fn record(kind: u8, words: [u64; 4], number: u64) -> Record {
    let mut record = [0; RECORD_BYTES];
    let bytes = words.into_iter().chain([number]).flat_map(u64::to_le_bytes);
    record
        .iter_mut()
        .zip([kind].into_iter().chain(bytes))
        .for_each(|(to, from)| *to = from);
    record
}

fn parse(record: &Record) -> Option<(u8, [u8; 32], u64)> {
    let (kind, rest) = record.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    Some((*kind, *id, u64::from_le_bytes(*rest.first_chunk()?)))
}

fn words(id: &[u8; 32]) -> [u64; 4] {
    let (words, _) = id.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    std::array::from_fn(|_| words.next().unwrap_or_default())
}

/// Pages for the state; `None` if the file is too large to have a map, or was not read as it lay.
pub(crate) fn encode(layout: &Layout, generation: u64, parts: &[Part]) -> Option<Vec<Vec<u8>>> {
    let (stretches, size_bytes) = stretches(parts);
    let counts = [layout.extents.len(), stretches.len()];
    if counts.iter().any(|count| *count > EXTENTS_MAX) || parts.len() > PARTS_MAX || size_bytes != layout.len {
        return None;
    }
    let [extents, of_data] = counts.map(|count| count as u64);
    let mut records = vec![record(HEAD, [layout.len, extents, generation, of_data], 0)];
    records.extend(layout.extents.iter().map(of_extent));
    records.extend(
        stretches
            .iter()
            .map(|stretch| record(STRETCH, [stretch.start, 0, 0, 0], stretch.end)),
    );
    records.extend(parts.iter().filter_map(of_part));
    Some(
        records
            .chunks(PAGE_RECORDS)
            .map(<[Record]>::as_flattened)
            .map(<[u8]>::to_vec)
            .collect(),
    )
}

/// The stretches between holes, and where the last part ends.
fn stretches(parts: &[Part]) -> (Vec<Range<u64>>, u64) {
    let (mut stretches, mut at) = (Vec::<Range<u64>>::new(), 0);
    for part in parts {
        let end = at + part.bytes();
        match stretches.last_mut() {
            _ if matches!(part, Part::Hole(_)) => {}
            Some(last) if last.end == at => last.end = end,
            _ => stretches.push(at..end),
        }
        at = end;
    }
    (stretches, at)
}

fn of_part(part: &Part) -> Option<Record> {
    match part {
        Part::Chunk { id, bytes } => Some(record(CHUNK, words(&id.0), *bytes)),
        Part::Zeros(bytes) => Some(record(ZEROS, [0; 4], *bytes)),
        Part::Hole(_) => None,
    }
}

/// Only what tells places apart is kept: [`drystone_extents::changed_ranges`] asks for nothing else.
fn of_extent(extent: &FileExtent) -> Record {
    let form = match extent.form {
        Form::Plain => 0,
        Form::Encoded => 1,
        Form::Inline => 2,
        Form::Reserved => 3,
    };
    // Lengths of extents are less than 2^48.
    let words = [extent.file_offset, extent.generation, extent.disk_start, extent.offset];
    record(EXTENT, words, extent.len << 2 | form)
}

fn to_extent(id: &[u8; 32], number: u64) -> FileExtent {
    let [file_offset, generation, disk_start, offset] = words(id);
    let form = match number & 3 {
        0 => Form::Plain,
        1 => Form::Encoded,
        2 => Form::Inline,
        _ => Form::Reserved,
    };
    FileExtent {
        file_offset,
        generation,
        form,
        disk_start,
        disk_len: 0,
        offset,
        len: number >> 2,
        ram_len: 0,
    }
}

/// Where the pages of a map come from.
pub(crate) trait Pages {
    /// A page, if it is there.
    fn page(&mut self, number: u32) -> Option<Vec<u8>>;
}

/// The pages of one file in the state.
pub(crate) struct Kept<'a> {
    pub(crate) reader: &'a StateReader,
    pub(crate) maps: Key,
    pub(crate) file: Key,
    /// Epoch of the first page.
    pub(crate) epoch: Option<u64>,
}

impl Pages for Kept<'_> {
    fn page(&mut self, number: u32) -> Option<Vec<u8>> {
        // What cannot be read is not there.
        let (epoch, page) = self.reader.get_page(&self.maps, &self.file, number).ok()??;
        (*self.epoch.get_or_insert(epoch) == epoch).then_some(page)
    }
}

/// A map that is read from its beginning to its end.
pub(crate) struct Map<P> {
    pages: P,
    number: u32,
    page: Vec<u8>,
    /// Where in the page the next record is.
    place: usize,
    /// Where the file lay.
    pub(crate) layout: Layout,
    /// Its stretches without holes, in order.
    pub(crate) stretches: Vec<Range<u64>>,
    /// Of the snapshot in which it lay there.
    pub(crate) generation: u64,
    /// The part that was read last, and the number of its stretch.
    last: Option<OldPart>,
    stretch: usize,
    is_over: bool,
}

impl<P: Pages> Map<P> {
    /// The map, up to its chunks.
    pub(crate) fn open(pages: P) -> Option<Self> {
        let mut map = Self {
            pages,
            number: 0,
            page: Vec::new(),
            place: 0,
            layout: Layout::default(),
            stretches: Vec::new(),
            generation: 0,
            last: None,
            stretch: 0,
            is_over: false,
        };
        let (HEAD, head, _) = map.record()? else { return None };
        let [len, extents, generation, stretches] = words(&head);
        (map.layout.len, map.generation) = (len, generation);
        for _ in 0..extents.min(EXTENTS_MAX as u64) {
            let (EXTENT, id, number) = map.record()? else {
                return None;
            };
            map.layout.extents.push(to_extent(&id, number));
        }
        for _ in 0..stretches.min(EXTENTS_MAX as u64) {
            let (STRETCH, id, end) = map.record()? else {
                return None;
            };
            let [start, ..] = words(&id);
            if start >= end || map.stretches.last().is_some_and(|last| last.end >= start) {
                return None;
            }
            map.stretches.push(start..end);
        }
        Some(map)
    }

    fn record(&mut self) -> Option<(u8, [u8; 32], u64)> {
        loop {
            if let Some(record) = self.page.get(self.place..).and_then(|rest| rest.first_chunk()) {
                self.place += RECORD_BYTES;
                return parse(record);
            }
            self.page = self.pages.page(self.number).filter(|page| page.len() >= RECORD_BYTES)?;
            self.number += 1;
            self.place = 0;
        }
    }

    /// The part behind the last one.
    fn advance(&mut self) -> Option<OldPart> {
        let mut stretch = self.stretches.get(self.stretch)?;
        let mut start = self.last.map_or(stretch.start, |last| last.start + last.part.bytes());
        if start >= stretch.end {
            self.stretch += 1;
            stretch = self.stretches.get(self.stretch)?;
            start = stretch.start;
        }
        let room = stretch.end - start;
        let part = match self.record()? {
            (CHUNK, id, bytes) => Part::Chunk { id: ChunkId(id), bytes },
            (ZEROS, _, bytes) => Part::Zeros(bytes),
            _ => return None,
        };
        (1..=room)
            .contains(&part.bytes())
            .then_some(OldPart { start, part, depth: 0 })
    }
}

impl<P: Pages> OldParts for Map<P> {
    fn size_bytes(&self) -> u64 {
        self.layout.len
    }

    fn at(&mut self, offset: u64, _: Whole) -> drystone_vault::Result<Option<OldPart>> {
        while !self.is_over && self.last.is_none_or(|last| last.start + last.part.bytes() <= offset) {
            match self.advance() {
                None => self.is_over = true,
                next => self.last = next,
            }
        }
        Ok(self.last.filter(|last| !self.is_over && last.start <= offset))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct InMemory(Vec<Vec<u8>>);

    impl Pages for InMemory {
        fn page(&mut self, number: u32) -> Option<Vec<u8>> {
            self.0.get(number as usize).cloned()
        }
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            (any::<[u8; 32]>(), 1u64..1 << 18).prop_map(|(id, bytes)| Part::Chunk { id: ChunkId(id), bytes }),
            (1u64..1 << 18).prop_map(Part::Zeros),
            (1u64..1 << 18).prop_map(Part::Hole),
        ]
    }

    fn extent() -> impl Strategy<Value = FileExtent> {
        (any::<[u64; 4]>(), 0u64..1 << 40, 0u8..4).prop_map(|(words, len, form)| {
            let [file_offset, generation, disk_start, offset] = words;
            let form = [Form::Plain, Form::Encoded, Form::Inline, Form::Reserved][usize::from(form)];
            FileExtent {
                file_offset,
                generation,
                form,
                disk_start,
                disk_len: 0,
                offset,
                len,
                ram_len: 0,
            }
        })
    }

    proptest! {
        #[test]
        fn maps_come_back(
            parts in proptest::collection::vec(part(), 0..4000),
            extents in proptest::collection::vec(extent(), 0..50),
            generation in any::<u64>(),
        ) {
            let layout = Layout { len: parts.iter().map(Part::bytes).sum(), extents };
            let pages = encode(&layout, generation, &parts).unwrap();
            let mut map = Map::open(InMemory(pages)).unwrap();
            prop_assert_eq!((&map.layout, map.generation), (&layout, generation));
            prop_assert!(map.stretches.windows(2).all(|pair| pair[0].end < pair[1].start));
            let mut start = 0;
            for part in parts {
                let is_hole = matches!(part, Part::Hole(_));
                let had = (!is_hole).then_some(OldPart { start, part, depth: 0 });
                let end = start + part.bytes();
                for offset in [start, end - 1] {
                    prop_assert_eq!(map.at(offset, Whole::LEAVES).unwrap(), had);
                    prop_assert_eq!(map.stretches.iter().any(|stretch| stretch.contains(&offset)), !is_hole);
                }
                start = end;
            }
            prop_assert_eq!(map.at(start, Whole::LEAVES).unwrap(), None);
        }

        #[test]
        fn damage_is_absence(pages in proptest::collection::vec(proptest::collection::vec(0u8..7, 0..500), 0..3), start in any::<u64>()) {
            if let Some(mut map) = Map::open(InMemory(pages)) {
                map.at(start / 2, Whole::LEAVES).unwrap();
                map.at(start, Whole::LEAVES).unwrap();
            }
        }
    }
}
