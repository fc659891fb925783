//! Names of things: how bytes become ids and how ids are written.
//!
//! - A chunk's id is BLAKE3 keyed with the vault's chunk key; a pack's id is plain BLAKE3 of the whole object.
//! - A registration's id commits to the key that signs for it, so nobody can act in another writer's name.
//! - Text form is lower-case hexadecimal, and only that form is read back.

use std::fmt;

use crate::keys::primitive::{DedupKey, VerifyKey};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;

            /// The id in `bytes`, if there are exactly as many as it has.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Reads lower-case hexadecimal of exactly this length.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $bytes];
                from_hex(text, &mut bytes).then_some(Self(bytes))
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                self.to_string().chars().take(8).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
    };
}

id!(
    /// Identity of a vault, random at its creation.
    VaultId, 16
);
id!(
    /// Keyed BLAKE3 of a chunk's plaintext: equal chunks of one vault have equal ids, and ids say nothing without the key.
    ChunkId, 32
);
id!(
    /// BLAKE3 of a whole pack object.
    PackId, 32
);
id!(
    /// Identity of a root (a snapshot, say): the hash of the whole object. Other small objects are named by such a hash too.
    RootId, 16
);
id!(
    /// Identity of a writer at work: commits to the vault, to the writer's key and to a nonce.
    RegistrationId, 16
);
id!(
    /// Identity of a key slot, random at its creation.
    SlotId, 16
);
id!(
    /// Identity of one of the places that a vault is spread over, random when the place is added.
    PlaceId, 16
);

fn from_hex(text: &str, out: &mut [u8]) -> bool {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != out.len() * 2 {
        return false;
    }
    for (pair, byte) in text.as_bytes().chunks_exact(2).zip(out) {
        match pair {
            &[high, low] => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => return false,
            },
            _ => return false,
        }
    }
    true
}

/// Names chunks: BLAKE3 keyed with a key derived from the vault's dedup key.
#[derive(Clone)]
pub struct ChunkHasher {
    key: [u8; 32],
}

impl ChunkHasher {
    /// The hasher of the vault that `key` belongs to.
    pub fn new(key: &DedupKey) -> Self {
        Self {
            key: key.derive(b"drystone chunk id v1"),
        }
    }

    /// The id of a chunk with this plaintext.
    pub fn id(&self, plaintext: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.key, plaintext).as_bytes())
    }
}

/// The id of the pack object with these bytes.
pub fn pack_id(object: &[u8]) -> PackId {
    PackId(*blake3::hash(object).as_bytes())
}

/// The hash that names a small object with these bytes: the first 16 bytes of its BLAKE3.
pub fn object_hash(object: &[u8]) -> RootId {
    RootId(first_16(&blake3::hash(object)))
}

impl RegistrationId {
    /// The registration of the holder of `writer` that states `nonce`. Nobody without that key can sign for this id.
    pub fn derive(vault: &VaultId, writer: &VerifyKey, nonce: &[u8; 16]) -> Self {
        let mut input = b"drystone registration v1".to_vec();
        input.extend_from_slice(&vault.0);
        input.extend_from_slice(&writer.0);
        input.extend_from_slice(nonce);
        Self(first_16(&blake3::hash(&input)))
    }
}

fn first_16(hash: &blake3::Hash) -> [u8; 16] {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// A uniform number that place, pack and shard alone decide: what placement ranks places by.
pub fn placement_draw(place: &PlaceId, pack: &PackId, number: u8) -> u64 {
    let mut input = Vec::with_capacity(PlaceId::LEN + PackId::LEN + 1);
    input.extend_from_slice(&place.0);
    input.extend_from_slice(&pack.0);
    input.push(number);
    let hash = blake3::hash(&input);
    hash.as_bytes()
        .first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_refuses_the_rest() {
        let id = VaultId(*b"0123456789abcdef");
        assert_eq!(VaultId::from_hex(&id.to_string()), Some(id));
        for bad in ["", "30", &"3G".repeat(16), &"AB".repeat(16), &"é".repeat(16)] {
            assert_eq!(VaultId::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn registrations_commit_to_vault_key_and_nonce() {
        let id = |vault, key, nonce| RegistrationId::derive(&VaultId([vault; 16]), &VerifyKey([key; 32]), &[nonce; 16]);
        let all = [id(1, 1, 1), id(2, 1, 1), id(1, 2, 1), id(1, 1, 2)];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn ids_depend_on_the_key() {
        let (one, two) = (DedupKey::from_bytes([1; 32]), DedupKey::from_bytes([2; 32]));
        assert_ne!(ChunkHasher::new(&one).id(b"x"), ChunkHasher::new(&two).id(b"x"));
    }
}
