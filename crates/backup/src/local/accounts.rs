//! The users and groups of this system, by name.
//!
//! - As the account files have them; accounts from elsewhere (LDAP and the like) have no name here.

use std::collections::HashMap;
use std::path::Path;

use drystone_format::tree::AclId;

/// Users and groups of this system by name.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    pub(crate) users: HashMap<String, u32>,
    pub(crate) groups: HashMap<String, u32>,
}

impl Accounts {
    /// Reads the files that list them; one that cannot be read has no names.
    pub(crate) fn load() -> Self {
        let parse = |path: &str| -> HashMap<String, u32> {
            let text = std::fs::read(Path::new(path)).unwrap_or_default();
            let entry = |line: &str| {
                let mut fields = line.split(':');
                let (name, id) = (fields.next()?, fields.nth(1)?);
                Some((name.to_owned(), id.parse().ok()?))
            };
            String::from_utf8_lossy(&text).lines().filter_map(entry).collect()
        };
        Self {
            users: parse("/etc/passwd"),
            groups: parse("/etc/group"),
        }
    }

    /// Returns the number that a name has here.
    pub(crate) fn number(&self, id: AclId, name: &str) -> Option<u32> {
        let names = match id {
            AclId::User(_) => &self.users,
            AclId::Group(_) => &self.groups,
        };
        names.get(name).copied()
    }

    /// Returns true if somebody has this number here.
    pub(crate) fn has(&self, id: AclId) -> bool {
        match id {
            AclId::User(number) => self.users.values().any(|user| *user == number),
            AclId::Group(number) => self.groups.values().any(|group| *group == number),
        }
    }
}
