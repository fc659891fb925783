//! Roles: what a credential may do. Numbers: docs/format.md, "Keys".
//!
//! - What a role may do follows from this file alone.

/// What a credential may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything, reading included, and signing for the vault.
    Owner,
    /// Back up and deduplicate; neither read content nor vouch for anybody.
    Writer,
    /// Read and write, as a mounted volume or a peer does; sign nothing for the vault.
    Member,
    /// Read; what it signs counts for nobody.
    Reader,
}

impl Role {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Writer, Self::Member, Self::Reader];

    /// The word that people read and write.
    pub fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Writer => "writer",
            Self::Member => "member",
            Self::Reader => "reader",
        }
    }

    /// Returns true if the credential opens what is stored.
    pub fn may_read(self) -> bool {
        self != Self::Writer
    }

    /// Returns true if what the credential signs counts: packs, roots, presences.
    pub fn may_publish(self) -> bool {
        self != Self::Reader
    }

    /// Returns true if the credential signs for the vault: keys, configuration, what is forgotten and collected.
    pub fn may_govern(self) -> bool {
        self == Self::Owner
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Owner => 0,
            Self::Writer => 1,
            Self::Member => 2,
            Self::Reader => 3,
        }
    }

    /// The role with this code, unless only newer programs know it.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.code() == code)
    }
}
