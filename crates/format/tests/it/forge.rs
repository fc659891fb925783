//! Objects with right keys and signatures around any content: what an enemy with a credential could write.
//!
//! - Follows docs/format.md, not the code of the crate, which never writes such things; the fuzz targets use it too.

use drystone_format::Random;
use drystone_format::index_part::Numbered;
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

fn seal(algorithm: &'static Algorithm, secrets: &Secrets, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    seal_as(algorithm, secrets, 0, aad, plaintext)
}

/// The same under another number than 0.
fn seal_as(algorithm: &'static Algorithm, secrets: &Secrets, number: u64, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let key = secrets.epochs[0].index_key.trailer_key(&[5; 32]);
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap());
    let mut sealed = plaintext.to_vec();
    let nonce = [&[0; 4], number.to_be_bytes().as_slice()].concat();
    let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
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
    let trailer = seal(&AES_256_GCM, secrets, &aad, trailer);
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
    let sealed = seal(&CHACHA20_POLY1305, secrets, &aad, list);
    let sealed_head = [&[0x5a], (sealed.len() as u32).to_be_bytes().as_slice()].concat();
    let signed = [head, &sealed_head, &sealed].concat();
    let message = [b"drystone list v1".as_slice(), &signed].concat();
    [signed.as_slice(), &secrets.writer_key.sign(&message).unwrap().0].concat()
}

fn numbered_aad(label: &[u8], secrets: &Secrets, of: &Numbered) -> Vec<u8> {
    [
        label,
        &[1],
        &secrets.vault.0,
        &of.registration,
        &of.number.to_be_bytes(),
    ]
    .concat()
}

/// A CBOR byte string.
fn byte_string(bytes: &[u8]) -> Vec<u8> {
    [&[0x5a], (bytes.len() as u32).to_be_bytes().as_slice(), bytes].concat()
}

/// An index part as a root carries it, whose sealed part says `part`.
pub fn part(secrets: &Secrets, of: &Numbered, part: &[u8]) -> Vec<u8> {
    let aad = numbered_aad(b"drystone index part v1", secrets, of);
    let sealed = seal_as(&CHACHA20_POLY1305, secrets, 0, &aad, part);
    let epoch = secrets.current().unwrap().number.to_be_bytes();
    [
        &[0xa3, 0, 0x1b],
        epoch.as_slice(),
        &[1],
        byte_string(&[5; 32]).as_slice(),
        &[2],
        &byte_string(&sealed),
    ]
    .concat()
}

/// Pieces of an index run, signed by the owner: one whose directory says `data`, one with `data` as a block of chunks, and
/// one with `data` as a block of packs.
pub fn runs(secrets: &Secrets, of: &Numbered, data: &[u8]) -> [Vec<u8>; 3] {
    let aad = numbered_aad(b"drystone index run v1", secrets, of);
    let block = |number| seal_as(&CHACHA20_POLY1305, secrets, number, &aad, data);
    let row = |sealed: &[u8]| {
        let hash = drystone_format::id::object_hash(sealed).0;
        let length = [&[0x1a], (sealed.len() as u32).to_be_bytes().as_slice()].concat();
        [length, byte_string(&hash)].concat()
    };
    let (chunks, packs) = (block(0), block(1 << 32));
    let first: [u8; 32] = data.first_chunk().copied().unwrap_or_default();
    let counts = [
        &[0xa4, 0, 0x18, (data.len() / 51).min(200) as u8, 1, 0x18, 200, 2],
        [0x81, 0x83].as_slice(),
    ]
    .concat();
    let no_packs = [3, 0x81, 0x82];
    let empty = block_of_nothing(secrets, &aad);
    let with_chunks = [
        counts,
        byte_string(&first),
        row(&chunks),
        no_packs.to_vec(),
        row(&empty),
    ]
    .concat();
    let with_packs = [&[0xa4, 0, 0, 1, 1, 2, 0x80, 3, 0x81, 0x82], row(&packs).as_slice()].concat();
    [
        run(secrets, of, &aad, data, &[]),
        run(secrets, of, &aad, &with_chunks, &[chunks, empty].concat()),
        run(secrets, of, &aad, &with_packs, &packs),
    ]
}

fn block_of_nothing(secrets: &Secrets, aad: &[u8]) -> Vec<u8> {
    seal_as(&CHACHA20_POLY1305, secrets, 1 << 32, aad, &[0x80])
}

/// A piece with these blocks and this directory.
fn run(secrets: &Secrets, of: &Numbered, aad: &[u8], directory: &[u8], blocks: &[u8]) -> Vec<u8> {
    // The preamble of a true run, an empty one.
    let real = drystone_format::index_run::IndexRun::default()
        .seal(secrets, of, &mut Constant(5))
        .unwrap();
    let length = |at: usize| u32::from_be_bytes(*real[real.len() - at..].first_chunk().unwrap()) as usize;
    let preamble = &real[real.len() - 80 - length(76)..real.len() - 80];
    let directory = seal_as(&CHACHA20_POLY1305, secrets, 1 << 33, aad, directory);
    let end = 8 + blocks.len() as u64;
    let hashes = [digest(&SHA256, preamble), digest(&SHA256, &directory)];
    let message = [
        b"drystone index run v1".as_slice(),
        hashes[0].as_ref(),
        hashes[1].as_ref(),
        &end.to_be_bytes(),
    ]
    .concat();
    let signature = secrets.writer_key.sign(&message).unwrap().0;
    let lengths = [
        (directory.len() as u32).to_be_bytes(),
        (preamble.len() as u32).to_be_bytes(),
    ]
    .concat();
    [
        b"DRYIRUN\x01",
        blocks,
        &directory,
        preamble,
        &lengths,
        &signature,
        b"DRYIRUN\x01",
    ]
    .concat()
}
