//! The seam through which randomness enters: libraries never ask the operating system themselves.

/// A source of cryptographically secure random bytes.
pub trait Random {
    /// Fills `bytes` with fresh random bytes; panics never, blocks never for long.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// `N` fresh random bytes.
pub fn array<const N: usize>(random: &mut dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Random;

    /// Bytes that count up: no randomness at all, and the same each time.
    pub(crate) struct Counting(pub(crate) u8);

    impl Random for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                *byte = self.0;
                self.0 = self.0.wrapping_add(1);
            }
        }
    }
}
