//! The bytes of a ledger: an owner's notice, with a part that is sealed once more. Layout: docs/format.md, "Ledger".
//!
//! - Everything ascends strictly, so that equal statements have equal bytes; a reader refuses what does not.
//! - Memory is at most some ten times the size of the object, whatever it claims.
//! - What is sealed once more is bound to vault and number.

use std::collections::{BTreeMap, BTreeSet};

use super::statement::{Bounds, FirstSeen, InForce, KindWord, Ledger, LedgerName, Live, Numbered, Sightings};
use crate::cbor::{Reader, Writer, required};
use crate::error::Result;
use crate::header::version;
use crate::id::{RegistrationId, RootId, VaultId};
use crate::keys::Secrets;
use crate::limits::{FORMAT_VERSION, LEDGER_KINDS_MAX, LEDGER_MAX_BYTES, LEDGER_PREDECESSORS_MAX};
use crate::notice::{NoticeKind, open_notice_up_to, seal_notice_as};
use crate::random::Random;
use crate::tree::Time;

const OBJECT: &str = "ledger";
const INFO: &[u8] = b"drystone ledger v1";
/// Most items of any list: each takes a byte at least.
const ITEMS_MAX: u64 = LEDGER_MAX_BYTES as u64;

fn aad(version: u8, vault: &VaultId, number: u64) -> Vec<u8> {
    [[version].as_slice(), &vault.0, &number.to_be_bytes()].concat()
}

/// The notice object that states `ledger`; `sightings` are for those alone who can read content. Only an owner can make one that counts.
pub fn seal_ledger(
    secrets: &Secrets,
    ledger: &Ledger,
    sightings: &Sightings,
    random: &mut dyn Random,
) -> Result<Vec<u8>> {
    seal_as(FORMAT_VERSION, secrets, ledger, sightings, random)
}

/// The same, as a program writes it whose newest version is `version`.
fn seal_as(
    version: u8,
    secrets: &Secrets,
    ledger: &Ledger,
    sightings: &Sightings,
    random: &mut dyn Random,
) -> Result<Vec<u8>> {
    let mut ledger = ledger.clone();
    ledger.normalise();
    let epoch = secrets.current()?;
    let private = encode_sightings(&ledger, sightings);
    let sealed = epoch
        .seal_key
        .seal(random, INFO, &aad(version, &secrets.vault, ledger.number), &private)?;
    let mut out = Writer::new();
    out.map(9).uint(0).uint(ledger.number).uint(1);
    names(&mut out, &ledger.predecessors);
    let kinds: BTreeSet<KindWord> = ledger.live.values().map(|live| live.kind).collect();
    out.uint(2).array(kinds.len());
    for kind in &kinds {
        out.text(kind.as_str());
    }
    out.uint(3);
    encode_registrations(&mut out, &ledger, &kinds);
    let dead: Vec<u8> = ledger.dead.iter().flat_map(|registration| registration.0).collect();
    out.uint(4).bytes(&dead);
    out.uint(5).array(2);
    names(&mut out, &ledger.configuration.heads);
    names(&mut out, &ledger.configuration.superseded);
    out.uint(6).array(2);
    numbered(&mut out, &ledger.runs.heads);
    numbered(&mut out, &ledger.runs.superseded);
    out.uint(7).uint(epoch.number).uint(8).bytes(&sealed);
    seal_notice_as(version, secrets, NoticeKind::Ledger, out.finish(), random)
}

fn names(out: &mut Writer, names: &BTreeSet<LedgerName>) {
    out.array(names.len() * 2);
    for (number, hash) in names {
        out.uint(*number).bytes(&hash.0);
    }
}

fn numbered(out: &mut Writer, objects: &BTreeSet<Numbered>) {
    out.array(objects.len() * 3);
    for object in objects {
        out.bytes(&object.registration.0)
            .uint(object.number)
            .bytes(&object.hash.0);
    }
}

fn encode_registrations(out: &mut Writer, ledger: &Ledger, kinds: &BTreeSet<KindWord>) {
    let live: Vec<(&Numbered, &Live)> = ledger.live.iter().collect();
    let live = grouped(&live, |(root, _)| root.registration);
    let forgotten: Vec<&Numbered> = ledger.forgotten.iter().collect();
    let forgotten = grouped(&forgotten, |root| root.registration);
    let known = live.keys().chain(forgotten.keys()).chain(ledger.bounds.keys());
    let registrations: BTreeSet<RegistrationId> = known.copied().collect();
    out.array(registrations.len());
    for registration in registrations {
        let bounds = ledger.bounds.get(&registration).copied().unwrap_or_default();
        out.array(4 + usize::from(bounds.end.is_some()));
        out.bytes(&registration.0).uint(bounds.floor);
        let live = live.get(&registration).copied().unwrap_or_default();
        out.array(live.len() * 4);
        for (root, live) in live {
            let kind = kinds.iter().position(|kind| *kind == live.kind).unwrap_or_default();
            out.uint(root.number)
                .bytes(&root.hash.0)
                .uint(kind as u64)
                .uint(live.first);
        }
        let forgotten = forgotten.get(&registration).copied().unwrap_or_default();
        out.array(forgotten.len() * 2);
        for root in forgotten {
            out.uint(root.number).bytes(&root.hash.0);
        }
        if let Some(end) = bounds.end {
            out.uint(end);
        }
    }
}

/// The runs of a sorted list that belong to one registration each.
fn grouped<T>(list: &[T], registration: impl Fn(&T) -> RegistrationId) -> BTreeMap<RegistrationId, &[T]> {
    let groups = list.chunk_by(|one, two| registration(one) == registration(two));
    let keyed = groups.filter_map(|group| Some((registration(group.first()?), group)));
    keyed.collect()
}

/// Times of the live roots, in their order.
fn encode_sightings(ledger: &Ledger, sightings: &Sightings) -> Vec<u8> {
    let mut out = Writer::new();
    out.map(2).uint(0);
    sightings.time.encode(&mut out);
    out.uint(1).array(ledger.live.len() * 2);
    for root in ledger.live.keys() {
        let unknown = FirstSeen {
            not_at: None,
            at: sightings.time.seconds,
        };
        let seen = sightings.seen.get(root).copied().unwrap_or(unknown);
        // A clock that was put back makes no look before.
        let before = seen
            .not_at
            .and_then(|not_at| u64::try_from(seen.at.checked_sub(not_at)?).ok());
        out.int(seen.at)
            .uint(before.map_or(0, |before| before.saturating_add(1)));
    }
    out.finish()
}

/// A ledger that an owner of this vault has signed.
#[derive(Debug, Clone)]
pub struct OpenedLedger {
    /// What it states.
    pub ledger: Ledger,
    version: u8,
    epoch: u64,
    sealed: Vec<u8>,
}

/// Opens what [`seal_ledger`] made; a ledger that no owner signed is refused.
pub fn open_ledger(secrets: &Secrets, object: &[u8]) -> Result<OpenedLedger> {
    open_up_to(FORMAT_VERSION, secrets, object)
}

/// The same, for a program that knows versions up to `newest`.
fn open_up_to(newest: u8, secrets: &Secrets, object: &[u8]) -> Result<OpenedLedger> {
    let payload = open_notice_up_to(newest, secrets, NoticeKind::Ledger, object)?;
    let mut ledger = Ledger::default();
    let (mut number, mut kinds, mut epoch, mut sealed) = (None, Vec::new(), None, None);
    let mut reader = Reader::new(OBJECT, &payload);
    reader.map(|reader, key| {
        match key {
            0 => number = Some(reader.uint()?),
            1 => ledger.predecessors = read_names(reader, 2 * LEDGER_PREDECESSORS_MAX as u64)?,
            2 => kinds = read_kinds(reader)?,
            3 => read_registrations(reader, &kinds, &mut ledger)?,
            4 => ledger.dead = read_dead(reader)?,
            5 => {
                reader.array_of("configuration", 2)?;
                let heads = read_names(reader, ITEMS_MAX)?;
                let superseded = read_names(reader, ITEMS_MAX)?;
                ledger.configuration = InForce { heads, superseded };
            }
            6 => {
                reader.array_of("index runs", 2)?;
                let heads = read_numbered(reader)?;
                let superseded = read_numbered(reader)?;
                ledger.runs = InForce { heads, superseded };
            }
            7 => epoch = Some(reader.uint()?),
            8 => sealed = Some(reader.bytes("sealed part", LEDGER_MAX_BYTES)?.to_vec()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reader.end()?;
    ledger.number = required(OBJECT, "number", number)?;
    ledger.normalise();
    Ok(OpenedLedger {
        ledger,
        version: version(object),
        epoch: required(OBJECT, "key epoch", epoch)?,
        sealed: required(OBJECT, "sealed part", sealed)?,
    })
}

/// Appends to a list that must ascend strictly.
fn append<T: Ord>(reader: &Reader<'_>, list: &mut Vec<T>, item: T) -> Result<()> {
    if list.last().is_some_and(|last| *last >= item) {
        return Err(reader.malformed("a list out of order"));
    }
    list.push(item);
    Ok(())
}

/// How many groups of `items` an array holds.
fn groups(reader: &mut Reader<'_>, items: usize, limit: u64) -> Result<usize> {
    let count = reader.array("items of a list", limit)?;
    if count.is_multiple_of(items) {
        Ok(count / items)
    } else {
        Err(reader.malformed("a list with a part of an item"))
    }
}

fn read_names(reader: &mut Reader<'_>, limit: u64) -> Result<BTreeSet<LedgerName>> {
    let mut found = Vec::new();
    for _ in 0..groups(reader, 2, limit)? {
        let name = (reader.uint()?, RootId(reader.fixed()?));
        append(reader, &mut found, name)?;
    }
    Ok(found.into_iter().collect())
}

fn read_numbered(reader: &mut Reader<'_>) -> Result<BTreeSet<Numbered>> {
    let mut found = Vec::new();
    for _ in 0..groups(reader, 3, ITEMS_MAX)? {
        let object = Numbered {
            registration: RegistrationId(reader.fixed()?),
            number: reader.uint()?,
            hash: RootId(reader.fixed()?),
        };
        append(reader, &mut found, object)?;
    }
    Ok(found.into_iter().collect())
}

fn read_kinds(reader: &mut Reader<'_>) -> Result<Vec<KindWord>> {
    let mut kinds = Vec::new();
    for _ in 0..reader.array("kinds of roots", LEDGER_KINDS_MAX)? {
        let word = reader.text("kind of roots")?;
        let kind = KindWord::new(&word).ok_or_else(|| reader.malformed("a kind of roots that is no word"))?;
        append(reader, &mut kinds, kind)?;
    }
    Ok(kinds)
}

fn read_dead(reader: &mut Reader<'_>) -> Result<BTreeSet<RegistrationId>> {
    let (ids, rest) = reader.bytes("dead registrations", LEDGER_MAX_BYTES)?.as_chunks();
    if !rest.is_empty() || !ids.is_sorted_by(|one, two| one < two) {
        return Err(reader.malformed("dead registrations out of order"));
    }
    Ok(ids.iter().copied().map(RegistrationId).collect())
}

fn read_registrations(reader: &mut Reader<'_>, kinds: &[KindWord], ledger: &mut Ledger) -> Result<()> {
    let (mut last, mut forgotten) = (None, Vec::new());
    for _ in 0..reader.array("registrations", ITEMS_MAX)? {
        let items = reader.array("registration", 5)?;
        let registration = RegistrationId(reader.fixed()?);
        if last.replace(registration).is_some_and(|last| last >= registration) {
            return Err(reader.malformed("registrations out of order"));
        }
        let floor = reader.uint()?;
        let before = (ledger.live.len(), forgotten.len());
        read_live(reader, registration, kinds, ledger)?;
        for _ in 0..groups(reader, 2, ITEMS_MAX)? {
            let root = Numbered {
                registration,
                number: reader.uint()?,
                hash: RootId(reader.fixed()?),
            };
            append(reader, &mut forgotten, root)?;
        }
        let end = match items {
            4 => None,
            5 => Some(reader.uint()?),
            _ => return Err(reader.malformed("a registration of too few items")),
        };
        let bounds = Bounds { floor, end };
        if bounds != Bounds::default() {
            ledger.bounds.insert(registration, bounds);
        } else if before == (ledger.live.len(), forgotten.len()) {
            return Err(reader.malformed("a registration of which nothing is said"));
        }
    }
    ledger.forgotten = forgotten.into_iter().collect();
    Ok(())
}

fn read_live(
    reader: &mut Reader<'_>,
    registration: RegistrationId,
    kinds: &[KindWord],
    ledger: &mut Ledger,
) -> Result<()> {
    let mut last = None;
    for _ in 0..groups(reader, 4, ITEMS_MAX)? {
        let root = Numbered {
            registration,
            number: reader.uint()?,
            hash: RootId(reader.fixed()?),
        };
        if last.replace(root).is_some_and(|last| last >= root) {
            return Err(reader.malformed("a list out of order"));
        }
        let kind = usize::try_from(reader.uint()?).ok().and_then(|at| kinds.get(at));
        let live = Live {
            kind: *kind.ok_or_else(|| reader.malformed("a kind of roots that is not listed"))?,
            first: reader.uint()?,
        };
        ledger.live.insert(root, live);
    }
    Ok(())
}

impl OpenedLedger {
    /// Opens the part that is sealed to those who can read content; a writer gets [`WriterKey`](crate::Error::WriterKey).
    pub fn sightings(&self, secrets: &Secrets) -> Result<Sightings> {
        let aad = aad(self.version, &secrets.vault, self.ledger.number);
        let private = secrets
            .open_key(OBJECT, self.epoch)?
            .open(OBJECT, INFO, &aad, &self.sealed)?;
        let (mut time, mut seen) = (None, BTreeMap::new());
        let mut reader = Reader::new(OBJECT, &private);
        reader.map(|reader, key| {
            match key {
                0 => time = Some(Time::decode(reader)?),
                1 => {
                    reader.array_of("times of live roots", self.ledger.live.len() * 2)?;
                    for root in self.ledger.live.keys() {
                        let (at, before) = (reader.int()?, reader.uint()?);
                        let before = before.checked_sub(1).map(|before| at.saturating_sub_unsigned(before));
                        seen.insert(*root, FirstSeen { not_at: before, at });
                    }
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        Ok(Sightings {
            time: required(OBJECT, "time", time)?,
            seen,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::Counting;

    #[test]
    fn ledgers_of_an_old_version_open_beside_new_ones_after_the_version_is_raised() {
        let secrets = Secrets::generate(&mut Counting(0), VaultId([9; 16])).unwrap();
        let (ledger, sightings) = (Ledger::default(), Sightings::default());
        let [one, two] =
            [1, 2].map(|version| seal_as(version, &secrets, &ledger, &sightings, &mut Counting(1)).unwrap());
        for object in [&one, &two] {
            let opened = open_up_to(2, &secrets, object).unwrap();
            assert_eq!(
                (opened.sightings(&secrets).unwrap(), opened.ledger),
                (sightings.clone(), ledger.clone())
            );
        }
        assert!(open_up_to(1, &secrets, &one).is_ok());
        let refused = open_up_to(1, &secrets, &two).map(drop);
        assert!(
            matches!(refused, Err(crate::Error::Version { found: 2, known: 1, .. })),
            "{refused:?}"
        );
    }
}
