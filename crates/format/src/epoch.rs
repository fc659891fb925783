//! What gc condemned, and which roots count no more: the payload of an epoch notice. Layout: docs/format.md, "Epoch of gc".
//!
//! - What several epochs say adds up; nothing in one takes back what another says.
//! - Sets are ascending, so that equal epochs have equal bytes.

use std::collections::BTreeSet;

use crate::cbor::{Reader, Writer};
use crate::error::Result;
use crate::id::{PackId, RootId};
use crate::keys::Secrets;
use crate::limits::ROOT_MAX_BYTES;
use crate::notice::{NoticeKind, open_notice, seal_notice};
use crate::random::Random;

const OBJECT: &str = "epoch of gc";
/// Most ids of one list, each at least 17 bytes.
const IDS_MAX: u64 = (ROOT_MAX_BYTES / (RootId::LEN + 1)) as u64;

/// What one epoch notice says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Packs that nothing new may rely on, and that are deleted as soon as no run can rely on them any more.
    pub packs: BTreeSet<PackId>,
    /// Roots that count as absent, whether they are there or not.
    pub roots: BTreeSet<RootId>,
    /// Writers, by the root that they would publish, that were given up: what they publish from now on must not be reported.
    pub fenced: BTreeSet<RootId>,
}

impl Epoch {
    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(3).uint(0).array(self.packs.len());
        for pack in &self.packs {
            out.bytes(&pack.0);
        }
        for (key, ids) in [(1, &self.roots), (2, &self.fenced)] {
            out.uint(key).array(ids.len());
            for id in ids {
                out.bytes(&id.0);
            }
        }
        out.finish()
    }
}

/// The epoch notice object that says `epoch`.
pub fn seal_epoch(secrets: &Secrets, epoch: &Epoch, random: &mut dyn Random) -> Result<Vec<u8>> {
    seal_notice(secrets, NoticeKind::Epoch, epoch.encode(), random)
}

/// Opens what [`seal_epoch`] made; an epoch that no owner signed is refused.
pub fn open_epoch(secrets: &Secrets, object: &[u8]) -> Result<Epoch> {
    let payload = open_notice(secrets, NoticeKind::Epoch, object)?;
    let mut epoch = Epoch::default();
    let mut reader = Reader::new(OBJECT, &payload);
    reader.map(|reader, key| {
        match key {
            0 => epoch.packs = ids(reader, PackId)?,
            1 => epoch.roots = ids(reader, RootId)?,
            2 => epoch.fenced = ids(reader, RootId)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reader.end()?;
    Ok(epoch)
}

fn ids<const N: usize, T: Ord>(reader: &mut Reader<'_>, id: fn([u8; N]) -> T) -> Result<BTreeSet<T>> {
    let count = reader.array("number of ids", IDS_MAX)?;
    let mut found = BTreeSet::new();
    for _ in 0..count {
        let next = id(reader.fixed()?);
        if found.last().is_some_and(|last| *last >= next) {
            return Err(reader.malformed("ids out of order"));
        }
        found.insert(next);
    }
    Ok(found)
}
