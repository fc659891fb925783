//! Taking data in: from bytes to packs that are durable, and what of them a root names.

pub(crate) mod admit;
pub(crate) mod budget;
pub(crate) mod commit;
pub(crate) mod edit;
pub(crate) mod flights;
pub(crate) mod flow;
pub(crate) mod frame_size;
pub(crate) mod ingest;
pub(crate) mod lane;
pub(crate) mod open_frames;
pub(crate) mod packer;
pub(crate) mod relied;
pub(crate) mod series;
pub(crate) mod shared;
pub(crate) mod writer;
