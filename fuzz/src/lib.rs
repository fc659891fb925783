//! What the targets share: the credential of the examples in docs/format.md, and objects forged with it.

use std::sync::LazyLock;

use drystone_format::keys::Secrets;
use drystone_format::VaultId;

#[path = "../../crates/format/tests/it/forge.rs"]
pub mod forge;

struct Counting(u8);

impl drystone_format::Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

/// The owner of docs/format.md.
pub fn secrets() -> &'static Secrets {
    static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
        let vault = VaultId::from_hex("00112233445566778899aabbccddeeff").unwrap();
        Secrets::generate(&mut Counting(0), vault).unwrap()
    });
    &SECRETS
}
