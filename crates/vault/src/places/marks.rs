//! The marks by which a place says which place of the vault it is, with their spare copies.

use std::sync::Arc;

use bytes::Bytes;
use drystone_format::keys::Secrets;
use drystone_format::places::PlaceMark;
use drystone_store::{Name, Range, Spares, Store};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::gc::deletion::delete_mark;
use crate::keyring::owner_key;
use crate::places::place::Place;
use crate::places::reach::{is_rotten, mark_at};
use crate::places::site::Site;

/// Writes at a place which it is, so many times more as spare copies; one that is not there is passed over.
pub(crate) fn put_mark(site: &Site, spares: u8, context: &Context, secrets: &Secrets) -> Result<()> {
    let Ok(store) = &site.store else { return Ok(()) };
    let mark = PlaceMark {
        vault: secrets.vault,
        place: site.entry.id,
    };
    let object = Bytes::from(mark.encode(owner_key(secrets)?)?);
    for (number, place) in (0_u8..).zip(mark_places(store, spares, context)) {
        place.put(&Name::place(), object.clone())?;
        if number == 0 && place.get(&Name::place(), Range::All)? != object {
            return Err(Error::PlaceTaken {
                place: store.place().to_owned(),
            });
        }
    }
    Ok(())
}

/// Where the mark of a place lies, and its spare copies.
fn mark_places(store: &Arc<dyn Store>, spares: u8, context: &Context) -> Vec<Place> {
    let spares = (1..=spares).map(|number| Arc::new(Spares::new(store.clone(), number)) as Arc<dyn Store>);
    let stores = std::iter::once(store.clone()).chain(spares);
    stores.map(|store| Place::new(store, context.runtime.clone())).collect()
}

/// The marks of a place that are not what was written, and those that are not there.
pub(crate) fn unsound_marks(site: &Site, spares: u8, context: &Context, secrets: &Secrets) -> Result<UnsoundMarks> {
    let mut unsound = UnsoundMarks::default();
    let Ok(store) = &site.store else { return Ok(unsound) };
    for (number, place) in (0_u8..).zip(mark_places(store, spares, context)) {
        match mark_at(place.store(), &context.runtime, secrets) {
            Ok(id) if id == site.entry.id => {}
            Ok(_) => unsound.rotten.push((Name::place().spare(number), place)),
            Err(error) if is_rotten(&error) => unsound.rotten.push((Name::place().spare(number), place)),
            Err(error) if error.is_damage() => unsound.missing.push(Name::place().spare(number)),
            Err(error) => return Err(error),
        }
    }
    Ok(unsound)
}

/// Marks that are not as they should be.
#[derive(Default)]
pub(crate) struct UnsoundMarks {
    /// Where one lies that is not what was written.
    pub(crate) rotten: Vec<(Name, Place)>,
    /// Which are not there.
    pub(crate) missing: Vec<Name>,
}

impl UnsoundMarks {
    /// The names of all of them.
    pub(crate) fn names(self) -> impl Iterator<Item = Name> {
        self.rotten.into_iter().map(|(name, _)| name).chain(self.missing)
    }
}

/// Writes the marks of a place anew that are `unsound`; says how many.
pub(crate) fn mend_marks(
    site: &Site,
    unsound: &UnsoundMarks,
    spares: u8,
    context: &Context,
    secrets: &Secrets,
) -> Result<usize> {
    unsound.rotten.iter().try_for_each(|(_, place)| delete_mark(place))?;
    let mended = unsound.rotten.len() + unsound.missing.len();
    if mended > 0 {
        put_mark(site, spares, context, secrets)?;
    }
    Ok(mended)
}
