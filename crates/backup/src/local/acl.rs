//! POSIX ACLs as Linux keeps them in extended attributes: whom they name, mapped to the accounts of another system, as text.
//!
//! - Layout (linux/posix_acl_xattr.h): u32 version 2, then for each rule u16 tag, u16 permissions, u32 id, little endian.
//! - Rules that meet in one account after mapping grant what all of them grant, so that nobody gains by it.

use drystone_format::tree::{AclId, Entry};

/// Says who may do what with a file or directory.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Says what new entries of a directory get.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";
/// The names under which XFS shows ACLs to root a second time. Set as they are, they would undo the mapping.
const COPIES: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

const VERSION: u32 = 2;
const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
/// The id of rules that name nobody.
const NOBODY: u32 = u32::MAX;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Rule {
    fn named(&self) -> Option<AclId> {
        match self.tag {
            USER => Some(AclId::User(self.id)),
            GROUP => Some(AclId::Group(self.id)),
            _ => None,
        }
    }
}

/// The rules of an ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Rule>);

/// Returns true for attributes that hold an ACL.
pub(crate) fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

/// Returns true for attributes that show an ACL a second time.
pub(crate) fn is_copy(name: &[u8]) -> bool {
    COPIES.contains(&name)
}

impl Acl {
    /// Reads the value of an attribute; `None` if it is not laid out as expected.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (version, rules) = value.split_first_chunk()?;
        let (rules, rest) = rules.as_chunks::<8>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return None;
        }
        let rule = |[a, b, c, d, id @ ..]: &[u8; 8]| Rule {
            tag: u16::from_le_bytes([*a, *b]),
            permissions: u16::from_le_bytes([*c, *d]),
            id: u32::from_le_bytes(*id),
        };
        Some(Self(rules.iter().map(rule).collect()))
    }

    /// The value of an attribute.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for Rule { tag, permissions, id } in &self.0 {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    /// The users and groups that it names.
    pub(crate) fn named(&self) -> impl Iterator<Item = AclId> {
        self.0.iter().filter_map(Rule::named)
    }

    /// Returns the permissions of the owning group. The group bits of a mode do not say them: with an ACL, those are its mask.
    pub(crate) fn group_permissions(&self) -> u32 {
        let of = |tag| self.0.iter().find(|rule| rule.tag == tag).map(|rule| rule.permissions);
        u32::from(of(GROUP_OBJ).unwrap_or(0) & of(MASK).unwrap_or(7))
    }

    /// Gives the rules to others: `to` returns the number for each user and group, or `None` to leave the rule out.
    pub(crate) fn map(&self, to: impl Fn(AclId) -> Option<u32>) -> Self {
        let mut rules: Vec<Rule> = Vec::with_capacity(self.0.len());
        for rule in &self.0 {
            match rule.named().map(&to) {
                None => rules.push(Rule { id: NOBODY, ..*rule }),
                Some(Some(id)) => rules.push(Rule { id, ..*rule }),
                Some(None) => {}
            }
        }
        rules.sort_by_key(|rule| (rule.tag, rule.id));
        rules.dedup_by(|later, first| {
            let is_same = (later.tag, later.id) == (first.tag, first.id);
            if is_same {
                first.permissions &= later.permissions;
            }
            is_same
        });
        Self(rules)
    }

    /// The text of a tar record, as star, GNU tar and bsdtar read it: names where they are known, then the numbers.
    pub(crate) fn text(&self, entry: &Entry) -> String {
        let rules = self.0.iter().map(|rule| {
            let kind = match rule.tag {
                USER_OBJ | USER => "user",
                GROUP_OBJ | GROUP => "group",
                MASK => "mask",
                OTHER => "other",
                _ => "unknown",
            };
            let bit = |bit: u16, letter| if rule.permissions & bit == 0 { '-' } else { letter };
            let permissions = String::from_iter([bit(4, 'r'), bit(2, 'w'), bit(1, 'x')]);
            let Some(id) = rule.named() else {
                return format!("{kind}::{permissions}");
            };
            match name_of(entry, id).filter(|name| is_plain(name)) {
                Some(name) => format!("{kind}:{name}:{permissions}:{}", rule.id),
                None => format!("{kind}:{}:{permissions}", rule.id),
            }
        });
        rules.collect::<Vec<_>>().join(",")
    }
}

/// The name of a user or group in an entry's ACLs, if it had one.
pub(crate) fn name_of(entry: &Entry, id: AclId) -> Option<&str> {
    let found = entry.acl_names.iter().find(|(named, _)| *named == id);
    found.map(|(_, name)| name.as_str())
}

/// Returns true for a name that can stand in an ACL's text, and is not taken for a number.
fn is_plain(name: &str) -> bool {
    let is_letter = |letter: char| !letter.is_whitespace() && !letter.is_control() && !":,#".contains(letter);
    name.chars().all(is_letter) && !name.chars().all(|letter| letter.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(rules: &[(u16, u16, u32)]) -> Acl {
        let rule = |(tag, permissions, id): &(u16, u16, u32)| Rule {
            tag: *tag,
            permissions: *permissions,
            id: *id,
        };
        Acl(rules.iter().map(rule).collect())
    }

    #[test]
    fn rules_follow_their_accounts_and_nobody_gains() {
        let one = acl(&[
            (USER_OBJ, 6, NOBODY),
            (USER, 7, 10),
            (USER, 5, 20),
            (USER, 4, 30),
            (GROUP_OBJ, 4, NOBODY),
            (GROUP, 6, 10),
            (MASK, 7, NOBODY),
            (OTHER, 0, NOBODY),
        ]);
        assert_eq!(Acl::decode(&one.encode()).unwrap(), one);
        let mapped = one.map(|id| match id {
            AclId::User(10 | 20) => Some(99),
            AclId::User(_) => None,
            AclId::Group(number) => Some(number + 1),
        });
        let expected = acl(&[
            (USER_OBJ, 6, NOBODY),
            (USER, 5, 99),
            (GROUP_OBJ, 4, NOBODY),
            (GROUP, 6, 11),
            (MASK, 7, NOBODY),
            (OTHER, 0, NOBODY),
        ]);
        assert_eq!(mapped, expected);
        assert!(Acl::decode(b"").is_none() && Acl::decode(&[1, 0, 0, 0]).is_none());
        assert!(Acl::decode(&one.encode()[..11]).is_none());
    }
}
