//! Sealing to public keys is what RFC 9180 says.

use drystone_format::Random;
use drystone_format::keys::{OpenKey, SealKey};

use crate::fixture::unhex;

struct Fixed(Vec<u8>);

impl Random for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0);
    }
}

/// RFC 9180 appendix A.2.1: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, sequence number 0.
#[test]
fn sealing_is_hpke_base_mode() {
    let public = unhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
    let secret = unhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
    let info = unhex("4f6465206f6e2061204772656369616e2055726e");
    let ephemeral = unhex("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b");
    let plaintext = unhex("4265617574792069732074727574682c20747275746820626561757479");
    let aad = unhex("436f756e742d30");
    let sealed = unhex(
        "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a\
         1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
    );
    let seal_key = SealKey(public.try_into().unwrap());
    let open_key = OpenKey::from_bytes(secret.try_into().unwrap());
    assert_eq!(open_key.seal_key().unwrap(), seal_key);
    assert_eq!(
        seal_key.seal(&mut Fixed(ephemeral), &info, &aad, &plaintext).unwrap(),
        sealed
    );
    assert_eq!(open_key.open("test", &info, &aad, &sealed).unwrap(), plaintext);
    for (info, aad, cut) in [(&aad, &aad, 0), (&info, &info, 0), (&info, &aad, 1)] {
        assert!(open_key.open("test", info, aad, &sealed[cut..]).is_err());
    }
    assert!(open_key.open("test", &info, &aad, &sealed[..20]).is_err());
}
