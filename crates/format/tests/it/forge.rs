//! Objects with right keys and signatures around any content: what an enemy with a credential could write.
//!
//! - Follows docs/format.md, not the code of the crate, which never writes such things; the fuzz targets use it too.

use drystone_format::Random;
use drystone_format::keys::Secrets;
use drystone_format::notice::seal_verified;
use drystone_format::pack::{PackBuilder, PackOptions};
use drystone_format::seal::{PackKind, Suite};
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};

/// Always the same byte.
pub struct Constant(pub u8);

impl Random for Constant {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

fn seal(algorithm: &'static Algorithm, secrets: &Secrets, salt: u8, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let key = secrets.epochs[0].index_key.trailer_key(&[salt; 32]);
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap());
    let mut sealed = plaintext.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed)
        .unwrap();
    sealed
}

/// The tail of a data pack whose frames have `frames_bytes`, and whose trailer says `trailer`; and the size of the pack.
pub fn tail(secrets: &Secrets, trailer: &[u8], frames_bytes: u64) -> (Vec<u8>, u64) {
    let options = PackOptions {
        kind: PackKind::Data,
        suite: Suite::Aes256Gcm,
        registration: [5; 16],
        number: 0,
        capacity_bytes: 0,
    };
    let pack = PackBuilder::new(secrets, &options, &mut Constant(5)).unwrap();
    let pack = pack.finish_unpadded(secrets).unwrap().bytes;
    let length = |at: usize| u32::from_be_bytes(*pack[pack.len() - at..].first_chunk().unwrap()) as usize;
    let preamble = &pack[pack.len() - 80 - length(76)..pack.len() - 80];
    let aad = [b"drystone trailer v1\x01".as_slice(), &secrets.vault.0, &[0]].concat();
    let trailer = seal(&AES_256_GCM, secrets, 5, &aad, trailer);
    let hashes = [digest(&SHA256, preamble), digest(&SHA256, &trailer)];
    let frames_end = (8 + frames_bytes).to_be_bytes();
    let message = [
        b"drystone pack v1".as_slice(),
        hashes[0].as_ref(),
        hashes[1].as_ref(),
        &frames_end,
    ]
    .concat();
    let lengths = [
        (trailer.len() as u32).to_be_bytes(),
        (preamble.len() as u32).to_be_bytes(),
    ]
    .concat();
    let signature = secrets.writer_key.sign(&message).unwrap().0;
    let tail = [trailer.as_slice(), preamble, &lengths, &signature, b"DRYPACK\x01"].concat();
    let pack_bytes = 8 + frames_bytes + tail.len() as u64;
    (tail, pack_bytes)
}

/// A list of verified packs whose sealed part says `list`.
pub fn verified(secrets: &Secrets, list: &[u8]) -> Vec<u8> {
    // All before the head of the sealed part is that of a true list; an empty one is 3 bytes and a tag long.
    let real = seal_verified(secrets, &[], &mut Constant(5)).unwrap();
    let (head, rest) = real.split_at(real.len() - 64 - 3 - 16 - 1);
    assert_eq!(rest[0], 0x40 + 3 + 16, "the head of the sealed part");
    let aad = [b"drystone list v1\x01".as_slice(), &secrets.vault.0, &[1]].concat();
    let sealed = seal(&CHACHA20_POLY1305, secrets, 5, &aad, list);
    let sealed_head = [&[0x5a], (sealed.len() as u32).to_be_bytes().as_slice()].concat();
    let signed = [head, &sealed_head, &sealed].concat();
    let message = [b"drystone list v1".as_slice(), &signed].concat();
    [signed.as_slice(), &secrets.writer_key.sign(&message).unwrap().0].concat()
}
