//! What gc condemned, which writers it gave up, and which ranges it is about to close: the payload of an epoch notice.
//! Layout: docs/format.md, "Epoch of gc".
//!
//! - What several epochs say adds up; nothing in one takes back what another says.
//! - Which roots are live and which are not is the ledger's to say.
//! - What one gc has to say may be of any size: it is split over several objects of one number.
//! - Sets are ascending, so that equal epochs have equal bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::cbor::{Reader, Writer};
use crate::error::Result;
use crate::id::{PackId, RegistrationId, RootId};
use crate::keys::Secrets;
use crate::limits::{EPOCH_ITEMS_MAX, ROOT_MAX_BYTES};
use crate::notice::{NoticeKind, open_notice, seal_notice};
use crate::random::Random;

const OBJECT: &str = "epoch of gc";
/// Most items of one list that a reader takes, each at least 17 bytes.
const ITEMS_MAX: u64 = (ROOT_MAX_BYTES / (RegistrationId::LEN + 1)) as u64;

/// Number and hash of an epoch.
pub type EpochName = (u64, RootId);

/// How far a registration is closed: the roots in the range are forgotten, whatever their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Closing {
    /// All numbers below this one, except for roots that are stated as live.
    Below(u64),
    /// All of them.
    Dead,
}

/// The registrations that are closed, or to be closed.
pub type Closings = BTreeMap<RegistrationId, Closing>;

/// What one epoch notice says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Packs that nothing new may rely on, and that are deleted as soon as no writer can rely on them any more.
    pub packs: BTreeSet<PackId>,
    /// Registrations that were given up: what they publish from now on must not be reported.
    pub fences: BTreeSet<RegistrationId>,
    /// Ranges that a ledger may close once every list shows this epoch: what a writer publishes in them it must not report.
    pub closings: Closings,
}

impl Epoch {
    /// The same in parts, each of which fits into one object; at least one.
    pub fn split(self) -> Vec<Self> {
        let mut parts = vec![Self::default()];
        let mut room = EPOCH_ITEMS_MAX;
        let mut next = |parts: &mut Vec<Self>| {
            if room == 0 {
                parts.push(Self::default());
                room = EPOCH_ITEMS_MAX;
            }
            room -= 1;
        };
        for pack in self.packs {
            next(&mut parts);
            parts.last_mut().map(|part| part.packs.insert(pack));
        }
        for fence in self.fences {
            next(&mut parts);
            parts.last_mut().map(|part| part.fences.insert(fence));
        }
        for (registration, closing) in self.closings {
            next(&mut parts);
            parts.last_mut().map(|part| part.closings.insert(registration, closing));
        }
        parts
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(3).uint(0).array(self.packs.len());
        for pack in &self.packs {
            out.bytes(&pack.0);
        }
        out.uint(1).array(self.fences.len());
        for registration in &self.fences {
            out.bytes(&registration.0);
        }
        out.uint(2).array(self.closings.len());
        for (registration, closing) in &self.closings {
            match closing {
                Closing::Below(floor) => out.array(2).bytes(&registration.0).uint(*floor),
                Closing::Dead => out.array(1).bytes(&registration.0),
            };
        }
        out.finish()
    }
}

/// The epoch notice object that says `epoch`, which must be one part of [`Epoch::split`].
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
            0 => {
                epoch.packs = items(reader, |reader| Ok(PackId(reader.fixed()?)))?
                    .into_iter()
                    .collect()
            }
            1 => {
                epoch.fences = items(reader, |reader| Ok(RegistrationId(reader.fixed()?)))?
                    .into_iter()
                    .collect();
            }
            2 => epoch.closings = closings(reader)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reader.end()?;
    Ok(epoch)
}

fn closings(reader: &mut Reader<'_>) -> Result<Closings> {
    let mut found = Closings::new();
    for _ in 0..reader.array("closed ranges", ITEMS_MAX)? {
        let items = reader.array("closed range", 2)?;
        let registration = RegistrationId(reader.fixed()?);
        let closing = match items {
            1 => Closing::Dead,
            2 => Closing::Below(reader.uint()?),
            _ => return Err(reader.malformed("a closed range of no registration")),
        };
        if found.last_key_value().is_some_and(|(last, _)| *last >= registration) {
            return Err(reader.malformed("items out of order"));
        }
        found.insert(registration, closing);
    }
    Ok(found)
}

/// A list whose items ascend.
fn items<T: Ord>(reader: &mut Reader<'_>, item: impl Fn(&mut Reader<'_>) -> Result<T>) -> Result<Vec<T>> {
    let count = reader.array("number of items", ITEMS_MAX)?;
    let mut found: Vec<T> = Vec::new();
    for _ in 0..count {
        let next = item(reader)?;
        if found.last().is_some_and(|last| *last >= next) {
            return Err(reader.malformed("items out of order"));
        }
        found.push(next);
    }
    Ok(found)
}
