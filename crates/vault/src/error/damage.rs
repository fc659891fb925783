//! Which errors are damage of an object, and which say only that it cannot be had now.
//!
//! - Damage and absence are told apart, so that what may come back is never counted as lost.

use super::Error;

/// How Linux reports bytes that the medium or its file system lost: EIO, EBADMSG, EUCLEAN.
const MEDIUM_ERRORS: [i32; 3] = [5, 74, 117];

impl Error {
    /// Whether the bytes may well be there, at places that are not, or under keys that this one does not know: no reason to
    /// count them as lost.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Store(drystone_store::Error::TooFew { .. })
                | Self::NewerKeys { .. }
                | Self::Elsewhere { .. }
                | Self::Format(drystone_format::Error::Epoch { .. })
        )
    }

    /// Whether stored bytes are missing or altered, so that other objects may still be fine.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::WrongChunk { .. } | Self::MissingChunk { .. } => true,
            Self::NewerKeys { .. } | Self::Elsewhere { .. } => true,
            Self::Format(error) => !matches!(
                error,
                drystone_format::Error::WriterKey { .. }
                    | drystone_format::Error::Right { .. }
                    | drystone_format::Error::Epoch { .. }
                    | drystone_format::Error::Crypto(_)
            ),
            Self::Store(error) => match error {
                drystone_store::Error::NotFound { .. }
                | drystone_store::Error::Short { .. }
                | drystone_store::Error::TooLarge { .. }
                | drystone_store::Error::Unsound { .. }
                | drystone_store::Error::Foreign { .. }
                | drystone_store::Error::Lost { .. }
                | drystone_store::Error::TooFew { .. } => true,
                drystone_store::Error::Io { source, .. } => {
                    source.raw_os_error().is_some_and(|code| MEDIUM_ERRORS.contains(&code))
                }
                _ => false,
            },
            _ => false,
        }
    }
}

/// What is said of objects that their writers have not signed.
pub(crate) const COUNTS_FOR_NOBODY: &str = "it counts for nobody; remove it from the place if you do not know it";

/// Whether an object is what its name says, but not signed by whom its name says.
pub(crate) fn counts_for_nobody(error: &Error) -> bool {
    use drystone_format::Error as E;
    let Error::Damaged { source, .. } = error else {
        return false;
    };
    let is_foreign = matches!(source, E::Magic { .. } | E::Malformed { .. } | E::Limit { .. });
    is_foreign || matches!(source, E::Authentication { .. } | E::Signature { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(source: std::io::Error) -> Error {
        let (name, place) = ("packs/ab".to_owned(), "/backup".to_owned());
        Error::Store(drystone_store::Error::Io {
            name,
            place,
            during: "reading",
            source,
        })
    }

    #[test]
    fn a_bad_sector_is_damage_of_one_object_but_a_lack_of_file_handles_is_not() {
        assert!(reading(std::io::Error::from_raw_os_error(5)).is_damage());
        assert!(!reading(std::io::Error::from_raw_os_error(24)).is_damage());
        assert!(!reading(std::io::Error::other("unknown")).is_damage());
    }
}
