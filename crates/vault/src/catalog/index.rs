//! The index that a catalog goes by: the local one, or one that hosts share.

use std::path::Path;
use std::sync::Arc;

use drystone_index::{ChunkMap, Index, Options};

use crate::context::Context;
use crate::error::{Error, Result};

/// The index in `dir`, or the one that is shared; then `dir` has what only this machine knows.
pub(super) fn open_index(context: &Context, dir: &Path) -> Result<Arc<dyn ChunkMap>> {
    let Some(shared) = &context.chunk_map else {
        let memory_bytes = context.memory_bytes / 2;
        return Ok(Arc::new(Index::open(dir, Options { memory_bytes })?));
    };
    let made = std::fs::create_dir_all(dir);
    made.map_err(|source| Error::CacheDir {
        path: dir.to_owned(),
        source,
    })?;
    Ok(shared.clone())
}
