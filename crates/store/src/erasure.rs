//! Erasure coding: Reed-Solomon over GF(2^8), the sums that parity shards hold. Matrix: docs/format.md, "Shard".
//!
//! - Any k shards give every other one: a row of the matrix depends on k and its number, not on how many rows there are.
//! - Works on any range of the columns, since byte b of every shard depends only on byte b of the others.
//! - A column that is cut short counts as filled up with zeros.

use std::borrow::Cow;
use std::collections::BTreeSet;

use rusty_erasure::gf::{inv, mul};
use rusty_erasure::kernel::Kernels;

/// Bytes of every column that are worked on at a time: ten columns stay in the second cache while more than four rows,
/// which is what the kernels make in one pass, are summed up from them.
const STRIP_BYTES: usize = 16 << 10;

/// Makes shards of packs of which `needed` (k) shards are enough.
#[derive(Debug, Clone, Copy)]
pub struct Coder {
    needed: u8,
    kernels: Kernels,
}

impl Coder {
    /// For packs cut into `needed` columns.
    pub fn new(needed: u8) -> Self {
        let kernels = rusty_erasure::best_kernels();
        Self { needed, kernels }
    }

    /// The parity shards `numbers` over all columns, each as long as the first column.
    ///
    /// `None` if there are not `needed` columns. A number below `needed` gives that column back, filled up.
    pub fn parity(&self, columns: &[&[u8]], numbers: &[u8]) -> Option<Vec<Vec<u8>>> {
        let have: Vec<(u8, &[u8])> = (0..=u8::MAX).zip(columns.iter().copied()).collect();
        self.rebuild(&have, numbers)
    }

    /// The shards `wanted`, from the same range of exactly `needed` others; each as long as the longest given.
    ///
    /// `None` if `have` is not `needed` different shards.
    pub fn rebuild(&self, have: &[(u8, &[u8])], wanted: &[u8]) -> Option<Vec<Vec<u8>>> {
        let factors = self.factors(have, wanted)?;
        let bytes = have.iter().map(|(_, row)| row.len()).max()?;
        let tables = (self.kernels.init)(&factors.concat());
        // Each fresh from the system: cloning one would fill the others with its zeros first.
        let mut rows: Vec<Vec<u8>> = wanted.iter().map(|_| vec![0; bytes]).collect();
        // The kernels cannot tell the length of no rows.
        for start in (0..bytes).step_by(STRIP_BYTES).filter(|_| !wanted.is_empty()) {
            let end = bytes.min(start + STRIP_BYTES);
            let filled: Vec<Cow<'_, [u8]>> = have.iter().map(|(_, row)| strip(row, start, end)).collect();
            let from: Vec<&[u8]> = filled.iter().map(AsRef::as_ref).collect();
            let mut to: Vec<&mut [u8]> = rows.iter_mut().filter_map(|row| row.get_mut(start..end)).collect();
            (self.kernels.encode)(&tables, &from, &mut to);
        }
        Some(rows)
    }

    /// How many times shard `number` takes `column`; 0 if there is no such column.
    fn entry(&self, number: u8, column: u8) -> u8 {
        let k = self.needed;
        match (number < k, column < k) {
            (_, false) => 0,
            (true, true) => (number == column).into(),
            (false, true) => mul(mul(number, k ^ column), inv(mul(k, number ^ column))),
        }
    }

    /// For each of `wanted`, what to multiply each of `have` with before adding up.
    fn factors(&self, have: &[(u8, &[u8])], wanted: &[u8]) -> Option<Vec<Vec<u8>>> {
        let numbers: Vec<u8> = have.iter().map(|(number, _)| *number).collect();
        let distinct: BTreeSet<u8> = numbers.iter().copied().collect();
        if distinct.len() != numbers.len() || numbers.len() != usize::from(self.needed) {
            return None;
        }
        let lost: Vec<u8> = (0..self.needed).filter(|column| !numbers.contains(column)).collect();
        let solved = self.solve(&numbers, &lost)?;
        let factors = |number: &u8| {
            let mut row: Vec<u8> = numbers.iter().map(|have| self.entry(*number, *have)).collect();
            for (column, solution) in lost.iter().zip(&solved) {
                add_times(self.entry(*number, *column), solution, &mut row);
            }
            row
        };
        Some(wanted.iter().map(factors).collect())
    }

    /// Each lost column as a sum of the shards `numbers`: Gauss-Jordan elimination over the lost columns alone.
    ///
    /// Every square part of a Cauchy matrix has an inverse, so no pivot is ever 0.
    fn solve(&self, numbers: &[u8], lost: &[u8]) -> Option<Vec<Vec<u8>>> {
        // One equation for each parity shard: its lost columns, then what they equal in terms of `numbers`.
        let equation = |parity: &u8| -> Vec<u8> {
            let left = lost.iter().map(|column| self.entry(*parity, *column));
            let own = |number: &u8| u8::from(number == parity);
            let right = numbers.iter().map(|number| own(number) | self.entry(*parity, *number));
            left.chain(right).collect()
        };
        let parities = numbers.iter().filter(|number| **number >= self.needed);
        let mut rows: Vec<Vec<u8>> = parities.map(equation).collect();
        for at in 0..lost.len() {
            let inverse = inv(*rows.get(at)?.get(at)?);
            let scaled: Vec<u8> = rows.get(at)?.iter().map(|value| mul(*value, inverse)).collect();
            for (other, row) in rows.iter_mut().enumerate() {
                if other == at {
                    row.clone_from(&scaled);
                } else {
                    let factor = *row.get(at)?;
                    add_times(factor, &scaled, row);
                }
            }
        }
        Some(
            rows.into_iter()
                .map(|row| row.into_iter().skip(lost.len()).collect())
                .collect(),
        )
    }
}

/// Adds `factor` times `from` to `to`.
fn add_times(factor: u8, from: &[u8], to: &mut [u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= mul(factor, *from);
    }
}

/// The bytes of `row` from `start` to `end`, filled up with zeros.
fn strip(row: &[u8], start: usize, end: usize) -> Cow<'_, [u8]> {
    match row.get(start..end) {
        Some(strip) => Cow::Borrowed(strip),
        None => {
            let mut strip = row.get(start..).unwrap_or_default().to_vec();
            strip.resize(end - start, 0);
            Cow::Owned(strip)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use drystone_format::id::pack_id;
    use drystone_format::keys::{DedupKey, ShardKey};
    use drystone_format::shard::{Shape, open_shard, seal_shard};
    use proptest::prelude::*;

    use super::*;
    use crate::{Name, ShardId};

    /// Columns of `pack`, the last ones shorter or empty.
    fn columns(pack: &[u8], needed: u8) -> Vec<&[u8]> {
        let bytes = pack.len().div_ceil(needed.into());
        let column = |number| &pack[pack.len().min(number * bytes)..pack.len().min((number + 1) * bytes)];
        (0..needed.into()).map(column).collect()
    }

    fn filled(row: &[u8], bytes: usize) -> Vec<u8> {
        let mut row = row.to_vec();
        row.resize(bytes, 0);
        row
    }

    /// Every set of kernels that this processor has.
    fn coders(needed: u8) -> Vec<Coder> {
        let names = ["scalar", "ssse3", "avx2", "gfni", "neon"];
        let found: Vec<Coder> = names
            .into_iter()
            .filter_map(rusty_erasure::kernels_named)
            .map(|kernels| Coder { needed, kernels })
            .collect();
        assert!(
            found
                .iter()
                .any(|coder| coder.kernels.name == Coder::new(1).kernels.name)
        );
        found
    }

    /// The product by its definition: carry-less, then reduced by x^8 + x^4 + x^3 + x^2 + 1.
    fn product(a: u8, b: u8) -> u8 {
        let mut sum = (0..8)
            .filter(|bit| b >> bit & 1 == 1)
            .fold(0, |sum, bit| sum ^ u16::from(a) << bit);
        for bit in (8..15).rev() {
            sum ^= (sum >> bit & 1) * (0x11d << (bit - 8));
        }
        sum as u8
    }

    #[test]
    fn every_kernel_multiplies_as_the_format_says() {
        let all: Vec<u8> = (0..=255).cycle().take(256 + 37).collect();
        for coder in coders(1) {
            for factor in 0..=255 {
                let expected: Vec<u8> = all.iter().map(|byte| product(factor, *byte)).collect();
                let mut found = vec![0xee; all.len()];
                (coder.kernels.encode)(&(coder.kernels.init)(&[factor]), &[&all], &mut [&mut found]);
                assert_eq!(found, expected, "{} {factor}", coder.kernels.name);
                assert_eq!(product(factor, inv(factor)), u8::from(factor > 0));
            }
        }
    }

    #[test]
    fn copies_and_sums() {
        for needed in 1..=254 {
            let coder = Coder::new(needed);
            assert!((0..needed).all(|column| coder.entry(needed, column) == 1));
            assert!((needed..=254).all(|number| coder.entry(number, 0) == 1));
        }
        let (one, other) = ([1, 2, 3], [4, 5]);
        assert_eq!(Coder::new(1).parity(&[&one], &[0, 1, 254]).unwrap(), [one, one, one]);
        assert_eq!(Coder::new(2).parity(&[&one, &other], &[2]).unwrap(), [[5, 7, 3]]);
        assert!(Coder::new(2).parity(&[&one, &other], &[]).unwrap().is_empty());
        assert_eq!(Coder::new(2).parity(&[&[], &[]], &[2]).unwrap(), [Vec::<u8>::new()]);
    }

    #[test]
    fn what_is_not_k_different_shards_is_refused() {
        let coder = Coder::new(2);
        let row = [1, 2, 3];
        let have: [(u8, &[u8]); 3] = [(0, &row), (3, &row), (0, &row)];
        assert!(coder.rebuild(&have[..2], &[1]).is_some());
        assert!(coder.rebuild(&have, &[1]).is_none());
        assert!(coder.rebuild(&have[..1], &[1]).is_none());
        assert!(coder.rebuild(&[have[0], have[2]], &[1]).is_none());
        assert!(Coder::new(0).rebuild(&[], &[1]).is_none());
        assert!(coder.parity(&[&row], &[2]).is_none());
    }

    /// The shards of testdata/format/v1: of the largest pack of the golden vault, under the dedup key 40 to 5f.
    fn golden() -> (PathBuf, ShardKey, Vec<u8>) {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/format/v1");
        let key = DedupKey::from_bytes(std::array::from_fn(|at| 0x40 + at as u8)).derive(b"drystone shard v1");
        let fans = fs::read_dir(top.join("vault/packs")).unwrap();
        let packs = fans.flat_map(|fan| fs::read_dir(fan.unwrap().path()).unwrap());
        let packs = packs.map(|pack| fs::read(pack.unwrap().path()).unwrap());
        let pack = packs.max_by_key(Vec::len).unwrap();
        (top.join("spread"), ShardKey::from_bytes(key), pack)
    }

    /// Name, payload and object of all shards of the golden pack, for each k and n.
    fn golden_shards(needed: u8, total: u8) -> Vec<(ShardId, Vec<u8>, Vec<u8>)> {
        let (_, key, pack) = golden();
        let shape = Shape::new(pack_id(&pack), pack.len() as u64, needed).unwrap();
        let columns = shape.columns(&pack).unwrap();
        let parity = Coder::new(needed)
            .parity(&columns, &(needed..total).collect::<Vec<_>>())
            .unwrap();
        let payloads = columns.into_iter().chain(parity.iter().map(Vec::as_slice));
        let shard = |(number, payload): (u8, &[u8])| {
            let id = ShardId {
                pack: shape.pack(),
                needed,
                number,
            };
            (id, payload.to_vec(), seal_shard(&key, &shape, number, payload).unwrap())
        };
        (0..total).zip(payloads).map(shard).collect()
    }

    const GOLDEN: [(u8, u8); 4] = [(1, 2), (2, 3), (4, 6), (10, 14)];

    #[test]
    fn golden_shards_are_made_again_and_give_their_pack() {
        let (directory, key, pack) = golden();
        for (needed, total) in GOLDEN {
            let mut found = Vec::new();
            for (id, payload, object) in golden_shards(needed, total) {
                let stored = fs::read(directory.join(Name::shard(&id).as_str())).unwrap();
                assert_eq!(stored, object, "{id:?}");
                let opened = open_shard(&key, id.pack, needed, id.number, &stored).unwrap();
                assert_eq!(opened.1, payload);
                found.push((id.number, opened));
            }
            let (shape, column) = (found[0].1.0, found[0].1.1.len());
            // The last k: of the data, only what parity does not replace.
            let have: Vec<(u8, &[u8])> = found
                .iter()
                .rev()
                .map(|(number, (_, row))| (*number, row.as_slice()))
                .collect();
            let all: Vec<u8> = (0..needed).collect();
            let rows = Coder::new(needed).rebuild(&have[..needed.into()], &all).unwrap();
            assert!(rows.iter().all(|row| row.len() == column));
            assert_eq!(rows.concat()[..shape.pack_bytes() as usize], pack);
        }
    }

    #[test]
    #[ignore = "writes the golden shards, which never change within a version of the format"]
    fn make_golden_shards() {
        let (directory, ..) = golden();
        for (id, _, object) in GOLDEN
            .into_iter()
            .flat_map(|(needed, total)| golden_shards(needed, total))
        {
            let path = directory.join(Name::shard(&id).as_str());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create_new(path).unwrap().write_all(&object).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_k_give_all_others(
            (needed, total, order) in (1u8..=20, 0u8..=20).prop_flat_map(|(needed, more)| {
                let numbers: Vec<u8> = (0..needed + more).collect();
                (Just(needed), Just(needed + more), Just(numbers).prop_shuffle())
            }),
            pack in proptest::collection::vec(any::<u8>(), 1..100_000),
            (cut, which) in (0usize..1000, any::<proptest::sample::Index>()),
        ) {
            let coder = *which.get(&coders(needed));
            let columns = columns(&pack, needed);
            let bytes = columns[0].len();
            let parities: Vec<u8> = (needed..total).collect();
            let rows = coder.parity(&columns, &parities).unwrap();
            let all: Vec<&[u8]> = columns.iter().copied().chain(rows.iter().map(Vec::as_slice)).collect();
            let have: Vec<(u8, &[u8])> =
                order.iter().take(needed.into()).map(|number| (*number, all[usize::from(*number)])).collect();
            for (number, row) in order.iter().zip(coder.rebuild(&have, &order).unwrap()) {
                prop_assert_eq!(filled(&row, bytes), filled(all[usize::from(*number)], bytes), "{}", number);
            }
            // A part of the columns gives the same part of the others.
            let from = cut % bytes;
            let part: Vec<(u8, &[u8])> =
                have.iter().map(|(number, row)| (*number, row.get(from..).unwrap_or_default())).collect();
            for (number, row) in order.iter().zip(coder.rebuild(&part, &order).unwrap()) {
                prop_assert_eq!(filled(&row, bytes - from), &filled(all[usize::from(*number)], bytes)[from..]);
            }
        }
    }
}
