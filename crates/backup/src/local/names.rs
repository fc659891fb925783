//! Names of users and groups, as the account files of this machine have them.
//!
//! - Accounts from elsewhere (LDAP and the like) have no name here; their numbers are kept all the same.

use std::collections::HashMap;

/// Longest name that is kept, bytes: what Linux allows.
const NAME_MAX_BYTES: usize = 256;

/// Which name belongs to which number.
#[derive(Debug, Default)]
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// From the contents of `/etc/passwd` and `/etc/group`; lines that are not accounts are left out.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self {
            users: accounts(passwd),
            groups: accounts(group),
        }
    }

    /// From this machine's account files; empty where there are none.
    pub fn of_system() -> Self {
        let read = |path| std::fs::read(path).unwrap_or_default();
        Self::parse(&read("/etc/passwd"), &read("/etc/group"))
    }

    /// What tells these names from others.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for accounts in [&self.users, &self.groups] {
            let mut sorted: Vec<_> = accounts.iter().collect();
            sorted.sort_unstable();
            hasher.update(&(sorted.len() as u64).to_le_bytes());
            for (number, name) in sorted {
                hasher.update(&number.to_le_bytes());
                hasher
                    .update(&(name.len() as u64).to_le_bytes())
                    .update(name.as_bytes());
            }
        }
        hasher.finalize().into()
    }

    /// Name of a user; empty if there is none.
    pub fn user(&self, uid: u32) -> &str {
        self.users.get(&uid).map_or("", String::as_str)
    }

    /// Name of a group; empty if there is none.
    pub fn group(&self, gid: u32) -> &str {
        self.groups.get(&gid).map_or("", String::as_str)
    }
}

/// The lines `name:password:number:...`; the first of a number counts.
fn accounts(file: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in file.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':').map(str::from_utf8);
        let (Some(Ok(name)), Some(_), Some(Ok(number))) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if let (1..=NAME_MAX_BYTES, Ok(number)) = (name.len(), number.parse()) {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_and_noise_is_not() {
        let names = Names::parse(
            b"root:x:0:0::/:/bin/sh\n# note\nbad\n:x:7:\ntoor:x:0:0::/:\nu:x:4294967295:1::",
            b"adm:x:4:",
        );
        assert_eq!((names.user(0), names.user(7), names.user(u32::MAX)), ("root", "", "u"));
        assert_eq!((names.group(4), names.group(0)), ("adm", ""));
    }
}
