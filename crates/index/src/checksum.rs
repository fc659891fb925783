//! A fast checksum against torn writes, zeroed pages and flipped bits; it is no defence against a forger.
//!
//! - XXH3 with 64 bits (crate `xxhash-rust`): damage passes with a chance of one in 2^64.
//! - The seed says what the bytes are and where they lie, so bytes at another position do not pass.
//! - A block of 2 KiB takes about a tenth of a microsecond, little enough to verify every block that is read.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Returns the checksum of `bytes` at the position that `seed` stands for.
pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_changes_it_and_so_do_length_and_position() {
        for length in [0usize, 1, 7, 64, 65, 200, 240, 241, 2040] {
            let mut bytes: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
            let right = checksum(3, &bytes);
            assert_eq!(right, checksum(3, &bytes));
            assert_ne!(right, checksum(4, &bytes), "position");
            for bit in 0..length * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(right, checksum(3, &bytes), "bit {bit} of {length} bytes");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            bytes.push(0);
            assert_ne!(right, checksum(3, &bytes), "length");
        }
        assert_ne!(checksum(0, &[0; 2040]), 0, "a zeroed block must not pass");
    }

    /// Runs on disk depend on these values: if one changes, so must the suffix of runs.
    #[test]
    fn values_are_frozen() {
        // From the specification of XXH3, which gives this value for no bytes and seed 0.
        assert_eq!(checksum(0, &[]), 0x2d06_8005_38d3_94c2);
        assert_eq!(checksum(7, &[1; 2040]), FROZEN);
    }

    const FROZEN: u64 = 2_459_107_004_967_695_122;
}
