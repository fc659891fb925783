//! What this machine knows: directories, attributes and their owners, file systems, and how much may be open at once.

pub(crate) mod accounts;
pub(crate) mod acl;
pub(crate) mod attributes;
pub(crate) mod descriptors;
pub(crate) mod dir;
pub(crate) mod listing;
pub(crate) mod names;
pub(crate) mod system;
