//! Whose files use an extent: what sharing only within each owner's files goes by.
//!
//! - A file whose owner cannot be found out is of nobody, and shares with none.
//! - Memory is bounded: what was found out is forgotten, all together, when there is too much of it.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::space::{FileId, Space, Uses};

/// Owners remembered, 32 bytes each.
const OWNERS_MAX: usize = 1 << 20;

/// Owners of files that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Owners(RefCell<HashMap<FileId, Option<u32>>>);

impl Owners {
    /// Whether all files that use the one and the other belong to one user.
    pub(crate) fn are_one(&self, space: &dyn Space, one: &Uses, other: &Uses) -> bool {
        let files = one.list.iter().chain(&other.list).map(|found| found.file);
        let mut owners = files.map(|file| self.of(space, file));
        match owners.next() {
            Some(Some(first)) => owners.all(|owner| owner == Some(first)),
            _ => false,
        }
    }

    fn of(&self, space: &dyn Space, file: FileId) -> Option<u32> {
        if let Some(known) = self.0.borrow().get(&file) {
            return *known;
        }
        let owner = space.owner(file);
        let mut owners = self.0.borrow_mut();
        if owners.len() >= OWNERS_MAX {
            owners.clear();
        }
        owners.insert(file, owner);
        owner
    }
}
