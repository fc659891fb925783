//! Why files cannot be read: one damaged pack is told once, however many files are in it.

use std::collections::HashSet;

use drystone_vault::Error;

/// Objects remembered: as many as problems are kept.
const OBJECTS_MAX: usize = 1000;
/// Letters of an object's name that tell it from others.
const NAME_LETTERS: usize = 14;

/// The damaged objects that were told before.
#[derive(Debug, Default)]
pub(crate) struct Causes(HashSet<String>);

impl Causes {
    /// Returns what to say of damage: all of it for the first file that an object costs, its short name for the others.
    pub(crate) fn tell(&mut self, error: &Error) -> String {
        let what = error.to_string();
        let object = match error {
            Error::Damaged { object, .. } | Error::WrongChunk { pack: object, .. } => object,
            _ => &what,
        };
        if self.0.contains(object) {
            let end = object
                .char_indices()
                .nth(NAME_LETTERS)
                .map_or(object.len(), |(end, _)| end);
            let is_object = object != &what;
            let short = object.get(..end).filter(|_| is_object);
            return short.map_or_else(
                || "damaged as the one above".to_owned(),
                |short| format!("{short}… is damaged, as said above"),
            );
        }
        if self.0.len() < OBJECTS_MAX {
            self.0.insert(object.clone());
        }
        what
    }
}
