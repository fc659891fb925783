//! Which copy of a small object is sound, for a spread that has several.
//!
//! - Checks signatures, which any credential can; what is sealed to owners stays sealed.
//! - Whether a sound object counts (an owner's notice, say) is for its reader to decide.

use std::sync::Arc;

use drystone_format::header::Header;
use drystone_format::keys::Secrets;
use drystone_format::notice::{NoticeKind, notice_version, verify_notice};
use drystone_format::presence::Presence;
use drystone_format::root::verify_root;
use drystone_format::slot::Slot;
use drystone_store::spread::Judge;
use drystone_store::{Kind, Name};

use crate::places::pin::VaultPin;

/// Judges by the vault's own signatures.
pub(crate) struct BySignature(pub(crate) Arc<Secrets>);

impl Judge for BySignature {
    fn is_sound(&self, name: &Name, bytes: &[u8]) -> bool {
        let secrets = &*self.0;
        let notice = |kind| verify_notice(secrets, kind, bytes).is_ok();
        match name.kind() {
            Kind::Header => {
                Header::decode(bytes).is_ok_and(|header| VaultPin::of_header(&header) == VaultPin::of(secrets))
            }
            Kind::Key(id) => {
                Slot::decode(bytes).is_ok_and(|slot| slot.id == id)
                    && Slot::verify(bytes, &secrets.vault_verify).is_ok()
            }
            Kind::Root(root) => verify_root(secrets, &root, bytes).is_ok(),
            Kind::Verified(_) => notice(NoticeKind::Verified),
            Kind::Epoch(..) => notice(NoticeKind::Epoch),
            Kind::Ledger(..) => notice_version(secrets, NoticeKind::Ledger, bytes).is_ok(),
            Kind::Config(..) => notice_version(secrets, NoticeKind::Config, bytes).is_ok(),
            Kind::Writer(id, beat, hash) => Presence::verify(secrets, (&id, beat, &hash), bytes).is_ok(),
            // Packs and shards carry their own checks; what the others say is verified by whoever reads them.
            Kind::Index(..) | Kind::Pack(_) | Kind::Shard(_) | Kind::Place | Kind::Reserve(_) => true,
        }
    }
}
