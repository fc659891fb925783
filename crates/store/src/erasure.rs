//! Erasure coding: Reed-Solomon over GF(2^8), the sums that parity shards hold. Matrix: docs/format.md, "Shard".
//!
//! - Any k shards give every other one: a row of the matrix depends on k and its number, not on how many rows there are.
//! - Works on any range of the columns, since byte b of every shard depends only on byte b of the others.
//! - A column that is cut short counts as filled up with zeros.

/// Bytes of every column that are worked on at a time, so that what is summed up stays in the nearest cache.
const STRIP_BYTES: usize = 8 << 10;

/// The polynomial of the field, x^8 + x^4 + x^3 + x^2 + 1; x generates it.
const POLYNOMIAL: u16 = 0x11d;

/// Powers of x, and logarithms.
const TABLES: ([u8; 255], [u8; 256]) = tables();

#[expect(clippy::indexing_slicing, reason = "at compile time; iterators are not const")]
const fn tables() -> ([u8; 255], [u8; 256]) {
    let (mut powers, mut logarithms) = ([0; 255], [0; 256]);
    let (mut value, mut exponent) = (1u16, 0u8);
    while exponent < 255 {
        powers[exponent as usize] = value as u8;
        logarithms[value as usize] = exponent;
        value <<= 1;
        if value > 0xff {
            value ^= POLYNOMIAL;
        }
        exponent += 1;
    }
    (powers, logarithms)
}

fn logarithm(value: u8) -> usize {
    TABLES.1.get(usize::from(value)).copied().unwrap_or_default().into()
}

fn power(exponent: usize) -> u8 {
    TABLES.0.get(exponent % 255).copied().unwrap_or_default()
}

fn times(a: u8, b: u8) -> u8 {
    match (a, b) {
        (0, _) | (_, 0) => 0,
        _ => power(logarithm(a) + logarithm(b)),
    }
}

/// `b` is not 0.
fn divided(a: u8, b: u8) -> u8 {
    match a {
        0 => 0,
        _ => power(logarithm(a) + 255 - logarithm(b)),
    }
}

/// Makes shards of packs of which `needed` (k) shards are enough.
#[derive(Debug, Clone, Copy)]
pub struct Coder {
    needed: u8,
}

impl Coder {
    /// For packs cut into `needed` columns.
    pub fn new(needed: u8) -> Self {
        Self { needed }
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
        let mut rows = vec![vec![0; bytes]; wanted.len()];
        for start in (0..bytes).step_by(STRIP_BYTES) {
            for (row, factors) in rows.iter_mut().zip(&factors) {
                for ((_, from), factor) in have.iter().zip(factors) {
                    let (from, to) = (from.get(start..), row.get_mut(start..));
                    if let (Some(from), Some(to)) = (from, to) {
                        add_times(*factor, from, to, STRIP_BYTES);
                    }
                }
            }
        }
        Some(rows)
    }

    /// What shard `number` takes `column` times.
    fn entry(&self, number: u8, column: u8) -> u8 {
        let k = self.needed;
        if number < k {
            return (number == column).into();
        }
        divided(times(number, k ^ column), times(k, number ^ column))
    }

    /// For each of `wanted`, what to multiply each of `have` with before adding up.
    fn factors(&self, have: &[(u8, &[u8])], wanted: &[u8]) -> Option<Vec<Vec<u8>>> {
        let numbers: Vec<u8> = have.iter().map(|(number, _)| *number).collect();
        let distinct = |at: usize, number: &u8| !numbers.iter().take(at).any(|other| other == number);
        let complete = numbers.len() == usize::from(self.needed) && self.needed > 0;
        if !complete || !numbers.iter().enumerate().all(|(at, number)| distinct(at, number)) {
            return None;
        }
        let lost: Vec<u8> = (0..self.needed).filter(|column| !numbers.contains(column)).collect();
        let solved = self.solve(&numbers, &lost)?;
        let factors = |number: &u8| {
            let unit = |have: &u8| {
                if *have < self.needed {
                    self.entry(*number, *have)
                } else {
                    0
                }
            };
            let mut row: Vec<u8> = numbers.iter().map(unit).collect();
            for (column, solution) in lost.iter().zip(&solved) {
                add_times(self.entry(*number, *column), solution, &mut row, solution.len());
            }
            row
        };
        Some(wanted.iter().map(factors).collect())
    }

    /// Each lost column as a sum of the shards `numbers`: Gauss-Jordan elimination over the lost columns alone.
    fn solve(&self, numbers: &[u8], lost: &[u8]) -> Option<Vec<Vec<u8>>> {
        // One equation for each parity shard: its lost columns, then what they equal in terms of `numbers`.
        let equation = |parity: &u8| -> Vec<u8> {
            let left = lost.iter().map(|column| self.entry(*parity, *column));
            let right = numbers.iter().map(|number| match number {
                number if number == parity => 1,
                number if *number < self.needed => self.entry(*parity, *number),
                _ => 0,
            });
            left.chain(right).collect()
        };
        let parities = numbers.iter().filter(|number| **number >= self.needed);
        let mut rows: Vec<Vec<u8>> = parities.map(equation).collect();
        for at in 0..lost.len() {
            let pivot = *rows.get(at)?.get(at)?;
            let inverse = divided(1, pivot);
            let scaled: Vec<u8> = rows.get(at)?.iter().map(|value| times(*value, inverse)).collect();
            for (other, row) in rows.iter_mut().enumerate() {
                if other == at {
                    row.clone_from(&scaled);
                } else {
                    let factor = *row.get(at)?;
                    add_times(factor, &scaled, row, scaled.len());
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

/// Adds `factor` times the first `bytes` of `from` to those of `to`.
fn add_times(factor: u8, from: &[u8], to: &mut [u8], bytes: usize) {
    for (to, from) in to.iter_mut().zip(from).take(bytes) {
        *to ^= times(factor, *from);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    #[test]
    fn the_field_is_one() {
        for a in 1..=255 {
            assert_eq!(times(a, divided(1, a)), 1);
            assert_eq!(divided(times(a, 0x53), 0x53), a);
            // The definition: shift, and reduce by the polynomial.
            let doubled = u16::from(a) << 1;
            let reduced = if doubled > 0xff { doubled ^ POLYNOMIAL } else { doubled };
            assert_eq!(u16::from(times(a, 2)), reduced);
        }
        assert_eq!(times(0, 7), 0);
        assert_eq!(divided(0, 7), 0);
    }

    #[test]
    fn copies_and_sums() {
        for needed in 1..=254 {
            let coder = Coder::new(needed);
            assert!((0..needed).all(|column| coder.entry(needed, column) == 1));
            assert!((needed..=254).all(|number| coder.entry(number, 0) == 1));
        }
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_k_give_all_others(
            (needed, total, order) in (1u8..=20, 0u8..=20).prop_flat_map(|(needed, more)| {
                let numbers: Vec<u8> = (0..needed + more).collect();
                (Just(needed), Just(needed + more), Just(numbers).prop_shuffle())
            }),
            pack in proptest::collection::vec(any::<u8>(), 1..20_000),
            cut in 0usize..1000,
        ) {
            let coder = Coder::new(needed);
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
