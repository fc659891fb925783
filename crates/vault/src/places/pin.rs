//! Which vault is meant: its id, and the key that proves it.

use drystone_format::VaultId;
use drystone_format::header::Header;
use drystone_format::keys::{Secrets, VerifyKey};

/// A vault by id and key: who has only the id may have made another one under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultPin {
    /// Id of the vault.
    pub vault: VaultId,
    /// Its public key.
    pub key: VerifyKey,
}

impl std::fmt::Display for VaultPin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g, h, i, ..] = self.key.0;
        let key = hex(&[a, b, c, d, e, g, h, i]);
        write!(f, "{} (key {key})", self.vault)
    }
}

impl VaultPin {
    /// The vault that these secrets belong to.
    pub(crate) fn of(secrets: &Secrets) -> Self {
        Self {
            vault: secrets.vault,
            key: secrets.vault_verify,
        }
    }

    /// The vault that a header says it heads.
    pub(crate) fn of_header(header: &Header) -> Self {
        Self {
            vault: header.vault,
            key: header.vault_verify,
        }
    }

    /// Id and key as key files and this memory write them: two words of hexadecimal digits.
    pub fn line(&self) -> String {
        format!("{} {}", self.vault, hex(&self.key.0))
    }

    /// Reads what [`line`](Self::line) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (vault, key) = (words.next()?, words.next()?);
        Some(Self {
            vault: VaultId::from_hex(vault)?,
            key: VerifyKey(unhex(key)?),
        })
    }
}

/// Lower-case hexadecimal digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of so many hexadecimal digits; `None` if they are anything else.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.contains('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}
