//! Presence of a writer: that a registration is at work, what it has read, and how far it has published.
//! Layout: docs/format.md, "Presence".
//!
//! - It is signed by the key that its registration commits to: nobody else can speak for a writer.
//! - A writer that is not known to have seen an epoch counts as not having seen it.

use std::collections::BTreeSet;

use crate::cbor::{Reader, Writer, required};
use crate::error::{Error, Result, within};
use crate::header::{body_up_to, sign, split_signature, verify};
use crate::id::{RegistrationId, RootId, VaultId, object_hash};
use crate::keys::{Certificate, Secrets};
use crate::limits::{FORMAT_VERSION, HEADER_MAX_BYTES, PRESENCE_EPOCHS_MAX};

const OBJECT: &str = "presence of a writer";
const MAGIC: &[u8; 7] = b"DRYWRIT";
const DOMAIN: &[u8] = b"drystone presence v1";

/// Objects that somebody has read: number and hash of each.
pub type Seen = BTreeSet<(u64, RootId)>;

/// Whether a writer is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum WriterState {
    /// It is; gc waits for it.
    #[default]
    AtWork,
    /// Nothing of this registration follows any more.
    Over,
}

/// What a writer says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// The nonce of its registration.
    pub nonce: [u8; 16],
    /// Counts its presences from 0.
    pub beat: u64,
    /// The epochs of gc that everything it does after its advance knows of; the latest ones, if there are many.
    pub epochs: Seen,
    /// The ledgers that it has read; the latest ones, if there are many.
    pub ledgers: Seen,
    /// Number and hash of its last root. `None` before the first.
    pub advance: Option<(u64, RootId)>,
    /// How many packs it had begun by then: all of these are published or abandoned.
    pub packs: u64,
    /// Whether it is at work.
    pub state: WriterState,
}

impl Presence {
    /// The registration, being that of the holder of `secrets`.
    pub fn registration(&self, secrets: &Secrets) -> RegistrationId {
        RegistrationId::derive(&secrets.vault, &secrets.certificate.writer, &self.nonce)
    }

    /// The object, signed with the writer key of this credential.
    pub fn sign(&self, secrets: &Secrets) -> Result<Vec<u8>> {
        self.sign_as(FORMAT_VERSION, secrets)
    }

    /// The same, as a program writes it whose newest version is `version`.
    fn sign_as(&self, version: u8, secrets: &Secrets) -> Result<Vec<u8>> {
        let mut out = Writer::onto([MAGIC.as_slice(), &[version]].concat());
        out.map(8 + usize::from(self.advance.is_some()));
        out.uint(0).bytes(&secrets.vault.0).uint(1).bytes(&self.nonce).uint(2);
        secrets.certificate.encode(&mut out);
        out.uint(3).uint(self.beat).uint(4);
        encode_seen(&mut out, &self.epochs);
        out.uint(5);
        encode_seen(&mut out, &self.ledgers);
        if let Some((number, hash)) = &self.advance {
            out.uint(6).array(2).uint(*number).bytes(&hash.0);
        }
        out.uint(7).uint(u64::from(self.state == WriterState::Over));
        out.uint(8).uint(self.packs);
        let object = sign(out.finish(), DOMAIN, &secrets.writer_key)?;
        within(OBJECT, "bytes", object.len() as u64, HEADER_MAX_BYTES as u64)?;
        Ok(object)
    }

    /// Reads the presence that is stored as `registration`, `beat` and `hash`, and checks that the writer that the
    /// registration commits to has signed it; any credential can.
    ///
    /// [`Error::Hash`] if these are not the bytes that the name states; other errors mean that it counts for nobody.
    pub fn verify(
        secrets: &Secrets,
        name: (&RegistrationId, u64, &RootId),
        object: &[u8],
    ) -> Result<(Self, Certificate)> {
        Self::verify_up_to(FORMAT_VERSION, secrets, name, object)
    }

    /// The same, for a program that knows versions up to `newest`.
    fn verify_up_to(
        newest: u8,
        secrets: &Secrets,
        (registration, beat, hash): (&RegistrationId, u64, &RootId),
        object: &[u8],
    ) -> Result<(Self, Certificate)> {
        within(OBJECT, "bytes", object.len() as u64, HEADER_MAX_BYTES as u64)?;
        if object_hash(object) != *hash {
            return Err(Error::Hash { object: OBJECT });
        }
        let (signed, signature) = split_signature(OBJECT, object)?;
        let (mut vault, mut nonce, mut certificate, mut found) = (None, None, None, None);
        let mut presence = Self::default();
        let mut reader = Reader::new(OBJECT, body_up_to(OBJECT, MAGIC, signed, newest)?.1);
        reader.map(|reader, key| {
            match key {
                0 => vault = Some(VaultId(reader.fixed()?)),
                1 => nonce = Some(reader.fixed()?),
                2 => certificate = Some(Certificate::decode(OBJECT, reader)?),
                3 => found = Some(reader.uint()?),
                4 => presence.epochs = decode_seen(reader)?,
                5 => presence.ledgers = decode_seen(reader)?,
                6 => {
                    reader.array_of("advance", 2)?;
                    presence.advance = Some((reader.uint()?, RootId(reader.fixed()?)));
                }
                7 => {
                    presence.state = match reader.uint()? {
                        1 => WriterState::Over,
                        _ => WriterState::AtWork,
                    }
                }
                8 => presence.packs = reader.uint()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        let certificate = required(OBJECT, "certificate", certificate)?;
        presence.nonce = required(OBJECT, "nonce", nonce)?;
        presence.beat = beat;
        let own = RegistrationId::derive(&secrets.vault, &certificate.writer, &presence.nonce);
        if vault != Some(secrets.vault) || found != Some(beat) || own != *registration {
            return Err(Error::Authentication { object: OBJECT });
        }
        certificate.verify(OBJECT, &secrets.vault, &secrets.vault_verify)?;
        verify(OBJECT, DOMAIN, signed, &signature, &certificate.writer)?;
        Ok((presence, certificate))
    }
}

/// Writes numbers and hashes of what was read; of more than the format allows, the latest ones.
pub(crate) fn encode_seen(out: &mut Writer, seen: &Seen) {
    let left_out = seen.len().saturating_sub(PRESENCE_EPOCHS_MAX);
    out.array(seen.len() - left_out);
    for (number, hash) in seen.iter().skip(left_out) {
        out.array(2).uint(*number).bytes(&hash.0);
    }
}

pub(crate) fn decode_seen(reader: &mut Reader<'_>) -> Result<Seen> {
    let mut seen = Seen::new();
    for _ in 0..reader.array("number of objects seen", PRESENCE_EPOCHS_MAX as u64)? {
        reader.array_of("object seen", 2)?;
        seen.insert((reader.uint()?, RootId(reader.fixed()?)));
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::Counting;

    #[test]
    fn presences_of_an_old_version_are_read_beside_new_ones_after_the_version_is_raised() {
        let secrets = Secrets::generate(&mut Counting(0), VaultId([9; 16])).unwrap();
        let presence = Presence {
            nonce: [7; 16],
            ..Presence::default()
        };
        let registration = presence.registration(&secrets);
        let read = |newest: u8, object: &[u8]| {
            let name = (&registration, 0, &object_hash(object));
            Presence::verify_up_to(newest, &secrets, name, object).map(|(presence, _)| presence)
        };
        let [one, two] = [1, 2].map(|version| presence.sign_as(version, &secrets).unwrap());
        for object in [&one, &two] {
            assert_eq!(read(2, object).unwrap(), presence);
        }
        assert_eq!(read(1, &one).unwrap(), presence);
        assert!(matches!(read(1, &two), Err(Error::Version { found: 2, known: 1, .. })));
        let mut altered = one;
        altered[7] = 2;
        assert!(matches!(read(2, &altered), Err(Error::Signature { .. })));
    }
}
