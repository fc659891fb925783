//! What may be done to a vault: by this program, as it is configured, with this key.

use drystone_format::config::Features;

use crate::base::Base;
use crate::error::{Error, Result};
use crate::places::features::{Class, check, offered, refuse_unknown_kinds};

/// What an operation does to a vault beyond reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Stores objects: runs, keys, lists of verified packs, repairs.
    Store,
    /// Publishes another configuration.
    Change,
    /// Drops snapshots.
    Forget,
    /// Deletes what no root needs.
    Collect,
}

impl Act {
    /// The features without which it must not be done.
    fn classes(self) -> &'static [Class] {
        match self {
            Self::Store | Self::Change => &[Class::Write],
            Self::Forget | Self::Collect => &[Class::Write, Class::Collect],
        }
    }
}

impl Base {
    /// An error unless this program may do this to the vault as it is configured.
    pub(crate) fn allow(&self, act: Act) -> Result<()> {
        let (config, name) = (self.config(), self.place());
        if self.is_removed(&self.secrets.certificate.writer) {
            return Err(Error::KeyRemoved { place: name.to_owned() });
        }
        for class in act.classes() {
            check(config, *class, name)?;
        }
        match act {
            Act::Store | Act::Forget => self.standing().readable(name),
            Act::Change => self.standing().certain(name),
            Act::Collect => {
                refuse_unknown_kinds(config, name)?;
                self.standing().certain(name)
            }
        }
    }

    /// The features that this program knows and the vault does not need yet; `drystone vault upgrade` switches them on.
    pub fn upgrades(&self) -> Features {
        offered(self.config())
    }
}
